//! Reports of the measurements: a table in the terminal, JSON, and one HTML file with charts.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Samples of one thing, of each of those that are compared.
pub struct Comparison {
    pub what: String,
    pub unit: &'static str,
    pub samples: Vec<(String, Vec<f64>)>,
}

/// Something over time, of each of those that are compared.
pub struct Course {
    pub what: String,
    pub unit: &'static str,
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// The report of a run.
pub struct Report {
    pub name: &'static str,
    pub about: String,
    pub comparisons: Vec<Comparison>,
    pub courses: Vec<Course>,
}

pub fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (percent / 100.0 * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

const COLOURS: [&str; 4] = ["#2a78d6", "#e07b1a", "#1f9d63", "#a04bc4"];

impl Report {
    /// Prints it, and writes both files; beside what is measured stands what it was measured on.
    pub fn finish(&self) {
        println!("\n{}", self.about);
        for Comparison { what, unit, samples } in &self.comparisons {
            println!("\n{what}, {unit}");
            let ours = samples.first().map_or(f64::NAN, |(_, ours)| percentile(ours, 50.0));
            for (who, samples) in samples {
                let [least, half, most] = [5.0, 50.0, 95.0].map(|p| percentile(samples, p));
                println!(
                    "  {who:34} p50 {half:>9.2}   p5 {least:>9.2}   p95 {most:>9.2}   n {:>4}   of roomtone's {:>6.2}",
                    samples.len(),
                    half / ours
                );
            }
        }
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&folder).unwrap();
        let [json, html] = ["json", "html"].map(|kind| folder.join(format!("{}.{kind}", self.name)));
        std::fs::write(&json, serde_json::to_string_pretty(&self.json()).unwrap()).unwrap();
        std::fs::write(&html, self.html()).unwrap();
        println!("\n{}\n{}", json.display(), html.display());
    }

    fn json(&self) -> Value {
        let comparisons = self.comparisons.iter().map(|c| {
            let samples: serde_json::Map<String, Value> =
                c.samples.iter().map(|(who, samples)| (who.clone(), json!(samples))).collect();
            json!({"what": c.what, "unit": c.unit, "samples": samples})
        });
        let courses = self.courses.iter().map(|c| {
            let lines: serde_json::Map<String, Value> =
                c.lines.iter().map(|(who, line)| (who.clone(), json!(line))).collect();
            json!({"what": c.what, "unit": c.unit, "lines": lines})
        });
        json!({
            "bench": self.name, "about": self.about, "machine": machine(),
            "comparisons": comparisons.collect::<Vec<_>>(), "courses": courses.collect::<Vec<_>>(),
        })
    }

    fn html(&self) -> String {
        let mut page = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
             <title>roomtone: {name}</title><style>\
             :root{{color-scheme:light dark;--ink:#1b1f24;--faint:#8a929c;--back:#fff}}\
             @media(prefers-color-scheme:dark){{:root{{--ink:#e6e9ed;--faint:#79828d;--back:#15181c}}}}\
             body{{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;\
             color:var(--ink);background:var(--back)}}h2{{font-size:1.05rem;margin:2rem 0 .3rem}}\
             svg{{width:100%;height:auto}}text{{fill:var(--ink);font:12px system-ui,sans-serif}}\
             .faint{{fill:var(--faint)}}line.grid{{stroke:var(--faint);stroke-opacity:.35}}</style>\
             <h1>{name}</h1><p>{about}<p class=machine>{machine}",
            name = self.name,
            about = escape(&self.about),
            machine = escape(&machine()),
        );
        self.comparisons.iter().for_each(|comparison| strip(&mut page, comparison));
        self.courses.iter().for_each(|course| lines(&mut page, course));
        page
    }
}

/// A row of dots for each, its median as a line.
fn strip(page: &mut String, Comparison { what, unit, samples }: &Comparison) {
    let all = samples.iter().flat_map(|(_, samples)| samples.iter().copied());
    let most = all.fold(0.0, f64::max).max(1e-9) * 1.05;
    let height = samples.len() * 34 + 30;
    let x = |value: f64| 190.0 + value / most * 490.0;
    let _ = write!(page, "<h2>{}</h2><svg viewBox='0 0 720 {height}' role=img>", escape(what));
    axis(page, most, unit, height, &x);
    for (n, (who, samples)) in samples.iter().enumerate() {
        let (y, colour) = (n * 34 + 20, COLOURS[n % COLOURS.len()]);
        let _ = write!(page, "<text x=180 y={} text-anchor=end>{}</text>", y + 4, escape(who));
        for (i, sample) in samples.iter().enumerate() {
            let _ = write!(
                page,
                "<circle cx={:.1} cy={} r=3 fill='{colour}' fill-opacity=.45 />",
                x(*sample),
                y + i * 7 % 11 - 5
            );
        }
        let half = percentile(samples, 50.0);
        let _ = write!(
            page,
            "<line x1={0:.1} x2={0:.1} y1={1} y2={2} stroke='{colour}' stroke-width=3 />\
             <text x={3:.1} y={4}>{half:.5$}</text>",
            x(half),
            y - 12,
            y + 12,
            x(half) + 6.0,
            y - 7,
            if half < 10.0 { 2 } else { 1 }
        );
    }
    page.push_str("</svg>");
}

/// Draws a line for each series over time.
fn lines(page: &mut String, Course { what, unit, lines }: &Course) {
    let points = || lines.iter().flat_map(|(_, line)| line.iter().copied());
    let most = points().map(|(_, y)| y).fold(0.0, f64::max).max(1e-9) * 1.05;
    let last = points().map(|(x, _)| x).fold(0.0, f64::max).max(1e-9);
    let (x, y) = (|at: f64| 50.0 + at / last * 650.0, |value: f64| 190.0 - value / most * 170.0);
    let _ = write!(page, "<h2>{}, {unit}</h2><svg viewBox='0 0 720 240' role=img>", escape(what));
    for n in 0..=4 {
        let value = most / 4.0 * f64::from(n);
        let _ = write!(
            page,
            "<line class=grid x1=50 x2=700 y1={0:.1} y2={0:.1} /><text class=faint x=44 y={1:.1} text-anchor=end>{value:.0}</text>",
            y(value),
            y(value) + 4.0
        );
    }
    let _ = write!(page, "<text class=faint x=700 y=208 text-anchor=end>{last:.0} s</text>");
    for (n, (who, line)) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let path: String =
            line.iter().map(|(at, value)| format!("{:.1},{:.1} ", x(*at), y(*value))).collect();
        let _ = write!(
            page,
            "<polyline points='{path}' fill=none stroke='{colour}' stroke-width=1.6 />\
             <rect x={0} y=218 width=12 height=4 fill='{colour}' /><text x={1} y=224>{2}</text>",
            50 + n * 220,
            68 + n * 220,
            escape(who)
        );
    }
    page.push_str("</svg>");
}

fn axis(page: &mut String, most: f64, unit: &str, height: usize, x: &impl Fn(f64) -> f64) {
    for n in 0..=4 {
        let value = most / 4.0 * f64::from(n);
        let _ = write!(
            page,
            "<line class=grid x1={0:.1} x2={0:.1} y1=4 y2={1} /><text class=faint x={0:.1} y={2} text-anchor=middle>{value:.3$} {unit}</text>",
            x(value),
            height - 20,
            height - 5,
            if most < 10.0 { 2 } else { 0 }
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Versions, cores and day.
fn machine() -> String {
    let said = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores, {}, GStreamer {}, {}, {}",
        said("uname", &["-sr"]),
        roomtone::media::version(),
        said("chromium", &["--version"]).split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        said("date", &["-u", "+%F"]),
    )
}

#[test]
fn percentiles() {
    let samples: Vec<f64> = (0..=100).map(f64::from).collect();
    assert_eq!([5.0, 50.0, 95.0].map(|p| percentile(&samples, p)), [5.0, 50.0, 95.0]);
    assert!(percentile(&[], 50.0).is_nan());
}
