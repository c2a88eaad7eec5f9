//! An origin's buffer: it begins at a page, as that of `benches/peers/rma.c` does, so that no library copies from a better place.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

const BYTES: usize = 4096;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; BYTES]);

/// Whole pages.
pub struct Pages(Vec<Page>);

impl Pages {
    /// At least `len` bytes. All are written: of a page that never was, a copy reads the kernel's page of zeros, out of the
    /// nearest cache.
    pub fn filled(len: usize, byte: u8) -> Self {
        Self(vec![Page([byte; BYTES]); len.div_ceil(BYTES)])
    }
}

impl Deref for Pages {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for Pages {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_page_and_is_written() {
        for len in [1, BYTES, BYTES + 1, 3 << 20] {
            let mut pages = Pages::filled(len, 7);
            assert!(pages.as_ptr().addr().is_multiple_of(BYTES));
            assert!(pages.len() >= len && pages.len() < len + BYTES);
            assert!(pages.iter().all(|&byte| byte == 7));
            pages[len - 1] = 8;
            assert_eq!(pages[len - 1], 8);
        }
    }
}
