//! Windows by pointers in a job of one rank: every operation with layouts, every synchronisation
//! call, and the errors that one process can make. A process joins one job, so all is one test.
#![allow(unsafe_code)]

use windlass::layout::{Basic, Layout};
use windlass::raw::{Assertions, At, Data, Window};
use windlass::{
    AccessState, Error, ErrorClass, ExposureState, Flavor, Group, Hints, LockKind, Op, Rank,
    Result, World,
};
use windlass_runtime::update::Kind;

const ME: Option<Rank> = Some(Rank(0));
const NONE: Assertions = Assertions::NONE;

fn class<T: std::fmt::Debug>(result: Result<T>) -> ErrorClass {
    let error = result.expect_err("this call should have been refused");
    let here = error.site().location.file().ends_with("raw.rs");
    assert!(here, "{error:?}");
    error.class()
}

fn from<'a, T>(memory: &'a [T], count: u64, layout: &'a Layout) -> Data<'a, *const u8> {
    Data {
        address: memory.as_ptr().cast(),
        count,
        layout,
    }
}

fn into<'a, T>(memory: &'a mut [T], count: u64, layout: &'a Layout) -> Data<'a, *mut u8> {
    Data {
        address: memory.as_mut_ptr().cast(),
        count,
        layout,
    }
}

fn at(disp: i64, count: u64, layout: &Layout) -> At<'_> {
    At {
        rank: ME,
        disp,
        count,
        layout,
    }
}

fn put<T>(win: &Window, memory: &[T], layout: &Layout, target: At<'_>) -> Result<()> {
    // SAFETY: the slice holds the layout in every use below, and is not touched before the flush.
    unsafe { win.put(from(memory, 1, layout), target) }
}

fn get<T>(win: &Window, memory: &mut [T], layout: &Layout, target: At<'_>) -> Result<()> {
    // SAFETY: as in `put`.
    unsafe { win.get(into(memory, 1, layout), target) }
}

fn transfers(world: &World) {
    let win = Window::allocate(world, 4096, 8, &Hints::new()).unwrap();
    assert_eq!((win.len_bytes(), win.disp_unit()), (4096, 8));
    assert_eq!(win.flavor(), Flavor::Allocate);
    win.lock(LockKind::Exclusive, ME, NONE).unwrap();
    let f64s = Layout::of::<f64>();
    let three = f64s.contiguous(3).unwrap();
    put(&win, &[1.0, 2.0, 3.0], &three, at(5, 3, &f64s)).unwrap();
    let mut seen = [0.0; 4];
    get(&win, &mut seen[..3], &three, at(5, 1, &three)).unwrap();
    assert_eq!(seen, [1.0, 2.0, 3.0, 0.0]);
    // Every second element, backwards, from every third.
    let ours = f64s.vector(4, 1, -2).unwrap();
    let theirs = f64s.vector(4, 1, 3).unwrap();
    let source: Vec<f64> = (0..8).map(f64::from).collect();
    let data = Data {
        address: source[7..].as_ptr().cast(),
        count: 1,
        layout: &ours,
    };
    // SAFETY: the layout reaches from element 7 down to element 1 of `source`.
    unsafe { win.put(data, at(10, 1, &theirs)) }.unwrap();
    let mut all = [0.0; 20];
    get(
        &win,
        &mut all,
        &f64s.contiguous(20).unwrap(),
        at(0, 20, &f64s),
    )
    .unwrap();
    assert_eq!([all[10], all[13], all[16], all[19]], [7.0, 5.0, 3.0, 1.0]);
    assert_eq!([all[11], all[12], all[14]], [0.0; 3], "gaps are untouched");
    // An accumulate through layouts of both sides, and its fetching form.
    let i32s = Layout::of::<i32>();
    let pairs = i32s.vector(3, 2, 4).unwrap();
    let six = i32s.contiguous(6).unwrap();
    let ones = [1i32, 2, 3, 4, 5, 6];
    // SAFETY: six elements on this side.
    unsafe { win.accumulate(from(&ones, 1, &six), at(100, 1, &pairs), Op::Sum) }.unwrap();
    let mut old = [0i32; 6];
    // SAFETY: as above; the buffers are different ones.
    unsafe {
        let result = into(&mut old, 6, &i32s);
        win.get_accumulate(from(&ones, 6, &i32s), result, at(100, 1, &pairs), Op::Sum)
    }
    .unwrap();
    assert_eq!(old, ones);
    let mut row = [0i32; 10];
    get(
        &win,
        &mut row,
        &i32s.contiguous(10).unwrap(),
        at(100, 10, &i32s),
    )
    .unwrap();
    assert_eq!(row, [2, 4, 0, 0, 6, 8, 0, 0, 10, 12]);
    let (new, compare, mut was) = ([7i32], [2i32], [0i32]);
    let (new, compare) = (new.as_ptr().cast(), compare.as_ptr().cast());
    let result = was.as_mut_ptr().cast();
    // SAFETY: one element each.
    unsafe { win.compare_and_swap(new, compare, result, &i32s, (ME, 100)) }.unwrap();
    let mut now = [0i32];
    let (null, result) = (std::ptr::null(), now.as_mut_ptr().cast());
    // SAFETY: one element; the origin is not looked at.
    unsafe { win.fetch_and_op(null, result, &i32s, (ME, 100), Op::NoOp) }.unwrap();
    assert_eq!((was, now), ([2], [7]));
    win.unlock(ME).unwrap();
    win.free().unwrap();
}

/// C's pairs have padding: no update changes it at the target, and no result brings it (mpi-rma 3).
fn padding(world: &World) {
    for (kind, value, index_at, align) in [
        (Kind::ShortInt, 2, 4, 4),
        (Kind::DoubleInt, 8, 8, 8),
        (Kind::LongDoubleInt, 10, 16, 16),
    ] {
        let basic = Basic::pair(kind as u32, value, index_at, 4, align).unwrap();
        let (pair, size) = (Layout::basic(basic), kind.size());
        let bytes = Layout::of::<u8>();
        let win = Window::allocate(world, 256, 1, &Hints::new()).unwrap();
        win.lock(LockKind::Exclusive, ME, NONE).unwrap();
        put(
            &win,
            &[0xaau8; 256],
            &bytes.contiguous(256).unwrap(),
            at(0, 256, &bytes),
        )
        .unwrap();
        // Two elements of zeros with rubbish between, aligned and not.
        for disp in [64, 177] {
            let (ours, mut seen) = (vec![0xee; 64], vec![0xdd; 64]);
            let element = |memory: &mut [u8], at: usize, byte: u8| {
                let index = at * size + index_at as usize;
                memory[at * size..][..value as usize].fill(byte);
                memory[index..index + 4].fill(byte);
            };
            let mut ours: Vec<u8> = ours;
            element(&mut ours, 0, 1);
            element(&mut ours, 1, 1);
            // SAFETY: two elements in each buffer; they are different ones.
            unsafe {
                let result = into(&mut seen, 2, &pair);
                win.get_accumulate(
                    from(&ours, 2, &pair),
                    result,
                    at(disp, 2, &pair),
                    Op::Replace,
                )
            }
            .unwrap();
            // SAFETY: as above.
            unsafe { win.accumulate(from(&ours, 2, &pair), at(disp, 2, &pair), Op::MinLoc) }
                .unwrap();
            let mut wanted = vec![0xdd; 64];
            element(&mut wanted, 0, 0xaa);
            element(&mut wanted, 1, 0xaa);
            assert_eq!(
                seen, wanted,
                "{kind}: a result has the old values and its own padding"
            );
            let mut there = [0; 64];
            let run = bytes.contiguous(64).unwrap();
            get(&win, &mut there, &run, at(disp, 64, &bytes)).unwrap();
            let mut wanted = vec![0xaa; 64];
            element(&mut wanted, 0, 1);
            element(&mut wanted, 1, 1);
            assert_eq!(there[..], wanted[..], "{kind} at {disp}");
        }
        // SAFETY: one element; refused before anything is looked at.
        let sum = unsafe { win.accumulate(from(&[0u8; 32], 1, &pair), at(0, 1, &pair), Op::Sum) };
        assert_eq!(class(sum), ErrorClass::Op);
        win.unlock(ME).unwrap();
        win.free().unwrap();
    }
}

fn errors(world: &World) {
    let win = Window::allocate(world, 100, 4, &Hints::new()).unwrap();
    let bytes = Layout::of::<u8>();
    let ten = bytes.contiguous(10).unwrap();
    let data = [0u8; 10];
    assert_eq!(
        class(put(&win, &data, &ten, at(0, 1, &ten))),
        ErrorClass::RmaSync
    );
    win.lock_all(NONE).unwrap();
    for (disp, fits) in [
        (0, true),
        (22, true),
        (23, false),
        (-1, false),
        (i64::MAX, false),
    ] {
        let done = put(&win, &data, &ten, at(disp, 1, &ten));
        match fits {
            true => done.unwrap(),
            false => assert_eq!(class(done), ErrorClass::RmaRange, "{disp}"),
        }
    }
    let refused = put(&win, &data, &ten, at(0, 9, &bytes));
    assert_eq!(class(refused), ErrorClass::Type, "more is sent than fits");
    let words = Layout::of::<u32>().contiguous(3).unwrap();
    assert_eq!(
        class(put(&win, &data, &ten, at(0, 1, &words))),
        ErrorClass::Type
    );
    let nobody = At {
        rank: Some(Rank(1)),
        ..at(0, 1, &ten)
    };
    assert_eq!(class(put(&win, &data, &ten, nobody)), ErrorClass::Rank);
    let null = At {
        rank: None,
        ..at(1 << 40, 1, &ten)
    };
    put(&win, &data, &ten, null).unwrap();
    let origin = Data {
        address: std::ptr::null(),
        count: 1,
        layout: &ten,
    };
    // SAFETY: the address is refused.
    let refused = unsafe { win.put(origin, at(0, 1, &ten)) };
    assert_eq!(class(refused), ErrorClass::Buffer);
    // SAFETY: nothing is touched.
    unsafe { win.put(Data { count: 0, ..origin }, at(0, 0, &ten)) }.unwrap();
    // SAFETY: ten bytes that live on.
    let request = unsafe { win.rput(from(&data, 1, &ten), at(0, 1, &ten)) }.unwrap();
    request.wait().unwrap();
    win.unlock_all().unwrap();
    win.free().unwrap();
    let refused = Window::allocate(world, 8, 0, &Hints::new());
    assert_eq!(class(refused), ErrorClass::Disp);
    // SAFETY: the address is refused.
    let refused = unsafe { Window::create(world, std::ptr::null_mut(), 8, 1, &Hints::new()) };
    assert_eq!(class(refused), ErrorClass::Base);
}

fn synchronisation(world: &World) {
    let all: Group = world.group();
    let win = Window::allocate(world, 64, 1, &Hints::new()).unwrap();
    let byte = Layout::of::<u8>();
    let state = |win: &Window| {
        let state = win.state(ME);
        (state.access, state.exposed)
    };
    let none = (AccessState::None, ExposureState::None);
    win.fence(Assertions::NOPRECEDE).unwrap();
    assert_eq!(state(&win), (AccessState::Fence, ExposureState::Fence));
    put(&win, &[1u8], &byte, at(0, 1, &byte)).unwrap();
    assert_eq!(state(&win), (AccessState::FenceUsed, ExposureState::Fence));
    assert_eq!(class(win.fence(Assertions::NOPRECEDE)), ErrorClass::RmaSync);
    // SAFETY: one byte that lives on.
    let refused = unsafe { win.rput(from(&[1u8], 1, &byte), at(0, 1, &byte)) }.map(drop);
    assert_eq!(
        class(refused),
        ErrorClass::RmaSync,
        "requests are for passive epochs"
    );
    assert_eq!(class(win.lock_all(NONE)), ErrorClass::RmaSync);
    win.fence(Assertions::NOSUCCEED).unwrap();
    assert_eq!(state(&win), none);
    assert_eq!(class(win.fence(Assertions::NOCHECK)), ErrorClass::Assert);
    // A fence without operations gives way to a start.
    win.fence(NONE).unwrap();
    win.post(&all, NONE).unwrap();
    assert_eq!(state(&win), (AccessState::None, ExposureState::Posted));
    assert!(!win.test().unwrap());
    win.start(&all, NONE).unwrap();
    put(&win, &[2u8], &byte, at(1, 1, &byte)).unwrap();
    assert_eq!(class(win.post(&all, NONE)), ErrorClass::RmaSync);
    win.complete().unwrap();
    assert!(win.test().unwrap());
    assert_eq!(state(&win), none);
    for _ in 0..3 {
        win.post(&all, Assertions::NOCHECK).unwrap();
        win.start(&all, Assertions::NOCHECK).unwrap();
        win.complete().unwrap();
        win.wait().unwrap();
    }
    assert_eq!(class(win.wait()), ErrorClass::RmaSync);
    assert_eq!(class(win.complete()), ErrorClass::RmaSync);
    win.lock(LockKind::Exclusive, ME, Assertions::NOCHECK)
        .unwrap();
    assert_eq!(
        class(win.lock(LockKind::Shared, ME, NONE)),
        ErrorClass::RmaSync
    );
    win.flush(ME).unwrap();
    let (error, win) = win.free().unwrap_err();
    assert_eq!(error.class(), ErrorClass::RmaSync);
    let win = win.expect("a window refused inside an epoch stays");
    win.unlock(ME).unwrap();
    assert_eq!(class(win.unlock(ME)), ErrorClass::RmaSync);
    assert_eq!(class(win.flush(ME)), ErrorClass::RmaSync);
    win.lock(LockKind::Shared, None, NONE).unwrap();
    win.unlock(None).unwrap();
    win.sync();
    let (bytes, unit, base) = win.shared_query(ME).unwrap();
    assert_eq!((bytes, unit, base), (64, 1, win.base()));
    assert_eq!(win.shared_query(None).unwrap().0, 64);
    win.free().unwrap();
}

fn lent(world: &World) {
    let mut memory = [0u8; 33];
    let base = memory[1..].as_mut_ptr();
    // SAFETY: the array outlives the window and is looked at only after its end.
    let win = unsafe { Window::create(world, base, 32, 1, &Hints::new()) }.unwrap();
    assert_eq!((win.base(), win.flavor()), (base, Flavor::Create));
    win.lock_all(NONE).unwrap();
    let byte = Layout::of::<u8>();
    put(
        &win,
        &[9u8; 4],
        &byte.contiguous(4).unwrap(),
        at(28, 4, &byte),
    )
    .unwrap();
    win.unlock_all().unwrap();
    win.free().unwrap();
    assert_eq!(memory[28..], [0, 9, 9, 9, 9]);
    // SAFETY: no bytes.
    let none = unsafe { Window::create(world, std::ptr::null_mut(), 0, 1, &Hints::new()) };
    none.unwrap().free().unwrap();
}

fn layouts_of_typed_windows(world: &World) {
    let mut win = world.allocate::<i64>(100).unwrap();
    let i64s = Layout::of::<i64>();
    let column = i64s.vector(5, 1, 10).unwrap();
    let five = i64s.contiguous(5).unwrap();
    let epoch = win.fence().unwrap();
    let me = Rank(0);
    epoch
        .put_layout(&[1, 2, 3, 4, 5], &five, me, 3, &column)
        .unwrap();
    let mut back = [0i64; 10];
    let spread = i64s.vector(5, 1, 2).unwrap();
    // The last element of the destination ends with the slice.
    epoch
        .get_layout(&mut back[..9], &spread, me, 3, &column)
        .unwrap();
    assert_eq!(back, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    let short = epoch.get_layout(&mut back[..8], &spread, me, 3, &column);
    assert_eq!(class(short), ErrorClass::Buffer);
    let outside = epoch.put_layout(&[0; 5], &five, me, 60, &column);
    assert!(matches!(outside, Err(Error::Range { .. })), "{outside:?}");
    epoch
        .accumulate_layout(&[10; 5], &five, me, 3, &column, Op::Sum)
        .unwrap();
    let mut old = [0i64; 5];
    epoch
        .get_accumulate_layout((&[], &five), (&mut old, &five), me, 3, &column, Op::NoOp)
        .unwrap();
    assert_eq!(old, [11, 12, 13, 14, 15]);
    let (mut a, mut b) = ([0; 5], [0; 1]);
    epoch
        .scope(|s| {
            s.put(&[77], me, 99)?;
            s.get(&mut a, me, 3)?;
            s.get(&mut b, me, 13)
        })
        .unwrap()
        .unwrap();
    assert_eq!((a[0], b), (11, [12]));
    epoch.end().unwrap();
    assert_eq!(win.local().load(99), 77);
    win.free().unwrap();
}

#[test]
fn a_job_of_one_rank() {
    let world = windlass::init().unwrap();
    transfers(&world);
    padding(&world);
    errors(&world);
    synchronisation(&world);
    lent(&world);
    layouts_of_typed_windows(&world);
    world.end().unwrap();
}
