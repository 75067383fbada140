//! The route in 2.0.1 and 2.1, and between versions.

use serde_json::{Value, json};

use super::{tests::Bench, *};
use crate::site::event::ConnectorStatus;

fn event(id: &str, kind: &str, seq: i64, more: &Value) -> Value {
    let mut payload = json!({"eventType": kind, "timestamp": "2026-11-23T12:00:00Z", "triggerReason": "CablePluggedIn",
        "seqNo": seq, "transactionInfo": {"transactionId": "tx-1"}, "evse": {"id": 1, "connectorId": 1}});
    for (name, value) in more.as_object().unwrap() {
        payload[name] = value.clone();
    }
    json!([2, id, "TransactionEvent", payload])
}

fn token() -> Value {
    json!({"idToken": {"idToken": "04AA", "type": "ISO14443"}})
}

fn both() -> Bench {
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, Version::V201);
    bench.wait(2);
    bench.route.north_up(bench.now, Version::V201);
    bench.drain();
    bench
}

#[test]
fn what_is_answered_while_the_backend_is_away() {
    for (action, payload, expected) in [
        ("Authorize", token(), json!({"idTokenInfo": {"status": "Accepted"}})),
        ("DataTransfer", json!({"vendorId": "v"}), json!({"status": "Rejected"})),
        ("SignCertificate", json!({"csr": "x"}), json!({"status": "Rejected"})),
        ("Get15118EVCertificate", json!({}), json!({"status": "Failed", "exiResponse": ""})),
        ("GetCertificateStatus", json!({}), json!({"status": "Failed"})),
        ("NotifyReport", json!({}), json!({})),
        ("StatusNotification", json!({}), json!({})),
    ] {
        let mut bench = Bench::empty();
        bench.route.south_up(bench.now, Version::V201);
        bench.wait(2);
        bench.evse(&json!([2, "a", action, payload]));
        assert_eq!(bench.evse_hears(), json!([3, "a", expected]), "{action}");
    }
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, Version::V201);
    bench.evse(&json!([2, "b", "BootNotification", {"chargingStation": {"model": "M", "vendorName": "V"}}]));
    assert_eq!(bench.evse_hears()[2]["status"], "Pending");
    assert!(bench.told.contains(&EvseEvent::Boot { vendor: "V".into(), model: "M".into() }));
    bench.evse(&json!([2, "x", "StartTransaction", {}]));
    assert_eq!(bench.evse_hears()[2], "NotImplemented", "of another version");
}

#[test]
fn what_a_car_needs_is_heard_and_passed_on() {
    let mut bench = both();
    let call = json!([2, "n", "NotifyEVChargingNeeds", {"evseId": 1, "chargingNeeds": {
        "requestedEnergyTransfer": "AC_three_phase", "departureTime": "2026-11-24T05:00:00Z",
        "acChargingParameters": {"energyAmount": 20_000, "evMinCurrent": 6, "evMaxCurrent": 16, "evMaxVoltage": 400}}}]);
    bench.evse(&call);
    assert_eq!(bench.backend_hears(), call);
    let needs = bench.told.iter().find_map(|event| match event {
        EvseEvent::Needs(needs) => Some(*needs),
        _ => None,
    });
    let needs = needs.expect("the site hears it as well");
    assert_eq!(
        (needs.energy.map(|wh| wh.0), needs.most.map(|ma| ma.0), needs.phases),
        (Some(20_000), Some(16_000), Some(3))
    );
}

#[test]
fn a_live_event_passes_with_the_backends_own_answer() {
    let mut bench = both();
    let started = event("s", "Started", 0, &token());
    bench.evse(&started);
    assert_eq!(bench.backend_hears(), started);
    bench.backend(&json!([3, "s", {"idTokenInfo": {"status": "Accepted"}, "x": 1}]));
    assert_eq!(bench.evse_hears(), json!([3, "s", {"idTokenInfo": {"status": "Accepted"}, "x": 1}]));
    assert!(bench.told.iter().any(|e| matches!(e, EvseEvent::Transaction(t) if t.name == "tx-1")));
    let charging = json!({"transactionInfo": {"transactionId": "tx-1", "chargingState": "Charging"}});
    bench.evse(&event("u", "Updated", 1, &charging));
    assert!(
        bench.told.contains(&EvseEvent::Status { status: ConnectorStatus::Charging, error: String::new() })
    );
    bench.backend_hears();
    bench.backend(&json!([3, "u", {}]));
    bench.evse(&event("e", "Ended", 2, &json!({})));
    assert!(bench.told.contains(&EvseEvent::TransactionEnded));
}

#[test]
fn what_happens_without_the_backend_says_so_and_comes_in_order() {
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, Version::V201);
    bench.wait(2);
    bench.evse(&event("s", "Started", 0, &token()));
    assert_eq!(bench.evse_hears(), json!([3, "s", {"idTokenInfo": {"status": "Accepted"}}]));
    bench.evse(&event("u", "Updated", 1, &json!({"offline": false})));
    assert_eq!(bench.evse_hears(), json!([3, "u", {}]));
    // The answer was lost: it is sent again, and is still one.
    bench.evse(&event("u", "Updated", 1, &json!({"offline": false})));
    assert_eq!(bench.evse_hears(), json!([3, "u", {}]));
    let signed =
        json!([2, "x", "TransactionEvent-Signed", {"payload": "e30", "protected": "p", "signature": "s"}]);
    bench.evse(&signed);
    assert_eq!(bench.evse_hears(), json!([3, "x", {}]));
    assert_eq!(bench.route.queue.len(), 3);
    bench.route.north_up(bench.now, Version::V201);
    bench.drain();
    let frame = bench.backend_hears();
    assert_eq!((&frame[1], &frame[3]["offline"], &frame[3]["seqNo"]), (&json!("s"), &json!(true), &json!(0)));
    bench.backend(&json!([3, "s", {}]));
    let frame = bench.backend_hears();
    assert_eq!((&frame[1], &frame[3]["offline"]), (&json!("u"), &json!(true)));
    // One that comes now is not offline, though it waits behind those that were.
    bench.evse(&event("e", "Ended", 2, &json!({})));
    bench.backend(&json!([3, "u", {}]));
    assert_eq!(bench.backend_hears(), signed, "no byte of a signed one is changed");
    bench.backend(&json!([3, "x", {}]));
    assert_eq!(bench.backend_hears()[3].get("offline"), None);
}

#[test]
fn a_transaction_has_one_number_and_survives_a_restart() {
    let mut bench = both();
    bench.evse(&event("s", "Started", 0, &token()));
    let number = bench.route.transactions[0].id;
    let saved =
        Saved { transactions: bench.route.transactions.clone(), version: Version::V201, ..Saved::default() };
    let mut bench = Bench::new(saved, true);
    assert_eq!(bench.route.version(), Version::V201);
    bench.route.south_up(bench.now, Version::V201);
    bench.evse(&event("u", "Updated", 1, &json!({})));
    assert_eq!(bench.route.transactions.len(), 1);
    assert_eq!(bench.route.transactions[0].id, number);
    bench.evse(&event("e", "Ended", 2, &json!({})));
    assert!(bench.route.transactions[0].ended);
}

#[test]
fn what_waits_here_counts_as_waiting_there() {
    let mut bench = both();
    bench.evse(&event("s", "Started", 0, &token()));
    for (asked, expected) in
        [(json!({"transactionId": "tx-1"}), true), (json!({}), true), (json!({"transactionId": "no"}), false)]
    {
        bench.backend(&json!([2, "g", "GetTransactionStatus", asked]));
        assert_eq!(bench.evse_hears()[2], "GetTransactionStatus");
        bench.north.clear();
        bench.evse(&json!([3, "g", {"messagesInQueue": false, "ongoingIndicator": true}]));
        assert_eq!(bench.backend_hears()[2], json!({"messagesInQueue": expected, "ongoingIndicator": true}));
    }
}

#[test]
fn our_limit_and_errors_are_in_the_words_of_the_version() {
    let mut bench = both();
    bench.wish(1, 16);
    let frame = bench.evse_hears();
    assert_eq!(frame[3]["chargingProfile"]["chargingProfilePurpose"], "ChargingStationMaxProfile");
    bench.evse(&json!([3, frame[1], {"status": "Accepted"}]));
    bench.route.south_frame(bench.now, r#"[2,"q","MeterValues",{"x":}]"#.into());
    bench.drain();
    assert_eq!(bench.evse_hears()[2], "FormatViolation");
}

#[test]
fn send_passes_in_2_1_alone_and_beside_everything_else() {
    let stream = json!([6, "p", "NotifyPeriodicEventStream", {"id": 1}]);
    let mut bench = both();
    bench.evse(&stream);
    assert_eq!(bench.backend_hears(), Value::Null);
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, Version::V21);
    bench.evse(&stream);
    bench.route.north_up(bench.now, Version::V21);
    bench.evse(&json!([2, "h", "Heartbeat", {}]));
    bench.evse(&stream);
    assert_eq!(bench.backend_hears()[1], "h");
    assert_eq!(bench.backend_hears(), stream, "it waits for no answer");
    bench.evse(&json!([5, "z", "InternalError", "", {}]));
    assert_eq!(bench.backend_hears()[0], 5);
}

#[test]
fn what_waits_in_another_version_goes_in_that_version() {
    let mut bench = Bench::empty();
    bench.south_up();
    bench.evse(&json!([2, "s", "StartTransaction", {"connectorId": 1, "idTag": "C", "meterStart": 5, "timestamp": "T"}]));
    bench.south.clear();
    bench.route.south_up(bench.now, Version::V201);
    bench.drain();
    assert_eq!((bench.route.version(), bench.route.wants_version()), (Version::V201, Version::V16));
    bench.route.north_up(bench.now, Version::V16);
    bench.drain();
    // Between versions nothing passes; each side is answered here.
    bench.evse(&json!([2, "h", "Heartbeat", {}]));
    assert!(bench.evse_hears()[2]["currentTime"].is_string());
    bench.backend(&json!([2, "r", "Reset", {}]));
    assert_eq!(bench.backend_hears()[1], "s");
    assert_eq!(bench.backend_hears()[2], "GenericError");
    bench.backend(&json!([3, "s", {"transactionId": 8, "idTagInfo": {"status": "Accepted"}}]));
    assert_eq!(bench.route.wants_version(), Version::V201);
    // Never to be had again: laid aside, not lost.
    bench.south_up();
    bench.north_down();
    bench.evse(&json!([2, "m", "MeterValues", {"connectorId": 1, "transactionId": 5, "meterValue": []}]));
    bench.route.south_up(bench.now, Version::V201);
    bench.drain();
    bench.route.bury(bench.now, Version::V16);
    bench.drain();
    assert_eq!((bench.route.dead, bench.route.queue.len()), (1, 0));
}

#[test]
fn connectors_are_understood_from_every_message_that_tells_of_them() {
    let mut bench = both();
    let status =
        |s: &str| json!([2, s, "StatusNotification", {"evseId": 1, "connectorId": 1, "connectorStatus": s}]);
    let last = |bench: &Bench| {
        bench.told.iter().rev().find_map(|e| match e {
            EvseEvent::Status { status, .. } => Some(*status),
            _ => None,
        })
    };
    bench.evse(&status("Occupied"));
    assert_eq!(last(&bench), Some(ConnectorStatus::Preparing));
    bench.evse(&event("e", "Ended", 2, &json!({})));
    bench.evse(&status("Occupied"));
    assert_eq!(last(&bench), Some(ConnectorStatus::Finishing));
    let notify = json!({"eventData": [{"eventId": 1, "actualValue": "Available", "component": {"name": "Connector",
        "evse": {"id": 1}}, "variable": {"name": "AvailabilityState"}}]});
    bench.evse(&json!([2, "n", "NotifyEvent", notify]));
    assert_eq!(last(&bench), Some(ConnectorStatus::Available));
    bench.evse(&status("Occupied"));
    assert_eq!(last(&bench), Some(ConnectorStatus::Preparing));
}
