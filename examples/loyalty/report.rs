//! The summary at the end of a run.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cents::{Cents, grouped};
use crate::import::Tally;
use crate::views::{SalesLine, SalesTotals, TierTotals};

/// How many characters the longest bar of the chart has.
const BAR: i64 = 48;

/// Everything that is known after a run. All but the tally and the time is read from the log and its views.
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// How many events the log holds.
    pub(crate) events: u64,
    pub(crate) sales: SalesTotals,
    pub(crate) months: Vec<SalesLine>,
    pub(crate) top_customers: Vec<SalesLine>,
    pub(crate) tiers: Vec<TierTotals>,
    pub(crate) tiers_reached: i64,
    pub(crate) tiers_lost: i64,
    /// The files of the log and of the views; none if they were in memory.
    pub(crate) files: Option<(PathBuf, PathBuf)>,
    pub(crate) elapsed: Duration,
}

/// The report for a program.
#[derive(Serialize)]
struct Totals {
    lines: u64,
    purchases: i64,
    rejected: u64,
    malformed: u64,
    customers: i64,
    cds: i64,
    cents: Cents,
    events: u64,
    appended: u64,
    already_known: u64,
    elapsed_ms: u128,
}

impl Report {
    /// Writes the report for a program: one JSON object on one line.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { tally, sales, .. } = self;
        let totals = Totals {
            lines: tally.lines,
            purchases: sales.purchases,
            rejected: tally.rejected,
            malformed: tally.malformed,
            customers: sales.customers,
            cds: sales.cds,
            cents: sales.revenue,
            events: self.events,
            appended: tally.appended,
            already_known: tally.already_known,
            elapsed_ms: self.elapsed.as_millis(),
        };
        writeln!(out, "{}", serde_json::to_string(&totals)?)
    }

    /// Writes the report for a reader.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_totals(out)?;
        self.write_months(out)?;
        self.write_tiers(out)?;
        self.write_top_customers(out)?;
        self.write_run(out)
    }

    fn write_totals(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{} purchases of {} customers: {} CDs for {}",
            grouped(self.sales.purchases),
            grouped(self.sales.customers),
            grouped(self.sales.cds),
            self.sales.revenue,
        )
    }

    fn write_months(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nRevenue by month")?;
        let best = self.months.iter().map(|month| month.revenue).max();
        let best = best.unwrap_or_default().0.max(1);
        for month in &self.months {
            let length = month.revenue.0 * BAR / best;
            let bar = "█".repeat(usize::try_from(length).unwrap_or_default());
            writeln!(out, "  {} {:>15}  {bar}", month.key, month.revenue)?;
        }
        Ok(())
    }

    fn write_tiers(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nMembers by tier")?;
        write_tiers(&self.tiers, out)?;
        writeln!(
            out,
            "  A tier was reached {} times and lost {} times.",
            grouped(self.tiers_reached),
            grouped(self.tiers_lost)
        )
    }

    fn write_top_customers(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nTop customers")?;
        for SalesLine { key, purchases, revenue } in &self.top_customers {
            writeln!(out, "  {key:<7} {revenue:>15} in {purchases} purchases")?;
        }
        Ok(())
    }

    fn write_run(&self, out: &mut impl Write) -> io::Result<()> {
        let tally = &self.tally;
        writeln!(
            out,
            "\n{} lines read in {:.2} s: {} recorded before, {} rejected, {} malformed.",
            grouped(tally.lines),
            self.elapsed.as_secs_f64(),
            grouped(tally.already_known),
            grouped(tally.rejected),
            grouped(tally.malformed),
        )?;
        match tally.appended {
            0 => writeln!(out, "Nothing new: no event was appended.")?,
            appended => writeln!(out, "{} events were appended.", grouped(appended))?,
        }
        match &self.files {
            Some((log, views)) => writeln!(
                out,
                "{} events lie in {} (table events), their views in {} (tables months and customers).",
                grouped(self.events),
                log.display(),
                views.display(),
            ),
            None => writeln!(out, "All of it was in memory, and is gone."),
        }
    }
}

/// Writes a line for each tier.
pub(crate) fn write_tiers(tiers: &[TierTotals], out: &mut impl Write) -> io::Result<()> {
    for TierTotals { tier, members, points } in tiers {
        let (members, points) = (grouped(members), grouped(points));
        writeln!(out, "  {tier:<7} {members:>15} with {points} points")?;
    }
    Ok(())
}
