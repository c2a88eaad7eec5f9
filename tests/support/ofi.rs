//! Is there a libfabric that jobs can use?

use windlass_native::ofi::{Library, SONAME};

/// Why not, in a sentence.
pub fn missing() -> Option<String> {
    let error = Library::load(SONAME).err()?;
    Some(error.to_string())
}
