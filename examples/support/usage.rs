//! What command lines of examples and benchmarks share: numbers that are refused with a remedy, and
//! refusals without a tip that leads astray.
#![allow(dead_code, reason = "each program uses its part")]

use std::ops::RangeInclusive;

use clap::error::{ContextKind, ContextValue};

/// Reads a whole number in a range; refuses another with what to give instead.
pub fn number<T: TryFrom<u64> + Clone + Send + Sync + 'static>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| {
            let (min, max) = (range.start(), range.end());
            match u64::from(u32::MAX) <= *max {
                true => format!("give a whole number of {min} or more"),
                false => format!("give a whole number from {min} to {max}"),
            }
        })
    }
}

/// Without the tip that an unknown option may be meant as a file's name.
pub(crate) fn without_tip(mut refused: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(mut tips)) = refused.remove(ContextKind::Suggested) {
        tips.retain(|tip| !tip.to_string().contains("as a value"));
        if !tips.is_empty() {
            refused.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_refused_with_a_remedy() {
        let small = number::<u32>(1..=1024);
        assert_eq!(small("7"), Ok(7));
        for bad in ["0", "1025", "-1", "x", ""] {
            assert_eq!(small(bad), Err("give a whole number from 1 to 1024".into()));
        }
        let any = number::<u32>(1..=u32::MAX.into());
        assert_eq!(any("4294967295"), Ok(u32::MAX));
        for bad in ["0", "4294967296", "99999999999999999999"] {
            assert_eq!(any(bad), Err("give a whole number of 1 or more".into()));
        }
    }

    #[test]
    fn an_unknown_option_is_no_value() {
        let command = clap::Command::new("test").arg(clap::Arg::new("file"));
        let refused = command.try_get_matches_from(["test", "--foo"]).unwrap_err();
        assert!(
            refused.to_string().contains("as a value"),
            "the tip is gone"
        );
        let refused = without_tip(refused).to_string();
        assert!(
            refused.contains("--foo") && !refused.contains("as a value"),
            "{refused}"
        );
    }
}
