//! The backend's charging profiles beside the site's limit.

use serde_json::{Value, json};

use super::{super::queue::SavedProfile, tests::Bench, *};

fn profile(id: i64, purpose: &str, level: i64, amps: i64) -> Value {
    json!({"connectorId": i64::from(purpose != "ChargePointMaxProfile"), "csChargingProfiles": {
        "chargingProfileId": id, "stackLevel": level, "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Absolute", "chargingSchedule": {"chargingRateUnit": "A",
        "startSchedule": "2026-11-23T11:00:00Z", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": amps}]}}})
}

fn set(id: &str, payload: &Value) -> Value {
    json!([2, id, "SetChargingProfile", payload])
}

impl Bench {
    /// A site's limit that the EVSE has taken.
    fn limited(amps: i64) -> Self {
        let mut bench = Self::both();
        bench.wish(1, amps);
        assert_eq!(bench.ours_accepted(), json!(amps));
        bench
    }

    /// Hears our profile and accepts it; gives its first limit.
    fn ours_accepted(&mut self) -> Value {
        let frame = self.evse_hears();
        assert_eq!(frame[2], "SetChargingProfile", "{frame}");
        assert_eq!(
            frame[3]["csChargingProfiles"]["chargingProfilePurpose"], "ChargePointMaxProfile",
            "{frame}"
        );
        self.evse(&json!([3, frame[1], {"status": "Accepted"}]));
        frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"].clone()
    }

    fn composite(&mut self, duration: i64) -> Value {
        let asked = json!({"connectorId": 1, "duration": duration, "chargingRateUnit": "A"});
        self.backend(&json!([2, "g", "GetCompositeSchedule", asked]));
        self.backend_hears()[2]["chargingSchedule"]["chargingSchedulePeriod"].clone()
    }
}

#[test]
fn the_lower_of_the_sites_and_the_backends_maximum_holds() {
    let mut bench = Bench::limited(16);
    bench.backend(&set("p", &profile(1, "ChargePointMaxProfile", 5, 10)));
    assert_eq!(bench.backend_hears(), Value::Null, "not before the EVSE has it");
    assert_eq!(bench.ours_accepted(), json!(10));
    assert_eq!(bench.backend_hears(), json!([3, "p", {"status": "Accepted"}]));
    for (amps, expected) in [(8, 8), (20, 10)] {
        bench.wish(2, amps);
        assert_eq!(bench.ours_accepted(), json!(expected));
    }
    // It is gone by the backend's word alone, and ours stays: the EVSE hears of no clearing.
    bench.backend(
        &json!([2, "c", "ClearChargingProfile", {"chargingProfilePurpose": "ChargePointMaxProfile"}]),
    );
    assert_eq!(bench.ours_accepted(), json!(20));
    assert_eq!(bench.backend_hears(), json!([3, "c", {"status": "Accepted"}]));
    bench.backend(
        &json!([2, "c2", "ClearChargingProfile", {"chargingProfilePurpose": "ChargePointMaxProfile"}]),
    );
    assert_eq!(bench.backend_hears(), json!([3, "c2", {"status": "Unknown"}]));
    assert_eq!(bench.evse_hears(), Value::Null);
}

#[test]
fn what_the_evse_refuses_was_never_set() {
    let mut bench = Bench::limited(16);
    bench.backend(&set("p", &profile(1, "ChargePointMaxProfile", 5, 10)));
    let frame = bench.evse_hears();
    bench.evse(&json!([3, frame[1], {"status": "Rejected"}]));
    assert_eq!(bench.backend_hears(), json!([3, "p", {"status": "Rejected"}]));
    bench.wish(2, 16);
    assert_eq!(bench.ours_accepted(), json!(16));
    let mut broken = profile(1, "ChargePointMaxProfile", 5, 10);
    broken["csChargingProfiles"]["chargingSchedule"]["chargingRateUnit"] = json!("V");
    bench.backend(&set("q", &broken));
    assert_eq!(bench.backend_hears(), json!([3, "q", {"status": "Rejected"}]), "not for the EVSE to judge");
}

#[test]
fn a_maximum_of_the_backend_holds_before_the_site_wishes_anything() {
    let mut bench = Bench::both();
    bench.backend(&set("p", &profile(1, "ChargePointMaxProfile", 0, 10)));
    assert_eq!(bench.ours_accepted(), json!(10));
    assert_eq!(bench.backend_hears(), json!([3, "p", {"status": "Accepted"}]));
    assert!(
        !bench.told.iter().any(|e| matches!(e, EvseEvent::Confirmed { .. })),
        "no wish of the site was confirmed"
    );
}

#[test]
fn an_answer_waits_for_the_limit_that_went_out_behind_it() {
    let mut bench = Bench::both();
    bench.wish(1, 16);
    let first = bench.evse_hears();
    bench.backend(&set("p", &profile(1, "ChargePointMaxProfile", 0, 10)));
    bench.evse(&json!([3, first[1], {"status": "Accepted"}]));
    assert_eq!(bench.backend_hears(), Value::Null, "that one did not have it");
    assert_eq!(bench.ours_accepted(), json!(10));
    assert_eq!(bench.backend_hears()[1], "p");
}

#[test]
fn profiles_for_transactions_pass_and_come_back_after_a_boot() {
    let mut bench = Bench::limited(16);
    let frame = set("p", &profile(7, "TxDefaultProfile", 2, 12));
    bench.backend(&frame);
    assert_eq!(bench.evse_hears(), frame);
    bench.evse(&json!([3, "p", {"status": "Accepted"}]));
    assert_eq!(bench.backend_hears(), json!([3, "p", {"status": "Accepted"}]));
    bench.backend(&set("r", &profile(8, "TxDefaultProfile", 3, 9)));
    bench.evse_hears();
    bench.evse(&json!([3, "r", {"status": "Rejected"}]));
    bench.backend_hears();
    bench.evse(&json!([2, "b", "BootNotification", {}]));
    bench.backend(&json!([3, "b", {"status": "Accepted", "interval": 20}]));
    bench.evse_hears();
    assert_eq!(bench.ours_accepted(), json!(16), "ours first");
    let again = bench.evse_hears();
    assert_eq!(again[3], frame[3], "the one that it had, and no other");
    assert_ne!(again[1], "p", "under an id of ours");
    bench.evse(&json!([3, again[1], {"status": "Accepted"}]));
    bench.wait(3);
    bench.own("TriggerMessage");
    assert_eq!(bench.backend_hears()[1], "b");
    assert_eq!(bench.backend_hears(), Value::Null, "the answer is for us");
}

#[test]
fn a_composite_tells_what_holds() {
    let mut bench = Bench::limited(16);
    assert_eq!(bench.composite(600), json!([{"startPeriod": 0, "limit": 16, "numberPhases": 3}]));
    let mut later = profile(7, "TxDefaultProfile", 2, 12);
    later["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"] =
        json!([{"startPeriod": 0, "limit": 25}, {"startPeriod": 3900, "limit": 12}]);
    bench.backend(&set("p", &later));
    bench.evse_hears();
    bench.evse(&json!([3, "p", {"status": "Accepted"}]));
    bench.backend_hears();
    // 12:00:02 now; the second period begins at 12:05:00.
    assert_eq!(
        bench.composite(600),
        json!([{"startPeriod": 0, "limit": 16, "numberPhases": 3}, {"startPeriod": 298, "limit": 12, "numberPhases": 3}])
    );
    assert_eq!(bench.evse_hears(), Value::Null);
}

#[test]
fn clearing_everything_never_clears_ours() {
    let mut bench = Bench::limited(16);
    bench.backend(&set("p", &profile(7, "TxDefaultProfile", 2, 12)));
    bench.evse_hears();
    bench.evse(&json!([3, "p", {"status": "Accepted"}]));
    bench.backend_hears();
    bench.backend(&json!([2, "c", "ClearChargingProfile", {}]));
    assert_eq!(bench.evse_hears()[2], "ClearChargingProfile");
    bench.evse(&json!([3, "c", {"status": "Accepted"}]));
    assert_eq!(bench.backend_hears(), Value::Null, "ours first");
    assert_eq!(bench.ours_accepted(), json!(16));
    assert_eq!(bench.backend_hears(), json!([3, "c", {"status": "Accepted"}]));
    assert!(bench.route.profiles.is_empty());
    // Ours has no id for the backend.
    let ours = bench.route.wish.id();
    bench.backend(&json!([2, "o", "ClearChargingProfile", {"id": ours}]));
    assert_eq!(bench.backend_hears(), json!([3, "o", {"status": "Unknown"}]));
    assert_eq!(bench.evse_hears(), Value::Null);
    // If it takes that id for its own, ours takes another.
    bench.backend(&set("q", &profile(ours, "TxDefaultProfile", 0, 12)));
    bench.evse_hears();
    bench.evse(&json!([3, "q", {"status": "Accepted"}]));
    bench.ours_accepted();
    assert_ne!(bench.route.wish.id(), ours);
}

#[test]
fn a_box_with_one_stack_level_gets_one_merged_profile() {
    let mut bench = Bench::limited(16);
    bench.backend(&set("p", &profile(7, "TxDefaultProfile", 0, 12)));
    bench.evse_hears();
    bench.evse(&json!([3, "p", {"status": "Accepted"}]));
    bench.backend_hears();
    bench.backend(&json!([2, "k", "GetConfiguration", {}]));
    bench.evse_hears();
    let answer = json!([3, "k", {"configurationKey": [{"key": "ChargeProfileMaxStackLevel", "readonly": true, "value": "0"}]}]);
    bench.evse(&answer);
    assert_eq!(bench.backend_hears(), answer);
    assert_eq!(bench.ours_accepted(), json!(12), "what it had is merged");
    let clear = bench.evse_hears();
    assert_eq!(
        (&clear[2], &clear[3]),
        (&json!("ClearChargingProfile"), &json!({"id": 7})),
        "and cleared there"
    );
    bench.evse(&json!([3, clear[1], {"status": "Accepted"}]));
    bench.backend(&set("q", &profile(8, "TxDefaultProfile", 4, 9)));
    assert_eq!(bench.ours_accepted(), json!(9), "the higher level, and never another frame for the EVSE");
    assert_eq!(bench.backend_hears(), json!([3, "q", {"status": "Accepted"}]));
    bench.backend(&json!([2, "c", "ClearChargingProfile", {"id": 8}]));
    assert_eq!(bench.ours_accepted(), json!(12));
    assert_eq!(bench.backend_hears(), json!([3, "c", {"status": "Accepted"}]));
}

#[test]
fn profiles_survive_our_own_restart() {
    let saved = SavedProfile {
        id: 1,
        version: Version::V16,
        payload: profile(1, "ChargePointMaxProfile", 0, 10).to_string(),
        set: crate::time::Wall::parse("2026-11-23T11:59:00Z").unwrap(),
    };
    let mut bench = Bench::new(Saved { profiles: vec![saved], ..Saved::default() }, true);
    bench.south_up();
    bench.wish(1, 16);
    bench.wait(2);
    assert_eq!(bench.ours_accepted(), json!(10));
}

#[test]
fn a_profile_of_a_transaction_ends_with_it() {
    let mut bench = Bench::limited(16);
    bench.evse(&json!([2, "s", "StartTransaction", {"connectorId": 1, "idTag": "C", "meterStart": 5, "timestamp": "T"}]));
    bench.backend_hears();
    bench.backend(&json!([3, "s", {"transactionId": 8, "idTagInfo": {"status": "Accepted"}}]));
    bench.evse_hears();
    let mut tx = profile(7, "TxProfile", 0, 9);
    tx["csChargingProfiles"]["transactionId"] = json!(8);
    bench.backend(&set("p", &tx));
    bench.evse_hears();
    bench.evse(&json!([3, "p", {"status": "Accepted"}]));
    bench.backend_hears();
    assert_eq!(bench.composite(60)[0]["limit"], 9);
    bench.evse(&json!([2, "e", "StopTransaction", {"transactionId": 8, "meterStop": 9, "timestamp": "T"}]));
    assert!(bench.route.profiles.is_empty());
}

#[test]
fn in_2_x_the_backend_is_told_its_own_profiles_and_never_ours() {
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, Version::V201);
    bench.wait(2);
    bench.route.north_up(bench.now, Version::V201);
    bench.wish(1, 16);
    let ours = bench.evse_hears();
    bench.evse(&json!([3, ours[1], {"status": "Accepted"}]));
    let profile = |id: i64, purpose: &str, amps: i64| {
        json!({"id": id, "stackLevel": 0, "chargingProfilePurpose": purpose, "chargingProfileKind": "Absolute",
            "chargingSchedule": [{"id": 1, "startSchedule": "2026-11-23T11:00:00Z", "chargingRateUnit": "A",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": amps}]}]})
    };
    let max = profile(3, "ChargingStationMaxProfile", 10);
    bench.backend(&json!([2, "p", "SetChargingProfile", {"evseId": 0, "chargingProfile": max}]));
    let merged = bench.evse_hears();
    assert_eq!(merged[3]["chargingProfile"]["chargingSchedule"][0]["chargingSchedulePeriod"][0]["limit"], 10);
    bench.evse(&json!([3, merged[1], {"status": "Accepted"}]));
    assert_eq!(bench.backend_hears(), json!([3, "p", {"status": "Accepted"}]));
    bench.backend(&json!([2, "g", "GetChargingProfiles", {"requestId": 5, "chargingProfile": {}}]));
    assert_eq!(bench.backend_hears(), json!([3, "g", {"status": "Accepted"}]));
    let report = bench.backend_hears();
    assert_eq!(report[2], "ReportChargingProfiles");
    assert_eq!((&report[3]["requestId"], &report[3]["chargingProfile"]), (&json!(5), &json!([max])));
    bench.backend(&json!([3, report[1], {}]));
    assert_eq!(bench.evse_hears(), Value::Null, "the answer is for us");
    let others = json!({"requestId": 6, "chargingProfile": {"chargingLimitSource": ["EMS"]}});
    bench.backend(&json!([2, "h", "GetChargingProfiles", others]));
    assert_eq!(bench.backend_hears(), json!([3, "h", {"status": "NoProfiles"}]));
    bench.backend(&json!([2, "k", "GetCompositeSchedule", {"evseId": 1, "duration": 60}]));
    assert_eq!(bench.backend_hears()[2]["schedule"]["chargingSchedulePeriod"][0]["limit"], 10);
}

#[test]
fn the_connection_is_the_sites() {
    let mut bench = Bench::both();
    let change =
        |key: &str, value: &str| json!([2, key, "ChangeConfiguration", {"key": key, "value": value}]);
    bench.backend(&change("AuthorizationKey", "0123456789abcdef0123"));
    assert_eq!(bench.backend_hears(), json!([3, "AuthorizationKey", {"status": "Accepted"}]));
    bench.backend(&change("CentralSystemUrl", "wss://elsewhere/"));
    assert_eq!(bench.backend_hears()[2]["status"], "Rejected");
    assert_eq!(bench.evse_hears(), Value::Null);
    bench.backend(&change("HeartbeatInterval", "60"));
    assert_eq!(bench.evse_hears()[1], "HeartbeatInterval");
}
