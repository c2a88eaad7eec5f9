//! Info hints of a window (mpi-rma 2): advice, never fatal.
//!
//! Keys and values are MPI's, as text. A value that is not understood is ignored, and so is a key
//! that nothing here acts on: it is not reported either. Of MPI's keys those are
//! `accumulate_ordering`, `accumulate_ops` and `mpi_accumulate_granularity` (all orders hold, all
//! operators mix, whatever they say), `same_size` and `same_disp_unit` (every rank knows all parts
//! anyhow) and the memory kinds (all buffers are system memory).
//!
//! `windlass_read_only` is our own: the other ranks only read the part that this rank allocates, where it can. Where all ranks of
//! the window live on the host of one node, they get it with no right to write: an operation that would is an error
//! ([`Error::Transfer`](crate::Error::Transfer)), and so is any other way. Elsewhere it has no effect.
//!
//! [`Window::hints`](crate::Window::hints) answers what is in force: what promises something about
//! all ranks is in force only where all ranks gave it.

/// Hints for the creation of a window.
///
/// ```
/// let hints = windlass::Hints::new().with("no_locks", "true").with("same_size", "true");
/// assert_eq!(hints.get("no_locks").as_deref(), Some("true"));
/// assert_eq!(hints.get("same_size"), None, "a key without an effect is ignored");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hints {
    no_locks: bool,
    alignment: usize,
    noncontig: bool,
    read_only: bool,
}

/// The largest alignment that is honoured, in bytes: every process maps a segment at pages of its
/// own choice.
const MAX_ALIGNMENT: usize = 4096;

/// A promise about all ranks, as a bit of a note.
const NO_LOCKS: u32 = 1;

impl Default for Hints {
    fn default() -> Hints {
        Hints {
            no_locks: false,
            alignment: 1,
            noncontig: false,
            read_only: false,
        }
    }
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

impl Hints {
    /// The defaults.
    pub fn new() -> Hints {
        Hints::default()
    }

    /// These hints with one more. A key without an effect, or a value that is not understood,
    /// changes nothing.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Hints {
        self.set(key, value);
        self
    }

    /// Sets one hint; `false` if it is ignored, because the key has no effect or the value is not
    /// understood.
    pub fn set(&mut self, key: &str, value: &str) -> bool {
        let value = value.trim();
        self.try_set(key, value).is_some()
    }

    fn try_set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "no_locks" => self.no_locks = truth(value)?,
            "mpi_minimum_memory_alignment" => {
                let bytes = value.parse::<usize>().ok();
                let fits = |bytes: &usize| bytes.is_power_of_two() && *bytes <= MAX_ALIGNMENT;
                self.alignment = bytes.filter(fits)?;
            }
            "alloc_shared_noncontig" => self.noncontig = truth(value)?,
            "windlass_read_only" => self.read_only = truth(value)?,
            _ => return None,
        }
        Some(())
    }

    /// The value of one hint, if the key has an effect.
    pub fn get(&self, key: &str) -> Option<String> {
        let mut pairs = self.pairs().into_iter();
        pairs.find_map(|(known, value)| (known == key).then_some(value))
    }

    /// All keys that have an effect, with their values.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        vec![
            ("no_locks", self.no_locks.to_string()),
            ("mpi_minimum_memory_alignment", self.alignment.to_string()),
            ("alloc_shared_noncontig", self.noncontig.to_string()),
            ("windlass_read_only", self.read_only.to_string()),
        ]
    }

    /// Are lock and lock_all never used?
    pub(crate) fn no_locks(&self) -> bool {
        self.no_locks
    }

    /// The alignment asked for, in bytes.
    pub(crate) fn alignment(&self) -> usize {
        self.alignment
    }

    /// May the parts of a shared window be placed and padded freely?
    pub(crate) fn noncontig(&self) -> bool {
        self.noncontig
    }

    /// Is the part that this rank allocates only read by others?
    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    /// What this rank promises about all ranks.
    pub(crate) fn promises(&self) -> u32 {
        if self.no_locks { NO_LOCKS } else { 0 }
    }

    /// These hints for a window that was made with `old`: where its memory lies is settled.
    pub(crate) fn after(&self, old: &Hints) -> Hints {
        Hints {
            no_locks: self.no_locks,
            ..old.clone()
        }
    }

    /// Keeps of the promises what all ranks gave: of ranks that differ, the safe default is taken
    /// (mpi-rma 2).
    pub(crate) fn agree(&mut self, promises: impl Iterator<Item = u32>) {
        let all = promises.fold(u32::MAX, |all, one| all & one);
        self.no_locks = all & NO_LOCKS != 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_answered() {
        for (key, value) in [
            ("no_locks", "true"),
            ("mpi_minimum_memory_alignment", "4096"),
            ("alloc_shared_noncontig", "true"),
        ] {
            let mut hints = Hints::new();
            assert_ne!(
                hints.get(key).as_deref(),
                Some(value),
                "{key} has another default"
            );
            assert!(hints.set(key, value), "{key}");
            assert_eq!(hints.get(key).as_deref(), Some(value), "{key}");
        }
    }

    #[test]
    fn malformed_values_and_keys_without_effect_change_nothing_and_are_not_told() {
        for (key, value) in [
            ("no_locks", "yes"),
            ("mpi_minimum_memory_alignment", "48"),
            ("mpi_minimum_memory_alignment", "9223372036854775808"),
            ("accumulate_ordering", "none"),
            ("accumulate_ops", "same_op"),
            ("mpi_accumulate_granularity", "8"),
            ("same_size", "true"),
            ("same_disp_unit", "true"),
            ("mpi_assert_memory_alloc_kinds", "system"),
            ("colour", "blue"),
        ] {
            let mut hints = Hints::new();
            assert!(!hints.set(key, value), "{key}={value}");
            assert_eq!(hints, Hints::new());
            assert_ne!(hints.get(key).as_deref(), Some(value), "{key}");
        }
    }

    #[test]
    fn a_promise_is_in_force_where_all_gave_it() {
        let promised = Hints::new().with("no_locks", "true");
        let agreed = |promises: &[u32]| {
            let mut hints = promised.clone();
            hints.agree(promises.iter().copied());
            hints.no_locks
        };
        assert!(agreed(&[promised.promises(); 2]));
        assert!(!agreed(&[promised.promises(), 0]));
    }
}
