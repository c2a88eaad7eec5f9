//! One DMA transfer by VEHVA: checked whole, then executed at once or in parts (ve-memory.md sections 9.2 to 9.4).

use std::sync::{PoisonError, RwLock};

use crate::addr::{PageSize, Vehva};
use crate::dma::{ALIGN, Dma, LENGTH_END};
use crate::fault::{Access, Fault, FaultKind};
use crate::fixed::SYSTEM_CALL_PAGE;
use crate::modes::Rule;
use crate::translate::{Piece, Table};

/// What a descriptor says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transfer {
    pub(crate) dst: Vehva,
    pub(crate) src: Vehva,
    pub(crate) len: u32,
}

impl Transfer {
    /// True if an end lies in `[start, start + len)`.
    pub(crate) fn touches(&self, start: Vehva, len: u64) -> bool {
        let here = u64::from(self.len);
        let meets = |at: Vehva| {
            let (at, start) = (at.raw(), start.raw());
            at < start.saturating_add(len) && start < at.saturating_add(here)
        };
        meets(self.dst) || meets(self.src)
    }

    /// True if source and destination share bytes: undefined (section 9.2).
    pub(crate) fn overlaps(&self) -> bool {
        let (dst, src) = (self.dst.raw(), self.src.raw());
        dst.abs_diff(src) < u64::from(self.len)
    }

    /// The part `[offset, offset + len)` of it.
    pub(crate) fn part(&self, offset: u32, len: u32) -> Self {
        let at = |start: Vehva| start.checked_add(u64::from(offset)).unwrap_or(start);
        Self {
            dst: at(self.dst),
            src: at(self.src),
            len,
        }
    }

    /// Alignment and length, as the engine sees them.
    fn check_form(&self) -> Result<(), Fault> {
        let misaligned = |at: Vehva| !at.raw().is_multiple_of(ALIGN);
        let refused = |at, access| {
            Err(Fault {
                kind: FaultKind::MemoryAccess,
                at,
                access,
            })
        };
        if misaligned(self.src) {
            return refused(self.src, Access::Read);
        }
        let odd = u64::from(self.len) % ALIGN != 0;
        if misaligned(self.dst) || odd || self.len >= LENGTH_END {
            return refused(self.dst, Access::Write);
        }
        Ok(())
    }

    /// What a program that looks for its mistake is told of a fault of the execution: that an address is none. The form has rules
    /// of its own.
    pub(crate) fn blame(&self, fault: Fault, call: &'static str) -> Option<Rule> {
        if fault.kind == FaultKind::Io || self.check_form().is_err() {
            return None;
        }
        let start = match fault.access {
            Access::Read => self.src,
            Access::Write => self.dst,
        };
        Some(Rule::Unreached {
            call,
            start,
            len: self.len,
            fault,
        })
    }

    /// Everything that can refuse it, before a byte moves. Length 0 completes without a transfer, whatever its addresses (section 9.3).
    pub(crate) fn check(&self, table: &RwLock<Table>, strict: bool) -> Result<(), Fault> {
        self.check_form()?;
        if self.len == 0 {
            return Ok(());
        }
        self.check_ranges(
            &table.read().unwrap_or_else(PoisonError::into_inner),
            strict,
        )
    }

    fn check_ranges(&self, table: &Table, strict: bool) -> Result<(), Fault> {
        let len = self.len as usize;
        let from_remote = table.check(self.src, len, Access::Read)?;
        let to_remote = table.check(self.dst, len, Access::Write)?;
        if strict && from_remote && to_remote {
            // Both ends on other VEs: undocumented (section 9.2).
            return Err(Fault {
                kind: FaultKind::Io,
                at: self.dst,
                access: Access::Write,
            });
        }
        Ok(())
    }

    /// Checks it whole, then executes it.
    #[inline]
    pub(crate) fn execute(&self, table: &RwLock<Table>, strict: bool) -> Result<(), Fault> {
        self.check_form()?;
        let left = self.len as usize;
        if left == 0 {
            return Ok(());
        }
        let table = table.read().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(from), Ok(to)) = (
            table.piece(self.src, left, Access::Read),
            table.piece(self.dst, left, Access::Write),
        ) && from.len == left
            && to.len == left
            && !strict
        {
            return copy(&to, &from, left, self.dst);
        }
        self.check_ranges(&table, strict)?;
        self.move_bytes(&table)
    }

    /// Executes what was checked before, unless its entries have gone meanwhile.
    pub(crate) fn move_checked(&self, table: &RwLock<Table>) -> Result<(), Fault> {
        self.move_bytes(&table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn move_bytes(&self, table: &Table) -> Result<(), Fault> {
        let (mut dst, mut src, mut left) = (self.dst, self.src, self.len as usize);
        while left > 0 {
            let from = table.piece(src, left, Access::Read)?;
            let to = table.piece(dst, left, Access::Write)?;
            let part = from.len.min(to.len);
            copy(&to, &from, part, dst)?;
            left -= part;
            src = src.checked_add(part as u64).unwrap_or(src);
            dst = dst.checked_add(part as u64).unwrap_or(dst);
        }
        Ok(())
    }
}

/// The page of system-call arguments is mapped, and no program's (section 2.2).
fn is_of_system_calls(vehva: Vehva) -> bool {
    vehva.raw() - SYSTEM_CALL_PAGE.raw() < PageSize::K4.bytes()
}

impl Dma {
    /// The rules for a descriptor that nobody checks (section 9.2).
    pub(crate) fn check_transfer(&self, transfer: Transfer) {
        let Some(trap) = self.trap() else { return };
        let Transfer { dst, src, len } = transfer;
        if !dst.raw().is_multiple_of(ALIGN) || !src.raw().is_multiple_of(ALIGN) {
            trap.spring(Rule::Misaligned { dst, src });
        }
        if u64::from(len) % ALIGN != 0 || len >= LENGTH_END {
            trap.spring(Rule::Length { len });
        }
        if transfer.overlaps() {
            trap.spring(Rule::Overlap { dst, src, len });
        }
        if len > 0 {
            self.check_store(dst);
            if is_of_system_calls(src) {
                trap.spring(Rule::SystemCallSource { vehva: src });
            }
        }
    }

    /// VEHVA 0 is mapped, and no program's.
    pub(crate) fn check_store(&self, vehva: Vehva) {
        if let Some(trap) = self.trap().filter(|_| is_of_system_calls(vehva)) {
            trap.spring(Rule::SystemCallPage { vehva });
        }
    }
}

/// Copies within two entries. Aligned units of 4 and 8 bytes are never torn (section 9.4).
fn copy(to: &Piece<'_>, from: &Piece<'_>, len: usize, at: Vehva) -> Result<(), Fault> {
    let (to_bytes, from_bytes) = (&to.entry.bytes, &from.entry.bytes);
    let unit = |width: usize| len == width && (to.offset | from.offset).is_multiple_of(width);
    let outcome = if unit(8) {
        let mut word = [0; 8];
        from_bytes
            .read(from.offset, &mut word)
            .and_then(|()| to_bytes.write(to.offset, &word))
    } else if unit(4) {
        let mut word = [0; 4];
        from_bytes
            .read(from.offset, &mut word)
            .and_then(|()| to_bytes.write(to.offset, &word))
    } else {
        to_bytes.copy(to.offset, from_bytes, from.offset, len)
    };
    // The table said both ranges are there: a refusal means the memory is not what the entry says.
    outcome.map_err(|_| Fault {
        kind: FaultKind::Io,
        at,
        access: Access::Write,
    })
}
