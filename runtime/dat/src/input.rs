//! What comes in on a connection: frames through a buffer of the adapter, long payload straight to where it belongs.

use rustix::io::Errno;

use crate::ia::Inner;
use crate::link::{Link, Phase};
use crate::serve::{End, Server};
use crate::slab::Id;
use crate::wire::HEADER;

/// Bytes of the adapter's input buffer.
pub(crate) const READ_SIZE: usize = 64 * 1024;
/// Reads of one socket in one step: no link keeps the others waiting longer.
const READS_PER_STEP: usize = 16;

impl Inner {
    /// Reads and handles what a link has, within its share of a step. True if there was anything.
    pub(crate) fn read(&mut self, id: Id, link: &mut Link) -> Result<bool, End> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut outcome = Ok(false);
        for _ in 0..READS_PER_STEP {
            match self.read_once(id, link, &mut scratch) {
                Ok(Got::Nothing) => break,
                Ok(Got::All) => {
                    outcome = Ok(true); // the socket is empty: no need to be told
                    break;
                }
                Ok(Got::Part) => outcome = Ok(true),
                Err(end) => {
                    outcome = Err(end);
                    break;
                }
            }
        }
        self.scratch = scratch;
        outcome
    }

    fn read_once(&mut self, id: Id, link: &mut Link, scratch: &mut [u8]) -> Result<Got, End> {
        let mut limit = scratch.len();
        if let Some(mut server) = self.server(link) {
            if let Some(got) = server.receive()? {
                return Ok(got);
            }
            if server.expects_payload() {
                // Only the next header: what follows it goes straight to its place.
                limit = HEADER;
            }
        }
        // What was left is less than a frame without payload or a handshake message.
        let kept = link.partial.len();
        let limit = limit.max(kept + 1);
        scratch[..kept].copy_from_slice(&link.partial);
        let got = match rustix::io::read(&link.socket, &mut scratch[kept..limit]) {
            Ok(0) => return Err(End::Closed),
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Got::Nothing),
            Err(_) => return Err(End::Closed),
        };
        link.partial.clear();
        let data = &scratch[..kept + got];
        let used = self.input(id, link, data)?;
        link.partial.extend_from_slice(&data[used..]);
        Ok(if data.len() < limit {
            Got::All
        } else {
            Got::Part
        })
    }

    /// The parts that frames of an established connection act on.
    fn server<'a>(&'a mut self, link: &'a mut Link) -> Option<Server<'a>> {
        if !matches!(link.phase, Phase::Data) {
            return None;
        }
        let Self {
            eps,
            lmrs,
            evds,
            srqs,
            ..
        } = self;
        let ep = link.ep.and_then(|ep| eps.get_mut(ep))?;
        Some(Server {
            link,
            ep,
            lmrs,
            evds,
            srqs,
        })
    }

    /// Handles input in whatever phase the link is, until it needs more.
    fn input(&mut self, id: Id, link: &mut Link, data: &[u8]) -> Result<usize, End> {
        let mut at = 0;
        loop {
            let rest = &data[at..];
            let used = match link.phase {
                Phase::Data => {
                    let mut server = self.server(link).ok_or(End::Done)?;
                    return server.input(rest).map(|used| at + used);
                }
                Phase::Drain { .. } => return Ok(data.len()),
                _ => self.greet(id, link, rest)?,
            };
            match used {
                Some(used) => at += used,
                None => return Ok(at),
            }
        }
    }
}

/// What a read brought.
pub(crate) enum Got {
    Nothing,
    /// As much as was asked for: there may be more.
    Part,
    /// All there was.
    All,
}
