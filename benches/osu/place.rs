//! Where a target's elements are: in its part of a window, or at an address of a dynamic one.

use windlass::Comparable;
use windlass::{
    Address, Element, Epoch, Error, Kind, Layout, LockKind, Op, Rank, Reducible, Window, World,
};
use windlass_launcher::measure::{Creation, Options};

use crate::job::{self, Failure};

/// The operations of a benchmark on elements `T`; `at` counts these.
pub trait Place<T: Element>: Sized {
    /// The element of the window.
    type Of: Element;

    /// A window with `len` zeroed elements at every rank. Collective.
    fn make(
        world: &World,
        options: &Options,
        len: usize,
    ) -> Result<(Window<Self::Of>, Self), Failure>;

    /// Sets the first elements of this rank's own.
    fn store(&self, window: &mut Window<Self::Of>, me: Rank, data: &[T]) -> Result<(), Failure>;

    /// The first `len` elements of this rank's own.
    fn load(&self, window: &mut Window<Self::Of>, me: Rank, len: usize) -> Result<Vec<T>, Failure>;

    /// Puts from element `at` on.
    fn put<K: Kind>(
        &self,
        epoch: &Epoch<'_, Self::Of, K>,
        src: &[T],
        target: Rank,
        at: usize,
    ) -> Result<(), Error>;

    /// Gets from element `at` on.
    fn get<K: Kind>(
        &self,
        epoch: &Epoch<'_, Self::Of, K>,
        dst: &mut [T],
        target: Rank,
        at: usize,
    ) -> Result<(), Error>;

    /// By the same layout on both sides, from the first element on.
    fn put_layout<K: Kind>(
        &self,
        epoch: &Epoch<'_, Self::Of, K>,
        src: &[T],
        layout: &Layout,
        target: Rank,
    ) -> Result<(), Error>;

    /// Adds to the first elements.
    fn add<K: Kind>(
        &self,
        epoch: &Epoch<'_, Self::Of, K>,
        src: &[T],
        target: Rank,
    ) -> Result<(), Error>
    where
        T: Reducible;

    /// Adds to the first elements, and gets what they were.
    fn get_and_add<K: Kind>(
        &self,
        epoch: &Epoch<'_, Self::Of, K>,
        src: &[T],
        old: &mut [T],
        target: Rank,
    ) -> Result<(), Error>
    where
        T: Reducible;

    /// Adds to the first element, and gets what it was.
    fn fetch_and_add<K: Kind>(
        &self,
        epoch: &Epoch<'_, Self::Of, K>,
        value: T,
        target: Rank,
    ) -> Result<T, Error>
    where
        T: Reducible;

    /// Of the first element.
    fn compare_and_swap<K: Kind>(
        &self,
        epoch: &Epoch<'_, Self::Of, K>,
        compare: T,
        new: T,
        target: Rank,
    ) -> Result<T, Error>
    where
        T: Comparable;
}

/// A part of a window, from its first element on.
pub struct Part;

/// A window of `len` zeroed elements, as `-w` says, its pages touched: no measured transfer is the
/// first on one. Collective.
pub fn create<T: Element>(
    world: &World,
    options: &Options,
    len: usize,
) -> Result<Window<T>, Failure> {
    let mut window = match options.window {
        Creation::Create => world.create(vec![T::zeroed(); len])?.without_loan(),
        Creation::Shared => world.allocate_shared::<T>(len)?,
        // `Options::check` leaves dynamic windows to `At` and to window-create.
        Creation::Allocate | Creation::Dynamic => world.allocate::<T>(len)?,
    };
    window.lock_local()?.fill(T::zeroed());
    Ok(window)
}

impl<T: Element> Place<T> for Part {
    type Of = T;

    fn make(world: &World, options: &Options, len: usize) -> Result<(Window<T>, Self), Failure> {
        Ok((create(world, options, len)?, Part))
    }

    fn store(&self, window: &mut Window<T>, _me: Rank, data: &[T]) -> Result<(), Failure> {
        window.lock_local()?[..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn load(&self, window: &mut Window<T>, _me: Rank, len: usize) -> Result<Vec<T>, Failure> {
        Ok(window.lock_local()?[..len].to_vec())
    }

    #[inline(always)]
    fn put<K: Kind>(
        &self,
        epoch: &Epoch<'_, T, K>,
        src: &[T],
        target: Rank,
        at: usize,
    ) -> Result<(), Error> {
        epoch.put(src, target, at)
    }

    #[inline(always)]
    fn get<K: Kind>(
        &self,
        epoch: &Epoch<'_, T, K>,
        dst: &mut [T],
        target: Rank,
        at: usize,
    ) -> Result<(), Error> {
        epoch.get(dst, target, at)
    }

    #[inline(always)]
    fn put_layout<K: Kind>(
        &self,
        epoch: &Epoch<'_, T, K>,
        src: &[T],
        layout: &Layout,
        target: Rank,
    ) -> Result<(), Error> {
        epoch.put_layout(src, layout, target, 0, layout)
    }

    #[inline(always)]
    fn add<K: Kind>(&self, epoch: &Epoch<'_, T, K>, src: &[T], target: Rank) -> Result<(), Error>
    where
        T: Reducible,
    {
        epoch.accumulate(src, target, 0, Op::Sum)
    }

    #[inline(always)]
    fn get_and_add<K: Kind>(
        &self,
        epoch: &Epoch<'_, T, K>,
        src: &[T],
        old: &mut [T],
        target: Rank,
    ) -> Result<(), Error>
    where
        T: Reducible,
    {
        epoch.get_accumulate(src, old, target, 0, Op::Sum)
    }

    #[inline(always)]
    fn fetch_and_add<K: Kind>(
        &self,
        epoch: &Epoch<'_, T, K>,
        value: T,
        target: Rank,
    ) -> Result<T, Error>
    where
        T: Reducible,
    {
        epoch.fetch_and_op(value, target, 0, Op::Sum)
    }

    #[inline(always)]
    fn compare_and_swap<K: Kind>(
        &self,
        epoch: &Epoch<'_, T, K>,
        compare: T,
        new: T,
        target: Rank,
    ) -> Result<T, Error>
    where
        T: Comparable,
    {
        epoch.compare_and_swap(compare, new, target, 0)
    }
}

/// Memory attached to a dynamic window: where each rank's begins.
pub struct At(Vec<Address>);

impl At {
    fn element<T>(&self, rank: Rank, at: usize) -> Address {
        self.0[rank.0 as usize].add((at * size_of::<T>()) as i64)
    }
}

impl<T: Element> Place<T> for At {
    type Of = u8;

    fn make(world: &World, _options: &Options, len: usize) -> Result<(Window<u8>, Self), Failure> {
        let window = world.create_dynamic()?;
        // Memory without bytes has no address.
        let mine = window.attach(vec![T::zeroed(); len.max(1)])?;
        Ok((window, At(job::gather(world, &[mine])?)))
    }

    fn store(&self, window: &mut Window<u8>, me: Rank, data: &[T]) -> Result<(), Failure> {
        let own = window.lock(me, LockKind::Exclusive)?;
        own.put_at(data, me, self.element::<T>(me, 0))?;
        Ok(own.end()?)
    }

    fn load(&self, window: &mut Window<u8>, me: Rank, len: usize) -> Result<Vec<T>, Failure> {
        let mut data = vec![T::zeroed(); len];
        let own = window.lock(me, LockKind::Exclusive)?;
        own.get_at(&mut data, me, self.element::<T>(me, 0))?;
        own.end()?;
        Ok(data)
    }

    #[inline(always)]
    fn put<K: Kind>(
        &self,
        epoch: &Epoch<'_, u8, K>,
        src: &[T],
        target: Rank,
        at: usize,
    ) -> Result<(), Error> {
        epoch.put_at(src, target, self.element::<T>(target, at))
    }

    #[inline(always)]
    fn get<K: Kind>(
        &self,
        epoch: &Epoch<'_, u8, K>,
        dst: &mut [T],
        target: Rank,
        at: usize,
    ) -> Result<(), Error> {
        epoch.get_at(dst, target, self.element::<T>(target, at))
    }

    fn put_layout<K: Kind>(
        &self,
        _: &Epoch<'_, u8, K>,
        _: &[T],
        _: &Layout,
        _: Rank,
    ) -> Result<(), Error> {
        unreachable!("Options::check refuses layouts in dynamic windows")
    }

    #[inline(always)]
    fn add<K: Kind>(&self, epoch: &Epoch<'_, u8, K>, src: &[T], target: Rank) -> Result<(), Error>
    where
        T: Reducible,
    {
        epoch.accumulate_at(src, target, self.element::<T>(target, 0), Op::Sum)
    }

    #[inline(always)]
    fn get_and_add<K: Kind>(
        &self,
        epoch: &Epoch<'_, u8, K>,
        src: &[T],
        old: &mut [T],
        target: Rank,
    ) -> Result<(), Error>
    where
        T: Reducible,
    {
        epoch.get_accumulate_at(src, old, target, self.element::<T>(target, 0), Op::Sum)
    }

    #[inline(always)]
    fn fetch_and_add<K: Kind>(
        &self,
        epoch: &Epoch<'_, u8, K>,
        value: T,
        target: Rank,
    ) -> Result<T, Error>
    where
        T: Reducible,
    {
        epoch.fetch_and_op_at(value, target, self.element::<T>(target, 0), Op::Sum)
    }

    #[inline(always)]
    fn compare_and_swap<K: Kind>(
        &self,
        epoch: &Epoch<'_, u8, K>,
        compare: T,
        new: T,
        target: Rank,
    ) -> Result<T, Error>
    where
        T: Comparable,
    {
        epoch.compare_and_swap_at(compare, new, target, self.element::<T>(target, 0))
    }
}
