//! The heat equation on a block of cells. Whoever computes a cell, does it by the same operations
//! in the same order, so results of any number of ranks are equal to the last bit.

/// Share of a neighbour's excess heat that flows into a cell in one step; stable up to 1/4.
pub(crate) const FLOW: f64 = 0.125;

/// The rows above and below a block and the columns left and right of it. Where there is none, the
/// edge lets no heat through, so the block's own cells stand in for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outside<'a> {
    pub(crate) above: Option<&'a [f64]>,
    pub(crate) below: Option<&'a [f64]>,
    pub(crate) left: Option<&'a [f64]>,
    pub(crate) right: Option<&'a [f64]>,
}

/// One step of a block whose rows have `width` cells, which is not 0.
pub(crate) fn advance(cells: &[f64], outside: &Outside<'_>, width: usize, next: &mut [f64]) {
    let rows = cells.len() / width;
    let row = |y: usize| &cells[y * width..(y + 1) * width];
    for (y, out) in next.chunks_exact_mut(width).enumerate() {
        let middle = row(y);
        let up = if y > 0 {
            row(y - 1)
        } else {
            outside.above.unwrap_or(middle)
        };
        let down = if y + 1 < rows {
            row(y + 1)
        } else {
            outside.below.unwrap_or(middle)
        };
        let west = outside.left.map_or(middle[0], |column| column[y]);
        let east = outside.right.map_or(middle[width - 1], |column| column[y]);
        for x in 0..width {
            let left = if x > 0 { middle[x - 1] } else { west };
            let right = if x + 1 < width { middle[x + 1] } else { east };
            out[x] = middle[x] + FLOW * (up[x] + down[x] + left + right - 4.0 * middle[x]);
        }
    }
}

/// The whole field on one rank.
pub(crate) fn serial(start: &[f64], width: usize, steps: usize) -> Vec<f64> {
    let mut cells = start.to_vec();
    let mut next = vec![0.0; cells.len()];
    for _ in 0..steps {
        advance(&cells, &Outside::default(), width, &mut next);
        std::mem::swap(&mut cells, &mut next);
    }
    cells
}

/// Largest absolute difference; what is not a number counts as infinitely different.
pub(crate) fn largest_difference(ours: &[f64], theirs: &[f64]) -> f64 {
    let difference = |(a, b): (&f64, &f64)| {
        if (a - b).is_nan() {
            f64::INFINITY
        } else {
            (a - b).abs()
        }
    };
    ours.iter().zip(theirs).map(difference).fold(0.0, f64::max)
}
