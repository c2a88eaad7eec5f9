//! `veshm.h`, and the two registrations of `vedma.h` (ve-memory section 5).

use std::ffi::{c_int, c_longlong, c_void};

use libc::{pid_t, size_t};
use windlass_abi::veshm::{VE_ADDR_VEMVA, VE_MEM_LOCAL, VE_SHM_RO};
use windlass_ve::{Area, Attached, Errno, Error, Mode, PageMode, VeMemory, Vemva};

use crate::edge::{Answer, call};
use crate::seat::{Seat, seat};

/// What `ve_shared_mem_attach` answers on failure.
const FAILED: u64 = u64::MAX;

fn vemva(address: *const c_void) -> Vemva {
    Vemva::new(address.addr() as u64)
}

/// A size that is negative as a signed number is one that no range has (section 5.1, row 8).
fn bytes(size: size_t) -> u64 {
    size as u64
}

fn area(address: *const c_void, size: size_t, syncnum: c_int, mode_flag: c_longlong) -> Area {
    Area {
        vemva: vemva(address),
        size: bytes(size),
        syncnum,
        mode: Mode::new(mode_flag),
    }
}

/// `int ve_shared_mem_open(void *vemva, size_t size, int syncnum, long long mode_flag)` (section 5.1).
#[unsafe(no_mangle)]
pub extern "C" fn ve_shared_mem_open(
    address: *mut c_void,
    size: size_t,
    syncnum: c_int,
    mode_flag: c_longlong,
) -> c_int {
    call(-1, || {
        let seat = seat()?;
        let area = area(address, size, syncnum, mode_flag);
        // What is refused whatever memory is there moves none.
        match seat.process.check_open(&area) {
            Ok(()) => seat.take(address.addr(), size)?,
            Err(_) => seat.refresh(),
        }
        seat.process
            .veshm_open(area.vemva, area.size, syncnum, area.mode)?;
        Ok(0)
    })
}

const ATTACH: &str = "ve_shared_mem_attach";
const DETACH: &str = "ve_shared_mem_detach";

/// A refusal of what the program knows as `name`.
fn of(name: &'static str, seat: &Seat, error: Error) -> Error {
    match error {
        Error::Refused { errno, rule, .. } => Error::Refused {
            call: name,
            errno,
            rule: rule.map(|rule| seat.explain(errno, rule)),
        },
        other => other,
    }
}

/// `void *ve_shared_mem_attach(pid_t pid, void *veshm_vemva, size_t size, int syncnum, long long mode_flag)` (section 5.2).
#[unsafe(no_mangle)]
pub extern "C" fn ve_shared_mem_attach(
    pid: pid_t,
    address: *mut c_void,
    size: size_t,
    syncnum: c_int,
    mode_flag: c_longlong,
) -> *mut c_void {
    let attached = call(FAILED, || {
        attach(ATTACH, pid, address, size, syncnum, mode_flag)
    });
    std::ptr::with_exposed_provenance_mut(attached as usize)
}

fn attach(
    name: &'static str,
    pid: pid_t,
    address: *mut c_void,
    size: size_t,
    syncnum: c_int,
    mode_flag: c_longlong,
) -> Answer<u64> {
    let seat = seat()?;
    let area = area(address, size, syncnum, mode_flag);
    if pid == seat.process.pid() && seat.process.check_local(&area).is_ok() {
        seat.take(address.addr(), size)?;
    } else {
        seat.refresh();
    }
    let attached = seat
        .process
        .veshm_attach(pid, area.vemva, area.size, syncnum, area.mode)
        .map_err(|error| of(name, seat, error))?;
    match attached {
        Attached::Vehva(vehva) => Ok(vehva.raw()),
        Attached::Vemva(memory) => {
            if mode_flag & VE_SHM_RO != 0
                && let Err(refused) = forbid_stores(&memory)
            {
                // A failure here leaves what the end of the process undoes.
                let _ = seat.process.detach_vemva(memory.vemva);
                return Err(refused);
            }
            Ok(memory.vemva.raw())
        }
    }
}

/// Write protection holds for the processor's own stores too (section 5.2).
fn forbid_stores(memory: &VeMemory) -> Answer<()> {
    let bytes = &memory.bytes;
    let at = std::ptr::with_exposed_provenance_mut(bytes.addr());
    // SAFETY: the mapping is that of this attachment, which this library writes to by no other way.
    match unsafe { libc::mprotect(at, bytes.len(), libc::PROT_READ) } {
        0 => Ok(()),
        _ => Err(Errno::Enomem.into()),
    }
}

/// `int ve_shared_mem_detach(void *veshm_addr, long long mode_flag)` (section 5.3).
#[unsafe(no_mangle)]
pub extern "C" fn ve_shared_mem_detach(address: *mut c_void, mode_flag: c_longlong) -> c_int {
    call(-1, || detach(DETACH, address.addr() as u64, mode_flag))
}

fn detach(name: &'static str, address: u64, mode_flag: c_longlong) -> Answer<c_int> {
    let seat = seat()?;
    seat.refresh();
    seat.process
        .veshm_detach(address, Mode::new(mode_flag))
        .map_err(|error| of(name, seat, error))?;
    Ok(0)
}

/// `int ve_shared_mem_close(void *vemva, size_t size, int syncnum, long long mode_flag)` (section 5.4).
#[unsafe(no_mangle)]
pub extern "C" fn ve_shared_mem_close(
    address: *mut c_void,
    size: size_t,
    syncnum: c_int,
    mode_flag: c_longlong,
) -> c_int {
    call(-1, || {
        let seat = seat()?;
        seat.refresh();
        let mode = Mode::new(mode_flag);
        seat.process
            .veshm_close(vemva(address), bytes(size), syncnum, mode)?;
        Ok(0)
    })
}

/// `int ve_get_pgmode(long long mode_flag, int pid, void *address)` (section 5.5).
#[unsafe(no_mangle)]
pub extern "C" fn ve_get_pgmode(mode_flag: c_longlong, pid: c_int, address: *mut c_void) -> c_int {
    call(-1, || {
        let seat = seat()?;
        seat.refresh();
        let asked = seat
            .process
            .get_pgmode(PageMode(mode_flag), pid, address.addr() as u64);
        let size = match asked {
            Ok(size) => size,
            Err(refused) if matches!(refused.errno(), Errno::Einval | Errno::Efault) => {
                own_page(seat, mode_flag, pid, address.addr()).ok_or(refused)?
            }
            Err(refused) => return Err(of("ve_get_pgmode", seat, refused).into()),
        };
        c_int::try_from(size).map_err(|_| Errno::Ecanceled.into())
    })
}

/// On a VE all memory of a program has VE pages; here what no call has needed yet has none, and would have these.
fn own_page(seat: &Seat, mode_flag: c_longlong, pid: c_int, address: usize) -> Option<u64> {
    let own = mode_flag == VE_ADDR_VEMVA && pid == seat.process.pid();
    own.then(|| seat.page_of(address)).flatten()
}

/// `uint64_t ve_register_mem_to_dmaatb(void *vemva, size_t size)`: as an attach with VE_MEM_LOCAL.
#[unsafe(no_mangle)]
pub extern "C" fn ve_register_mem_to_dmaatb(address: *mut c_void, size: size_t) -> u64 {
    call(FAILED, || {
        let pid = seat()?.process.pid();
        let name = "ve_register_mem_to_dmaatb";
        attach(name, pid, address, size, 0, VE_MEM_LOCAL)
    })
}

/// `int ve_unregister_mem_from_dmaatb(uint64_t vehva)`.
#[unsafe(no_mangle)]
pub extern "C" fn ve_unregister_mem_from_dmaatb(vehva: u64) -> c_int {
    call(-1, || {
        detach("ve_unregister_mem_from_dmaatb", vehva, VE_MEM_LOCAL)
    })
}
