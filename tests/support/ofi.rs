//! Is there a libfabric that jobs can use?

use windlass_native::ofi::{Library, SONAME};

/// Why not, in a sentence. A rank is there only because the test found one, and loads it only where it is to.
pub fn missing() -> Option<String> {
    if super::is_rank() {
        return None;
    }
    let error = Library::load(SONAME).err()?.to_string();
    super::may_skip(&error);
    Some(error)
}
