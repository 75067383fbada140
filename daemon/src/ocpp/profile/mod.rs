//! Charging profiles: read from either version into one shape, judged at an instant, written in either version.
//!
//! In: payloads of `SetChargingProfile`, `ClearChargingProfile`, `GetCompositeSchedule`, `GetChargingProfiles`. Out:
//! [`Profile`]s and [`Criteria`], a limit at an instant (`schedule`). Invariant: within a purpose the highest valid
//! stack level wins, between purposes the lowest limit (1.6 §3.13.2, 2.0.1 Part 2 K §3.5).

mod composite;
mod read;
mod schedule;
mod write;

pub(crate) use self::{schedule::steps, write::Limit};
use super::Version;
use crate::time::Wall;

/// What a profile is for. The station's maximum belongs to the site; the backend's is merged into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// `ChargePointMaxProfile`, `ChargingStationMaxProfile`.
    Max,
    /// `TxDefaultProfile`.
    TxDefault,
    /// `TxProfile`.
    Tx,
    /// Of 2.x: external constraints, priority charging, local generation. The EVSE judges them.
    Other,
}

impl Purpose {
    pub(crate) fn of(word: &str) -> Self {
        match word {
            "ChargePointMaxProfile" | "ChargingStationMaxProfile" => Self::Max,
            "TxDefaultProfile" => Self::TxDefault,
            "TxProfile" => Self::Tx,
            _ => Self::Other,
        }
    }

    /// In a version's words.
    pub(crate) const fn word(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Max, Version::V16) => "ChargePointMaxProfile",
            (Self::Max, _) => "ChargingStationMaxProfile",
            (Self::TxDefault, _) => "TxDefaultProfile",
            (Self::Tx, _) => "TxProfile",
            (Self::Other, _) => "",
        }
    }
}

/// When a schedule begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// At its own time.
    Absolute,
    /// Again every so many milliseconds.
    Recurring(i64),
    /// With the transaction.
    Relative,
}

/// The unit of a schedule's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Amperes per phase.
    Amps,
    /// Watts of all phases.
    Watts,
}

/// A stretch of a schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Period {
    /// Seconds from the schedule's begin.
    pub(crate) start: i64,
    /// In the schedule's unit; not negative, not NaN.
    pub(crate) limit: f64,
    /// Phases that carry it; 3 if not said (K01.FR.49).
    pub(crate) phases: Option<i64>,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) start: Option<Wall>,
    /// Seconds; for ever if not said.
    pub(crate) duration: Option<i64>,
    pub(crate) unit: Unit,
    /// In rising order of their starts.
    pub(crate) periods: Vec<Period>,
}

/// A profile as the backend set it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    /// Connector (1.6) or EVSE (2.x); 0 is the station as a whole.
    pub(crate) place: i64,
    pub(crate) id: i64,
    pub(crate) level: i64,
    pub(crate) purpose: Purpose,
    pub(crate) kind: Kind,
    /// Of the backend's naming.
    pub(crate) transaction: Option<String>,
    pub(crate) valid_from: Option<Wall>,
    pub(crate) valid_to: Option<Wall>,
    /// 2.x may have up to three for ISO 15118; the first counts.
    pub(crate) schedule: Schedule,
    /// When it was set: the begin of a schedule that says none.
    pub(crate) set: Wall,
}

/// What `GetCompositeSchedule` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Composite {
    pub(crate) place: i64,
    /// Seconds.
    pub(crate) duration: i64,
    pub(crate) unit: Unit,
}

/// What `ClearChargingProfile` or `GetChargingProfiles` picks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Criteria {
    /// Any of these; any at all if empty.
    pub(crate) ids: Vec<i64>,
    pub(crate) place: Option<i64>,
    pub(crate) purpose: Option<Purpose>,
    pub(crate) level: Option<i64>,
}

impl Criteria {
    /// Whether it picks the profile. An id alone decides (1.6 §5.5, K10.FR.02).
    pub(crate) fn picks(&self, id: i64, place: i64, purpose: Purpose, level: i64) -> bool {
        if !self.ids.is_empty() {
            return self.ids.contains(&id);
        }
        self.place.is_none_or(|p| p == place)
            && self.purpose.is_none_or(|p| p == purpose)
            && self.level.is_none_or(|l| l == level)
    }
}
