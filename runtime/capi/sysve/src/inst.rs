//! `ve_inst.h`: LHM, SHM and fences as functions (ve-memory section 10).
//!
//! The field's header has the widths of 4 and 8 bytes; those of 1 and 2 are named as its 4 are. Its fences of caches (`fencec`)
//! have nothing to do here: all memory is coherent.
//!
//! An access that cannot be done is a signal, as the hardware's exception is: again and again while the program's handler returns
//! to it. A handler may leave by longjmp: when the signal is raised nothing here is to be undone.

use std::ffi::{c_int, c_void};

use windlass_ve::{Access, Fault, FaultKind, Fence, Vehva};

use crate::edge::code;
use crate::seat::seat;

/// `uint64_t ve_inst_lhm(void *vehva)`: lhm.l.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_lhm(vehva: *mut c_void) -> u64 {
    u64::from_le_bytes(load(vehva))
}

/// `uint32_t ve_inst_lhm32(void *vehva)`: lhm.w.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_lhm32(vehva: *mut c_void) -> u32 {
    u32::from_le_bytes(load(vehva))
}

/// `uint16_t ve_inst_lhm16(void *vehva)`: lhm.h.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_lhm16(vehva: *mut c_void) -> u16 {
    u16::from_le_bytes(load(vehva))
}

/// `uint8_t ve_inst_lhm8(void *vehva)`: lhm.b.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_lhm8(vehva: *mut c_void) -> u8 {
    u8::from_le_bytes(load(vehva))
}

/// `void ve_inst_shm(void *vehva, uint64_t value)`: shm.l.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_shm(vehva: *mut c_void, value: u64) {
    save(vehva, value.to_le_bytes());
}

/// `void ve_inst_shm32(void *vehva, uint32_t value)`: shm.w.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_shm32(vehva: *mut c_void, value: u32) {
    save(vehva, value.to_le_bytes());
}

/// `void ve_inst_shm16(void *vehva, uint16_t value)`: shm.h.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_shm16(vehva: *mut c_void, value: u16) {
    save(vehva, value.to_le_bytes());
}

/// `void ve_inst_shm8(void *vehva, uint8_t value)`: shm.b.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn ve_inst_shm8(vehva: *mut c_void, value: u8) {
    save(vehva, value.to_le_bytes());
}

/// `void ve_inst_fenceSF(void)`: fencem 1.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name of the C interface")]
pub extern "C" fn ve_inst_fenceSF() {
    fence(Fence::Stores);
}

/// `void ve_inst_fenceLF(void)`: fencem 2.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name of the C interface")]
pub extern "C" fn ve_inst_fenceLF() {
    fence(Fence::Loads);
}

/// `void ve_inst_fenceLSF(void)`: fencem 3.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name of the C interface")]
pub extern "C" fn ve_inst_fenceLSF() {
    fence(Fence::Both);
}

/// `void ve_inst_fenceC1(void)`: fencec 1.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name of the C interface")]
pub extern "C" fn ve_inst_fenceC1() {}

/// `void ve_inst_fenceC2(void)`: fencec 2.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name of the C interface")]
pub extern "C" fn ve_inst_fenceC2() {}

/// `void ve_inst_fenceC4(void)`: fencec 4.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name of the C interface")]
pub extern "C" fn ve_inst_fenceC4() {}

/// `void ve_inst_fenceC7(void)`: fencec 7.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name of the C interface")]
pub extern "C" fn ve_inst_fenceC7() {}

fn fence(which: Fence) {
    code((), || {
        if let Ok(seat) = seat() {
            seat.process.fence(which);
        }
    });
    // A process without a VE still has its own memory to order.
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Without a VE nothing is mapped anywhere.
fn nowhere(at: Vehva, access: Access) -> Fault {
    Fault {
        kind: FaultKind::MissingSpace,
        at,
        access,
    }
}

fn load<const WIDTH: usize>(vehva: *mut c_void) -> [u8; WIDTH] {
    let at = Vehva::new(vehva.addr() as u64);
    loop {
        let lost = nowhere(at, Access::Read);
        let loaded = code(Err(lost), || {
            let mut bytes = [0; WIDTH];
            let seat = seat().map_err(|_| lost)?;
            seat.process.lhm(at, &mut bytes).map(|()| bytes)
        });
        match loaded {
            Ok(bytes) => return bytes,
            Err(fault) => raise(fault),
        }
    }
}

fn save<const WIDTH: usize>(vehva: *mut c_void, bytes: [u8; WIDTH]) {
    let at = Vehva::new(vehva.addr() as u64);
    loop {
        let lost = nowhere(at, Access::Write);
        let saved = code(Err(lost), || {
            let seat = seat().map_err(|_| lost)?;
            seat.process.shm(at, &bytes)
        });
        match saved {
            Ok(()) => return,
            Err(fault) => raise(fault),
        }
    }
}

// asm-generic/siginfo.h
const SEGV_MAPERR: c_int = 1;
const SEGV_ACCERR: c_int = 2;
const BUS_ADRERR: c_int = 2;

/// `siginfo_t` of a fault.
#[repr(C)]
struct Info {
    signal: c_int,
    errno: c_int,
    code: c_int,
    addr: *mut c_void,
    rest: [u64; 13],
}

const _: () = assert!(size_of::<Info>() == size_of::<libc::siginfo_t>());

/// In the checking mode: why the program gets a signal.
fn tell(fault: Fault) {
    let Ok(seat) = seat() else { return };
    let address = fault.at.raw();
    let access = match fault.access {
        Access::Read => "ve_inst_lhm",
        Access::Write => "ve_inst_shm",
    };
    let vehva = matches!(fault.kind, FaultKind::MissingSpace | FaultKind::MissingPage);
    let hint = if vehva {
        "; a VEHVA is what a registration or an attach to VEHVA answers, no pointer"
    } else {
        ""
    };
    seat.warn(&format!(
        "{access} at {address:#x}: {}{hint} (ve-memory 10)",
        fault.kind
    ));
}

/// Raises the signal of section 10 in this thread. An exception cannot be blocked or ignored: then the default action, death.
fn raise(fault: Fault) {
    code((), || tell(fault));
    let (signal, code) = match fault.kind {
        FaultKind::MissingPage | FaultKind::MissingSpace | FaultKind::MemoryAccess => {
            (libc::SIGSEGV, SEGV_MAPERR)
        }
        FaultKind::MemoryProtection => (libc::SIGSEGV, SEGV_ACCERR),
        FaultKind::Io => (libc::SIGBUS, BUS_ADRERR),
    };
    let info = Info {
        signal,
        errno: 0,
        code,
        addr: std::ptr::with_exposed_provenance_mut(fault.at.raw() as usize),
        rest: [0; 13],
    };
    // SAFETY: the calls read and write locals of their types, which all-zero bytes initialise; a thread may send itself any
    // signal with any description, which the kernel copies. What a handler does is the program's.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut mask);
        libc::sigaction(signal, std::ptr::null(), &raw mut action);
        let blocked = libc::sigismember(&raw const mask, signal) == 1;
        if blocked || action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            libc::sigdelset(&raw mut mask, signal);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        }
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            libc::getpid(),
            libc::gettid(),
            signal,
            &raw const info,
        );
    }
}
