//! Pictures: where things stand in the document, and what is seen of it.

use std::ops::Range;

use proptest::prelude::*;
use resvg::tiny_skia::Pixmap;
use resvg::usvg::roxmltree::Document;

use crate::{Chart, Curve, Kind, Point, font};

fn curve(name: &str, values: &[(u64, f64)]) -> Curve {
    let points = values.iter().map(|&(size, value)| Point::new(size, value));
    Curve::new(name, points.collect())
}

fn chart() -> Chart {
    let values = [(1, 1e-9), (32, 1e-8), (1024, 1e-7)];
    let slower = values.map(|(size, value)| (size, value * 3.0));
    let curves = vec![
        curve("first", &values),
        curve("<second> & 'last'\u{1}", &slower),
    ];
    Chart::new("title", Kind::Latency, curves).note("where")
}

/// Values of an attribute of all elements of this name.
fn attributes(svg: &str, element: &str, name: &str) -> Vec<f64> {
    let tree = Document::parse(svg).unwrap();
    let elements = tree.descendants().filter(|node| node.has_tag_name(element));
    elements
        .filter_map(|node| node.attribute(name)?.parse().ok())
        .collect()
}

/// All texts of a document.
fn texts(svg: &str) -> Vec<String> {
    let tree = Document::parse(svg).unwrap();
    let elements = tree.descendants().filter(|node| node.has_tag_name("text"));
    elements
        .filter_map(|node| Some(node.text()?.trim().to_owned()))
        .collect()
}

#[test]
fn points_stand_where_their_logarithms_do() {
    let svg = chart().svg().unwrap();
    // The first curve's markers are circles: one for each point, one beside its name.
    let [x, y] = ["cx", "cy"].map(|name| attributes(&svg, "circle", name));
    assert_eq!(x.len(), 4, "{svg}");
    assert!((x[1] - x[0] - (x[2] - x[1])).abs() <= 1.0, "{x:?}");
    assert!((y[1] - y[0] - (y[2] - y[1])).abs() <= 1.0, "{y:?}");
    assert!(x[0] < x[2] && y[0] > y[2]);
}

#[test]
fn a_point_stands_at_its_labels() {
    let curves = vec![curve("only", &[(8, 1e-6), (512, 1e-5), (4096, 1e-4)])];
    let svg = Chart::new("", Kind::Latency, curves).svg().unwrap();
    let tree = Document::parse(&svg).unwrap();
    let place = |label: &str, of: &str| -> f64 {
        let mut texts = tree.descendants().filter(|node| node.has_tag_name("text"));
        let found = texts.find(|node| node.text().is_some_and(|text| text.trim() == label));
        found
            .and_then(|node| node.attribute(of)?.parse().ok())
            .expect("a label")
    };
    let [x, y] = ["cx", "cy"].map(|name| attributes(&svg, "circle", name));
    assert!((x[1] - place("512", "x")).abs() <= 1.0);
    assert!((y[1] - place("10 µs", "y")).abs() <= 1.0);
    assert!((x[2] - place("4K", "x")).abs() <= 1.0);
}

#[test]
fn each_curve_is_shown_over_the_base() {
    let over = |chart: &Chart| {
        let texts = texts(&chart.svg().unwrap());
        texts.into_iter().find(|text| text.contains("over that of"))
    };
    assert_eq!(
        over(&chart()).unwrap(),
        "latency over that of first: below 1 is better"
    );
    let second = over(&chart().base(1)).unwrap();
    assert!(second.contains("<second>"), "{second}");
    // Ratios that were measured count, those of the values do not.
    let mut measured = chart();
    measured.curves[1].ratios = vec![Point::new(32, 700.0)];
    let labels = texts(&measured.svg().unwrap());
    assert!(labels.contains(&"100".to_owned()), "{labels:?}");
    // Nothing in common, nothing to compare.
    let apart = vec![
        curve("a", &[(1, 1.0), (2, 1.0)]),
        curve("b", &[(4, 1.0), (8, 1.0)]),
    ];
    assert_eq!(over(&Chart::new("", Kind::Latency, apart)), None);
}

#[test]
fn one_size_is_told_in_figures() {
    let curves = vec![curve("ours", &[(8, 6e-9)]), curve("theirs", &[(8, 15e-9)])];
    let texts = texts(&Chart::new("cas", Kind::Latency, curves).svg().unwrap());
    for expected in ["ours", "6 ns", "15 ns", "2.5 ×"] {
        assert!(
            texts.contains(&expected.to_owned()),
            "{expected}: {texts:?}"
        );
    }
}

#[test]
fn percentiles_have_a_panel_for_each_curve_that_has_some() {
    let mut all = chart();
    for (at, point) in all.curves[0].points.iter_mut().enumerate() {
        let of = |factor: f64| point.value * factor * (at + 1) as f64;
        point.percentiles = [("min", 0.5), ("p99", 2.0)]
            .map(|(label, factor)| (label.into(), of(factor)))
            .to_vec();
    }
    let texts = texts(&all.clone().percentiles().svg().unwrap());
    for expected in ["first", "min", "p99"] {
        assert_eq!(
            texts.iter().filter(|text| *text == expected).count(),
            1,
            "{texts:?}"
        );
    }
    assert!(
        !texts.iter().any(|text| text.contains("second")),
        "{texts:?}"
    );
    let none = chart().percentiles().svg().expect_err("drawn").to_string();
    assert!(none.contains("-f"), "{none}");
}

#[test]
fn charts_without_values_are_refused() {
    for curves in [vec![], vec![curve("zero", &[(8, 0.0), (16, f64::NAN)])]] {
        assert!(Chart::new("", Kind::Latency, curves).svg().is_err());
    }
    let beyond = chart().base(2).svg().expect_err("drawn").to_string();
    assert!(beyond.contains("there are 2"), "{beyond}");
}

fn is_dark(picture: &Pixmap, x: Range<u32>, y: Range<u32>) -> bool {
    let mut places = y.flat_map(|y| x.clone().map(move |x| (x, y)));
    places.any(|(x, y)| picture.pixel(x, y).is_some_and(|pixel| pixel.red() < 120))
}

#[test]
fn a_picture_has_ink_in_every_part_that_has_text() {
    let picture = Pixmap::decode_png(&chart().png().unwrap()).unwrap();
    let (width, height) = (picture.width(), picture.height());
    assert!(is_dark(&picture, 0..width / 2, 0..70), "title");
    assert!(
        is_dark(&picture, 0..140, height / 4..height / 2),
        "labels of values"
    );
    assert!(
        is_dark(&picture, width - 150..width, 0..height / 2),
        "names"
    );
    assert!(is_dark(&picture, 0..width / 2, height - 70..height), "note");
    assert!(!is_dark(&picture, width - 8..width, 0..height), "margin");
}

/// No text outside the picture, no two over each other.
#[track_caller]
fn legible(svg: &str) {
    let tree = font::parse(svg).unwrap();
    let page = tree.size();
    let (texts, frames) = (texts(svg), text_frames(tree.root()));
    assert_eq!(
        texts.iter().filter(|text| !text.is_empty()).count(),
        frames.len()
    );
    for (at, frame) in frames.iter().enumerate() {
        let inside = frame.left() >= 0.0
            && frame.top() >= 0.0
            && frame.right() <= page.width()
            && frame.bottom() <= page.height();
        assert!(inside, "{frame:?} of {page:?}: {texts:?}");
        for other in &frames[at + 1..] {
            assert!(
                frame
                    .intersect(other)
                    .is_none_or(|both| both.height() < 3.0),
                "{frame:?} {other:?}: {texts:?}"
            );
        }
    }
}

fn text_frames(group: &resvg::usvg::Group) -> Vec<resvg::tiny_skia::Rect> {
    use resvg::usvg::Node;
    let frames = group.children().iter().flat_map(|node| match node {
        Node::Group(group) => text_frames(group),
        Node::Text(text) => vec![text.abs_bounding_box()],
        _ => Vec::new(),
    });
    frames.collect()
}

fn points() -> impl Strategy<Value = Vec<Point>> {
    let size = prop_oneof![
        Just(0u64),
        Just(8),
        1u64..100,
        (0u32..32).prop_map(|power| 1 << power),
        any::<u64>()
    ];
    let value = prop_oneof![-12.0f64..-8.0, -9.0f64..3.0, Just(-6.0), -6.001f64..-6.0];
    let point = (size, value).prop_map(|(size, power)| {
        let value = 10f64.powf(power);
        let mut point = Point::new(size, value).between(value * 0.9, value * 1.5);
        point.percentiles = vec![("min".into(), value * 0.5), ("max".into(), value * 30.0)];
        point
    });
    prop::collection::vec(point, 1..26)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_picture_is_legible(
        curves in prop::collection::vec(("[a-zA-Z0-9_/(), ]{0,60}", points()), 1..7),
        kind in prop_oneof![Just(Kind::Latency), Just(Kind::Bandwidth), Just(Kind::Rate)],
        title in ".{0,120}",
        percentiles in any::<bool>(),
    ) {
        let curves = curves.into_iter().map(|(name, points)| Curve::new(name, points));
        let chart = Chart { percentiles, ..Chart::new(title, kind, curves.collect()).note("where") };
        legible(&chart.svg().unwrap());
    }
}
