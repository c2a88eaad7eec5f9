//! A [`Control`] without a connection: for a process that hosts the service itself, and for tests.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::errno::Errno;
use crate::error::CallError;
use crate::process::Control;
use crate::request::{Reply, Request};
use crate::service::{ProcessId, Service};

/// Calls the service in this process. Several may join it under different pids; each leaves when it is dropped.
#[derive(Debug)]
pub struct Direct {
    service: Arc<Mutex<Service>>,
    id: ProcessId,
}

impl Direct {
    /// Joins as [`Service::join`] does.
    pub fn join(
        service: Arc<Mutex<Service>>,
        pid: i32,
        start_time: u64,
        uid: u32,
        ve: Option<u32>,
    ) -> Result<Self, Errno> {
        let id = service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join(pid, start_time, uid, ve)?;
        Ok(Self { service, id })
    }

    /// Who this is at the service.
    pub fn id(&self) -> ProcessId {
        self.id
    }
}

impl Control for Direct {
    fn call(&self, request: Request) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = service.handle(self.id, request).map_err(CallError::Errno)?;
        drop(service);
        // What a connection does with descriptors: the receiver has its own. One that cannot be made does not arrive.
        let files = reply
            .files()
            .iter()
            .map_while(|file| file.try_clone_to_owned().ok())
            .collect();
        Ok((reply, files))
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leave(self.id);
    }
}
