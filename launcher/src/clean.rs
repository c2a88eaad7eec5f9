//! What a kill can leave behind, and taking it away: System V segments that a rank created and had
//! no time to mark for removal (architecture section 8, reliability A1, A9, S10).
//!
//! Relies on: `/proc/sysvipc/shm`, and on the ranks not being reaped yet, so that no other process
//! can have one of their pids.
//! Promises: only segments of this user, created by one of the given processes, with nobody
//! attached, are removed. Directories of dead services are the guard's to remove, and the node crate's to sweep.

use std::collections::BTreeSet;

/// Removes the segments that the ended processes `pids` left; gives how many.
pub(crate) fn segments(pids: &BTreeSet<i32>) -> usize {
    let Ok(rows) = windlass_mem::sysv::list() else {
        return 0;
    };
    let uid = rustix::process::geteuid().as_raw();
    let left = rows
        .iter()
        .filter(|row| row.uid == uid && row.nattch == 0 && pids.contains(&row.cpid));
    left.filter(|row| windlass_mem::sysv::remove(row.id).is_ok())
        .count()
}
