//! How a layout was made, for the texts of errors.

use std::fmt;

use super::{Basic, Layout, Order};

/// Entries of a list that a text shows, and that are therefore kept.
const SHOWN: usize = 4;

/// Layouts that a text shows: shared parts may make the whole text endless.
const LAYOUTS: u32 = 16;

/// A constructor and its arguments.
pub(super) enum Form {
    Basic(Basic),
    Contiguous(u64, Layout),
    /// With the name, since the stride's unit differs.
    Vector(&'static str, u64, u64, i64, Layout),
    Indexed(&'static str, Shown<(i64, u64)>, Layout),
    IndexedBlock(&'static str, u64, Shown<i64>, Layout),
    Subarray(Shown<u64>, Shown<u64>, Shown<u64>, Order, Layout),
    Structure(Shown<(i64, u64, Layout)>),
    Resized(i64, i64, Layout),
    WithPadding(Layout),
}

/// The beginning of a list.
pub(super) struct Shown<T> {
    begin: Vec<T>,
    len: usize,
}

impl<T> Shown<T> {
    pub fn new() -> Shown<T> {
        Shown {
            begin: Vec::new(),
            len: 0,
        }
    }

    /// Counts an entry, and keeps it if it will be shown.
    pub fn note(&mut self, entry: impl FnOnce() -> T) {
        if self.len < SHOWN {
            self.begin.push(entry());
        }
        self.len += 1;
    }

    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        mut entry: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
    ) -> fmt::Result {
        f.write_str("[")?;
        for (index, shown) in self.begin.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            entry(f, shown)?;
        }
        match self.len - self.begin.len() {
            0 => f.write_str("]"),
            more => write!(f, ", and {more} more]"),
        }
    }
}

impl<T: fmt::Debug> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |f, entry| write!(f, "{entry:?}"))
    }
}

impl<T: Copy> From<&[T]> for Shown<T> {
    fn from(list: &[T]) -> Shown<T> {
        Shown {
            begin: list[..list.len().min(SHOWN)].to_vec(),
            len: list.len(),
        }
    }
}

impl Form {
    /// The layout that a method of was called.
    fn receiver(&self) -> Option<&Layout> {
        match self {
            Form::Basic(_) | Form::Structure(_) => None,
            Form::Contiguous(_, of)
            | Form::Vector(_, _, _, _, of)
            | Form::Indexed(_, _, of)
            | Form::IndexedBlock(_, _, _, of)
            | Form::Subarray(_, _, _, _, of)
            | Form::Resized(_, _, of)
            | Form::WithPadding(of) => Some(of),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, left: &mut u32) -> fmt::Result {
        if *left == 0 {
            return f.write_str("..");
        }
        *left -= 1;
        if let Some(of) = self.receiver() {
            of.form().write(f, left)?;
        }
        match self {
            Form::Basic(basic) => write!(f, "{basic}"),
            Form::Contiguous(count, _) => write!(f, ".contiguous({count})"),
            Form::Vector(name, count, blocklength, stride, _) => {
                write!(f, ".{name}({count}, {blocklength}, {stride})")
            }
            Form::Indexed(name, blocks, _) => write!(f, ".{name}({blocks})"),
            Form::IndexedBlock(name, blocklength, displacements, _) => {
                write!(f, ".{name}({blocklength}, {displacements})")
            }
            Form::Subarray(sizes, subsizes, starts, order, _) => {
                write!(f, ".subarray({sizes}, {subsizes}, {starts}, {order:?})")
            }
            Form::Structure(parts) => {
                f.write_str("structure(")?;
                parts.write(f, |f, (displacement, count, layout)| {
                    write!(f, "({displacement}, {count}, ")?;
                    layout.form().write(f, left)?;
                    f.write_str(")")
                })?;
                f.write_str(")")
            }
            Form::Resized(lb, extent, _) => write!(f, ".resized({lb}, {extent})"),
            Form::WithPadding(_) => f.write_str(".with_padding()"),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &mut { LAYOUTS })
    }
}
