//! The program's own memory as VE memory.
//!
//! On a VE every page of a program is a VE page. Here a range becomes VE memory when a call first needs it (open, registration,
//! VE_MEM_LOCAL): whole VE pages that are mapped throughout, private and readable, get frames, their content moves there and the
//! frames are mapped over them, other threads frozen meanwhile (`windlass_mem::reback::place`). From then on they are VE
//! memory until the program unmaps them; what malloc does with a freed block on them does not matter. What cannot be moved
//! (stacks, shared and file-backed memory) is "not mapped" to VEOS, which refuses it as the tables say.
//!
//! **Page size.** 64 MiB. 2 MiB for memory that was advised MADV_NOHUGEPAGE before it became VE memory (a program for the VE asks
//! mmap for such pages), and for all memory with `WINDLASS_VE_PAGE=2M`, which stands for an executable linked with that page
//! size.
//!
//! **Unmapping.** Nobody tells this library that the program has unmapped memory (glibc's `free` does for large blocks) or
//! changed its protection, so every call of the control plane first asks the kernel, some µs for each separate range, and tells VEOS.
//! Until the program's next call the frames stay, and others may still attach an area over them. Memory that was moved elsewhere
//! by mremap is not VE memory any more, and must not be used: VEs have no mremap.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_mem::MemFile;
use windlass_mem::reback::place::{self, Presence, Stretch};
use windlass_ve::{Errno, PageSize, Process, Vemva};

/// A VE page of the program.
struct Page {
    len: usize,
    file: Arc<MemFile>,
    offset: u64,
    writable: bool,
}

/// All of them, by address.
pub(crate) struct Own {
    pages: BTreeMap<usize, Page>,
    default: PageSize,
    /// Says why memory cannot become VE memory.
    checking: bool,
}

fn bytes(size: PageSize) -> usize {
    size.bytes() as usize
}

fn vemva(at: usize) -> Vemva {
    Vemva::new(at as u64)
}

impl Own {
    pub(crate) fn new(default: PageSize, checking: bool) -> Self {
        Self {
            pages: BTreeMap::new(),
            default,
            checking,
        }
    }

    /// Tells VEOS what the program has unmapped or protected since the last call.
    pub(crate) fn refresh(&mut self, process: &Process) {
        let mut doubtful = Vec::new();
        let mut pages = self.pages.iter().peekable();
        while let Some((&start, first)) = pages.next() {
            // Neighbours in memory and in the file are one mapping, and one question.
            let mut end = start + first.len;
            while let Some((_, next)) =
                pages.next_if(|(at, next)| first.goes_on(start, **at, end, next))
            {
                end += next.len;
            }
            let unchanged = Presence::Whole {
                writable: first.writable,
            };
            if place::presence(&first.file, first.offset, start, end - start) != Ok(unchanged) {
                doubtful.push((start, end));
            }
        }
        for (start, end) in doubtful {
            self.look(process, start, end);
        }
    }

    /// The same, page by page.
    fn look(&mut self, process: &Process, start: usize, end: usize) {
        let mut gone = Vec::new();
        for (&at, page) in self.pages.range_mut(start..end) {
            match place::presence(&page.file, page.offset, at, page.len) {
                Ok(Presence::Gone) => gone.push((at, page.len)),
                Ok(Presence::Whole { writable }) => page.protect(process, at, writable),
                // The rest is VE memory as long as it is mapped.
                Ok(Presence::Part) | Err(_) => {}
            }
        }
        for (at, len) in gone {
            // Where the service is gone nobody needs to know.
            let _ = process.frames_gone(vemva(at), len as u64);
            place::forget(at);
            self.pages.remove(&at);
        }
    }

    /// Makes VE memory of the pages of `[start, start + len)`, up to the first that cannot be.
    ///
    /// # Errors
    /// ENOMEM: the VE has no frames, or the process no ATB directory, left.
    pub(crate) fn take(
        &mut self,
        process: &Process,
        start: usize,
        len: usize,
    ) -> Result<(), Errno> {
        let end = start.saturating_add(len);
        // What is not aligned at all is refused whatever is there.
        if start == 0 || !start.is_multiple_of(bytes(PageSize::M2)) {
            return Ok(());
        }
        let mut at = start;
        while at < end {
            let next = match self.around(at) {
                Some((from, page)) => {
                    fill(from, page);
                    from + page.len
                }
                None => {
                    let above = self
                        .pages
                        .range(at..)
                        .next()
                        .map_or(end, |(&above, _)| above);
                    self.take_new(process, at, above.min(end))?
                }
            };
            if next <= at {
                break;
            }
            at = next;
        }
        Ok(())
    }

    fn around(&self, at: usize) -> Option<(usize, &Page)> {
        let (&from, page) = self.pages.range(..=at).next_back()?;
        (at - from < page.len).then_some((from, page))
    }

    /// Makes pages of memory that is none yet, from the one that holds `at` on; answers where they end.
    fn take_new(&mut self, process: &Process, at: usize, end: usize) -> Result<usize, Errno> {
        let Some(size) = self.size_at(at) else {
            return Ok(at);
        };
        let start = at / bytes(size) * bytes(size);
        if self.pages.range(start..at).next().is_some() || self.around(start).is_some() {
            return Ok(at);
        }
        let end = end.checked_next_multiple_of(bytes(size)).unwrap_or(end);
        let end = self.movable(start, end, size) / bytes(size) * bytes(size);
        if end <= start {
            return Ok(at);
        }
        let len = (end - start) as u64;
        let (file, runs) = process
            .frames_at(vemva(start), len, size)
            .map_err(|error| {
                crate::seat::tell_gone(&error);
                error.errno()
            })?;
        let frames = runs.iter().flat_map(|run| {
            let steps = 0..run.len / size.bytes();
            steps.map(|step| run.offset.raw() + step * size.bytes())
        });
        let mut here = start;
        for offset in frames {
            // SAFETY: nobody but this page refers to a new frame. The program's memory is not unmapped by the program while it
            // is the argument of a call.
            let placed = unsafe { place::place(&file, offset, here, bytes(size)) };
            if let Err(why) = placed {
                self.say(here, &why.to_string());
                let _ = process.frames_gone(vemva(here), (end - here) as u64);
                return Ok(here);
            }
            let mut page = Page {
                len: bytes(size),
                file: Arc::clone(&file),
                offset,
                writable: true,
            };
            if let Ok(Presence::Whole { writable }) =
                place::presence(&page.file, offset, here, page.len)
            {
                page.protect(process, here, writable);
            }
            self.pages.insert(here, page);
            here += bytes(size);
        }
        Ok(here)
    }

    /// The size of a VE page made of what is mapped at `at`.
    fn size_at(&self, at: usize) -> Option<PageSize> {
        match place::survey(at, at + 1).ok()? {
            (stretches, _) if stretches.first().is_some_and(|first| first.small) => {
                Some(PageSize::M2)
            }
            (stretches, None) if !stretches.is_empty() => Some(self.default),
            (_, why) => {
                if let Some(why) = why {
                    self.say(at, &why.to_string());
                }
                None
            }
        }
    }

    /// Where the memory from `start` on ends that can be moved, and is of that page size.
    fn movable(&self, start: usize, end: usize, size: PageSize) -> usize {
        let Ok((stretches, why)) = place::survey(start, end) else {
            return start;
        };
        let alike = |part: &&Stretch| {
            let small = part.small || self.default == PageSize::M2;
            small == (size == PageSize::M2)
        };
        let reached = stretches.iter().take_while(alike).last();
        let reached = reached.map_or(start, |last| last.end);
        if let Some(why) = why.filter(|_| reached < end) {
            self.say(reached, &why.to_string());
        }
        reached
    }

    /// The size of the VE page that `address` has, or would have if it became VE memory; `None`: nothing is mapped.
    pub(crate) fn page_of(&self, address: usize) -> Option<PageSize> {
        match place::survey(address, address.checked_add(1)?).ok()? {
            (_, Some(windlass_mem::Error::Unmapped { .. })) => None,
            (stretches, _) if stretches.first().is_some_and(|first| first.small) => {
                Some(PageSize::M2)
            }
            _ => Some(self.default),
        }
    }

    fn say(&self, at: usize, why: &str) {
        if self.checking {
            eprintln!("windlass VE: memory at {at:#x} cannot become VE memory: {why}");
        }
    }
}

impl Page {
    /// Is `next`, at `at`, what follows in memory and in the file on what began with this page at `start` and reached `end`?
    fn goes_on(&self, start: usize, at: usize, end: usize, next: &Page) -> bool {
        at == end
            && next.offset == self.offset + (at - start) as u64
            && next.writable == self.writable
            && Arc::ptr_eq(&next.file, &self.file)
    }

    fn protect(&mut self, process: &Process, at: usize, writable: bool) {
        let changed = writable != self.writable;
        if changed
            && process
                .protect(vemva(at), self.len as u64, writable)
                .is_ok()
        {
            self.writable = writable;
        }
    }
}

/// Moves what the program has mapped anew in a part of a page that it had unmapped to the page's frame.
fn fill(at: usize, page: &Page) {
    if place::presence(&page.file, page.offset, at, page.len) == Ok(Presence::Part) {
        // SAFETY: the frame is this page's, and others that know it share it as memory of several processes. As in `take_new`,
        // the program does not unmap memory that is the argument of a call. What fails changes nothing.
        let _ = unsafe { place::place(&page.file, page.offset, at, page.len) };
    }
}
