//! A connection of a process that is no rank: a *visitor*, who uses the VE node, and a *watcher*, who asks how it is.

use std::os::fd::{BorrowedFd, OwnedFd};

use windlass_ve::CallError;

use crate::error::Error;
use crate::line::{Line, unexpected};
use crate::name::Address;
use crate::wire::{Fault, Greeting, Reply, Request, Status, StopReport};

/// A process on the VE node that is no rank. Its part ends with the connection.
pub struct Visitor {
    line: Line,
}

impl Visitor {
    /// Connects and begins on VE `ve` (`None`: as a VH process).
    pub fn enter(address: &Address, ve: Option<u32>) -> Result<Self, Error> {
        match Line::greet(address, Greeting::Visitor(ve))? {
            (line, Reply::Admitted, _) => Ok(Self { line }),
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn abandon(&self) {
        self.line.abandon();
    }
}

impl windlass_ve::Control for Visitor {
    fn call(
        &self,
        request: windlass_ve::Request,
    ) -> Result<(windlass_ve::Reply, Vec<OwnedFd>), CallError> {
        self.line.ask_veos(request)
    }
}

impl windlass_rsm::Control for Visitor {
    fn call(
        &self,
        request: windlass_rsm::Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(windlass_rsm::Reply, Vec<OwnedFd>), windlass_rsm::Gone> {
        windlass_rsm::Control::call(&self.line, request, files)
    }
}

/// Somebody who looks at a node from outside.
pub struct Watcher {
    line: Line,
}

impl Watcher {
    /// Connects.
    pub fn look(address: &Address) -> Result<Self, Error> {
        match Line::greet(address, Greeting::Watcher)? {
            (line, Reply::Admitted, _) => Ok(Self { line }),
            _ => Err(unexpected()),
        }
    }

    /// How the node is.
    pub fn status(&self) -> Result<Status, Error> {
        match self.line.call(&Request::Status, &[])? {
            (Reply::Status(status), _) => Ok(status),
            _ => Err(unexpected()),
        }
    }

    /// Stops VEOS of one VE (spec ve-memory section 6): its processes are killed, and those on other VEs that are attached to its
    /// memory; nothing new begins there. Its owner and root may.
    pub fn stop_ve(&self, ve: u32) -> Result<StopReport, Error> {
        self.stopped(&Request::StopVe { ve })
    }

    /// The same for every VE; then the service ends.
    pub fn stop(&self) -> Result<StopReport, Error> {
        self.stopped(&Request::Stop)
    }

    /// Breaks or mends a part of VEOS or IVED, for tests. Its owner and root may.
    pub fn fault(&self, fault: Fault) -> Result<(), Error> {
        match self.line.call(&Request::Fault(fault), &[])? {
            (Reply::Done, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    fn stopped(&self, request: &Request) -> Result<StopReport, Error> {
        match self.line.call(request, &[])? {
            (Reply::Stopped(report), _) => Ok(report),
            _ => Err(unexpected()),
        }
    }
}
