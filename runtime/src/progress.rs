//! The one helper thread of a rank, and what every wait looks at.
//!
//! The helper sleeps in `poll` on the life pipe and on whatever the mechanisms serve; a target
//! that computes without a call is served by it (measured-designs 6). While the application
//! itself waits inside the runtime, its own thread drives the engines and the helper stays out
//! of the way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use windlass_mem::sync::{self, Patience};

use crate::error::{Error, Result};
use crate::mechanism::Serve;

/// How long the helper leaves ready work to an application thread that is inside a wait.
const STAND_BACK: Duration = Duration::from_millis(1);

/// After a request the helper polls this long, if requests follow each other closely.
const SPIN: Duration = Duration::from_micros(50);

/// "Closely": the mean gap of the last requests (measured-designs 6).
const CLOSE_GAP_NS: u64 = 20_000;

/// State of the job that every wait of this process consults.
#[derive(Default)]
pub struct Health {
    oversubscribed: AtomicBool,
    /// Application threads inside a wait that drives the engines.
    inside: AtomicU64,
    /// Set when the helper sleeps until `inside` is 0.
    stood_back: AtomicU64,
    lost: OnceLock<String>,
}

/// An application thread is inside a wait while this lives.
pub struct Inside<'a>(&'a Health);

impl Health {
    /// More ranks than cpus on this host: waits give the cpu away early.
    pub fn set_oversubscribed(&self, yes: bool) {
        self.oversubscribed.store(yes, Ordering::Relaxed);
    }

    /// See [`set_oversubscribed`](Self::set_oversubscribed).
    pub fn oversubscribed(&self) -> bool {
        self.oversubscribed.load(Ordering::Relaxed)
    }

    /// How a wait polls, yields and then sleeps.
    pub fn patience(&self) -> Patience {
        Patience::new(self.oversubscribed())
    }

    /// The job is over: every wait ends with this reason.
    pub fn lose(&self, why: &str) {
        let _ = self.lost.set(why.to_owned());
    }

    /// # Errors
    /// [`Error::JobLost`] after [`lose`](Self::lose).
    pub fn check(&self) -> Result<()> {
        match self.lost.get() {
            None => Ok(()),
            Some(why) => Err(Error::JobLost(why.clone())),
        }
    }

    /// Marks the calling thread as driving the engines itself.
    pub fn inside(&self) -> Inside<'_> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        Inside(self)
    }

    fn stand_back(&self) {
        let until = Instant::now() + STAND_BACK;
        // Ends when the application leaves its wait, or at the bound: a wait that sleeps in the
        // engine needs the helper no more than one that polls, but a stuck one must not matter.
        let _: Result<u64, ()> = sync::wait(
            &self.inside,
            &self.stood_back,
            true,
            |inside| inside == 0 || Instant::now() >= until,
            || {
                if Instant::now() >= until {
                    Err(())
                } else {
                    Ok(())
                }
            },
        );
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            sync::wake(&self.0.inside, &self.0.stood_back);
        }
    }
}

/// The running helper thread; dropping it ends the thread.
pub struct Helper {
    stop: Option<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Helper {
    /// Starts it. `life` is the launcher's pipe: its end of file ends this process.
    ///
    /// # Errors
    /// The system refuses a pipe or a thread.
    pub fn start(
        health: Arc<Health>,
        life: Option<OwnedFd>,
        served: Vec<Arc<dyn Serve>>,
    ) -> std::io::Result<Helper> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new()
            .name("windlass-helper".into())
            .spawn(move || serve(&health, life, &served, &stopped))?;
        Ok(Helper {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(health: &Health, life: Option<OwnedFd>, served: &[Arc<dyn Serve>], stopped: &OwnedFd) {
    let mut gap_ns: u64 = u64::MAX / 2;
    let mut last = Instant::now();
    loop {
        let mut fds = vec![PollFd::new(stopped, PollFlags::IN)];
        fds.extend(
            served
                .iter()
                .map(|server| PollFd::from_borrowed_fd(server.fd(), PollFlags::IN)),
        );
        if let Some(life) = &life {
            fds.push(PollFd::from_borrowed_fd(life.as_fd(), PollFlags::IN));
        }
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[0].revents().is_empty() {
            return;
        }
        let launcher_gone = life.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        if launcher_gone {
            leave_at_once();
        }
        if health.inside.load(Ordering::SeqCst) > 0 {
            health.stand_back();
        }
        if served.iter().any(|server| server.step()) {
            let gap = u64::try_from(last.elapsed().as_nanos()).unwrap_or(u64::MAX);
            gap_ns = (gap_ns / 4).saturating_mul(3).saturating_add(gap / 4);
            last = Instant::now();
            if gap_ns < CLOSE_GAP_NS {
                spin(served, &mut last);
            }
        }
    }
}

fn spin(served: &[Arc<dyn Serve>], last: &mut Instant) {
    while last.elapsed() < SPIN {
        if served.iter().any(|server| server.step()) {
            *last = Instant::now();
        }
        std::hint::spin_loop();
    }
}

/// The launcher is gone: nobody would clean up after us, so nothing may be left running.
fn leave_at_once() -> ! {
    eprintln!("windlass: the launcher has gone; this rank ends");
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

/// Sleeps until `fd` is readable, at most `at_most`: how engines with a descriptor idle.
pub fn idle_on(fd: std::os::fd::BorrowedFd<'_>, at_most: Duration) {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: at_most.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    let _ = poll(&mut fds, Some(&timeout));
}
