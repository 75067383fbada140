//! What profiles allow at an instant, and when that changes.
//!
//! In: profiles, an instant, the begin of the transaction. Out: a current per phase, the next change. Invariant: a
//! limit is never overstated: watts are divided by the nominal voltage and rounded down.

use std::time::Duration;

use super::{Kind, Profile, Purpose, Unit};
use crate::{
    time::Wall,
    units::{Milliamps, Millivolts},
};

/// Most steps of a computed schedule: a backend's schedule may change every second.
const MOST_STEPS: usize = 100;

impl Profile {
    /// The begin of the run of the schedule that covers `at`; `None` before the first.
    fn begin(&self, at: Wall, transaction: Option<Wall>) -> Option<Wall> {
        let start = self.schedule.start.unwrap_or(self.set);
        match self.kind {
            Kind::Absolute => (start <= at).then_some(start),
            Kind::Recurring(every) => {
                let since = at.0.checked_sub(start.0).filter(|ms| *ms >= 0)?;
                Some(Wall(at.0 - since % every))
            }
            Kind::Relative => transaction.or(Some(self.set)).filter(|begin| *begin <= at),
        }
    }

    /// Current per phase at an instant; `None` if it says nothing then.
    pub(crate) fn limit(&self, at: Wall, transaction: Option<Wall>) -> Option<Milliamps> {
        if self.valid_from.is_some_and(|from| at < from) || self.valid_to.is_some_and(|to| at >= to) {
            return None;
        }
        let seconds = (at.0 - self.begin(at, transaction)?.0).div_euclid(1000);
        if self.schedule.duration.is_some_and(|d| seconds >= d) {
            return None;
        }
        let period = self.schedule.periods.iter().rev().find(|p| p.start <= seconds)?;
        Some(amps(period.limit, self.schedule.unit, period.phases.unwrap_or(3)))
    }

    /// The first instant after `at` at which the limit can be another.
    fn next_change(&self, at: Wall, transaction: Option<Wall>) -> Option<Wall> {
        let plus = |begin: Wall, seconds: i64| Wall(begin.0.saturating_add(seconds.saturating_mul(1000)));
        let mut all: Vec<Wall> = self.valid_from.into_iter().chain(self.valid_to).collect();
        let begin = self.begin(at, transaction);
        if let Some(begin) = begin {
            all.extend(self.schedule.periods.iter().map(|p| plus(begin, p.start)));
            all.extend(self.schedule.duration.map(|d| plus(begin, d)));
            if let Kind::Recurring(every) = self.kind {
                all.push(Wall(begin.0.saturating_add(every)));
            }
        } else {
            all.extend(self.schedule.start);
        }
        all.into_iter().filter(|change| *change > at).min()
    }
}

fn amps(limit: f64, unit: Unit, phases: i64) -> Milliamps {
    let milliamps = match unit {
        Unit::Amps => limit * 1000.0,
        Unit::Watts => limit * 1_000_000.0 / (Millivolts::NOMINAL.0 as f64 * phases as f64),
    };
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, downwards")]
    Milliamps(milliamps.min(1e12).floor() as i64)
}

/// The limit of one purpose: of its valid profiles the one with the highest stack level. One for a connector goes
/// before one for the whole station (1.6 §3.13.3).
fn of(profiles: &[Profile], purpose: Purpose, at: Wall, transaction: Option<Wall>) -> Option<Milliamps> {
    let mut all: Vec<&Profile> = profiles.iter().filter(|p| p.purpose == purpose).collect();
    all.sort_by_key(|p| std::cmp::Reverse((p.place > 0 && purpose != Purpose::Max, p.level)));
    all.into_iter().find_map(|p| p.limit(at, transaction))
}

/// What the profiles allow together: the lowest of the purposes; a transaction's own goes in place of the default.
fn allowed(profiles: &[Profile], at: Wall, transaction: Option<Wall>) -> Option<Milliamps> {
    let max = of(profiles, Purpose::Max, at, None);
    let tx = transaction.and_then(|begin| of(profiles, Purpose::Tx, at, Some(begin)));
    let own = tx.or_else(|| of(profiles, Purpose::TxDefault, at, transaction));
    max.into_iter().chain(own).min()
}

/// The allowed current as steps from `from` on for `length`: instants and limits, the first at `from`. Of a schedule with
/// more changes than [`MOST_STEPS`] the last step tells the lowest of all, so that nothing is overstated.
pub(crate) fn steps(
    profiles: &[Profile],
    from: Wall,
    length: Duration,
    transaction: Option<Wall>,
) -> Vec<(Wall, Option<Milliamps>)> {
    let end = from + length;
    let mut steps: Vec<(Wall, Option<Milliamps>)> = Vec::new();
    let mut at = from;
    for _ in 0..MOST_STEPS {
        let limit = allowed(profiles, at, transaction);
        if steps.last().is_none_or(|(_, last)| *last != limit) {
            steps.push((at, limit));
        }
        match profiles.iter().filter_map(|p| p.next_change(at, transaction)).min() {
            Some(next) if next < end => at = next,
            _ => return steps,
        }
    }
    let lowest = steps.iter().filter_map(|(_, limit)| *limit).min();
    steps.push((at, lowest));
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ocpp::Version;

    fn at(text: &str) -> Wall {
        Wall::parse(text).unwrap()
    }

    fn profile(purpose: &str, level: i64, more: &serde_json::Value) -> Profile {
        let mut profile = json!({"chargingProfileId": level + 1, "stackLevel": level, "chargingProfilePurpose": purpose,
            "chargingProfileKind": "Absolute", "chargingSchedule": {"chargingRateUnit": "A",
            "startSchedule": "2026-11-23T12:00:00Z", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 10}]}});
        for (name, value) in more.as_object().unwrap() {
            profile[name] = value.clone();
        }
        let payload = json!({"connectorId": 1, "csChargingProfiles": profile}).to_string();
        Version::V16.profile(&payload, at("2026-11-23T12:00:00Z")).unwrap()
    }

    fn schedule(unit: &str, periods: &serde_json::Value) -> serde_json::Value {
        json!({"chargingSchedule": {"chargingRateUnit": unit, "startSchedule": "2026-11-23T12:00:00Z",
            "chargingSchedulePeriod": periods}})
    }

    #[test]
    fn the_highest_level_wins_within_and_the_lowest_limit_between() {
        let start = at("2026-11-23T12:00:00Z");
        let low = profile("TxDefaultProfile", 0, &json!({}));
        let high = profile("TxDefaultProfile", 3, &schedule("A", &json!([{"startPeriod": 0, "limit": 25}])));
        let max =
            profile("ChargePointMaxProfile", 0, &schedule("A", &json!([{"startPeriod": 0, "limit": 20}])));
        let all = [low.clone(), high.clone(), max];
        assert_eq!(allowed(&all[..2], start, None), Some(Milliamps::amps(25)));
        assert_eq!(allowed(&all, start, None), Some(Milliamps::amps(20)));
        let tx = profile("TxProfile", 0, &schedule("A", &json!([{"startPeriod": 0, "limit": 8}])));
        let all = [low, high, tx];
        assert_eq!(allowed(&all, start, None), Some(Milliamps::amps(25)), "no transaction runs");
        assert_eq!(allowed(&all, start, Some(start)), Some(Milliamps::amps(8)));
        assert_eq!(allowed(&[], start, Some(start)), None);
    }

    #[test]
    fn every_kind_has_its_begin() {
        let start = at("2026-11-23T12:00:00Z");
        let steps_of = |kind: &serde_json::Value| {
            let mut more =
                schedule("A", &json!([{"startPeriod": 0, "limit": 10}, {"startPeriod": 3600, "limit": 6}]));
            for (name, value) in kind.as_object().unwrap() {
                more[name] = value.clone();
            }
            profile("TxDefaultProfile", 0, &more)
        };
        let daily = steps_of(&json!({"chargingProfileKind": "Recurring", "recurrencyKind": "Daily"}));
        let day = at("2026-11-25T12:30:00Z");
        assert_eq!(daily.limit(day, None), Some(Milliamps::amps(10)));
        assert_eq!(daily.limit(day + Duration::from_secs(3600), None), Some(Milliamps::amps(6)));
        assert_eq!(daily.limit(start - Duration::from_secs(1), None), None);
        let relative = steps_of(&json!({"chargingProfileKind": "Relative"}));
        assert_eq!(relative.limit(day, Some(day)), Some(Milliamps::amps(10)));
        let bounded = steps_of(&json!({"validTo": "2026-11-23T12:10:00Z"}));
        assert_eq!(bounded.limit(at("2026-11-23T12:10:00Z"), None), None);
        let list = [daily, bounded];
        let steps = steps(&list, start, Duration::from_secs(2 * 86_400), None);
        let times: Vec<_> = steps.iter().map(|(at, _)| (at.0 - start.0) / 60_000).collect();
        assert_eq!(times, [0, 60, 1440, 1500]);
    }

    #[test]
    fn watts_are_divided_among_phases_and_rounded_down() {
        let start = at("2026-11-23T12:00:00Z");
        for (periods, expected) in [
            (json!([{"startPeriod": 0, "limit": 11_000}]), 15_942),
            (json!([{"startPeriod": 0, "limit": 3680, "numberPhases": 1}]), 16_000),
            (json!([{"startPeriod": 0, "limit": "11000.0"}]), 15_942),
        ] {
            let profile = profile("TxProfile", 0, &schedule("W", &periods));
            assert_eq!(profile.limit(start, None), Some(Milliamps(expected)), "{periods}");
        }
    }

    #[test]
    fn a_schedule_of_seconds_ends() {
        let start = at("2026-11-23T12:00:00Z");
        let periods: Vec<_> = (0..5000).map(|s| json!({"startPeriod": s, "limit": 6 + s % 7})).collect();
        let list = [profile("TxDefaultProfile", 0, &schedule("A", &json!(periods)))];
        let steps = steps(&list, start, Duration::from_secs(u64::from(u32::MAX)), None);
        assert_eq!(steps.len(), MOST_STEPS + 1);
        assert_eq!(steps.last().unwrap().1, Some(Milliamps::amps(6)));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let now = at("2026-11-23T12:00:00Z");
        for periods in [
            json!([]),
            json!([{"startPeriod": 0, "limit": -1}]),
            json!([{"startPeriod": 0}]),
            json!([{"startPeriod": -5, "limit": 6}]),
        ] {
            let payload = json!({"connectorId": 1, "csChargingProfiles": {"chargingProfileId": 1, "stackLevel": 0,
                "chargingProfilePurpose": "TxProfile", "chargingProfileKind": "Absolute",
                "chargingSchedule": {"chargingRateUnit": "A", "chargingSchedulePeriod": periods}}});
            assert!(Version::V16.profile(&payload.to_string(), now).is_err(), "{periods}");
        }
    }
}
