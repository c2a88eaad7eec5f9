//! A racer's part: it wants the last entry of a table at the same time as others, over and over.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_mem::{MemFile, SharedBytes};
use windlass_ve::{Errno, Error, Mode, PageSize, Process, Vehva, Vemva};

use super::until;
use super::user::{SIZE, said};

/// Where the racers' common words are.
const ARRIVED: usize = 0;
const WINNERS: usize = 64;

/// What was won.
enum Won {
    Slot,
    Directory(Vehva),
    Frame(Vemva),
}

/// The start and the end of a round, for all at once: by a word that counts who has come.
struct Line {
    words: SharedBytes,
    racers: u64,
    turns: u64,
}

impl Line {
    fn word(&self, at: usize) -> &AtomicU64 {
        self.words.atomic_u64(at).unwrap()
    }

    fn meet(&mut self) {
        self.turns += 1;
        let all = self.turns * self.racers;
        self.word(ARRIVED).fetch_add(1, Ordering::SeqCst);
        for _ in 0..200 {
            if self.word(ARRIVED).load(Ordering::SeqCst) >= all {
                return;
            }
            std::thread::yield_now();
        }
        until("all racers are there", || {
            self.word(ARRIVED).load(Ordering::SeqCst) >= all
        });
    }
}

fn take(process: &Process, what: &str, vemva: Vemva) -> Result<Won, Error> {
    match what {
        "slot" => process
            .veshm_open(vemva, SIZE, 0, Mode::PCI)
            .map(|()| Won::Slot),
        "directory" => process.register(vemva, SIZE).map(Won::Directory),
        "frame" => process
            .alloc(SIZE as usize, PageSize::M64)
            .map(|memory| Won::Frame(memory.vemva)),
        other => panic!("no table {other}"),
    }
}

fn give(process: &Process, won: Won, vemva: Vemva) -> Result<(), Error> {
    match won {
        Won::Slot => process.veshm_close(vemva, SIZE, 0, Mode::PCI),
        Won::Directory(vehva) => process.unregister(vehva),
        Won::Frame(vemva) => process.free(vemva),
    }
}

/// Races; gives how often this process has won.
pub fn race(process: &Process, vemva: Vemva, words: &[&str]) -> Result<String, String> {
    let [what, file, racers, rounds] = words else {
        panic!("no such race: {words:?}");
    };
    let file = std::fs::File::options().read(true).write(true).open(file);
    let file = MemFile::from_fd(OwnedFd::from(file.unwrap())).unwrap();
    let mut line = Line {
        words: file.map(0, 4096).unwrap(),
        racers: racers.parse().unwrap(),
        turns: 0,
    };
    let mut times = 0;
    for round in 1..=rounds.parse::<u64>().unwrap() {
        line.meet();
        let outcome = take(process, what, vemva);
        if outcome.is_ok() {
            line.word(WINNERS).fetch_add(1, Ordering::SeqCst);
        }
        line.meet();
        let winners = line.word(WINNERS).load(Ordering::SeqCst);
        if winners != round {
            return Err(format!("{winners} winners in {round} rounds"));
        }
        match outcome {
            Ok(won) => {
                times += 1;
                give(process, won, vemva).map_err(said)?;
            }
            Err(Error::Refused {
                errno: Errno::Enomem,
                ..
            }) => {}
            Err(other) => return Err(format!("round {round}: {}", said(other))),
        }
    }
    // Whoever won the last round has given it back.
    line.meet();
    Ok(times.to_string())
}
