//! Lines of MPI's one-sided checklist (mpi-rma) that no other test has: `tests/README.md` says which
//! test has which line.
#![allow(unsafe_code, reason = "raw windows take pointers; every use is proved")]

mod support;

use support::ways::{MIXTURES, PAIRS, Way};
use support::{Done, Spec};
use windlass::layout::Layout;
use windlass::raw::{Assertions, At, Data, Window};
use windlass::{
    AccessState, Address, Error, ErrorClass, ExposureState, Hints, LockKind, Op, Rank, World,
};

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

fn room<'a, T>(memory: &'a mut [T], count: u64, layout: &'a Layout) -> Data<'a, *mut u8> {
    Data {
        address: memory.as_mut_ptr().cast(),
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

/// Windows never interact (mpi-rma 4): a transfer that fails is told to a flush of its own window.
#[test]
fn a_failed_transfer_is_told_to_its_own_window() {
    Spec::new("a_failed_transfer_is_told_to_its_own_window")
        .ranks(2)
        .env("WINDLASS_ROUTE", "udapl")
        .world(|world| {
            let other = world.allocate::<u64>(1)?;
            let mut told = world.allocate::<Address>(1)?;
            if world.rank() == Rank(1) {
                let window = Window::create_dynamic(world, &Hints::new())?;
                let mut memory = vec![0u64; 8];
                // SAFETY: the vector outlives the region and is not used before it is detached.
                unsafe { window.attach(memory.as_mut_ptr().cast(), 64)? };
                told.local()
                    .store(0, Address::from_raw(memory.as_ptr().addr() as u64));
                told.fence()?.end()?;
                world.barrier()?;
                window.detach(memory.as_ptr().cast())?;
                world.barrier()?;
                window.free().map_err(|(error, _)| error)?;
                assert_eq!(other.local().load(0), 9);
                other.free()?;
                return Ok(());
            }
            let window = world.create_dynamic()?;
            let epoch = told.fence()?;
            let mut address = [Address::from_raw(0)];
            epoch.get(&mut address, Rank(1), 0)?;
            epoch.end()?;
            let lock = window.lock(Rank(1), LockKind::Shared)?;
            lock.put_at(&[1u64], Rank(1), address[0])?;
            lock.flush(Rank(1))?;
            world.barrier()?;
            world.barrier()?;
            // The region is gone, and this rank's copy of the directory still has it: by its own
            // account of short puts, by a slot, and as an update.
            let block = vec![1u8; 64];
            for erroneous in 0..3 {
                match erroneous {
                    0 => lock.put_at(&[1u64], Rank(1), address[0])?,
                    1 => lock.put_at(&block, Rank(1), address[0])?,
                    _ => lock.accumulate_at(&[1u64], Rank(1), address[0], Op::Sum)?,
                }
                other.lock(Rank(1), LockKind::Exclusive)?.end()?;
                assert_eq!(refused(lock.flush(Rank(1))), ErrorClass::Other);
                lock.flush(Rank(1))?;
                // The way is open again.
                let lock = other.lock(Rank(1), LockKind::Exclusive)?;
                lock.put(&[9], Rank(1), 0)?;
                lock.end()?;
            }
            lock.end()?;
            window.free()?;
            other.free()?;
            Ok(())
        });
}

/// A lock is given back in any case: also where its end was posted behind another window's refused put, and ended with
/// the connection.
#[test]
fn a_lock_ends_behind_a_refused_put() {
    Spec::new("a_lock_ends_behind_a_refused_put")
        .nodes(2)
        .place("vh:1")
        .world(|world| {
            let mut other = world.allocate::<u64>(2)?;
            let mut told = world.allocate::<Address>(1)?;
            if world.rank() == Rank(1) {
                let window = Window::create_dynamic(world, &Hints::new())?;
                let mut memory = vec![0u64; 8];
                // SAFETY: the vector outlives the region and is not used before it is detached.
                unsafe { window.attach(memory.as_mut_ptr().cast(), 64)? };
                told.local()
                    .store(0, Address::from_raw(memory.as_ptr().addr() as u64));
                told.fence()?.end()?;
                world.barrier()?;
                window.detach(memory.as_ptr().cast())?;
                world.barrier()?;
                world.barrier()?;
                // Nobody holds it any more.
                assert_eq!(other.lock_local()?[..], [0, 20]);
                window.free().map_err(|(error, _)| error)?;
                other.free()?;
                return Ok(());
            }
            let window = world.create_dynamic()?;
            let epoch = told.fence()?;
            let mut address = [Address::from_raw(0)];
            epoch.get(&mut address, Rank(1), 0)?;
            epoch.end()?;
            let gone = window.lock(Rank(1), LockKind::Shared)?;
            gone.put_at(&[1u64], Rank(1), address[0])?;
            gone.flush(Rank(1))?;
            world.barrier()?;
            world.barrier()?;
            for turn in 0..20 {
                let kind = [LockKind::Shared, LockKind::Exclusive][turn % 2];
                let lock = other.lock(Rank(1), kind)?;
                // Erroneous: the region is gone, and this rank's copy of the directory still has it.
                gone.put_at(&[1u64], Rank(1), address[0])?;
                if turn % 4 < 2 {
                    lock.put(&[7], Rank(1), 0)?;
                    assert_eq!(refused(lock.end()), ErrorClass::Other);
                } else {
                    lock.end()?;
                }
                assert_eq!(refused(gone.flush(Rank(1))), ErrorClass::Other);
                let lock = other.lock(Rank(1), LockKind::Exclusive)?;
                let mut turns = [0];
                lock.get(&mut turns, Rank(1), 1)?;
                lock.put(&[turns[0] + 1], Rank(1), 1)?;
                lock.end()?;
            }
            world.barrier()?;
            gone.end()?;
            window.free()?;
            other.free()?;
            Ok(())
        });
}

/// A world may go while its windows stay; they have words of their own (mpi-rma 1).
#[test]
fn a_window_outlives_its_world() {
    for way in [MIXTURES[1], MIXTURES[2]] {
        way.spec("a_window_outlives_its_world").world(|world| {
            let part = world.split(Some(0), 0)?.expect("a colour was given");
            let mut window = part.allocate::<u64>(2)?;
            let next = Rank((world.rank().0 + 1) % world.size());
            drop(part);
            let epoch = window.fence()?;
            // Collective calls of others pass by.
            world.barrier()?;
            world.allocate::<u8>(9)?.free()?;
            epoch.put(&[7], next, 1)?;
            epoch.end()?;
            assert_eq!(window.local().load(1), 7);
            window.free()?;
            Ok(())
        });
    }
}

/// Attributes, alignment, and the addresses of parts (mpi-rma 1).
fn addresses(world: &World) -> Done {
    let (me, hints) = (world.rank(), Hints::new());
    let len = 100 * me.0 as usize;
    for (align, key) in [(16, "0"), (1024, "1024"), (4096, "4096")] {
        let hints = Hints::new().with("mpi_minimum_memory_alignment", key);
        let window = Window::allocate(world, len + 1, 3, &hints)?;
        assert_eq!(window.base().addr() % align, 0);
        assert_eq!((window.len_bytes(), window.disp_unit()), (len + 1, 3));
        let own = window.shared_query(Some(me))?;
        assert_eq!(
            own,
            (len + 1, 3, window.base()),
            "own memory has an address"
        );
        for rank in world.ranks() {
            let (bytes, unit, base) = window.shared_query(Some(rank))?;
            let mapped = bytes > 0;
            assert_eq!(unit, 3);
            assert!(!mapped || bytes == 100 * rank.0 as usize + 1);
            assert_eq!(base.is_null(), !mapped, "no address, no bytes");
            assert_eq!(mapped, world.node_of(rank)? == world.node_of(me)?);
        }
        let beyond = window.shared_query(Some(Rank(world.size())));
        assert_eq!(refused(beyond), ErrorClass::Rank);
        window.free().map_err(|(error, _)| error)?;
    }

    let node = world.split_by_node()?;
    let window = Window::allocate_shared(&node, 5 * node.rank().0 as usize, 1, &hints)?;
    let mut end = None;
    for rank in node.ranks() {
        let (bytes, _, base) = window.shared_query(Some(rank))?;
        assert_eq!(bytes, 5 * u64::from(rank.0) as usize);
        assert!(
            end.is_none_or(|end| end == base.addr()),
            "parts follow each other"
        );
        end = Some(base.addr() + bytes);
    }
    // The first rank that has bytes; of nobody, none.
    let first = window.shared_query(None)?;
    assert_eq!(first.0, if node.size() > 1 { 5 } else { 0 });
    if node.size() > 1 {
        assert_eq!(first, window.shared_query(Some(Rank(1)))?);
    }
    window.free().map_err(|(error, _)| error)?;

    let window = Window::create_dynamic(world, &hints)?;
    let attributes = (
        window.base().is_null(),
        window.len_bytes(),
        window.disp_unit(),
    );
    assert_eq!(attributes, (true, 0, 1));
    assert_eq!(
        refused(window.shared_query(Some(me))),
        ErrorClass::RmaFlavor
    );
    // SAFETY: the null address is refused.
    let null = unsafe { window.attach(std::ptr::null_mut(), 1) };
    assert_eq!(refused(null), ErrorClass::Base);
    window.free().map_err(|(error, _)| error)?;

    // What all have to promise is in force only where all did (mpi-rma 2).
    let hints = Hints::new().with("no_locks", if me.0 == 0 { "true" } else { "false" });
    let window = Window::allocate(world, 8, 1, &hints)?;
    assert_eq!(window.hints().get("no_locks").as_deref(), Some("false"));
    window.lock(LockKind::Shared, Some(Rank(0)), NONE)?;
    window.unlock(Some(Rank(0)))?;
    window.free().map_err(|(error, _)| error)?;
    Ok(())
}

#[test]
fn attributes_and_addresses() {
    let test = "attributes_and_addresses";
    let spec = |case: &str| Spec::new(test).case(case);
    spec("host").ranks(3).world(addresses);
    spec("nodes").nodes(2).place("vh:2").world(addresses);
    spec("alone").nodes(3).place("vh:1").world(addresses);
}

/// Arguments of operations (mpi-rma 3): nobody as target, memory of windows as origin, layouts and
/// requests that go before the operation is complete.
fn arguments(way: &Way, world: &World) -> Done {
    let (me, other) = (world.rank(), Rank(1 - world.rank().0));
    let words = Layout::of::<u64>();
    let mut lent = vec![0u64; 32];
    let hints = Hints::new();
    let window = if way.lent {
        // SAFETY: the vector outlives the window and is not used before its end.
        unsafe { Window::create(world, lent.as_mut_ptr().cast(), 256, 8, &hints)? }
    } else {
        Window::allocate(world, 256, 8, &hints)?
    };
    let base = window.base().cast::<u64>();
    let nobody = At {
        rank: None,
        ..at(me, 1 << 40, 1, &words)
    };
    let one = [1u64 + u64::from(me.0)];
    let mut result = [9u64];
    window.lock_all(NONE)?;
    // SAFETY: one element in each buffer, none of which is looked at before its operation is
    // complete; those of window memory are inside of it.
    unsafe {
        let (source, sink) = (data(&one, 1, &words), room(&mut result, 1, &words));
        window.put(source, nobody)?;
        window.get(sink, nobody)?;
        window.accumulate(source, nobody, Op::Sum)?;
        window.get_accumulate(source, sink, nobody, Op::Sum)?;
        window.fetch_and_op(source.address, sink.address, &words, (None, 0), Op::Sum)?;
        let operand = source.address;
        window.compare_and_swap(operand, operand, sink.address, &words, (None, 0))?;
        for mut request in [
            window.rput(source, nobody)?,
            window.rget(sink, nobody)?,
            window.raccumulate(source, nobody, Op::Sum)?,
            window.rget_accumulate(source, sink, nobody, Op::Sum)?,
        ] {
            assert!(request.test()?, "complete at once");
        }
        window.flush(None)?;
        window.flush_local(None)?;
        assert_eq!(result, [9], "nobody changes nothing");

        // From window memory, by a layout and a request that are gone before it is complete.
        base.write_volatile(one[0]);
        let layout = words.contiguous(1)?;
        let own = Data {
            address: base.cast_const().cast(),
            count: 1,
            layout: &layout,
        };
        drop(window.rput(own, at(other, 5, 1, &layout))?);
        drop(layout);
        window.flush(Some(other))?;
        // Into window memory, and waited for after the window's end.
        let into = Data {
            address: base.wrapping_add(6).cast(),
            count: 1,
            layout: &words,
        };
        let request = window.rget(into, at(other, 5, 1, &words))?;
        window.unlock_all()?;
        assert_eq!(base.wrapping_add(6).read_volatile(), one[0]);
        world.barrier()?;
        assert_eq!(base.wrapping_add(5).read_volatile(), 3 - one[0]);
        window.free().map_err(|(error, _)| error)?;
        request.wait()?;
    }
    Ok(())
}

#[test]
fn arguments_of_operations() {
    for way in PAIRS {
        let spec = way.spec("arguments_of_operations");
        spec.world(|world| arguments(&way, world));
    }
}

/// Elements that the accumulate family does not take (mpi-rma 3).
#[test]
fn other_types_are_refused() {
    Spec::new("other_types_are_refused")
        .ranks(1)
        .world(|world| {
            let me = world.rank();
            let window = Window::allocate(world, 64, 1, &Hints::new())?;
            let (words, floats) = (Layout::of::<u64>(), Layout::of::<f64>());
            let two = words.contiguous(2)?;
            let mixed = Layout::structure([(0, 1, words.clone()), (8, 1, floats.clone())])?;
            let source = [1u64; 4];
            let (mut sink, op) = ([2u64; 4], Op::Sum);
            // SAFETY: nothing is looked at outside of four words, and what is refused is not looked at.
            unsafe {
                let outside = window.put(data(&source, 0, &words), at(me, 0, 0, &words));
                assert_eq!(
                    refused(outside),
                    ErrorClass::RmaSync,
                    "no bytes need an epoch too"
                );
                window.lock(LockKind::Shared, Some(me), NONE)?;
                for layout in [&mixed, &floats] {
                    let answer =
                        window.accumulate(data(&source, 1, layout), at(me, 0, 2, &words), op);
                    assert_eq!(refused(answer), ErrorClass::Type, "{layout}");
                }
                let answer = window.accumulate(data(&source, 1, &mixed), at(me, 0, 1, &mixed), op);
                assert_eq!(refused(answer), ErrorClass::Type);
                let answer = window.accumulate(data(&source, 1, &two), at(me, 0, 3, &words), op);
                assert_eq!(refused(answer), ErrorClass::Count);
                let (from, into) = (source.as_ptr().cast(), sink.as_mut_ptr().cast::<u8>());
                for layout in [&two, &mixed] {
                    let answer = window.fetch_and_op(from, into, layout, (Some(me), 0), op);
                    assert_eq!(refused(answer), ErrorClass::Type, "{layout}");
                }
                for layout in [&two, &floats, &mixed] {
                    let answer = window.compare_and_swap(from, from, into, layout, (Some(me), 0));
                    assert_eq!(refused(answer), ErrorClass::Type, "{layout}");
                }
                let mut seen = [5u64; 8];
                window.get(room(&mut seen, 8, &words), at(me, 0, 8, &words))?;
                assert_eq!((seen, sink), ([0; 8], [2; 4]), "nothing was touched");
                window.unlock(Some(me))?;
            }
            window.free().map_err(|(error, _)| error)?;
            Ok(())
        });
}
