//! Debian's libdat2 under a job, with our own plug-in as its provider.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use windlass_native::dat2::{Library, SONAME};

use super::cc;

/// The adapter's name.
pub const NAME: &str = "windlass-lo";

/// One whose provider's library is not there.
pub const ABSENT: &str = "windlass-absent";

/// Why jobs cannot use libdat2 here, in a sentence.
pub fn missing() -> Option<String> {
    let error = Library::load(SONAME).err()?;
    super::may_skip(&error.to_string());
    Some(error.to_string())
}

/// A `dat.conf` with our plug-in on the loopback device, beside the plug-in: its path.
pub fn conf() -> String {
    static WRITTEN: OnceLock<String> = OnceLock::new();
    WRITTEN.get_or_init(write).clone()
}

fn write() -> String {
    cc::package("windlass-dapl");
    let library = cc::profile().join("libdapl_windlass.so");
    let line = |name: &str, library: &Path| {
        format!(
            "{name} u2.0 nonthreadsafe default {} windlass.2.0 \"127.0.0.1\" \"\"\n",
            library.display()
        )
    };
    let text = line(NAME, &library) + &line(ABSENT, Path::new("/does/not/exist.so"));
    let path = cc::profile().join("windlass-dat.conf");
    // Whole or not at all: tests of other processes read it meanwhile.
    let new = path.with_extension(format!("{}", std::process::id()));
    fs::write(&new, text).expect("the folder is cargo's");
    fs::rename(&new, &path).expect("of one folder");
    path.into_os_string().into_string().expect("a path of text")
}
