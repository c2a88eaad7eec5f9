//! 64-bit atomics, as `dat_ib_extensions.h` asks for them through `dat_extension_op` (section 8).

use std::ffi::{c_int, c_void};

use windlass_abi::dat::{self, Return, Triplet};
use windlass_dat::{DtoOperation, Result, Subtype};

use crate::edge::{NOT_IMPLEMENTED, edge, flags, load, local, remote};
use crate::ep::EpObject;
use crate::handle;

/// `DAT_IB_OP`.
const FETCH_AND_ADD: c_int = 0;
const CMP_AND_SWAP: c_int = 1;
/// `DAT_IB_DTO_EVENT`.
const DTO_EVENT: u32 = 0x40000;
/// `DAT_IB_OP_SUCCESS`, `DAT_IB_OP_ERR`.
const STATUS: [u64; 2] = [0, 1];

/// What a `va_list` of x86-64 points to (section 3.3).
#[repr(C)]
struct Arguments {
    gp_offset: u32,
    fp_offset: u32,
    overflow: *mut u64,
    saved: *mut u8,
}

impl Arguments {
    /// Bytes of saved general registers.
    const SAVED: u32 = 48;

    /// The next integer or pointer.
    ///
    /// # Safety
    /// The record is that of a `va_list` with a further argument of class INTEGER.
    unsafe fn next(&mut self) -> u64 {
        let place = if self.gp_offset < Self::SAVED {
            let place = self.saved.wrapping_add(self.gp_offset as usize).cast();
            self.gp_offset += 8;
            place
        } else {
            let place = self.overflow;
            self.overflow = self.overflow.wrapping_add(1);
            place
        };
        // SAFETY: where the psABI puts the argument that is there by the caller's promise.
        unsafe { place.read_unaligned() }
    }

    /// The next pointer to a triplet.
    ///
    /// # Safety
    /// As `next`; the pointer is null or to a triplet.
    unsafe fn triplet(&mut self, argument: Subtype) -> Result<Triplet> {
        // SAFETY: the caller's promise.
        unsafe {
            let address = self.next() as usize;
            load(
                std::ptr::with_exposed_provenance::<Triplet>(address),
                argument,
            )
        }
    }
}

pub(crate) unsafe extern "C" fn handle_extendedop(
    ep: dat::Handle,
    operation: c_int,
    list: *mut c_void,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        if !matches!(operation, FETCH_AND_ADD | CMP_AND_SWAP) || list.is_null() {
            return Err(NOT_IMPLEMENTED);
        }
        // SAFETY: libdat2 passes its va_list, not null, which is nobody else's during this call.
        let arguments = unsafe { &mut *list.cast::<Arguments>() };
        // SAFETY: the arguments of the two operations, in this order (dat_ib_extensions.h).
        unsafe {
            let first = arguments.next();
            if operation == FETCH_AND_ADD {
                let to = local(&arguments.triplet(Subtype::Arg3)?);
                let cookie = arguments.next();
                let at = remote(&arguments.triplet(Subtype::Arg5)?);
                let flags = flags(arguments.next() as u32, Subtype::Arg6)?;
                return held.ep.post_fetch_add(to, cookie, at, first, flags);
            }
            let swap = arguments.next();
            let to = local(&arguments.triplet(Subtype::Arg4)?);
            let cookie = arguments.next();
            let at = remote(&arguments.triplet(Subtype::Arg6)?);
            let flags = flags(arguments.next() as u32, Subtype::Arg7)?;
            let operands = (first, swap);
            held.ep.post_compare_swap(to, cookie, at, operands, flags)
        }
    })
}

/// Number and extension data of the completion of an atomic; nothing for another operation.
pub(crate) fn completion(operation: DtoOperation, success: bool) -> Option<(u32, [u64; 8])> {
    let kind = match operation {
        DtoOperation::FetchAdd => FETCH_AND_ADD,
        DtoOperation::CompareSwap => CMP_AND_SWAP,
        _ => return None,
    };
    let mut data = [0; 8];
    // `type` and `status`, 32 bits each.
    data[0] = u64::from(kind.unsigned_abs()) | STATUS[usize::from(!success)] << 32;
    Some((DTO_EVENT, data))
}
