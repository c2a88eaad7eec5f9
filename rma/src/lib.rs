//! MPI-style one-sided communication: ranks expose memory as *windows*, and any rank puts, gets
//! and updates a peer's window without the peer's help.
//!
//! ```
//! use windlass::{LockKind, Op, Rank};
//!
//! fn main() -> windlass::Result<()> {
//!     let world = windlass::init()?; // rank, size, peers: from the launcher, PMI, or alone
//!     let right = Rank((world.rank().0 + 1) % world.size());
//!     let mut win = world.allocate::<f64>(1024)?; // collective: export, exchange, attach
//!     win.lock_local()?.fill(0.0); // exclusive lock on self: the one way to a plain slice
//!
//!     let halo = [1.5; 16];
//!     let epoch = win.fence()?; // collective; `win` is borrowed while it lasts
//!     epoch.put(&halo, right, 0)?; // elements, not bytes; `halo` reusable on return
//!     let epoch = epoch.next()?; // one fence: closes this epoch, opens the next
//!     let first = epoch.local().load(0); // volatile view: a peer may be writing
//!     epoch.end()?;
//!
//!     let epoch = win.lock_all()?; // passive target
//!     let mut block = world.buffer::<f64>(512)?; // registered memory owned by the runtime
//!     block.fill(first);
//!     let request = epoch.rput(block, Rank(0), 256)?; // moved in: no dangling DMA possible
//!     let ticket = epoch.fetch_and_op(1.0, Rank(0), 1023, Op::Sum)?;
//!     let _block = request.wait()?; // handed back when locally complete
//!     epoch.flush(Rank(0))?; // complete at the target too
//!     epoch.end()?;
//!
//!     let mut answer = [0.0; 4];
//!     win.lock(Rank(0), LockKind::Shared)?.get(&mut answer, Rank(0), 256)?;
//!     println!("ticket {ticket}, read {answer:?}"); // the lock ended with its guard
//! #   assert_eq!((first, answer), (1.5, [1.5; 4]));
//!     Ok(())
//! }
//! ```
//!
//! Started by itself, this is a job of one rank; started by `windlass run -n 4`, of four.
//!
//! # What is where
//! [`init`] joins the job and gives the [`World`]: rank, size, memory; [`World::split`] and its kin
//! make worlds of some of the ranks. Windows are made collectively:
//!
//! | call | memory |
//! | --- | --- |
//! | [`World::allocate`] | the library's |
//! | [`World::create`], [`World::create_scoped`] | lent by the caller, who gets it back; borrowed |
//! | [`World::allocate_shared`] | the library's, loaded and stored by all ranks |
//! | [`World::create_dynamic`] | attached and detached at any time, by [`Address`] |
//!
//! Elements are plain old data: numbers, their arrays, [`Complex`], [`Logical`], pairs such as
//! [`DoubleInt`], and structures that derive [`Element`](derive@Element). The predefined ones are
//! updated atomically by the operators of [`Op`].
//!
//! A window is used through an [`Epoch`]: [`Window::fence`] opens one for all ranks at once,
//! [`Window::start`] one to the ranks that [`Window::post`], [`Window::lock`] and
//! [`Window::lock_all`] one without the target taking part. The guard has the operations:
//! [`put`](Epoch::put), [`get`](Epoch::get), [`accumulate`](Epoch::accumulate),
//! [`get_accumulate`](Epoch::get_accumulate), [`fetch_and_op`](Epoch::fetch_and_op),
//! [`compare_and_swap`](Epoch::compare_and_swap), [`put_notify`](Epoch::put_notify); with a
//! [`Layout`] on both sides [`put_layout`](Epoch::put_layout) and its kin; on borrowed memory,
//! overlapped, [`scope`](Epoch::scope); and in passive epochs [`rput`](Epoch::rput),
//! [`rget`](Epoch::rget), [`raccumulate`](Epoch::raccumulate),
//! [`rget_accumulate`](Epoch::rget_accumulate) and [`flush`](Epoch::flush). Displacements and
//! lengths count elements, and a range that is not inside the target's part is an error before a
//! byte moves.
//!
//! [`raw`] has the same windows by pointers, with all that MPI allows and types cannot prove.
//!
//! # What the types prove, and what they cannot
//! Peers write window memory while this rank runs, so it is never a Rust reference, except under
//! [`Window::lock_local`]. An operation outside an epoch, two epochs at once, a buffer touched
//! while its transfer runs: these do not compile. A *forgotten* guard (`mem::forget`) ends the
//! borrow and not the epoch; the next conflicting call answers [`Error::Epoch`].
//!
//! # Threads
//! [`World`], [`Window`] and the guards are `Send` and `Sync`: threads may share an epoch and put
//! into it at once; one thread's flush covers what happened before it. Different threads may hold
//! locks on different targets. Collective calls are made by one thread at a time, in the same
//! order on all ranks.
//!
//! # Order of the end
//! 1. Requests are waited for, guards end ([`Epoch`]'s `end`, or drop for locks).
//! 2. [`Window::free`], collective: memory that was lent comes back.
//! 3. [`World::end`], collective.
//!
//! **Drop never waits for a peer.** Guards of locks complete their operations and unlock. A
//! dropped guard of a fence, a start or a post, or a dropped window, marks this rank as departed:
//! the peers' next synchronisation on that window answers [`Error::Departed`], and memory that they
//! may still reach stays allocated. The last clone of the world leaves the job without waiting.
//!
//! # Errors
//! [`Error::class`] gives the MPI error class, [`Error::site`] call, rank, window and source
//! line. A refused call had no effect and leaves the epoch as it was.
#![deny(unsafe_code)]

mod atomics;
mod borrow;
mod core;
mod derived;
mod dynamic;
mod element;
mod epoch;
mod epochs;
mod error;
mod group;
mod hints;
#[doc(hidden)]
pub mod inside;
pub mod layout;
mod local;
mod lock;
mod notify;
mod op;
mod passive;
mod pscw;
pub mod raw;
mod refuse;
mod request;
mod scope;
mod shared;
mod standing;
mod state;
mod sync;
mod transfer;
mod window;
mod world;

pub use borrow::Within;
#[doc(hidden)]
pub use bytemuck as __bytemuck;
pub use dynamic::{Address, REGIONS_MAX};
pub use element::{
    Comparable, Complex, DoubleInt, Element, FloatInt, Logical, LongInt, Reducible, ShortInt,
    TwoInt,
};
pub use epoch::{
    Access, Epoch, Exposure, Fence, Fenced, Kind, Lock, LockAll, LockedAll, LockedOne, Passive,
    Started,
};
pub use error::{ElementKind, Error, ErrorClass, Result, Site};
pub use group::{Group, Likeness};
pub use hints::Hints;
pub use layout::Layout;
pub use local::{LocalGuard, LocalView};
pub use op::Op;
pub use request::{Buffer, Request, Test};
pub use scope::Scope;
pub use standing::{LockedWindow, Standing};
pub use state::{AccessState, Call, ExposureState, State};
pub use sync::LockKind;
pub use windlass_derive::Element;
pub use windlass_mem::Lend;
pub use windlass_runtime::NOTIFY_IDS;
pub use window::{Flavor, NAME_MAX_BYTES, Progress, RouteInfo, Window};
pub use world::{Rank, World, init};
