//! A bare TCP connection between origin and target: the yardstick of routes between nodes, and how a target that computes is
//! told to stop.

use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use windlass::{Rank, World};
use windlass_launcher::measure::Options;

use crate::job::{self, Failure};
use crate::measure::is_origin;

/// Of one reading, so that it takes about ten milliseconds.
const ROUND_TRIPS: u32 = 500;
/// A stream of so many bytes is timed at least.
const STREAM_BYTES: usize = 16 << 20;
const WORD: usize = 8;

/// What the rank at the other end of a round trip does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responder {
    /// It asks its socket again and again.
    Spins,
    /// It sleeps in the system call.
    Sleeps,
}

/// The connection.
pub struct Wire<'a> {
    world: &'a World,
    /// Of origin and target.
    stream: Option<TcpStream>,
    is_origin: bool,
}

impl<'a> Wire<'a> {
    /// `None` for a rank and itself. Collective.
    pub fn new(world: &'a World, options: &Options) -> Result<Option<Self>, Failure> {
        if options.origin == options.target {
            return Ok(None);
        }
        let is_origin = is_origin(world, options);
        let listener = match is_origin {
            true => Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?),
            false => None,
        };
        let port = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let port = port.map_or(0, |address| address.port());
        let port = job::share(world, Rank(options.origin), vec![port])?[0];
        let stream = match listener {
            Some(listener) => Some(listener.accept()?.0),
            None if world.rank().0 == options.target => {
                Some(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)
            }
            None => None,
        };
        if let Some(stream) = &stream {
            stream.set_nodelay(true)?;
        }
        Ok(Some(Self {
            world,
            stream,
            is_origin,
        }))
    }

    /// A word there and one back. Collective; the time is the origin's.
    pub fn round_trip(&self, responder: Responder) -> Result<f64, Failure> {
        self.world.barrier()?;
        let mut each = 0.0;
        if let Some(stream) = &self.stream {
            let spins = self.is_origin || responder == Responder::Spins;
            stream.set_nonblocking(spins)?;
            let word = [7; WORD];
            let began = Instant::now();
            for _ in 0..ROUND_TRIPS {
                if self.is_origin {
                    send(stream, &word)?;
                    take(stream, &mut [0; WORD])?;
                } else {
                    take(stream, &mut [0; WORD])?;
                    send(stream, &word)?;
                }
            }
            each = began.elapsed().as_secs_f64() / f64::from(ROUND_TRIPS);
        }
        self.world.barrier()?;
        Ok(each)
    }

    /// Messages of `size` bytes one after another, and an answer when all have arrived. Collective; the time of one message
    /// is the origin's.
    pub fn stream(&self, size: usize) -> Result<f64, Failure> {
        let messages = (STREAM_BYTES / size).clamp(1, 10_000);
        self.world.barrier()?;
        let mut each = 0.0;
        if let Some(stream) = &self.stream {
            stream.set_nonblocking(false)?;
            let mut memory = vec![3; size];
            let began = Instant::now();
            for _ in 0..messages {
                if self.is_origin {
                    send(stream, &memory)?;
                } else {
                    take(stream, &mut memory)?;
                }
            }
            if self.is_origin {
                take(stream, &mut [0])?;
            } else {
                send(stream, &[1])?;
            }
            each = began.elapsed().as_secs_f64() / messages as f64;
        }
        self.world.barrier()?;
        Ok(each)
    }

    /// The target computes until [`release`](Self::release): it makes no call of the library.
    pub(crate) fn compute(&self) -> Result<(), Failure> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        stream.set_nonblocking(true)?;
        let mut number = 1_u64;
        loop {
            for _ in 0..20_000 {
                number = black_box(
                    number
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1),
                );
            }
            match (&*stream).read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(1) => return Ok(()),
                Ok(_) => return Err("the origin is gone".into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the target's work.
    pub(crate) fn release(&self) -> Result<(), Failure> {
        self.stream
            .as_ref()
            .map_or(Ok(()), |stream| send(stream, &[1]))
    }
}

/// Sends all of it, however often the socket is full.
fn send(mut stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives all of it, however often there is nothing.
fn take(mut stream: &TcpStream, mut bytes: &mut [u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match stream.read(bytes) {
            Ok(0) => return Err("the other end of the raw connection is gone".into()),
            Ok(got) => bytes = &mut bytes[got..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
