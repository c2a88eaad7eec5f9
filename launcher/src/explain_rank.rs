//! The rank side of `windlass explain`: one window, and what its negotiation found.

use crate::error::{Error, Result};

/// Prints this rank's row.
pub(crate) fn row() -> Result<i32> {
    Err(Error::Report("not yet".into()))
}
