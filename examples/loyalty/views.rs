//! The views: how the members stand, in memory, and what was sold, in tables.

use std::collections::HashMap;

use serde::Serialize;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection, params};
use tidings::{Header, projection};

use crate::cents::Cents;
use crate::date::Date;
use crate::domain::{Enrolled, PointsExpired, Purchased, Tier, TierLost, TierReached};

/// How each member stands as of the last purchase, or of the last one up to some day.
///
/// What expires, and a tier that is lost with it, is recorded right before the purchase with which it is found out, and
/// counts with that.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    of: HashMap<String, Standing>,
    tiers_reached: i64,
    tiers_lost: i64,
    /// Purchases of later days do not count.
    day: Option<Date>,
}

#[derive(Debug, Default)]
struct Standing {
    tier: Tier,
    points: i64,
    /// What the next purchase will find expired and lost.
    expired: i64,
    lost: Option<Tier>,
    /// Whether a purchase was of a later day. All that come after it are, too.
    is_later: bool,
}

/// The members of one tier.
#[derive(Debug, Serialize)]
pub(crate) struct TierTotals {
    pub(crate) tier: Tier,
    pub(crate) members: i64,
    pub(crate) points: i64,
}

#[projection(name = "standings", version = 1)]
impl Standings {
    #[on]
    fn enrolled(&mut self, event: &Enrolled, header: &Header) {
        if !self.is_later(event.on) {
            self.of.insert(header.stream.id().into(), Standing::default());
        }
    }

    #[on]
    fn points_expired(&mut self, event: &PointsExpired, header: &Header) {
        if let Some(member) = self.of.get_mut(header.stream.id()) {
            member.expired = event.points;
        }
    }

    #[on]
    fn tier_lost(&mut self, event: &TierLost, header: &Header) {
        if let Some(member) = self.of.get_mut(header.stream.id()) {
            member.lost = Some(event.tier);
        }
    }

    #[on]
    fn purchased(&mut self, event: &Purchased, header: &Header) {
        let is_later = self.is_later(event.on);
        let Some(member) = self.of.get_mut(header.stream.id()) else {
            return;
        };
        member.is_later = is_later;
        if is_later {
            return;
        }
        member.points += event.points - std::mem::take(&mut member.expired);
        if let Some(tier) = member.lost.take() {
            member.tier = tier;
            self.tiers_lost += 1;
        }
    }

    #[on]
    fn tier_reached(&mut self, event: &TierReached, header: &Header) {
        if let Some(member) = self.of.get_mut(header.stream.id())
            && !member.is_later
        {
            member.tier = event.tier;
            self.tiers_reached += 1;
        }
    }
}

impl Standings {
    /// How each member stood at the end of `day`.
    ///
    /// A day is what the events say of it. The log tells another time: when the purchases were recorded, a whole file at once and in the order of
    /// its lines.
    pub(crate) fn of_day(day: Date) -> Self {
        Self { day: Some(day), ..Self::default() }
    }

    pub(crate) fn by_tier(&self) -> Vec<TierTotals> {
        let totals = |tier| {
            let members = self.of.values().filter(|standing| standing.tier == tier);
            TierTotals {
                tier,
                members: members.clone().map(|_| 1).sum(),
                points: members.map(|standing| standing.points).sum(),
            }
        };
        Tier::ALL.map(totals).into()
    }

    /// How often a tier was reached.
    pub(crate) fn tiers_reached(&self) -> i64 {
        self.tiers_reached
    }

    /// How often a tier was lost.
    pub(crate) fn tiers_lost(&self) -> i64 {
        self.tiers_lost
    }

    fn is_later(&self, on: Date) -> bool {
        self.day.is_some_and(|day| on > day)
    }
}

/// What was sold: in each month, and to each member.
#[derive(Debug)]
pub(crate) struct Sales;

const SALES: &str = "
    CREATE TABLE months (
        month TEXT PRIMARY KEY,
        purchases INTEGER NOT NULL,
        cds INTEGER NOT NULL,
        cents INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE customers (
        member TEXT PRIMARY KEY,
        purchases INTEGER NOT NULL,
        cds INTEGER NOT NULL,
        cents INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX customers_by_cents ON customers (cents);";

#[projection(name = "sales", version = 1, schema = SALES)]
impl Sales {
    #[on]
    fn purchased(
        &self,
        tx: &Transaction<'_>,
        event: &Purchased,
        header: &Header,
    ) -> rusqlite::Result<()> {
        tx.prepare_cached(
            "INSERT INTO months VALUES (?1, 1, ?2, ?3) ON CONFLICT DO UPDATE SET
                purchases = purchases + 1, cds = cds + ?2, cents = cents + ?3",
        )?
        .execute(params![event.on.month(), event.cds, event.price.0])?;
        tx.prepare_cached(
            "INSERT INTO customers VALUES (?1, 1, ?2, ?3) ON CONFLICT DO UPDATE SET
                purchases = purchases + 1, cds = cds + ?2, cents = cents + ?3",
        )?
        .execute(params![header.stream.id(), event.cds, event.price.0])?;
        Ok(())
    }
}

/// What was sold in all.
#[derive(Debug)]
pub(crate) struct SalesTotals {
    pub(crate) purchases: i64,
    pub(crate) customers: i64,
    pub(crate) cds: i64,
    pub(crate) revenue: Cents,
}

/// What was sold in one month, or to one member.
#[derive(Debug)]
pub(crate) struct SalesLine {
    /// The month, or the member's id.
    pub(crate) key: String,
    pub(crate) purchases: i64,
    pub(crate) revenue: Cents,
}

impl Sales {
    pub(crate) fn totals(view: &Connection) -> rusqlite::Result<SalesTotals> {
        view.query_row(
            "SELECT ifnull(sum(purchases), 0), count(*), ifnull(sum(cds), 0), ifnull(sum(cents), 0)
             FROM customers",
            [],
            |row| {
                Ok(SalesTotals {
                    purchases: row.get(0)?,
                    customers: row.get(1)?,
                    cds: row.get(2)?,
                    revenue: Cents(row.get(3)?),
                })
            },
        )
    }

    /// The revenue of each month in which something was sold, in order.
    pub(crate) fn months(view: &Connection) -> rusqlite::Result<Vec<SalesLine>> {
        Self::lines(view, "SELECT month, purchases, cents FROM months ORDER BY month")
    }

    /// The ten members who have spent the most.
    pub(crate) fn top_customers(view: &Connection) -> rusqlite::Result<Vec<SalesLine>> {
        Self::lines(
            view,
            "SELECT member, purchases, cents FROM customers ORDER BY cents DESC, member LIMIT 10",
        )
    }

    fn lines(view: &Connection, sql: &str) -> rusqlite::Result<Vec<SalesLine>> {
        let mut query = view.prepare_cached(sql)?;
        let lines = query.query_map([], |row| {
            Ok(SalesLine { key: row.get(0)?, purchases: row.get(1)?, revenue: Cents(row.get(2)?) })
        })?;
        lines.collect()
    }
}
