//! Segment ids that are reserved for an application, by a file (rsm 7.6).
//!
//! A line is `reserved`, the application, the first id in hexadecimal and their count; `#` begins a comment.

use crate::code::Code;

/// Where the file is.
pub const FILE: &str = "/etc/rsm/rsm.segmentid";

const KEYWORD: &str = "reserved";

/// First id and count of an application, by the text of the file.
///
/// # Errors
/// [`Code::BadConf`]: a malformed line before the application's; [`Code::BadAppid`]: it has none.
pub fn find(text: &str, application: &str) -> Result<(u32, u32), Code> {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else {
            continue;
        };
        let (Some(owner), Some(base), Some(count)) = (words.next(), words.next(), words.next())
        else {
            return Err(Code::BadConf);
        };
        let digits = base.strip_prefix("0x").or(base.strip_prefix("0X"));
        let base = u32::from_str_radix(digits.unwrap_or(base), 16);
        let (Ok(base), Ok(count), KEYWORD) = (base, count.parse(), keyword) else {
            return Err(Code::BadConf);
        };
        if owner.eq_ignore_ascii_case(application) {
            return Ok((base, count));
        }
    }
    Err(Code::BadAppid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str =
        "# ids\n\nreserved Ours 0x600000 100 # a comment\nreserved other 700000 5 more\n";

    #[test]
    fn an_application_is_found_without_case() {
        assert_eq!(find(FILE, "ours"), Ok((0x60_0000, 100)));
        assert_eq!(find(FILE, "OTHER"), Ok((0x70_0000, 5)));
        assert_eq!(find(FILE, "third"), Err(Code::BadAppid));
        assert_eq!(find("", "x"), Err(Code::BadAppid));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "reserved mine 600000",
            "reserve mine 600000 1",
            "reserved mine 60x 1",
            "reserved mine 600000 1a",
            "reserved mine 100000000 1",
            "reserved mine 600000 -1",
        ] {
            assert_eq!(find(line, "mine"), Err(Code::BadConf), "{line}");
            assert_eq!(find(&format!("{line}\n{FILE}"), "ours"), Err(Code::BadConf));
        }
        assert_eq!(
            find(&format!("{FILE}nonsense\n"), "ours"),
            Ok((0x60_0000, 100))
        );
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in ".{0,200}", application in ".{0,9}") {
            let _ = find(&text, &application);
        }
    }
}
