//! Buffers that move into a transfer and come back.
//!
//! A request that only *borrowed* its buffer would be unsound: nothing forces its destructor to
//! run before the buffer goes. So `rput` and `rget` take a [`Buffer`] by value, and
//! [`Request::wait`] hands it back. A request that is dropped while its transfer runs keeps the
//! buffer until completion, and forgets it if that cannot be seen.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

use windlass_mem::SharedBytes;
use windlass_runtime::{Pending, Region};

use crate::element::Element;
use crate::error::{Error, Result, Site};
use crate::world::World;

/// Registered memory that the runtime owns: [`World::buffer`]. It is a slice of its elements.
pub struct Buffer<T: Element> {
    region: Region,
    _elements: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(crate) fn new(region: Region) -> Buffer<T> {
        Buffer {
            region,
            _elements: PhantomData,
        }
    }

    pub(crate) fn bytes(&self) -> &SharedBytes {
        self.region.bytes()
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A transfer that was dropped before it was over, and the memory it may still touch.
pub(crate) struct Orphan {
    pending: Pending,
    keep: Box<dyn Any + Send>,
}

impl Orphan {
    /// May the memory go? A transfer whose end is an error may run on: its memory stays for ever.
    pub(crate) fn is_over(&mut self) -> bool {
        match self.pending.test() {
            Ok(over) => over,
            Err(error) => {
                tracing::warn!("a request was dropped and its transfer failed: {error}");
                std::mem::forget(std::mem::replace(&mut self.keep, Box::new(())));
                true
            }
        }
    }
}

/// What a transfer needs until it is over.
struct Running<B> {
    buffer: B,
    pending: Option<Pending>,
}

/// An operation that has begun and owns its buffer.
///
/// Complete means locally complete: the buffer of an [`rput`](crate::Epoch::rput) is reusable,
/// the one of an [`rget`](crate::Epoch::rget) holds the data. Completion at the target is
/// `flush` or `end`. A request may outlive its epoch and must still be waited for to get the
/// buffer back (mpi-rma 3).
#[must_use = "the buffer comes back from `wait`"]
pub struct Request<B: Send + 'static> {
    running: Option<Running<B>>,
    world: World,
    target: u32,
    call: &'static str,
    window: std::sync::Arc<str>,
}

/// What [`Request::test`] found.
pub enum Test<B: Send + 'static> {
    /// The operation is locally complete; here is its buffer.
    Complete(B),
    /// Not yet; ask again.
    Running(Request<B>),
}

impl<B: Send + 'static> Request<B> {
    pub(crate) fn new(
        buffer: B,
        pending: Option<Pending>,
        world: &World,
        target: u32,
        call: &'static str,
        window: &std::sync::Arc<str>,
    ) -> Request<B> {
        Request {
            running: Some(Running { buffer, pending }),
            world: world.clone(),
            target,
            call,
            window: std::sync::Arc::clone(window),
        }
    }

    #[cold]
    fn failed(
        &self,
        source: windlass_runtime::Error,
        location: &'static Location<'static>,
    ) -> Error {
        let at = Site {
            call: self.call,
            rank: Some(self.world.rank().0),
            window: Some(std::sync::Arc::clone(&self.window)),
            location,
        };
        Error::from_transfer(source, self.target, at)
    }

    /// Waits until the operation is locally complete and gives the buffer back.
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::PeerLost`]. The buffer is not given back then, because parts
    /// of the transfer may run on: its memory stays allocated.
    #[track_caller]
    pub fn wait(mut self) -> Result<B> {
        let location = Location::caller();
        let Some(Running { buffer, pending }) = self.running.take() else {
            unreachable!("a request runs until it is consumed")
        };
        match pending.map(Pending::wait) {
            None | Some(Ok(())) => Ok(buffer),
            Some(Err(source)) => {
                std::mem::forget(buffer);
                Err(self.failed(source, location))
            }
        }
    }

    /// Gives the buffer back if the operation is locally complete, else the request. Never waits.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn test(mut self) -> Result<Test<B>> {
        let location = Location::caller();
        let Some(Running {
            buffer,
            mut pending,
        }) = self.running.take()
        else {
            unreachable!("a request runs until it is consumed")
        };
        match pending.as_mut().map(Pending::test) {
            None | Some(Ok(true)) => Ok(Test::Complete(buffer)),
            Some(Ok(false)) => {
                self.running = Some(Running { buffer, pending });
                Ok(Test::Running(self))
            }
            Some(Err(source)) => {
                std::mem::forget(buffer);
                Err(self.failed(source, location))
            }
        }
    }
}

impl<B: Send + 'static> Drop for Request<B> {
    fn drop(&mut self) {
        if let Some(Running {
            buffer,
            pending: Some(pending),
        }) = self.running.take()
        {
            self.world.adopt(Orphan {
                pending,
                keep: Box::new(buffer),
            });
        }
    }
}
