//! What lies behind addresses of this process: `/proc/self/maps`.

/// The object behind a shared mapping, and where in it a range begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backing {
    pub(crate) device: String,
    pub(crate) inode: u64,
    pub(crate) offset: u64,
}

/// Whether memory may be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Every page is mapped and may be read.
    pub readable: bool,
    /// Every page may be written.
    pub writable: bool,
}

struct Mapping<'a> {
    start: usize,
    end: usize,
    rights: &'a str,
    offset: u64,
    device: &'a str,
    inode: u64,
}

impl<'a> Mapping<'a> {
    /// `START-END RIGHTS OFFSET DEVICE INODE [NAME]`.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        Some(Self {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            rights: words.next()?,
            offset: u64::from_str_radix(words.next()?, 16).ok()?,
            device: words.next()?,
            inode: words.next()?.parse().ok()?,
        })
    }
}

/// The mappings that cover a range, without a gap; nothing if there is one.
fn cover(maps: &str, addr: usize, len: usize) -> Option<Vec<Mapping<'_>>> {
    let end = addr.checked_add(len)?;
    let mut at = addr;
    let mut found = Vec::new();
    for mapping in maps.lines().filter_map(Mapping::parse) {
        if mapping.end <= at {
            continue;
        }
        if mapping.start > at {
            return None;
        }
        at = mapping.end;
        found.push(mapping);
        if at >= end {
            return Some(found);
        }
    }
    None
}

/// What a caller may do with a range of its addresses. A range in no mapping may be nothing.
pub fn access(addr: usize, len: usize) -> Access {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let covered = cover(&maps, addr, len);
    let all = |right: char| {
        covered
            .iter()
            .flatten()
            .all(|mapping| mapping.rights.contains(right))
    };
    Access {
        readable: covered.is_some() && all('r'),
        writable: covered.is_some() && all('w'),
    }
}

/// The object behind a range, if the whole of it is one shared mapping of one object.
pub(crate) fn backing(addr: usize, len: usize) -> Option<Backing> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let found = cover(&maps, addr, len)?;
    let first = found.first()?;
    let object = |mapping: &Mapping<'_>| {
        let before = (mapping.start as u64).wrapping_sub(mapping.offset);
        (mapping.device.to_owned(), mapping.inode, before)
    };
    let whole = found
        .iter()
        .all(|mapping| mapping.rights.contains('s') && object(mapping) == object(first));
    whole.then(|| Backing {
        device: first.device.to_owned(),
        inode: first.inode,
        offset: (addr - first.start) as u64 + first.offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-3000 rw-s 00004000 00:01 77 /dev/zero
3000-4000 r--s 00006000 00:01 77 /dev/zero
4000-5000 rw-p 00000000 00:00 0
6000-7000 rw-s 00000000 00:01 78 /x
";

    #[test]
    fn a_range_is_covered_without_a_gap() {
        let parts = |addr, len| cover(MAPS, addr, len).map(|found| found.len());
        assert_eq!(parts(0x1000, 0x2000), Some(1));
        assert_eq!(parts(0x2fff, 2), Some(2));
        assert_eq!(parts(0x4fff, 1), Some(1));
        assert_eq!(parts(0x4fff, 2), None);
        assert_eq!(parts(0xfff, 2), None);
        assert_eq!(parts(0x6fff, 2), None);
        assert_eq!(parts(usize::MAX, 2), None);
    }

    #[test]
    fn memory_of_this_process_is_told_apart() {
        let local = [0u8; 8];
        let constant: &'static str = "constant";
        let readable = access(local.as_ptr().addr(), 8);
        assert!(readable.readable && readable.writable);
        let constant = access(constant.as_ptr().addr(), 8);
        assert!(constant.readable && !constant.writable);
        assert!(!access(8, 8).readable);
        assert_eq!(backing(local.as_ptr().addr(), 8), None, "private");
    }
}
