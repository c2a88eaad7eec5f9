//! Segments of other nodes over the services' links: from leaf to root, and from leaf to leaf, which the root passes on.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use windlass_mem::SharedBytes;
use windlass_mem::reback::place::Movable;
use windlass_mem::view::private;
use windlass_node::{Client, JobId, Link, Member, NodeConfig, Place, Service};
use windlass_rsm::{BARRIER_NODE, Barrier, Code, Controller, Export, Import, PERM_RDWR, Scope};
use windlass_ve::Profile;
use windlass_wire::Secret;

const NODES: u32 = 3;
/// Bytes of a segment: whole pages.
const LONG: usize = 128 * 1024;
/// No wait of a test is longer; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Three services with two ranks each, all in this process.
struct Job {
    services: Vec<Option<Service>>,
    _base: tempfile::TempDir,
}

impl Job {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a folder can be made");
        let (job, secret) = (JobId::random().expect("random"), Secret::random());
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let root = listener.local_addr().expect("it has one");
        let mut listener = Some(listener);
        let mut services = Vec::new();
        for node in 0..NODES {
            let link = match listener.take() {
                Some(listener) => Link::Root { listener },
                None => Link::Leaf { root },
            };
            let member = |rank| Member {
                rank,
                node: rank / 2,
                place: Place::Vh,
            };
            let config = NodeConfig {
                job,
                node,
                nodes: NODES,
                members: (0..2 * NODES).map(member).collect(),
                ves: 0,
                profile: Profile::VE1,
                secret: secret.clone(),
                link,
                base: base.path().to_owned(),
            };
            let service = Service::start(config, channel().0).expect("it starts");
            services.push(Some(service));
        }
        Self {
            services,
            _base: base,
        }
    }

    fn join(&self, rank: u32) -> (Arc<Client>, Arc<Controller>) {
        let service = self.services[rank as usize / 2].as_ref();
        let path = service.expect("it runs").socket_path();
        let client = Arc::new(Client::join(path, rank).expect("it joins").0);
        let controller = Controller::open(Arc::clone(&client) as _, Scope::Cluster);
        (client, controller.expect("there are several nodes"))
    }
}

struct Exporter {
    client: Arc<Client>,
    bytes: SharedBytes,
    export: Arc<Export>,
    node: u32,
    id: u32,
}

impl Exporter {
    fn new(job: &Job, rank: u32, len: usize) -> Self {
        let (client, controller) = job.join(rank);
        let bytes = private(len).expect("memory");
        let memory = Movable::of(bytes.clone()).expect("whole pages");
        let export = Export::create(&controller, memory, 0).expect("created");
        let id = export.publish(0, None).expect("published");
        let node = controller.node();
        Self {
            client,
            bytes,
            export,
            node,
            id,
        }
    }

    fn import(&self, by: &Arc<Controller>) -> Imported {
        let import = Import::connect(by, self.node, self.id, PERM_RDWR).expect("connected");
        let barrier = Barrier::init(&import, BARRIER_NODE).expect("a barrier");
        Imported {
            import,
            _barrier: barrier,
        }
    }
}

/// A connection with the barrier that implicit mode needs.
struct Imported {
    import: Arc<Import>,
    _barrier: Barrier,
}

impl std::ops::Deref for Imported {
    type Target = Import;

    fn deref(&self) -> &Import {
        &self.import
    }
}

#[track_caller]
fn comes(what: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < PATIENCE, "it does not come");
        std::thread::sleep(Duration::from_micros(50));
    }
    begun.elapsed()
}

#[test]
fn bytes_and_signals_pass_between_any_two_nodes() {
    let job = Job::new();
    let len = 3 * LONG;
    let exporters: Vec<Exporter> = (0..NODES)
        .map(|node| Exporter::new(&job, 2 * node, len))
        .collect();
    let importers: Vec<_> = (0..NODES).map(|node| job.join(2 * node + 1)).collect();
    for exporter in &exporters {
        for (client, controller) in &importers {
            let import = exporter.import(controller);
            let far = exporter.node != controller.node();
            let mut sent = vec![client.rank() as u8 + 1; len - 8];
            sent[7] = exporter.node as u8;
            import.put(8, &sent, 1).expect("it arrives");
            let mut seen = vec![0; len - 8];
            exporter.bytes.read(8, &mut seen).expect("its own");
            assert_eq!(seen, sent);
            seen.fill(0);
            import.get(8, &mut seen, 1).expect("it comes");
            assert_eq!(seen, sent);
            let mapped = import.map(0, windlass_mem::view::Spot::NOWHERE, PERM_RDWR, 0, 1);
            let refused = if far {
                Code::MapFailed
            } else {
                Code::SegAlreadyMapped
            };
            assert_eq!(mapped, Err(refused));
            import.post(false).expect("the exporter is there");
            assert_eq!(exporter.export.wait(Some(PATIENCE)), Ok(()));
            exporter.export.post(false).expect("its node is there");
            assert_eq!(import.wait(Some(PATIENCE)), Ok(()));
        }
    }
}

/// A kill closes the connection; an exporter's node that ends says goodbye, or its link ends.
#[test]
fn the_end_of_an_exporter_and_of_its_node_is_seen_everywhere() {
    let mut job = Job::new();
    let first = Exporter::new(&job, 2, LONG);
    let second = Exporter::new(&job, 3, LONG);
    let root = job.join(0);
    let leaf = job.join(4);
    let imports = [
        (first.import(&root.1), second.import(&root.1)),
        (first.import(&leaf.1), second.import(&leaf.1)),
    ];
    drop(first.export);
    for (first, second) in &imports {
        comes(|| first.is_aborted());
        assert!(!second.is_aborted());
        assert_eq!(first.wait(None), Err(Code::ConnAborted));
        second.put(0, b"still there", 1).expect("it is");
    }
    // As a rank that is killed: the service hears no word.
    drop((first.client, second.client, second.export));
    for (_, second) in &imports {
        let seen = comes(|| second.is_aborted());
        println!("the exporter's end was seen after {seen:?}");
        assert_eq!(second.put(0, b"x", 1), Err(Code::ConnAborted));
    }
    drop(imports);
    // A node of which nothing is left, and the root, without which there is no way.
    let third = Exporter::new(&job, 5, LONG);
    let import = third.import(&root.1);
    let reached = |at: &Controller| at.reached().expect("its service is there");
    assert_eq!(reached(&root.1), [0, 1, 2]);
    job.services[1] = None;
    comes(|| reached(&root.1) == [0, 2]);
    comes(|| reached(&leaf.1) == [0, 2]);
    let refused = Import::connect(&leaf.1, 1, second.id, PERM_RDWR).err();
    assert_eq!(refused, Some(Code::RemoteNodeUnreachable));
    import.put(0, b"still there", 1).expect("it is");
    let import = Import::connect(&leaf.1, 0, 0x60_0000, 0).err();
    assert_eq!(import, Some(Code::SegNotPublished));
    job.services[0] = None;
    comes(|| reached(&leaf.1) == [2]);
    assert_eq!(third.export.post(false), Ok(()));
    job.services[2] = None;
    assert_eq!(third.export.wait(None), Err(Code::ConnAborted));
}
