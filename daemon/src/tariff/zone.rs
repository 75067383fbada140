//! A window that recurs on the local calendar: from–to on some weekdays of some months.
//!
//! A window that ends before it begins goes on after midnight, and belongs to the day on which it began.

use std::{fmt, str::FromStr};

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Level, Local, Offer};
use crate::units::Price;

/// Minutes since the local clock showed 00:00; 1440 is the end of the day. Written `"17:00"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeOfDay(pub u16);

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time of day; write it like \"17:00\", at most \"24:00\"");
        let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
        if hour.len() != 2 || minute.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
            return Err(wrong());
        }
        let (hour, minute): (u16, u16) =
            (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
        let all = hour * 60 + minute;
        if minute > 59 || all > 1440 { Err(wrong()) } else { Ok(Self(all)) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Days of the week; bit 0 is Monday. Written `"Mo-Fr"`, `"Sa Su"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Days(pub u8);

const DAYS: [&str; 7] = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];

impl Default for Days {
    fn default() -> Self {
        Self(0x7f)
    }
}

impl Days {
    /// By number, 1 is Monday.
    #[must_use]
    pub const fn contains(self, weekday: u8) -> bool {
        matches!(weekday, 1..=7) && self.0 & (1 << (weekday - 1)) != 0
    }
}

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} are not weekdays; write them like \"Mo-Fr\" or \"Sa Su\"");
        let day = |name: &str| DAYS.iter().position(|day| *day == name).ok_or_else(wrong);
        let mut mask = 0_u8;
        for part in text.split([' ', ',']).filter(|part| !part.is_empty()) {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (day(first)?, day(last)?),
                None => (day(part)?, day(part)?),
            };
            let mut at = first;
            loop {
                mask |= 1 << at;
                if at == last {
                    break;
                }
                at = (at + 1) % 7;
            }
        }
        if mask == 0 { Err(wrong()) } else { Ok(Self(mask)) }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            DAYS.iter().enumerate().filter(|(i, _)| self.0 & (1 << i) != 0).map(|(_, n)| *n).collect();
        f.pad(&names.join(" "))
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Days {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Months; bit 0 is January. Written `[1, 2, 3]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Months(pub u16);

impl Default for Months {
    fn default() -> Self {
        Self(0xfff)
    }
}

impl Months {
    /// By number, 1 is January; none if one is not a month.
    #[must_use]
    pub fn of(numbers: &[u8]) -> Option<Self> {
        let mask = numbers.iter().try_fold(0_u16, |mask, month| match month {
            1..=12 => Some(mask | 1 << (month - 1)),
            _ => None,
        })?;
        (mask != 0).then_some(Self(mask))
    }

    /// By number, 1 is January.
    #[must_use]
    pub const fn contains(self, month: i8) -> bool {
        matches!(month, 1..=12) && self.0 & (1 << (month - 1)) != 0
    }

    /// The numbers, in order.
    #[must_use]
    pub fn numbers(self) -> Vec<u8> {
        (1..=12_u8).filter(|m| self.0 & (1 << (m - 1)) != 0).collect()
    }
}

impl<'de> Deserialize<'de> for Months {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let numbers = Vec::<u8>::deserialize(deserializer)?;
        Self::of(&numbers).ok_or_else(|| de::Error::custom("months are numbers from 1 to 12, at least one"))
    }
}

impl Serialize for Months {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.numbers().serialize(serializer)
    }
}

/// One window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// First minute.
    pub from: TimeOfDay,
    /// First minute after; up to `from` means the next day, equal means the whole day.
    pub to: TimeOfDay,
    /// Default every day.
    #[serde(default)]
    pub weekdays: Days,
    /// Default every month.
    #[serde(default)]
    pub months: Months,
    /// First day, local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Date>,
    /// Last day, local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<Date>,
    /// The higher goes first among the zones of one source.
    #[serde(default)]
    pub priority: u8,
    /// Price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

impl Zone {
    /// What it says.
    #[must_use]
    pub const fn offer(&self) -> Offer {
        Offer { price: self.price, level: self.level }
    }

    /// Whether it begins on this day.
    fn on(&self, date: Date) -> bool {
        self.months.contains(date.month())
            && self.weekdays.contains(date.weekday().to_monday_one_offset().unsigned_abs())
            && self.valid_from.is_none_or(|first| first <= date)
            && self.valid_to.is_none_or(|last| date <= last)
    }

    /// Whether the local clock is within it.
    #[must_use]
    pub fn covers(&self, local: Local) -> bool {
        let (from, to) = (self.from.0, self.to.0);
        if from < to {
            return self.on(local.date) && (from..to).contains(&local.minute);
        }
        (local.minute >= from && self.on(local.date))
            || (local.minute < to && local.date.yesterday().is_ok_and(|day| self.on(day)))
    }

    /// The minutes that it may cover on a weekday of a month: its own, and what the day before leaves.
    fn minutes(&self, month: u8, weekday: u8) -> Vec<(u16, u16)> {
        let in_month = |month: u8| self.months.contains(i8::try_from(month).unwrap_or(0));
        let today = in_month(month) && self.weekdays.contains(weekday);
        let (from, to) = (self.from.0, self.to.0);
        if from < to {
            return if today { vec![(from, to)] } else { Vec::new() };
        }
        let mut all = Vec::new();
        if today {
            all.push((from, 1440));
        }
        let before = if weekday == 1 { 7 } else { weekday - 1 };
        let month_before = if month == 1 { 12 } else { month - 1 };
        // The first of a month follows the last of another one.
        if self.weekdays.contains(before) && (in_month(month) || in_month(month_before)) && to > 0 {
            all.push((0, to));
        }
        all
    }
}

/// Whether two zones of equal priority could ever hold at once and both say something of the same kind.
#[must_use]
pub fn overlap(a: &Zone, b: &Zone) -> bool {
    let (x, y) = (a.offer(), b.offer());
    let same_kind = (x.price.is_some() && y.price.is_some()) || (x.level.is_some() && y.level.is_some());
    let apart = |first: Option<Date>, last: Option<Date>| matches!((first, last), (Some(first), Some(last)) if last.tomorrow().is_ok_and(|day| day < first));
    if a.priority != b.priority
        || !same_kind
        || apart(a.valid_from, b.valid_to)
        || apart(b.valid_from, a.valid_to)
    {
        return false;
    }
    (1..=12).any(|month| {
        (1..=7).any(|weekday| {
            let theirs = b.minutes(month, weekday);
            a.minutes(month, weekday).iter().any(|(f, t)| theirs.iter().any(|(g, u)| f < u && g < t))
        })
    })
}

/// The zone that holds, the highest priority first.
pub(super) fn pick(zones: &[Zone], local: Local) -> Option<&Zone> {
    zones.iter().filter(|zone| zone.covers(local)).max_by_key(|zone| zone.priority)
}
