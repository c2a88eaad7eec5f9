//! Gathering a layout's data into a buffer and back, from any position: what is not contiguous
//! is moved in chunks of the caller's choice.

use std::ops::Range;

use super::Counted;

impl Counted<'_> {
    /// Fills `out` with the packed data from byte `position` on, calling `read` with the offset
    /// of each run and its place in `out`. Returns the bytes written: all of `out`, or what is
    /// left of the data.
    ///
    /// Packed data are the runs in the order of the type map, without gaps. To begin anywhere
    /// costs what [`runs_from`](Self::runs_from) costs.
    ///
    /// # Errors
    /// The first one of `read`.
    pub fn pack<E>(
        &self,
        position: u64,
        out: &mut [u8],
        mut read: impl FnMut(i64, &mut [u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.chunk(position, out.len(), |offset, place| {
            read(offset, &mut out[place])
        })
    }

    /// Spreads the packed data `packed`, which begin at byte `position` of all, calling `write`
    /// with the offset of each run and its bytes. Returns the bytes used: all of `packed`, or
    /// what the layout takes.
    ///
    /// # Errors
    /// The first one of `write`.
    pub fn unpack<E>(
        &self,
        position: u64,
        packed: &[u8],
        mut write: impl FnMut(i64, &[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.chunk(position, packed.len(), |offset, place| {
            write(offset, &packed[place])
        })
    }

    /// The runs of `len` packed bytes from `position` on, with their places in a buffer.
    #[inline]
    fn chunk<E>(
        &self,
        position: u64,
        len: usize,
        mut each: impl FnMut(i64, Range<usize>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut runs = self.runs_from(position);
        let mut done = 0;
        while done < len {
            let Some((offset, run)) = runs.next() else {
                break;
            };
            let run = usize::try_from(run).map_or(len - done, |run| run.min(len - done));
            each(offset, done..done + run)?;
            done += run;
        }
        Ok(done)
    }
}
