//! Counts words with a hash table that is spread over the windows of all ranks.
//!
//! The table is one array of slots, cut into equal parts, one in each rank's window. A word's hash
//! says at which slot to begin. A slot is claimed by `compare_and_swap` of the hash into its key; a
//! slot that has another key sends the search to the next one, across the border between two ranks
//! where need be. Counts grow by `fetch_and_op`. No rank does anything for the words the others
//! bring.
//!
//! The key is a hash of 64 bits, not the word. The rank that claims a slot therefore also puts
//! there where the word's bytes are, in a second window. Words and hashes are compared at the end:
//! two words with one hash would be reported as such, and never be counted silently as one.
//!
//! ```text
//! cargo windlass run -n 4 --example wordcount -- README.md
//! ```

#[path = "support/job.rs"]
mod job;
#[path = "support/text.rs"]
mod text;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use job::{Failure, ROOT};
use text::{Source, Words};
use windlass::{LockAll, Op, Rank, World};

/// Counts the words of text files in a hash table distributed over all ranks, and compares with a
/// serial count
#[derive(Parser, Debug)]
#[command(name = "wordcount", version, after_help = EXAMPLES)]
struct Arguments {
    /// Text files; without any, this repository's own sources
    files: Vec<PathBuf>,
    /// How many of the most frequent words to print
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Occurrences a rank adds up on its own before it adds them to the table
    #[arg(long, value_name = "WORDS", default_value_t = 65536, value_parser = job::at_least_one::<u32>())]
    batch: u32,
}

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example wordcount
  cargo windlass run -n 4 --example wordcount -- README.md LICENSE-MIT --top 20
  cargo windlass run -n 6 --nodes 2 --ves 1 --place ve:2,vh:1 --example wordcount -- --batch 1000";

/// How often each word occurs.
type Counts = BTreeMap<Vec<u8>, u64>;

fn main() -> ExitCode {
    job::main("wordcount", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let arguments = match job::arguments::<Arguments>(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    let Some(sources) = agree_on_sources(world, &arguments.files)? else {
        return Ok(ExitCode::FAILURE);
    };

    let began = Instant::now();
    let words = my_words(world, &sources)?;
    let found = count_together(world, &words, arguments.batch as usize)?;
    if world.rank() != ROOT {
        return Ok(ExitCode::SUCCESS);
    }
    let parallel = began.elapsed();
    let began = Instant::now();
    let mut serial = Counts::new();
    for source in &sources {
        for (_, word) in Words::of(&source.read()?) {
            *serial.entry(word).or_default() += 1;
        }
    }
    println!(
        "{}, {} words, {} different: {:.1} ms on {}, {:.1} ms serial",
        job::count(sources.len() as u32, "file"),
        serial.values().sum::<u64>(),
        serial.len(),
        parallel.as_secs_f64() * 1e3,
        job::count(world.size(), "rank"),
        began.elapsed().as_secs_f64() * 1e3,
    );
    print_top(&found, arguments.top);
    let differences = compare(&found, &serial);
    for line in differences.iter().take(10) {
        println!("DIFFERENT {line}");
    }
    println!("differences to the serial count: {}", differences.len());
    Ok(if differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Rank 0 finds the files; all ranks get the same list. `None` after rank 0 has said why there is
/// nothing to count.
fn agree_on_sources(world: &World, files: &[PathBuf]) -> Result<Option<Vec<Source>>, Failure> {
    let mut list = Vec::new();
    if world.rank() == ROOT {
        match text::find(files) {
            Ok(sources) => list = text::encode(&sources),
            Err(why) => eprintln!("wordcount: {why}"),
        }
    }
    let list = job::share(world, ROOT, list)?;
    Ok(if list.is_empty() {
        None
    } else {
        Some(text::decode(&list)?)
    })
}

/// All files form one long text; each rank takes the words that begin in its share of the bytes.
fn my_words(world: &World, sources: &[Source]) -> Result<Vec<Vec<u8>>, Failure> {
    let total: u64 = sources.iter().map(|source| source.len).sum();
    let share =
        |rank: u32| (u128::from(total) * u128::from(rank) / u128::from(world.size())) as u64;
    let mine = share(world.rank().0)..share(world.rank().0 + 1);
    let mut words = Vec::new();
    let mut begin = 0;
    for source in sources {
        let end = begin + source.len;
        if begin < mine.end && mine.start < end {
            let bytes = source.read()?;
            let begins_in_share = |(at, _): &(usize, Vec<u8>)| mine.contains(&(begin + *at as u64));
            words.extend(
                Words::of(&bytes)
                    .filter(begins_in_share)
                    .map(|(_, word)| word),
            );
        }
        begin = end;
    }
    Ok(words)
}

/// Words of a slot: the key (0: free), where the word's bytes are, how often it occurs.
const SLOT: usize = 3;

/// The distributed table, as one rank sees it within an epoch.
struct Table<'a> {
    epoch: &'a LockAll<'a, u64>,
    slots_per_rank: usize,
    ranks: usize,
}

impl Table<'_> {
    /// Adds to a word's count. `place` is where its bytes are, should this be its first occurrence.
    fn add(&self, hash: u64, place: Place, count: u64) -> Result<(), Failure> {
        let slots = self.slots_per_rank * self.ranks;
        let mut slot = (hash % slots as u64) as usize;
        // There are at least twice as many slots as words, so a free one is always found.
        loop {
            let (owner, at) = (
                Rank((slot / self.slots_per_rank) as u32),
                slot % self.slots_per_rank * SLOT,
            );
            let key = self.epoch.compare_and_swap(0, hash, owner, at)?;
            if key == 0 {
                self.epoch.put(&[place.pack()], owner, at + 1)?;
            }
            if key == 0 || key == hash {
                self.epoch.fetch_and_op(count, owner, at + 2, Op::Sum)?;
                return Ok(());
            }
            slot = (slot + 1) % slots;
        }
    }
}

/// Where a word's bytes are: a rank's text window, the offset in it, the length. In one element, 16
/// + 34 + 14 bits.
#[derive(Clone, Copy)]
struct Place {
    rank: u32,
    offset: usize,
    len: usize,
}

impl Place {
    fn new(rank: u32, offset: usize, len: usize) -> Result<Self, Failure> {
        if rank >> 16 != 0 || offset >> 34 != 0 || len >> 14 != 0 {
            return Err(
                "more than 65536 ranks, 16 GiB of different words, or a word of 16 KiB; \
                        give smaller files"
                    .into(),
            );
        }
        Ok(Self { rank, offset, len })
    }

    fn pack(self) -> u64 {
        u64::from(self.rank) << 48 | (self.offset as u64) << 14 | self.len as u64
    }

    fn unpack(word: u64) -> Self {
        let mask = |bits: u32| (1 << bits) - 1;
        Self {
            rank: (word >> 48) as u32,
            offset: (word >> 14 & mask(34)) as usize,
            len: (word & mask(14)) as usize,
        }
    }
}

/// Counts all ranks' words in the distributed table. Collective; the counts are at rank 0, the
/// others get none.
fn count_together(world: &World, words: &[Vec<u8>], batch: usize) -> Result<Counts, Failure> {
    // My different words, each once, one after the other: peers find there what a key stands for.
    let mut bytes = Vec::new();
    let mut places = HashMap::new();
    for word in words {
        if !places.contains_key(&word[..]) {
            places.insert(
                &word[..],
                Place::new(world.rank().0, bytes.len(), word.len())?,
            );
            bytes.extend_from_slice(word);
        }
    }
    let mut texts = world.allocate::<u8>(bytes.len())?;
    texts.lock_local()?.copy_from_slice(&bytes);
    let most = job::gather(world, &[places.len() as u64])?
        .iter()
        .sum::<u64>() as usize;
    let ranks = world.size() as usize;
    let slots_per_rank = (2 * most).div_ceil(ranks) + 1;
    let mut slots = world.allocate::<u64>(SLOT * slots_per_rank)?;

    let epoch = slots.lock_all()?;
    let table = Table {
        epoch: &epoch,
        slots_per_rank,
        ranks,
    };
    for part in words.chunks(batch) {
        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        for word in part {
            *counts.entry(word).or_default() += 1;
        }
        for (word, count) in counts {
            table.add(text::hash(word), places[word], count)?;
        }
    }
    epoch.end()?;
    world.barrier()?;

    let mut found = Counts::new();
    if world.rank() == ROOT {
        let text_lens = world
            .ranks()
            .map(|rank| texts.len_of(rank))
            .collect::<Result<Vec<_>, _>>()?;
        let (slots_epoch, texts_epoch) = (slots.lock_all()?, texts.lock_all()?);
        let mut table = vec![0; SLOT * slots_per_rank * ranks];
        let mut parts = Vec::new();
        for (rank, part) in table.chunks_exact_mut(SLOT * slots_per_rank).enumerate() {
            slots_epoch.get(part, Rank(rank as u32), 0)?;
            let mut text = vec![0; text_lens[rank]];
            texts_epoch.get(&mut text, Rank(rank as u32), 0)?;
            parts.push(text);
        }
        for slot in table.chunks_exact(SLOT).filter(|slot| slot[0] != 0) {
            let place = Place::unpack(slot[1]);
            let word = parts[place.rank as usize][place.offset..place.offset + place.len].to_vec();
            *found.entry(word).or_default() += slot[2];
        }
        slots_epoch.end()?;
        texts_epoch.end()?;
    }
    slots.free()?;
    texts.free()?;
    Ok(found)
}

fn print_top(counts: &Counts, top: usize) {
    let mut by_count: Vec<_> = counts.iter().collect();
    by_count.sort_by_key(|&(word, &count)| (std::cmp::Reverse(count), word));
    for (word, count) in by_count.into_iter().take(top) {
        println!("{count:10} {}", String::from_utf8_lossy(word));
    }
}

/// Every word whose count differs from the serial one, and every pair of words that the table
/// cannot tell apart.
fn compare(found: &Counts, serial: &Counts) -> Vec<String> {
    let mut lines = Vec::new();
    let mut by_hash: HashMap<u64, &[u8]> = HashMap::new();
    for (word, &count) in serial {
        if let Some(other) = by_hash.insert(text::hash(word), word) {
            let [a, b] = [other, &word[..]].map(String::from_utf8_lossy);
            lines.push(format!("'{a}' and '{b}' have the same hash"));
        }
        let ours = found.get(word).copied().unwrap_or(0);
        if ours != count {
            lines.push(format!(
                "'{}': {ours} instead of {count}",
                String::from_utf8_lossy(word)
            ));
        }
    }
    for word in found.keys().filter(|word| !serial.contains_key(*word)) {
        lines.push(format!(
            "'{}' does not occur",
            String::from_utf8_lossy(word)
        ));
    }
    lines
}
