//! What holds and what is set, told to the backend: `GetCompositeSchedule`, `GetChargingProfiles`.

use serde_json::{Value, json};

use super::{Composite, Criteria, Purpose, Unit, read::int};
use crate::{
    ocpp::Version,
    time::Wall,
    units::{Milliamps, Millivolts},
};

impl Version {
    /// Reads a `GetCompositeSchedule`.
    pub(crate) fn composite_asked(self, payload: &str) -> Composite {
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        let place = if self.is_2() { "evseId" } else { "connectorId" };
        Composite {
            place: int(&payload[place]).unwrap_or(0),
            duration: int(&payload["duration"]).unwrap_or(0),
            unit: if payload["chargingRateUnit"] == "W" { Unit::Watts } else { Unit::Amps },
        }
    }

    /// The answer: periods as seconds from `now` and currents per phase.
    pub(crate) fn composite_answer(
        self,
        asked: &Composite,
        now: Wall,
        duration: i64,
        periods: &[(i64, Milliamps)],
        phases: usize,
    ) -> String {
        let limit = |limit: Milliamps| match asked.unit {
            Unit::Amps => tenths(limit.0.max(0) / 100),
            Unit::Watts => {
                let phases = i64::try_from(phases).unwrap_or(3);
                // Millivolts times milliamperes are microwatts.
                let watts =
                    i128::from(limit.0.max(0)) * i128::from(Millivolts::NOMINAL.0) * i128::from(phases)
                        / 1_000_000;
                json!(i64::try_from(watts).unwrap_or(i64::MAX))
            }
        };
        let list: Vec<Value> = periods
            .iter()
            .map(|(start, amps)| json!({ "startPeriod": start, "limit": limit(*amps), "numberPhases": phases }))
            .collect();
        let unit = if asked.unit == Unit::Watts { "W" } else { "A" };
        if self.is_2() {
            return json!({
                "status": "Accepted",
                "schedule": {
                    "evseId": asked.place,
                    "duration": duration,
                    "scheduleStart": now,
                    "chargingRateUnit": unit,
                    "chargingSchedulePeriod": list,
                },
            })
            .to_string();
        }
        json!({
            "status": "Accepted",
            "connectorId": asked.place,
            "scheduleStart": now,
            "chargingSchedule": {
                "duration": duration,
                "startSchedule": now,
                "chargingRateUnit": unit,
                "chargingSchedulePeriod": list,
            },
        })
        .to_string()
    }

    /// The refusal of a profile; 2.x says why (ReasonEnumStringType).
    pub(crate) fn profile_refused(self, reason: &str) -> String {
        if self.is_2() {
            return json!({ "status": "Rejected", "statusInfo": { "reasonCode": reason } }).to_string();
        }
        json!({ "status": "Rejected" }).to_string()
    }

    /// What a `GetChargingProfiles` picks.
    pub(crate) fn report_criteria(payload: &Value) -> Criteria {
        let from = &payload["chargingProfile"];
        Criteria {
            ids: from["chargingProfileId"].as_array().into_iter().flatten().filter_map(int).collect(),
            place: int(&payload["evseId"]),
            purpose: from["chargingProfilePurpose"].as_str().map(Purpose::of),
            level: int(&from["stackLevel"]),
        }
    }

    /// Whether profiles of the backend are asked for, or those of others alone.
    pub(crate) fn asks_for_backend(payload: &Value) -> bool {
        let sources = payload["chargingProfile"]["chargingLimitSource"].as_array();
        sources.is_none_or(|list| list.iter().any(|s| s == "CSO"))
    }

    /// The profile inside a `SetChargingProfile` of 2.x.
    pub(crate) fn profile_value(payload: &str) -> Value {
        let mut payload: Value = serde_json::from_str(payload).unwrap_or_default();
        payload.get_mut("chargingProfile").map(Value::take).unwrap_or_default()
    }

    /// `ReportChargingProfiles` for one place.
    pub(crate) fn report(asked: &Value, place: i64, profiles: &[Value], more: bool) -> String {
        json!({
            "requestId": int(&asked["requestId"]).unwrap_or(0),
            "chargingLimitSource": "CSO",
            "evseId": place,
            "chargingProfile": profiles,
            "tbc": more,
        })
        .to_string()
    }

    /// The highest stack level that an EVSE knows, from its answer to `GetConfiguration` (ChargeProfileMaxStackLevel) or
    /// `GetVariables` (SmartChargingCtrlr.ProfileStackLevel).
    pub(crate) fn levels(self, answer: &str) -> Option<i64> {
        let answer: Value = serde_json::from_str(answer).ok()?;
        let (list, value) = if self.is_2() {
            (&answer["getVariableResult"], "attributeValue")
        } else {
            (&answer["configurationKey"], "value")
        };
        let names = |entry: &Value| {
            if self.is_2() {
                entry["component"]["name"] == "SmartChargingCtrlr"
                    && entry["variable"]["name"] == "ProfileStackLevel"
            } else {
                entry["key"] == "ChargeProfileMaxStackLevel"
            }
        };
        list.as_array()?.iter().find(|e| names(e)).and_then(|e| int(&e[value]))
    }
}

/// Tenths as a number with at most one decimal digit.
pub(super) fn tenths(tenths: i64) -> Value {
    if tenths % 10 == 0 { json!(tenths / 10) } else { json!(tenths as f64 / 10.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composite_is_told_in_the_unit_that_was_asked_for() {
        let now = Wall::parse("2026-11-23T12:00:00Z").unwrap();
        let asked = |v: Version, text: &str| v.composite_asked(text);
        let periods = [(0, Milliamps(13_870)), (60, Milliamps::amps(6))];
        let watts = asked(Version::V16, r#"{"connectorId":1,"duration":600,"chargingRateUnit":"W"}"#);
        let answer: Value =
            serde_json::from_str(&Version::V16.composite_answer(&watts, now, 600, &periods, 3)).unwrap();
        let list = &answer["chargingSchedule"]["chargingSchedulePeriod"];
        assert_eq!((&list[0]["limit"], &list[1]["limit"]), (&json!(9570), &json!(4140)));
        let amps = asked(Version::V201, r#"{"evseId":1,"duration":600}"#);
        let answer: Value =
            serde_json::from_str(&Version::V201.composite_answer(&amps, now, 600, &periods, 1)).unwrap();
        let list = &answer["schedule"]["chargingSchedulePeriod"];
        assert_eq!((&list[0]["limit"], &list[1]["startPeriod"]), (&json!(13.8), &json!(60)));
    }

    #[test]
    fn the_number_of_levels_is_found() {
        let old = r#"{"configurationKey":[{"key":"X","value":"1"},{"key":"ChargeProfileMaxStackLevel","value":"0"}]}"#;
        assert_eq!(Version::V16.levels(old), Some(0));
        let new = r#"{"getVariableResult":[{"component":{"name":"SmartChargingCtrlr"},
            "variable":{"name":"ProfileStackLevel"},"attributeValue":"3"}]}"#;
        assert_eq!(Version::V201.levels(new), Some(3));
        assert_eq!(Version::V201.levels(old), None);
    }
}
