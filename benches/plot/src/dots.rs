//! Curves that have one size, and that the same: a row for each, with its value and its ratio.

use crate::axis::{self, Axis, bytes};
use crate::canvas::{Anchor, Canvas, FAINT, GREY, GRID, INK, Stroke, document};
use crate::chart::{Chart, Point, is_drawable};
use crate::curves::{extent, ratio};
use crate::draw::{Around, MARGIN, heading};
use crate::error::Result;
use crate::font;
use crate::mark::Mark;
use crate::panel::{Name, SMALL, TEXT, paragraph};

const WIDTH: f64 = 520.0;
/// Between names, axis and figures.
const GAP: f64 = 16.0;
/// Least height of a row.
const ROW: f64 = 30.0;
/// Labels of the axis.
const BELOW: f64 = 26.0;

/// The one size, if there is no other.
pub(crate) fn size(chart: &Chart) -> Option<u64> {
    let points = chart.curves.iter().flat_map(|curve| &curve.points);
    let mut sizes = points
        .filter(|point| is_drawable(point.value))
        .map(|point| point.size);
    let first = sizes.next()?;
    let each_once = chart.curves.iter().all(|curve| curve.points.len() <= 1);
    (each_once && sizes.all(|size| size == first)).then_some(first)
}

struct Row<'a> {
    mark: Mark,
    name: Name,
    point: &'a Point,
    value: String,
    ratio: Option<String>,
}

fn rows(chart: &Chart) -> Vec<Row<'_>> {
    let row = |index: usize| {
        let curve = &chart.curves[index];
        let point = curve.points.iter().find(|point| is_drawable(point.value))?;
        let ratios = ratio(chart, index);
        let over = ratios.iter().find(|ratio| is_drawable(ratio.value));
        Some(Row {
            mark: Mark::of(index),
            name: Name::new(&curve.name),
            point,
            value: axis::named(chart.kind, point.value),
            ratio: over.map(|ratio| format!("{} ×", axis::ratio(ratio.value))),
        })
    };
    (0..chart.curves.len()).filter_map(row).collect()
}

pub(crate) fn svg(chart: &Chart, size: u64) -> Result<String> {
    let rows = rows(chart);
    let names = rows.iter().map(|row| row.name.text_width());
    let left = MARGIN + names.fold(0.0, f64::max) + GAP;
    let text = |text: &String| font::width(text, TEXT);
    let values = rows.iter().map(|row| text(&row.value)).fold(0.0, f64::max);
    let ratios = rows.iter().filter_map(|row| row.ratio.as_ref());
    let ratios = ratios.map(text).reduce(f64::max);
    let right = left + WIDTH;
    let value_end = right + GAP + values;
    let ratio_end = ratios.map(|wide| value_end + GAP + wide);
    let width = ratio_end.unwrap_or(value_end) + MARGIN;
    let around = Around::new(chart, width);

    let at = if size == 0 {
        String::new()
    } else {
        format!(" at {} bytes", bytes(size))
    };
    let over = match ratio_end {
        Some(_) => format!("; × that of {}", chart.curves[chart.base].name),
        None => String::new(),
    };
    let heading = heading(chart.kind).replacen(':', &format!("{at}:"), 1) + &over;
    let heading = font::wrapped(&heading, TEXT, width - 2.0 * MARGIN);
    let x = axis::along(
        rows.iter().flat_map(|row| extent(row.point)),
        WIDTH,
        |value| axis::named(chart.kind, value),
    );
    let top = around.top() + heading.len() as f64 * TEXT * 1.3 + 8.0;
    let bottom = top
        + rows
            .iter()
            .map(|row| row.name.height().max(ROW))
            .sum::<f64>();
    let height = bottom + BELOW + around.bottom();
    document((width, height), |canvas| {
        around.draw(canvas, height)?;
        paragraph(canvas, (MARGIN, around.top()), TEXT, &heading)?;
        draw_axis(canvas, &x, (left, top), (right, bottom))?;
        let mut begin = top;
        for row in &rows {
            let high = row.name.height().max(ROW);
            let y = begin + high / 2.0;
            begin += high;
            row.name.draw(canvas, (MARGIN, y))?;
            draw_row(canvas, row, &x, (left, y))?;
            canvas.text((value_end, y), Anchor::Right, TEXT, INK, &row.value)?;
            if let (Some(end), Some(ratio)) = (ratio_end, &row.ratio) {
                canvas.text((end, y), Anchor::Right, TEXT, INK, ratio)?;
            }
        }
        Ok(())
    })
}

fn draw_axis(
    canvas: &Canvas,
    x: &Axis,
    (left, top): (f64, f64),
    (right, bottom): (f64, f64),
) -> Result<()> {
    let place = |value: f64| left + x.part(value) * (right - left);
    for &value in &x.between {
        canvas.line(
            &[(place(value), top), (place(value), bottom)],
            &Stroke::plain(FAINT, 0.8),
        )?;
    }
    for (value, label) in &x.ticks {
        canvas.line(
            &[(place(*value), top), (place(*value), bottom)],
            &Stroke::plain(GRID, 0.8),
        )?;
        canvas.text(
            (place(*value), bottom + 13.0),
            Anchor::Middle,
            SMALL,
            INK,
            label,
        )?;
    }
    canvas.line(
        &[(left, bottom), (right, bottom)],
        &Stroke::plain(GREY, 1.0),
    )
}

fn draw_row(canvas: &Canvas, row: &Row, x: &Axis, (left, y): (f64, f64)) -> Result<()> {
    let place = |value: f64| left + x.part(value.log10()) * WIDTH;
    canvas.line(&[(left, y), (left + WIDTH, y)], &Stroke::plain(GRID, 0.8))?;
    if let Some([low, high]) = row
        .point
        .range
        .filter(|ends| ends.iter().all(|&end| is_drawable(end)))
    {
        let thin = Stroke::plain(row.mark.stroke.color, 1.4);
        canvas.line(&[(place(low), y), (place(high), y)], &thin)?;
        for x in [place(low), place(high)] {
            canvas.line(&[(x, y - 4.0), (x, y + 4.0)], &thin)?;
        }
    }
    row.mark.draw(canvas, (place(row.point.value), y))
}
