//! Pictures as SVG.

use std::fmt::Write as _;
use std::time::Duration;

use deployer_testkit::load::Report;

/// What became of every request of a run, from the command on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) requests: Vec<Request>,
    /// How long it was.
    whole: Duration,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// When it was sent.
    pub(crate) at: Duration,
    pub(crate) after: Duration,
    /// Who answered; nobody, if it was lost.
    pub(crate) version: Option<String>,
}

impl Picture {
    /// Of loads that had lasted so long when the command began.
    pub(crate) fn of<'a>(reports: impl Iterator<Item = (&'a Report, Duration)>, whole: Duration) -> Self {
        let mut requests = Vec::new();
        for (report, start) in reports {
            let answers =
                report.answers.iter().map(|one| (one.at, one.after, Some(one.version.clone().unwrap_or_default())));
            let losses = report.losses.iter().map(|one| (one.at, one.after, None));
            // What was sent before is not the command's doing, unless it was still under way.
            let since = answers.chain(losses).filter_map(|(at, after, version)| {
                let end = (at + after).checked_sub(start)?;
                let at = at.saturating_sub(start);
                Some(Request { at, after: end - at, version })
            });
            requests.extend(since);
        }
        Self { requests, whole }
    }
}

/// What happened in one tenth of a second.
#[derive(Clone, Copy, Default)]
struct Column {
    counts: [u32; 3],
    /// The quickest and the slowest answer, in milliseconds.
    span: Option<(f64, f64)>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 230.0;
const HEIGHT: f64 = 50.0;
/// Of the times of answers, one power of ten for each part.
const BELOW: f64 = 36.0;
const DECADES: f64 = 4.0;
const GAP: f64 = 22.0;
const HEAD: &str = "font-family=\"sans-serif\" font-size=\"12\"";
const COLUMNS_IN_A_SECOND: f64 = 10.0;

/// One row for each tool, all with the same axes.
pub(crate) fn over_time(rows: &[(String, &Picture)]) -> String {
    let columns: Vec<Vec<Column>> = rows.iter().map(|(_, picture)| columns(picture)).collect();
    let longest = rows.iter().map(|(_, picture)| picture.whole.as_secs_f64()).fold(1.0, f64::max);
    let highest = columns.iter().flatten().map(|column| column.counts.iter().sum::<u32>()).max().unwrap_or(1).max(1);
    let row = HEIGHT + BELOW + GAP;
    let height = rows.len() as f64 * row + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" {HEAD}>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let x = |seconds: f64| LEFT + seconds / longest * (WIDTH - LEFT - 10.0);
    for (index, ((name, picture), columns)) in rows.iter().zip(&columns).enumerate() {
        let base = index as f64 * row + HEIGHT + 10.0;
        let lost = picture.requests.iter().filter(|request| request.version.is_none()).count();
        writeln!(svg, "<text x=\"8\" y=\"{:.0}\">{name}</text>", base - 24.0).unwrap();
        writeln!(svg, "<text x=\"8\" y=\"{:.0}\" fill=\"#666\">{lost} lost</text>", base - 8.0).unwrap();
        writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{base}\" y2=\"{base}\" stroke=\"#999\"/>").unwrap();
        let foot = base + 4.0 + BELOW;
        for (power, label) in [(0, "1 ms"), (2, "0.1 s"), (4, "10 s")] {
            let y = foot - f64::from(power) / DECADES * BELOW;
            writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#eee\"/>").unwrap();
            let at = LEFT - 4.0;
            writeln!(svg, "<text x=\"{at}\" y=\"{:.0}\" font-size=\"8\" text-anchor=\"end\">{label}</text>", y + 3.0)
                .unwrap();
        }
        for (number, column) in columns.iter().enumerate() {
            let second = |number: usize| x(number as f64 / COLUMNS_IN_A_SECOND);
            let (left, width) = (second(number), second(number + 1) - second(number));
            let mut bottom = base;
            for (count, colour) in column.counts.into_iter().zip(["#9aa4b0", "#3a9d5d", "#d23b3b"]) {
                let high = f64::from(count) / f64::from(highest) * HEIGHT;
                bottom -= high;
                bar(&mut svg, left, bottom, width, high, colour);
            }
            if let Some((quickest, slowest)) = column.span {
                let y = |millis: f64| millis.log10().clamp(0.0, DECADES) / DECADES * BELOW;
                let high = (y(slowest) - y(quickest)).max(1.0);
                bar(&mut svg, left, foot - y(quickest) - high, width, high, "#3a6fb0");
            }
        }
    }
    let bottom = rows.len() as f64 * row + 14.0;
    let step = if longest > 20.0 { 5 } else { 1 };
    for second in (0..=longest as usize).step_by(step) {
        writeln!(svg, "<text x=\"{:.1}\" y=\"{bottom}\" fill=\"#666\">{second} s</text>", x(second as f64)).unwrap();
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, left: f64, top: f64, width: f64, high: f64, colour: &str) {
    if high > 0.0 {
        writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{high:.1}\" fill=\"{colour}\"/>"
        )
        .unwrap();
    }
}

fn columns(picture: &Picture) -> Vec<Column> {
    let at = |time: Duration| (time.as_secs_f64() * COLUMNS_IN_A_SECOND) as usize;
    let mut columns = vec![Column::default(); at(picture.whole) + 1];
    for request in &picture.requests {
        let Some(column) = columns.get_mut(at(request.at)) else { continue };
        let kind = match request.version.as_deref() {
            Some("v1") => 0,
            Some(_) => 1,
            None => 2,
        };
        column.counts[kind] += 1;
        if kind < 2 {
            let millis = request.after.as_secs_f64() * 1000.0;
            let (quickest, slowest) = column.span.unwrap_or((millis, millis));
            column.span = Some((quickest.min(millis), slowest.max(millis)));
        }
    }
    columns
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
