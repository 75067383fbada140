//! Charging profiles of a charge point (OCPP 1.6 §3.13, §7.8, §7.13): what was installed → how much may be offered
//! at an instant. Pure: time is passed in.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::car::VOLTS;

/// The installed profiles.
#[derive(Debug, Clone, Default)]
pub struct Profiles {
    installed: Vec<Profile>,
}

#[derive(Debug, Clone)]
struct Profile {
    id: i64,
    purpose: Purpose,
    stack: i64,
    transaction: Option<i64>,
    begins: Timestamp,
    ends: Option<Timestamp>,
    periods: Vec<(SignedDuration, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Max,
    TxDefault,
    Tx,
}

impl Profiles {
    /// SetChargingProfile (§5.16). `Ok` is the limit that holds at its first period and the one of its last, with
    /// the seconds until then. Errors: the reason for `Rejected`.
    pub fn set(
        &mut self,
        request: &Value,
        running: Option<i64>,
        phases: usize,
        now: Timestamp,
    ) -> Result<Installed, &'static str> {
        let connector = request["connectorId"].as_i64().ok_or("connectorId is missing")?;
        let body = &request["csChargingProfiles"];
        let purpose = match body["chargingProfilePurpose"].as_str() {
            Some("ChargePointMaxProfile") => Purpose::Max,
            Some("TxDefaultProfile") => Purpose::TxDefault,
            Some("TxProfile") => Purpose::Tx,
            _ => return Err("unknown chargingProfilePurpose"),
        };
        if purpose == Purpose::Max && connector != 0 {
            return Err("ChargePointMaxProfile goes to connector 0");
        }
        if !(0..=1).contains(&connector) {
            return Err("no such connector");
        }
        let transaction = body["transactionId"].as_i64();
        if purpose == Purpose::Tx && (running.is_none() || transaction.is_some_and(|t| Some(t) != running)) {
            return Err("no such transaction");
        }
        let schedule = &body["chargingSchedule"];
        let factor = match schedule["chargingRateUnit"].as_str() {
            Some("A") => 1.0,
            Some("W") => 1.0 / (VOLTS * phases as f64),
            _ => return Err("chargingRateUnit is A or W"),
        };
        let time = |value: &Value| value.as_str().and_then(|t| t.parse::<Timestamp>().ok());
        let mut periods = Vec::new();
        for period in schedule["chargingSchedulePeriod"].as_array().into_iter().flatten() {
            let start = period["startPeriod"].as_i64().filter(|s| *s >= 0).ok_or("startPeriod is missing")?;
            let limit = period["limit"].as_f64().filter(|l| *l >= 0.0).ok_or("limit is missing")?;
            periods.push((SignedDuration::from_secs(start), limit * factor));
        }
        if periods.first().is_none_or(|(start, _)| !start.is_zero()) {
            return Err("the first period begins at 0");
        }
        if !periods.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("the periods are not in order");
        }
        let begins = time(&schedule["startSchedule"]).unwrap_or(now);
        let duration = schedule["duration"].as_i64().map(|s| begins + SignedDuration::from_secs(s));
        let ends = [duration, time(&body["validTo"])].into_iter().flatten().min();
        let profile = Profile {
            id: body["chargingProfileId"].as_i64().ok_or("chargingProfileId is missing")?,
            purpose,
            stack: body["stackLevel"].as_i64().ok_or("stackLevel is missing")?,
            transaction: transaction.or(running).filter(|_| purpose == Purpose::Tx),
            begins,
            ends,
            periods,
        };
        let installed = Installed {
            limit: profile.limit(now.max(begins)).unwrap_or(0.0),
            failsafe: profile.periods.last().map_or(0.0, |p| p.1),
            lease: profile
                .periods
                .last()
                .map_or(SignedDuration::ZERO, |p| (begins + p.0).duration_since(now)),
        };
        self.installed.retain(|p| p.id != profile.id && (p.purpose, p.stack) != (purpose, profile.stack));
        self.installed.push(profile);
        Ok(installed)
    }

    /// ClearChargingProfile (§5.5): whether anything fitted.
    pub fn clear(&mut self, request: &Value) -> bool {
        let before = self.installed.len();
        let fits = |p: &Profile| {
            request["id"].as_i64().is_none_or(|id| id == p.id)
                && request["stackLevel"].as_i64().is_none_or(|s| s == p.stack)
                && match request["chargingProfilePurpose"].as_str() {
                    None => true,
                    Some("ChargePointMaxProfile") => p.purpose == Purpose::Max,
                    Some("TxDefaultProfile") => p.purpose == Purpose::TxDefault,
                    Some(_) => p.purpose == Purpose::Tx,
                }
        };
        self.installed.retain(|p| !fits(p));
        self.installed.len() < before
    }

    /// The transaction is over: its profiles go.
    pub fn forget_transaction(&mut self) {
        self.installed.retain(|p| p.purpose != Purpose::Tx);
    }

    /// Amperes per phase that may be offered now: the smallest over the purposes, the highest stack level within
    /// one; `None` without a valid profile.
    #[must_use]
    pub fn limit(&self, running: Option<i64>, now: Timestamp) -> Option<f64> {
        let of = |purpose| {
            self.installed
                .iter()
                .filter(|p| p.purpose == purpose && (p.transaction.is_none() || p.transaction == running))
                .filter_map(|p| p.limit(now).map(|l| (p.stack, l)))
                .max_by_key(|(stack, _)| *stack)
                .map(|(_, limit)| limit)
        };
        let session = running.and_then(|_| of(Purpose::Tx)).or_else(|| of(Purpose::TxDefault));
        [of(Purpose::Max), session].into_iter().flatten().min_by(f64::total_cmp)
    }
}

/// What a SetChargingProfile brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Installed {
    /// A per phase, now.
    pub limit: f64,
    /// A per phase in the last period.
    pub failsafe: f64,
    /// Until the last period.
    pub lease: SignedDuration,
}

impl Profile {
    fn limit(&self, now: Timestamp) -> Option<f64> {
        if now < self.begins || self.ends.is_some_and(|end| now >= end) {
            return None;
        }
        let passed = now.duration_since(self.begins);
        self.periods.iter().rev().find(|(start, _)| *start <= passed).map(|(_, limit)| *limit)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn profile(id: i64, purpose: &str, stack: i64, limit: f64, failsafe: f64) -> Value {
        json!({ "connectorId": 0, "csChargingProfiles": {
            "chargingProfileId": id, "stackLevel": stack, "chargingProfilePurpose": purpose,
            "chargingProfileKind": "Absolute",
            "chargingSchedule": { "chargingRateUnit": "A", "startSchedule": at(0).to_string(),
                "chargingSchedulePeriod": [
                    { "startPeriod": 0, "limit": limit }, { "startPeriod": 30, "limit": failsafe } ] } } })
    }

    #[test]
    fn a_lease_falls_to_its_failsafe_value() {
        let mut profiles = Profiles::default();
        assert_eq!(profiles.limit(None, at(0)), None);
        let installed =
            profiles.set(&profile(1, "ChargePointMaxProfile", 0, 16.0, 6.0), None, 3, at(10)).unwrap();
        assert_eq!(installed, Installed { limit: 16.0, failsafe: 6.0, lease: SignedDuration::from_secs(20) });
        assert_eq!(profiles.limit(None, at(29)), Some(16.0));
        assert_eq!(profiles.limit(None, at(30)), Some(6.0));
        assert_eq!(profiles.limit(None, at(90_000)), Some(6.0));
    }

    #[test]
    fn the_smallest_purpose_wins_and_the_highest_level_within_one() {
        let mut profiles = Profiles::default();
        profiles.set(&profile(1, "ChargePointMaxProfile", 0, 16.0, 6.0), None, 3, at(0)).unwrap();
        profiles.set(&profile(2, "ChargePointMaxProfile", 5, 20.0, 6.0), None, 3, at(0)).unwrap();
        assert_eq!(profiles.limit(None, at(1)), Some(20.0));
        profiles.set(&profile(3, "TxDefaultProfile", 0, 10.0, 10.0), None, 3, at(0)).unwrap();
        assert_eq!(profiles.limit(Some(7), at(1)), Some(10.0));
        assert!(profiles.clear(&json!({ "chargingProfilePurpose": "TxDefaultProfile" })));
        assert!(!profiles.clear(&json!({ "id": 3 })));
        assert_eq!(profiles.limit(Some(7), at(1)), Some(20.0));
    }

    #[test]
    fn what_a_charge_point_cannot_follow_is_rejected() {
        let mut profiles = Profiles::default();
        let mut wrong = profile(1, "ChargePointMaxProfile", 0, 16.0, 6.0);
        wrong["connectorId"] = json!(1);
        assert!(profiles.set(&wrong, None, 3, at(0)).is_err());
        assert!(profiles.set(&profile(1, "TxProfile", 0, 16.0, 6.0), None, 3, at(0)).is_err());
        let mut wrong = profile(1, "ChargePointMaxProfile", 0, 16.0, 6.0);
        wrong["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"] = json!([]);
        assert!(profiles.set(&wrong, None, 3, at(0)).is_err());
    }
}
