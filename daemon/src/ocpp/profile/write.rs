//! Our limit as a payload, in either version.

use std::time::Duration;

use serde_json::{Value, json};

use super::Purpose;
use crate::{ocpp::Version, plan::Setpoint, time::Wall, units::Milliamps};

/// How far before now our schedule starts: an EVSE whose clock is this much slow already obeys it.
const CLOCK_TOLERANCE_S: u64 = 300;

/// Amperes with one decimal, rounded down: a limit is never overstated (1.6 §7.14: at most one digit).
fn amps(limit: Milliamps) -> Value {
    let tenths = limit.0.max(0) / 100;
    if tenths % 10 == 0 { json!(tenths / 10) } else { json!(tenths as f64 / 10.0) }
}

impl Version {
    /// SetChargingProfile with our limit: from `now` for `lease` the limit, afterwards the failsafe value.
    pub(crate) fn set_limit(self, profile_id: i64, setpoint: &Setpoint, now: Wall) -> String {
        let schedule = json!({
            "startSchedule": now - Duration::from_secs(CLOCK_TOLERANCE_S),
            "chargingRateUnit": "A",
            "chargingSchedulePeriod": [
                { "startPeriod": 0, "limit": amps(setpoint.limit) },
                { "startPeriod": CLOCK_TOLERANCE_S + setpoint.lease.as_secs(), "limit": amps(setpoint.failsafe) },
            ],
        });
        self.set_max(profile_id, schedule).to_string()
    }

    /// SetChargingProfile of the station's maximum.
    fn set_max(self, profile_id: i64, mut schedule: Value) -> Value {
        let mut profile = json!({
            "stackLevel": 0,
            "chargingProfilePurpose": Purpose::Max.word(self),
            "chargingProfileKind": "Absolute",
        });
        if self.is_2() {
            profile["id"] = json!(profile_id);
            schedule["id"] = json!(1);
            profile["chargingSchedule"] = json!([schedule]);
            return json!({ "evseId": 0, "chargingProfile": profile });
        }
        profile["chargingProfileId"] = json!(profile_id);
        profile["chargingSchedule"] = schedule;
        json!({ "connectorId": 0, "csChargingProfiles": profile })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_rounded_down_and_carries_its_failsafe() {
        let setpoint = Setpoint {
            sequence: 1,
            limit: Milliamps(13_870),
            failsafe: Milliamps(6000),
            lease: Duration::from_millis(60_900),
            reason: String::new(),
        };
        let now = Wall::parse("2026-11-23T12:00:00Z").unwrap();
        let value = |version: Version| -> Value {
            serde_json::from_str(&version.set_limit(7, &setpoint, now)).unwrap()
        };
        let (old, new) = (value(Version::V16), value(Version::V201));
        let schedule = &old["csChargingProfiles"]["chargingSchedule"];
        assert_eq!(schedule["startSchedule"], "2026-11-23T11:55:00.000Z");
        assert_eq!(schedule["chargingSchedulePeriod"][0], json!({ "startPeriod": 0, "limit": 13.8 }));
        assert_eq!(schedule["chargingSchedulePeriod"][1], json!({ "startPeriod": 360, "limit": 6 }));
        let profile = &new["chargingProfile"];
        assert_eq!((&new["evseId"], &profile["id"]), (&json!(0), &json!(7)));
        assert_eq!(profile["chargingProfilePurpose"], "ChargingStationMaxProfile");
        assert_eq!(profile["chargingSchedule"][0]["id"], 1);
    }
}
