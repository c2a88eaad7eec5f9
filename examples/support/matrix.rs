//! Sparse matrices, by rows, and their files in the Matrix Market exchange format.
//!
//! Read are the files with header `%%MatrixMarket matrix coordinate FIELD SYMMETRY`, of the fields
//! real, integer and pattern and the symmetries general, symmetric and skew-symmetric. Whatever a
//! file holds, the answer is a matrix or an error that names the line.

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

/// Entries and rows of the largest matrix accepted, so that a damaged size line does not fill the
/// machine.
const MAX: usize = 1 << 26;

/// A square or rectangular sparse matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) columns: usize,
    /// Row `r` has the entries `starts[r]..starts[r + 1]`.
    pub(crate) starts: Vec<usize>,
    /// Column and value of the entries, in order of the columns; none twice in a row.
    pub(crate) entries: Vec<(usize, f64)>,
}

/// Why a file is no matrix.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Real,
    Integer,
    /// No values: every entry is 1.
    Pattern,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Symmetry {
    General,
    Symmetric,
    Skew,
}

impl Matrix {
    pub(crate) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// From entries (row, column, value) in any order; those of one place are added, in their
    /// order.
    fn from_entries(rows: usize, columns: usize, mut entries: Vec<(usize, usize, f64)>) -> Self {
        entries.sort_by_key(|&(row, column, _)| (row, column));
        let mut starts = vec![0; rows + 1];
        let mut merged: Vec<(usize, f64)> = Vec::with_capacity(entries.len());
        let mut last = None;
        for (row, column, value) in entries {
            match merged.last_mut() {
                Some(before) if last == Some((row, column)) => before.1 += value,
                _ => {
                    merged.push((column, value));
                    starts[row + 1] += 1;
                }
            }
            last = Some((row, column));
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        Self {
            columns,
            starts,
            entries: merged,
        }
    }

    /// Reads a Matrix Market file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let mut lines = (1..).zip(bytes.split(|&byte| byte == b'\n'));
        let header = lines.next().map_or(&[][..], |(_, line)| line);
        let (field, symmetry) = text(1, header).and_then(self::header)?;
        let mut sizes: Option<[usize; 3]> = None;
        let mut entries = Vec::new();
        let mut last = 1;
        for (number, line) in lines {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            last = number;
            // A remark may be in any encoding.
            if line.starts_with(b"%") {
                continue;
            }
            let line = text(number, line)?;
            let refuse = |why| Refused { line: number, why };
            match sizes {
                None => {
                    let found = self::sizes(line, symmetry).map_err(refuse)?;
                    // A wrong count must not reserve memory that no entry fills.
                    entries.reserve(found[2].min(bytes.len() / 4));
                    sizes = Some(found);
                }
                Some([rows, columns, count]) => {
                    if entries.len() == count {
                        return Err(refuse(format!("more than the {count} entries announced")));
                    }
                    entries.push(entry(line, field, symmetry, [rows, columns]).map_err(refuse)?);
                }
            }
        }
        let refuse = |why| Refused { line: last, why };
        let Some([rows, columns, count]) = sizes else {
            let why = "the file ends before its size line: rows, columns, entries";
            return Err(refuse(why.into()));
        };
        if entries.len() < count {
            let found = entries.len();
            return Err(refuse(format!(
                "the file ends after {found} of {count} entries"
            )));
        }
        if symmetry != Symmetry::General {
            let sign = if symmetry == Symmetry::Skew {
                -1.0
            } else {
                1.0
            };
            for at in 0..count {
                let (row, column, value) = entries[at];
                if row != column {
                    entries.push((column, row, sign * value));
                }
            }
        }
        Ok(Self::from_entries(rows, columns, entries))
    }
}

fn text(line: usize, bytes: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(bytes).map_err(|_| Refused {
        line,
        why: "not text in UTF-8".into(),
    })
}

fn header(line: &str) -> Result<(Field, Symmetry), Refused> {
    let refuse = |why: String| Refused { line: 1, why };
    let words: Vec<String> = line
        .split_ascii_whitespace()
        .map(str::to_ascii_lowercase)
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let &["%%matrixmarket", object, format, field, symmetry] = &words[..] else {
        return Err(refuse(
            "a Matrix Market file begins with '%%MatrixMarket matrix coordinate real general' \
             or the like"
                .into(),
        ));
    };
    if object != "matrix" || format != "coordinate" {
        return Err(refuse(format!(
            "a '{object}' in '{format}' format; only a 'matrix' in 'coordinate' format can be used"
        )));
    }
    let field = match field {
        "real" | "double" => Field::Real,
        "integer" => Field::Integer,
        "pattern" => Field::Pattern,
        _ => {
            return Err(refuse(format!(
                "field '{field}'; only real, integer and pattern can be used"
            )));
        }
    };
    let symmetry = match symmetry {
        "general" => Symmetry::General,
        "symmetric" => Symmetry::Symmetric,
        "skew-symmetric" if field != Field::Pattern => Symmetry::Skew,
        _ => {
            return Err(refuse(format!(
                "symmetry '{symmetry}'; only general, symmetric and, with values, skew-symmetric \
                 can be used"
            )));
        }
    };
    Ok((field, symmetry))
}

/// Rows, columns and entries.
fn sizes(line: &str, symmetry: Symmetry) -> Result<[usize; 3], String> {
    let mut words = line.split_ascii_whitespace();
    let mut sizes = [0; 3];
    for (size, what) in sizes.iter_mut().zip(["rows", "columns", "entries"]) {
        *size = number(&mut words, &format!("a number of {what}"))?;
        if *size > MAX {
            return Err(format!("{size} {what} are more than the {MAX} accepted"));
        }
    }
    nothing_more(words)?;
    let [rows, columns, _] = sizes;
    if symmetry != Symmetry::General && rows != columns {
        return Err(format!(
            "a symmetric matrix is square, not {rows} x {columns}"
        ));
    }
    Ok(sizes)
}

/// Row and column, from 0, and the value.
fn entry(
    line: &str,
    field: Field,
    symmetry: Symmetry,
    [rows, columns]: [usize; 2],
) -> Result<(usize, usize, f64), String> {
    let mut words = line.split_ascii_whitespace();
    let row = place(&mut words, "row", rows)?;
    let column = place(&mut words, "column", columns)?;
    let value = match field {
        Field::Pattern => 1.0,
        Field::Integer => number::<i64>(&mut words, "an integer value")? as f64,
        Field::Real => number(&mut words, "a value")?,
    };
    nothing_more(words)?;
    if !f64::is_finite(value) {
        return Err("a value that is infinite or not a number".into());
    }
    if symmetry != Symmetry::General && row < column {
        return Err(format!(
            "entry ({}, {}) is above the diagonal; a symmetric file has those below",
            row + 1,
            column + 1
        ));
    }
    if symmetry == Symmetry::Skew && row == column {
        return Err("a skew-symmetric matrix has no entries on the diagonal".into());
    }
    Ok((row, column, value))
}

/// An index, which the file counts from 1.
fn place(words: &mut SplitAsciiWhitespace<'_>, what: &str, count: usize) -> Result<usize, String> {
    let at: usize = number(words, &format!("a {what} number"))?;
    if !(1..=count).contains(&at) {
        return Err(format!("{what} {at} of {count}"));
    }
    Ok(at - 1)
}

fn number<T: FromStr>(words: &mut SplitAsciiWhitespace<'_>, what: &str) -> Result<T, String> {
    let word = words.next().ok_or_else(|| format!("{what} is missing"))?;
    word.parse()
        .map_err(|_| format!("'{}' is not {what}", shortened(word)))
}

fn nothing_more(mut words: SplitAsciiWhitespace<'_>) -> Result<(), String> {
    match words.next() {
        None => Ok(()),
        Some(word) => Err(format!("'{}' is one thing too many", shortened(word))),
    }
}

/// Rubbish may be long.
fn shortened(word: &str) -> String {
    let mut start: String = word.chars().take(40).collect();
    if start.len() < word.len() {
        start.push_str("...");
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Matrix, String> {
        Matrix::parse(text.as_bytes()).map_err(|refused| refused.to_string())
    }

    fn dense(matrix: &Matrix) -> Vec<Vec<f64>> {
        (0..matrix.rows())
            .map(|row| {
                let mut values = vec![0.0; matrix.columns];
                for &(column, value) in &matrix.entries[matrix.starts[row]..matrix.starts[row + 1]]
                {
                    values[column] = value;
                }
                values
            })
            .collect()
    }

    #[test]
    fn every_field_and_symmetry() {
        let general = parse(
            "%%MatrixMarket matrix coordinate real general\r\n% a remark\r\n\r\n2 3 3\r\n\
             2 1 -1.5e1\r\n1 3 2\r\n  1   1 .5  \r\n",
        )
        .unwrap();
        assert_eq!(dense(&general), [[0.5, 0.0, 2.0], [-15.0, 0.0, 0.0]]);
        let symmetric = parse(
            "%%matrixmarket MATRIX Coordinate Integer Symmetric\n2 2 2\n%remark\n1 1 7\n2 1 -3",
        )
        .unwrap();
        assert_eq!(dense(&symmetric), [[7.0, -3.0], [-3.0, 0.0]]);
        let skew = parse("%%MatrixMarket matrix coordinate real skew-symmetric\n2 2 1\n2 1 4\n");
        assert_eq!(dense(&skew.unwrap()), [[0.0, -4.0], [4.0, 0.0]]);
        let pattern = parse("%%MatrixMarket matrix coordinate pattern general\n1 2 1\n1 2\n");
        assert_eq!(dense(&pattern.unwrap()), [[0.0, 1.0]]);
        let empty = parse("%%MatrixMarket matrix coordinate real general\n0 0 0\n").unwrap();
        assert_eq!((empty.rows(), empty.entries.len()), (0, 0));
    }

    #[test]
    fn entries_of_one_place_are_added() {
        let twice = "%%MatrixMarket matrix coordinate real general\n2 2 3\n2 2 1\n1 1 5\n2 2 3\n";
        let matrix = parse(twice).unwrap();
        assert_eq!(matrix.starts, [0, 1, 2]);
        assert_eq!(matrix.entries, [(0, 5.0), (1, 4.0)]);
    }

    #[test]
    fn remarks_may_be_in_any_encoding() {
        let latin = b"%%MatrixMarket matrix coordinate real general\n% Andr\xe9\n1 1 1\n1 1 2\n";
        assert_eq!(Matrix::parse(latin).unwrap().entries, [(0, 2.0)]);
    }

    #[test]
    fn what_is_refused_names_line_and_reason() {
        let head = "%%MatrixMarket matrix coordinate real general\n";
        for (rest, line, reason) in [
            ("", 1, "before its size line"),
            ("% only\n% remarks\n", 3, "before its size line"),
            ("2 2\n", 2, "a number of entries is missing"),
            ("2 x 1\n", 2, "'x' is not a number of columns"),
            ("-2 2 1\n", 2, "'-2' is not a number of rows"),
            ("2 2 1 1\n", 2, "'1' is one thing too many"),
            ("2 99999999999 1\n", 2, "more than the"),
            ("99999999999999999999 2 1\n", 2, "is not a number of rows"),
            ("2 2 2\n1 1 1\n", 3, "after 1 of 2 entries"),
            ("2 2 1\n1 1 1\n\n2 2 1\n", 5, "more than the 1 entries"),
            ("2 2 1\n3 1 1\n", 3, "row 3 of 2"),
            ("2 2 1\n1 0 1\n", 3, "column 0 of 2"),
            ("2 2 1\n1 1\n", 3, "a value is missing"),
            ("2 2 1\n1 1 one\n", 3, "'one' is not a value"),
            ("2 2 1\n1 1 1e999\n", 3, "infinite"),
            ("2 2 1\n1 1 nan\n", 3, "not a number"),
            ("2 2 1\n1 1 1 0\n", 3, "one thing too many"),
        ] {
            let refused = parse(&format!("{head}{rest}")).unwrap_err();
            assert!(refused.contains(reason), "{rest:?}: {refused}");
            assert!(
                refused.starts_with(&format!("line {line}: ")),
                "{rest:?}: {refused}"
            );
        }
    }

    #[test]
    fn headers_and_triangles_that_are_refused() {
        for (text, reason) in [
            ("", "begins with"),
            ("2 2 1\n1 1 1\n", "begins with"),
            ("%%MatrixMarket matrix array real general\n", "'array'"),
            (
                "%%MatrixMarket vector coordinate real general\n",
                "'vector'",
            ),
            (
                "%%MatrixMarket matrix coordinate complex general\n",
                "'complex'",
            ),
            (
                "%%MatrixMarket matrix coordinate real hermitian\n",
                "'hermitian'",
            ),
            (
                "%%MatrixMarket matrix coordinate pattern skew-symmetric\n",
                "skew-symmetric",
            ),
            (
                "%%MatrixMarket matrix coordinate real symmetric\n2 3 0\n",
                "square",
            ),
            (
                "%%MatrixMarket matrix coordinate real symmetric\n2 2 1\n1 2 1\n",
                "above",
            ),
            (
                "%%MatrixMarket matrix coordinate real skew-symmetric\n2 2 1\n1 1 1\n",
                "diagonal",
            ),
            (
                "%%MatrixMarket matrix coordinate integer general\n2 2 1\n1 1 1.5\n",
                "integer",
            ),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(reason), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_long_word_of_rubbish_is_shortened() {
        let text = format!(
            "%%MatrixMarket matrix coordinate real general\n{}",
            "x".repeat(5000)
        );
        assert!(parse(&text).unwrap_err().len() < 150);
    }

    proptest! {
        /// Whatever the bytes, an answer; and what is accepted is a matrix.
        #[test]
        fn rubbish_is_refused_or_a_matrix(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            known in 0..4usize,
        ) {
            let heads: [&[u8]; 4] = [
                b"",
                b"%%MatrixMarket matrix coordinate real general\n",
                b"%%MatrixMarket matrix coordinate pattern symmetric\n3 3 2\n",
                b"%%MatrixMarket matrix coordinate integer skew-symmetric\n9 9 9\n",
            ];
            well_formed(Matrix::parse(&[heads[known], &bytes].concat()));
        }

        /// The same with text that looks like a file.
        #[test]
        fn plausible_rubbish_is_refused_or_a_matrix(
            head in 0..3usize,
            body in "([0-4]{1,2}[ \n]|-1 |% \n|1e3\n|9{12} |[.x\t]){0,60}",
        ) {
            let head = ["real general", "integer symmetric", "pattern general"][head];
            let text = format!("%%MatrixMarket matrix coordinate {head}\n{body}");
            well_formed(Matrix::parse(text.as_bytes()));
        }

        /// What is written is read.
        #[test]
        fn a_matrix_comes_back(
            rows in 1..9usize,
            columns in 1..9usize,
            places in proptest::collection::btree_map((0..9usize, 0..9usize), -1e9..1e9f64, 0..40),
        ) {
            let entries: Vec<_> = places
                .into_iter()
                .filter(|((row, column), _)| *row < rows && *column < columns)
                .map(|((row, column), value)| (row, column, value))
                .collect();
            let mut text = format!(
                "%%MatrixMarket matrix coordinate real general\n{rows} {columns} {}\n",
                entries.len()
            );
            for (row, column, value) in entries.iter().rev() {
                text.push_str(&format!("{} {} {value:e}\n", row + 1, column + 1));
            }
            prop_assert_eq!(
                Matrix::parse(text.as_bytes()).unwrap(),
                Matrix::from_entries(rows, columns, entries)
            );
        }
    }

    fn well_formed(parsed: Result<Matrix, Refused>) {
        let Ok(matrix) = parsed else { return };
        assert_eq!(matrix.starts[0], 0);
        assert_eq!(matrix.starts[matrix.rows()], matrix.entries.len());
        for row in matrix.starts.windows(2) {
            let entries = &matrix.entries[row[0]..row[1]];
            assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert!(
                entries
                    .iter()
                    .all(|(column, value)| *column < matrix.columns && value.is_finite())
            );
        }
    }
}
