//! What energy costs when: announcements of the supplier, schedules of the configuration, a named variable.
//!
//! In: announcements with an authenticated issuer, zones of the configuration, the time. Out: the [`Rate`] of an EVSE
//! at an instant or over a stretch of time, with its source. Invariant: at any instant at most one source of a priority
//! gives a price, and at most one a level: what would make two of them is refused, not resolved by chance. Instants
//! are UTC; zones are read on the local calendar, so that a day of 23 or 25 hours has the right ones. Pure, but for
//! [`keep`].
//!
//! ```text
//! announcement (priority, the highest first) ─┐ first that gives a price → price
//! zone of the configuration (priority) ───────┼
//! named variable ─────────────────────────────┤ first that gives a level → level
//! otherwise (what holds after the horizon) ───┘
//! ```

mod book;
pub mod keep;
pub mod ocpp;
mod zone;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, de};

pub use self::{
    book::{Book, Change, MOST, Refusal},
    zone::{Days, Months, TimeOfDay, Zone, overlap},
};
use crate::{ids::EvseId, time::Wall, units::Price};

/// A step of a tariff. §14a Modul 3 calls them NT, ST and HT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// NT.
    Low,
    /// ST.
    Normal,
    /// HT.
    High,
}

impl Level {
    /// As written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "low" | "NT" => Self::Low,
            "normal" | "ST" => Self::Normal,
            "high" | "HT" => Self::High,
            _ => {
                let problem =
                    format!("{text:?} is not a level; use \"low\" (NT), \"normal\" (ST), \"high\" (HT)");
                return Err(de::Error::custom(problem));
            }
        })
    }
}

/// What a source says of a stretch of time: a price, a level, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

impl Offer {
    /// Says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.price.is_none() && self.level.is_none()
    }
}

/// What holds for an EVSE at an instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rate {
    /// Price, if anybody gave one.
    pub price: Option<Price>,
    /// Level, if anybody gave one.
    pub level: Option<Level>,
    /// Who gave them, in words.
    pub source: Arc<str>,
}

/// A rate and how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// First instant.
    pub from: Wall,
    /// First instant after.
    pub until: Wall,
    /// The rate.
    pub rate: Rate,
}

/// A stretch of time in UTC with what holds in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// First instant.
    pub from: Wall,
    /// First instant after.
    pub until: Wall,
    /// Price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

/// One announcement: replaces the earlier one of the same issuer and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Name, unique with its issuer.
    pub id: String,
    /// Authenticated. Not part of what an issuer writes.
    #[serde(default)]
    pub issuer: String,
    /// Rises with every version of the announcement.
    pub sequence: u64,
    /// In force from.
    pub valid_from: Wall,
    /// In force until: the horizon.
    pub valid_until: Wall,
    /// The higher goes first.
    #[serde(default = "usual")]
    pub priority: u8,
    /// The EVSEs it is for; all without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evses: Vec<EvseId>,
    /// Stretches of time in UTC, in order; or `zones`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// Recurring windows on the local calendar; or `slots`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<Zone>,
    /// What holds within the validity where no slot and no zone is.
    #[serde(default, skip_serializing_if = "Offer::is_empty")]
    pub otherwise: Offer,
}

/// The priority of an announcement that names none.
#[must_use]
pub const fn usual() -> u8 {
    10
}

impl Announcement {
    /// Whether it is for this EVSE.
    #[must_use]
    pub fn is_for(&self, evse: &EvseId) -> bool {
        self.evses.is_empty() || self.evses.contains(evse)
    }

    fn offer(&self, at: Wall, local: Local) -> Offer {
        if at < self.valid_from || at >= self.valid_until {
            return Offer::default();
        }
        let next = self.slots.partition_point(|slot| slot.from <= at);
        if let Some(slot) = next.checked_sub(1).map(|i| &self.slots[i]).filter(|slot| at < slot.until) {
            return Offer { price: slot.price, level: slot.level };
        }
        zone::pick(&self.zones, local).map_or(self.otherwise, Zone::offer)
    }

    /// Whether it may give a price; whether a level.
    fn gives(&self) -> (bool, bool) {
        let offers = || {
            let slots = self.slots.iter().map(|s| Offer { price: s.price, level: s.level });
            slots.chain(self.zones.iter().map(Zone::offer)).chain([self.otherwise])
        };
        (offers().any(|o| o.price.is_some()), offers().any(|o| o.level.is_some()))
    }
}

/// What the configuration says about tariffs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The calendar of the zones.
    pub zone: TimeZone,
    /// Windows, e.g. of §14a Modul 3.
    pub zones: Vec<Zone>,
    /// What a variable means, by its value.
    pub variable: Option<ByVariable>,
    /// What holds where nothing else does.
    pub otherwise: Offer,
}

/// A named variable that tells the level or the price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByVariable {
    /// Index of the variable.
    pub variable: usize,
    /// Value → what it means.
    pub values: Vec<(i64, Offer)>,
}

/// Europe/Berlin: by the system's database, or by the rule that has held since 1996 where there is none.
#[must_use]
pub fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin")
        .or_else(|_| TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3"))
        .unwrap_or(TimeZone::UTC)
}

impl Default for Schedule {
    fn default() -> Self {
        Self { zone: berlin(), zones: Vec::new(), variable: None, otherwise: Offer::default() }
    }
}

impl Schedule {
    /// The last and the next time the local clock shows this; a time that a change of the clocks leaves out is shown
    /// by the hour after.
    #[must_use]
    pub fn around(&self, by: TimeOfDay, now: Wall) -> Option<(Wall, Wall)> {
        let today = Local::of(now, &self.zone).date;
        let minute = by.0 % 1440;
        let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
        let mut times = Vec::with_capacity(3);
        for date in [today.yesterday().ok()?, today, today.tomorrow().ok()?] {
            let shown = self.zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0)).compatible().ok()?;
            times.push(Wall(shown.as_millisecond()));
        }
        let next = times.iter().position(|at| *at > now)?;
        Some((times[next.checked_sub(1)?], times[next]))
    }
}

/// An instant on the local calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// Day.
    pub date: jiff::civil::Date,
    /// Minutes since the clock showed 00:00: what the clock shows, not what has passed.
    pub minute: u16,
    /// 1 is Monday.
    pub weekday: u8,
}

impl Local {
    /// The local clock at an instant; the last day there is for an instant beyond the calendar.
    #[must_use]
    pub fn of(at: Wall, zone: &TimeZone) -> Self {
        let instant = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::MAX);
        let civil = zone.to_datetime(instant);
        let minute = u16::from(civil.hour().unsigned_abs()) * 60 + u16::from(civil.minute().unsigned_abs());
        Self { date: civil.date(), minute, weekday: civil.weekday().to_monday_one_offset().unsigned_abs() }
    }
}

/// Announcements and schedule together.
#[derive(Debug, Clone, Copy)]
pub struct Tariffs<'a> {
    /// What the configuration says.
    pub schedule: &'a Schedule,
    /// What was announced.
    pub book: &'a Book,
    /// The value of the variable that the schedule names, if it has one now.
    pub variable: Option<f64>,
}

impl Tariffs<'_> {
    /// What holds for an EVSE at an instant.
    #[must_use]
    pub fn at(&self, evse: &EvseId, at: Wall) -> Rate {
        let local = Local::of(at, &self.schedule.zone);
        let mut price: Option<(Price, String)> = None;
        let mut level: Option<(Level, String)> = None;
        let mut take = |offer: Offer, source: &dyn Fn() -> String| {
            if let (None, Some(found)) = (&price, offer.price) {
                price = Some((found, source()));
            }
            if let (None, Some(found)) = (&level, offer.level) {
                level = Some((found, source()));
            }
        };
        for known in self.book.by_priority().filter(|known| known.is_for(evse)) {
            take(known.offer(at, local), &|| {
                format!("tariff \"{}\" of {}, version {}", known.id, known.issuer, known.sequence)
            });
        }
        if let Some(zone) = zone::pick(&self.schedule.zones, local) {
            take(zone.offer(), &|| format!("schedule, {} to {}", zone.from, zone.to));
        }
        if let (Some(by), Some(value)) = (&self.schedule.variable, self.variable)
            && let Some((_, offer)) =
                by.values.iter().find(|(is, _)| (*is as f64 - value).abs() < f64::EPSILON)
        {
            take(*offer, &|| format!("variable at {value}"));
        }
        take(self.schedule.otherwise, &|| "what holds otherwise".to_owned());
        let source = match (&price, &level) {
            (Some((_, a)), Some((_, b))) if a != b => format!("price: {a}; level: {b}"),
            (Some((_, source)), _) | (None, Some((_, source))) => source.clone(),
            (None, None) => "no tariff is known".to_owned(),
        };
        Rate { price: price.map(|(p, _)| p), level: level.map(|(l, _)| l), source: source.into() }
    }

    /// The rates from one instant to another, in order, without gaps; equal neighbours are one stretch. Looks at most
    /// 62 days ahead.
    #[must_use]
    pub fn rates(&self, evse: &EvseId, from: Wall, until: Wall) -> Vec<Stretch> {
        const DAY: i64 = 86_400_000;
        let until = Wall(until.0.min(from.0.saturating_add(62 * DAY)));
        if until <= from {
            return Vec::new();
        }
        let mut edges = vec![from, until];
        let mut zones: Vec<&Zone> = self.schedule.zones.iter().collect();
        for known in self.book.by_priority().filter(|known| known.is_for(evse)) {
            edges.extend([known.valid_from, known.valid_until]);
            edges.extend(known.slots.iter().flat_map(|slot| [slot.from, slot.until]));
            zones.extend(&known.zones);
        }
        if !zones.is_empty() {
            self.local_edges(&zones, from, until, &mut edges);
        }
        edges.retain(|edge| (from..=until).contains(edge));
        edges.sort_unstable();
        edges.dedup();
        let mut stretches: Vec<Stretch> = Vec::new();
        for pair in edges.windows(2) {
            let rate = self.at(evse, pair[0]);
            match stretches.last_mut() {
                Some(last) if last.rate == rate => last.until = pair[1],
                _ => stretches.push(Stretch { from: pair[0], until: pair[1], rate }),
            }
        }
        stretches
    }

    /// Every instant at which the local clock shows the edge of a zone or of a day, or is put forward or back.
    fn local_edges(&self, zones: &[&Zone], from: Wall, until: Wall, edges: &mut Vec<Wall>) {
        let calendar = &self.schedule.zone;
        let mut minutes: Vec<u16> = zones.iter().flat_map(|zone| [zone.from.0, zone.to.0 % 1440]).collect();
        minutes.push(0);
        minutes.sort_unstable();
        minutes.dedup();
        let mut date = Local::of(from, calendar).date;
        let last = Local::of(until, calendar).date;
        while date <= last {
            for minute in &minutes {
                let (hour, minute) =
                    (i8::try_from(minute / 60).unwrap_or(0), i8::try_from(minute % 60).unwrap_or(0));
                let civil = date.at(hour, minute, 0, 0);
                // An hour that is shown twice has two such instants.
                let shown = calendar.to_ambiguous_timestamp(civil);
                let instants = [shown.earlier().ok(), calendar.to_ambiguous_timestamp(civil).later().ok()];
                edges.extend(instants.into_iter().flatten().map(|t| Wall(t.as_millisecond())));
            }
            let Ok(next) = date.tomorrow() else { break };
            date = next;
        }
        if let Ok(start) = Timestamp::from_millisecond(from.0) {
            let changes = calendar.following(start).map(|change| Wall(change.timestamp().as_millisecond()));
            edges.extend(changes.take_while(|at| *at < until).take(8));
        }
    }
}
