//! Which basic elements a layout has, in which order: what must agree on both sides of a
//! transfer (mpi-rma 3).
//!
//! Kept as powers of words, so its memory grows with the constructors' arguments and not with
//! the elements.

use std::fmt;
use std::sync::Arc;

use super::Basic;

/// The sequence of basic elements of a layout, compressed.
#[derive(Clone)]
pub struct Signature(Power);

/// Something several times.
#[derive(Clone)]
enum Power {
    Nothing,
    Run(Basic, u64),
    /// Not all of one kind.
    Word(Arc<Word>, u64),
}

/// At least two parts; neighbours are not powers of the same.
struct Word {
    parts: Vec<Power>,
    elements: u64,
}

impl Power {
    fn elements(&self) -> u64 {
        match self {
            Power::Nothing => 0,
            Power::Run(_, count) => *count,
            Power::Word(word, count) => word.elements * count,
        }
    }

    /// Elements after which it begins again.
    fn period(&self) -> u64 {
        match self {
            Power::Word(word, _) => word.elements,
            _ => 1,
        }
    }
}

impl Signature {
    pub(super) const fn empty() -> Signature {
        Signature(Power::Nothing)
    }

    pub(super) const fn one(basic: Basic) -> Signature {
        Signature(Power::Run(basic, 1))
    }

    /// This `count` times; the number of elements fits in 63 bits.
    pub(super) fn repeat(&self, times: u64) -> Signature {
        Signature(match &self.0 {
            _ if times == 0 => Power::Nothing,
            Power::Nothing => Power::Nothing,
            Power::Run(basic, count) => Power::Run(*basic, count * times),
            Power::Word(word, count) => Power::Word(word.clone(), count * times),
        })
    }

    /// How many basic elements.
    pub fn elements(&self) -> u64 {
        self.0.elements()
    }

    /// The kind of all elements, if they are of one kind.
    pub fn homogeneous(&self) -> Option<Basic> {
        match self.0 {
            Power::Run(basic, _) => Some(basic),
            _ => None,
        }
    }

    /// Are these the same elements in the same order?
    pub fn matches(&self, other: &Signature) -> bool {
        self.elements() == other.elements() && self.is_prefix_of(other)
    }

    /// Do these elements begin the other's? That is what makes data fit the receiving side.
    ///
    /// Time does not depend on how often either repeats its outermost word; inside that it grows
    /// with the runs of equal elements.
    pub fn is_prefix_of(&self, other: &Signature) -> bool {
        let elements = self.elements();
        if elements > other.elements() {
            return false;
        }
        if let (Power::Word(a, _), Power::Word(b, _)) = (&self.0, &other.0)
            && Arc::ptr_eq(a, b)
        {
            return true;
        }
        // Powers of two words that agree for as long as both words together agree for ever
        // (Fine and Wilf).
        let mut left = elements.min(self.0.period() + other.0.period());
        let (mut ours, mut theirs) = (Steps::new(self), Steps::new(other));
        let (mut a, mut b) = (None, None);
        while left > 0 {
            let (Some((basic, n)), Some((wanted, m))) =
                (a.or_else(|| ours.next()), b.or_else(|| theirs.next()))
            else {
                unreachable!("both have the elements they count");
            };
            if basic != wanted {
                return false;
            }
            let step = n.min(m);
            left = left.saturating_sub(step);
            a = (n > step).then(|| (basic, n - step));
            b = (m > step).then(|| (wanted, m - step));
        }
        true
    }

    /// The elements as runs of equal ones, longest possible, in order.
    pub fn runs(&self) -> impl Iterator<Item = (Basic, u64)> {
        let mut steps = Steps::new(self).peekable();
        std::iter::from_fn(move || {
            let (basic, mut count) = steps.next()?;
            while let Some((_, more)) = steps.next_if(|(next, _)| *next == basic) {
                count += more;
            }
            Some((basic, count))
        })
    }
}

impl fmt::Debug for Signature {
    /// The first few runs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs = self.runs();
        f.write_str("[")?;
        for (index, (basic, count)) in runs.by_ref().take(8).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{count} x {basic}")?;
        }
        f.write_str(if runs.next().is_some() { ", ..]" } else { "]" })
    }
}

/// Signatures one after the other.
#[derive(Default)]
pub(super) struct Builder {
    parts: Vec<Power>,
    elements: u64,
}

impl Builder {
    /// Appends; the number of elements fits in 63 bits.
    pub fn push(&mut self, next: &Signature) {
        self.elements += next.elements();
        match (self.parts.last_mut(), &next.0) {
            (_, Power::Nothing) => {}
            (Some(Power::Run(last, count)), Power::Run(basic, more)) if last == basic => {
                *count += more;
            }
            (Some(Power::Word(last, count)), Power::Word(word, more))
                if Arc::ptr_eq(last, word) =>
            {
                *count += more;
            }
            _ => self.parts.push(next.0.clone()),
        }
    }

    pub fn finish(mut self) -> Signature {
        if self.parts.len() < 2 {
            return Signature(self.parts.pop().unwrap_or(Power::Nothing));
        }
        let word = Word {
            parts: self.parts,
            elements: self.elements,
        };
        Signature(Power::Word(Arc::new(word), 1))
    }
}

/// Runs of equal elements, not yet joined.
struct Steps<'a> {
    next: Option<&'a Power>,
    /// Words entered: what is left of their present round, and the rounds after it.
    stack: Vec<(&'a Word, &'a [Power], u64)>,
}

impl<'a> Steps<'a> {
    fn new(signature: &'a Signature) -> Steps<'a> {
        Steps {
            next: Some(&signature.0),
            stack: Vec::new(),
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = (Basic, u64);

    fn next(&mut self) -> Option<(Basic, u64)> {
        loop {
            match self.next.take() {
                Some(Power::Run(basic, count)) => return Some((*basic, *count)),
                Some(Power::Word(word, count)) => self.stack.push((word, &word.parts, count - 1)),
                Some(Power::Nothing) | None => {}
            }
            let (word, rest, rounds) = self.stack.last_mut()?;
            if let Some((part, others)) = rest.split_first() {
                *rest = others;
                self.next = Some(part);
            } else if *rounds > 0 {
                *rounds -= 1;
                *rest = &word.parts;
            } else {
                self.stack.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn basic(code: u32) -> Basic {
        Basic::new(code, 4, 4).unwrap()
    }

    fn word(codes: &[u32]) -> Signature {
        let mut builder = Builder::default();
        for code in codes {
            builder.push(&Signature::one(basic(*code)));
        }
        builder.finish()
    }

    fn spelled(signature: &Signature) -> Vec<Basic> {
        let runs = signature.runs();
        runs.flat_map(|(basic, count)| std::iter::repeat_n(basic, count as usize))
            .collect()
    }

    #[test]
    fn a_long_signature_is_neither_spelled_nor_walked() {
        let pair = word(&[1, 2]);
        let many = pair.repeat(1 << 60);
        let other = word(&[1, 2, 1, 2, 1, 2]).repeat(1 << 58);
        assert!(other.is_prefix_of(&many) && !many.is_prefix_of(&other));
        assert!(word(&[1, 2]).repeat(1 << 60).matches(&many));
        assert!(!word(&[1, 2, 1]).repeat(1 << 40).is_prefix_of(&many));
        let same = word(&[3]).repeat(1 << 62);
        assert_eq!(same.homogeneous(), Some(basic(3)));
        assert!(word(&[3, 3, 3]).repeat(1 << 40).is_prefix_of(&same));
        assert!(!same.repeat(0).matches(&same) && same.repeat(0).is_prefix_of(&same));
        assert_eq!(Signature::empty().homogeneous(), None);
    }

    #[test]
    fn words_of_one_layout_join() {
        let pair = word(&[1, 2]);
        let mut builder = Builder::default();
        for times in [2, 0, 3] {
            builder.push(&pair.repeat(times));
        }
        let joined = builder.finish();
        assert!(matches!(joined.0, Power::Word(_, 5)));
        assert_eq!(
            format!("{:?}", word(&[1, 1, 2])),
            "[2 x basic(0x1, 4 bytes), 1 x basic(0x2, 4 bytes)]"
        );
    }

    fn nested() -> impl Strategy<Value = Signature> {
        let leaf = prop::collection::vec(0u32..2, 0..5).prop_map(|codes| word(&codes));
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::vec((inner, 0u64..4), 0..3).prop_map(|parts| {
                let mut builder = Builder::default();
                for (part, times) in parts {
                    builder.push(&part.repeat(times));
                }
                builder.finish()
            })
        })
    }

    proptest! {
        #[test]
        fn comparing_is_comparing_what_is_spelled(
            a in nested(), b in nested(), n in 0u64..6, m in 0u64..6,
        ) {
            let (a, b) = (a.repeat(n), b.repeat(m));
            let (long_a, long_b) = (spelled(&a), spelled(&b));
            prop_assert_eq!(a.elements(), long_a.len() as u64);
            prop_assert_eq!(a.matches(&b), long_a == long_b);
            prop_assert_eq!(a.is_prefix_of(&b), long_b.starts_with(&long_a));
            let runs: Vec<_> = a.runs().collect();
            prop_assert!(runs.windows(2).all(|two| two[0].0 != two[1].0));
            let kind = long_a.first().filter(|first| long_a.iter().all(|basic| basic == *first));
            prop_assert_eq!(a.homogeneous(), kind.copied());
        }
    }
}
