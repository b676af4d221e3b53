//! The loyalty programme: what a member's purchases earn.
//!
//! # The rules
//! - The first purchase enrols a member.
//! - A purchase earns a point for each whole dollar, a quarter more for silver members and half as much again for gold
//!   members, rounded down. The tier before the purchase counts.
//! - Who has 100 points is a silver member, who has 300 is a gold member.
//! - Half of the points, rounded up, expire at each turn of the year, and the tier goes with them if what is left does not
//!   reach it. Nobody comes by at New Year: this is recorded with the member's next purchase, right before it.
//! - A purchase that costs nothing is a purchase. One of a negative amount, or of a day before the member's last one, is
//!   rejected.
//!
//! A member's last day only moves forward. So a rejected purchase stays rejected however often it is sent, which lets an
//! import be cut off anywhere and started again.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidings::{Command, Event, Shape, aggregate};

use crate::cents::Cents;
use crate::date::Date;

/// What a member has earned by gathering points; each tier is better than the one before.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, Shape,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tier {
    #[default]
    Basic,
    Silver,
    Gold,
}

impl Tier {
    pub(crate) const ALL: [Self; 3] = [Self::Basic, Self::Silver, Self::Gold];

    fn of(points: i64) -> Self {
        match points {
            300.. => Self::Gold,
            100.. => Self::Silver,
            _ => Self::Basic,
        }
    }

    fn points_for(self, price: Cents) -> i64 {
        let percent = match self {
            Self::Basic => 100,
            Self::Silver => 125,
            Self::Gold => 150,
        };
        price.0 / 100 * percent / 100
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Basic => "basic",
            Self::Silver => "silver",
            Self::Gold => "gold",
        })
    }
}

/// Records that the member has bought something.
#[derive(Command, Clone, Debug)]
pub(crate) struct Purchase {
    pub(crate) on: Date,
    pub(crate) cds: u32,
    pub(crate) price: Cents,
}

#[derive(Event, Debug, Serialize, Deserialize)]
#[event(name = "member.enrolled", version = 1)]
pub(crate) struct Enrolled {
    pub(crate) on: Date,
}

#[derive(Event, Debug, Serialize, Deserialize)]
#[event(name = "member.points_expired", version = 1)]
pub(crate) struct PointsExpired {
    pub(crate) points: i64,
}

/// The member falls to `tier`.
#[derive(Event, Debug, Serialize, Deserialize)]
#[event(name = "member.tier_lost", version = 1)]
pub(crate) struct TierLost {
    pub(crate) tier: Tier,
}

#[derive(Event, Debug, Serialize, Deserialize)]
#[event(name = "member.purchased", version = 1)]
pub(crate) struct Purchased {
    pub(crate) on: Date,
    pub(crate) cds: u32,
    pub(crate) price: Cents,
    /// What the purchase has earned.
    pub(crate) points: i64,
}

/// The member rises to `tier`.
#[derive(Event, Debug, Serialize, Deserialize)]
#[event(name = "member.tier_reached", version = 1)]
pub(crate) struct TierReached {
    pub(crate) tier: Tier,
}

/// Why a purchase is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a purchase cannot cost {0}")]
    NegativeAmount(Cents),
    #[error("the member has bought something on {last}, after {on}")]
    OutOfOrder { on: Date, last: Date },
}

/// A customer of the shop.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// The day of the last purchase; none before the first.
    last: Option<Date>,
    points: i64,
    tier: Tier,
}

/// What follows from a purchase, in this order.
type Consequences =
    (Option<Enrolled>, Option<PointsExpired>, Option<TierLost>, Purchased, Option<TierReached>);

#[aggregate(category = "member", events = pub(crate) MemberEvent, error = Refusal)]
impl Member {
    #[command]
    fn purchase(&self, purchase: Purchase) -> Result<Consequences, Refusal> {
        let Purchase { on, cds, price } = purchase;
        if price < Cents::ZERO {
            return Err(Refusal::NegativeAmount(price));
        }
        if let Some(last) = self.last.filter(|last| on < *last) {
            return Err(Refusal::OutOfOrder { on, last });
        }
        let left = self.points_left(on);
        let tier = self.tier.min(Tier::of(left));
        let points = tier.points_for(price);
        let reached = Tier::of(left + points);
        Ok((
            self.last.is_none().then_some(Enrolled { on }),
            (left < self.points).then_some(PointsExpired { points: self.points - left }),
            (tier < self.tier).then_some(TierLost { tier }),
            Purchased { on, cds, price, points },
            (reached > tier).then_some(TierReached { tier: reached }),
        ))
    }

    #[apply]
    fn enrolled(&mut self, event: &Enrolled) {
        self.last = Some(event.on);
    }

    #[apply]
    fn points_expired(&mut self, event: &PointsExpired) {
        self.points -= event.points;
    }

    #[apply]
    fn tier_lost(&mut self, event: &TierLost) {
        self.tier = event.tier;
    }

    #[apply]
    fn purchased(&mut self, event: &Purchased) {
        self.last = Some(event.on);
        self.points += event.points;
    }

    #[apply]
    fn tier_reached(&mut self, event: &TierReached) {
        self.tier = event.tier;
    }
}

impl Member {
    /// What the turns of the year since the last purchase leave of the points.
    fn points_left(&self, on: Date) -> i64 {
        let years = self.last.map_or(0, |last| on.year() - last.year());
        // Halved more than 62 times, nothing is left of any number; a shift by more than 63 would not compute.
        self.points >> years.min(63)
    }
}
