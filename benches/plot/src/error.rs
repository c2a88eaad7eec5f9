//! What can go wrong, with the remedy.

use std::path::PathBuf;

/// `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing above 0.
    #[error("no curve has a point above 0, and the axes are logarithmic; give results with values")]
    Empty,
    /// There is no such curve.
    #[error("the base is curve {base}, counted from 0, but there are {curves}; give a lower one")]
    Base {
        /// As asked.
        base: usize,
        /// How many there are.
        curves: usize,
    },
    /// Results that tell no distribution.
    #[error(
        "no result has percentiles; measure with `-f`, as in `windlass bench put-latency -- -f`"
    )]
    NoPercentiles,
    /// Neither `.svg` nor `.png`.
    #[error("{}: the end of the name says which picture to write; give a name that ends with .svg or .png", .0.display())]
    Format(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}; {remedy}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A line of a result cannot be understood.
    #[error("{source_name}:{line}: {what}")]
    Line {
        /// The file.
        source_name: String,
        /// From 1.
        line: usize,
        /// What is wrong, and the remedy.
        what: String,
    },
    /// A file without results.
    #[error(
        "{source_name}: it has no rows of a result; give what `windlass bench` or a benchmark of OSU printed, \
         in which each row has a size and a value"
    )]
    NoRows {
        /// The file.
        source_name: String,
    },
    /// Something on the command line.
    #[error("{0}")]
    Usage(String),
    /// A fault of the libraries that draw.
    #[error("the picture cannot be drawn: {0}")]
    Draw(String),
}
