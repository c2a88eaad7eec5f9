//! Info hints of a window (mpi-rma 2): advice, never fatal.
//!
//! Keys and values are MPI's, as text. A key that is not known and a value that is not understood
//! are ignored. [`Window::hints`](crate::Window::hints) answers what is in force: what promises
//! something about all ranks is in force only where all ranks gave it, and is so where it can be
//! checked.

/// Hints for the creation of a window.
///
/// ```
/// let hints = windlass::Hints::new().with("no_locks", "true").with("colour", "blue");
/// assert_eq!(hints.get("no_locks").as_deref(), Some("true"));
/// assert_eq!(hints.get("colour"), None, "a key that is not known is ignored");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hints {
    no_locks: bool,
    ordering: u8,
    same_op: bool,
    granularity: u64,
    same_size: bool,
    same_disp_unit: bool,
    alignment: usize,
    noncontig: bool,
    memory_kinds: Option<String>,
}

/// The orders of `accumulate_ordering`, by bit.
const ORDERS: [&str; 4] = ["rar", "raw", "war", "waw"];

/// The largest alignment that is honoured, in bytes: every process maps a segment at pages of its
/// own choice.
const MAX_ALIGNMENT: usize = 4096;

/// Promises about all ranks, as bits of a note.
const NO_LOCKS: u32 = 1;
const SAME_SIZE: u32 = 2;
const SAME_DISP_UNIT: u32 = 4;

impl Default for Hints {
    fn default() -> Hints {
        Hints {
            no_locks: false,
            ordering: 0b1111,
            same_op: false,
            granularity: 0,
            same_size: false,
            same_disp_unit: false,
            alignment: 1,
            noncontig: false,
            memory_kinds: None,
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

/// `none`, or a list of orders.
fn orders(value: &str) -> Option<u8> {
    if value == "none" {
        return Some(0);
    }
    value.split(',').try_fold(0, |orders, word| {
        let at = ORDERS.iter().position(|&order| order == word.trim())?;
        Some(orders | 1 << at)
    })
}

impl Hints {
    /// The defaults.
    pub fn new() -> Hints {
        Hints::default()
    }

    /// These hints with one more. A key that is not known, or a value that is not understood,
    /// changes nothing.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Hints {
        self.set(key, value);
        self
    }

    /// Sets one hint; `false` if it is ignored, because the key is not known or the value is not
    /// understood.
    pub fn set(&mut self, key: &str, value: &str) -> bool {
        let value = value.trim();
        self.try_set(key, value).is_some()
    }

    fn try_set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "no_locks" => self.no_locks = truth(value)?,
            "accumulate_ordering" => self.ordering = orders(value)?,
            "accumulate_ops" => {
                self.same_op = match value {
                    "same_op" => true,
                    "same_op_no_op" => false,
                    _ => return None,
                }
            }
            "mpi_accumulate_granularity" => self.granularity = value.parse().ok()?,
            "same_size" => self.same_size = truth(value)?,
            "same_disp_unit" => self.same_disp_unit = truth(value)?,
            "mpi_minimum_memory_alignment" => {
                let bytes = value.parse::<usize>().ok();
                let fits = |bytes: &usize| bytes.is_power_of_two() && *bytes <= MAX_ALIGNMENT;
                self.alignment = bytes.filter(fits)?;
            }
            "alloc_shared_noncontig" => self.noncontig = truth(value)?,
            "mpi_assert_memory_alloc_kinds" if value == "system" || value == "mpi" => {
                self.memory_kinds = Some(value.to_owned());
            }
            _ => return None,
        }
        Some(())
    }

    /// The value of one hint, if the key is known.
    pub fn get(&self, key: &str) -> Option<String> {
        let mut pairs = self.pairs().into_iter();
        pairs.find_map(|(known, value)| (known == key).then_some(value))
    }

    /// All keys that are known, with their values.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let orders: Vec<&str> = (0..ORDERS.len())
            .filter(|at| self.ordering & 1 << at != 0)
            .map(|at| ORDERS[at])
            .collect();
        let ordering = if orders.is_empty() {
            "none".to_owned()
        } else {
            orders.join(",")
        };
        let ops = if self.same_op {
            "same_op"
        } else {
            "same_op_no_op"
        };
        let mut pairs = vec![
            ("no_locks", self.no_locks.to_string()),
            ("accumulate_ordering", ordering),
            ("accumulate_ops", ops.to_owned()),
            ("mpi_accumulate_granularity", self.granularity.to_string()),
            ("same_size", self.same_size.to_string()),
            ("same_disp_unit", self.same_disp_unit.to_string()),
            ("mpi_minimum_memory_alignment", self.alignment.to_string()),
            ("alloc_shared_noncontig", self.noncontig.to_string()),
        ];
        let kinds = self.memory_kinds.iter();
        pairs.extend(kinds.map(|kinds| ("mpi_assert_memory_alloc_kinds", kinds.clone())));
        pairs
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

    /// What this rank promises about all ranks.
    pub(crate) fn promises(&self) -> u32 {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        bit(self.no_locks, NO_LOCKS)
            | bit(self.same_size, SAME_SIZE)
            | bit(self.same_disp_unit, SAME_DISP_UNIT)
    }

    /// These hints for a window that was made with `old`: where its memory lies is settled.
    pub(crate) fn after(&self, old: &Hints) -> Hints {
        Hints {
            alignment: old.alignment,
            noncontig: old.noncontig,
            ..self.clone()
        }
    }

    /// Keeps of the promises what all ranks gave and what is so: of ranks that differ, the safe
    /// default is taken (mpi-rma 2).
    pub(crate) fn agree(
        &mut self,
        parts: impl Iterator<Item = (u32, u64)>,
        extents: impl Iterator<Item = u64>,
    ) {
        fn same(mut values: impl Iterator<Item = u64>) -> bool {
            let first = values.next();
            values.all(|value| Some(value) == first)
        }
        let (promises, units): (Vec<u32>, Vec<u64>) = parts.unzip();
        let all = promises.iter().fold(u32::MAX, |all, one| all & one);
        self.no_locks = all & NO_LOCKS != 0;
        self.same_size = all & SAME_SIZE != 0 && same(extents);
        self.same_disp_unit = all & SAME_DISP_UNIT != 0 && same(units.into_iter());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_answered() {
        for (key, value) in [
            ("no_locks", "true"),
            ("accumulate_ordering", "none"),
            ("accumulate_ordering", "rar,waw"),
            ("accumulate_ops", "same_op"),
            ("mpi_accumulate_granularity", "8"),
            ("same_size", "true"),
            ("same_disp_unit", "true"),
            ("mpi_minimum_memory_alignment", "4096"),
            ("alloc_shared_noncontig", "true"),
            ("mpi_assert_memory_alloc_kinds", "system"),
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
    fn unknown_keys_and_malformed_values_change_nothing() {
        for (key, value) in [
            ("no_locks", "yes"),
            ("accumulate_ordering", "rar,wow"),
            ("accumulate_ops", ""),
            ("mpi_accumulate_granularity", "-1"),
            ("mpi_minimum_memory_alignment", "48"),
            ("mpi_minimum_memory_alignment", "9223372036854775808"),
            ("mpi_assert_memory_alloc_kinds", "gpu"),
            ("colour", "blue"),
        ] {
            let mut hints = Hints::new();
            assert!(!hints.set(key, value), "{key}={value}");
            assert_eq!(hints, Hints::new());
        }
    }

    #[test]
    fn a_promise_is_in_force_where_all_gave_it_and_it_is_so() {
        let promised = Hints::new()
            .with("no_locks", "true")
            .with("same_size", "true");
        let bits = promised.promises();
        let agreed = |promises: &[u32], extents: &[u64]| {
            let mut hints = promised.clone();
            let parts = promises.iter().map(|&promises| (promises, 8));
            hints.agree(parts, extents.iter().copied());
            (hints.no_locks, hints.same_size)
        };
        assert_eq!(agreed(&[bits, bits], &[8, 8]), (true, true));
        assert_eq!(agreed(&[bits, bits], &[8, 9]), (true, false));
        assert_eq!(agreed(&[bits, 0], &[8, 8]), (false, false));
    }
}
