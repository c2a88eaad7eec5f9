//! Which contexts of a node are taken, and how many have not left them yet.
//!
//! A bitmap has a bit for each context that is taken. Each context counts who is inside: the
//! members that its taker announced, less those that have left. The last to leave puts the words
//! back and clears the bit; a rank of another node that leaves last changes only the count, and
//! whoever finds all bits set looks for such contexts.
//!
//! The words are reached through [`Words`] alone, so that the same code runs in a control segment
//! and under a model checker.

/// In the count of a context: it is in use.
const OPEN: u64 = 1 << 32;

/// A word of the bookkeeping.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Book {
    /// The 64 bits that begin with this context's.
    Taken(u32),
    /// Who is inside this context.
    Inside(u32),
}

/// The words. Every change acquires and releases.
pub(crate) trait Words {
    /// How many contexts there are. A multiple of 64 or less than 64.
    fn count(&self) -> u32;
    fn load(&self, word: Book) -> u64;
    fn swap(&self, word: Book, value: u64);
    fn fetch_or(&self, word: Book, bits: u64) -> u64;
    fn fetch_and(&self, word: Book, bits: u64) -> u64;
    fn fetch_sub(&self, word: Book, n: u64) -> u64;
    /// Replaces `old` by `new`; is it done?
    fn replace(&self, word: Book, old: u64, new: u64) -> bool;
    /// Puts the words of a context that all have left back to 0.
    fn clear(&self, context: u32);
}

/// Takes the lowest context that is free, for so many who will leave it. `None` if none is.
pub(crate) fn take(words: &impl Words, leavers: u32) -> Option<u32> {
    let context = take_bit(words).or_else(|| {
        sweep(words);
        take_bit(words)
    })?;
    words.swap(Book::Inside(context), OPEN | u64::from(leavers));
    Some(context)
}

fn take_bit(words: &impl Words) -> Option<u32> {
    for first in (0..words.count()).step_by(64) {
        let mut taken = words.load(Book::Taken(first));
        while taken != u64::MAX {
            let free = taken.trailing_ones();
            taken = words.fetch_or(Book::Taken(first), 1 << free);
            if taken >> free & 1 == 0 {
                return Some(first + free);
            }
        }
    }
    None
}

/// Frees a context that was taken and never used.
pub(crate) fn give_back(words: &impl Words, context: u32) {
    words.swap(Book::Inside(context), 0);
    free_bit(words, context);
}

fn free_bit(words: &impl Words, context: u32) {
    words.fetch_and(Book::Taken(context / 64 * 64), !(1 << (context % 64)));
}

/// One who is inside leaves; the last one frees the context.
pub(crate) fn leave(words: &impl Words, context: u32) {
    if words.fetch_sub(Book::Inside(context), 1) == OPEN | 1 {
        retire(words, context);
    }
}

/// Frees a context that all have left. One of those who see it does.
fn retire(words: &impl Words, context: u32) {
    if words.replace(Book::Inside(context), OPEN, 0) {
        words.clear(context);
        free_bit(words, context);
    }
}

/// Frees what ranks of other nodes were the last to leave.
fn sweep(words: &impl Words) {
    for context in 0..words.count() {
        if words.load(Book::Inside(context)) == OPEN {
            retire(words, context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};

    /// The context that can be taken; all others are.
    const ONLY: u32 = 1;

    struct Model {
        taken: AtomicU64,
        inside: AtomicU64,
        /// What the members use: a model checker refuses accesses that are not ordered.
        used: UnsafeCell<u32>,
    }

    impl Model {
        fn new() -> Model {
            Model {
                taken: AtomicU64::new(!(1 << ONLY)),
                inside: AtomicU64::new(0),
                used: UnsafeCell::new(0),
            }
        }

        fn at(&self, word: Book) -> &AtomicU64 {
            match word {
                Book::Taken(0) => &self.taken,
                Book::Inside(ONLY) => &self.inside,
                other => panic!("{other:?} is nobody's to change"),
            }
        }

        fn inside(&self) -> u64 {
            self.inside.load(Ordering::Acquire)
        }
    }

    impl Words for Model {
        fn count(&self) -> u32 {
            2
        }
        fn load(&self, word: Book) -> u64 {
            match word {
                Book::Inside(0) => 0,
                word => self.at(word).load(Ordering::Acquire),
            }
        }
        fn swap(&self, word: Book, value: u64) {
            self.at(word).swap(value, Ordering::AcqRel);
        }
        fn fetch_or(&self, word: Book, bits: u64) -> u64 {
            self.at(word).fetch_or(bits, Ordering::AcqRel)
        }
        fn fetch_and(&self, word: Book, bits: u64) -> u64 {
            self.at(word).fetch_and(bits, Ordering::AcqRel)
        }
        fn fetch_sub(&self, word: Book, n: u64) -> u64 {
            self.at(word).fetch_sub(n, Ordering::AcqRel)
        }
        fn replace(&self, word: Book, old: u64, new: u64) -> bool {
            let word = self.at(word);
            let done = word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
            done.is_ok()
        }
        fn clear(&self, context: u32) {
            assert_eq!(context, ONLY);
            self.used.with_mut(|_| ());
        }
    }

    /// Takes the context if it is free, and uses it as a team with one member elsewhere, who is the
    /// last to leave or not.
    fn come_and_go(words: &Model) {
        if let Some(context) = take(words, 2) {
            assert_eq!((context, words.inside()), (ONLY, OPEN | 2));
            words.used.with_mut(|_| ());
            // The other member: its messages are in order.
            words.fetch_sub(Book::Inside(ONLY), 1);
            leave(words, ONLY);
        }
    }

    /// Within loom's bound.
    fn every_interleaving(run: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(run);
    }

    #[test]
    fn nobody_takes_what_another_uses() {
        every_interleaving(|| {
            let words = Arc::new(Model::new());
            let other = {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || come_and_go(&words))
            };
            come_and_go(&words);
            other.join().unwrap();
            assert_eq!(take(&*words, 1), Some(ONLY), "it came back");
            assert_eq!(take(&*words, 1), None);
        });
    }

    #[test]
    fn who_leaves_last_elsewhere_is_found() {
        every_interleaving(|| {
            let words = Arc::new(Model::new());
            assert_eq!(take(&*words, 2), Some(ONLY));
            let elsewhere = {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || {
                    words.fetch_sub(Book::Inside(ONLY), 1);
                })
            };
            let taker = {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || come_and_go(&words))
            };
            words.used.with(|_| ());
            leave(&*words, ONLY);
            elsewhere.join().unwrap();
            taker.join().unwrap();
            assert_eq!(take(&*words, 1), Some(ONLY), "it came back");
        });
    }

    #[test]
    fn what_is_given_back_is_free_for_one() {
        every_interleaving(|| {
            let words = Arc::new(Model::new());
            assert_eq!(take(&*words, 1), Some(ONLY));
            let takers: Vec<_> = (0..2)
                .map(|_| {
                    let words = Arc::clone(&words);
                    loom::thread::spawn(move || take(&*words, 1))
                })
                .collect();
            give_back(&*words, ONLY);
            let taken = takers.into_iter().map(|taker| taker.join().unwrap());
            let mut taken: Vec<_> = taken.flatten().collect();
            taken.extend(take(&*words, 1));
            assert_eq!(taken, [ONLY]);
            assert_eq!(words.inside(), OPEN | 1);
        });
    }
}
