//! Messages that arrive: their receives, posted or of a shared queue, and the windows that end with them (udapl.md
//! section 4.7).

use crate::link::Arriving;
use crate::lmr::Refused;
use crate::model::DtoStatus;
use crate::serve::{End, Server};
use crate::wire::Header;

impl Server<'_> {
    /// A send of the peer waits for a receive of a shared queue.
    pub(crate) fn want(&mut self) -> Result<(), End> {
        let srq = self.ep.srq.and_then(|srq| self.srqs.get_mut(srq));
        let srq = srq.ok_or(End::Protocol("asks for a receive that is not shared"))?;
        let promised = srq.ask(self.ep);
        let promised = promised.ok_or(End::Protocol("asks for a receive again"))?;
        self.link.advertise += u32::from(promised);
        self.link.owes |= promised;
        Ok(())
    }

    /// A message. The credits made sure that a receive is posted; one that comes without is a breach.
    pub(crate) fn send(&mut self, header: &Header) -> Result<(), End> {
        self.may_begin()?;
        if let Some(srq) = self.ep.srq.and_then(|srq| self.srqs.get_mut(srq)) {
            let receive = srq.take(self.ep);
            self.ep.receives.extend(receive);
        }
        let Some(receive) = self.ep.receives.front() else {
            return Err(End::Protocol("a send without a receive"));
        };
        if u64::from(header.len) > receive.iov.len() {
            self.ep.received(self.evds, DtoStatus::LocalLength, 0); // rule 8 of section 4.7
            return Err(End::Fault(DtoStatus::RemoteResponder));
        }
        let (pz, ep) = (self.ep.pz, self.ep.id.0);
        if header.context != 0 && !self.lmrs.may_invalidate(header.context, pz, ep) {
            return Err(Refused.into());
        }
        if header.len == 0 {
            self.message_landed(0, header.context);
            return Ok(());
        }
        self.link.arriving = Arriving::Send {
            len: header.len,
            done: 0,
            ends: header.context,
        };
        self.payload(header, false);
        Ok(())
    }

    /// A whole message is in memory.
    pub(crate) fn message_landed(&mut self, len: u32, ends: u32) {
        self.lmrs.unbind(ends);
        let owes = !self.ep.next_is_answered();
        self.ep
            .received_with(self.evds, DtoStatus::Success, len, ends);
        self.link.arriving = Arriving::Nothing;
        self.handled();
        self.link.owes = owes;
    }
}
