//! Data at addresses: numbered types, and layouts from `MPI_BOTTOM` on.

use windlass::Layout;
use windlass::layout::Basic;
use windlass::raw::Data;

use super::elem::Elem;
use super::program::Side;

/// The layout of one element, by the number of its type.
pub fn one(elem: Elem) -> Layout {
    let (code, align) = (elem.code(), elem.align() as u64);
    let basic = match *elem.data() {
        [(0, len)] => Basic::new(code, len as u64, align),
        [(0, first), (at, second)] => {
            Basic::pair(code, first as u64, at as u64, second as u64, align)
        }
        _ => unreachable!("an element has one or two pieces"),
    };
    Layout::basic(basic.expect("a predefined type"))
}

/// A layout and how many of it at which address.
pub struct Whole {
    pub address: *mut u8,
    pub count: u64,
    pub layout: Layout,
}

impl Whole {
    pub fn new(buffer: *mut u8, side: &Side) -> Whole {
        let layout = side.expr.layout(&one);
        let address = buffer.wrapping_add(side.base);
        if !side.bottom {
            return Whole {
                address,
                count: side.count,
                layout,
            };
        }
        // From `MPI_BOTTOM` on.
        let absolute = layout.hindexed([(address.expose_provenance() as i64, side.count)]);
        Whole {
            address: std::ptr::null_mut(),
            count: 1,
            layout: absolute.expect("an address has 63 bits"),
        }
    }

    pub fn data(&self) -> Data<'_, *mut u8> {
        Data {
            address: self.address,
            count: self.count,
            layout: &self.layout,
        }
    }

    pub fn source(&self) -> Data<'_, *const u8> {
        Data {
            address: self.address.cast_const(),
            count: self.count,
            layout: &self.layout,
        }
    }
}
