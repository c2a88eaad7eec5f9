//! The life-long passive epoch: a window that is locked on all ranks and can be stored.

use std::mem::ManuallyDrop;
use std::ops::Deref;

use crate::element::Element;
use crate::epoch::{LockAll, report};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::window::Window;

/// A window in a passive epoch to all ranks: [`Window::into_lock_all`].
///
/// Dropping it unlocks and drops the window, which marks this rank as departed.
pub struct LockedWindow<T: Element, M: Send + 'static = ()> {
    /// There until it is unlocked.
    window: Option<Window<T, M>>,
}

/// The epoch of a [`LockedWindow`]: a [`LockAll`] guard that does not end with its drop.
pub struct Standing<'w, T: Element> {
    guard: ManuallyDrop<LockAll<'w, T>>,
}

impl<'w, T: Element> Deref for Standing<'w, T> {
    type Target = LockAll<'w, T>;

    fn deref(&self) -> &LockAll<'w, T> {
        &self.guard
    }
}

impl<T: Element, M: Send + 'static> Window<T, M> {
    /// Locks every rank, shared, for as long as the window is kept so: an epoch without a borrow,
    /// to be stored in a structure.
    ///
    /// # Errors
    /// As [`lock_all`](Self::lock_all); the window is dropped then.
    #[track_caller]
    pub fn into_lock_all(self) -> Result<LockedWindow<T, M>> {
        self.core.take_lock_all("into_lock_all")?;
        Ok(LockedWindow { window: Some(self) })
    }
}

impl<T: Element, M: Send + 'static> LockedWindow<T, M> {
    /// The window, for what needs no other epoch: its notifications, its routes, its own part.
    #[inline]
    pub fn window(&self) -> &Window<T, M> {
        match &self.window {
            Some(window) => window,
            None => unreachable!("the window leaves only with `unlock`, which consumes this"),
        }
    }

    /// The epoch: operations, requests and flushes.
    #[inline]
    pub fn epoch(&self) -> Standing<'_, T> {
        Standing {
            guard: ManuallyDrop::new(LockAll::standing(&self.window().core)),
        }
    }

    /// Completes all operations, unlocks all ranks and gives the window back.
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::PeerLost`]; the window is dropped then.
    #[track_caller]
    pub fn unlock(mut self) -> Result<Window<T, M>> {
        let unlocked = self.window().core.unlock_all();
        match (unlocked, self.window.take()) {
            (Ok(()), Some(window)) => Ok(window),
            (Err(error), _) => Err(error),
            (Ok(()), None) => unreachable!("the window was there a line ago"),
        }
    }
}

impl<T: Element, M: Send + 'static> Drop for LockedWindow<T, M> {
    fn drop(&mut self) {
        if let Some(window) = &self.window {
            report(window.core.unlock_all());
        }
    }
}
