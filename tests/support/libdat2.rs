//! Debian's libdat2 under a job, with our own plug-in as its provider.

use std::fs;

use windlass_native::dat2::{Library, SONAME};

use super::cc;

/// The adapter's name.
pub const NAME: &str = "windlass-lo";

/// Why jobs cannot use libdat2 here, in a sentence. In CI they must.
pub fn missing() -> Option<String> {
    let error = Library::load(SONAME).err()?;
    assert!(std::env::var_os("CI").is_none(), "{error}");
    Some(error.to_string())
}

/// A `dat.conf` with our plug-in on the loopback device, beside the plug-in: its path.
pub fn conf() -> String {
    cc::package("windlass-dapl");
    let library = cc::profile().join("libdapl_windlass.so");
    let line = |name: &str, version: &str| {
        format!(
            "{name} {version} nonthreadsafe default {} windlass.2.0 \"127.0.0.1\" \"\"\n",
            library.display()
        )
    };
    let text = line(NAME, "u2.0") + &line("windlass-old", "u1.2");
    let path = cc::profile().join("windlass-dat.conf");
    // Whole or not at all: other tests read it meanwhile.
    let new = path.with_extension(format!("{}", std::process::id()));
    fs::write(&new, text).expect("the folder is cargo's");
    fs::rename(&new, &path).expect("of one folder");
    path.into_os_string().into_string().expect("a path of text")
}
