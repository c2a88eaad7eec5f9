//! How many threads a VE takes (ve-memory.md section 1): counted where they begin and end.

use std::fmt;
use std::sync::Arc;

use crate::errno::Errno;
use crate::process::{Control, Process, Result};
use crate::request::{Body, Reply, Request};
use crate::service::{ProcessId, Service};

impl Service {
    /// A thread of a VE process begins or ends. EAGAIN: the process or its VE has as many as it takes; EINVAL: only the first is left.
    pub(crate) fn thread(&mut self, id: ProcessId, begins: bool) -> Result<Reply, Errno> {
        let ve = self.ve_of(id)?;
        let (most, most_here) = (self.profile.max_threads, self.profile.max_process_threads);
        let here = self.processes.values().filter(|p| p.ve == Some(ve));
        let on_ve: u32 = here.map(|process| process.threads).sum();
        let process = self.processes.get_mut(&id).ok_or(Errno::Ecanceled)?;
        if !begins {
            let left = process.threads.checked_sub(1).filter(|left| *left > 0);
            process.threads = left.ok_or(Errno::Einval)?;
        } else if process.threads >= most_here || on_ve >= most {
            return Err(Errno::Eagain);
        } else {
            process.threads += 1;
        }
        Ok(Body::Done.into())
    }
}

/// A further thread of a VE process, which ends when this is dropped.
pub struct VeThread {
    control: Arc<dyn Control>,
}

impl fmt::Debug for VeThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VeThread")
    }
}

impl Drop for VeThread {
    fn drop(&mut self) {
        // If the service is gone, so is its count.
        let _ = self.control.call(Request::Thread { begins: false });
    }
}

impl Process {
    /// Begins a further thread: EAGAIN, as `pthread_create` answers, where the process or the VE has as many as it takes.
    pub fn begin_thread(&self) -> Result<VeThread> {
        let _order = self.state();
        self.call("VE thread start", Request::Thread { begins: true })?;
        Ok(VeThread {
            control: Arc::clone(&self.control),
        })
    }
}
