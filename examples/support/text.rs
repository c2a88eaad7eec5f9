//! Text files and their words, for `wordcount`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A file to read and its length when the run began.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

impl Source {
    /// The file's bytes; a file that has grown or shrunk since the ranks divided the work is an
    /// error.
    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        let path = self.path.display();
        let bytes = fs::read(&self.path).map_err(|e| format!("cannot read {path}: {e}"))?;
        if bytes.len() as u64 != self.len {
            return Err(format!(
                "{path} changed while its words were counted; run again"
            ));
        }
        Ok(bytes)
    }
}

/// The given files, or the sources of this repository. An empty list is an error.
pub(crate) fn find(files: &[PathBuf]) -> Result<Vec<Source>, String> {
    let mut paths = files.to_vec();
    if paths.is_empty() {
        // The place this program was built from, or, when it is elsewhere now, the current folder.
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
        walk(
            if built_from.is_dir() {
                built_from
            } else {
                Path::new(".")
            },
            &mut paths,
        )?;
        paths.sort();
        if paths.is_empty() {
            return Err("found no source files; give text files as arguments".into());
        }
    }
    let mut sources = Vec::new();
    for path in paths {
        let shown = path.display();
        let about = fs::metadata(&path).map_err(|e| format!("cannot read {shown}: {e}"))?;
        if !about.is_file() {
            return Err(format!("{shown} is not a file; give text files"));
        }
        sources.push(Source {
            len: about.len(),
            path,
        });
    }
    Ok(sources)
}

/// Source and text files below a folder, without hidden folders and build results.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot list {}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let (name, path) = (entry.file_name(), entry.path());
        if name.as_bytes().starts_with(b".") || name == "target" {
            continue;
        }
        let is_text = path
            .extension()
            .is_some_and(|e| ["rs", "md", "toml"].iter().any(|known| e == *known));
        if kind.is_dir() {
            walk(&path, found)?;
        } else if kind.is_file() && is_text {
            found.push(path);
        }
    }
    Ok(())
}

/// The list as bytes: for each file its length, the length of its path and the path.
pub(crate) fn encode(sources: &[Source]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for source in sources {
        let path = source.path.as_os_str().as_bytes();
        bytes.extend_from_slice(&source.len.to_le_bytes());
        bytes.extend_from_slice(&(path.len() as u64).to_le_bytes());
        bytes.extend_from_slice(path);
    }
    bytes
}

/// The reverse of [`encode`].
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<Source>, &'static str> {
    fn number(bytes: &mut &[u8]) -> Option<u64> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(u64::from_le_bytes(*number))
    }
    let mut source = || {
        let len = number(&mut bytes)?;
        let path_len = usize::try_from(number(&mut bytes)?).ok()?;
        let path = bytes.split_off(..path_len)?;
        Some(Source {
            path: OsString::from_vec(path.to_vec()).into(),
            len,
        })
    };
    let mut sources = Vec::new();
    while let Some(next) = source() {
        sources.push(next);
    }
    if bytes.is_empty() {
        Ok(sources)
    } else {
        Err("the list of files from rank 0 is damaged")
    }
}

/// The words of a text, in lower case, each with the offset of its first byte. A word is a run of
/// letters, digits and underscores; bytes above 127 count as letters, so that words of any language
/// in UTF-8 stay whole.
pub(crate) struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    pub(crate) fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }
}

impl Iterator for Words<'_> {
    type Item = (usize, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte > 127;
        loop {
            let begin = self.at + self.text[self.at..].iter().position(is_letter)?;
            let rest = &self.text[begin..];
            let len = rest
                .iter()
                .position(|byte| !is_letter(byte))
                .unwrap_or(rest.len());
            self.at = begin + len;
            if rest[..len].iter().any(|byte| *byte != b'_') {
                return Some((begin, rest[..len].to_ascii_lowercase()));
            }
        }
    }
}

/// FNV-1a with a final mix; never 0, which marks a free slot.
pub(crate) fn hash(word: &[u8]) -> u64 {
    let mut hash = word.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash ^ hash >> 29).max(1)
}
