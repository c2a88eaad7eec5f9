//! Files are replaced whole, or not at all.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};

pub(crate) enum Format {
    Svg,
    Png,
}

/// By the end of the name.
pub(crate) fn format(path: &Path) -> Result<Format> {
    let extension = path.extension().and_then(|text| text.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => Err(Error::Format(path.to_owned())),
    }
}

/// Gives whether there was such a file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<bool> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
        remedy: "give a file in a folder that exists and that you may write to",
    };
    // Through a link to what it names.
    let target = path.canonicalize();
    let replaces = target.is_ok();
    let target = target.unwrap_or_else(|_| path.to_owned());
    if replaces && !target.is_file() {
        return Err(failed(std::io::Error::other("this is no ordinary file")));
    }
    let folder = target.parent().filter(|dir| !dir.as_os_str().is_empty());
    // As any other new file: the umask says who may read it.
    let mut file = tempfile::Builder::new()
        .prefix(".windlass-plot-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.persist(&target).map_err(|error| failed(error.error))?;
    Ok(replaces)
}
