//! Charts as SVG: bars with whiskers, and lines over a logarithmic or even axis. Plain text, so that a change shows in
//! a diff.

use std::fmt::Write as _;

use crate::stats::Spread;

const WIDTH: f64 = 760.0;
const LABELS: f64 = 190.0;
const ROW: f64 = 30.0;
const TOP: f64 = 54.0;
const PLOT_HEIGHT: f64 = 300.0;
const COLOURS: &[&str] = &[
    "#0b6e4f", "#c2571a", "#3a5fcd", "#8a2be2", "#7a6000", "#b0134e", "#4d4d4d", "#1f8a99", "#d49a00",
    "#7fb800",
];

/// One bar: its name and its values.
pub type Bar = (String, Spread);

/// One line: its name and its points.
pub type Line = (String, Vec<(f64, f64)>);

/// One row of dots: its name, and a value in percent for each series that has one.
pub type Dots = (String, Vec<Option<f64>>);

/// A dot a series in every row, on an axis from 0 to 100 %.
pub fn dots(title: &str, unit: &str, series: &[&str], rows_of_dots: &[Dots]) -> String {
    const LINE: f64 = 20.0;
    let (left, right, top) = (LABELS, WIDTH - 20.0, TOP + 26.0);
    let bottom = rows(rows_of_dots.len()).mul_add(LINE, top);
    let at = |percent: f64| (right - left).mul_add(percent.clamp(0.0, 100.0) / 100.0, left);
    let mut svg = open(title, unit, bottom + 30.0);
    for (i, name) in series.iter().enumerate() {
        let x = rows(i).mul_add((WIDTH - 24.0) / rows(series.len().max(1)), 18.0);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{TOP}\" r=\"5\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            colour(i),
            x + 10.0,
            TOP + 4.0,
            escape(name)
        );
    }
    for percent in [0.0, 20.0, 40.0, 60.0, 80.0, 100.0] {
        let x = at(percent);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {top}V{bottom:.1}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{percent}</text>",
            bottom + 18.0
        );
    }
    for (i, (name, values)) in rows_of_dots.iter().enumerate() {
        let y = rows(i).mul_add(LINE, top + LINE / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><path d=\"M{left} {y:.1}H{right:.1}\" stroke=\"#eee\"/>",
            left - 8.0,
            y + 4.0,
            escape(name)
        );
        // The first series is drawn last, so that it lies above the others.
        for (i, value) in values.iter().enumerate().rev() {
            let Some(value) = value else { continue };
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{}\" fill-opacity=\"0.85\"/>",
                at(*value),
                colour(i)
            );
        }
    }
    svg + "</svg>\n"
}

/// Horizontal bars, each as long as its median, with a whisker from quartile to quartile.
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|(_, s)| s.high).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - 110.0) / most;
    let height = rows(bars.len()).mul_add(ROW, TOP + 16.0);
    let mut svg = open(title, unit, height);
    for (i, (name, spread)) in bars.iter().enumerate() {
        let (y, colour) = (rows(i).mul_add(ROW, TOP), colour(i));
        let (middle, end) = (y + ROW / 2.0 - 4.0, LABELS + spread.median * scale);
        let (low, high) = (LABELS + spread.low * scale, LABELS + spread.high * scale);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
             <path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8\" stroke=\"#000\" fill=\"none\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            LABELS - 8.0,
            middle + 5.0,
            escape(name),
            spread.median * scale,
            ROW - 8.0,
            middle - 4.0,
            middle - 4.0,
            end.max(high) + 6.0,
            middle + 5.0,
            number(spread.median),
        );
    }
    svg + "</svg>\n"
}

/// How the upright axis is divided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scale {
    /// From zero on, evenly.
    Even,
    /// Each step is ten times the one before.
    Decades,
}

impl Scale {
    /// The axis's marks, the lowest first.
    fn marks(self, least: f64, most: f64) -> Vec<f64> {
        match self {
            Scale::Even => (0..=4_u8).map(|quarter| round_up(most) * f64::from(quarter) / 4.0).collect(),
            Scale::Decades => {
                let from = least.max(f64::MIN_POSITIVE).log10().floor();
                let until = most.max(f64::MIN_POSITIVE).log10().ceil().max(from + 1.0);
                let mut marks = vec![10_f64.powf(from)];
                while let Some(last) = marks.last().filter(|&&last| last.log10() < until - 0.5) {
                    marks.push(last * 10.0);
                }
                marks
            }
        }
    }

    /// How far up a value stands between the lowest mark, 0, and the highest, 1.
    fn place(self, value: f64, lowest: f64, highest: f64) -> f64 {
        match self {
            Scale::Even => (value - lowest) / (highest - lowest),
            Scale::Decades => (value.max(lowest) / lowest).log10() / (highest / lowest).log10(),
        }
    }
}

/// The next number that a reader likes on an axis.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0];
    steps.into_iter().map(|step| step * power).find(|&step| step >= value).unwrap_or(10.0 * power)
}

/// Lines over common axes; `x` values are placed by rank, so that 1, 4, 16, 64 stand evenly, and written by `x_text`. A line's place
/// in the list has its colour; one without points is not drawn.
pub fn lines(
    title: &str,
    x_unit: &str,
    x_text: fn(f64) -> String,
    y_unit: &str,
    scale: Scale,
    lines: &[Line],
) -> String {
    let mut places: Vec<f64> = lines.iter().flat_map(|(_, points)| points.iter().map(|p| p.0)).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let values = || lines.iter().flat_map(|(_, points)| points.iter().map(|p| p.1));
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN_POSITIVE, f64::max));
    let marks = scale.marks(least.min(most), most);
    let (lowest, highest) = (marks.first().copied().unwrap_or(0.0), marks.last().copied().unwrap_or(1.0));
    let (left, bottom) = (70.0, TOP + PLOT_HEIGHT);
    let step = (WIDTH - left - LABELS - 20.0) / rows(places.len().saturating_sub(1)).max(1.0);
    let at = |x: f64| left + rows(places.iter().position(|&p| p >= x).unwrap_or(0)) * step;
    let up = |y: f64| bottom - scale.place(y, lowest, highest) * PLOT_HEIGHT;
    let mut svg = open(title, y_unit, bottom + 50.0);
    for y in marks {
        let _ = write!(
            svg,
            "<path d=\"M{left} {0:.1}H{1:.1}\" stroke=\"#ddd\"/>\n<text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>\n",
            up(y),
            WIDTH - LABELS - 20.0,
            left - 6.0,
            up(y) + 4.0,
            number(y),
        );
    }
    for &x in &places {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            at(x),
            bottom + 18.0,
            escape(&x_text(x))
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(left, WIDTH - LABELS),
        bottom + 38.0,
        escape(x_unit)
    );
    let drawn = lines.iter().enumerate().filter(|(_, (_, points))| !points.is_empty());
    for (row, (i, (name, points))) in drawn.enumerate() {
        let path: Vec<String> = points.iter().map(|&(x, y)| format!("{:.1} {:.1}", at(x), up(y))).collect();
        let (colour, y) = (colour(i), rows(row).mul_add(20.0, TOP + 10.0));
        for &(x, y) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>",
                at(x),
                up(y)
            );
        }
        let _ = write!(
            svg,
            "<path d=\"M{}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>\n\
             <path d=\"M{:.1} {y:.1}h22\" stroke=\"{colour}\" stroke-width=\"3\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            path.join("L"),
            WIDTH - LABELS,
            WIDTH - LABELS + 28.0,
            y + 4.0,
            escape(name),
        );
    }
    svg + "</svg>\n"
}

fn open(title: &str, unit: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"16\">{}</text>\n<text x=\"12\" y=\"40\" fill=\"#555\">{}</text>\n",
        escape(title),
        escape(unit)
    )
}

fn colour(i: usize) -> &'static str {
    COLOURS.get(i % COLOURS.len()).copied().unwrap_or("#000")
}

#[allow(clippy::cast_precision_loss, reason = "a chart has a few rows")]
fn rows(count: usize) -> f64 {
    count as f64
}

/// A number with as many digits as a reader can use.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_and_line_is_drawn_and_named() {
        let spread = |v| Spread::of([v]).unwrap();
        let svg = bars("a < b", "MB/s", &[("one".into(), spread(10.0)), ("two & more".into(), spread(20.0))]);
        assert_eq!(svg.matches("<rect x=").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.contains("two &amp; more") && svg.ends_with("</svg>\n"));
        let svg = {
            let with = ("one".into(), vec![(0.0, 5.0), (10.0, 1.0)]);
            lines("t", "relays", number, "MB/s", Scale::Even, &[("none".into(), vec![]), with])
        };
        assert!(svg.contains("M70.0 54.0L550.0 294.0") && svg.contains(COLOURS[1]), "{svg}");
        assert!(!svg.contains("none</text>"), "{svg}");
    }

    #[test]
    fn a_row_has_a_dot_for_each_value_that_there_is() {
        let svg = dots("t", "%", &["one", "two"], &[("a & b".into(), vec![Some(50.0), None])]);
        // Two in the legend, one in the row: in the middle of the axis.
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("a &amp; b") && svg.contains("cx=\"465.0\""), "{svg}");
    }

    #[test]
    fn marks_are_round_and_hold_every_value() {
        assert_eq!(Scale::Even.marks(3.0, 1604.0), [0.0, 500.0, 1000.0, 1500.0, 2000.0]);
        assert_eq!(Scale::Decades.marks(2.2, 3678.0), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(Scale::Decades.marks(5.0, 5.0), [1.0, 10.0]);
        assert!((Scale::Decades.place(100.0, 1.0, 10_000.0) - 0.5).abs() < 1e-9);
    }
}
