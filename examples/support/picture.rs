//! Pictures of a temperature field: reading one to start from, drawing the result.
//!
//! Relies on the `image` crate for PGM and PNG and on nothing else; temperatures are `f64` between
//! 0 (cold) and 1 (hot).

use std::path::Path;

use image::{ImageReader, Rgb, RgbImage};

use crate::size::Size;

/// A temperature field, row by row from the top left.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) cells: Vec<f64>,
}

impl Field {
    /// Reads a PGM or PNG picture; its brightness becomes the temperature.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let refused = |why: String| format!("cannot use the picture {}: {why}", path.display());
        let reader = ImageReader::open(path)
            .map_err(|e| refused(format!("{e}; give an existing PGM or PNG file")))?;
        let reader = reader
            .with_guessed_format()
            .map_err(|e| refused(e.to_string()))?;
        let picture = reader
            .decode()
            .map_err(|e| refused(format!("{e}; give a PGM or PNG file")))?;
        let size =
            Size::checked(picture.width() as usize, picture.height() as usize).map_err(refused)?;
        let cells = picture
            .to_luma16()
            .pixels()
            .map(|p| f64::from(p.0[0]) / f64::from(u16::MAX))
            .collect();
        Ok(Self {
            width: size.width,
            height: size.height,
            cells,
        })
    }

    /// The built-in start: a ship's wheel, three discs of different heat, and the name below.
    pub(crate) fn built_in(size: Size) -> Self {
        let Size { width, height } = size;
        // The drawing is 1.5 wide and 1 high; it is scaled to fit and centred.
        let unit = (width as f64 / 1.5).min(height as f64);
        let left = (width as f64 - 1.5 * unit) / 2.0;
        let top = (height as f64 - unit) / 2.0;
        let mut cells = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let mut sum = 0.0;
                for sample in 0..9 {
                    let dx = f64::from(sample % 3) / 3.0 + 1.0 / 6.0;
                    let dy = f64::from(sample / 3) / 3.0 + 1.0 / 6.0;
                    sum += scene((x as f64 + dx - left) / unit, (y as f64 + dy - top) / unit);
                }
                cells.push(sum / 9.0);
            }
        }
        Self {
            width,
            height,
            cells,
        }
    }

    fn row(&self, y: usize) -> &[f64] {
        &self.cells[y * self.width..(y + 1) * self.width]
    }
}

/// Temperature of the built-in scene at a point of the 1.5 x 1 drawing.
fn scene(x: f64, y: f64) -> f64 {
    let background = 0.04 + 0.05 * y;
    let heats = [wheel(x - 0.42, y - 0.36), discs(x, y), name(x, y)];
    heats.into_iter().fold(background, f64::max)
}

/// A wheel with eight spokes that end in handles, around the origin.
fn wheel(x: f64, y: f64) -> f64 {
    let radius = x.hypot(y);
    let eighth = std::f64::consts::FRAC_PI_4;
    // Distance from the middle line of the nearest spoke.
    let turn = y.atan2(x) / eighth;
    let off_spoke = radius * ((turn - turn.round()) * eighth).sin().abs();
    let rim = (radius - 0.215).abs() < 0.026;
    let spoke = off_spoke < 0.0115 && radius < 0.315;
    let handle = off_spoke < 0.019 && (0.275..0.33).contains(&radius);
    let hub = radius < 0.062 && radius > 0.024;
    if rim || hub || handle {
        1.0
    } else if spoke {
        0.86
    } else {
        0.0
    }
}

/// Three discs, each as hot as it is large.
fn discs(x: f64, y: f64) -> f64 {
    [
        (1.02, 0.24, 0.14, 1.0),
        (1.30, 0.40, 0.09, 0.8),
        (1.00, 0.52, 0.06, 0.6),
    ]
    .into_iter()
    .filter(|&(cx, cy, radius, _)| (x - cx).hypot(y - cy) < radius)
    .fold(0.0, |hottest, (_, _, _, heat)| f64::max(hottest, heat))
}

/// The name of the project along the lower edge.
fn name(x: f64, y: f64) -> f64 {
    const TEXT: &str = "WINDLASS";
    const DOT: f64 = 0.0285;
    let width = TEXT.len() as f64 * 6.0 * DOT - DOT;
    let (column, row) = ((x - (1.5 - width) / 2.0) / DOT, (y - 0.755) / DOT);
    if column < 0.0 || row < 0.0 {
        return 0.0;
    }
    if dot(TEXT, column as usize, row as usize) {
        0.95
    } else {
        0.0
    }
}

/// Whether `text`, set in dots of 5 x 7 with one empty column between letters, has a dot there.
fn dot(text: &str, column: usize, row: usize) -> bool {
    let Some(letter) = text.as_bytes().get(column / 6) else {
        return false;
    };
    let Some(bits) = glyph(*letter).get(row).copied() else {
        return false;
    };
    column % 6 < 5 && bits >> (4 - column % 6) & 1 == 1
}

/// The letters and digits the pictures need, seven rows of five dots.
fn glyph(letter: u8) -> [u8; 7] {
    match letter {
        b'0' => [14, 17, 19, 21, 25, 17, 14],
        b'1' => [4, 12, 4, 4, 4, 4, 14],
        b'2' => [14, 17, 1, 6, 8, 16, 31],
        b'3' => [14, 17, 1, 6, 1, 17, 14],
        b'4' => [2, 6, 10, 18, 31, 2, 2],
        b'5' => [31, 16, 30, 1, 1, 17, 14],
        b'6' => [6, 8, 16, 30, 17, 17, 14],
        b'7' => [31, 1, 2, 4, 8, 8, 8],
        b'8' => [14, 17, 17, 14, 17, 17, 14],
        b'9' => [14, 17, 17, 15, 1, 2, 12],
        b'A' => [14, 17, 17, 31, 17, 17, 17],
        b'D' => [30, 17, 17, 17, 17, 17, 30],
        b'E' => [31, 16, 16, 30, 16, 16, 31],
        b'I' => [14, 4, 4, 4, 4, 4, 14],
        b'K' => [17, 18, 20, 24, 20, 18, 17],
        b'L' => [16, 16, 16, 16, 16, 16, 31],
        b'N' => [17, 25, 21, 21, 19, 17, 17],
        b'P' => [30, 17, 17, 30, 16, 16, 16],
        b'R' => [30, 17, 17, 30, 20, 18, 17],
        b'S' => [15, 16, 16, 14, 1, 1, 30],
        b'T' => [31, 4, 4, 4, 4, 4, 4],
        b'W' => [17, 17, 17, 21, 21, 21, 10],
        _ => [0; 7],
    }
}

/// Colour of a temperature: near black, violet, red, orange, pale yellow, each lighter than the one
/// before, so that the picture also reads without colour.
fn colour(temperature: f64) -> Rgb<u8> {
    const STOPS: [(f64, [f64; 3]); 7] = [
        (0.0, [8.0, 7.0, 24.0]),
        (0.15, [44.0, 16.0, 92.0]),
        (0.35, [122.0, 30.0, 112.0]),
        (0.55, [201.0, 62.0, 78.0]),
        (0.72, [241.0, 115.0, 42.0]),
        (0.88, [252.0, 190.0, 52.0]),
        (1.0, [253.0, 252.0, 205.0]),
    ];
    let heat = temperature.clamp(0.0, 1.0);
    let above = STOPS
        .iter()
        .position(|stop| heat <= stop.0)
        .unwrap_or(STOPS.len() - 1)
        .max(1);
    let ((low, from), (high, to)) = (STOPS[above - 1], STOPS[above]);
    let share = (heat - low) / (high - low);
    Rgb(std::array::from_fn(|channel| {
        (from[channel] + share * (to[channel] - from[channel])).round() as u8
    }))
}

/// What stands around the two fields.
pub(crate) struct Legend<'a> {
    pub(crate) steps: usize,
    /// First row of each rank that has rows, in rank order.
    pub(crate) blocks: &'a [usize],
}

const PAPER: Rgb<u8> = Rgb([24, 26, 32]);
const INK: Rgb<u8> = Rgb([214, 216, 222]);
const DIM: Rgb<u8> = Rgb([92, 96, 108]);
/// Space around and between the panels, pixels.
const MARGIN: u32 = 12;
/// Width of the strip that shows which rank owns which rows.
const STRIP: u32 = 6;
const CAPTION: u32 = 26;
const BAR: u32 = 10;

/// How far a small field is enlarged, so that there is something to see.
fn zoom(width: u64) -> u64 {
    (240 / width.max(1)).clamp(1, 16)
}

/// Memory that [`draw`] needs.
pub(crate) fn bytes(width: u64, height: u64) -> u64 {
    let frame = u64::from(4 * MARGIN + STRIP + CAPTION + BAR);
    let zoom = zoom(width);
    3 * (2 * width * zoom + frame) * (height * zoom + frame)
}

/// Before on the left, after on the right, with the ranks' row blocks as a strip between them and
/// the colour scale below.
pub(crate) fn draw(before: &Field, after: &Field, legend: &Legend<'_>) -> RgbImage {
    let zoom = zoom(before.width as u64) as u32;
    let (width, height) = (before.width as u32 * zoom, before.height as u32 * zoom);
    let right = 2 * MARGIN + width + STRIP + MARGIN / 2;
    let mut picture = RgbImage::from_pixel(
        right + width + MARGIN,
        CAPTION + height + BAR + 3 * MARGIN,
        PAPER,
    );
    panel(&mut picture, before, MARGIN, CAPTION, zoom);
    panel(&mut picture, after, right, CAPTION, zoom);
    for (rank, &first) in legend.blocks.iter().enumerate() {
        let end = legend
            .blocks
            .get(rank + 1)
            .copied()
            .unwrap_or(before.height);
        let tone = if rank % 2 == 0 { INK } else { DIM };
        rectangle(
            &mut picture,
            (2 * MARGIN + width, CAPTION + first as u32 * zoom),
            (STRIP, (end - first) as u32 * zoom),
            tone,
        );
    }
    let bar_top = CAPTION + height + MARGIN;
    let bar_width = picture.width() - 2 * MARGIN;
    for x in 0..bar_width {
        rectangle(
            &mut picture,
            (MARGIN + x, bar_top),
            (1, BAR),
            colour(f64::from(x) / f64::from(bar_width)),
        );
    }
    write_text(&mut picture, "STEP 0", MARGIN, 7);
    let ranks = legend.blocks.len();
    let plural = if ranks == 1 { "" } else { "S" };
    write_text(
        &mut picture,
        &format!("STEP {}  {ranks} RANK{plural}", legend.steps),
        right,
        7,
    );
    picture
}

fn panel(picture: &mut RgbImage, field: &Field, left: u32, top: u32, zoom: u32) {
    for y in 0..field.height {
        for (x, &heat) in field.row(y).iter().enumerate() {
            rectangle(
                picture,
                (left + x as u32 * zoom, top + y as u32 * zoom),
                (zoom, zoom),
                colour(heat),
            );
        }
    }
}

fn rectangle(
    picture: &mut RgbImage,
    (left, top): (u32, u32),
    (width, height): (u32, u32),
    tone: Rgb<u8>,
) {
    for y in top..top + height {
        for x in left..left + width {
            picture.put_pixel(x, y, tone);
        }
    }
}

/// Text of two-pixel dots; what does not fit on the right is cut off.
fn write_text(picture: &mut RgbImage, text: &str, left: u32, top: u32) {
    for row in 0..7 {
        for column in 0..6 * text.len() {
            let x = left + 2 * column as u32;
            if dot(text, column, row) && x + 2 <= picture.width() {
                rectangle(picture, (x, top + 2 * row as u32), (2, 2), INK);
            }
        }
    }
}
