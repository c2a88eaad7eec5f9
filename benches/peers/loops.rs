//! A timed loop, as `rma.c` and the ranks of this program are told it.

use std::fmt;
use std::str::FromStr;

/// Not timed: are data at the target when a flush returns?
pub(crate) const ARRIVAL: &str = "arrival";

/// The timed loop of a line, as both programs are told it: `NUMBER:LOOP:WINDOW:SYNC:WAY:SIZE:ITERATIONS:BLOCKS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loop {
    pub(crate) number: usize,
    /// A benchmark of windlass-osu, a raw limit, or [`ARRIVAL`].
    pub(crate) name: String,
    /// `allocate` or `create`.
    pub(crate) window: String,
    /// `flush`, `lock`, `fence` or `pscw`.
    pub(crate) sync: String,
    /// `plain`, `contended` by the target, or the target `computes`.
    pub(crate) way: String,
    pub(crate) size: usize,
    pub(crate) iterations: u64,
    pub(crate) blocks: u32,
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            name,
            window,
            sync,
            way,
            size,
            iterations,
            blocks,
        } = self;
        write!(
            f,
            "{number}:{name}:{window}:{sync}:{way}:{size}:{iterations}:{blocks}"
        )
    }
}

impl FromStr for Loop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not a line; see `loops.rs`");
        let parts: Vec<&str> = text.split(':').collect();
        let [number, name, window, sync, way, size, iterations, blocks] = parts[..] else {
            return Err(wrong());
        };
        Ok(Self {
            number: number.parse().map_err(|_| wrong())?,
            name: name.into(),
            window: window.into(),
            sync: sync.into(),
            way: way.into(),
            size: size.parse().map_err(|_| wrong())?,
            iterations: iterations.parse().map_err(|_| wrong())?,
            blocks: blocks.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines;

    #[test]
    fn a_line_is_told_and_understood() {
        for line in lines::all() {
            assert_eq!(line.timed.to_string().parse::<Loop>().unwrap(), line.timed);
        }
        for wrong in ["", "1:put-latency", "x:a:b:c:d:1:1:1", "1:a:b:c:d:1:1:1:1"] {
            assert!(wrong.parse::<Loop>().is_err(), "{wrong}");
        }
    }
}
