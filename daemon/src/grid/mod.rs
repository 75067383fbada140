//! Power limits from every source, and their life.
//!
//! In: wishes with an authenticated issuer, the time, the measured power. Out: the limits in force, each with its
//! stage. Invariant: the smallest valid limit of a node wins, 0 W is a limit, and no stage is said before it is
//! true: `accepted` after the sync, `applied` after every confirmation, `effective` after a measurement.
//!
//! ```text
//! received → accepted → applied → effective ─→ expired | cleared | superseded
//!     └──────────┴──────────┴────────────────────┘
//! ```

mod book;
pub mod guard;
mod keep;
pub mod pmin;

pub use self::{
    book::{Book, Change, Place, Refusal, Wish},
    guard::Guard,
    keep::{Failsafe, MIGRATIONS, failsafes, forget, kept, remember, remember_failsafe},
};
use crate::{
    config::Role,
    ids::{LimitId, NodeId},
    time::{Certain, Wall},
    units::Watts,
};

/// A command to keep the controllable devices behind a node below a power (EnWG §14a; BNetzA BK6-22-300 Anlage 1
/// no. 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Name, unique on the site.
    pub id: LimitId,
    /// Who set it, authenticated: `"uid:0"`, `"contact:w4"`.
    pub issuer: String,
    /// In which role.
    pub role: Role,
    /// Limited node.
    pub node: NodeId,
    /// 0 is a limit.
    pub watts: Watts,
    /// The share of the node's contract power that was asked for; without, the power itself was.
    pub percent: Option<u32>,
    /// What follows `watts`, in the order of time.
    pub steps: Vec<Step>,
    /// In force from.
    pub valid_from: Wall,
    /// In force until; open without.
    pub valid_until: Option<Wall>,
    /// For the record.
    pub reason: String,
}

/// A later value of the same limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// From when on.
    pub from: Wall,
    /// Power; 0 is a limit.
    #[serde(with = "in_watts")]
    pub watts: Watts,
}

/// In the database a power is a number of watts.
mod in_watts {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::units::Watts;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(watts: &Watts, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(watts.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Watts, D::Error> {
        i64::deserialize(from).map(Watts)
    }
}

impl Limit {
    /// The power at a time. While it is not certain whether a step has begun, the smaller value counts.
    #[must_use]
    pub fn watts_at(&self, time: Certain) -> Watts {
        let value = |at: Wall| {
            self.steps.iter().rev().find(|step| step.from <= at).map_or(self.watts, |step| step.watts)
        };
        value(time.earliest).min(value(time.latest))
    }
}

impl Stage {
    /// As the journal writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Accepted => "accepted",
            Self::Applied => "applied",
            Self::Effective => "effective",
            Self::Expired => "expired",
            Self::Cleared => "cleared",
            Self::Superseded => "superseded",
        }
    }

    /// Whether the limit is over.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Expired | Self::Cleared | Self::Superseded)
    }
}

/// How far a limit got. Ordered as in the life above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Heard; the site reduces already.
    Received,
    /// Journaled and synced.
    Accepted,
    /// Every EVSE concerned confirmed a setpoint that keeps it.
    Applied,
    /// The measured power keeps it.
    Effective,
    /// Over by its own validity.
    Expired,
    /// Ended by command.
    Cleared,
    /// Replaced under the same id.
    Superseded,
}

/// A limit and its life so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The command.
    pub limit: Limit,
    /// The stage.
    pub stage: Stage,
    /// When it was received.
    pub received: Wall,
    /// When it was accepted.
    pub accepted: Option<Wall>,
    /// When it was applied.
    pub applied: Option<Wall>,
    /// When it was found effective.
    pub effective: Option<Wall>,
    /// When it ended.
    pub ended: Option<Wall>,
    /// Power of the controllable devices when found effective.
    pub measured: Option<Watts>,
    /// What the devices were owed when it came (Pmin); a smaller limit is kept all the same.
    pub owed: Watts,
    /// How many of its steps have begun.
    pub step: usize,
}

impl Record {
    /// Whether it limits at this time. A limit acts from the moment it is received. While it is not certain what time it
    /// is, it counts as begun as soon as it may have, and as over only when it must be.
    #[must_use]
    pub fn in_force(&self, time: Certain) -> bool {
        !self.stage.ended()
            && self.limit.valid_from <= time.latest
            && self.limit.valid_until.is_none_or(|until| time.earliest < until)
    }
}
