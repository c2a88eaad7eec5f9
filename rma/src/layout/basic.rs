//! The basic elements that layouts are made of.

use std::any::TypeId;
use std::fmt;

use windlass_runtime::update::Kind;

use super::LayoutError;
use crate::element::{self, Element};

/// One element of a predefined type or of a user's [`Element`] type: identity, bytes, alignment.
///
/// Two are equal if they are the same type; only then do they match in a
/// [`Signature`](super::Signature). An element of a predefined pair type may have padding,
/// which is no data (mpi-rma 3): puts and gets leave it alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Basic {
    id: Id,
    /// Bytes of data from offset 0 on.
    head: u64,
    /// Bytes of data that follow after a gap: their offset and number.
    tail: Option<(u64, u64)>,
    align: u64,
    extent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Type(TypeId, &'static str),
    Code(u32),
}

impl Basic {
    /// The element type `T`.
    pub fn of<T: Element>() -> Basic {
        const { element::check::<T>() };
        Basic {
            id: Id::Type(TypeId::of::<T>(), std::any::type_name::<T>()),
            head: size_of::<T>() as u64,
            tail: None,
            align: align_of::<T>() as u64,
            extent: size_of::<T>() as u64,
        }
    }

    /// The predefined type with number `code`, of `size` bytes of data; `size` rounded up to
    /// `align` is its extent. What the number means is up to who gives it.
    ///
    /// # Errors
    /// [`LayoutError::Basic`] unless `size` is positive, `align` a power of two and the extent at
    /// most 2^63 - 1.
    pub const fn new(code: u32, size: u64, align: u64) -> Result<Basic, LayoutError> {
        Basic::make(code, size, None, align)
    }

    /// The predefined pair type with number `code`: `first` bytes, and `second` bytes from offset
    /// `second_at` on, such as `MPI_SHORT_INT` of 2 bytes, a gap of 2 and 4 bytes.
    ///
    /// # Errors
    /// [`LayoutError::Basic`] as for [`new`](Self::new), or if the two overlap.
    pub const fn pair(
        code: u32,
        first: u64,
        second_at: u64,
        second: u64,
        align: u64,
    ) -> Result<Basic, LayoutError> {
        if second == 0 || first == 0 || second_at < first {
            return Err(LayoutError::Basic { code });
        }
        if second_at == first {
            return match first.checked_add(second) {
                Some(size) => Basic::make(code, size, None, align),
                None => Err(LayoutError::Basic { code }),
            };
        }
        Basic::make(code, first, Some((second_at, second)), align)
    }

    const fn make(
        code: u32,
        head: u64,
        tail: Option<(u64, u64)>,
        align: u64,
    ) -> Result<Basic, LayoutError> {
        let end = match tail {
            None => Some(head),
            Some((at, len)) => at.checked_add(len),
        };
        if let Some(end) = end
            && head > 0
            && align.is_power_of_two()
            && let Some(extent) = end.checked_next_multiple_of(align)
            && extent <= i64::MAX as u64
        {
            let id = Id::Code(code);
            return Ok(Basic {
                id,
                head,
                tail,
                align,
                extent,
            });
        }
        Err(LayoutError::Basic { code })
    }

    /// Bytes of data.
    pub const fn size(&self) -> u64 {
        match self.tail {
            None => self.head,
            Some((_, len)) => self.head + len,
        }
    }

    /// Bytes from one element of an array to the next: data and padding.
    pub const fn extent(&self) -> u64 {
        self.extent
    }

    /// Alignment in bytes, a power of two.
    pub const fn align(&self) -> u64 {
        self.align
    }

    /// The number given to [`new`](Self::new) or [`pair`](Self::pair).
    pub const fn code(&self) -> Option<u32> {
        match self.id {
            Id::Code(code) => Some(code),
            Id::Type(..) => None,
        }
    }

    /// The predefined type that the accumulate family knows it as, if it is one. A number is that
    /// of the [`Kind`].
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.id {
            Id::Code(code) => Kind::from_code(u8::try_from(code).ok()?),
            Id::Type(id, _) => element::kind_of(id),
        }
    }

    /// Is it the element type `T`?
    pub fn is<T: Element>(&self) -> bool {
        *self == Basic::of::<T>()
    }

    /// Is there padding, inside or at the end?
    pub const fn is_padded(&self) -> bool {
        self.size() != self.extent
    }

    /// The runs of data: offset and length.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, u64)> {
        std::iter::once((0, self.head)).chain(self.tail)
    }
}

impl fmt::Display for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Id::Type(_, name) => f.write_str(name),
            Id::Code(code) => write!(f, "basic({code:#x}, {} bytes)", self.size()),
        }
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_the_type_and_not_its_size() {
        assert_eq!(Basic::of::<f64>(), Basic::of::<f64>());
        assert_ne!(Basic::of::<f64>(), Basic::of::<u64>());
        assert_ne!(Basic::new(1, 8, 8), Basic::new(2, 8, 8));
        assert!(Basic::of::<f64>().is::<f64>() && !Basic::of::<f64>().is::<i64>());
        assert_eq!(Basic::new(0x214, 8, 8).unwrap().code(), Some(0x214));
        assert_eq!(Basic::of::<f64>().code(), None);
    }

    #[test]
    fn padding_of_pairs_is_no_data() {
        let short_int = Basic::pair(1, 2, 4, 4, 4).unwrap();
        assert_eq!((short_int.size(), short_int.extent()), (6, 8));
        assert_eq!(short_int.pieces().collect::<Vec<_>>(), [(0, 2), (4, 4)]);
        let double_int = Basic::pair(2, 8, 8, 4, 8).unwrap();
        assert_eq!((double_int.size(), double_int.extent()), (12, 16));
        assert!(double_int.is_padded());
        assert!(!Basic::pair(3, 4, 4, 4, 4).unwrap().is_padded());
    }

    #[test]
    fn rubbish_is_refused() {
        let huge = u64::MAX;
        for refused in [
            Basic::new(7, 0, 1),
            Basic::new(7, 8, 0),
            Basic::new(7, 8, 3),
            Basic::new(7, huge, 1),
            Basic::new(7, 1, 1 << 63),
            Basic::new(7, i64::MAX as u64, 2),
            Basic::pair(7, 8, 4, 4, 4),
            Basic::pair(7, 0, 4, 4, 4),
            Basic::pair(7, 4, 4, 0, 4),
            Basic::pair(7, 4, 4, huge, 4),
            Basic::pair(7, 4, huge, 4, 4),
        ] {
            assert_eq!(refused, Err(LayoutError::Basic { code: 7 }));
        }
        assert!(Basic::new(7, i64::MAX as u64, 1).is_ok());
    }
}
