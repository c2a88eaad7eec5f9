//! Processes of a node, in one: each with its own way to the same service.
#![allow(dead_code, reason = "every test uses a part")]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use windlass_mem::SharedBytes;
use windlass_mem::reback::place::Movable;
use windlass_mem::view::{Spot, private};
use windlass_rsm::{
    ALLOW_REBIND, AccessEntry, Answer, Barrier, Caller, Code, Control, Controller, Export, Gone,
    Import, Key, Network, Outcome, OwnerId, PERM_RDWR, Reply, Request, Scope, Service,
};

/// Number of the node of all tests.
pub const NODE: u32 = 3;

/// Of every job of the tests.
pub const SECRET: [u8; 32] = [7; 32];

/// A process.
pub struct Person {
    service: Arc<Mutex<Service>>,
    /// The services of all nodes of the job, if there are several.
    others: Arc<Vec<Arc<Mutex<Service>>>>,
    owner: OwnerId,
    uid: u32,
    gone: AtomicBool,
    calls: AtomicUsize,
}

impl Person {
    fn new(
        service: &Arc<Mutex<Service>>,
        others: &Arc<Vec<Arc<Mutex<Service>>>>,
        uid: u32,
        scope: Scope,
    ) -> (Arc<Self>, Arc<Controller>) {
        let owner = service.lock().join();
        let person = Arc::new(Self {
            service: Arc::clone(service),
            others: Arc::clone(others),
            owner,
            uid,
            gone: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        });
        let control: Arc<dyn Control> = Arc::clone(&person) as _;
        (person, Controller::open(control, scope).unwrap())
    }

    /// How often it has asked its service.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// It ends as by a kill.
    pub fn die(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.service.lock().leave(self.owner);
        pump(&self.others);
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
        self.calls.fetch_add(1, Ordering::SeqCst);
        // The kernel drops files for which there is no descriptor.
        let copy = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().ok();
        let caller = Caller {
            uid: self.uid,
            gid: self.uid,
            groups: &Vec::new,
        };
        let files = files.iter().filter_map(copy).collect();
        let outcome = self
            .service
            .lock()
            .handle(self.owner, caller, request, files);
        pump(&self.others);
        let answer: Result<Answer, Code> = match outcome {
            Ok(Outcome::Now(answer)) => Ok(answer),
            Ok(Outcome::Later(call)) => {
                let answer = self.service.lock().take_answer(call);
                answer.expect("every message has been delivered")
            }
            Err(code) => Err(code),
        };
        Ok(match answer {
            Ok(answer) => {
                let files = answer.files().iter().filter_map(copy).collect();
                (Ok(answer.body.clone()), files)
            }
            Err(code) => (Err(code), Vec::new()),
        })
    }
}

/// Delivers what the services of a job's nodes have for each other, until there is nothing.
pub fn pump(services: &[Arc<Mutex<Service>>]) {
    let mut quiet = false;
    while !quiet {
        quiet = true;
        for (from, service) in services.iter().enumerate() {
            let messages = service.lock().take_messages();
            for (to, message) in messages {
                quiet = false;
                services[to as usize]
                    .lock()
                    .on_message(from as u32, message);
            }
        }
    }
}

/// Several nodes of a job.
pub struct Cluster(pub Arc<Vec<Arc<Mutex<Service>>>>);

impl Cluster {
    pub fn new(nodes: u32) -> Self {
        let network = Network {
            secret: Key::from_bytes(SECRET),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let service = |node| {
            let service = Service::new(node, nodes, 1 << 20, Some(network));
            Arc::new(Mutex::new(service.unwrap()))
        };
        Self(Arc::new((0..nodes).map(service).collect()))
    }

    /// A process of this test's own user on a node.
    pub fn person(&self, node: usize, scope: Scope) -> (Arc<Person>, Arc<Controller>) {
        let uid = rustix::process::geteuid().as_raw();
        Person::new(&self.0[node], &self.0, uid, scope)
    }

    /// The others are told that a node has gone.
    pub fn lose(&self, node: u32) {
        for (other, service) in self.0.iter().enumerate() {
            if other as u32 != node {
                service.lock().lose(node);
            }
        }
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
        let service = Service::new(NODE, 1, files, None).unwrap();
        Self(Arc::new(Mutex::new(service)))
    }

    pub fn person(&self, uid: u32) -> (Arc<Person>, Arc<Controller>) {
        Person::new(&self.0, &Arc::default(), uid, Scope::Node)
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
/// An exporter on node 1, whose segment is published to all, and a process of node 0.
pub struct Two {
    pub cluster: Cluster,
    pub exporter: (Arc<Person>, Arc<Controller>),
    pub importer: (Arc<Person>, Arc<Controller>),
    pub bytes: SharedBytes,
    pub export: Arc<Export>,
    pub id: u32,
}

impl Two {
    pub fn new(pages: usize) -> Self {
        let cluster = Cluster::new(2);
        let exporter = cluster.person(1, Scope::Cluster);
        let importer = cluster.person(0, Scope::Cluster);
        let (bytes, memory) = memory(pages);
        let export = Export::create(&exporter.1, memory, ALLOW_REBIND).unwrap();
        let id = export.publish(0, Some(&every(0o600))).unwrap();
        Self {
            cluster,
            exporter,
            importer,
            bytes,
            export,
            id,
        }
    }
}

/// The same for both nodes.
pub fn every(permission: u32) -> [AccessEntry; 2] {
    [0, 1].map(|node| AccessEntry { node, permission })
}

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
