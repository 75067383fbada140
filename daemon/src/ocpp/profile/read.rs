//! Payloads → profiles and criteria.

use serde_json::Value;

use super::{Criteria, Kind, Period, Profile, Purpose, Schedule, Unit};
use crate::{ocpp::Version, time::Wall};

const DAY_MS: i64 = 86_400_000;

pub(super) fn int(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64);
    match value {
        Value::Number(n) => n.as_i64().or_else(|| whole(n.as_f64()?)),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(n) => n.as_f64()?,
        Value::String(s) => s.trim().parse().ok()?,
        _ => return None,
    };
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn time(value: &Value) -> Option<Wall> {
    Wall::parse(value.as_str()?)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn one_or_first(value: &Value) -> &Value {
    value.as_array().map_or(value, |list| list.first().unwrap_or(&Value::Null))
}

fn schedule(value: &Value) -> Result<Schedule, &'static str> {
    let unit = match value["chargingRateUnit"].as_str() {
        Some("A" | "Current") => Unit::Amps,
        Some("W" | "Power") => Unit::Watts,
        _ => return Err("chargingRateUnit is neither A nor W"),
    };
    let list = value["chargingSchedulePeriod"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut periods = Vec::with_capacity(list.len());
    for period in list {
        periods.push(Period {
            start: int(&period["startPeriod"])
                .filter(|s| *s >= 0)
                .ok_or("startPeriod is not a number of seconds")?,
            // 2.1 may leave it out and give a setpoint instead; for the site a setpoint is what flows.
            limit: real(&period["limit"])
                .or_else(|| real(&period["setpoint"]))
                .ok_or("limit is not a number from 0 on")?,
            phases: int(&period["numberPhases"]).filter(|n| (1..=3).contains(n)),
        });
    }
    if periods.is_empty() {
        return Err("chargingSchedulePeriod is empty");
    }
    periods.sort_by_key(|p| p.start);
    Ok(Schedule {
        start: time(&value["startSchedule"]),
        duration: int(&value["duration"]).filter(|d| *d >= 0),
        unit,
        periods,
    })
}

impl Version {
    /// The purpose and the id of the profile in a `SetChargingProfile`, as far as they can be read.
    pub(crate) fn profile_mark(self, payload: &str) -> (Purpose, Option<i64>) {
        let (profile, id) = self.profile_of(payload);
        let id = int(&profile[id]);
        (Purpose::of(profile["chargingProfilePurpose"].as_str().unwrap_or_default()), id)
    }

    fn profile_of(self, payload: &str) -> (Value, &'static str) {
        let mut payload: Value = serde_json::from_str(payload).unwrap_or_default();
        let (member, id) =
            if self.is_2() { ("chargingProfile", "id") } else { ("csChargingProfiles", "chargingProfileId") };
        (payload.get_mut(member).map(Value::take).unwrap_or_default(), id)
    }

    /// Reads a `SetChargingProfile`.
    pub(crate) fn profile(self, payload: &str, now: Wall) -> Result<Profile, &'static str> {
        let whole: Value = serde_json::from_str(payload).map_err(|_| "the payload is not JSON")?;
        let place =
            int(&whole[if self.is_2() { "evseId" } else { "connectorId" }]).ok_or("no connector is named")?;
        let (profile, id) = self.profile_of(payload);
        let kind = match profile["chargingProfileKind"].as_str() {
            Some("Absolute" | "Dynamic") => Kind::Absolute,
            Some("Recurring") => {
                Kind::Recurring(if profile["recurrencyKind"] == "Weekly" { 7 * DAY_MS } else { DAY_MS })
            }
            Some("Relative") => Kind::Relative,
            _ => return Err("chargingProfileKind is unknown"),
        };
        Ok(Profile {
            place,
            id: int(&profile[id]).ok_or("the profile has no id")?,
            level: int(&profile["stackLevel"])
                .filter(|l| *l >= 0)
                .ok_or("stackLevel is not a number from 0 on")?,
            purpose: Purpose::of(profile["chargingProfilePurpose"].as_str().unwrap_or_default()),
            kind,
            transaction: text(&profile["transactionId"]),
            valid_from: time(&profile["validFrom"]),
            valid_to: time(&profile["validTo"]),
            schedule: schedule(one_or_first(&profile["chargingSchedule"]))?,
            set: now,
        })
    }

    /// Reads a `ClearChargingProfile`.
    pub(crate) fn clear_criteria(self, payload: &str) -> Criteria {
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        let (id, place, from) = if self.is_2() {
            ("chargingProfileId", "evseId", &payload["chargingProfileCriteria"])
        } else {
            ("id", "connectorId", &payload)
        };
        Criteria {
            ids: int(&payload[id]).into_iter().collect(),
            place: int(&from[place]),
            purpose: from["chargingProfilePurpose"].as_str().map(Purpose::of),
            level: int(&from["stackLevel"]),
        }
    }
}
