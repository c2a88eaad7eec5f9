//! Host memory on huge pages, the only one that a VE reaches (ve-memory 7.2), or why it is not on them.
//!
//! The reason travels in the descriptor, so that the rank that misses the pages says which setting its peer's host lacks.

use rustix::io::Errno;
use windlass_mem::SharedBytes;
use windlass_mem::sysv::{self, HUGE_PAGE_BYTES};
use windlass_wire::{Malformed, Put, Take};

/// Why a segment of the host is on small pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Small {
    /// Nobody asked for huge ones: its node has no VE that could use them.
    Untried,
    /// `WINDLASS_ROUTE` asks for files.
    Unwanted,
    /// They were refused.
    Refused {
        /// shmget's answer.
        errno: i32,
        /// Pages it takes.
        needed: u64,
        /// Pages that were free.
        free: u64,
    },
}

/// What the system says of its huge pages.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const MEMORY: &str = "/proc/meminfo";

/// A segment of at least `len` bytes on huge pages: its id and its bytes.
pub(crate) fn create(len: usize) -> Result<(i32, SharedBytes), Small> {
    let whole = len.checked_next_multiple_of(HUGE_PAGE_BYTES);
    let made = whole.map(|len| sysv::create(len, true));
    let errno = match made {
        Some(Ok(segment)) => return Ok(segment),
        Some(Err(error)) => error.errno().unwrap_or(Errno::IO),
        None => Errno::NOMEM,
    };
    Err(Small::Refused {
        errno: errno.raw_os_error(),
        needed: len.div_ceil(HUGE_PAGE_BYTES) as u64,
        free: free(|file| std::fs::read_to_string(format!("{POOL}/{file}")).ok()),
    })
}

/// Pages that are free and that nobody has reserved, by the pool's files.
fn free(read: impl Fn(&str) -> Option<String>) -> u64 {
    let number = |file: &str| -> Option<u64> { read(file)?.trim().parse().ok() };
    let free = number("free_hugepages").unwrap_or(0);
    free.saturating_sub(number("resv_hugepages").unwrap_or(0))
}

/// The setting that makes pages of 2 MiB: vm.nr_hugepages is about those of the default size.
fn setting(memory: &str) -> String {
    let size = memory
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"));
    let size = size.and_then(|size| size.trim().strip_suffix(" kB"));
    let default = size.and_then(|kib| kib.trim().parse::<usize>().ok());
    match default {
        Some(kib) if kib != HUGE_PAGE_BYTES >> 10 => format!("{POOL}/nr_hugepages"),
        _ => "vm.nr_hugepages".to_owned(),
    }
}

impl Small {
    pub(crate) fn put(self, put: &mut Put) {
        match self {
            Small::Untried => put.u8(0),
            Small::Unwanted => put.u8(2),
            Small::Refused {
                errno,
                needed,
                free,
            } => put.u8(1).raw(&errno.to_le_bytes()).u64(needed).u64(free),
        };
    }

    pub(crate) fn take(take: &mut Take<'_>) -> Result<Small, Malformed> {
        match take.u8()? {
            0 => Ok(Small::Untried),
            2 => Ok(Small::Unwanted),
            1 => Ok(Small::Refused {
                errno: i32::from_le_bytes(take.array()?),
                needed: take.u64()?,
                free: take.u64()?,
            }),
            other => Err(Malformed::Value {
                field: "why pages are small",
                value: other.into(),
            }),
        }
    }

    /// Why, and which setting would help.
    pub(crate) fn why(self) -> String {
        self.why_where(&std::fs::read_to_string(MEMORY).unwrap_or_default())
    }

    fn why_where(self, memory: &str) -> String {
        let (errno, needed, free) = match self {
            Small::Untried => return "it asked for none, since its node has no VE".to_owned(),
            Small::Unwanted => {
                return "WINDLASS_ROUTE names rsm, for files, and not vhshm".to_owned();
            }
            Small::Refused {
                errno,
                needed,
                free,
            } => (errno, needed, free),
        };
        let raise = setting(memory);
        let group = "set vm.hugetlb_shm_group to one of its groups";
        let pages = format!("it takes {needed} of 2 MiB, {free} are free");
        match Errno::from_raw_os_error(errno) {
            Errno::NOMEM => format!("{pages}: as root, raise {raise}"),
            Errno::PERM if free < needed => {
                format!("{pages}, and its user may have none: as root, {group} and raise {raise}")
            }
            Errno::PERM => format!("its user may have none: as root, {group}"),
            Errno::INVAL => format!(
                "a segment of {needed} of 2 MiB is refused: as root, raise kernel.shmmax (so answers a kernel without huge pages too)"
            ),
            Errno::NOSPC => {
                "the segments there may be are taken: as root, raise kernel.shmall or kernel.shmmni"
                    .to_owned()
            }
            other => format!("a segment of {needed} of 2 MiB is refused: {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno, needed: u64, free: u64) -> Small {
        Small::Refused {
            errno: errno.raw_os_error(),
            needed,
            free,
        }
    }

    #[test]
    fn each_cause_names_its_own_setting() {
        const USUAL: &str = "HugePages_Free:  3\nHugepagesize:       2048 kB\n";
        let names = [
            "vm.nr_hugepages",
            "vm.hugetlb_shm_group",
            "kernel.shmmax",
            "kernel.shmall",
            "no VE",
        ];
        for (small, named, counts) in [
            (refused(Errno::NOMEM, 8, 3), &names[..1], true),
            (refused(Errno::PERM, 8, 8), &names[1..2], false),
            (refused(Errno::PERM, 8, 3), &names[..2], true),
            (refused(Errno::INVAL, 8, 8), &names[2..3], true),
            (refused(Errno::NOSPC, 8, 8), &names[3..4], false),
            (refused(Errno::NOSYS, 8, 8), &[], true),
            (Small::Untried, &names[4..], false),
        ] {
            let why = small.why_where(USUAL);
            for name in names {
                assert_eq!(why.contains(name), named.contains(&name), "{name}: {why}");
            }
            assert_eq!(why.contains("8 of 2 MiB"), counts, "{why}");
        }
    }

    #[test]
    fn where_the_default_size_is_another_its_setting_is_not_named() {
        let none = refused(Errno::NOMEM, 8, 3);
        let why = none.why_where("Hugepagesize:    1048576 kB\n");
        assert!(why.contains("hugepages-2048kB/nr_hugepages"), "{why}");
        assert!(!why.contains("vm.nr_hugepages"), "{why}");
        assert!(none.why_where("").contains("vm.nr_hugepages"));
    }

    #[test]
    fn reasons_travel() {
        for small in [
            Small::Untried,
            Small::Unwanted,
            refused(Errno::PERM, u64::MAX, 7),
        ] {
            let mut put = Put::new();
            small.put(&mut put);
            let bytes = put.into_vec();
            let mut take = Take::new(&bytes);
            assert_eq!(Small::take(&mut take), Ok(small));
            for cut in 0..bytes.len() {
                assert!(Small::take(&mut Take::new(&bytes[..cut])).is_err());
            }
        }
        assert!(Small::take(&mut Take::new(&[3])).is_err());
    }

    #[test]
    fn reserved_pages_are_not_free() {
        let pool = |reserved: Option<&'static str>| {
            free(move |file| match file {
                "free_hugepages" => Some("9\n".into()),
                "resv_hugepages" => reserved.map(str::to_owned),
                _ => None,
            })
        };
        assert_eq!((pool(None), pool(Some("4\n"))), (9, 5));
        assert_eq!(free(|_| None), 0);
    }

    #[test]
    fn more_than_there_are_is_refused_with_the_kernels_reason() {
        // No machine has so many.
        let Err(Small::Refused {
            errno,
            needed,
            free,
        }) = create(1 << 46)
        else {
            panic!("2^46 bytes of huge pages");
        };
        assert_ne!(errno, 0);
        assert_eq!(needed, 1 << 25);
        assert!(free < needed);
        assert!(create(usize::MAX).is_err());
    }
}
