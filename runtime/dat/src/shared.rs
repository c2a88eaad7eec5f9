//! Registrations that several processes share by an id (udapl.md section 4.2, shared virtual).
//!
//! Whoever comes first defines what the id means: an object behind a shared mapping, an offset in it, a length. Others
//! that name the id must map the same. The host-wide table of that is the kernel's own of abstract socket names: each
//! registration binds one that says user, id and object, and it goes with the registration or with its process, however
//! that ends. The names are per network namespace and per user. A stranger of the same user can only make a
//! registration fail: nobody gets at memory through the table, since each process registers what it maps itself.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use windlass_mem::SharedBytes;

use crate::maps::{self, Backing};
use crate::ret::{Error, Result, Subtype};

/// How often a name is tried that a registration with the same number holds.
const NUMBERS: u32 = 4096;

/// One registration's entry in the host's table: held as long as it lives.
pub(crate) struct Claim {
    _name: OwnedFd,
}

/// 64-bit FNV-1a over the id, once with each of two offsets: a name of fixed length. Only to tell ids apart; a
/// collision refuses a registration, it never joins two.
fn digest(id: &[u8; 40]) -> [u64; 2] {
    [0xcbf2_9ce4_8422_2325, 0x6c62_272e_07bb_0142].map(|start| {
        id.iter().fold(start, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    })
}

impl Claim {
    /// Enters a registration of these pages under the id.
    ///
    /// # Errors
    /// INVALID_STATE for pages of no shared mapping, or others than the id's; INVALID_PARAMETER (ARG4) for another
    /// length; INSUFFICIENT_RESOURCES where the table has no room.
    pub(crate) fn make(id: &[u8; 40], bytes: &SharedBytes) -> Result<Self> {
        let backing = maps::backing(bytes.addr(), bytes.len());
        let backing = backing.ok_or(Error::state(Subtype::None))?;
        let [high, low] = digest(id);
        let user = rustix::process::getuid().as_raw();
        let whose = format!("windlass-dat/{user}/{high:016x}{low:016x}/");
        let what = describe(&backing, bytes.len());
        // First the own name, then a look at the others': of two that come at once, at least one sees the other.
        let claim = enter(&whose, &what)?;
        let taken = std::fs::read_to_string("/proc/net/unix");
        let taken = taken.map_err(|_| Error::resources(Subtype::MemoryRegion))?;
        let prefix = format!("@{whose}");
        for other in taken.lines().filter_map(|line| line.split(&*prefix).nth(1)) {
            let mut parts = other.split('+');
            let (object, len) = (parts.next(), parts.next());
            let (mine, my_len) = what.split_once('+').unwrap_or_default();
            if object != Some(mine) {
                return Err(Error::state(Subtype::None));
            }
            if len != Some(my_len) {
                return Err(Error::arg(Subtype::Arg4));
            }
        }
        Ok(claim)
    }
}

/// `DEVICE:INODE:OFFSET+LENGTH`.
fn describe(backing: &Backing, len: usize) -> String {
    let Backing {
        device,
        inode,
        offset,
    } = backing;
    format!("{device}:{inode:x}:{offset:x}+{len:x}")
}

/// Binds a name that nobody else has: the last part only tells registrations of the same pages apart.
fn enter(whose: &str, what: &str) -> Result<Claim> {
    let full = Error::resources(Subtype::MemoryRegion);
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let socket = socket.map_err(|_| full)?;
    for number in 0..NUMBERS {
        let name = format!("{whose}{what}+{number:x}");
        let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(|_| full)?;
        match rustix::net::bind(&socket, &name) {
            Ok(()) => return Ok(Claim { _name: socket }),
            Err(rustix::io::Errno::ADDRINUSE) => {}
            Err(_) => return Err(full),
        }
    }
    Err(full)
}
