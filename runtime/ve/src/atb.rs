//! The translation tables as VEOS keeps them (ve-memory.md sections 2.1 to 2.4).
//!
//! Two kinds of table share one shape: a *directory* covers an aligned partial space of 256 pages. A process has its
//! own ATB of 32 directories. The DMAATB belongs to the VE node: all its processes share the directories, so
//! capacity is counted in directories, and a request that does not find all of its directories changes nothing.

use std::collections::BTreeMap;

use crate::addr::{PageSize, Vehva, Vemaa, Vemva};
use crate::profile::{Profile, Region};

/// No directory, or no run of pages, is left (the request is answered with ENOMEM).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

/// A directory: whose (the job id), which page size, which partial space.
type Directory<K> = (K, PageSize, u64);

/// The directories of one table, each with the number of its entries in use.
#[derive(Debug)]
pub(crate) struct Directories<K> {
    limit: usize,
    used: BTreeMap<Directory<K>, u64>,
}

impl<K: Ord + Copy> Directories<K> {
    /// A table with `limit` directories.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            used: BTreeMap::new(),
        }
    }

    /// Directories in use.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.used.len()
    }

    /// Directories left.
    pub(crate) fn left(&self) -> usize {
        self.limit.saturating_sub(self.used.len())
    }

    /// True if one more page of this size can find a place: in a directory in use, or in a new one.
    pub(crate) fn have_room(&self, page: PageSize) -> bool {
        let room = |((_, size, _), used): (&Directory<K>, &u64)| {
            *size == page && *used < crate::addr::ENTRIES_PER_DIRECTORY
        };
        self.left() > 0 || self.used.iter().any(room)
    }

    /// Calls `each` with the partial spaces of a run and the number of its pages in each.
    fn spaces(page: PageSize, start: u64, pages: u64, mut each: impl FnMut(u64, u64)) {
        let (mut at, mut left) = (start / page.bytes(), pages);
        let per = crate::addr::ENTRIES_PER_DIRECTORY;
        while left > 0 {
            let here = left.min(per - at % per);
            each(at / per, here);
            at += here;
            left -= here;
        }
    }

    /// Enters `pages` entries of `owner` from address `start` on: all, or none.
    pub(crate) fn enter(
        &mut self,
        owner: K,
        page: PageSize,
        start: u64,
        pages: u64,
    ) -> Result<(), Full> {
        let mut fresh = 0;
        Self::spaces(page, start, pages, |space, _| {
            fresh += usize::from(!self.used.contains_key(&(owner, page, space)));
        });
        if fresh > self.left() {
            return Err(Full);
        }
        Self::spaces(page, start, pages, |space, count| {
            *self.used.entry((owner, page, space)).or_insert(0) += count;
        });
        Ok(())
    }

    /// Removes entries made by [`Directories::enter`]; a directory goes with its last entry.
    pub(crate) fn remove(&mut self, owner: K, page: PageSize, start: u64, pages: u64) {
        Self::spaces(page, start, pages, |space, count| {
            let key = (owner, page, space);
            if let Some(used) = self.used.get_mut(&key) {
                *used = used.saturating_sub(count);
                if *used == 0 {
                    self.used.remove(&key);
                }
            }
        });
    }
}

/// The pages of one VEHVA region of one process: first fit, lowest address first (section 2.2).
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    pages: u64,
}

impl Bitmap {
    /// `pages` free pages.
    pub(crate) fn new(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(0);
        Self {
            words: vec![0; words],
            pages,
        }
    }

    fn word(&self, page: u64) -> u64 {
        usize::try_from(page / 64)
            .ok()
            .and_then(|index| self.words.get(index))
            .copied()
            .unwrap_or(u64::MAX)
    }

    fn is_taken(&self, page: u64) -> bool {
        self.word(page) >> (page % 64) & 1 == 1
    }

    /// Takes the first run of `count` free pages and gives the number of its first page.
    pub(crate) fn take(&mut self, count: u64) -> Result<u64, Full> {
        if count == 0 || count > self.pages {
            return Err(Full);
        }
        let (mut first, mut page) = (0, 0);
        while page < self.pages && page - first < count {
            if page % 64 == 0 && self.word(page) == u64::MAX {
                page += 64;
                first = page;
            } else {
                let taken = self.is_taken(page);
                page += 1;
                if taken {
                    first = page;
                }
            }
        }
        if page - first < count {
            return Err(Full);
        }
        self.set(first, count, true);
        Ok(first)
    }

    /// Returns a run.
    pub(crate) fn give(&mut self, first: u64, count: u64) {
        self.set(first, count, false);
    }

    fn set(&mut self, first: u64, count: u64, taken: bool) {
        for page in first..first.saturating_add(count).min(self.pages) {
            let word = usize::try_from(page / 64)
                .ok()
                .and_then(|index| self.words.get_mut(index));
            if let Some(word) = word {
                let bit = 1 << (page % 64);
                *word = if taken { *word | bit } else { *word & !bit };
            }
        }
    }
}

/// What a DMAATB run leads to (the entry types of section 2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Leads {
    /// VEMAA: frames of the same VE, a reference held on each.
    Frames(Vec<Vemaa>),
    /// VHSAA: the PCI window of another VE, by registry area.
    Window(u64),
    /// VHSAA: host memory, by System V segment.
    Segment(i32),
}

/// A run of DMAATB entries of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entries {
    /// Page size.
    pub(crate) page: PageSize,
    /// Number of entries.
    pub(crate) pages: u64,
    /// What they lead to.
    pub(crate) leads: Leads,
    /// False: the write-protect bit is set.
    pub(crate) writable: bool,
}

/// The DMAATB view of one process: its VEHVA bitmaps and its runs. Its directories are the node's.
#[derive(Debug)]
pub(crate) struct ProcessDmaatb {
    maps: BTreeMap<PageSize, Bitmap>,
    runs: BTreeMap<Vehva, Entries>,
}

impl Default for ProcessDmaatb {
    fn default() -> Self {
        Self::new()
    }
}

impl ProcessDmaatb {
    /// Nothing mapped.
    pub(crate) const fn new() -> Self {
        Self {
            maps: BTreeMap::new(),
            runs: BTreeMap::new(),
        }
    }

    /// Maps a run: first fit in the region of the page size, directories from the node's table, all or nothing.
    pub(crate) fn map<K: Ord + Copy>(
        &mut self,
        node: &mut Directories<K>,
        owner: K,
        profile: &Profile,
        entries: Entries,
    ) -> Result<Vehva, Full> {
        let region: &Region = profile.region(entries.page).ok_or(Full)?;
        let bitmap = self
            .maps
            .entry(entries.page)
            .or_insert_with(|| Bitmap::new(region.pages));
        let first = bitmap.take(entries.pages)?;
        // Inside the region, so none of this overflows: regions end below 2^45.
        let start = region.base.raw() + first * entries.page.bytes();
        if let Err(full) = node.enter(owner, entries.page, start, entries.pages) {
            bitmap.give(first, entries.pages);
            return Err(full);
        }
        self.runs.insert(Vehva::new(start), entries);
        Ok(Vehva::new(start))
    }

    /// Removes the run that begins at `start` and gives it back, so that its references can be dropped.
    pub(crate) fn unmap<K: Ord + Copy>(
        &mut self,
        node: &mut Directories<K>,
        owner: K,
        profile: &Profile,
        start: Vehva,
    ) -> Option<Entries> {
        let entries = self.runs.remove(&start)?;
        node.remove(owner, entries.page, start.raw(), entries.pages);
        if let (Some(region), Some(bitmap)) = (
            profile.region(entries.page),
            self.maps.get_mut(&entries.page),
        ) {
            let offset = start.offset_from(region.base).unwrap_or(0);
            bitmap.give(offset / entries.page.bytes(), entries.pages);
        }
        Some(entries)
    }

    /// The run that begins at `start`.
    pub(crate) fn run(&self, start: Vehva) -> Option<&Entries> {
        self.runs.get(&start)
    }

    /// Starts of all runs.
    pub(crate) fn starts(&self) -> Vec<Vehva> {
        self.runs.keys().copied().collect()
    }

    /// Page size of the entry at `at`.
    pub(crate) fn page_at(&self, at: Vehva) -> Option<PageSize> {
        let (start, entries) = self.runs.range(..=at).next_back()?;
        let offset = at.offset_from(*start)?;
        (offset / entries.page.bytes() < entries.pages).then_some(entries.page)
    }
}

/// An ATB entry: a page of VE memory in the address space of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    /// Frame.
    pub(crate) frame: Vemaa,
    /// Page size.
    pub(crate) size: PageSize,
    /// Write permission.
    pub(crate) writable: bool,
}

/// Why a range of VEMVA cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Walk {
    /// A step of the range is not mapped, or the page sizes are mixed.
    Broken,
    /// All mapped, but not all writable.
    ReadOnly,
}

/// The ATB of one process.
#[derive(Debug)]
pub(crate) struct Atb {
    pages: BTreeMap<Vemva, Page>,
    directories: Directories<()>,
}

impl Atb {
    /// An empty ATB of the profile's size.
    pub(crate) fn new(profile: &Profile) -> Self {
        Self {
            pages: BTreeMap::new(),
            directories: Directories::new(profile.atb_directories),
        }
    }

    /// The early test of section 5.2 row 4, before the address is known.
    pub(crate) fn has_room(&self, page: PageSize) -> bool {
        self.directories.have_room(page)
    }

    /// Directories left.
    #[cfg(test)]
    fn directories_left(&self) -> usize {
        self.directories.left()
    }

    /// The page that holds `at`.
    pub(crate) fn page(&self, at: Vemva) -> Option<Page> {
        self.page_with_start(at).map(|(_, page)| page)
    }

    fn page_with_start(&self, at: Vemva) -> Option<(Vemva, Page)> {
        let (start, page) = self.pages.range(..=at).next_back()?;
        (at.offset_from(*start)? < page.size.bytes()).then_some((*start, *page))
    }

    /// True if any page lies in the range.
    pub(crate) fn overlaps(&self, start: Vemva, len: u64) -> bool {
        let Some(end) = start.checked_add(len) else {
            return true;
        };
        self.page(start).is_some() || self.pages.range(start..end).next().is_some()
    }

    /// Enters pages from `start` on, which the caller has found aligned and free: all, or none.
    pub(crate) fn map(
        &mut self,
        start: Vemva,
        size: PageSize,
        frames: &[Vemaa],
        writable: bool,
    ) -> Result<(), Full> {
        let pages = u64::try_from(frames.len()).map_err(|_| Full)?;
        let len = pages.checked_mul(size.bytes()).ok_or(Full)?;
        start.checked_add(len).ok_or(Full)?;
        self.directories.enter((), size, start.raw(), pages)?;
        let mut at = start;
        for frame in frames {
            self.pages.insert(
                at,
                Page {
                    frame: *frame,
                    size,
                    writable,
                },
            );
            at = at.checked_add(size.bytes()).unwrap_or(at);
        }
        Ok(())
    }

    /// Removes the whole pages of `[start, start + len)` and gives them back. `None`, and nothing removed, if the range is
    /// not made of whole mapped pages.
    pub(crate) fn unmap(&mut self, start: Vemva, len: u64) -> Option<Vec<Page>> {
        let found = self.whole_pages(start, len)?;
        for (at, page) in &found {
            self.pages.remove(at);
            self.directories.remove((), page.size, at.raw(), 1);
        }
        Some(found.into_iter().map(|(_, page)| page).collect())
    }

    /// Sets the write permission of whole pages; false, and nothing changed, if the range is not made of whole mapped pages.
    pub(crate) fn protect(&mut self, start: Vemva, len: u64, writable: bool) -> bool {
        let Some(found) = self.whole_pages(start, len) else {
            return false;
        };
        for (at, _) in found {
            if let Some(page) = self.pages.get_mut(&at) {
                page.writable = writable;
            }
        }
        true
    }

    fn whole_pages(&self, start: Vemva, len: u64) -> Option<Vec<(Vemva, Page)>> {
        let end = start.checked_add(len)?;
        let mut found = Vec::new();
        let mut at = start;
        while at < end {
            let page = *self.pages.get(&at)?;
            found.push((at, page));
            at = at.checked_add(page.size.bytes())?;
        }
        (at == end && !found.is_empty()).then_some(found)
    }

    /// The frames of `[start, start + len)`, which must be mapped throughout with pages of one size (sections 5.1 rows
    /// 8 and 9, 5.2 rows 19 and 20). The range may begin and end inside a page.
    pub(crate) fn walk(&self, start: Vemva, len: u64) -> Result<(PageSize, Vec<Vemaa>), Walk> {
        let (size, frames, writable) = self.frames(start, len).ok_or(Walk::Broken)?;
        if writable {
            Ok((size, frames))
        } else {
            Err(Walk::ReadOnly)
        }
    }

    /// As [`Atb::walk`], but read-only pages do: the flag tells whether all are writable.
    pub(crate) fn frames(&self, start: Vemva, len: u64) -> Option<(PageSize, Vec<Vemaa>, bool)> {
        let end = start.checked_add(len)?;
        let (mut at, first) = self.page_with_start(start)?;
        let (mut frames, mut writable) = (Vec::new(), true);
        while at < end {
            let page = self.pages.get(&at).filter(|page| page.size == first.size)?;
            writable &= page.writable;
            frames.push(page.frame);
            at = at.checked_add(page.size.bytes())?;
        }
        Some((first.size, frames, writable))
    }

    /// All pages, removed.
    pub(crate) fn drain(&mut self) -> Vec<Page> {
        let pages = std::mem::take(&mut self.pages);
        for (at, page) in &pages {
            self.directories.remove((), page.size, at.raw(), 1);
        }
        pages.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const M64: u64 = 64 << 20;

    fn entries(page: PageSize, pages: u64) -> Entries {
        Entries {
            page,
            pages,
            leads: Leads::Segment(1),
            writable: true,
        }
    }

    #[test]
    fn fresh_process_begins_at_the_documented_addresses() {
        let mut node = Directories::new(Profile::VE1.shared_directories());
        let mut table = ProcessDmaatb::new();
        let first = table.map(&mut node, 1, &Profile::VE1, entries(PageSize::M64, 1));
        assert_eq!(first, Ok(Vehva::new(0x0700_0000_0000)));
        let first = table.map(&mut node, 1, &Profile::VE1, entries(PageSize::M2, 1));
        assert_eq!(first, Ok(Vehva::new(0x0088_0000_0000)));
    }

    #[test]
    fn fifty_six_segments_of_512_mib_then_enomem() {
        // Section 13, check 11: 512 MiB of 2 MiB pages is exactly one directory.
        let mut node = Directories::new(Profile::VE1.shared_directories());
        let mut table = ProcessDmaatb::new();
        let mut seen = BTreeSet::new();
        for _ in 0..56 {
            seen.insert(
                table
                    .map(&mut node, 1, &Profile::VE1, entries(PageSize::M2, 256))
                    .expect("directory"),
            );
        }
        assert_eq!(seen.len(), 56);
        assert_eq!(
            table.map(&mut node, 1, &Profile::VE1, entries(PageSize::M2, 1)),
            Err(Full)
        );
        assert_eq!(
            table.map(&mut node, 2, &Profile::VE1, entries(PageSize::M64, 1)),
            Err(Full)
        );
        let first = *seen.first().expect("one");
        assert!(table.unmap(&mut node, 1, &Profile::VE1, first).is_some());
        assert_eq!(
            table.map(&mut node, 1, &Profile::VE1, entries(PageSize::M2, 256)),
            Ok(first)
        );
    }

    #[test]
    fn a_run_across_a_partial_space_takes_two_directories_or_nothing() {
        let mut node = Directories::new(1);
        let mut table = ProcessDmaatb::new();
        assert_eq!(
            table.map(&mut node, 1, &Profile::VE1, entries(PageSize::M64, 257)),
            Err(Full)
        );
        assert_eq!(node.in_use(), 0);
        // The rolled-back run left its VEHVA free.
        let got = table.map(&mut node, 1, &Profile::VE1, entries(PageSize::M64, 256));
        assert_eq!(got, Ok(Vehva::new(0x0700_0000_0000)));
    }

    #[test]
    fn page_sizes_by_address() {
        let mut node = Directories::new(8);
        let mut table = ProcessDmaatb::new();
        let at = table
            .map(&mut node, 1, &Profile::VE1, entries(PageSize::M64, 2))
            .expect("map");
        let inside = at.checked_add(2 * M64 - 1).expect("address");
        assert_eq!(table.page_at(inside), Some(PageSize::M64));
        assert_eq!(
            table.page_at(at.checked_add(2 * M64).expect("address")),
            None
        );
        assert_eq!(table.page_at(Vehva::new(5)), None);
    }

    #[test]
    fn walk_tells_broken_from_read_only() {
        let mut atb = Atb::new(&Profile::VE1);
        let base = Vemva::new(16 * M64);
        let at = |pages: u64| base.checked_add(pages * M64).expect("address");
        atb.map(base, PageSize::M64, &[Vemaa::new(0), Vemaa::new(M64)], true)
            .expect("map");
        atb.map(at(2), PageSize::M2, &[Vemaa::new(2 * M64)], true)
            .expect("map");
        assert_eq!(
            atb.walk(base, 2 * M64),
            Ok((PageSize::M64, vec![Vemaa::new(0), Vemaa::new(M64)]))
        );
        assert_eq!(
            atb.walk(base, 2 * M64 + 1),
            Err(Walk::Broken),
            "mixed sizes"
        );
        assert_eq!(atb.walk(base, u64::MAX), Err(Walk::Broken));
        assert!(atb.protect(at(1), M64, false));
        assert_eq!(atb.walk(base, 2 * M64), Err(Walk::ReadOnly));
        assert_eq!(atb.walk(base, M64).map(|(_, frames)| frames.len()), Ok(1));
        assert!(atb.unmap(base, M64 + 5).is_none());
        assert_eq!(atb.unmap(base, 2 * M64).map(|pages| pages.len()), Some(2));
        assert!(atb.page(base).is_none());
    }

    #[test]
    fn atb_has_32_directories() {
        let mut atb = Atb::new(&Profile::VE1);
        let space = PageSize::M64.partial_space();
        for n in 0..32 {
            atb.map(Vemva::new(n * space), PageSize::M64, &[Vemaa::new(0)], true)
                .expect("directory");
        }
        let next = Vemva::new(32 * space);
        assert_eq!(
            atb.map(next, PageSize::M64, &[Vemaa::new(0)], true),
            Err(Full)
        );
        assert!(atb.page(next).is_none());
        assert!(
            atb.map(Vemva::new(M64), PageSize::M64, &[Vemaa::new(0)], true)
                .is_ok(),
            "same directory"
        );
    }

    /// The naive model: one boolean per page.
    fn naive_take(model: &mut [bool], count: usize) -> Option<usize> {
        let first = (0..=model.len().checked_sub(count)?)
            .find(|at| model[*at..*at + count].iter().all(|b| !b))?;
        model[first..first + count].fill(true);
        Some(first)
    }

    proptest! {
        #[test]
        fn bitmap_is_first_fit(steps in prop::collection::vec((any::<bool>(), 1usize..90), 1..if cfg!(miri) { 20 } else { 200 })) {
            let mut bitmap = Bitmap::new(300);
            let mut model = vec![false; 300];
            let mut held: Vec<(usize, usize)> = Vec::new();
            for (take, n) in steps {
                if take || held.is_empty() {
                    let expected = naive_take(&mut model, n);
                    let got = bitmap.take(n as u64).ok().map(|page| page as usize);
                    prop_assert_eq!(got, expected);
                    held.extend(expected.map(|first| (first, n)));
                } else {
                    let (first, count) = held.swap_remove(n % held.len());
                    bitmap.give(first as u64, count as u64);
                    model[first..first + count].fill(false);
                }
            }
        }

        #[test]
        fn directories_equal_a_set_of_pages(
            steps in prop::collection::vec((any::<bool>(), 0u8..3, 0u64..2000, 1u64..600), 1..if cfg!(miri) { 4 } else { 100 }),
        ) {
            let mut node: Directories<u8> = Directories::new(6);
            let mut held: Vec<(u8, u64, u64)> = Vec::new();
            for (enter, owner, first, count) in steps {
                if enter || held.is_empty() {
                    // Pages of one owner are never entered twice.
                    if held.iter().any(|(o, f, c)| *o == owner && first < f + c && *f < first + count) {
                        continue;
                    }
                    let wanted: BTreeSet<(u8, u64)> = held
                        .iter()
                        .chain([&(owner, first, count)])
                        .flat_map(|(o, f, c)| (*f..f + c).map(move |page| (*o, page / 256)))
                        .collect();
                    let got = node.enter(owner, PageSize::M64, first * M64, count);
                    prop_assert_eq!(got.is_ok(), wanted.len() <= 6);
                    if got.is_ok() {
                        held.push((owner, first, count));
                    }
                } else {
                    let (owner, first, count) = held.swap_remove(first as usize % held.len());
                    node.remove(owner, PageSize::M64, first * M64, count);
                }
                let spaces: BTreeSet<(u8, u64)> = held
                    .iter()
                    .flat_map(|(o, f, c)| (*f..f + c).map(move |page| (*o, page / 256)))
                    .collect();
                prop_assert_eq!(node.in_use(), spaces.len());
            }
        }

        /// Against a list of pages: small ones are steps of 2 MiB, large ones 32 of them.
        #[test]
        fn an_atb_equals_a_list_of_pages(
            steps in prop::collection::vec(
                (0..4_u8, any::<bool>(), 0..160_u64, 1..5_u64, any::<bool>()),
                1..if cfg!(miri) { 6 } else { 120 },
            ),
        ) {
            const M2: u64 = 2 << 20;
            let mut atb = Atb::new(&Profile::VE1);
            // Start in steps, size, frame, permission.
            let mut model: Vec<(u64, PageSize, Vemaa, bool)> = Vec::new();
            let mut frames = (0..).map(|n| Vemaa::new(n * M64));
            let at = |step: u64| Vemva::new(step * M2);
            for (what, large, step, count, writable) in steps {
                let size = if large { PageSize::M64 } else { PageSize::M2 };
                let width = size.bytes() / M2;
                let (first, len) = (step / width * width, count * width);
                let within = |page: &(u64, PageSize, Vemaa, bool)| page.0 >= first && page.0 < first + len;
                let meets = |page: &(u64, PageSize, Vemaa, bool)| {
                    page.0 < first + len && first < page.0 + page.1.bytes() / M2
                };
                let covered: u64 = model.iter().filter(|p| within(p)).map(|p| p.1.bytes() / M2).sum();
                let cut = model.iter().any(|p| meets(p) && (p.0 < first || p.0 + p.1.bytes() / M2 > first + len));
                let whole = covered == len && !cut;
                match what {
                    0 | 1 => {
                        let free = !model.iter().any(meets);
                        prop_assert_eq!(atb.overlaps(at(first), len * M2), !free);
                        if free {
                            let new: Vec<Vemaa> = frames.by_ref().take(count as usize).collect();
                            atb.map(at(first), size, &new, writable).expect("few directories");
                            model.extend((0..).zip(new).map(|(n, frame)| (first + n * width, size, frame, writable)));
                        }
                    }
                    2 => {
                        prop_assert_eq!(atb.unmap(at(first), len * M2).is_some(), whole);
                        if whole {
                            model.retain(|page| !within(page));
                        }
                    }
                    _ => {
                        prop_assert_eq!(atb.protect(at(first), len * M2, writable), whole);
                        if whole {
                            model.iter_mut().filter(|page| within(page)).for_each(|page| page.3 = writable);
                        }
                    }
                }
                model.sort_by_key(|page| page.0);
                let found = |step: u64| model.iter().find(|p| p.0 <= step && step < p.0 + p.1.bytes() / M2);
                for step in (0..300).step_by(7) {
                    let page = atb.page(at(step));
                    let expected = found(step).map(|p| Page { frame: p.2, size: p.1, writable: p.3 });
                    prop_assert_eq!(page, expected);
                }
                // A walk from the middle of whatever is there.
                let range: Option<Vec<_>> = (step..step + count).map(found).collect();
                let same = |range: &Vec<&(u64, PageSize, Vemaa, bool)>| range.iter().all(|p| p.1 == range[0].1);
                let expected = match range.filter(same) {
                    None => Err(Walk::Broken),
                    Some(range) if range.iter().any(|p| !p.3) => Err(Walk::ReadOnly),
                    Some(mut range) => {
                        range.dedup();
                        Ok((range[0].1, range.iter().map(|p| p.2).collect()))
                    }
                };
                prop_assert_eq!(atb.walk(at(step), count * M2), expected);
            }
            let directories: BTreeSet<_> = model.iter().map(|p| (p.1, p.0 * M2 / p.1.partial_space())).collect();
            prop_assert_eq!(atb.directories_left(), 32 - directories.len());
            prop_assert_eq!(atb.drain().len(), model.len());
            prop_assert_eq!(atb.directories_left(), 32);
        }

        /// Runs of two processes against a list: first fit in each, directories in common.
        #[test]
        fn a_dmaatb_equals_a_list_of_runs(
            steps in prop::collection::vec(
                (any::<bool>(), 0..2_u8, any::<bool>(), 1..300_u64, 0..99_usize),
                1..if cfg!(miri) { 4 } else { 80 },
            ),
        ) {
            const LIMIT: usize = 5;
            let mut node: Directories<u8> = Directories::new(LIMIT as u32);
            let mut tables = [ProcessDmaatb::new(), ProcessDmaatb::new()];
            // Process, page size, first page, pages.
            let mut model: Vec<(u8, PageSize, u64, u64)> = Vec::new();
            let used = |model: &[(u8, PageSize, u64, u64)]| {
                let spaces = |r: &(u8, PageSize, u64, u64)| {
                    let (who, size) = (r.0, r.1);
                    // Regions begin at a partial space.
                    (r.2 / 256..=(r.2 + r.3 - 1) / 256).map(move |space| (who, size, space))
                };
                model.iter().flat_map(spaces).collect::<BTreeSet<_>>().len()
            };
            for (take, who, large, pages, which) in steps {
                let size = if large { PageSize::M64 } else { PageSize::M2 };
                let base = Profile::VE1.region(size).expect("region").base.raw();
                let table = &mut tables[who as usize];
                if take {
                    let mut own: Vec<_> = model.iter().filter(|r| r.0 == who && r.1 == size).collect();
                    own.sort_by_key(|r| r.2);
                    let first = own.iter().fold(0, |at, r| if r.2 - at.min(r.2) >= pages { at } else { at.max(r.2 + r.3) });
                    let mut with = model.clone();
                    with.push((who, size, first, pages));
                    let fits = used(&with) <= LIMIT;
                    let got = table.map(&mut node, who, &Profile::VE1, entries(size, pages));
                    prop_assert_eq!(got, fits.then(|| Vehva::new(base + first * size.bytes())).ok_or(Full));
                    if fits {
                        model = with;
                    }
                } else if !model.is_empty() {
                    let (who, size, first, pages) = model.swap_remove(which % model.len());
                    let base = Profile::VE1.region(size).expect("region").base.raw();
                    let start = Vehva::new(base + first * size.bytes());
                    let table = &mut tables[who as usize];
                    prop_assert_eq!(table.page_at(start), Some(size));
                    let gone = table.unmap(&mut node, who, &Profile::VE1, start);
                    prop_assert_eq!(gone, Some(entries(size, pages)));
                    prop_assert_eq!(table.page_at(start), None);
                }
                prop_assert_eq!(node.in_use(), used(&model));
            }
        }
    }
}
