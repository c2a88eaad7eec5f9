//! Copies by code the compiler cannot see into.
//!
//! A plain declaration of `memcpy` would not do: the compiler knows the name, may turn the call into loads and
//! stores of its own, and these would race. On x86-64 the call is written in assembly; elsewhere it goes through a
//! function pointer hidden from the optimiser.

pub(crate) use imp::{load, move_shared, set, store};

#[cfg(not(miri))]
mod imp {
    /// # Safety
    /// As for `memmove` of C: `to` writable, `from` readable for `len` bytes; they may overlap.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) unsafe fn move_shared(to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: a call of libc's memmove by the System V convention: arguments in rdi, rsi, rdx, everything the
        // convention lets a function change is declared changed, and without `nostack` the stack is aligned for a
        // call. Its memory effects are the caller's promise.
        unsafe {
            std::arch::asm!(
                "call {function}",
                function = sym libc::memmove,
                in("rdi") to,
                in("rsi") from,
                in("rdx") len,
                clobber_abi("C"),
            );
        }
    }

    /// # Safety
    /// As for `memset` of C: `to` writable for `len` bytes.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) unsafe fn set(to: *mut u8, byte: u8, len: usize) {
        // SAFETY: as in `move_shared`; memset takes the byte as an int in esi.
        unsafe {
            std::arch::asm!(
                "call {function}",
                function = sym libc::memset,
                in("rdi") to,
                in("esi") u32::from(byte),
                in("rdx") len,
                clobber_abi("C"),
            );
        }
    }

    /// # Safety
    /// As for `memmove` of C: `to` writable, `from` readable for `len` bytes; they may overlap.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) unsafe fn move_shared(to: *mut u8, from: *const u8, len: usize) {
        type Move = unsafe extern "C" fn(
            *mut std::ffi::c_void,
            *const std::ffi::c_void,
            usize,
        ) -> *mut std::ffi::c_void;
        let function: Move = std::hint::black_box(libc::memmove as Move);
        // SAFETY: the function is libc's memmove; its obligations are the caller's promise.
        unsafe { function(to.cast(), from.cast(), len) };
    }

    /// # Safety
    /// As for `memset` of C: `to` writable for `len` bytes.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) unsafe fn set(to: *mut u8, byte: u8, len: usize) {
        type Set = unsafe extern "C" fn(*mut std::ffi::c_void, i32, usize) -> *mut std::ffi::c_void;
        let function: Set = std::hint::black_box(libc::memset as Set);
        // SAFETY: the function is libc's memset; its obligations are the caller's promise.
        unsafe { function(to.cast(), i32::from(byte), len) };
    }

    pub(crate) use move_shared as load;
    pub(crate) use move_shared as store;
}

/// The same for the interpreter, which has no assembly and sees every race: byte by byte, atomic on the shared side.
#[cfg(miri)]
mod imp {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    pub(crate) unsafe fn store(to: *mut u8, from: *const u8, len: usize) {
        for i in 0..len {
            // SAFETY: `i < len`; the sides are the caller's promise.
            unsafe { AtomicU8::from_ptr(to.add(i)).store(from.add(i).read(), Relaxed) };
        }
    }

    pub(crate) unsafe fn load(to: *mut u8, from: *mut u8, len: usize) {
        for i in 0..len {
            // SAFETY: `i < len`; the sides are the caller's promise.
            unsafe {
                to.add(i)
                    .write(AtomicU8::from_ptr(from.add(i)).load(Relaxed))
            };
        }
    }

    pub(crate) unsafe fn move_shared(to: *mut u8, from: *mut u8, len: usize) {
        let mut aside = vec![0u8; len];
        // SAFETY: the copy aside overlaps nothing; the sides are the caller's promise.
        unsafe {
            load(aside.as_mut_ptr(), from, len);
            store(to, aside.as_ptr(), len);
        }
    }

    pub(crate) unsafe fn set(to: *mut u8, byte: u8, len: usize) {
        for i in 0..len {
            // SAFETY: `i < len`; the range is the caller's promise.
            unsafe { AtomicU8::from_ptr(to.add(i)).store(byte, Relaxed) };
        }
    }
}
