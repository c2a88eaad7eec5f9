//! Width and height of a field, a picture or a matrix, as given on the command line.

use std::fmt;

/// Cells of the largest field accepted: 512 MiB of `f64`, so that a typing mistake does not fill
/// the machine.
const MAX_CELLS: usize = 1 << 26;

/// Width and height as given on the command line: `480x320`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Size {
    /// How many there are.
    #[allow(dead_code, reason = "each example uses its part")]
    pub(crate) fn cells(self) -> u64 {
        (self.width * self.height) as u64
    }

    /// Both sides at least 1 and the area within [`MAX_CELLS`].
    pub(crate) fn checked(width: usize, height: usize) -> Result<Self, String> {
        if width == 0 || height == 0 {
            return Err(format!(
                "{width}x{height} is empty; both sides must be at least 1"
            ));
        }
        match width.checked_mul(height) {
            Some(cells) if cells <= MAX_CELLS => Ok(Self { width, height }),
            _ => Err(format!(
                "{width}x{height} is more than the {MAX_CELLS} elements accepted; give a smaller size"
            )),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("'{text}' is not of the form WIDTHxHEIGHT, for example 480x320");
        let (width, height) = text.split_once('x').ok_or_else(form)?;
        Self::checked(
            width.parse().map_err(|_| form())?,
            height.parse().map_err(|_| form())?,
        )
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
