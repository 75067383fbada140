//! What the gateway sees to in the EVSE's and the backend's place: caches, roots, verdicts that come late, EVSEs that
//! hang, answers against the schemas.

use serde_json::{Value, json};

use super::{
    super::queue::{Card, Saved},
    tests::Bench,
    *,
};
use crate::{ocpp::v16::message::IdTagInfo, time::Wall};

fn both_in(version: Version) -> Bench {
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, version);
    bench.wait(2);
    bench.route.north_up(bench.now, version);
    bench.drain();
    bench
}

fn card(id: &str) -> Card {
    let info = IdTagInfo { status: "Accepted".into(), ..IdTagInfo::default() };
    Card { id_tag: id.into(), info, heard: Wall(0) }
}

#[test]
fn the_backend_clears_our_cache_with_the_evses() {
    for version in [Version::V16, Version::V201] {
        let mut bench = Bench::new(Saved { cards: vec![card("ada")], version, ..Saved::default() }, false);
        bench.route.south_up(bench.now, version);
        bench.wait(2);
        bench.route.north_up(bench.now, version);
        bench.slow_disk = true;
        let clear = json!([2, "c", "ClearCache", {}]);
        bench.backend(&clear);
        assert_eq!(bench.evse_hears(), clear);
        assert!(!bench.route.knows("Ada"), "at once: what is unknown is refused");
        bench.evse(&json!([3, "c", {"status": "Accepted"}]));
        assert_eq!(bench.backend_hears(), Value::Null, "not before it is gone from the disk");
        assert!(matches!(bench.tickets[0].1[..], [Op::CardsGone]));
        bench.disk(&Ok(()));
        bench.disk(&Ok(()));
        assert_eq!(bench.backend_hears(), json!([3, "c", {"status": "Accepted"}]));
    }
}

#[test]
fn the_backends_own_root_is_no_business_of_the_evse() {
    let ask = |bench: &mut Bench, kind: &str| {
        bench.backend(&json!([2, "i", "InstallCertificate", {"certificateType": kind, "certificate": "x"}]));
    };
    let mut bench = Bench::both();
    ask(&mut bench, "CentralSystemRootCertificate");
    assert_eq!(bench.backend_hears(), json!([3, "i", {"status": "Rejected"}]));
    assert_eq!(bench.evse_hears(), Value::Null);
    ask(&mut bench, "ManufacturerRootCertificate");
    assert_eq!(bench.evse_hears()[3]["certificateType"], "ManufacturerRootCertificate");
    let mut bench = both_in(Version::V201);
    ask(&mut bench, "CSMSRootCertificate");
    assert_eq!(bench.backend_hears(), json!([3, "i", {"status": "Rejected"}]));
    ask(&mut bench, "V2GRootCertificate");
    assert_eq!(bench.evse_hears()[3]["certificateType"], "V2GRootCertificate");
}

fn start() -> Value {
    json!([2, "s", "StartTransaction", {"connectorId": 1, "idTag": "Ada", "meterStart": 5, "timestamp": "T"}])
}

#[test]
fn a_charge_that_the_backend_refuses_afterwards_is_ended() {
    let mut bench = Bench::south();
    bench.evse(&start());
    let known = bench.evse_hears()[2]["transactionId"].clone();
    bench.north_up();
    assert_eq!(bench.backend_hears()[2], "StartTransaction");
    bench.backend(&json!([3, "s", {"transactionId": 77, "idTagInfo": {"status": "Blocked"}}]));
    let frame = bench.evse_hears();
    assert_eq!((&frame[2], &frame[3]), (&json!("RemoteStopTransaction"), &json!({"transactionId": known})));
    // The EVSE goes before it answers: it is told again.
    bench.route.south_down(bench.now);
    bench.south_up();
    bench.wait(2);
    let again = bench.evse_hears();
    assert_eq!(again[2], "RemoteStopTransaction", "{again}");
    bench.evse(&json!([3, again[1], {"status": "Accepted"}]));
    bench.evse(
        &json!([2, "e", "StopTransaction", {"transactionId": known, "meterStop": 9, "timestamp": "T"}]),
    );
    assert_eq!(bench.backend_hears()[3]["transactionId"], 77);
    assert_eq!(bench.evse_hears(), Value::Null);
}

#[test]
fn a_verdict_that_the_evse_heard_itself_or_that_changes_nothing_ends_no_charge() {
    for status in ["Accepted", "ConcurrentTx"] {
        let mut bench = Bench::south();
        bench.evse(&start());
        bench.evse_hears();
        bench.north_up();
        bench.backend(&json!([3, "s", {"transactionId": 7, "idTagInfo": {"status": status}}]));
        assert_eq!(bench.evse_hears(), Value::Null, "{status}");
    }
    let mut bench = Bench::both();
    bench.evse(&start());
    bench.backend(&json!([3, "s", {"transactionId": 7, "idTagInfo": {"status": "Invalid"}}]));
    assert_eq!(bench.evse_hears()[2]["idTagInfo"]["status"], "Invalid");
    assert_eq!(bench.evse_hears(), Value::Null, "it ends the charge itself, or not, as it is set");
    // One that is over needs no end.
    let mut bench = Bench::south();
    bench.evse(&start());
    let known = bench.evse_hears()[2]["transactionId"].clone();
    bench.evse(
        &json!([2, "e", "StopTransaction", {"transactionId": known, "meterStop": 9, "timestamp": "T"}]),
    );
    bench.evse_hears();
    bench.north_up();
    bench.backend(&json!([3, "s", {"transactionId": 7, "idTagInfo": {"status": "Invalid"}}]));
    assert_eq!(bench.evse_hears(), Value::Null);
}

#[test]
fn in_2_x_the_charge_is_named_as_the_evse_names_it() {
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, Version::V201);
    bench.wait(2);
    let started = json!([2, "s", "TransactionEvent", {"eventType": "Started", "timestamp": "2026-11-23T12:00:00Z",
        "triggerReason": "CablePluggedIn", "seqNo": 0, "transactionInfo": {"transactionId": "tx-1"},
        "idToken": {"idToken": "04AA", "type": "ISO14443"}}]);
    bench.evse(&started);
    bench.evse_hears();
    bench.route.north_up(bench.now, Version::V201);
    bench.drain();
    bench.backend(&json!([3, "s", {"idTokenInfo": {"status": "Invalid"}}]));
    let frame = bench.evse_hears();
    assert_eq!((&frame[2], &frame[3]), (&json!("RequestStopTransaction"), &json!({"transactionId": "tx-1"})));
}

#[test]
fn an_evse_that_hangs_on_a_call_of_the_backend_hangs_no_limit() {
    let mut bench = Bench::both();
    bench.wish(1, 16);
    let id = bench.own("SetChargingProfile");
    bench.evse(&json!([3, id, {"status": "Accepted"}]));
    bench.wait(1);
    bench.backend(&json!([2, "d", "GetDiagnostics", {"location": "ftp://x"}]));
    assert_eq!(bench.evse_hears()[2], "GetDiagnostics");
    // More, or the same for longer, can wait.
    bench.wish(2, 20);
    bench.wait(15);
    assert_eq!(bench.evse_hears(), Value::Null);
    bench.wish(3, 8);
    bench.wait(9);
    assert_eq!(bench.evse_hears(), Value::Null);
    bench.wait(2);
    assert_eq!(bench.backend_hears()[2], "GenericError", "the backend hears that it hangs");
    let frame = bench.evse_hears();
    assert_eq!(frame[2], "SetChargingProfile", "{frame}");
    let amps = &frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"];
    assert_eq!(amps, &json!(8));
    // What it says of the other too late goes nowhere.
    bench.evse(&json!([3, "d", {}]));
    assert_eq!(bench.backend_hears(), Value::Null);
}

/// In the form of the official files, of our own making.
fn schemas() -> Arc<Schemas> {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("1.6");
    std::fs::create_dir(&place).unwrap();
    let status = r#"{"type":"object","properties":{"status":{"type":"string","enum":["Accepted","Rejected"]}},
        "required":["status"],"additionalProperties":false}"#;
    let open = r#"{"type":"object"}"#;
    for action in ["Reset", "DataTransfer", "StartTransaction", "BootNotification"] {
        std::fs::write(place.join(format!("{action}.json")), open).unwrap();
    }
    for action in ["Reset", "DataTransfer", "StartTransaction"] {
        std::fs::write(place.join(format!("{action}Response.json")), status).unwrap();
    }
    Schemas::load(dir.path()).unwrap()
}

#[test]
fn answers_are_held_against_the_schemas_too() {
    for refuses in [false, true] {
        let mut bench = Bench::both();
        bench.route.rules.schemas = Some(schemas());
        bench.route.rules.refuses = refuses;
        // The EVSE's to the backend.
        bench.backend(&json!([2, "r", "Reset", {"type": "Soft"}]));
        bench.evse_hears();
        bench.evse(&json!([3, "r", {"status": "Perhaps"}]));
        let answer = bench.backend_hears();
        if refuses {
            let expected = json!([4, "r", "PropertyConstraintViolation"]);
            assert_eq!(answer.as_array().unwrap()[..3], expected.as_array().unwrap()[..]);
            assert!(answer[3].as_str().unwrap().contains("answer to Reset: status"), "{answer}");
        } else {
            assert_eq!(answer, json!([3, "r", {"status": "Perhaps"}]));
        }
        assert_eq!(bench.route.violations.len(), 1);
        // The backend's to the EVSE.
        bench.evse(&json!([2, "d", "DataTransfer", {"vendorId": "v"}]));
        assert_eq!(bench.backend_hears()[2], "DataTransfer");
        bench.backend(&json!([3, "d", {}]));
        let answer = bench.evse_hears();
        assert_eq!(answer[0], if refuses { 4 } else { 3 }, "{answer}");
        assert_eq!(bench.route.violations.len(), 2);
        // What is billed is not asked for a second time, and a CALLERROR has no schema.
        bench.evse(&start());
        assert_eq!(bench.backend_hears()[2], "StartTransaction");
        bench.backend(&json!([3, "s", {"transactionId": 7, "idTagInfo": {"status": "Accepted"}}]));
        assert_eq!(bench.evse_hears()[2]["transactionId"], 7);
        assert_eq!((bench.route.queue.len(), bench.route.violations.len()), (0, 3));
        bench.backend(&json!([2, "q", "Reset", {"type": "Soft"}]));
        bench.evse(&json!([4, "q", "InternalError", "", {}]));
        assert_eq!(bench.backend_hears()[2], "InternalError");
    }
}

/// The connection is about to be closed for its silence, and whoever closes it takes his time.
#[test]
fn nothing_wakes_for_what_may_not_be_sent() {
    let mut bench = Bench::both();
    bench.evse(&json!([2, "b", "BootNotification", {}]));
    bench.wait(31);
    bench.wait(31);
    assert!(bench.closed, "two CALLs without an answer");
    let due = bench.now.plus(Duration::from_secs(61));
    bench.route.timeout(due);
    assert!(
        bench.route.poll_timeout().is_none_or(|(at, _)| at > due.mono),
        "{:?}",
        bench.route.poll_timeout()
    );
}
