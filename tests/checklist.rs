//! Lines of MPI's one-sided checklist (mpi-rma) that no other test has: `tests/README.md` says which
//! test has which line.
#![allow(unsafe_code, reason = "raw windows take pointers; every use is proved")]

mod support;

use support::Spec;
use windlass::layout::Layout;
use windlass::raw::{Assertions, At, Data, Window};
use windlass::{AccessState, Address, Error, ErrorClass, ExposureState, Hints, LockKind, Rank};

const NONE: Assertions = Assertions::NONE;

/// The class of a refusal, which names a line of this file.
#[track_caller]
fn refused<T>(answer: windlass::Result<T>) -> ErrorClass {
    let Err(error) = answer else {
        panic!("this call should have been refused");
    };
    let file = error.site().location.file();
    assert!(file.ends_with("checklist.rs"), "{file} in {error:?}");
    error.class()
}

fn data<'a, T>(memory: &'a [T], count: u64, layout: &'a Layout) -> Data<'a, *const u8> {
    Data {
        address: memory.as_ptr().cast(),
        count,
        layout,
    }
}

fn at(rank: Rank, disp: i64, count: u64, layout: &Layout) -> At<'_> {
    At {
        rank: Some(rank),
        disp,
        count,
        layout,
    }
}

/// Threads share the states (mpi-rma 4): one is in an exposure while the other is in an access,
/// and neither call undoes the other's state.
#[test]
fn threads_expose_and_access_at_once() {
    Spec::new("threads_expose_and_access_at_once")
        .ranks(1)
        .world(|world| {
            let (me, itself) = (world.rank(), world.group());
            let window = world.allocate::<u64>(1)?;
            for round in 0..200 {
                std::thread::scope(|scope| {
                    let access = scope.spawn(|| {
                        // Waits for the post of the other thread.
                        let access = window.start(&itself)?;
                        access.put(&[round], me, 0)?;
                        access.end()
                    });
                    window.post(&itself)?.wait()?;
                    access.join().expect("no panic")
                })?;
                assert_eq!(window.local().load(0), round);
            }
            window.free()?;
            Ok(())
        });
}

/// A wait that fails because one rank left says nothing of the others: they may still be writing,
/// so nobody gets a slice of the part (mpi-rma 4).
#[test]
fn a_failed_wait_gives_no_slice() {
    let test = "a_failed_wait_gives_no_slice";
    for nodes in [1, 3] {
        let spec = Spec::new(test).case(nodes.to_string()).nodes(nodes);
        let spec = if nodes == 1 {
            spec.ranks(3)
        } else {
            spec.place("vh:1")
        };
        spec.world(|world| {
            let mut window = world.allocate::<u64>(8)?;
            let group = |rank| world.group().incl(&[Rank(rank)]);
            match world.rank().0 {
                0 => {
                    let exposure = window.post(&group(1)?)?;
                    world.barrier()?;
                    let error = exposure.wait().unwrap_err();
                    assert!(matches!(error, Error::Departed { rank: 2, .. }));
                    assert_eq!(refused(window.lock_local()), ErrorClass::RmaSync);
                    world.barrier()?;
                }
                1 => {
                    let access = window.start(&group(0)?)?;
                    world.barrier()?;
                    world.barrier()?;
                    access.put(&[5; 8], Rank(0), 0)?;
                    access.end()?;
                }
                _ => {
                    world.barrier()?;
                    drop(window);
                    world.barrier()?;
                }
            }
            Ok(())
        });
    }
}

/// A refused call leaves the state as it was and says where it was made (mpi-rma 7).
#[test]
fn refused_calls_change_nothing_and_name_their_line() {
    Spec::new("refused_calls_change_nothing_and_name_their_line")
        .ranks(1)
        .world(|world| {
            let me = world.rank();
            let window = Window::allocate(world, 64, 1, &Hints::new())?;
            let ten = Layout::of::<u8>().contiguous(10)?;
            window.fence(NONE)?;
            let null = Data {
                address: std::ptr::null(),
                count: 1,
                layout: &ten,
            };
            // SAFETY: the null address is refused.
            let answer = unsafe { window.put(null, at(me, 0, 1, &ten)) };
            assert_eq!(refused(answer), ErrorClass::Buffer);
            // SAFETY: refused by the range.
            let answer = unsafe { window.put(data(&[0u8; 10], 1, &ten), at(me, 55, 1, &ten)) };
            assert_eq!(refused(answer), ErrorClass::RmaRange);
            let state = window.state(None);
            assert_eq!(state.access, AccessState::Fence);
            assert_eq!(state.exposed, ExposureState::Fence);
            // The fence has no operations, so it gives way to a lock.
            window.lock(LockKind::Shared, Some(me), NONE)?;
            window.unlock(Some(me))?;
            window.free().map_err(|(error, _)| error)?;

            let window = Window::create_dynamic(world, &Hints::new())?;
            let mut memory = [0u8; 32];
            let base = memory.as_mut_ptr();
            // SAFETY: the array outlives the regions and is not used until they are detached; the
            // overlapping ones are refused.
            unsafe {
                window.attach(base.wrapping_add(8), 8)?;
                for (first, len) in [(0, 9), (8, 8), (15, 4), (0, 32), (10, 2)] {
                    let answer = window.attach(base.wrapping_add(first), len);
                    assert_eq!(refused(answer), ErrorClass::RmaAttach, "{first}+{len}");
                }
                window.attach(base, 8)?;
                window.attach(base.wrapping_add(16), 4)?;
                // The same memory in another window.
                let other = Window::create_dynamic(world, &Hints::new())?;
                other.attach(base, 32)?;
                other.free().map_err(|(error, _)| error)?;
            }
            assert_eq!(
                refused(window.detach(base.wrapping_add(9))),
                ErrorClass::Base
            );
            window.detach(base)?;
            assert_eq!(refused(window.detach(base)), ErrorClass::Base);
            window.free().map_err(|(error, _)| error)?;
            Ok(())
        });
}

/// The fence is over where a transfer before it failed: this rank has no guard then, but the others
/// have the next epoch open, so it gets no slice.
#[test]
fn a_fence_with_a_failed_transfer_gives_no_slice() {
    Spec::new("a_fence_with_a_failed_transfer_gives_no_slice")
        .nodes(2)
        .place("vh:1")
        .world(|world| {
            let mut told = world.allocate::<Address>(1)?;
            if world.rank() == Rank(1) {
                let window = Window::create_dynamic(world, &Hints::new())?;
                let mut memory = vec![0u64; 8];
                // SAFETY: the vector outlives the region and is not used before it is detached.
                unsafe { window.attach(memory.as_mut_ptr().cast(), 64)? };
                told.local()
                    .store(0, Address::from_raw(memory.as_ptr().addr() as u64));
                told.fence()?.end()?;
                window.fence(NONE)?;
                world.barrier()?;
                window.detach(memory.as_ptr().cast())?;
                world.barrier()?;
                // No transfer of this rank's failed.
                window.fence(NONE)?;
                window.fence(NONE)?;
                world.barrier()?;
                return Ok(());
            }
            let mut window = world.create_dynamic()?;
            let epoch = told.fence()?;
            let mut address = [Address::from_raw(0)];
            epoch.get(&mut address, Rank(1), 0)?;
            epoch.end()?;
            let epoch = window.fence()?;
            epoch.put_at(&[1u64], Rank(1), address[0])?;
            world.barrier()?;
            world.barrier()?;
            // Erroneous: the region is gone, and this rank's copy of the directory still has it. The
            // target refuses, which the fence tells (mpi-rma 8).
            epoch.put_at(&[1u64], Rank(1), address[0])?;
            assert_eq!(refused(epoch.next()), ErrorClass::Other);
            assert_eq!(refused(window.lock_local()), ErrorClass::RmaSync);
            // A fence goes on from there.
            let epoch = window.fence()?;
            world.barrier()?;
            drop(epoch);
            Ok(())
        });
}
