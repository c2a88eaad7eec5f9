//! Four processes on a named node race for the last entry of a table (spec ve-memory sections 2.3, 2.5, 2.6): one has it, the others
//! get the documented errno, nobody's earlier entries change, and all capacity is back in the end.

mod support;

use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;

use support::user::{Start, User, home, name, status_of};
use support::{until, watchdog};
use windlass_mem::MemFile;
use windlass_node::{Address, Door, Service};
use windlass_ve::Profile;

const RACERS: usize = 4;
const ROUNDS: usize = 1_000;
const M64: u64 = 64 << 20;

/// The program of these tests; nothing when run as a test of its own.
#[test]
fn role() {
    support::user::play();
}

/// A VE that the keeper and the racers fill but for one frame, one slot and one directory.
fn profile() -> Profile {
    Profile {
        memory_bytes: (1 + RACERS as u64 + 1) * M64,
        // The system's, the keeper's, the last.
        bar0_bytes: 3 * M64,
        dmaatb_directories: Profile::VE1.cores + 2,
        ..Profile::VE1
    }
}

#[test]
fn the_last_entry_has_one_winner_among_processes() {
    let _watchdog = watchdog();
    let (home, name) = (home(), name("last"));
    let (sender, _events) = channel();
    let door = Door::Named(name.clone(), name.bind().unwrap().unwrap());
    let service = Service::open(2, profile(), door, sender).unwrap();
    let empty = status_of(&name).ves;
    let enter = |ve: u32| Start::new(home.path()).named(&name).enter(ve);
    let (mut keeper, mut reader) = (enter(0), enter(1));
    let kept = format!("{} {}", keeper.pid(), keeper.ask("keep"));
    assert_eq!(reader.ask(&format!("read {kept}")), "from the owner");
    let mut racers: Vec<User> = (0..RACERS).map(|_| enter(0)).collect();
    for racer in &mut racers {
        assert_eq!(racer.ask("ready"), "ready");
    }
    let full = status_of(&name).ves;
    let left = &full[0];
    assert_eq!(
        (
            left.free_bytes,
            left.free_pciatb_slots,
            left.free_dmaatb_directories
        ),
        (M64, 1, 1),
        "one of each is left"
    );
    for what in ["slot", "directory", "frame"] {
        let file = MemFile::create("race", 4096).unwrap();
        let line = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        for racer in &mut racers {
            racer.tell(&format!("race {what} {line} {RACERS} {ROUNDS}"));
        }
        let won: Vec<usize> = racers
            .iter_mut()
            .map(|racer| {
                let answer = racer.hear();
                answer
                    .parse()
                    .unwrap_or_else(|_| panic!("{what}: {answer}"))
            })
            .collect();
        println!("{what}: won {won:?}");
        assert_eq!(won.iter().sum::<usize>(), ROUNDS, "{what}: {won:?}");
        assert_eq!(status_of(&name).ves, full, "{what}: it is back");
        assert_eq!(reader.ask("peek"), "from the owner", "{what}");
        assert_eq!(keeper.ask("peek"), "from the owner", "{what}");
    }
    racers.into_iter().for_each(User::end);
    reader.end();
    keeper.end();
    until("all capacity is back", || status_of(&name).ves == empty);
    service.stop();
    assert!(!Address::all().contains(&Address::Named(name)));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
