//! Dynamic windows: memory attached and detached at any time, reached by absolute addresses.
//!
//! # Directory
//! A dynamic window exposes, in place of a part, a *directory* of this rank's regions: a version,
//! an index of (address, bytes, segment), and for each the offers by which its segment can be
//! reached. Attach and detach write it, locally. An origin looks an address up in its own copy and
//! reads the directory again where the copy may be old; what it finds new it attaches itself to,
//! and keeps.
//!
//! # Which copy is old
//! The version is odd while it is being changed and differs after every change; a reader takes an
//! index only between two equal even versions. On a mapped directory the version is compared at
//! every operation (one load); elsewhere at the first one to a target in each epoch, at an address
//! that the copy does not have, and after a refused transfer. So whoever opens an epoch after a
//! detach does not use the region any more: that is what makes [`Window::detach`] sound, which
//! holds the exclusive lock on this rank and runs in no fence epoch and no exposure.
//!
//! A region is of any size and alignment; several may lie in one page.

mod directory;
mod operations;

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use windlass_mem::{SharedBytes, sync};
use windlass_runtime as runtime;
use windlass_runtime::{Region, Route};

use crate::core::{Core, Make, Reach, is_posted};
use crate::error::{ElementKind, Error, Result};
use crate::hints::Hints;
use crate::window::Flavor;
use crate::world::{Rank, World};

use directory::{
    AT_INDEX, AT_OFFERS, AT_USED, AT_VERSION, DIRECTORY_BYTES, ENTRY_BYTES, Entry, OFFER_BYTES,
};
pub use operations::Address;

/// Regions that a rank can have attached to one window at a time.
pub const REGIONS_MAX: usize = 1024;

/// A region of this rank.
struct Attached {
    slot: usize,
    region: Region,
    /// The memory's owner comes back from here.
    owner: Box<dyn Any + Send + Sync>,
}

/// What this rank has attached, by address.
#[derive(Default)]
struct Mine {
    regions: BTreeMap<u64, Attached>,
    slots: Vec<usize>,
    used: usize,
}

/// What this rank knows of another's directory.
#[derive(Default)]
struct Copy {
    version: u64,
    /// The epoch in which the version was looked at.
    checked: u64,
    entries: Vec<(usize, Entry)>,
    reached: BTreeMap<u32, Arc<Reach>>,
}

/// The dynamic part of a window.
pub(crate) struct Dynamic {
    /// The way to every rank's directory.
    directories: Box<[Route]>,
    copies: Box<[Mutex<Copy>]>,
    mine: Mutex<Mine>,
    /// What the window has in place of a part.
    pub(crate) nothing: SharedBytes,
}

/// The way to a target's memory: a window's part, or a region of a dynamic one.
pub(crate) enum Found<'a> {
    Part(&'a Reach),
    Region(Arc<Reach>),
}

impl Deref for Found<'_> {
    type Target = Reach;

    #[inline(always)]
    fn deref(&self) -> &Reach {
        match self {
            Found::Part(reach) => reach,
            Found::Region(reach) => reach,
        }
    }
}

fn update_error(error: windlass_mem::Error) -> runtime::Error {
    runtime::Error::Update(error.to_string())
}

/// Copies bytes of a directory.
fn read(directory: &Route, offset: usize, into: &mut [u8]) -> runtime::Result<()> {
    match directory {
        Route::Mapped(bytes) => {
            sync::pay();
            bytes.read(offset, into).map_err(update_error)
        }
        Route::Posted(posted) => posted.get(offset as u64, into),
    }
}

fn read_word(directory: &Route, offset: usize) -> runtime::Result<u64> {
    let mut word = [0; 8];
    read(directory, offset, &mut word)?;
    Ok(u64::from_ne_bytes(word))
}

impl Dynamic {
    /// Parts without bytes for the ranks, and the dynamic part of a window over the directories
    /// that were exposed in their place.
    pub(crate) fn new(parts: Box<[Reach]>) -> (Box<[Reach]>, Option<Dynamic>) {
        let directories: Box<[Route]> = parts.iter().map(|part| part.route.clone()).collect();
        let parts = parts.into_iter().map(|part| Reach {
            count: 0,
            bytes: 0,
            // A region may be reached by another way than the directory.
            is_posted: true,
            ..part
        });
        let dynamic = Dynamic {
            copies: directories.iter().map(|_| Mutex::default()).collect(),
            mine: Mutex::default(),
            nothing: SharedBytes::empty(),
            directories,
        };
        (parts.collect(), Some(dynamic))
    }

    /// The regions of `target` that this rank has attached itself to.
    pub(crate) fn reached(&self, target: Rank) -> Vec<Arc<Reach>> {
        let copy = self.copies[target.0 as usize].lock();
        copy.reached
            .values()
            .filter(|reach| reach.is_posted)
            .cloned()
            .collect()
    }

    /// A transfer with `target` failed: its directory is looked at before the next.
    fn doubt(&self, target: Rank) {
        self.copies[target.0 as usize].lock().checked = 0;
    }
}

impl Copy {
    /// The region that holds the bytes, and where.
    fn find(&self, first: i128, end: i128) -> Option<(usize, Entry, u64)> {
        self.entries
            .iter()
            .find_map(|&(slot, entry)| Some((slot, entry, entry.offset(first, end)?)))
    }

    /// Reads index entries as they stood at one version.
    fn refresh(
        &mut self,
        directory: &Route,
        check: impl Fn() -> runtime::Result<()>,
        forget: impl Fn(u32),
    ) -> runtime::Result<()> {
        loop {
            let version = read_word(directory, AT_VERSION)?;
            if version.is_multiple_of(2) {
                if version == self.version {
                    return Ok(());
                }
                let used = read_word(directory, AT_USED)?.min(REGIONS_MAX as u64) as usize;
                let mut index = vec![0; used * ENTRY_BYTES];
                read(directory, AT_INDEX, &mut index)?;
                if read_word(directory, AT_VERSION)? == version {
                    let entries = index.chunks_exact(ENTRY_BYTES).enumerate();
                    self.entries = entries
                        .filter_map(|(slot, bytes)| Some((slot, Entry::from_bytes(bytes)?)))
                        .collect();
                    self.version = version;
                    let known = |segment: &u32| {
                        self.entries
                            .iter()
                            .any(|(_, entry)| entry.segment == *segment)
                    };
                    self.reached.retain(|segment, _| {
                        let stays = known(segment);
                        if !stays {
                            forget(*segment);
                        }
                        stays
                    });
                    return Ok(());
                }
            }
            // Its rank is at it: a few words, unless it died.
            check()?;
            std::thread::yield_now();
        }
    }
}

impl Core {
    #[track_caller]
    fn dynamic(&self, call: &'static str) -> Result<&Dynamic> {
        match &self.dynamic {
            Some(dynamic) => Ok(dynamic),
            None => Err(Error::Flavor {
                flavor: self.flavor,
                at: Box::new(self.site(call)),
            }),
        }
    }

    /// The region of `target` that holds the bytes `first..end`, and where in it `first` lies.
    #[track_caller]
    pub(crate) fn region_of(
        &self,
        call: &'static str,
        target: Rank,
        first: i128,
        end: i128,
    ) -> Result<(Arc<Reach>, u64)> {
        let dynamic = self.dynamic(call)?;
        let found = self.look_up(dynamic, target, first, end);
        match self.sent(call, target, found)? {
            Some(found) => Ok(found),
            None => Err(Error::Unattached {
                target: target.0,
                first,
                end,
                at: Box::new(self.site(call)),
            }),
        }
    }

    fn look_up(
        &self,
        dynamic: &Dynamic,
        target: Rank,
        first: i128,
        end: i128,
    ) -> runtime::Result<Option<(Arc<Reach>, u64)>> {
        let directory = &dynamic.directories[target.0 as usize];
        let mut copy = dynamic.copies[target.0 as usize].lock();
        let peer = self.world.job_rank(target);
        let check = || self.exposure().check();
        let forget = |segment| self.world.job().forget(peer, segment);
        let epoch = self.epochs.serial();
        let old = matches!(directory, Route::Mapped(_)) || copy.checked != epoch;
        if old || copy.find(first, end).is_none() {
            copy.refresh(directory, check, forget)?;
            copy.checked = epoch;
        }
        loop {
            let Some((slot, entry, offset)) = copy.find(first, end) else {
                return Ok(None);
            };
            if let Some(reach) = copy.reached.get(&entry.segment) {
                return Ok(Some((Arc::clone(reach), offset)));
            }
            let mut offers = vec![0; entry.offer_bytes as usize];
            read(directory, AT_OFFERS + slot * OFFER_BYTES, &mut offers)?;
            if read_word(directory, AT_VERSION)? != copy.version {
                copy.refresh(directory, check, forget)?;
                continue;
            }
            let reached = self.world.job().reach(peer, entry.segment, &offers)?;
            let route = self.exposure().own(reached.route.part(0, entry.bytes)?);
            let atomics = reached.updates.part(0, entry.bytes)?;
            let atomics = self.exposure().guarded(target.0, atomics);
            let reach = Arc::new(Reach {
                count: entry.bytes as usize,
                bytes: entry.bytes,
                disp_unit: 1,
                lock: None,
                is_posted: is_posted(&route, &atomics),
                route,
                atomics,
            });
            copy.reached.insert(entry.segment, Arc::clone(&reach));
            return Ok(Some((reach, offset)));
        }
    }

    /// Enters a region of `len` bytes at `address` into the directory.
    #[track_caller]
    fn attach(
        &self,
        call: &'static str,
        address: u64,
        region: Region,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Result<()> {
        let dynamic = self.dynamic(call)?;
        let mut mine = dynamic.mine.lock();
        let len = region.bytes().len() as u64;
        let site = self.site(call);
        let refused = |why: String| Error::Attach {
            why,
            at: Box::new(site),
        };
        let end = address + len;
        let below = mine.regions.range(..end).next_back();
        if let Some((&start, attached)) = below
            && start + attached.region.bytes().len() as u64 > address
        {
            return Err(refused(format!(
                "the {len} bytes at {address:#x} overlap the region attached at {start:#x}"
            )));
        }
        let slot = mine.slots.pop().unwrap_or(mine.used);
        if slot >= REGIONS_MAX {
            return Err(refused(format!(
                "{REGIONS_MAX} regions are attached already; detach some"
            )));
        }
        let offers = self.world.job().offer(&region);
        if offers.is_err() {
            mine.slots.push(slot);
        }
        let offers = self.done(call, offers)?;
        if offers.len() > OFFER_BYTES {
            mine.slots.push(slot);
            return Err(refused(format!(
                "its offers take {} bytes where {OFFER_BYTES} are kept",
                offers.len()
            )));
        }
        let entry = Entry {
            address,
            bytes: len,
            segment: region.segment().id,
            offer_bytes: offers.len() as u32,
        };
        mine.used = mine.used.max(slot + 1);
        self.rewrite(|directory| {
            directory.write(AT_OFFERS + slot * OFFER_BYTES, &offers)?;
            directory.write(AT_INDEX + slot * ENTRY_BYTES, &entry.to_bytes())?;
            directory.write(AT_USED, &(mine.used as u64).to_ne_bytes())
        });
        let attached = Attached {
            slot,
            region,
            owner,
        };
        mine.regions.insert(address, attached);
        Ok(())
    }

    /// Changes this rank's directory between two versions.
    fn rewrite(
        &self,
        change: impl FnOnce(&SharedBytes) -> std::result::Result<(), windlass_mem::Error>,
    ) {
        let directory = self.exposure().bytes();
        let Ok(version) = directory.atomic_u64(AT_VERSION) else {
            unreachable!("a directory begins on a cache line")
        };
        version.fetch_add(1, Ordering::SeqCst);
        // Every slot is inside by construction.
        let changed = change(directory);
        debug_assert!(changed.is_ok(), "{changed:?}");
        version.fetch_add(1, Ordering::SeqCst);
        sync::settled();
    }

    /// Takes the region at `address` out of the directory; its exports end with it.
    #[track_caller]
    fn detach(&self, call: &'static str, address: u64) -> Result<Attached> {
        let dynamic = self.dynamic(call)?;
        let mut mine = dynamic.mine.lock();
        let Some(attached) = mine.regions.remove(&address) else {
            return Err(Error::NotAttached {
                address,
                at: Box::new(self.site(call)),
            });
        };
        let slot = attached.slot;
        mine.slots.push(slot);
        self.rewrite(|directory| directory.write(AT_INDEX + slot * ENTRY_BYTES, &[0; ENTRY_BYTES]));
        Ok(attached)
    }

    /// Everything that is still attached, to be kept from peers' late accesses for ever.
    pub(crate) fn abandon_regions(&self) {
        if let Some(dynamic) = &self.dynamic {
            std::mem::forget(std::mem::take(&mut dynamic.mine.lock().regions));
        }
    }

    /// Detaches what is still attached, at the collective end.
    pub(crate) fn detach_all(&self) {
        if let Some(dynamic) = &self.dynamic {
            let regions = std::mem::take(&mut dynamic.mine.lock().regions);
            for Attached { region, owner, .. } in regions.into_values() {
                // The exports first, then the memory.
                drop(region);
                drop(owner);
            }
        }
    }

    /// Collective: a window of directories.
    #[track_caller]
    pub(crate) fn new_dynamic(world: &World, call: &'static str, hints: &Hints) -> Result<Core> {
        world.not_ended(call)?;
        let make = Make {
            call,
            flavor: Flavor::Dynamic,
            hints: hints.clone(),
            element: ElementKind { size: 1, align: 1 },
            disp_unit: 1,
        };
        let directory = world.job().allocate(DIRECTORY_BYTES, 1);
        Core::new(world, make, |team, note| team.expose(directory, note))
    }

    /// Attaches memory that the caller answers for.
    #[track_caller]
    pub(crate) fn attach_raw(&self, call: &'static str, bytes: SharedBytes) -> Result<()> {
        self.dynamic(call)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let address = bytes.addr() as u64;
        let region = self.world.job().lend_bytes(bytes);
        self.attach(call, address, region, Box::new(()))
    }

    /// Detaches it.
    #[track_caller]
    pub(crate) fn detach_raw(&self, call: &'static str, address: u64) -> Result<()> {
        self.detach(call, address).map(drop)
    }
}

impl Core {
    /// Lets this process's own routes to regions of `target` go that are not attached any more.
    fn let_go(&self, target: Rank) {
        let Some(dynamic) = &self.dynamic else { return };
        let mut copy = dynamic.copies[target.0 as usize].lock();
        let peer = self.world.job_rank(target);
        let forget = |segment| self.world.job().forget(peer, segment);
        let directory = &dynamic.directories[target.0 as usize];
        // Its own memory: this cannot fail, and nobody changes it meanwhile.
        let _ = copy.refresh(directory, || Ok(()), forget);
    }
}
