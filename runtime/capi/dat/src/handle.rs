//! Handles: what C holds, and the objects behind them.
//!
//! A handle is the address of a block whose first word is the provider table (udapl.md section 3.2): libdat2 calls
//! through it before we see it. Everything else about the object is in a table here, by that address; a number that is
//! not in it is refused, and no handle is ever followed on this side. Blocks are never given back: libdat2 may follow a
//! stale handle at any time. A freed one rests until many others were freed, so it stays stale for long.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use windlass_abi::dat::{self, Provider};
use windlass_dat::{Error, Pz, Result, Subtype};

use crate::cno::CnoObject;
use crate::ep::EpObject;
use crate::evd::EvdObject;
use crate::ia::IaObject;
use crate::lmr::LmrObject;
use crate::point::{CrObject, PspObject, RspObject};
use crate::rmr::RmrObject;
use crate::srq::SrqObject;

/// A freed handle rests until so many others of its provider were freed after it.
const RESTING: usize = 4096;

/// What C holds, as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle(pub(crate) usize);

impl From<dat::Handle> for Handle {
    fn from(handle: dat::Handle) -> Self {
        Self(handle.addr())
    }
}

impl Handle {
    pub(crate) const NULL: Handle = Handle(0);

    /// For C; never followed by us.
    pub(crate) fn to_c(self) -> dat::Handle {
        std::ptr::with_exposed_provenance_mut(self.0)
    }

    /// Nothing for the null handle.
    pub(crate) fn given(self) -> Option<Handle> {
        (self != Self::NULL).then_some(self)
    }
}

/// What a handle's memory holds.
#[repr(C)]
struct Block {
    provider: *const Provider,
}

struct Blocks {
    /// Freed blocks of each provider table, by its address, oldest first.
    resting: BTreeMap<usize, VecDeque<usize>>,
}

static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks {
    resting: BTreeMap::new(),
});
static TABLE: RwLock<BTreeMap<Handle, Arc<Entry>>> = RwLock::new(BTreeMap::new());

/// An object and what every kind of object has.
pub(crate) struct Entry {
    /// The adapter it belongs to; its own handle, for an adapter.
    pub(crate) ia: Handle,
    provider: usize,
    /// What the consumer set.
    pub(crate) context: AtomicU64,
    pub(crate) object: Object,
}

macro_rules! objects {
    ($($kind:ident($object:ty) = $type:ident, $wrong:ident;)*) => {
        pub(crate) enum Object {
            $($kind($object),)*
        }
        impl Object {
            /// `DAT_HANDLE_TYPE`.
            pub(crate) fn kind(&self) -> u32 {
                match self { $(Object::$kind(_) => dat::$type,)* }
            }
        }
        $(impl Kind for $object {
            const WRONG: Subtype = Subtype::$wrong;
            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$kind(object) => Some(object),
                    _ => None,
                }
            }
            fn into_object(self) -> Object {
                Object::$kind(self)
            }
        })*
    };
}

/// A kind of object that handles name.
pub(crate) trait Kind: Sized {
    /// How a call refuses a handle of another kind.
    const WRONG: Subtype;
    fn of(object: &Object) -> Option<&Self>;
    fn into_object(self) -> Object;
}

objects! {
    Cr(CrObject) = HANDLE_TYPE_CR, Cr;
    Ep(EpObject) = HANDLE_TYPE_EP, Ep;
    Evd(EvdObject) = HANDLE_TYPE_EVD, None;
    Ia(IaObject) = HANDLE_TYPE_IA, Ia;
    Lmr(LmrObject) = HANDLE_TYPE_LMR, Lmr;
    Psp(PspObject) = HANDLE_TYPE_PSP, Psp;
    Pz(Pz) = HANDLE_TYPE_PZ, Pz;
    Rmr(RmrObject) = HANDLE_TYPE_RMR, Rmr;
    Rsp(RspObject) = HANDLE_TYPE_RSP, Rsp;
    Cno(CnoObject) = HANDLE_TYPE_CNO, Cno;
    Srq(SrqObject) = HANDLE_TYPE_SRQ, SrqHandle;
}

/// An object that a call works on: it lives until the call is over, whoever frees it meanwhile.
pub(crate) struct Held<T> {
    entry: Arc<Entry>,
    kind: PhantomData<T>,
}

impl<T> Held<T> {
    /// The adapter it belongs to.
    pub(crate) fn ia(&self) -> Handle {
        self.entry.ia
    }
}

impl<T: Kind> std::ops::Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // `get` made sure of the kind, and an entry's object never changes.
        T::of(&self.entry.object).unwrap_or_else(|| unreachable!("a held object has its kind"))
    }
}

/// The object of a handle.
pub(crate) fn get<T: Kind>(handle: impl Into<Handle>) -> Result<Held<T>> {
    get_or(handle, T::WRONG)
}

/// The object of a handle; `wrong` if it is none of this kind.
pub(crate) fn get_or<T: Kind>(handle: impl Into<Handle>, wrong: Subtype) -> Result<Held<T>> {
    let entry = any(handle).ok_or(Error::handle(wrong))?;
    match T::of(&entry.object) {
        Some(_) => Ok(Held {
            entry,
            kind: PhantomData,
        }),
        None => Err(Error::handle(wrong)),
    }
}

/// The object of a handle that may be null; it may belong to another opening of the same adapter.
pub(crate) fn near<T: Kind>(
    handle: impl Into<Handle>,
    ia: &Held<IaObject>,
    wrong: Subtype,
) -> Result<Option<Held<T>>> {
    let Some(handle) = handle.into().given() else {
        return Ok(None);
    };
    let held = get_or::<T>(handle, wrong)?;
    if held.entry.provider != ia.entry.provider {
        return Err(Error::handle(wrong));
    }
    Ok(Some(held))
}

/// The object of a handle that may be null and must belong to `ia`.
pub(crate) fn given<T: Kind>(
    handle: impl Into<Handle>,
    ia: Handle,
    wrong: Subtype,
) -> Result<Option<Held<T>>> {
    let Some(handle) = handle.into().given() else {
        return Ok(None);
    };
    let held = get_or::<T>(handle, wrong)?;
    if held.ia() != ia {
        return Err(Error::handle(wrong));
    }
    Ok(Some(held))
}

/// The object of a handle that must belong to `ia`.
pub(crate) fn get_of<T: Kind>(handle: impl Into<Handle>, ia: Handle) -> Result<Held<T>> {
    given(handle, ia, T::WRONG)?.ok_or(Error::handle(T::WRONG))
}

/// The object of a handle, of whatever kind.
pub(crate) fn any(handle: impl Into<Handle>) -> Option<Arc<Entry>> {
    TABLE.read().get(&handle.into()).cloned()
}

fn block(provider: &'static Provider) -> Handle {
    let mut blocks = BLOCKS.lock();
    let key = std::ptr::from_ref(provider).addr();
    let resting = blocks.resting.entry(key).or_default();
    if resting.len() > RESTING
        && let Some(block) = resting.pop_front()
    {
        return Handle(block);
    }
    let block: &'static Block = Box::leak(Box::new(Block {
        provider: std::ptr::from_ref(provider),
    }));
    debug_assert!(!block.provider.is_null());
    Handle(std::ptr::from_ref(block).expose_provenance())
}

/// Objects of each kind that an adapter has.
#[derive(Default)]
pub(crate) struct Counts([AtomicUsize; 11]);

impl Counts {
    /// One more object of this kind, if there may be one.
    pub(crate) fn add(&self, kind: u32, limit: usize, lacking: Subtype) -> Result<()> {
        let count = &self.0[kind as usize];
        if count.fetch_add(1, Ordering::Relaxed) < limit {
            return Ok(());
        }
        count.fetch_sub(1, Ordering::Relaxed);
        Err(Error::resources(lacking))
    }

    pub(crate) fn remove(&self, kind: u32) {
        self.0[kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A new adapter's handle.
pub(crate) fn add_ia(provider: &'static Provider, make: impl FnOnce(Handle) -> IaObject) -> Handle {
    let handle = block(provider);
    let entry = Entry {
        ia: handle,
        provider: std::ptr::from_ref(provider).addr(),
        context: AtomicU64::new(0),
        object: Object::Ia(make(handle)),
    };
    TABLE.write().insert(handle, Arc::new(entry));
    handle
}

/// The handle of a new object of `ia`.
pub(crate) fn add<T: Kind>(ia: &Held<IaObject>, object: T) -> Handle {
    let handle = block(ia.provider);
    let entry = Entry {
        ia: ia.ia(),
        provider: std::ptr::from_ref(ia.provider).addr(),
        context: AtomicU64::new(0),
        object: object.into_object(),
    };
    TABLE.write().insert(handle, Arc::new(entry));
    handle
}

/// Forgets a handle. The object goes with the last call that works on it.
pub(crate) fn remove(handle: impl Into<Handle>) -> Option<Arc<Entry>> {
    let handle = handle.into();
    let entry = TABLE.write().remove(&handle)?;
    let mut blocks = BLOCKS.lock();
    let resting = blocks.resting.entry(entry.provider).or_default();
    resting.push_back(handle.0);
    drop(blocks);
    Some(entry)
}

/// Handles of everything that belongs to an adapter, itself not among them.
pub(crate) fn of_ia(ia: Handle) -> Vec<Handle> {
    let table = TABLE.read();
    let own = table
        .iter()
        .filter(|(handle, entry)| entry.ia == ia && **handle != ia);
    own.map(|(handle, _)| *handle).collect()
}

/// Handles that events name, by the name the adapter has for the object.
pub(crate) struct Names<K>(Mutex<HashMap<K, Handle>>);

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + std::hash::Hash> Names<K> {
    pub(crate) fn set(&self, name: K, handle: Handle) {
        self.0.lock().insert(name, handle);
    }

    pub(crate) fn remove(&self, name: K) {
        self.0.lock().remove(&name);
    }

    /// The handle, or null once the object is freed.
    pub(crate) fn get(&self, name: K) -> Handle {
        self.0.lock().get(&name).copied().unwrap_or_default()
    }
}

/// Handles of the adapters behind a provider table.
pub(crate) fn adapters(provider: &'static Provider) -> Vec<Handle> {
    let provider = std::ptr::from_ref(provider).addr();
    let table = TABLE.read();
    let own = table
        .iter()
        .filter(|(handle, entry)| entry.provider == provider && entry.ia == **handle);
    own.map(|(handle, _)| *handle).collect()
}
