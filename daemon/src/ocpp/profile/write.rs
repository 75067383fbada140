//! Our profile as a payload, in either version.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Purpose, composite::tenths};
use crate::{ocpp::Version, plan::Setpoint, time::Wall, units::Milliamps};

/// How far before now our schedule starts: an EVSE whose clock is this much slow already obeys it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// What goes into our profile.
#[derive(Debug)]
pub(crate) struct Limit<'a> {
    pub(crate) profile_id: i64,
    pub(crate) setpoint: &'a Setpoint,
    /// What of the backend is merged into it: instants from now on, as far as the lease goes.
    pub(crate) during: &'a [(Wall, Milliamps)],
    /// The lowest of the backend's after the lease.
    pub(crate) after: Option<Milliamps>,
}

/// Amperes with one decimal, rounded down: a limit is never overstated (1.6 §7.14: at most one digit).
fn amps(limit: Milliamps) -> Value {
    tenths(limit.0.max(0) / 100)
}

impl Limit<'_> {
    /// Periods as seconds from the begin of the schedule: during the lease the lower of both, afterwards the lower of
    /// the failsafe value and whatever the backend will allow.
    fn periods(&self, now: Wall) -> Vec<(u64, Milliamps)> {
        let own = self.setpoint.limit;
        let tolerance = CLOCK_TOLERANCE.as_secs();
        let mut periods: Vec<(u64, Milliamps)> = Vec::new();
        let mut push = |start: u64, limit: Milliamps| {
            if periods.last().is_none_or(|(_, last)| *last != limit) {
                periods.push((start, limit));
            }
        };
        let first = self.during.first().map_or(own, |(_, limit)| own.min(*limit));
        push(0, first);
        for (at, limit) in self.during.iter().skip(1) {
            let later = u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0) / 1000;
            push(tolerance + later, own.min(*limit));
        }
        let failsafe = self.after.map_or(self.setpoint.failsafe, |limit| self.setpoint.failsafe.min(limit));
        periods.push((tolerance + self.setpoint.lease.as_secs(), failsafe));
        periods
    }
}

impl Version {
    /// SetChargingProfile of the station's maximum.
    pub(crate) fn set_limit(self, limit: &Limit<'_>, now: Wall) -> String {
        let periods: Vec<Value> = limit
            .periods(now)
            .into_iter()
            .map(|(start, value)| {
                let mut period = json!({ "startPeriod": start, "limit": amps(value) });
                // After the lease, too: an EVSE does not switch under load by itself.
                if limit.setpoint.one_phase {
                    period["numberPhases"] = json!(1);
                }
                period
            })
            .collect();
        let mut schedule = json!({
            "startSchedule": now - CLOCK_TOLERANCE,
            "chargingRateUnit": "A",
            "chargingSchedulePeriod": periods,
        });
        let mut profile = json!({
            "stackLevel": 0,
            "chargingProfilePurpose": Purpose::Max.word(self),
            "chargingProfileKind": "Absolute",
        });
        if self.is_2() {
            profile["id"] = json!(limit.profile_id);
            schedule["id"] = json!(1);
            profile["chargingSchedule"] = json!([schedule]);
            return json!({ "evseId": 0, "chargingProfile": profile }).to_string();
        }
        profile["chargingProfileId"] = json!(limit.profile_id);
        profile["chargingSchedule"] = schedule;
        json!({ "connectorId": 0, "csChargingProfiles": profile }).to_string()
    }

    /// ClearChargingProfile of one profile.
    pub(crate) fn clear_one(self, id: i64) -> String {
        let name = if self.is_2() { "chargingProfileId" } else { "id" };
        json!({ name: id }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setpoint(limit: i64) -> Setpoint {
        Setpoint {
            sequence: 1,
            limit: Milliamps(limit),
            failsafe: Milliamps(6000),
            lease: Duration::from_millis(60_900),
            one_phase: false,
            reason: String::new(),
        }
    }

    fn written(version: Version, limit: &Limit<'_>) -> Value {
        let now = Wall::parse("2026-11-23T12:00:00Z").unwrap();
        serde_json::from_str(&version.set_limit(limit, now)).unwrap()
    }

    #[test]
    fn a_limit_is_rounded_down_and_carries_its_failsafe() {
        let limit = Limit { profile_id: 7, setpoint: &setpoint(13_870), during: &[], after: None };
        let (old, new) = (written(Version::V16, &limit), written(Version::V201, &limit));
        let schedule = &old["csChargingProfiles"]["chargingSchedule"];
        assert_eq!(schedule["startSchedule"], "2026-11-23T11:55:00.000Z");
        assert_eq!(schedule["chargingSchedulePeriod"][0], json!({ "startPeriod": 0, "limit": 13.8 }));
        assert_eq!(schedule["chargingSchedulePeriod"][1], json!({ "startPeriod": 360, "limit": 6 }));
        let profile = &new["chargingProfile"];
        assert_eq!((&new["evseId"], &profile["id"]), (&json!(0), &json!(7)));
        assert_eq!(profile["chargingProfilePurpose"], "ChargingStationMaxProfile");
        assert_eq!(profile["chargingSchedule"][0]["id"], 1);
    }

    #[test]
    fn one_phase_is_said_and_more_is_not() {
        for version in Version::ALL {
            for one_phase in [false, true] {
                let setpoint = Setpoint { one_phase, ..setpoint(13_000) };
                let limit = Limit { profile_id: 7, setpoint: &setpoint, during: &[], after: None };
                let text = written(version, &limit).to_string();
                assert_eq!(
                    text.matches(r#""numberPhases":1"#).count(),
                    if one_phase { 2 } else { 0 },
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn the_lower_of_both_holds_at_every_instant() {
        let now = Wall::parse("2026-11-23T12:00:00Z").unwrap();
        let during = [(now, Milliamps::amps(20)), (now + Duration::from_secs(30), Milliamps::amps(8))];
        let limit = Limit {
            profile_id: 7,
            setpoint: &setpoint(16_000),
            during: &during,
            after: Some(Milliamps::ZERO),
        };
        let periods = &written(Version::V16, &limit)["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"];
        assert_eq!(
            *periods,
            json!([{"startPeriod": 0, "limit": 16}, {"startPeriod": 330, "limit": 8}, {"startPeriod": 360, "limit": 0}])
        );
    }
}
