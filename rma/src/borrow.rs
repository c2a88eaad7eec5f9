//! Windows over borrowed memory, for as long as a closure runs.

use crate::core::{Core, Make};
use crate::element::{self, Element};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::hints::Hints;
use crate::raw::Borrowed;
use crate::window::{Flavor, Window};
use crate::world::World;

/// What a window over borrowed memory gives back: nothing. Only
/// [`create_scoped`](World::create_scoped) makes it.
#[derive(Debug)]
pub struct Within(());

impl World {
    /// A window over borrowed memory (a local array, part of a vector) while `body` runs; it is
    /// freed before this returns, and `memory` then holds what peers wrote. Collective, like
    /// [`create`](Self::create) and [`Window::free`]; lengths may differ per rank.
    ///
    /// ```
    /// # fn main() -> windlass::Result<()> {
    /// # let world = windlass::init()?;
    /// let mut counts = [0u32; 4];
    /// let me = world.rank();
    /// world.create_scoped(&mut counts, |win| {
    ///     let epoch = win.fence()?;
    ///     epoch.put(&[7], me, 2)?;
    ///     epoch.end()
    /// })??;
    /// assert_eq!(counts, [0, 0, 7, 0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Where peers cannot be kept from the memory any longer (`body` panics, or the collective end
    /// fails because a peer was lost), the process ends before the borrow does.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`Window::free`]; what `body` answers is lost then.
    #[track_caller]
    pub fn create_scoped<T: Element, R>(
        &self,
        memory: &mut [T],
        body: impl FnOnce(&mut Window<T, Within>) -> R,
    ) -> Result<R> {
        const { element::check::<T>() };
        self.not_ended("create_scoped")?;
        let borrowed = Borrowed::sink(memory);
        let region = if borrowed.bytes().is_empty() {
            // Nothing to lend: no mechanism registers a range without bytes.
            self.job().allocate(0, 1)
        } else {
            Ok(self.job().lend_bytes(borrowed.bytes().clone()))
        };
        let make = Make::of::<T>("create_scoped", Flavor::Create, &Hints::new());
        let mut window = Window::over(
            Core::new(self, make, |team, note| team.expose(region, note))?,
            Within(()),
        );
        let answer = body(&mut window);
        window.free()?;
        Ok(answer)
    }
}
