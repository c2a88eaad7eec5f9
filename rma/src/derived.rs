//! Transfers between layouts: what is not one run on both sides.
//!
//! Origin memory is a [`Side`]: a range of bytes and where the layout's offset 0 lies in it. The
//! pieces of both layouts are walked together, so nothing is packed on the way of a put or get;
//! the accumulate family gathers operands in chunks, because a target run may be many origin runs.
//! Everything is checked before the first byte moves (mpi-rma 7).

use std::ops::ControlFlow;

use windlass_mem::{SharedBytes, Steps, sync};
use windlass_runtime as runtime;
use windlass_runtime::update::Kind;
use windlass_runtime::{Pending, Route};

use crate::core::{Core, Status};
use crate::dynamic::Found;
use crate::error::{Error, Result};
use crate::layout::{Counted, Layout, LayoutError, Signature, Strided};
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

    fn place(&self) -> Place<'_> {
        Place {
            bytes: &self.bytes,
            origin: self.origin,
            data: self.data,
        }
    }
}

impl<'a> There<'a> {
    /// The same as `part` of the target that is mapped here.
    fn place(&self, part: &'a SharedBytes) -> Place<'a> {
        Place {
            bytes: part,
            origin: self.disp,
            data: self.data,
        }
    }

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
                let moved = copy(&to.place(part), &from.place());
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
                copy(&to.place(), &from.place(part)).map(|()| Vec::new())
            }
            Route::Posted(posted) => {
                self.enter(Status::Get);
                pieces(to, from, |offset, piece| posted.start_get(offset, &piece))
            }
        };
        self.sent(call, from.target, moved)
    }

    /// The kind of all elements of a layout that the accumulate family is to update; `None` if
    /// there are no elements, and so nothing to do.
    #[track_caller]
    pub(crate) fn kind_of(&self, call: &'static str, layout: &Layout) -> Result<Option<Kind>> {
        let basic = layout.homogeneous();
        match basic.and_then(|basic| basic.kind()) {
            Some(kind) => Ok(Some(kind)),
            None if layout.elements() == 0 => Ok(None),
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
        self.check_operator(call, (kind, op), result.is_some())?;
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
                if let Some(side) = result
                    && kind.is_padded()
                {
                    // The padding stays as it is (mpi-rma 3).
                    let read = side
                        .data
                        .pack(position, r, |at, out| side.bytes.read(side.at(at), out));
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
}

/// Memory that this process can load and store, as one side of a copy.
struct Place<'a> {
    bytes: &'a SharedBytes,
    /// Where in `bytes` the layout's offset 0 lies.
    origin: i128,
    data: Counted<'a>,
}

impl Place<'_> {
    /// As [`Side::at`].
    fn at(&self, offset: i64) -> usize {
        (self.origin + i128::from(offset)) as usize
    }

    fn steps(&self, strided: Strided) -> Steps {
        Steps {
            first: self.at(strided.first),
            stride: strided.stride as isize,
        }
    }
}

/// Copies all data of `from`, which fit into `to`, by load and store.
fn copy(to: &Place<'_>, from: &Place<'_>) -> runtime::Result<()> {
    let moved = match (to.data.as_strided(), from.data.as_strided()) {
        (_, Some(sent)) if sent.blocks == 0 => Ok(()),
        (Some(there), Some(here)) => copy_strided((to, there), (from, here)),
        (Some(run), None) if run.blocks == 1 => {
            each_run(&from.data, u64::MAX, |offset, len, position| {
                let at = to.at(run.first) + position;
                to.bytes.copy(at, from.bytes, from.at(offset), len)
            })
        }
        (None, Some(run)) if run.blocks == 1 => {
            each_run(&to.data, run.block_bytes, |offset, len, position| {
                let at = from.at(run.first) + position;
                to.bytes.copy(to.at(offset), from.bytes, at, len)
            })
        }
        _ => copy_pieces(to, from),
    };
    moved.map_err(|error| runtime::Error::Update(error.to_string()))
}

/// Equal blocks on both sides, or one run that is cut into such, are copied in one loop.
fn copy_strided(
    (to, there): (&Place<'_>, Strided),
    (from, here): (&Place<'_>, Strided),
) -> windlass_mem::Result<()> {
    let cut = |run: Strided, len: u64| match run.blocks {
        1 if run.block_bytes.is_multiple_of(len) => Some(Strided {
            blocks: run.block_bytes / len,
            block_bytes: len,
            stride: len as i64,
            ..run
        }),
        _ => (run.block_bytes == len).then_some(run),
    };
    // One run is cut like the other side; two are one block, as long as what is sent.
    let len = match there.blocks {
        1 => here.block_bytes,
        _ => there.block_bytes,
    };
    match (cut(there, len), cut(here, len)) {
        (Some(there), Some(here)) => to.bytes.copy_blocks(
            to.steps(there),
            from.bytes,
            from.steps(here),
            here.blocks as usize,
            len as usize,
        ),
        _ => copy_pieces(to, from),
    }
}

/// The runs of the first `bytes` bytes of data: offset, length, and bytes of data before.
fn each_run<E>(
    data: &Counted<'_>,
    bytes: u64,
    mut each: impl FnMut(i64, usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    let walk = data.for_each_run(|offset, len, position| {
        if position >= bytes {
            return ControlFlow::Break(Ok(()));
        }
        let len = len.min(bytes - position);
        match each(offset, len as usize, position as usize) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    });
    walk.break_value().unwrap_or(Ok(()))
}

fn copy_pieces(to: &Place<'_>, from: &Place<'_>) -> windlass_mem::Result<()> {
    for (there, here, len) in to.data.zip(&from.data) {
        to.bytes
            .copy(to.at(there), from.bytes, from.at(here), len as usize)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use windlass_mem::lend;

    use super::*;

    const BYTES: usize = 12_288;

    /// `data` bytes in one run, as equal blocks, nested, or as a list: what `copy` tells apart.
    fn shape(data: u64, kind: usize, block: u64, gap: u64, back: bool) -> Layout {
        let byte = Layout::of::<u8>();
        let blocks = data / block;
        let stride = (block + gap) as i64;
        let stride = if back { -stride } else { stride };
        let rest = (0, data % block, byte.clone());
        let strided = byte.hvector(blocks, block, stride).unwrap();
        let made = match kind {
            0 => byte.contiguous(data),
            1 => Ok(strided),
            2 => {
                let two = byte.hvector(2, block, stride).unwrap();
                two.hvector(blocks / 2, 1, 3 * stride)
            }
            // Beyond both ends of the blocks, whichever way they go.
            _ => Layout::structure([(0, 1, strided), (5000, rest.1, rest.2)]),
        };
        made.unwrap()
    }

    fn any_shape(data: u64) -> impl Strategy<Value = Layout> {
        let block = prop_oneof![1..=9u64, Just(16), Just(32), Just(64), 1..=130u64];
        (0..4usize, block, 0..6u64, any::<bool>())
            .prop_map(move |(kind, block, gap, back)| shape(data, kind, block, gap, back))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn copies_are_packed_and_unpacked_data(
            (to_layout, from_layout) in (0..500u64).prop_flat_map(|data| {
                (any_shape(data), any_shape(data))
            }),
            shift in 0..8i128,
        ) {
            let fill = |salt: u8| -> Vec<u8> {
                (0..BYTES).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
            };
            let (to, _lent) = lend(fill(0xa5));
            let (from, _other) = lend(fill(0));
            let (mut wanted, source) = (fill(0xa5), fill(0));
            let origin = 6000 + shift;
            // What is sent is at most what is received.
            let (mut there, mut here) = (to_layout.times(1).unwrap(), from_layout.times(1).unwrap());
            if there.size() < here.size() {
                (there, here) = (here, there);
            }
            let mut packed = vec![0; here.size() as usize];
            let at = |offset: i64| (origin + i128::from(offset)) as usize;
            let read = here.pack(0, &mut packed, |offset, out| {
                out.copy_from_slice(&source[at(offset)..][..out.len()]);
                Ok::<_, ()>(())
            });
            prop_assert_eq!(read, Ok(packed.len()));
            let written = there.unpack(0, &packed, |offset, bytes| {
                wanted[at(offset)..][..bytes.len()].copy_from_slice(bytes);
                Ok::<_, ()>(())
            });
            prop_assert_eq!(written, Ok(packed.len()));
            let place = |bytes, data| Place { bytes, origin, data };
            copy(&place(&to, there), &place(&from, here)).unwrap();
            let mut found = vec![0; BYTES];
            to.read(0, &mut found).unwrap();
            prop_assert_eq!(found, wanted, "{} to {}", here.layout(), there.layout());
        }
    }
}
