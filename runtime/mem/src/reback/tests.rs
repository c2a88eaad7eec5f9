//! Most of these run in a process of their own ([`alone`]): they count its threads, mappings and files, and pause the
//! others by signals.
#![cfg(not(miri))]

use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{borrow, lend};

/// Names the test that a process runs alone.
const ALONE: &str = "WLTEST_ALONE";

/// Such a process does without the query of single mappings, which kernels before 6.11 have not.
const SCAN: &str = "WLTEST_SCAN";

/// Runs `body` in a process of its own, whose only test it is.
fn alone(test: &str, body: impl FnOnce()) {
    alone_with(test, (ALONE, ""), body);
}

/// The same with a variable.
fn alone_with(test: &str, (name, value): (&str, &str), body: impl FnOnce()) {
    let test = format!("reback::tests::{test}");
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        watch();
        maps::tests::SCAN.store(std::env::var_os(SCAN).is_some(), SeqCst);
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture", "--test-threads=1"])
        .env(name, value)
        .env(ALONE, &test)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{:?}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// A process that hangs dies of a signal.
fn watch() {
    // SAFETY: takes a number of seconds.
    unsafe { libc::alarm(100) };
}

/// Runs `body` in a forked child, whose only thread it is.
fn forked(body: impl FnOnce()) {
    let child = fork(body);
    assert_eq!(reap(child), 0, "the child failed");
}

fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the child runs `body` and ends; these tests' processes hold no lock that it would need: they have no other
    // thread that takes any.
    match unsafe { libc::fork() } {
        0 => {
            watch();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: ends the process without running the harness's exit handlers a second time.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        child => {
            assert!(child > 0);
            child
        }
    }
}

fn reap(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of ours and stores its status in a local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

fn page() -> usize {
    rustix::param::page_size()
}

/// Pages of private memory, like those of an allocator, unmapped at the end.
struct Pages(NonNull<u8>, usize);

// SAFETY: an address; what is done with it by several threads is atomic.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(count: usize) -> Pages {
        let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let len = count * page();
        // SAFETY: a null hint lets the kernel choose free addresses.
        let at = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                access,
                rustix::mm::MapFlags::PRIVATE,
            )
        };
        Pages(NonNull::new(at.unwrap().cast()).unwrap(), len)
    }

    fn addr(&self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.1 / 8);
        // SAFETY: an aligned word of our own mapping, accessed only atomically while others run.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr().cast::<u64>().add(index)) }
    }

    /// A range over `len` bytes at `offset`.
    fn range(&self, offset: usize, len: usize) -> SharedBytes {
        assert!(offset + len <= self.1);
        // SAFETY: inside our mapping, which outlives every range of these tests; accessed atomically or by the kernel.
        unsafe { borrow(self.0.add(offset), len) }
    }

    fn lease(&self, offset: usize, len: usize) -> Lease {
        Lease::new(self.range(offset, len), How::Pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, used by nobody any more.
        unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), self.1) }.unwrap();
    }
}

/// How a peer sees a lease: another mapping of the file.
fn peer(lease: &Lease) -> SharedBytes {
    let (file, offset) = lease.file().unwrap();
    let start = offset / page() as u64 * page() as u64;
    let skip = (offset - start) as usize;
    let all = file.map(start, skip + lease.bytes().len()).unwrap();
    all.slice(skip, lease.bytes().len()).unwrap()
}

fn contents(bytes: &SharedBytes) -> Vec<u8> {
    let mut all = vec![0; bytes.len()];
    bytes.read(0, &mut all).unwrap();
    all
}

fn rule(lease: &Lease) -> &'static str {
    match lease.file() {
        Err(Error::Unmovable { rule }) => rule,
        other => panic!("{other:?}"),
    }
}

fn is_shared(addr: usize) -> bool {
    Maps::open().unwrap().from(addr).unwrap().unwrap().shared
}

/// Mappings, descriptors, and bytes of the file.
fn holdings() -> (usize, usize, u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let blocks = BACKING.get().map_or(0, |backing| {
        rustix::fs::fstat(&backing.file).unwrap().st_blocks as u64
    });
    (maps.lines().count(), fds, blocks * 512)
}

/// From here on the calling thread may not use userfaultfd: it is nobody's, who has no right to it.
fn renounce() {
    if rustix::process::geteuid().is_root() {
        // SAFETY: the raw call changes the ids of this thread alone.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(done, 0);
    }
}

/// Adds to words as fast as it can on a thread of its own, and says how often in the end.
struct Hammer<'scope> {
    stop: &'scope AtomicBool,
    thread: std::thread::ScopedJoinHandle<'scope, u64>,
}

impl<'scope> Hammer<'scope> {
    fn start<'env>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        stop: &'scope AtomicBool,
        words: Vec<&'scope AtomicU64>,
    ) -> Self {
        let thread = scope.spawn(move || {
            let mut count = 0;
            while !stop.load(SeqCst) {
                // Not atomic: an update that meets a move between load and store is lost, if anything can be.
                for word in &words {
                    word.store(
                        word.load(std::sync::atomic::Ordering::Relaxed) + 1,
                        std::sync::atomic::Ordering::Relaxed,
                    );
                }
                count += 1;
            }
            count
        });
        Hammer { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.thread.join().unwrap()
    }
}

proptest! {
    #[test]
    fn parts_without_holes_agree_with_a_bitmap(start in 0..40usize, len in 0..40usize, holes in prop::collection::vec((0..90usize, 0..90usize), 0..6)) {
        let end = start + len;
        let parts = without((start, end), holes.iter().copied());
        for at in 0..100 {
            let model = (start..end).contains(&at) && !holes.iter().any(|&(a, b)| (a..b).contains(&at));
            prop_assert_eq!(parts.iter().filter(|&&(a, b)| (a..b).contains(&at)).count(), usize::from(model));
        }
        prop_assert!(parts.iter().all(|(a, b)| a < b));
    }

    #[test]
    fn pieces_agree_with_a_bitmap(steps in prop::collection::vec((any::<bool>(), 0..50usize, 1..20usize), 1..30)) {
        let mut registry = Registry::new();
        let mut model = [false; 80];
        for (add, start, len) in steps {
            registry.forget(start, start + len);
            if add {
                let piece = Piece { end: start + len, kept: false, traits: Traits::default() };
                registry.pieces.insert(start, piece);
            }
            model[start..start + len].fill(add);
            for (at, &backed) in model.iter().enumerate() {
                let found = registry.within(at, at + 1).count();
                prop_assert_eq!(found, usize::from(backed), "at {}", at);
            }
            let all: usize = registry.within(0, 80).map(|(a, b, _)| b - a).sum();
            prop_assert_eq!(all, model.iter().filter(|&&b| b).count());
        }
    }
}

#[test]
fn a_vector_is_shared_in_place_and_comes_back_with_what_peers_wrote() {
    alone(
        "a_vector_is_shared_in_place_and_comes_back_with_what_peers_wrote",
        || {
            // Small ones lie in the heap, the last is mapped by the allocator.
            for len in [2usize, 100, 5_000, 70_000, 3 << 20] {
                let memory: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let addr = memory.as_ptr().addr();
                let (bytes, loan) = lend(memory);
                let lease = Lease::new(bytes.clone(), How::Pages);
                let seen = peer(&lease);
                assert!(is_shared(addr));
                assert_eq!(contents(&seen), contents(&bytes));
                seen.write(len - 1, &[0xab]).unwrap();
                bytes.write(0, &[0xcd]).unwrap();
                assert_eq!(contents(&seen), contents(&bytes));
                drop(seen);
                drop(lease);
                let memory = loan.take_back(bytes).unwrap();
                assert_eq!(memory.as_ptr().addr(), addr);
                assert_eq!(memory[len - 1], 0xab);
                for (i, &byte) in memory.iter().enumerate().take(len - 1).skip(1) {
                    assert_eq!(byte, i as u8);
                }
                assert_eq!(is_shared(addr), backed_bytes() > 0);
                restore_idle().unwrap();
                assert!(!is_shared(addr));
                assert_eq!(backed_bytes(), 0);
            }
        },
    );
}

static DATA: [AtomicU64; 3000] = [const { AtomicU64::new(7) }; 3000];
static ZEROS: [AtomicU64; 3000] = [const { AtomicU64::new(0) }; 3000];

#[test]
fn static_data_is_shared_and_stays_so() {
    alone("static_data_is_shared_and_stays_so", || {
        let over = |words: &'static [AtomicU64]| {
            let at = NonNull::from(&words[10..]).cast();
            // SAFETY: words that these lines alone access, atomically.
            unsafe { borrow(at, 2980 * 8) }
        };
        for (words, value) in [(&DATA, 7), (&ZEROS, 0)] {
            let lease = Lease::new(over(words), How::Pages);
            let seen = peer(&lease);
            assert_eq!(contents(&seen), value.to_ne_bytes_of(2980));
            seen.write(8, &99u64.to_ne_bytes()).unwrap();
            assert_eq!(words[11].load(SeqCst), 99);
            drop(lease);
            assert!(is_shared((&raw const words[11]).addr()), "it may stay");
            // The second time there is nothing to move.
            words[12].store(5, SeqCst);
            let lease = Lease::new(over(words), How::Pages);
            assert_eq!(contents(&peer(&lease))[16..24], 5u64.to_ne_bytes());
            drop(lease);
            restore_idle().unwrap();
            assert!(!is_shared((&raw const words[11]).addr()));
            assert_eq!((words[11].load(SeqCst), words[12].load(SeqCst)), (99, 5));
            assert_eq!(words[2999].load(SeqCst), value);
        }
    });
}

trait Repeated {
    fn to_ne_bytes_of(self, count: usize) -> Vec<u8>;
}

impl Repeated for u64 {
    fn to_ne_bytes_of(self, count: usize) -> Vec<u8> {
        self.to_ne_bytes().repeat(count)
    }
}

/// Neighbours of a lent range on its first and last page, written all the while.
fn neighbours(cycles: usize, pages: usize) {
    let memory = Pages::new(pages);
    let words = pages * page() / 8;
    let stop = AtomicBool::new(false);
    let wanted = std::thread::scope(|scope| {
        let near = vec![memory.word(0), memory.word(words - 1)];
        let hammer = Hammer::start(scope, &stop, near);
        let worker = scope.spawn(|| {
            if std::env::var_os("WLTEST_RENOUNCE").is_some() {
                renounce();
            }
            for cycle in 0..cycles {
                let lease = memory.lease(24, words * 8 - 56);
                let seen = peer(&lease);
                seen.write(8, &(cycle as u64).to_ne_bytes()).unwrap();
                assert_eq!(memory.word(4).load(SeqCst), cycle as u64);
                drop(seen);
                drop(lease);
                assert_eq!(memory.word(4).load(SeqCst), cycle as u64);
            }
        });
        let outcome = worker.join();
        let wanted = hammer.stop();
        outcome.unwrap();
        wanted
    });
    assert!(wanted > 0);
    for word in [0, words - 1] {
        let got = memory.word(word).load(SeqCst);
        assert_eq!(got, wanted, "{} of {wanted} updates lost", wanted - got);
    }
    assert_eq!(backed_bytes(), 0);
}

#[test]
fn neighbours_lose_nothing() {
    alone("neighbours_lose_nothing", || {
        neighbours(1_500, 2);
        neighbours(100, 50);
    });
}

#[test]
fn neighbours_lose_nothing_where_userfaultfd_is_refused() {
    alone(
        "neighbours_lose_nothing_where_userfaultfd_is_refused",
        || {
            // SAFETY: no other thread of this process reads the environment now.
            unsafe { std::env::set_var("WLTEST_RENOUNCE", "1") };
            neighbours(500, 2);
            neighbours(50, 50);
        },
    );
}

/// A page that nobody has touched has nothing that could be protected, but for the "unpopulated" feature. It is copied
/// first, and the pages after it take long.
#[test]
fn the_first_touch_of_a_neighbour_is_not_lost() {
    alone("the_first_touch_of_a_neighbour_is_not_lost", || {
        for round in 0..100u64 {
            let memory = Pages::new(500);
            for page_number in 1..500 {
                memory.word(page_number * page() / 8).store(1, SeqCst);
            }
            let go = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !go.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                    let began = std::time::Instant::now();
                    while began.elapsed() < Duration::from_micros(5 * round) {}
                    memory.word(0).store(round + 1, SeqCst);
                });
                go.store(true, SeqCst);
                let lease = memory.lease(8, 500 * page() - 8);
                lease.file().unwrap();
            });
            assert_eq!(memory.word(0).load(SeqCst), round + 1);
        }
    });
}

/// Also the kernel's writes for another thread: its system calls neither fail nor get lost.
#[test]
fn system_calls_of_neighbours_neither_fail_nor_get_lost() {
    alone(
        "system_calls_of_neighbours_neither_fail_nor_get_lost",
        || {
            let memory = Pages::new(1);
            let stop = AtomicBool::new(false);
            let zero = std::fs::File::open("/dev/zero").unwrap();
            std::thread::scope(|scope| {
                let memory = &memory;
                let stop = &stop;
                let reader = scope.spawn(move || {
                    let mut reads = 0;
                    while !stop.load(SeqCst) {
                        memory.word(0).store(u64::MAX, SeqCst);
                        // SAFETY: eight bytes of our mapping, which this thread alone uses.
                        let read = unsafe {
                            use std::os::fd::AsRawFd;
                            libc::read(zero.as_raw_fd(), memory.0.as_ptr().cast(), 8)
                        };
                        assert_eq!(read, 8, "{}", std::io::Error::last_os_error());
                        assert_eq!(memory.word(0).load(SeqCst), 0);
                        reads += 1;
                    }
                    reads
                });
                for _ in 0..500 {
                    let lease = memory.lease(64, 100);
                    lease.file().unwrap();
                }
                stop.store(true, SeqCst);
                assert!(reader.join().unwrap() > 0);
            });
        },
    );
}

fn block_all_signals() {
    // SAFETY: a local set, filled before it is used; only this thread's mask changes.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// Lends memory by the signal alone, beside a thread that blocks all signals if `deaf`: why it is refused, if it is.
fn paused(memory: &Pages, deaf: bool) -> Option<&'static str> {
    let ready = AtomicBool::new(false);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if deaf {
                block_all_signals();
            }
            ready.store(true, SeqCst);
            while !stop.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while !ready.load(SeqCst) {
            std::thread::yield_now();
        }
        let lent = scope.spawn(|| {
            renounce();
            match memory.lease(8, 5000).file() {
                Ok(_) => None,
                Err(Error::Unmovable { rule }) => Some(rule),
                Err(other) => panic!("{other}"),
            }
        });
        let outcome = lent.join();
        stop.store(true, SeqCst);
        outcome.unwrap()
    })
}

#[test]
fn a_thread_that_blocks_the_signal_is_told_and_nothing_changes() {
    alone(
        "a_thread_that_blocks_the_signal_is_told_and_nothing_changes",
        || {
            let memory = Pages::new(2);
            memory.word(4).store(11, SeqCst);
            // No signal is taken that somebody blocks: he may be waiting for it.
            let none = "no real-time signal is free to pause other threads";
            assert_eq!(paused(&memory, true), Some(none));
            assert!(!is_shared(memory.addr()));
            assert_eq!(paused(&memory, false), None);
            // Blocked after it was taken. That thread ends with the signal pending.
            let deaf = "a thread blocks the signal that would pause it";
            assert_eq!(paused(&memory, true), Some(deaf));
            assert!(!is_shared(memory.addr()));
            assert_eq!((memory.word(4).load(SeqCst), backed_bytes()), (11, 0));
            assert_eq!(paused(&memory, false), None);
        },
    );
}

#[test]
fn the_only_thread_of_a_process_needs_no_freeze() {
    alone("the_only_thread_of_a_process_needs_no_freeze", || {
        forked(|| {
            renounce();
            let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
            let memory = Pages::new(3);
            memory.word(1).store(1, SeqCst);
            for _ in 0..20 {
                let lease = memory.lease(8, 3 * page() - 16);
                assert_eq!(contents(&peer(&lease))[..8], 1u64.to_ne_bytes());
            }
            // No signal was taken for it.
            for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
                // SAFETY: asks for the present action and stores it in a local.
                let handler = unsafe {
                    libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
                    action.assume_init().sa_sigaction
                };
                assert_eq!(handler, libc::SIG_DFL);
            }
        });
    });
}

fn children_and_neighbours() {
    // A process of one thread, as most that fork are.
    forked(|| {
        let memory = Pages::new(4);
        let words = 4 * page() / 8;
        let near = [0, words - 1];
        let lease = memory.lease(24, words * 8 - 48);
        for round in 0..50u64 {
            for at in near {
                memory.word(at).store(round, SeqCst);
            }
            memory.word(100).store(round, SeqCst);
            let child = fork(|| {
                assert_eq!(backed_bytes(), 0);
                std::thread::sleep(Duration::from_micros(200));
                for at in near {
                    // The parent has gone on by now.
                    assert_eq!(memory.word(at).load(SeqCst), round);
                    memory.word(at).store(1 << 40, SeqCst);
                }
                memory.word(600).store(1 << 41, SeqCst);
            });
            for at in near {
                memory.word(at).store(round + 1, SeqCst);
            }
            assert_eq!(reap(child), 0);
            for at in near {
                assert_eq!(memory.word(at).load(SeqCst), round + 1);
            }
            assert_eq!(memory.word(100).load(SeqCst), round);
            assert_eq!(
                memory.word(600).load(SeqCst),
                0,
                "the child's window is its own"
            );
        }
        assert_eq!(contents(&peer(&lease)).len(), words * 8 - 48);
    });
}

#[test]
fn a_child_has_its_own_neighbours_and_its_parent_too() {
    let test = "a_child_has_its_own_neighbours_and_its_parent_too";
    alone(test, children_and_neighbours);
}

/// Without the query of single mappings, which is of 6.11.
#[test]
fn an_older_kernel_serves_too() {
    alone_with("an_older_kernel_serves_too", (SCAN, "1"), || {
        children_and_neighbours();
        neighbours(100, 3);
        heap_keeps();
    });
}

#[test]
fn a_child_has_its_own_copy_of_what_stays_backed_without_a_lease() {
    alone(
        "a_child_has_its_own_copy_of_what_stays_backed_without_a_lease",
        || {
            forked(|| {
                let at = NonNull::from(&DATA[..]).cast();
                // SAFETY: words that these lines alone access, atomically.
                drop(Lease::new(unsafe { borrow(at, 3000 * 8) }, How::Pages));
                assert!(backed_bytes() > 0);
                let child = fork(|| {
                    std::thread::sleep(Duration::from_millis(2));
                    // All of it is as it was at the fork, also where the parent has written since.
                    assert!(DATA.iter().all(|word| word.load(SeqCst) == 7));
                    DATA.iter().for_each(|word| word.store(8, SeqCst));
                    // What it lends itself is not put among its parent's pages.
                    // SAFETY: as above.
                    let lease = Lease::new(unsafe { borrow(at, 3000 * 8) }, How::Pages);
                    assert!(matches!(lease.file(), Err(Error::Unmovable { .. })));
                });
                DATA.iter().for_each(|word| word.store(9, SeqCst));
                assert_eq!(reap(child), 0);
                assert!(DATA.iter().all(|word| word.load(SeqCst) == 9));
            });
        },
    );
}

/// Where a thread cannot be paused, what stays in the file is copied for the child.
#[test]
fn a_child_has_its_own_copy_also_where_nothing_comes_back() {
    alone(
        "a_child_has_its_own_copy_also_where_nothing_comes_back",
        || {
            let at = NonNull::from(&DATA[..]).cast();
            // SAFETY: words that these lines alone access, atomically.
            drop(Lease::new(unsafe { borrow(at, 3000 * 8) }, How::Pages));
            let stop = AtomicBool::new(false);
            let ready = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    block_all_signals();
                    ready.store(true, SeqCst);
                    while !stop.load(SeqCst) {
                        std::thread::yield_now();
                    }
                });
                while !ready.load(SeqCst) {
                    std::thread::yield_now();
                }
                let child = fork(|| {
                    assert!(DATA.iter().all(|word| word.load(SeqCst) == 7));
                    DATA.iter().for_each(|word| word.store(8, SeqCst));
                });
                let status = reap(child);
                stop.store(true, SeqCst);
                assert_eq!(status, 0);
            });
            assert!(backed_bytes() > 0);
            assert!(DATA.iter().all(|word| word.load(SeqCst) == 7));
        },
    );
}

#[test]
fn children_of_a_process_with_threads_run_commands() {
    alone("children_of_a_process_with_threads_run_commands", || {
        let memory = Pages::new(2);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let hammer = Hammer::start(scope, &stop, vec![memory.word(0)]);
            let lease = memory.lease(8, 2 * page() - 16);
            for _ in 0..20 {
                let child = fork(|| memory.word(0).store(0, SeqCst));
                assert_eq!(reap(child), 0);
                assert!(Command::new("true").status().unwrap().success());
            }
            drop(lease);
            let wanted = hammer.stop();
            assert_eq!(memory.word(0).load(SeqCst), wanted);
        });
    });
}

#[test]
fn overlapping_leases_share_pages_until_the_last_ends() {
    alone("overlapping_leases_share_pages_until_the_last_ends", || {
        let memory = Pages::new(6);
        let at = |page_number: usize| is_shared(memory.addr() + page_number * page());
        for first_goes_first in [true, false] {
            for i in 0..6 * page() / 8 {
                memory.word(i).store(i as u64, SeqCst);
            }
            let one = memory.lease(100, 3 * page());
            let two = memory.lease(2 * page() + 50, 3 * page());
            let same = memory.lease(100, 3 * page());
            let (seen_one, seen_two) = (peer(&one), peer(&two));
            // The same byte by both.
            seen_one.write(2 * page(), b"both").unwrap();
            let mut read = [0; 4];
            seen_two.read(50, &mut read).unwrap();
            assert_eq!(&read, b"both");
            drop((seen_one, seen_two));
            let (goes, stays) = if first_goes_first {
                (one, two)
            } else {
                (two, one)
            };
            drop(goes);
            drop(same);
            assert_eq!((at(0), at(5)), (!first_goes_first, first_goes_first));
            assert!(at(2) && at(3));
            let seen = peer(&stays);
            assert_eq!(contents(&seen), contents(stays.bytes()));
            drop(stays);
            assert!((0..6).all(|i| !at(i)));
            let mut read = [0; 4];
            memory
                .range(2 * page() + 100, 4)
                .read(0, &mut read)
                .unwrap();
            assert_eq!(&read, b"both");
            assert_eq!(
                memory.word(6 * page() / 8 - 1).load(SeqCst),
                6 * page() as u64 / 8 - 1
            );
        }
    });
}

#[test]
fn pages_that_others_copy_to_are_not_moved() {
    alone("pages_that_others_copy_to_are_not_moved", || {
        let memory = Pages::new(4);
        let copied = Lease::new(memory.range(page() + 8, 100), How::Never("a test says so"));
        assert_eq!(rule(&copied), "a test says so");
        let near = memory.lease(page() + 200, 2 * page());
        assert_eq!(rule(&near), "other windows reach these pages by copying");
        let apart = memory.lease(2 * page(), 8);
        assert_eq!(
            rule(&apart),
            "other windows reach these pages by copying",
            "near is one"
        );
        drop((near, apart));
        memory.lease(2 * page(), 8).file().unwrap();
        drop(copied);
        memory.lease(page() + 200, 2 * page()).file().unwrap();
        assert_eq!(backed_bytes(), 0);
    });
}

#[test]
fn nothing_is_left_of_many_windows() {
    let one = ("MALLOC_ARENA_MAX", "1");
    alone_with("nothing_is_left_of_many_windows", one, || {
        let cycle = |len: usize| {
            let (bytes, loan) = lend(vec![3u8; len]);
            let lease = Lease::new(bytes.clone(), How::Pages);
            lease.file().unwrap();
            drop(lease);
            loan.take_back(bytes).unwrap()
        };
        for len in [100, 10_000, 1 << 20] {
            let kept = cycle(len);
            drop((kept, cycle(len)));
        }
        restore_idle().unwrap();
        let before = holdings();
        for round in 0..200 {
            for len in [100, 10_000, 1 << 20] {
                assert!(cycle(len + round).iter().all(|&byte| byte == 3));
            }
        }
        restore_idle().unwrap();
        let after = holdings();
        assert_eq!(after.1, before.1, "descriptors");
        assert_eq!(after.2, 0, "pages of the file");
        // Pages that came back do not merge with their neighbours in the heap.
        assert!(
            after.0 <= before.0 + 8,
            "{} mappings, {} before",
            after.0,
            before.0
        );
    });
}

/// A vector of a heap of glibc's is lent, kept, and then used and freed as any other.
fn heap_keeps() {
    if !traits::heap_is_glibcs() {
        return eprintln!("skipped: not glibc's allocator");
    }
    let len = 60_000;
    // In front of it, on the first page of a thread's heap, lies the allocator's own data.
    let front: Vec<u8> = Vec::with_capacity(10_000);
    let memory = vec![5u8; len];
    std::hint::black_box(&front);
    let addr = memory.as_ptr().addr();
    let (bytes, loan) = lend(memory);
    let lease = Lease::new(bytes.clone(), How::Pages);
    lease.file().unwrap();
    let backed = backed_bytes();
    drop(lease);
    assert_eq!(backed_bytes(), backed, "it stays");
    let mut memory = loan.take_back(bytes).unwrap();
    assert_eq!((memory.as_ptr().addr(), memory[len - 1]), (addr, 5));
    // Grown, it is copied; freed and discarded, it comes back zeroed where zeros are asked for.
    memory.reserve_exact(3 * len);
    assert!(memory.iter().all(|&byte| byte == 5));
    drop(memory);
    // SAFETY: gives free pages of the allocator back to the system.
    unsafe { libc::malloc_trim(0) };
    for size in (1_000..200_000).step_by(997) {
        assert!(vec![0u8; size].iter().all(|&byte| byte == 0), "{size}");
    }
    // Whoever has the pages now keeps them.
    let others: Vec<Vec<u8>> = (0..100).map(|i| vec![i; 3_000]).collect();
    restore_idle().unwrap();
    assert_eq!(backed_bytes(), 0);
    for (i, other) in others.iter().enumerate() {
        assert!(other.iter().all(|&byte| byte == i as u8));
    }
}

#[test]
fn the_heap_keeps_its_backing_and_its_allocator_does_not_mind() {
    // All threads use the heap by brk.
    let one = ("MALLOC_ARENA_MAX", "1");
    alone_with(
        "the_heap_keeps_its_backing_and_its_allocator_does_not_mind",
        one,
        heap_keeps,
    );
}

#[test]
fn the_heap_of_a_thread_keeps_its_backing_too() {
    alone("the_heap_of_a_thread_keeps_its_backing_too", || {
        let thread = std::thread::spawn(|| {
            // A block small enough for a heap is not in that of brk; the allocator's own data lies in front of it.
            let block: Vec<u8> = Vec::with_capacity(10_000);
            let maps = Maps::open().unwrap();
            let vma = maps.from(block.as_ptr().addr()).unwrap().unwrap();
            assert_ne!(vma.name, Name::Heap);
            heap_keeps();
        });
        thread.join().unwrap();
    });
}

/// The first page of a thread's heap has data that glibc writes to in a forked child.
#[test]
fn the_allocators_own_page_stays_private() {
    alone("the_allocators_own_page_stays_private", || {
        if !traits::heap_is_glibcs() {
            return eprintln!("skipped: not glibc's allocator");
        }
        let thread = std::thread::spawn(|| {
            let (bytes, _loan) = lend(vec![1u8; 2_000]);
            let first = bytes.addr() / page() * page();
            assert_eq!(
                first % traits::THREAD_HEAP_BYTES,
                0,
                "the first block of a thread's heap"
            );
            let lease = Lease::new(bytes, How::Pages);
            assert_eq!(
                rule(&lease),
                "its allocator's own data lies on its first page"
            );
        });
        thread.join().unwrap();
    });
}

/// What the allocator mapped apart it moves when it grows: it comes back first.
#[test]
fn a_block_apart_is_not_kept() {
    alone("a_block_apart_is_not_kept", || {
        let (bytes, loan) = lend(vec![6u8; 1 << 20]);
        drop(Lease::new(bytes.clone(), How::Pages));
        assert_eq!(backed_bytes(), 0);
        let mut memory = loan.take_back(bytes).unwrap();
        memory.resize(9 << 20, 7);
        assert!(memory[..1 << 20].iter().all(|&byte| byte == 6));
        assert!(memory[1 << 20..].iter().all(|&byte| byte == 7));
    });
}

#[test]
fn pages_that_their_owner_gave_up_are_left_to_whoever_has_them() {
    alone(
        "pages_that_their_owner_gave_up_are_left_to_whoever_has_them",
        || {
            let memory = Pages::new(6);
            let lease = memory.lease(0, 6 * page());
            lease.file().unwrap();
            let at = |i: usize| pages::pointer(memory.addr() + i * page());
            let new = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
            let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
            // SAFETY: pages of our own mapping, which nobody uses at this moment.
            unsafe {
                rustix::mm::munmap(at(1), page()).unwrap();
                rustix::mm::mmap_anonymous(at(4), page(), access, new).unwrap();
            }
            memory.word(4 * page() / 8).store(4, SeqCst);
            memory.word(0).store(1, SeqCst);
            drop(lease);
            assert_eq!(backed_bytes(), 0);
            assert!(
                (0..6)
                    .filter(|&i| i != 1)
                    .all(|i| !is_shared(memory.addr() + i * page()))
            );
            assert_eq!(memory.word(4 * page() / 8).load(SeqCst), 4);
            assert_eq!(memory.word(0).load(SeqCst), 1);
            let next = Maps::open()
                .unwrap()
                .from(memory.addr() + page())
                .unwrap()
                .unwrap();
            assert_eq!(
                next.start,
                memory.addr() + 2 * page(),
                "the hole stays a hole"
            );
            assert_eq!(holdings().2, 0);
        },
    );
}

#[test]
fn untouched_pages_stay_untouched() {
    alone("untouched_pages_stay_untouched", || {
        let many = (64 << 20) / page();
        let sparse = |threads: bool| {
            let memory = Pages::new(many);
            memory.word(many / 2 * page() / 8).store(17, SeqCst);
            let lease = memory.lease(0, many * page());
            let seen = peer(&lease);
            let used = holdings().2;
            assert!(
                used <= 4 * page() as u64,
                "{used} bytes, other threads: {threads}"
            );
            let mut read = [0; 8];
            seen.read(many / 2 * page(), &mut read).unwrap();
            assert_eq!(read, 17u64.to_ne_bytes());
            seen.read((many - 1) * page(), &mut read).unwrap();
            assert_eq!(read, [0; 8]);
            drop((seen, lease));
            assert_eq!(memory.word(many / 2 * page() / 8).load(SeqCst), 17);
        };
        forked(|| sparse(false));
        if rustix::process::geteuid().is_root() {
            // Others may not tell such pages from swapped ones.
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(SeqCst) {
                        std::thread::yield_now()
                    }
                });
                let outcome = std::panic::catch_unwind(|| sparse(true));
                stop.store(true, SeqCst);
                outcome.unwrap();
            });
        }
    });
}

#[test]
fn lock_and_advice_go_with_the_pages() {
    use rustix::mm::{Advice, madvise, mlock};
    alone("lock_and_advice_go_with_the_pages", || {
        let memory = Pages::new(3);
        let flags = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let head = format!("{:x}-", memory.addr());
            let entry = &smaps[smaps.find(&head).unwrap()..];
            let line = entry
                .lines()
                .find(|line| line.starts_with("VmFlags:"))
                .unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let at = pages::pointer(memory.addr());
        // SAFETY: lock and advice change no content.
        unsafe {
            mlock(at, 3 * page()).unwrap();
            madvise(at, 3 * page(), Advice::LinuxDontDump).unwrap();
        }
        for _ in 0..3 {
            let lease = memory.lease(100, 2 * page());
            assert!(is_shared(memory.addr()));
            for flag in ["lo", "dd", "sh"] {
                assert!(flags().iter().any(|f| f == flag), "{flag}: {:?}", flags());
            }
            drop(lease);
            for flag in ["lo", "dd"] {
                assert!(flags().iter().any(|f| f == flag), "{flag}: {:?}", flags());
            }
            assert!(!flags().iter().any(|f| f == "sh"));
        }
    });
}

#[test]
fn what_is_not_safe_to_move_is_refused_with_its_reason() {
    use rustix::mm::{Advice, madvise};
    alone(
        "what_is_not_safe_to_move_is_refused_with_its_reason",
        || {
            let mut local = [1u8; 100];
            // SAFETY: the array outlives the range and is not used meanwhile.
            let stack = unsafe { borrow(NonNull::from(&mut local).cast(), 100) };
            let why = rule(&Lease::new(stack, How::Pages));
            assert_eq!(why, "the calling thread runs on it");
            // SAFETY: the thread's own errno, which nothing accesses by this range.
            let own = unsafe { borrow(NonNull::new(libc::__errno_location().cast()).unwrap(), 4) };
            assert_eq!(
                rule(&Lease::new(own, How::Pages)),
                "the calling thread runs on it"
            );

            let file = MemFile::create("windlass-test", 2 * page() as u64).unwrap();
            let shared = file.map(0, 2 * page()).unwrap();
            let why = rule(&Lease::new(shared, How::Pages));
            assert_eq!(why, "it is shared memory already");
            assert_eq!(
                rule(&Lease::new(SharedBytes::empty(), How::Pages)),
                "there is nothing that could be mapped"
            );

            let memory = Pages::new(4);
            assert_eq!(
                rule(&Lease::new(memory.range(8, page()), How::WholePages)),
                "other data lies on its first or last page"
            );
            Lease::new(memory.range(page(), page()), How::WholePages)
                .file()
                .unwrap();
            let at = pages::pointer(memory.addr());
            // SAFETY: this advice is about children, and changes no content.
            unsafe { madvise(at, page(), Advice::LinuxDontFork) }.unwrap();
            let why = rule(&memory.lease(0, 2 * page()));
            assert_eq!(
                why,
                "it is kept from children, as memory known to a device is"
            );
            // SAFETY: as above.
            unsafe { madvise(at, page(), Advice::LinuxDoFork) }.unwrap();
            memory.lease(0, 2 * page()).file().unwrap();

            // SAFETY: a policy decides where pages lie, not what they hold; one bit of one word is set.
            let bound = unsafe {
                let node = 1u64;
                libc::syscall(libc::SYS_mbind, at, page(), 2, &raw const node, 64usize, 0)
            };
            if bound == 0 {
                let why = rule(&memory.lease(0, 2 * page()));
                assert_eq!(why, "it has a memory policy");
            }
            assert_eq!((backed_bytes(), local[99]), (0, 1));
            assert!((0..4).all(|i| !is_shared(memory.addr() + i * page())));
        },
    );
}

#[test]
fn a_limit_on_file_sizes_refuses_instead_of_killing() {
    alone("a_limit_on_file_sizes_refuses_instead_of_killing", || {
        let limit = rustix::process::Rlimit {
            current: Some(1 << 20),
            maximum: Some(1 << 20),
        };
        rustix::process::setrlimit(Resource::Fsize, limit).unwrap();
        let memory = Pages::new(1);
        assert_eq!(
            rule(&memory.lease(0, 100)),
            "the size of files is limited (ulimit -f)"
        );
    });
}

#[test]
fn many_threads_lend_at_once() {
    alone("many_threads_lend_at_once", || {
        let memory = Pages::new(8);
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let memory = &memory;
                scope.spawn(move || {
                    if thread == 3 {
                        renounce();
                    }
                    // Each has half of a page beside half of another's.
                    let offset = thread * page() + page() / 2;
                    for round in 0..100u64 {
                        let lease = memory.lease(offset, page());
                        let seen = peer(&lease);
                        seen.write(0, &round.to_ne_bytes()).unwrap();
                        seen.write(page() - 8, &round.to_ne_bytes()).unwrap();
                        drop((seen, lease));
                        let mut back = vec![0; page()];
                        memory.range(offset, page()).read(0, &mut back).unwrap();
                        assert_eq!(back[..8], round.to_ne_bytes());
                        assert_eq!(back[page() - 8..], round.to_ne_bytes());
                    }
                });
            }
        });
        assert_eq!((backed_bytes(), holdings().2), (0, 0));
    });
}

/// Memory of somebody else's device.
fn device(pages: usize) -> std::sync::Arc<MemFile> {
    std::sync::Arc::new(MemFile::create("windlass-test-device", (pages * page()) as u64).unwrap())
}

fn is_at(memory: &Pages, file: &MemFile, offset: usize) -> place::Presence {
    place::presence(file, offset as u64, memory.addr(), memory.1).unwrap()
}

#[test]
fn memory_becomes_part_of_another_file_and_loses_no_store() {
    alone(
        "memory_becomes_part_of_another_file_and_loses_no_store",
        || {
            const PAGES: usize = 64;
            const WHOLE: place::Presence = place::Presence::Whole { writable: true };
            for round in 0..50 {
                let (memory, file) = (Pages::new(PAGES), device(2 * PAGES));
                // A hole, and pages with content.
                let words = PAGES * page() / 8;
                for index in (0..words).filter(|index| index / 512 != 7) {
                    memory.word(index).store(index as u64, SeqCst);
                }
                let offset = (1 + round % PAGES) * page();
                let (stretches, why) =
                    place::survey(memory.addr(), memory.addr() + memory.1).unwrap();
                assert_eq!((stretches.len(), why), (1, None));
                assert_eq!(is_at(&memory, &file, offset), place::Presence::Gone);
                let (hammered, stop) = (20 * 512, AtomicBool::new(false));
                std::thread::scope(|scope| {
                    let hammer = Hammer::start(scope, &stop, vec![memory.word(hammered)]);
                    // SAFETY: the pages stay mapped as they are, and the file is known to nobody else.
                    unsafe { place::place(&file, offset as u64, memory.addr(), memory.1) }.unwrap();
                    let count = hammer.stop();
                    assert_eq!(memory.word(hammered).load(SeqCst), hammered as u64 + count);
                });
                memory.word(hammered).store(hammered as u64, SeqCst);
                assert_eq!(is_at(&memory, &file, offset), WHOLE);
                let peer = file.map(offset as u64, memory.1).unwrap();
                for (index, word) in contents(&peer).chunks_exact(8).enumerate() {
                    let expected = if index / 512 == 7 { 0 } else { index as u64 };
                    assert_eq!(word, expected.to_ne_bytes(), "word {index}");
                }
                peer.write(8, &77u64.to_ne_bytes()).unwrap();
                assert_eq!(memory.word(1).load(SeqCst), 77);
                // What the program gives up and fills again goes to its place in the same file.
                let part = memory.addr() + 3 * page();
                let fixed = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
                let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
                // SAFETY: pages of our own, used by nobody else.
                unsafe { rustix::mm::mmap_anonymous(pages::pointer(part), page(), access, fixed) }
                    .unwrap();
                memory.word(3 * 512).store(5, SeqCst);
                assert_eq!(is_at(&memory, &file, offset), place::Presence::Part);
                // SAFETY: as above.
                unsafe { place::place(&file, offset as u64, memory.addr(), memory.1) }.unwrap();
                assert_eq!(is_at(&memory, &file, offset), WHOLE);
                assert_eq!(contents(&peer)[3 * page()], 5);
                place::forget(memory.addr());
            }
        },
    );
}

#[test]
fn a_child_has_copies_of_what_lies_in_another_file() {
    alone("a_child_has_copies_of_what_lies_in_another_file", || {
        forked(|| {
            let (memory, file) = (Pages::new(8), device(8));
            memory.word(0).store(1, SeqCst);
            memory.word(5 * 512).store(2, SeqCst);
            let last = memory.addr() + 7 * page();
            // SAFETY: a page of our own; nobody writes to it.
            unsafe { pages::protect(last, page(), false) }.unwrap();
            // SAFETY: the pages stay mapped as they are, and the file is known to nobody else.
            unsafe { place::place(&file, 0, memory.addr(), memory.1) }.unwrap();
            assert_eq!(
                is_at(&memory, &file, 0),
                place::Presence::Whole { writable: false }
            );
            let child = fork(|| {
                assert_eq!(is_at(&memory, &file, 0), place::Presence::Gone);
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(memory.word(0).load(SeqCst), 1, "as it was at the fork");
                assert_eq!(memory.word(5 * 512).load(SeqCst), 2);
                memory.word(0).store(3, SeqCst);
                let (stretches, _) =
                    place::survey(memory.addr(), memory.addr() + memory.1).unwrap();
                let rights: Vec<bool> = stretches.iter().map(|part| part.writable).collect();
                assert_eq!(rights, [true, false]);
            });
            memory.word(0).store(4, SeqCst);
            assert_eq!(reap(child), 0);
            assert_eq!(memory.word(0).load(SeqCst), 4);
            let mut word = [0; 8];
            file.map(0, page()).unwrap().read(0, &mut word).unwrap();
            assert_eq!(u64::from_ne_bytes(word), 4);
        });
    });
}

#[test]
fn what_cannot_be_placed_stays_as_it_is() {
    alone("what_cannot_be_placed_stays_as_it_is", || {
        let (memory, file) = (Pages::new(8), device(8));
        memory.word(0).store(1, SeqCst);
        let hole = memory.addr() + 6 * page();
        // SAFETY: a page of our own, used by nobody.
        unsafe { rustix::mm::munmap(pages::pointer(hole), page()) }.unwrap();
        let (stretches, why) = place::survey(memory.addr(), memory.addr() + memory.1).unwrap();
        assert_eq!(stretches.last().map(|part| part.end), Some(hole));
        assert_eq!(why, Some(Error::Unmapped { addr: hole }));
        // SAFETY: the pages stay mapped as they are.
        let refused = unsafe { place::place(&file, 0, memory.addr(), memory.1) }.unwrap_err();
        assert_eq!(refused, Error::Unmapped { addr: hole });
        assert_eq!(is_at(&memory, &file, 0), place::Presence::Gone);
        // Shared memory is refused, and what lies before it comes back.
        let other = device(1);
        let (access, flags) = (
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::SHARED | rustix::mm::MapFlags::FIXED,
        );
        // SAFETY: a page of our own, used by nobody.
        unsafe { rustix::mm::mmap(pages::pointer(hole), page(), access, flags, &*other, 0) }
            .unwrap();
        // SAFETY: the pages stay mapped as they are.
        let refused = unsafe { place::place(&file, 0, memory.addr(), memory.1) }.unwrap_err();
        assert!(matches!(refused, Error::Unmovable { .. }), "{refused}");
        assert_eq!(is_at(&memory, &file, 0), place::Presence::Gone);
        assert_eq!(memory.word(0).load(SeqCst), 1);
        let local = 0u8;
        let stack = (&raw const local).addr() / page() * page();
        // SAFETY: as above; it is refused.
        let refused = unsafe { place::place(&file, 0, stack, page()) }.unwrap_err();
        assert!(matches!(refused, Error::Unmovable { .. }), "{refused}");
    });
}
