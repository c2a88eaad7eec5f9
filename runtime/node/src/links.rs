//! The links between the services of a job's nodes: TCP, authenticated both ways with the job's
//! secret (spec reliability S2, S3).
//!
//! Node 0 is the root and listens; every other node is a leaf and connects once. What a leaf
//! sends, the root passes on to the other leaves. The root stops listening when every leaf is
//! linked. Strangers on the port see a close: they have two seconds, are bounded in number, and
//! a greeting is read only after the proof. A link that ends without a goodbye is lost for good:
//! the job is broken and the event names the node.
//!
//! What travels is authenticated at the start only (S4): see `windlass_wire::auth`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use windlass_wire::auth::{DEADLINE, HandshakeError};
use windlass_wire::{Frames, Secret, auth, frame};

use crate::config::Link;
use crate::crew::{Crew, Visit, Visitors};
use crate::error::{Error, Malformed};
use crate::hub::Hub;
use crate::routes::Queue;
use crate::service::{accept_loop, signal, wake_fd};
use crate::wire::{self, LinkGreeting, LinkMessage, MAX_MESSAGE};

/// How long a leaf tries to reach the root, which may be busy with strangers.
const REACH_TIME: Duration = Duration::from_secs(10);
/// Between two tries.
const REACH_PAUSE: Duration = Duration::from_millis(50);
/// How long the end of a service waits for its goodbye to leave.
const BYE_TIME: Duration = Duration::from_millis(250);
/// Most bytes a link may send before it has proved itself and greeted.
const MAX_GREETING: usize = 4096;

/// A service's links and their threads.
pub(crate) struct Links {
    visitors: Arc<Visitors>,
    crew: Arc<Crew>,
    wake: Arc<OwnedFd>,
    /// Links whose goodbye has not left yet.
    writing: Arc<AtomicUsize>,
}

impl Links {
    /// Starts listening (root) or links to the root (leaf).
    pub(crate) fn start(hub: &Arc<Hub>, link: Link, secret: &Secret) -> Result<Self, Error> {
        let links = Self {
            visitors: Arc::default(),
            crew: Arc::default(),
            wake: wake_fd()?,
            writing: Arc::default(),
        };
        match link {
            // A root without leaves has nobody to wait for: its listener is closed at once.
            Link::Alone => {}
            Link::Root { .. } if hub.plan.nodes == 1 => {}
            Link::Root { listener } => links.listen(hub, listener, secret)?,
            Link::Leaf { root } => {
                let (link, visit) = links.reach(hub, root, secret)?;
                links.run(hub, 0, link, visit)?;
            }
        }
        Ok(links)
    }

    /// Ends all links; the goodbye gets a moment to leave.
    pub(crate) fn stop(&self, hub: &Hub) {
        hub.close_routes();
        signal(&self.wake);
        let until = Instant::now() + BYE_TIME;
        while self.writing.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.visitors.close();
        self.crew.join();
    }

    fn listen(&self, hub: &Arc<Hub>, listener: TcpListener, secret: &Secret) -> Result<(), Error> {
        let links = self.share();
        let (hub, secret) = (Arc::clone(hub), secret.clone());
        self.crew.spawn("node-links", move || {
            let done = || hub.stopping() || hub.all_linked();
            accept_loop(&listener, &links.wake, done, || {
                let (socket, address) = listener.accept()?;
                let socket = Arc::new(socket);
                let Some(visit) = links.visitors.enter(Arc::clone(&socket) as _) else {
                    return Ok(());
                };
                let (hub, secret, mine) = (Arc::clone(&hub), secret.clone(), links.share());
                let spawned = links.crew.spawn("node-link", move || {
                    if let Err(reason) = mine.admit(&hub, Timed::new(socket), visit, &secret)
                        && !hub.stopping()
                    {
                        tracing::warn!(%address, reason, "a link to this node was closed");
                    }
                });
                if let Err(error) = spawned {
                    tracing::warn!(%address, %error, "a link to this node was closed");
                }
                Ok(())
            });
        })
    }

    /// The root's side of a new link: proof, greeting, welcome; then messages until its end.
    fn admit(
        &self,
        hub: &Arc<Hub>,
        mut link: Timed,
        visit: Visit,
        secret: &Secret,
    ) -> Result<(), String> {
        auth::accept(&mut link, secret).map_err(reason)?;
        let mut frames = Frames::new(MAX_GREETING);
        let body = receive(&mut link, &mut frames).map_err(|error| error.to_string())?;
        let greeting = wire::decode_link_greeting(&body).map_err(|error| {
            send(&mut link, &LinkMessage::Refused(error.to_string()));
            error.to_string()
        })?;
        let refuse = |link: &mut Timed, text: String| {
            send(link, &LinkMessage::Refused(text.clone()));
            Err(text)
        };
        if greeting.job != hub.plan.job {
            return refuse(&mut link, "it belongs to another job".into());
        }
        if frames.pending() > 0 {
            return refuse(&mut link, "it spoke before its turn".into());
        }
        let node = greeting.node;
        let Some(queue) = hub.take_queue(node) else {
            return refuse(
                &mut link,
                format!(
                    "node {node} is linked already or none of the job's {}",
                    hub.plan.nodes
                ),
            );
        };
        if !visit.admit() || !send(&mut link, &LinkMessage::Welcome) {
            hub.link_lost(node);
            return Err("it ended while it was welcomed".into());
        }
        if hub.all_linked() {
            signal(&self.wake);
        }
        self.write(queue, &link)
            .map_err(|error| error.to_string())?;
        read(hub, node, &mut link);
        drop(visit);
        Ok(())
    }

    /// The leaf's side: tries until the root has welcomed it.
    fn reach(&self, hub: &Hub, root: SocketAddr, secret: &Secret) -> Result<(Timed, Visit), Error> {
        let until = Instant::now() + REACH_TIME;
        let failed = |reason| Error::Link {
            node: 0,
            address: root,
            reason,
        };
        loop {
            let reason = match self.greet(hub, root, secret) {
                Ok(link) => return Ok(link),
                Err(Attempt::Refused(reason)) => return Err(failed(reason)),
                Err(Attempt::Failed(reason)) => reason,
            };
            if Instant::now() >= until {
                return Err(failed(reason));
            }
            std::thread::sleep(REACH_PAUSE);
        }
    }

    fn greet(
        &self,
        hub: &Hub,
        root: SocketAddr,
        secret: &Secret,
    ) -> Result<(Timed, Visit), Attempt> {
        let socket = TcpStream::connect_timeout(&root, DEADLINE)?;
        let socket = Arc::new(socket);
        let visit = self
            .visitors
            .enter(Arc::clone(&socket) as _)
            .ok_or_else(|| Attempt::Refused("this service ends".into()))?;
        let mut link = Timed::new(socket);
        auth::connect(&mut link, secret).map_err(|error| match error {
            HandshakeError::Io(error) => Attempt::Failed(error.to_string()),
            HandshakeError::Refused(refused) => Attempt::Refused(refused.to_string()),
        })?;
        let greeting = LinkGreeting {
            job: hub.plan.job,
            node: hub.plan.node,
        };
        link.write_all(&frame(&wire::encode_link_greeting(&greeting)))?;
        // Everything after the welcome belongs to the reader: stop at the frame's last byte.
        let mut frames = Frames::new(MAX_GREETING);
        match receive_message(&mut link, &mut frames, true) {
            Ok(LinkMessage::Welcome) => {}
            Ok(LinkMessage::Refused(text)) => return Err(Attempt::Refused(text)),
            Ok(_) => return Err(Attempt::Refused("it did not welcome this node".into())),
            Err(Error::Malformed(error)) => return Err(Attempt::Refused(error.to_string())),
            Err(error) => return Err(Attempt::Failed(error.to_string())),
        }
        visit.admit();
        Ok((link, visit))
    }

    /// Starts the two threads of a leaf's link.
    fn run(&self, hub: &Arc<Hub>, node: u32, mut link: Timed, visit: Visit) -> Result<(), Error> {
        let queue = hub.take_queue(node).ok_or(Error::Gone)?;
        self.write(queue, &link)?;
        let hub = Arc::clone(hub);
        self.crew.spawn("node-link", move || {
            read(&hub, node, &mut link);
            drop(visit);
        })
    }

    /// Starts the thread that sends what is queued for a node.
    fn write(&self, queue: Queue, link: &Timed) -> Result<(), Error> {
        let socket = Arc::clone(&link.socket);
        let writing = Arc::clone(&self.writing);
        // The handshake's time-out is over; a slow node is not a lost one.
        socket
            .set_write_timeout(None)
            .map_err(|error| Error::io("setsockopt", &error))?;
        writing.fetch_add(1, Ordering::AcqRel);
        let spawned = self.crew.spawn("node-link-out", move || {
            for body in queue {
                if let Err(error) = (&*socket).write_all(&frame(&body)) {
                    tracing::debug!(%error, "a link to another node cannot be written");
                    // The reader of this link finds its end and reports it.
                    let _ = socket.shutdown(Shutdown::Both);
                    break;
                }
            }
            // The queue's end is the service's: its goodbye was the last message.
            let _ = socket.shutdown(Shutdown::Write);
            writing.fetch_sub(1, Ordering::AcqRel);
        });
        if spawned.is_err() {
            self.writing.fetch_sub(1, Ordering::AcqRel);
        }
        spawned
    }

    fn share(&self) -> Self {
        Self {
            visitors: Arc::clone(&self.visitors),
            crew: Arc::clone(&self.crew),
            wake: Arc::clone(&self.wake),
            writing: Arc::clone(&self.writing),
        }
    }
}

/// Why an attempt to link did not succeed.
enum Attempt {
    /// For good.
    Refused(String),
    /// Perhaps not the next time.
    Failed(String),
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        Attempt::Failed(error.to_string())
    }
}

fn reason(error: HandshakeError) -> String {
    match error {
        HandshakeError::Io(error) => error.to_string(),
        HandshakeError::Refused(refused) => refused.to_string(),
    }
}

/// Reads messages until the link ends, and reports an end without a goodbye.
fn read(hub: &Hub, node: u32, link: &mut Timed) {
    link.untimed();
    let mut frames = Frames::new(MAX_MESSAGE);
    let mut bye = false;
    loop {
        let message = match receive_message(link, &mut frames, false) {
            Ok(message) => message,
            Err(Error::Gone) => break,
            Err(error) => {
                if !bye && !hub.stopping() {
                    tracing::warn!(node, %error, "the link to a node was closed");
                }
                break;
            }
        };
        bye |= message == LinkMessage::Bye;
        if let Err(error) = hub.on_link_message(node, message) {
            tracing::warn!(node, %error, "the link to a node was closed");
            break;
        }
    }
    // The writer sees the end too.
    let _ = link.socket.shutdown(Shutdown::Both);
    if !bye {
        hub.link_lost(node);
    }
}

fn receive(link: &mut Timed, frames: &mut Frames) -> Result<Vec<u8>, Error> {
    receive_frame(link, frames, false)
}

fn receive_message(
    link: &mut Timed,
    frames: &mut Frames,
    bytewise: bool,
) -> Result<LinkMessage, Error> {
    match wire::decode(&receive_frame(link, frames, bytewise)?)? {
        (0, message) => Ok(message),
        (got, _) => Err(Malformed::Files { expected: 0, got }.into()),
    }
}

/// The next frame. `bytewise` takes no byte beyond it from the socket.
fn receive_frame(link: &mut Timed, frames: &mut Frames, bytewise: bool) -> Result<Vec<u8>, Error> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let next = frames.next().map_err(|e| Malformed::Frame(e.to_string()))?;
        if let Some(body) = next {
            return Ok(body);
        }
        let room = if bytewise { 1 } else { buffer.len() };
        match link.read(&mut buffer[..room]) {
            Ok(0) => return Err(Error::Gone),
            Ok(got) => frames.push(&buffer[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(Error::Gone);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(Error::Late),
            Err(error) => return Err(Error::io("recv", &error)),
        }
    }
}

/// Whether a message left.
fn send(link: &mut Timed, message: &LinkMessage) -> bool {
    wire::encode(message, 0).is_ok_and(|body| link.write_all(&frame(&body)).is_ok())
}

/// A stream whose reads and writes all end before one deadline, however slowly bytes trickle.
struct Timed {
    socket: Arc<TcpStream>,
    deadline: Option<Instant>,
}

impl Timed {
    fn new(socket: Arc<TcpStream>) -> Self {
        // Small messages must not wait for the acknowledgement of the one before.
        let _ = socket.set_nodelay(true);
        Self {
            socket,
            deadline: Some(Instant::now() + DEADLINE),
        }
    }

    /// From here on reads wait as long as it takes.
    fn untimed(&mut self) {
        self.deadline = None;
        if let Err(error) = self.socket.set_read_timeout(None) {
            tracing::error!(%error, "a link keeps its time-out");
        }
    }

    /// Hands the time left to `set`; with no deadline there is nothing to set any more.
    fn limit(&self, set: impl Fn(Option<Duration>) -> io::Result<()>) -> io::Result<()> {
        let Some(deadline) = self.deadline else {
            return Ok(());
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // A time-out of zero would mean none at all.
        if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            set(Some(left))
        }
    }
}

/// The kernel reports a socket's time-out as "would block".
fn named<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit(|left| self.socket.set_read_timeout(left))?;
        named((&*self.socket).read(buffer))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit(|left| self.socket.set_write_timeout(left))?;
        named((&*self.socket).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
