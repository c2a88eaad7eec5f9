//! Transfers between layouts: what is not one run on both sides.
//!
//! Origin memory is a [`Side`]: a range of bytes and where the layout's offset 0 lies in it. The
//! pieces of both layouts are walked together, so nothing is packed on the way of a put or get;
//! the accumulate family gathers operands in chunks, because a target run may be many origin runs.
//! Everything is checked before the first byte moves (mpi-rma 7).

use windlass_mem::{SharedBytes, sync};
use windlass_runtime as runtime;
use windlass_runtime::update::Kind;
use windlass_runtime::{Pending, Route, update};

use crate::core::{Core, Reach, Status};
use crate::dynamic::Found;
use crate::error::{Error, Result};
use crate::layout::{Counted, Layout, LayoutError, Signature};
use crate::op::Op;
use crate::world::Rank;

/// Bytes of operands or results that are gathered at once: a multiple of every element's size.
const CHUNK_BYTES: usize = 4096;

/// Memory of this process as one side of a transfer.
pub(crate) struct Side<'a> {
    /// What buffer it is, for errors.
    pub(crate) what: &'static str,
    pub(crate) bytes: SharedBytes,
    /// Where in `bytes` the layout's offset 0 lies.
    pub(crate) origin: i128,
    pub(crate) data: Counted<'a>,
}

/// The other side: data in a target's part.
pub(crate) struct There<'a> {
    pub(crate) target: Rank,
    pub(crate) reach: Found<'a>,
    /// Where in the part the layout's offset 0 lies.
    pub(crate) disp: i128,
    pub(crate) data: Counted<'a>,
}

impl Side<'_> {
    /// Where in the memory the layout's `offset` lies. Checked before: no overflow.
    fn at(&self, offset: i64) -> usize {
        (self.origin + i128::from(offset)) as usize
    }
}

impl There<'_> {
    fn at(&self, offset: i64) -> usize {
        (self.disp + i128::from(offset)) as usize
    }
}

impl Core {
    /// A layout that cannot be, or a count of it.
    #[cold]
    #[track_caller]
    pub(crate) fn bad_layout(&self, call: &'static str, source: LayoutError) -> Error {
        Error::Layout {
            source,
            at: Box::new(self.site(call)),
        }
    }

    /// `count` of a layout.
    #[track_caller]
    pub(crate) fn times<'a>(
        &self,
        call: &'static str,
        layout: &'a Layout,
        count: u64,
    ) -> Result<Counted<'a>> {
        match layout.times(count) {
            Ok(counted) => Ok(counted),
            Err(error) => Err(self.bad_layout(call, error)),
        }
    }

    #[track_caller]
    fn check_side(&self, call: &'static str, side: &Side<'_>) -> Result<()> {
        let (layout, count) = (side.data.layout(), side.data.count());
        let len = side.bytes.len() as u64;
        if layout.fits(side.origin, count, len) {
            return Ok(());
        }
        let touched = layout.bounds(count).unwrap_or(0..0);
        Err(Error::Buffer {
            what: side.what,
            first: touched.start + side.origin,
            end: touched.end + side.origin,
            len,
            at: Box::new(self.site(call)),
        })
    }

    #[track_caller]
    pub(crate) fn check_there(&self, call: &'static str, there: &There<'_>) -> Result<()> {
        let (layout, count) = (there.data.layout(), there.data.count());
        if layout.fits(there.disp, count, there.reach.bytes) {
            return Ok(());
        }
        let touched = layout.bounds(count).unwrap_or(0..0);
        Err(Error::Range {
            target: there.target.0,
            first: touched.start.saturating_add(there.disp),
            end: touched.end.saturating_add(there.disp),
            extent: there.reach.bytes,
            at: Box::new(self.site(call)),
        })
    }

    /// Data of signature `sent` must fit the receiving side (mpi-rma 3, Arguments).
    #[track_caller]
    fn check_types(
        &self,
        call: &'static str,
        sent: &Counted<'_>,
        received: &Counted<'_>,
    ) -> Result<()> {
        // Elements of one kind on both sides are the rule.
        let fits = match (sent.layout().homogeneous(), received.layout().homogeneous()) {
            (Some(a), Some(b)) => a == b && sent.elements() <= received.elements(),
            _ => Signature::is_prefix_of(&sent.signature(), &received.signature()),
        };
        if fits || sent.elements() == 0 {
            return Ok(());
        }
        Err(Error::Type {
            what: format!(
                "{} x {} does not fit into {} x {}",
                sent.count(),
                sent.layout(),
                received.count(),
                received.layout()
            ),
            at: Box::new(self.site(call)),
        })
    }

    /// Copies the data of `from` to `to`. What still runs on return uses the origin's memory.
    #[track_caller]
    pub(crate) fn put_derived(
        &self,
        call: &'static str,
        from: &Side<'_>,
        to: &There<'_>,
    ) -> Result<Vec<Pending>> {
        self.check_there(call, to)?;
        self.check_side(call, from)?;
        self.check_types(call, &from.data, &to.data)?;
        let moved = match &to.reach.route {
            Route::Mapped(part) => {
                let moved = copy(part, |at| to.at(at), &to.data, from, true);
                sync::stored();
                moved.map(|()| Vec::new())
            }
            Route::Posted(posted) => {
                self.enter(Status::Put);
                pieces(from, to, |offset, piece| posted.start_put(offset, &piece))
            }
        };
        self.sent(call, to.target, moved)
    }

    /// Copies the data of `from` to `to`, this process's memory.
    #[track_caller]
    pub(crate) fn get_derived(
        &self,
        call: &'static str,
        to: &Side<'_>,
        from: &There<'_>,
    ) -> Result<Vec<Pending>> {
        self.check_there(call, from)?;
        self.check_side(call, to)?;
        self.check_types(call, &from.data, &to.data)?;
        let moved = match &from.reach.route {
            Route::Mapped(part) => {
                sync::pay();
                copy(part, |at| from.at(at), &from.data, to, false).map(|()| Vec::new())
            }
            Route::Posted(posted) => {
                self.enter(Status::Get);
                pieces(to, from, |offset, piece| posted.start_get(offset, &piece))
            }
        };
        self.sent(call, from.target, moved)
    }

    /// The kind of all elements of a layout that the accumulate family is to update.
    #[track_caller]
    pub(crate) fn kind_of(&self, call: &'static str, layout: &Layout) -> Result<Kind> {
        let basic = layout.homogeneous();
        match basic.and_then(|basic| basic.kind()) {
            Some(kind) => Ok(kind),
            None => Err(Error::Type {
                what: format!("{layout} is not made of elements of one predefined type"),
                at: Box::new(self.site(call)),
            }),
        }
    }

    /// `result = t`, `t = t op o` for each element, in the layouts' order. Without `result` an
    /// accumulate; `operand` is not looked at for [`Op::NoOp`]. Layouts are
    /// [with padding](Layout::with_padding): elements are updated whole.
    #[track_caller]
    pub(crate) fn update_derived(
        &self,
        call: &'static str,
        (kind, op): (Kind, Op),
        operand: Option<&Side<'_>>,
        result: Option<&Side<'_>>,
        there: &There<'_>,
    ) -> Result<()> {
        self.check_there(call, there)?;
        for side in operand.iter().chain(&result) {
            self.check_side(call, side)?;
            self.check_types(call, &side.data, &there.data)?;
            if side.data.elements() != there.data.elements() {
                let (got, want) = (side.data.elements(), there.data.elements());
                return Err(self.bad_count(call, side.what, got as usize, want as usize));
            }
        }
        let (mut operands, mut results) = ([0; CHUNK_BYTES], [0; CHUNK_BYTES]);
        let mut position = 0;
        for (offset, len) in there.data.runs() {
            let mut done = 0;
            while done < len {
                let now = (len - done).min(CHUNK_BYTES as u64) as usize;
                let (o, r) = (&mut operands[..now], &mut results[..now]);
                if let Some(side) = operand {
                    let read = side
                        .data
                        .pack(position, o, |at, out| side.bytes.read(side.at(at), out));
                    // In bounds by the check above.
                    let _ = read;
                }
                let at = there.at(offset) + done as usize;
                let o = if operand.is_some() { &*o } else { &[] };
                let fetched = result.is_some().then_some(&mut *r);
                self.update_at(
                    call,
                    (there.target, &*there.reach, at),
                    (kind, op),
                    o,
                    fetched,
                )?;
                if let Some(side) = result {
                    let written = side.data.unpack(position, r, |at, packed| {
                        side.bytes.write(side.at(at), packed)
                    });
                    let _ = written;
                }
                position += now as u64;
                done += now as u64;
            }
        }
        Ok(())
    }

    /// One contiguous update by the target's unit of atomicity.
    #[track_caller]
    pub(crate) fn update_at(
        &self,
        call: &'static str,
        (target, reach, offset): (Rank, &Reach, usize),
        (kind, op): (Kind, Op),
        operand: &[u8],
        fetched: Option<&mut [u8]>,
    ) -> Result<()> {
        match &reach.atomics {
            Route::Mapped(bytes) => {
                match update::apply(bytes, offset, kind, op.update(), operand, fetched) {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.refused(call, target, error)),
                }
            }
            Route::Posted(posted) => {
                self.enter(Status::Update);
                let done = posted.update(offset as u64, kind, op.update(), operand, fetched);
                self.sent(call, target, done)
            }
        }
    }
}

/// Copies the pieces of both sides by load and store; `put`: from the origin's memory to the part.
fn copy(
    part: &SharedBytes,
    there: impl Fn(i64) -> usize,
    data: &Counted<'_>,
    side: &Side<'_>,
    put: bool,
) -> runtime::Result<()> {
    for (here, at, len) in side.data.zip(data) {
        let (here, at, len) = (side.at(here), there(at), len as usize);
        let moved = if put {
            part.copy(at, &side.bytes, here, len)
        } else {
            side.bytes.copy(here, part, at, len)
        };
        moved.map_err(|error| runtime::Error::Update(error.to_string()))?;
    }
    Ok(())
}

/// Hands the pieces of both sides to an engine: the offset there, and the memory here.
fn pieces(
    side: &Side<'_>,
    there: &There<'_>,
    mut begin: impl FnMut(u64, SharedBytes) -> runtime::Result<Pending>,
) -> runtime::Result<Vec<Pending>> {
    let mut running = Vec::new();
    for (here, at, len) in side.data.zip(&there.data) {
        let piece = side.bytes.slice(side.at(here), len as usize);
        let piece = piece.map_err(|error| runtime::Error::Update(error.to_string()))?;
        match begin(there.at(at) as u64, piece) {
            Ok(pending) if pending.is_over() => {}
            Ok(pending) => running.push(pending),
            Err(error) => {
                // What was begun uses memory that may go with the error.
                for pending in running {
                    let _ = pending.wait();
                }
                return Err(error);
            }
        }
    }
    Ok(running)
}
