//! Two network namespaces and the line between them, which delays and loses packets and can be cut.
//!
//! The kernel's own emulation of bad lines is a module that many machines lack. So each end of the line is a network device
//! whose packets this process gets, and hands over when they are due.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::data::Random;
use super::leaks::{self, Alone};

/// The network of both ends, for `WINDLASS_NETWORK`.
pub const NETWORK: &str = "10.83.7.0/24";
/// Tells ranks the names of the namespaces, without their last letter.
pub const VARIABLE: &str = "WLTEST_LINE";

const ENDS: [(&str, &str); 2] = [("a", "10.83.7.1/24"), ("b", "10.83.7.2/24")];
const DEVICE: &str = "wlline";
/// Longer than any packet of the devices.
const PACKET_BYTES: usize = 2048;

/// What the line does.
#[derive(Default)]
struct Control {
    cut: AtomicBool,
    stop: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
}

/// The namespaces, until it is dropped.
pub struct Line {
    prefix: String,
    control: Arc<Control>,
    carrier: Option<JoinHandle<()>>,
    /// What it opens would look like a leak of the test beside it. Released last.
    _alone: Alone,
}

impl Line {
    /// A line that takes `delay` each way and loses one packet in `lost_of`, none with 0.
    ///
    /// # Errors
    /// What this machine or user lacks for it.
    pub fn new(name: &str, delay: Duration, lost_of: usize) -> Result<Line, String> {
        let mut line = Line {
            prefix: format!("wl{}{name}-", std::process::id()),
            control: Arc::default(),
            carrier: None,
            _alone: leaks::alone(),
        };
        let mut devices = Vec::new();
        for (end, address) in ENDS {
            let name = line.end(end);
            ip(&["netns", "add", &name])?;
            devices.push(device(&name)?);
            let inside = |words: &[&str]| ip(&[&["-n", &name], words].concat());
            inside(&["addr", "add", address, "dev", DEVICE])?;
            inside(&["link", "set", DEVICE, "up"])?;
            inside(&["link", "set", "lo", "up"])?;
        }
        let control = Arc::clone(&line.control);
        let carry = move || carry(&devices, &control, delay, lost_of);
        line.carrier = Some(std::thread::spawn(carry));
        Ok(line)
    }

    /// What ranks need to [`enter`].
    pub fn name(&self) -> &str {
        &self.prefix
    }

    fn end(&self, end: &str) -> String {
        format!("{}{end}", self.prefix)
    }

    /// Cuts the line, or mends it.
    pub fn cut(&self, cut: bool) {
        self.control.cut.store(cut, Ordering::SeqCst);
    }

    /// Packets that were carried, and those that were lost.
    pub fn counts(&self) -> (u64, u64) {
        let Control { carried, lost, .. } = &*self.control;
        (carried.load(Ordering::SeqCst), lost.load(Ordering::SeqCst))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::SeqCst);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
        for (end, _) in ENDS {
            let _ = ip(&["netns", "del", &self.end(end)]);
        }
    }
}

/// Puts this thread, and those it starts, at an end of the line that the environment names.
pub fn enter(end: u32) -> Result<(), super::Failure> {
    let prefix = std::env::var(VARIABLE)?;
    let (end, _) = ENDS[end as usize];
    Ok(join(&format!("{prefix}{end}"))?)
}

fn join(name: &str) -> std::io::Result<()> {
    let space = File::open(format!("/run/netns/{name}"))?;
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output();
    let output = output.map_err(|why| format!("`ip` of iproute2 cannot be run: {why}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "`ip {}`: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// A device in that namespace, whose packets go through the descriptor.
fn device(namespace: &str) -> Result<OwnedFd, String> {
    let namespace = namespace.to_owned();
    // A thread of its own: it stays where it went.
    let made = std::thread::spawn(move || -> std::io::Result<OwnedFd> {
        join(&namespace)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let mut request = Request {
            name: [0; 16],
            flags: Request::TUN | Request::NO_INFORMATION,
            rest: [0; 22],
        };
        request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
        // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `Request` is laid out as.
        unsafe {
            let set = rustix::ioctl::Setter::<{ Request::SET }, Request>::new(request);
            rustix::ioctl::ioctl(&device, set)?;
        }
        Ok(device)
    });
    let made = made.join().map_err(|_| "a thread panicked".to_owned())?;
    made.map_err(|why| format!("no network device of one's own: {why}"))
}

/// `struct ifreq` (netdevice(7)).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

impl Request {
    /// TUNSETIFF of linux/if_tun.h.
    const SET: rustix::ioctl::Opcode = 0x4004_54ca;
    const TUN: u16 = 1;
    const NO_INFORMATION: u16 = 0x1000;
}

/// Carries packets until it is told to stop.
fn carry(devices: &[OwnedFd], control: &Control, delay: Duration, lost_of: usize) {
    let mut random = Random::new(83);
    let mut due: VecDeque<(Instant, usize, Vec<u8>)> = VecDeque::new();
    let mut packet = vec![0; PACKET_BYTES];
    while !control.stop.load(Ordering::SeqCst) {
        let now = Instant::now();
        while due.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, to, packet)) = due.pop_front() else {
                break;
            };
            // What the device does not take is lost, as on any line.
            let _ = rustix::io::write(&devices[to], &packet);
        }
        let wait = due.front().map_or(Duration::from_millis(20), |(at, ..)| {
            at.saturating_duration_since(Instant::now())
        });
        let wait = Timespec::try_from(wait).ok();
        let mut ready = [&devices[0], &devices[1]].map(|fd| PollFd::new(fd, PollFlags::IN));
        let _ = poll(&mut ready, wait.as_ref());
        for (from, device) in devices.iter().enumerate() {
            loop {
                match rustix::io::read(device, &mut packet) {
                    Ok(len)
                        if control.cut.load(Ordering::SeqCst)
                            || (lost_of > 0 && random.one_in(lost_of)) =>
                    {
                        let _ = len;
                        control.lost.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(len) => {
                        control.carried.fetch_add(1, Ordering::SeqCst);
                        due.push_back((Instant::now() + delay, 1 - from, packet[..len].to_vec()));
                    }
                    Err(why) if why.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
    }
}
