//! Speed of the pieces by themselves: `cargo bench --bench pieces`, or `-- layout` for those of that name.
//!
//! The order of mechanisms, the walk over a layout, the check of an epoch, the ring of a VE's DMA engine, the
//! codec of the wire, the kernels of accumulate. No launcher, no other process.

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use windlass::Layout;
use windlass::inside::Locked;
use windlass::layout::Order;
use windlass_mem::SharedBytes;
use windlass_runtime::MechanismId;
use windlass_runtime::mechanism::{Cost, Reason};
use windlass_runtime::select::{self, Candidate};
use windlass_runtime::update::{self, Kind, Unit, UpdateOp};
use windlass_ve::{Config, Direct, Handle, Mode, PageSize, Process, Profile, Service};
use windlass_wire::{Frames, Put, Take, frame};

/// Which mechanisms are tried in which order, as for a peer on this host.
fn order(c: &mut Criterion) {
    let candidates = || {
        let verdict = |id| match id {
            MechanismId::Veshm | MechanismId::Veo => Err(Reason::new("there is no VE")),
            MechanismId::Udapl | MechanismId::Ofi => Ok(Cost::NETWORK),
            _ => Ok(Cost::MAPPED),
        };
        let candidate = |mechanism| Candidate {
            mechanism,
            verdict: verdict(mechanism),
        };
        MechanismId::ALL.into_iter().map(candidate).collect()
    };
    c.bench_function("select", |b| {
        b.iter_with_setup(candidates, |all| select::order(black_box(all), None));
    });
}

/// The walk over layouts of as many runs.
fn layouts(c: &mut Criterion) {
    const RUNS: u64 = 1024;
    let element = Layout::of::<f64>();
    let places = (0..RUNS as i64).map(|run| (3 * run, 1));
    let (sizes, subsizes, starts) = ([64, 64, 8], [32, 32, 4], [16, 16, 2]);
    let layouts = [
        ("vector", element.vector(RUNS, 1, 2)),
        ("indexed", element.indexed(places)),
        (
            "subarray",
            element.subarray(&sizes, &subsizes, &starts, Order::C),
        ),
    ];
    let mut group = c.benchmark_group("layout");
    group.throughput(Throughput::Elements(RUNS));
    for (name, layout) in layouts {
        let layout = layout.expect("a layout");
        group.bench_function(name, |b| {
            b.iter(|| {
                let walked = layout.times(black_box(1)).expect("one of it");
                walked
                    .runs()
                    .fold(0, |sum, (at, len)| sum ^ at ^ len as i64)
            });
        });
    }
    group.finish();
}

/// What a put asks of the epoch, and what a call that looks at all ranks does.
fn epochs(c: &mut Criterion) {
    let mut group = c.benchmark_group("epoch");
    for ranks in [2, 4096] {
        let locked = Locked::new(ranks, 1);
        group.bench_with_input(BenchmarkId::new("put", ranks), &locked, |b, locked| {
            b.iter(|| locked.may_put(black_box(1)));
        });
        group.bench_with_input(BenchmarkId::new("unlock", ranks), &locked, |b, locked| {
            b.iter(|| locked.may_unlock(black_box(1)));
        });
    }
    group.finish();
}

/// A post on the ring of the DMA engine of an emulated VE, and the poll that takes its end in.
fn ring(c: &mut Criterion) {
    let config = Config {
        ves: 2,
        profile: Profile::VE1,
    };
    let service = Arc::new(Mutex::new(Service::new(config).expect("a node")));
    let join = |pid, ve| {
        let direct = Direct::join(Arc::clone(&service), pid, 1, 1000, Some(ve));
        Process::join(Arc::new(direct.expect("room"))).expect("a process")
    };
    let (owner, user) = (join(10, 0), join(11, 1));
    let page = PageSize::M64;
    let len = 64 << 20; // what VESHM takes
    let (area, own) = (owner.alloc(len, page), user.alloc(len, page));
    let (area, own) = (area.expect("memory").vemva, own.expect("memory").vemva);
    let opened = owner.veshm_open(area, len as u64, 0, Mode::PCI);
    opened.expect("an area");
    let remote = user.attach_vehva(owner.pid(), area, len as u64, Mode::PCI);
    let local = user.register(own, len as u64);
    let (remote, local) = (remote.expect("its way"), local.expect("its own way"));
    let (dma, handle) = (user.dma(), Handle::new());
    let mut group = c.benchmark_group("ring");
    for bytes in [8, 4096] {
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(BenchmarkId::new("post_poll", bytes), |b| {
            b.iter(|| {
                let posted = dma.post(remote, local, bytes as u32, &handle);
                posted.expect("room");
                while dma.poll(&handle).is_err() {}
            });
        });
    }
    group.finish();
}

/// A message of some fields and bytes into a frame, and out of one.
fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    for bytes in [64, 4096] {
        let body = vec![7; bytes];
        let encode = || {
            let mut put = Put::new();
            put.u8(3).u32(5).u64(7).bytes(&body);
            frame(put.as_slice())
        };
        let framed = encode();
        group.throughput(Throughput::Bytes(framed.len() as u64));
        group.bench_function(BenchmarkId::new("encode", bytes), |b| {
            b.iter(|| black_box(encode()));
        });
        group.bench_function(BenchmarkId::new("decode", bytes), |b| {
            let mut frames = Frames::new(2 * bytes);
            b.iter(|| {
                frames.push(black_box(&framed));
                let message = frames.next().expect("sound").expect("whole");
                let mut take = Take::new(&message);
                let fields = (take.u8(), take.u32(), take.u64());
                assert!(matches!(fields, (Ok(3), Ok(5), Ok(7))));
                take.bytes(bytes).map(<[u8]>::len)
            });
        });
    }
    group.finish();
}

/// Updates of elements in memory that others may change: one by the inlined way, many by the other.
fn kernels(c: &mut Criterion) {
    const COUNT: usize = 512;
    let (memory, _loan) = windlass_mem::lend(vec![0u64; COUNT]);
    let mut group = c.benchmark_group("accumulate");
    group.bench_function("quick/sum/i64", |b| {
        let mut old = [0; 8];
        b.iter(|| {
            let fetched = Some(&mut old[..]);
            update::quick(
                &memory,
                0,
                Kind::I64,
                UpdateOp::Sum,
                &1i64.to_ne_bytes(),
                fetched,
            )
        });
    });
    for (kind, name) in [
        (Kind::I64, "i64"),
        (Kind::F64, "f64"),
        (Kind::U8, "u8"),
        (Kind::F32, "f32"),
    ] {
        for (op, of) in [
            (UpdateOp::Sum, "sum"),
            (UpdateOp::Max, "max"),
            (UpdateOp::Replace, "replace"),
        ] {
            // Elements by which a sum stays what it is.
            let operand = vec![0; COUNT * kind.size()];
            group.throughput(Throughput::Elements(COUNT as u64));
            let run = |memory: &SharedBytes| {
                update::apply(memory, 0, kind, op, black_box(&operand), None, Unit::Cpu)
            };
            group.bench_function(format!("{of}/{name}"), |b| {
                b.iter(|| run(&memory).expect("an update"));
            });
        }
    }
    group.finish();
}

/// Short: all of them are over in half a minute.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group! {
    name = pieces;
    config = quick();
    targets = order, layouts, epochs, ring, codec, kernels
}
criterion_main!(pieces);
