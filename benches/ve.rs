//! Speed of the emulated Vector Engine, without a service in another process: `cargo bench --bench ve`.
//!
//! Each figure is the median of rounds that alternate with what it is compared with, so that a noisy machine disturbs both alike.

use std::error::Error;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use windlass_ve::{
    Config, Direct, Fence, Handle, Mode, PageSize, Process, Profile, Service, Vehva,
};

const M64: usize = 64 << 20;
const ROUNDS: usize = 41;

/// Nanoseconds of one call, over `times` calls.
fn time(times: u32, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        call();
    }
    start.elapsed().as_nanos() as f64 / f64::from(times)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Medians of two calls that take turns.
fn compare(times: u32, mut a: impl FnMut(), mut b: impl FnMut()) -> (f64, f64) {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_a.push(time(times, &mut a));
        of_b.push(time(times, &mut b));
    }
    (median(of_a), median(of_b))
}

fn verdict(what: &str, figure: f64, met: bool, wanted: &str) {
    let verdict = if met { "met" } else { "NOT MET" };
    println!("{what}: {figure:.2}, wanted {wanted}: {verdict}");
}

fn bandwidth(owner: &Process, user: &Process, near: &Process) -> Result<(), Box<dyn Error>> {
    let (area, own, source) = (
        owner.alloc(M64, PageSize::M64)?,
        user.alloc(M64, PageSize::M64)?,
        near.alloc(M64, PageSize::M64)?,
    );
    owner.veshm_open(area.vemva, M64 as u64, 0, Mode::PCI)?;
    let remote = user.attach_vehva(owner.pid(), area.vemva, M64 as u64, Mode::PCI)?;
    let local = user.register(own.vemva, M64 as u64)?;
    // Another process of the owner's VE, with a mapping of its own.
    let mapping = near.attach_vemva(owner.pid(), area.vemva, M64 as u64, Mode::PCI)?;
    assert_ne!(mapping.vemva, area.vemva);
    let (mut to, from) = (vec![1_u8; M64], vec![2_u8; M64]);
    mapping.bytes.fill(0, M64, 1)?;
    source.bytes.fill(0, M64, 2)?;
    area.bytes.fill(0, M64, 1)?;
    own.bytes.fill(0, M64, 2)?;
    println!(
        "{:>10} {:>14} {:>14} {:>7} {:>14} {:>7}",
        "bytes", "memcpy GB/s", "DMA GB/s", "ratio", "VEMVA GB/s", "ratio"
    );
    let (mut of_mapping, mut of_dma) = (f64::INFINITY, 0.0);
    for len in [4 << 10, 64 << 10, 1 << 20, 16 << 20] {
        let times = u32::try_from((32 << 20) / len)?;
        let mut copy = || black_box(&mut to[..len]).copy_from_slice(black_box(&from[..len]));
        let (plain, dma) = compare(times, &mut copy, || {
            assert!(user.dma().post_wait(remote, local, len as u32).is_none());
        });
        let (plain_too, mapped) = compare(times, &mut copy, || {
            let copied = mapping.bytes.copy(0, &source.bytes, 0, len);
            copied.expect("in range");
        });
        let speed = |ns: f64| len as f64 / ns;
        println!(
            "{len:>10} {:>14.2} {:>14.2} {:>7.2} {:>14.2} {:>7.2}",
            speed(plain),
            speed(dma),
            plain / dma,
            speed(mapped),
            plain_too / mapped
        );
        of_mapping = of_mapping.min(plain_too / mapped);
        if len == 1 << 20 {
            of_dma = plain / dma;
        }
    }
    let (mapped, sent) = (of_mapping >= 0.95, of_dma >= 0.8);
    verdict("VEMVA of memcpy, worst size", of_mapping, mapped, ">= 0.95");
    verdict("DMA of memcpy, 1 MiB", of_dma, sent, ">= 0.80");
    latency(user, remote, local)
}

fn latency(user: &Process, remote: Vehva, local: Vehva) -> Result<(), Box<dyn Error>> {
    let handle = Handle::new();
    let (together, apart) = compare(
        20_000,
        || assert!(user.dma().post_wait(remote, local, 8).is_none()),
        || {
            let dma = user.dma();
            dma.post(remote, local, 8, &handle).expect("room");
            assert!(dma.wait(&handle).expect("posted").is_none());
        },
    );
    println!("8 bytes: post_wait {together:.0} ns, post and wait {apart:.0} ns");
    let slower = together.max(apart);
    verdict("8 bytes by DMA, ns", slower, slower <= 300.0, "<= 300");
    let mut word = [0; 8];
    let (store, load) = compare(
        20_000,
        || {
            user.shm(remote, &[1; 8]).expect("mapped");
            user.fence(Fence::Stores);
        },
        || user.lhm(remote, black_box(&mut word)).expect("mapped"),
    );
    println!("8 bytes: SHM and fence {store:.0} ns, LHM {load:.0} ns");
    Ok(())
}

fn attach(owner: &Process, user: &Process, near: &Process) -> Result<(), Box<dyn Error>> {
    let area = owner.alloc(M64, PageSize::M64)?;
    owner.veshm_open(area.vemva, M64 as u64, 0, Mode::PCI)?;
    let len = M64 as u64;
    let (far, mapped) = compare(
        200,
        || {
            let at = user.attach_vehva(owner.pid(), area.vemva, len, Mode::PCI);
            user.detach_vehva(at.expect("attach")).expect("detach");
        },
        || {
            let at = near.attach_vemva(owner.pid(), area.vemva, len, Mode::PCI);
            near.detach_vemva(at.expect("attach").vemva)
                .expect("detach");
        },
    );
    println!(
        "attach and detach 64 MiB, without the way to the service: VEHVA {far:.0} ns, VEMVA {mapped:.0} ns"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config {
        ves: 2,
        profile: Profile::VE1,
    };
    let service = Arc::new(Mutex::new(Service::new(config)?));
    let join = |pid, ve| -> Result<Process, Box<dyn Error>> {
        let direct = Direct::join(Arc::clone(&service), pid, 1, 1000, Some(ve))?;
        Ok(Process::join(Arc::new(direct))?)
    };
    let (owner, user, near) = (join(10, 0)?, join(11, 1)?, join(12, 0)?);
    bandwidth(&owner, &user, &near)?;
    attach(&owner, &user, &near)
}
