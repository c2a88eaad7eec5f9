//! Processes of a node, in one: each with its own way to the same service.
#![allow(dead_code, reason = "every test uses a part")]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use windlass_mem::SharedBytes;
use windlass_mem::reback::place::Movable;
use windlass_mem::view::{Spot, private};
use windlass_rsm::{
    Barrier, Caller, Code, Control, Controller, Export, Gone, Import, OwnerId, PERM_RDWR, Reply,
    Request, Service,
};

/// Number of the node of all tests.
pub const NODE: u32 = 3;

/// A process.
pub struct Person {
    service: Arc<Mutex<Service>>,
    owner: OwnerId,
    uid: u32,
    gone: AtomicBool,
}

impl Person {
    /// It ends as by a kill.
    pub fn die(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.service.lock().leave(self.owner);
    }

    /// Its service ends.
    pub fn lose_service(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }
}

impl Control for Person {
    fn call(
        &self,
        request: Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Gone> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(Gone);
        }
        // The kernel drops files for which there is no descriptor.
        let copy = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().ok();
        let caller = Caller {
            uid: self.uid,
            gid: self.uid,
            groups: &Vec::new,
        };
        let files = files.iter().filter_map(copy).collect();
        let answer = self
            .service
            .lock()
            .handle(self.owner, caller, request, files);
        Ok(match answer {
            Ok(answer) => {
                let files = answer.files().iter().filter_map(copy).collect();
                (Ok(answer.body.clone()), files)
            }
            Err(code) => (Err(code), Vec::new()),
        })
    }
}

/// A node.
pub struct Node(pub Arc<Mutex<Service>>);

impl Node {
    pub fn new() -> Self {
        Self::with(1 << 20)
    }

    /// One whose service keeps so many descriptors.
    pub fn with(files: usize) -> Self {
        let service = Service::new(NODE, files).unwrap();
        Self(Arc::new(Mutex::new(service)))
    }

    pub fn person(&self, uid: u32) -> (Arc<Person>, Arc<Controller>) {
        let owner = self.0.lock().join();
        let person = Arc::new(Person {
            service: Arc::clone(&self.0),
            owner,
            uid,
            gone: AtomicBool::new(false),
        });
        let control: Arc<dyn Control> = Arc::clone(&person) as _;
        (person, Controller::open(control).unwrap())
    }

    /// One of this test's own user.
    pub fn own(&self) -> (Arc<Person>, Arc<Controller>) {
        self.person(rustix::process::geteuid().as_raw())
    }
}

pub fn page() -> usize {
    rustix::param::page_size()
}

/// Memory of so many pages.
pub fn memory(pages: usize) -> (SharedBytes, Movable) {
    let bytes = private(pages * page()).unwrap();
    (bytes.clone(), Movable::of(bytes).unwrap())
}

pub fn text(bytes: &SharedBytes, offset: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    bytes.read(offset, &mut out).unwrap();
    out
}

/// A published segment and a connection of another process to it.
pub struct Pair {
    pub node: Node,
    pub exporter: (Arc<Person>, Arc<Controller>),
    pub importer: (Arc<Person>, Arc<Controller>),
    pub bytes: SharedBytes,
    pub export: Arc<Export>,
    pub id: u32,
    pub import: Arc<Import>,
}

impl Pair {
    pub fn new(pages: usize) -> Self {
        Self::with(pages, PERM_RDWR)
    }

    pub fn with(pages: usize, permission: u32) -> Self {
        let node = Node::new();
        let (exporter, importer) = (node.own(), node.own());
        let (bytes, memory) = memory(pages);
        let export = Export::create(&exporter.1, memory, windlass_rsm::ALLOW_REBIND).unwrap();
        let id = export.publish(0, None).unwrap();
        let import = Import::connect(&importer.1, NODE, id, permission).unwrap();
        Self {
            node,
            exporter,
            importer,
            bytes,
            export,
            id,
            import,
        }
    }

    pub fn map(&self, offset: usize, len: usize) -> Result<usize, Code> {
        self.import
            .map(0, Spot::NOWHERE, PERM_RDWR, offset as i64, len)
    }

    pub fn barrier(&self) -> Barrier {
        Barrier::init(&self.import, windlass_rsm::BARRIER_SEGMENT).unwrap()
    }
}
