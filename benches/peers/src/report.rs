//! How figures are shown: a table for people, a JSON object a line for programs, a chart for a page.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::workloads::Unit;
use crate::workloads::latency::Latency;

/// The figures of one subject: medians of the rounds.
pub(crate) struct Row {
    pub(crate) subject: &'static str,
    pub(crate) per_second: f64,
    /// The slowest and the fastest round.
    pub(crate) between: (f64, f64),
    /// The median of the rounds' ratios, not the ratio of the medians.
    pub(crate) ratio: f64,
    pub(crate) baseline_per_second: f64,
    pub(crate) allocations_per_event: f64,
    pub(crate) bytes_per_event: f64,
}

/// How the figures are printed.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Table,
    Json,
}

impl Unit {
    fn rate(self) -> String {
        match self {
            Self::Millions(counted) => format!("M {counted}/s"),
            Self::Ones(counted) => format!("{counted}/s"),
        }
    }

    fn scaled(self, per_second: f64) -> f64 {
        match self {
            Self::Millions(_) => per_second / 1e6,
            Self::Ones(_) => per_second,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Millions(_) => 2,
            Self::Ones(_) => 0,
        }
    }

    fn each(self) -> (&'static str, f64) {
        match self {
            Self::Millions(_) => ("ns each", 1e9),
            Self::Ones(_) => ("µs each", 1e6),
        }
    }
}

impl Form {
    pub(crate) fn head(self, title: &str, baseline: &str, unit: Unit) {
        if let Self::Table = self {
            println!("\n{title} (ratio to {baseline})");
            let (rate, (each, _)) = (unit.rate(), unit.each());
            println!(
                "{:42} {rate:>18} {:>17} {each:>9} {:>7} {:>12} {:>11}",
                "", "rounds between", "ratio", "allocs/event", "bytes/event"
            );
        }
    }

    pub(crate) fn row(self, title: &str, unit: Unit, row: &Row) {
        let Row { subject, per_second, ratio, allocations_per_event, bytes_per_event, .. } = row;
        let (value, rate) = (unit.scaled(*per_second), unit.rate());
        let each = unit.each().1 / per_second;
        let (low, high) = (unit.scaled(row.between.0), unit.scaled(row.between.1));
        match self {
            Self::Table => println!(
                "{subject:42} {value:>18.*} {:>17} {each:>9.2} {ratio:>7.2} \
                 {allocations_per_event:>12.3} {bytes_per_event:>11.1}",
                unit.digits(),
                format!("{low:.*}–{high:.*}", unit.digits(), unit.digits()),
            ),
            Self::Json => println!(
                "{{\"bench\":\"peers\",\"case\":\"{title}: {subject}\",\"value\":{value:.3},\
                 \"unit\":\"{rate}\",\"low\":{low:.3},\"high\":{high:.3},\"each\":{each:.3},\"baseline\":{:.3},\"ratio\":{ratio:.3},\
                 \"allocations_per_event\":{allocations_per_event:.4},\
                 \"bytes_per_event\":{bytes_per_event:.2}}}",
                unit.scaled(row.baseline_per_second),
            ),
        }
        // A long run shows what it has got so far.
        let _ = std::io::stdout().flush();
    }

    pub(crate) fn latency_head(self, title: &str) {
        if let Self::Table = self {
            println!("\n{title} offered (µs after the intended time)");
            println!("{:42} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p99", "p99.9", "max");
        }
    }

    pub(crate) fn latency(self, title: &str, subject: &str, latency: &Latency) {
        let Latency { p50, p99, p999, max, sustained } = *latency;
        match self {
            Self::Table => println!(
                "{subject:42} {p50:>9.1} {p99:>9.1} {p999:>9.1} {max:>9.1}  {}",
                if sustained { "" } else { "not sustained" }
            ),
            Self::Json => println!(
                "{{\"bench\":\"peers\",\"case\":\"{title}: {subject}\",\"unit\":\"µs\",\
                 \"p50\":{p50:.1},\"p99\":{p99:.1},\"p999\":{p999:.1},\"max\":{max:.1},\
                 \"sustained\":{sustained}}}"
            ),
        }
        let _ = std::io::stdout().flush();
    }
}

/// Draws the rows as bars, the fastest first. The greys are read on white and on black.
pub(crate) fn chart(title: &str, unit: Unit, rows: &[Row]) -> String {
    const WIDTH: f64 = 760.0;
    const NAMES: f64 = 270.0;
    const FIGURES: f64 = 60.0;
    const LINE: f64 = 22.0;
    const TOP: f64 = 44.0;
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
    let most = rows.first().map_or(1.0, |row| row.per_second);
    let height = TOP + LINE * rows.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#768390\">\n\
         <text x=\"0\" y=\"20\" font-size=\"15\" font-weight=\"600\">{title}: {}</text>\n",
        unit.rate()
    );
    for (line, row) in rows.iter().enumerate() {
        let y = TOP + LINE * line as f64;
        let length = ((WIDTH - NAMES - FIGURES) * row.per_second / most).max(1.0);
        let colour = match row.subject {
            subject if subject.starts_with("tidings") => "#e8590c",
            subject if subject.starts_with("limit") => "#a9b2bb",
            _ => "#4c8bd6",
        };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\" \
             fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.1}</text>",
            NAMES - 8.0,
            y + 13.0,
            row.subject,
            LINE - 5.0,
            NAMES + length + 6.0,
            y + 13.0,
            unit.scaled(row.per_second),
        );
    }
    svg.push_str("</svg>\n");
    svg
}
