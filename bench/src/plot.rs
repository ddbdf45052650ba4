//! Pictures as SVG.

use std::fmt::Write as _;
use std::time::Duration;

/// What was answered and lost from one look to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    /// When, and how many answers of the old version, of the new one, and losses since the column before.
    pub(crate) columns: Vec<(Duration, u64, u64, u64)>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 230.0;
const HEIGHT: f64 = 60.0;
const GAP: f64 = 22.0;
const HEAD: &str = "font-family=\"sans-serif\" font-size=\"12\"";

/// One row for each tool, all with the same axes.
pub(crate) fn over_time(rows: &[(String, &Picture)]) -> String {
    let columns = rows.iter().flat_map(|(_, picture)| &picture.columns);
    let longest = columns.clone().map(|(at, ..)| at.as_secs_f64()).fold(1.0, f64::max);
    let highest = columns.map(|(_, v1, v2, lost)| v1 + v2 + lost).max().unwrap_or(1).max(1) as f64;
    let height = rows.len() as f64 * (HEIGHT + GAP) + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" {HEAD}>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let x = |seconds: f64| LEFT + seconds / longest * (WIDTH - LEFT - 10.0);
    for (index, (name, picture)) in rows.iter().enumerate() {
        let base = index as f64 * (HEIGHT + GAP) + HEIGHT + 10.0;
        let lost: u64 = picture.columns.iter().map(|(.., lost)| lost).sum();
        writeln!(svg, "<text x=\"8\" y=\"{:.0}\">{name}</text>", base - 30.0).unwrap();
        writeln!(svg, "<text x=\"8\" y=\"{:.0}\" fill=\"#666\">{lost} lost</text>", base - 14.0).unwrap();
        writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{base}\" y2=\"{base}\" stroke=\"#999\"/>").unwrap();
        let mut before = 0.0;
        for (at, v1, v2, lost) in &picture.columns {
            let at = at.as_secs_f64();
            let (left, width) = (x(before), (x(at) - x(before)).max(0.5));
            // Looks are not equally far apart.
            let scale = HEIGHT / highest * (0.1 / (at - before).max(0.05)).min(1.0);
            before = at;
            let mut bottom = base;
            for (count, colour) in [(v1, "#9aa4b0"), (v2, "#3a9d5d"), (lost, "#d23b3b")] {
                let high = *count as f64 * scale;
                bottom -= high;
                if high > 0.0 {
                    writeln!(
                        svg,
                        "<rect x=\"{left:.1}\" y=\"{bottom:.1}\" width=\"{width:.1}\" height=\"{high:.1}\" fill=\"{colour}\"/>"
                    )
                    .unwrap();
                }
            }
        }
    }
    let bottom = rows.len() as f64 * (HEIGHT + GAP) + 14.0;
    let step = if longest > 20.0 { 5 } else { 1 };
    for second in (0..=longest as usize).step_by(step) {
        writeln!(svg, "<text x=\"{:.1}\" y=\"{bottom}\" fill=\"#666\">{second} s</text>", x(second as f64)).unwrap();
    }
    svg.push_str("</svg>\n");
    svg
}

/// Points with both axes logarithmic, a line for each series.
pub(crate) fn against_size(title: &str, unit: &str, series: &[(&str, Vec<(f64, f64)>)]) -> String {
    let points = || series.iter().flat_map(|(_, points)| points);
    let bound = |pick: fn(&(f64, f64)) -> f64| {
        let low = points().map(pick).fold(f64::INFINITY, f64::min).log10().floor();
        let high = points().map(pick).fold(f64::MIN_POSITIVE, f64::max).log10().ceil();
        (low, high.max(low + 1.0))
    };
    let ((x0, x1), (y0, y1)) = (bound(|point| point.0), bound(|point| point.1));
    let (left, right, top, bottom) = (80.0, 560.0, 40.0, 340.0);
    let x = |value: f64| left + (value.log10() - x0) / (x1 - x0) * (right - left);
    let y = |value: f64| bottom - (value.log10() - y0) / (y1 - y0) * (bottom - top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 380\" {HEAD}>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{left}\" y=\"20\">{title}</text>\n"
    );
    for decade in x0 as i32..=x1 as i32 {
        let at = x(10f64.powi(decade));
        writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>").unwrap();
        writeln!(svg, "<text x=\"{at:.1}\" y=\"360\" text-anchor=\"middle\">{}</text>", 10f64.powi(decade)).unwrap();
    }
    for decade in y0 as i32..=y1 as i32 {
        let at = y(10f64.powi(decade));
        writeln!(svg, "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>").unwrap();
        let label = format!("{} {unit}", 10f64.powi(decade));
        writeln!(svg, "<text x=\"74\" y=\"{at:.1}\" text-anchor=\"end\">{label}</text>").unwrap();
    }
    for (index, ((name, points), colour)) in series.iter().zip(["#3a6fb0", "#3a9d5d", "#d23b3b", "#8a5fb0"]).enumerate()
    {
        let line: Vec<String> = points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let line = line.join(" ");
        writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>").unwrap();
        let at = top + 20.0 * index as f64;
        writeln!(svg, "<text x=\"580\" y=\"{at:.0}\" fill=\"{colour}\">{name}</text>").unwrap();
    }
    svg.push_str("</svg>\n");
    svg
}
