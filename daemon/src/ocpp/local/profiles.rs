//! The charging profiles of a charge point that is played here (1.6 §3.13).
//!
//! In: `SetChargingProfile`, `ClearChargingProfile`, the time, the running transaction. Out: the current that is
//! allowed, and when that changes. Invariant: within a purpose the highest valid stack level counts, between purposes
//! the smallest limit; watts are divided by the nominal voltage and rounded down.

use serde_json::{Value, json};

use crate::{
    time::Wall,
    units::{Milliamps, Millivolts},
};

/// `MaxChargingProfilesInstalled`.
pub(super) const MOST: usize = 20;
/// `ChargeProfileMaxStackLevel`.
pub(super) const MOST_LEVEL: i64 = 10;
/// `ChargingScheduleMaxPeriods`.
pub(super) const MOST_PERIODS: usize = 100;

const MAX: &str = "ChargePointMaxProfile";
const TX_DEFAULT: &str = "TxDefaultProfile";
const TX: &str = "TxProfile";

/// The transaction that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) started: Wall,
    pub(super) id: Option<i64>,
}

/// Why a profile is not taken, or a limit.
type Said<T> = Result<T, &'static str>;

fn profile(entry: &Value) -> &Value {
    &entry["csChargingProfiles"]
}

fn seconds(from: Wall, to: Wall) -> i64 {
    to.0.saturating_sub(from.0).div_euclid(1000)
}

fn time(value: &Value) -> Option<Wall> {
    Wall::parse(value.as_str()?)
}

/// Checks a SetChargingProfile.req (§6.43). `site`: the charge point stands for the whole site and has no
/// transactions.
pub(super) fn check(entry: &Value, running: Option<Running>, site: bool) -> Said<()> {
    let p = profile(entry);
    let connector = entry["connectorId"].as_i64().ok_or("no connectorId")?;
    let purpose = p["chargingProfilePurpose"].as_str().ok_or("no chargingProfilePurpose")?;
    p["chargingProfileId"].as_i64().ok_or("no chargingProfileId")?;
    let level = p["stackLevel"].as_i64().ok_or("no stackLevel")?;
    if !(0..=MOST_LEVEL).contains(&level) {
        return Err("the stackLevel is too high");
    }
    match (purpose, connector) {
        (MAX, 0) | (TX_DEFAULT, 0 | 1) => {}
        (TX, 1) if !site => {
            let running = running.ok_or("no transaction runs")?;
            if p["transactionId"].as_i64().is_some_and(|id| running.id != Some(id)) {
                return Err("another transaction runs");
            }
        }
        _ => return Err("the purpose does not fit the connector"),
    }
    let kind = p["chargingProfileKind"].as_str().ok_or("no chargingProfileKind")?;
    let schedule = &p["chargingSchedule"];
    let periods = schedule["chargingSchedulePeriod"].as_array().ok_or("no chargingSchedulePeriod")?;
    if !matches!(schedule["chargingRateUnit"].as_str(), Some("A" | "W")) {
        return Err("the chargingRateUnit is neither A nor W");
    }
    if periods.is_empty() || periods.len() > MOST_PERIODS {
        return Err("too few or too many periods");
    }
    let mut last = -1;
    for period in periods {
        let start = period["startPeriod"].as_i64().ok_or("a period without startPeriod")?;
        let limit = period["limit"].as_f64().filter(|l| l.is_finite() && (0.0..1e9).contains(l));
        limit.ok_or("a period without a usable limit")?;
        if start <= last || (last == -1 && start != 0) {
            return Err("the periods are not in order from 0");
        }
        last = start;
    }
    match kind {
        "Absolute" | "Relative" => Ok(()),
        "Recurring" if time(&schedule["startSchedule"]).is_some() => Ok(()),
        _ => Err("the chargingProfileKind does not fit"),
    }
}

/// Installs a checked profile: in place of one with the same id, or the same purpose, level and connector (§5.16.1).
pub(super) fn set(all: &mut Vec<Value>, entry: Value) -> Said<()> {
    let key = |e: &Value| {
        let p = profile(e);
        (e["connectorId"].clone(), p["chargingProfilePurpose"].clone(), p["stackLevel"].clone())
    };
    all.retain(|e| {
        profile(e)["chargingProfileId"] != profile(&entry)["chargingProfileId"] && key(e) != key(&entry)
    });
    if all.len() >= MOST {
        return Err("too many profiles");
    }
    all.push(entry);
    Ok(())
}

/// Removes what ClearChargingProfile.req names (§5.4); says whether anything was there.
pub(super) fn clear(all: &mut Vec<Value>, wanted: &Value) -> bool {
    let before = all.len();
    let given = |name: &str| wanted.get(name).filter(|v| !v.is_null());
    all.retain(|e| {
        let p = profile(e);
        if let Some(id) = given("id") {
            return p["chargingProfileId"] != *id;
        }
        let fits = |name: &str, value: &Value| given(name).is_none_or(|wanted| wanted == value);
        !(fits("connectorId", &e["connectorId"])
            && fits("chargingProfilePurpose", &p["chargingProfilePurpose"])
            && fits("stackLevel", &p["stackLevel"]))
    });
    all.len() < before
}

/// Drops the profiles of a transaction that is over.
pub(super) fn forget_transaction(all: &mut Vec<Value>) -> bool {
    let before = all.len();
    all.retain(|e| profile(e)["chargingProfilePurpose"] != TX);
    all.len() < before
}

/// When a schedule that is in force at `at` began.
fn began(p: &Value, at: Wall, running: Option<Running>) -> Option<Wall> {
    let schedule = &p["chargingSchedule"];
    let start = time(&schedule["startSchedule"]);
    match p["chargingProfileKind"].as_str()? {
        "Relative" => Some(running.map_or(at, |r| r.started)),
        "Recurring" => {
            let every = if p["recurrencyKind"] == "Weekly" { 604_800_000 } else { 86_400_000 };
            let start = start?;
            Some(Wall(at.0 - (at.0 - start.0).rem_euclid(every)))
        }
        _ => Some(start.unwrap_or_else(|| running.map_or(at, |r| r.started))),
    }
}

/// What one profile allows at `at`, if it says anything.
fn allows(p: &Value, at: Wall, running: Option<Running>) -> Option<Milliamps> {
    if time(&p["validFrom"]).is_some_and(|from| at < from) || time(&p["validTo"]).is_some_and(|to| at >= to) {
        return None;
    }
    let schedule = &p["chargingSchedule"];
    let elapsed = seconds(began(p, at, running)?, at);
    if elapsed < 0 || schedule["duration"].as_i64().is_some_and(|d| elapsed >= d) {
        return None;
    }
    let periods = schedule["chargingSchedulePeriod"].as_array()?;
    let period = periods.iter().rfind(|p| p["startPeriod"].as_i64().is_some_and(|s| s <= elapsed))?;
    let limit = period["limit"].as_f64()?;
    let milliamps = if schedule["chargingRateUnit"] == "W" {
        #[expect(clippy::cast_precision_loss, reason = "a voltage")]
        let volts = Millivolts::NOMINAL.0 as f64 / 1000.0;
        let phases = period["numberPhases"].as_i64().unwrap_or(3).clamp(1, 3);
        #[expect(clippy::cast_precision_loss, reason = "1 to 3")]
        let current = limit / volts / phases as f64;
        current * 1000.0
    } else {
        limit * 1000.0
    };
    #[expect(clippy::cast_possible_truncation, reason = "checked to be below 1e12")]
    Some(Milliamps(milliamps.floor() as i64))
}

fn by_purpose(all: &[Value], purpose: &str, at: Wall, running: Option<Running>) -> Option<Milliamps> {
    let of = all.iter().map(profile).filter(|p| p["chargingProfilePurpose"] == purpose);
    let valid = of.filter_map(|p| Some((p["stackLevel"].as_i64()?, allows(p, at, running)?)));
    valid.max_by_key(|(level, _)| *level).map(|(_, limit)| limit)
}

/// What all of them allow at `at`; nothing without a limit.
pub(super) fn limit(all: &[Value], at: Wall, running: Option<Running>) -> Option<Milliamps> {
    let tx = running.and_then(|_| by_purpose(all, TX, at, running));
    let tx = tx.or_else(|| by_purpose(all, TX_DEFAULT, at, running));
    [by_purpose(all, MAX, at, running), tx].into_iter().flatten().min()
}

/// The instants in `(from, to)` at which the limit may change, in order.
fn edges(all: &[Value], from: Wall, to: Wall, running: Option<Running>) -> Vec<Wall> {
    let mut edges = Vec::new();
    for p in all.iter().map(profile) {
        edges.extend([time(&p["validFrom"]), time(&p["validTo"])].into_iter().flatten());
        let mut at = from;
        // A recurring schedule begins anew within the time: at most a few times in what is asked for.
        for _ in 0..64 {
            let Some(began) = began(p, at, running) else { break };
            let schedule = &p["chargingSchedule"];
            let periods = schedule["chargingSchedulePeriod"].as_array().into_iter().flatten();
            let starts =
                periods.filter_map(|p| p["startPeriod"].as_i64()).chain(schedule["duration"].as_i64());
            edges.extend(starts.map(|s| Wall(began.0.saturating_add(s.saturating_mul(1000)))));
            if p["chargingProfileKind"] != "Recurring" {
                break;
            }
            let every = if p["recurrencyKind"] == "Weekly" { 604_800_000 } else { 86_400_000 };
            at = Wall(began.0 + every);
            edges.push(at);
            if at >= to {
                break;
            }
        }
    }
    edges.retain(|at| *at > from && *at < to);
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// When the limit of now changes next, within a week.
pub(super) fn until(all: &[Value], now: Wall, running: Option<Running>) -> Option<Wall> {
    let present = limit(all, now, running);
    let week = now + std::time::Duration::from_secs(7 * 86_400);
    edges(all, now, week, running).into_iter().find(|at| limit(all, *at, running) != present)
}

/// GetCompositeSchedule.conf's `chargingSchedule` (§5.7); `most` is what the charge point can do by itself.
pub(super) fn composite(
    all: &[Value],
    now: Wall,
    duration: i64,
    unit: &str,
    running: Option<Running>,
    most: Milliamps,
) -> Value {
    let duration = duration.clamp(0, 7 * 86_400);
    let end = Wall(now.0 + duration * 1000);
    let mut periods: Vec<Value> = Vec::new();
    for at in std::iter::once(now).chain(edges(all, now, end, running)) {
        let amps = limit(all, at, running).map_or(most, |l| l.min(most)).0 / 100;
        let value = if unit == "W" { json!(amps * 3 * Millivolts::NOMINAL.0 / 10_000) } else { tenths(amps) };
        if periods.last().is_none_or(|last| last["limit"] != value) && periods.len() < MOST_PERIODS {
            periods.push(json!({ "startPeriod": seconds(now, at), "limit": value }));
        }
    }
    json!({
        "duration": duration, "startSchedule": now, "chargingRateUnit": if unit == "W" { "W" } else { "A" },
        "chargingSchedulePeriod": periods,
    })
}

/// §7.14: at most one digit behind the point.
fn tenths(tenths: i64) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a current")]
    if tenths % 10 == 0 { json!(tenths / 10) } else { json!(tenths as f64 / 10.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Wall {
        Wall::parse(&format!("2026-11-24T{time}Z")).unwrap()
    }

    fn entry(id: i64, purpose: &str, level: i64, unit: &str, periods: &[(i64, f64)]) -> Value {
        let periods: Vec<_> = periods.iter().map(|(s, l)| json!({ "startPeriod": s, "limit": l })).collect();
        json!({ "connectorId": i32::from(purpose == TX), "csChargingProfiles": {
            "chargingProfileId": id, "stackLevel": level, "chargingProfilePurpose": purpose,
            "chargingProfileKind": "Absolute", "chargingSchedule": {
                "startSchedule": "2026-11-24T12:00:00Z", "chargingRateUnit": unit, "chargingSchedulePeriod": periods } } })
    }

    #[test]
    fn the_lowest_purpose_and_the_highest_level_count() {
        let mut all = vec![];
        set(&mut all, entry(1, MAX, 0, "A", &[(0, 32.0), (3600, 10.0)])).unwrap();
        set(&mut all, entry(2, TX_DEFAULT, 0, "W", &[(0, 11_040.0)])).unwrap();
        assert_eq!(limit(&all, at("12:10:00"), None), Some(Milliamps(16_000)));
        set(&mut all, entry(3, TX_DEFAULT, 1, "A", &[(0, 24.0)])).unwrap();
        assert_eq!(limit(&all, at("12:10:00"), None), Some(Milliamps(24_000)), "the level overrides");
        assert_eq!(limit(&all, at("13:10:00"), None), Some(Milliamps(10_000)));
        assert_eq!(limit(&all, at("11:10:00"), None), None, "none of them has begun");
        assert_eq!(until(&all, at("12:10:00"), None), Some(at("13:00:00")));
        let running = Some(Running { started: at("12:00:00"), id: Some(7) });
        set(&mut all, entry(4, TX, 0, "A", &[(0, 6.5)])).unwrap();
        assert_eq!(limit(&all, at("12:10:00"), running), Some(Milliamps(6500)));
        assert_eq!(limit(&all, at("12:10:00"), None), Some(Milliamps(24_000)));
        let composite = composite(&all, at("12:10:00"), 7200, "A", None, Milliamps::amps(20));
        assert_eq!(
            composite["chargingSchedulePeriod"],
            json!([{ "startPeriod": 0, "limit": 20 }, { "startPeriod": 3000, "limit": 10 }])
        );
        assert!(forget_transaction(&mut all));
        assert!(clear(&mut all, &json!({ "chargingProfilePurpose": TX_DEFAULT, "stackLevel": 1 })));
        assert_eq!(all.len(), 2);
        assert!(clear(&mut all, &json!({ "id": 1 })) && !clear(&mut all, &json!({ "id": 1 })));
        assert!(clear(&mut all, &json!({})));
    }

    #[test]
    fn a_day_comes_round_again() {
        let mut daily = entry(1, MAX, 0, "A", &[(0, 6.0), (3600, 32.0)]);
        daily["csChargingProfiles"]["chargingProfileKind"] = json!("Recurring");
        daily["csChargingProfiles"]["recurrencyKind"] = json!("Daily");
        assert_eq!(check(&daily, None, true), Ok(()));
        let all = [daily];
        let later = |time: &str| Wall::parse(&format!("2026-12-24T{time}Z")).unwrap();
        assert_eq!(limit(&all, later("12:30:00"), None), Some(Milliamps::amps(6)));
        assert_eq!(limit(&all, later("11:30:00"), None), Some(Milliamps::amps(32)));
        assert_eq!(until(&all, later("11:30:00"), None), Some(later("12:00:00")));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let good = entry(1, TX_DEFAULT, 0, "A", &[(0, 6.0)]);
        assert_eq!(check(&good, None, false), Ok(()));
        for (path, wrong) in [
            ("/connectorId", json!(2)),
            ("/csChargingProfiles/stackLevel", json!(11)),
            ("/csChargingProfiles/chargingProfilePurpose", json!("TxProfile")),
            ("/csChargingProfiles/chargingSchedule/chargingRateUnit", json!("kW")),
            ("/csChargingProfiles/chargingSchedule/chargingSchedulePeriod", json!([])),
            ("/csChargingProfiles/chargingSchedule/chargingSchedulePeriod/0/startPeriod", json!(5)),
            ("/csChargingProfiles/chargingSchedule/chargingSchedulePeriod/0/limit", json!(-1)),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = wrong;
            assert!(check(&bad, None, false).is_err(), "{path}");
        }
        assert!(check(&json!({}), None, false).is_err());
    }
}
