//! The font that the PNG file is drawn with, whatever the machine has, and how wide its text is.
//!
//! It is as wide as the widest of the usual fonts without serifs, so that a text that fits with it
//! also fits where an SVG document is shown with another.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

use crate::error::{Error, Result};

/// As SVG documents name it: the widths of Verdana are the same.
pub(crate) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// Pixels for one unit of the SVG document.
const PIXELS: f32 = 2.0;

pub(crate) fn parse(svg: &str) -> Result<Tree> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    });
    let options = Options {
        fontdb: Arc::clone(fonts),
        ..Options::default()
    };
    Tree::from_str(svg, &options).map_err(|error| Error::Draw(error.to_string()))
}

/// The document as a PNG file.
pub(crate) fn png(svg: &str) -> Result<Vec<u8>> {
    let tree = parse(svg)?;
    let size = tree.size().to_int_size();
    let pixels = |units: u32| (units as f32 * PIXELS) as u32;
    let mut picture = Pixmap::new(pixels(size.width()), pixels(size.height()))
        .ok_or_else(|| Error::Draw("it is too large; draw fewer curves".into()))?;
    let scale = Transform::from_scale(PIXELS, PIXELS);
    resvg::render(&tree, scale, &mut picture.as_mut());
    picture
        .encode_png()
        .map_err(|error| Error::Draw(error.to_string()))
}

/// Units from the begin to the end of a line of text.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let svg = format!(
        "<svg width=\"9\" height=\"9\" xmlns=\"http://www.w3.org/2000/svg\">\
         <text font-family=\"{FAMILY}\" font-size=\"{size}\">{}</text></svg>",
        escaped(text)
    );
    let lines = parse(&svg).map(|tree| tree.root().abs_bounding_box().width());
    lines.map_or(0.0, f64::from)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A name in lines of at most so many units, broken where it has spaces, else anywhere.
pub(crate) fn wrapped(text: &str, size: f64, limit: f64) -> Vec<String> {
    let text: String = text.chars().map(printable).collect();
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        for (at, piece) in pieces(word, size, limit).into_iter().enumerate() {
            let line = lines.last_mut().expect("never empty");
            let longer = if line.is_empty() {
                piece.clone()
            } else {
                format!("{line} {piece}")
            };
            if at == 0 && width(&longer, size) <= limit || line.is_empty() {
                *line = longer;
            } else {
                lines.push(piece);
            }
        }
    }
    lines
}

/// XML has no control characters.
fn printable(letter: char) -> char {
    let is_none = letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}');
    if is_none { ' ' } else { letter }
}

/// A word, or parts of one that is wider than a line.
fn pieces(word: &str, size: f64, limit: f64) -> Vec<String> {
    let mut pieces = vec![String::new()];
    if width(word, size) <= limit {
        return vec![word.to_owned()];
    }
    for letter in word.chars() {
        let last = pieces.last_mut().expect("never empty");
        let longer = format!("{last}{letter}");
        if width(&longer, size) <= limit || last.is_empty() {
            *last = longer;
        } else {
            pieces.push(letter.to_string());
        }
    }
    pieces
}
