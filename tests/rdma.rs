//! Windows over a real RDMA stack: the kernel's Soft-RoCE adapter, stock libdat2 and Debian's provider for it, in a guest that
//! runs Debian's kernel.
//!
//! Needs `WLTEST_KERNEL`, a folder with a Debian kernel package unpacked (`.ci/run` makes one), and the packages that
//! `rdma/image.sh` names with qemu-system-x86; skipped with the reason where something is missing. The guest is emulated, so
//! everything in it is slow, and buffers are small.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Done, Spec, cc};
use windlass::{LockKind, Op, Rank, World};

/// The adapter's name in the guest's dat.conf.
const ADAPTER: &str = "ofa-v2-roe";
/// A guest takes about 20 s to 60 s.
const LIMIT: Duration = Duration::from_secs(280);

/// Puts, gets and updates between two ranks, each value checked.
fn operate(world: &World) -> Done {
    const LEN: usize = 1000;
    let me = world.rank().0;
    let other = Rank(1 - me);
    let mut window = world.allocate::<u64>(LEN)?;
    let route = window.routes().find(|route| route.target == other);
    let route = route.expect("a route to every rank");
    assert_eq!(
        (route.mechanism, route.shape),
        ("udapl", "posted"),
        "{route:?}"
    );
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    assert!(
        maps.contains("libdat2.so") && maps.contains("librxe"),
        "{maps}"
    );
    let epoch = window.fence()?;
    let values: Vec<u64> = (0..400).map(|i| u64::from(me) << 32 | i).collect();
    epoch.put(&values, other, 10)?;
    epoch.put(&[me.into()], other, 900)?;
    let epoch = epoch.next()?;
    let mut back = vec![0; 400];
    epoch.get(&mut back, other, 10)?;
    assert_eq!(back, values);
    epoch.end()?;
    let lock = window.lock(Rank(0), LockKind::Shared)?;
    for _ in 0..20 {
        lock.accumulate(&[1, 2], Rank(0), 500, Op::Sum)?;
        lock.fetch_and_op(1, Rank(0), 502, Op::Sum)?;
    }
    lock.end()?;
    world.barrier()?;
    let mine = window.local().to_vec();
    let theirs: Vec<u64> = (0..400).map(|i| u64::from(other.0) << 32 | i).collect();
    assert_eq!(mine[10..410], theirs);
    assert_eq!(mine[900], u64::from(other.0));
    if me == 0 {
        assert_eq!(mine[500..504], [40, 80, 40, 0]);
    }
    window.free()?;
    let lent = world.create(vec![7u64; 64])?;
    let lent = {
        let mut lent = lent;
        let epoch = lent.fence()?;
        epoch.put(&[me.into(); 8], other, 8)?;
        epoch.end()?;
        lent.free()?
    };
    assert_eq!(
        lent[7..17],
        [[7].as_slice(), &[u64::from(other.0); 8], &[7]].concat()
    );
    Ok(())
}

/// What the guest runs.
#[test]
#[ignore = "for the guest of the test below"]
fn guest() {
    let spec = Spec::new("guest").nodes(2).place("vh:1").limit(LIMIT);
    let spec = spec.env("WINDLASS_DAT", ADAPTER);
    spec.env("WINDLASS_NETWORK", "10.9.0.1").world(operate);
}

/// The kernel's folder, or what is missing.
fn kernel() -> Result<PathBuf, String> {
    let kernel = std::env::var_os("WLTEST_KERNEL").ok_or("WLTEST_KERNEL names no kernel")?;
    for program in ["qemu-system-x86_64", "busybox", "dtest", "rdma", "strings"] {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).exists())
        });
        if !found {
            return Err(format!("there is no {program}"));
        }
    }
    Ok(kernel.into())
}

fn image_of(kernel: &Path, folder: &Path) -> PathBuf {
    let image = folder.join("image");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rdma/image.sh");
    let mut make = Command::new("sh");
    make.arg(script).arg(kernel).arg(&image);
    make.arg(std::env::current_exe().expect("a process knows its program"));
    cc::run(make).succeeded();
    image
}

#[test]
fn windows_over_soft_roce() {
    let kernel = match kernel() {
        Ok(kernel) => kernel,
        Err(reason) => return println!("windows_over_soft_roce: skipped: {reason}"),
    };
    let boot = std::fs::read_dir(kernel.join("boot")).expect("a kernel's folder");
    let mut files = boot.map(|entry| entry.expect("readable").path());
    let vmlinuz = files.find(|file| file.to_string_lossy().contains("/vmlinuz-"));
    let vmlinuz = vmlinuz.expect("a kernel package has a kernel");
    let folder = tempfile::tempdir().expect("a folder");
    let image = image_of(&kernel, folder.path());
    let mut guest = Command::new("timeout");
    guest.arg(LIMIT.as_secs().to_string());
    guest.args([
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
    ]);
    guest.args(["-m", "2000", "-nographic", "-no-reboot", "-nic", "none"]);
    guest.arg("-kernel").arg(vmlinuz).arg("-initrd").arg(image);
    guest.args(["-append", "console=ttyS0 quiet panic=-1"]);
    let _alone = support::leaks::alone();
    let output = guest.stdin(Stdio::null()).output();
    let output = output.expect("qemu can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    for passed in ["GUEST dtest 0", "GUEST windows 0"] {
        assert!(said.contains(passed), "no `{passed}`: {said}");
    }
    assert!(
        said.contains("test guest ... ok") || said.contains("1 passed"),
        "{said}"
    );
}
