//! Each rule of the route by itself.

use serde_json::{Value, json};

use super::super::queue::Saved;
use super::*;
use crate::{site::event::ConnectorStatus, time::Wall, units::Milliamps};

/// A route with a disk that acknowledges when told, and what came out of it.
pub(super) struct Bench {
    pub(super) route: Route,
    pub(super) now: Now,
    pub(super) tickets: VecDeque<(u64, Vec<Op>)>,
    pub(super) slow_disk: bool,
    pub(super) south: VecDeque<Value>,
    pub(super) north: VecDeque<Value>,
    pub(super) told: Vec<EvseEvent>,
    pub(super) closed: bool,
    pub(super) answered: Vec<(u64, Result<String, NoAnswer>)>,
    pub(super) tariffs: Vec<tariffs::News>,
    pub(super) tariff_outcome: Result<(), String>,
}

impl Bench {
    pub(super) fn new(saved: Saved, accept_unknown: bool) -> Self {
        let backend = BackendRules {
            call_timeout: Duration::from_secs(30),
            attempts: 3,
            retry_interval: Duration::from_secs(60),
        };
        let rules = Rules {
            backend: Some(backend),
            own_timeout: Duration::from_secs(10),
            accept_unknown,
            users: Arc::default(),
            local: false,
            rated: Milliamps::amps(32),
            phases: 3,
            merged: false,
            schemas: None,
            refuses: false,
        };
        let mut bench = Self {
            route: Route::new(Mono::default(), rules, saved, 1),
            now: Now { mono: Mono::default(), wall: Wall::parse("2026-11-23T12:00:00Z").unwrap() },
            tickets: VecDeque::new(),
            slow_disk: false,
            south: VecDeque::new(),
            north: VecDeque::new(),
            told: vec![],
            closed: false,
            answered: vec![],
            tariffs: vec![],
            tariff_outcome: Ok(()),
        };
        bench.drain();
        bench
    }

    pub(super) fn empty() -> Self {
        Self::new(Saved::default(), true)
    }

    /// EVSE connected, past its boot.
    pub(super) fn south() -> Self {
        let mut bench = Self::empty();
        bench.route.south_up(bench.now, Version::V16);
        bench.wait(2);
        bench
    }

    pub(super) fn both() -> Self {
        let mut bench = Self::south();
        bench.route.north_up(bench.now, Version::V16);
        bench.drain();
        bench
    }

    pub(super) fn drain(&mut self) {
        while let Some(out) = self.route.output() {
            match out {
                Out::South(text) => self.south.push_back(serde_json::from_str(&text).unwrap()),
                Out::North(text) => self.north.push_back(serde_json::from_str(&text).unwrap()),
                Out::Store { ticket, ops } if self.slow_disk => self.tickets.push_back((ticket, ops)),
                Out::Store { ticket, .. } => self.route.stored(self.now, ticket, &Ok(())),
                Out::Tell(event) => self.told.push(event),
                Out::Answered { ticket, outcome } => self.answered.push((ticket, outcome)),
                Out::CloseNorth(_) => self.closed = true,
                Out::Password(_) | Out::Tariff { ticket: None, .. } => {}
                Out::Tariff { ticket: Some(ticket), news } => {
                    self.tariffs.push(news);
                    self.route.tariff_taken(self.now, ticket, &self.tariff_outcome.clone());
                }
            }
        }
    }

    pub(super) fn disk(&mut self, outcome: &Result<(), StoreError>) {
        let (ticket, _) = self.tickets.pop_front().expect("nothing to store");
        self.route.stored(self.now, ticket, outcome);
        self.drain();
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        let end = self.now.plus(Duration::from_secs(seconds));
        while let Some((at, _)) = self.route.poll_timeout().filter(|(at, _)| *at <= end.mono) {
            self.now = self.now.plus(at.since(self.now.mono));
            self.route.timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    pub(super) fn evse(&mut self, frame: &Value) {
        self.route.south_frame(self.now, frame.to_string());
        self.drain();
    }

    pub(super) fn backend(&mut self, frame: &Value) {
        self.route.north_frame(self.now, frame.to_string());
        self.drain();
    }

    pub(super) fn wish(&mut self, sequence: u64, amps: i64) {
        let setpoint = Setpoint {
            sequence,
            limit: Milliamps::amps(amps),
            failsafe: Milliamps::amps(6),
            lease: Duration::from_secs(60),
            one_phase: false,
            reason: String::new(),
        };
        self.route.setpoint(self.now, Some(setpoint));
        self.drain();
    }

    pub(super) fn south_up(&mut self) {
        self.route.south_up(self.now, Version::V16);
        self.drain();
    }

    pub(super) fn north_up(&mut self) {
        self.route.north_up(self.now, Version::V16);
        self.drain();
    }

    pub(super) fn north_down(&mut self) {
        self.route.north_down(self.now);
        self.drain();
    }

    pub(super) fn evse_hears(&mut self) -> Value {
        self.south.pop_front().unwrap_or(Value::Null)
    }

    pub(super) fn backend_hears(&mut self) -> Value {
        self.north.pop_front().unwrap_or(Value::Null)
    }

    /// Takes our own CALL to the EVSE; gives its id.
    pub(super) fn own(&mut self, action: &str) -> Value {
        let frame = self.evse_hears();
        assert_eq!(frame[2], action, "{frame}");
        frame[1].clone()
    }
}

fn start(id: &str, time: &str) -> Value {
    json!([2, id, "StartTransaction", {"connectorId": 1, "idTag": "Card", "meterStart": 5, "timestamp": time}])
}

fn started(id: &str, real: i64) -> Value {
    json!([3, id, {"transactionId": real, "idTagInfo": {"status": "Accepted"}}])
}

fn stop(id: &str, tx: &Value) -> Value {
    json!([2, id, "StopTransaction", {"transactionId": tx, "meterStop": 9, "timestamp": "T"}])
}

fn meter(id: &str, tx: &Value) -> Value {
    json!([2, id, "MeterValues", {"connectorId": 1, "transactionId": tx, "meterValue": []}])
}

fn status(id: &str) -> Value {
    json!([2, id, "StatusNotification", {"connectorId": 1, "status": "Charging", "errorCode": "NoError"}])
}

fn heartbeat(id: &str) -> Value {
    json!([2, id, "Heartbeat", {}])
}

/// While the backend is away: action, payload → answer (`null` in the expectation means any).
#[test]
fn what_is_answered_while_the_backend_is_away() {
    for (action, payload, key, expected) in [
        ("Heartbeat", json!({}), "currentTime", json!("2026-11-23T12:00:02.000Z")),
        ("Authorize", json!({"idTag": "x"}), "idTagInfo", json!({"status": "Accepted"})),
        ("BootNotification", json!({}), "status", json!("Pending")),
        ("DataTransfer", json!({"vendorId": "v"}), "status", json!("Rejected")),
        ("SignCertificate", json!({"csr": "x"}), "status", json!("Rejected")),
    ] {
        let mut bench = Bench::south();
        bench.evse(&json!([2, 7, action, payload]));
        let answer = bench.evse_hears();
        assert_eq!((&answer[0], &answer[1], &answer[2][key]), (&json!(3), &json!(7), &expected), "{action}");
    }
    for (action, waits) in [
        ("StatusNotification", 1),
        ("SecurityEventNotification", 1),
        ("FirmwareStatusNotification", 1),
        ("MeterValues", 0),
    ] {
        let mut bench = Bench::south();
        bench.evse(&json!([2, "a", action, {}]));
        assert_eq!(bench.evse_hears(), json!([3, "a", {}]), "{action}");
        assert_eq!(bench.route.queue.len(), waits, "{action}");
    }
    let mut bench = Bench::south();
    bench.evse(&json!([2, "a", "Vendor", {}]));
    assert_eq!(bench.evse_hears()[2], "NotImplemented");
}

#[test]
fn an_accepted_identity_boots_offline_and_the_backend_hears_of_it_first() {
    let mut bench = Bench::new(Saved { accepted: true, ..Saved::default() }, true);
    bench.south_up();
    bench.evse(&json!([2, "b", "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}]));
    assert_eq!(bench.evse_hears()[2]["status"], "Accepted");
    assert!(bench.told.contains(&EvseEvent::Boot { vendor: "V".into(), model: "M".into() }));
    bench.evse(&status("n"));
    bench.north_up();
    assert_eq!(bench.backend_hears()[2], "BootNotification");
    // Not accepted: the queue stays shut, the boot is tried again after the interval.
    bench.backend(&json!([3, "b", {"status": "Pending", "interval": 20}]));
    assert_eq!(bench.backend_hears(), Value::Null);
    bench.wait(21);
    assert_eq!(bench.backend_hears()[2], "BootNotification");
    bench.backend(&json!([3, "b", {"status": "Accepted", "interval": 20}]));
    assert_eq!(bench.backend_hears()[2], "StatusNotification");
    // A mere reconnect brings no boot (G-8).
    bench.backend(&json!([3, "n", {}]));
    bench.north_down();
    bench.north_up();
    assert_eq!(bench.backend_hears(), Value::Null);
}

#[test]
fn a_rejected_boot_shuts_the_queue_until_one_is_accepted() {
    let mut bench = Bench::both();
    bench.evse(&json!([2, "b", "BootNotification", {}]));
    bench.backend(&json!([3, "b", {"status": "Rejected", "interval": 20}]));
    bench.evse(&start("s", "T"));
    assert_eq!(
        (bench.backend_hears()[2].clone(), bench.backend_hears()),
        (json!("BootNotification"), Value::Null)
    );
    bench.evse(&json!([2, "b2", "BootNotification", {}]));
    bench.backend(&json!([3, "b2", {"status": "Accepted", "interval": 20}]));
    assert_eq!(
        (bench.backend_hears()[1].clone(), bench.backend_hears()[1].clone()),
        (json!("b2"), json!("s"))
    );
}

#[test]
fn one_call_at_a_time_goes_north_live_ones_before_the_queue() {
    let mut bench = Bench::both();
    bench.evse(&start("s", "T1"));
    bench.evse(&start("s2", "T2"));
    bench.evse(&heartbeat("h"));
    assert_eq!((bench.backend_hears()[1].clone(), bench.backend_hears()), (json!("s"), Value::Null));
    bench.backend(&started("s", 1));
    assert_eq!((bench.backend_hears()[1].clone(), bench.backend_hears()), (json!("h"), Value::Null));
    // Answers that nobody waits for are dropped.
    bench.backend(&json!([3, "s", {"transactionId": 99}]));
    bench.backend(&json!([3, "nobody", {}]));
    bench.backend(&json!([3, "h", {"currentTime": "now"}]));
    assert_eq!(bench.backend_hears()[1], "s2");
    assert_eq!(bench.evse_hears()[2]["transactionId"], 1);
    assert_eq!(bench.evse_hears(), json!([3, "h", {"currentTime": "now"}]));
    assert_eq!(bench.evse_hears(), Value::Null);
}

#[test]
fn a_transaction_message_is_on_disk_before_it_moves() {
    let mut bench = Bench::both();
    bench.slow_disk = true;
    bench.evse(&start("s", "T"));
    assert_eq!((bench.evse_hears(), bench.backend_hears()), (Value::Null, Value::Null));
    bench.disk(&Ok(()));
    assert_eq!(bench.backend_hears()[1], "s");
    bench.backend(&started("s", 1));
    assert_eq!(bench.evse_hears(), Value::Null, "the id is on disk before the EVSE has it");
    bench.disk(&Ok(()));
    assert_eq!(bench.evse_hears(), started("s", 1));
}

#[test]
fn a_full_disk_is_told_to_the_evse_and_passes() {
    let mut bench = Bench::both();
    bench.slow_disk = true;
    bench.evse(&start("s", "T"));
    bench.disk(&Err(StoreError::Full));
    assert_eq!(bench.evse_hears()[2], "InternalError");
    assert!(bench.told.iter().any(|e| matches!(e, EvseEvent::Problem(p) if p.contains("full"))));
    bench.evse(&start("s", "T"));
    bench.disk(&Ok(()));
    assert_eq!(bench.backend_hears()[1], "s");
    assert!(bench.told.contains(&EvseEvent::Problem(String::new())), "and it is right again");
}

#[test]
fn a_slow_backend_costs_the_evse_a_provisional_id_and_no_message() {
    let mut bench = Bench::both();
    bench.evse(&start("s", "T"));
    bench.backend_hears();
    bench.wait(25);
    let id = bench.evse_hears()[2]["transactionId"].clone();
    assert!(id.as_i64().unwrap() >= 1 << 30);
    bench.backend(&started("s", 8));
    assert_eq!(bench.evse_hears(), Value::Null, "it is answered already");
    bench.evse(&meter("m", &id));
    assert_eq!(bench.backend_hears(), meter("m", &json!(8)));
    bench.backend(&json!([3, "m", {}]));
    bench.backend(&json!([2, "r", "RemoteStopTransaction", {"transactionId": 8}]));
    bench.evse_hears();
    assert_eq!(bench.evse_hears()[3]["transactionId"], id);
    bench.evse(&json!([3, "r", {"status": "Accepted"}]));
    let profile = json!({"connectorId": 1, "csChargingProfiles": {"chargingProfileId": 1, "transactionId": 8,
        "chargingProfilePurpose": "TxProfile"}});
    bench.backend(&json!([2, "p", "SetChargingProfile", profile]));
    assert_eq!(bench.evse_hears()[3]["csChargingProfiles"]["transactionId"], id);
}

#[test]
fn repeated_starts_and_stops_are_one() {
    let mut bench = Bench::south();
    bench.evse(&start("s", "T"));
    let id = bench.evse_hears()[2]["transactionId"].clone();
    for again in ["s", "other"] {
        bench.evse(&start(again, "T"));
        assert_eq!(bench.evse_hears()[2]["transactionId"], id);
    }
    for again in ["e", "e", "e2"] {
        bench.evse(&stop(again, &id));
        assert_eq!(bench.evse_hears(), json!([3, again, {}]));
    }
    bench.evse(&meter("m", &id));
    bench.evse(&meter("m", &id));
    assert_eq!(bench.route.queue.len(), 3, "one start, one stop, one closing value");
    bench.evse(&start("s9", "T"));
    bench.evse_hears();
    bench.evse_hears();
    assert_ne!(
        bench.evse_hears()[2]["transactionId"],
        id,
        "after its end the same data are another transaction"
    );
    // A box that lost its transaction stops -1, each time as it is.
    bench.evse(&stop("x", &json!(-1)));
    bench.evse(&stop("x", &json!(-1)));
    bench.evse(&stop("y", &json!(-1)));
    assert_eq!(bench.route.queue.len(), 6);
}

#[test]
fn a_reading_that_comes_again_under_another_id_is_one() {
    let mut bench = Bench::south();
    let reading = |id: &str, time: &str| {
        json!([2, id, "MeterValues", {"connectorId": 1, "transactionId": 7,
            "meterValue": [{"timestamp": time, "sampledValue": [{"value": "5"}]}]}])
    };
    bench.evse(&reading("m1", "T1"));
    assert_eq!(bench.evse_hears(), json!([3, "m1", {}]));
    // The answer was lost: the EVSE asks again as it would ask something new.
    bench.evse(&reading("m2", "T1"));
    assert_eq!(bench.evse_hears(), json!([3, "m2", {}]));
    bench.evse(&reading("m3", "T2"));
    assert_eq!(bench.evse_hears(), json!([3, "m3", {}]));
    bench.north_up();
    for (id, time) in [("m1", "T1"), ("m3", "T2")] {
        assert_eq!(bench.backend_hears(), reading(id, time));
        bench.backend(&json!([3, id, {}]));
    }
    bench.evse(&reading("m4", "T1"));
    assert_eq!(bench.evse_hears(), json!([3, "m4", {}]), "delivered already");
    assert_eq!(bench.backend_hears(), Value::Null);
    // While it is on its way, the answer goes to the id that asked last.
    bench.evse(&reading("m5", "T3"));
    bench.evse(&reading("m6", "T3"));
    bench.backend(&json!([3, "m5", {}]));
    assert_eq!(bench.evse_hears(), json!([3, "m6", {}]));
    assert_eq!((bench.backend_hears()[1].clone(), bench.backend_hears()), (json!("m5"), Value::Null));
}

#[test]
fn refused_messages_are_tried_again_and_then_kept_aside() {
    let mut bench = Bench::south();
    bench.evse(&start("s", "T"));
    let id = bench.evse_hears()[2]["transactionId"].clone();
    bench.evse(&stop("e", &id));
    bench.north_up();
    for wait in [60, 120, 0] {
        assert_eq!(bench.backend_hears()[1], "s");
        bench.backend(&json!([4, "s", "InternalError", "", {}]));
        if wait > 0 {
            bench.wait(wait - 1);
            assert_eq!(bench.backend_hears(), Value::Null, "the interval grows");
            bench.wait(2);
        }
    }
    assert!(bench.told.contains(&EvseEvent::Queue { waiting: 1, dead: 1 }));
    assert_eq!(bench.backend_hears(), stop("e", &json!(-1)), "errata 3.18");
}

#[test]
fn silence_is_no_refusal() {
    // The backend's connection is made anew when the route asks for it.
    let again = |bench: &mut Bench| {
        let closed = std::mem::take(&mut bench.closed);
        if closed {
            bench.north_down();
            bench.north_up();
        }
        closed
    };
    let mut bench = Bench::south();
    bench.evse(&start("s", "T"));
    bench.north_up();
    let mut closed = false;
    for _ in 0..6 {
        assert_eq!(bench.backend_hears()[1], "s");
        bench.wait(700);
        closed |= again(&mut bench);
    }
    assert!(closed, "the connection is made anew");
    assert_eq!(bench.route.dead, 0);
    // But a backend that answers everything else has a problem with this message.
    let mut bench = Bench::both();
    bench.evse(&start("s", "T"));
    for n in 0..10 {
        bench.wait(40);
        bench.evse(&heartbeat(&format!("h{n}")));
        bench.backend(&json!([3, format!("h{n}"), {}]));
        bench.wait(600);
        again(&mut bench);
    }
    assert_eq!(bench.route.dead, 1);
}

#[test]
fn a_live_call_finds_an_answer_when_the_backend_goes() {
    let mut bench = Bench::both();
    bench.evse(&heartbeat("h"));
    bench.evse(&status("n"));
    bench.north_down();
    assert!(bench.evse_hears()[2]["currentTime"].is_string());
    assert_eq!(bench.evse_hears(), json!([3, "n", {}]));
    assert_eq!(bench.route.queue.len(), 1, "the status is delivered later");
    let mut bench = Bench::both();
    bench.evse(&json!([2, "d", "DataTransfer", {}]));
    bench.wait(31);
    assert_eq!(bench.evse_hears()[2], "GenericError");
}

#[test]
fn cards_are_learnt_and_blocked_ones_stay_blocked() {
    let mut bench = Bench::new(Saved::default(), false);
    bench.south_up();
    bench.north_up();
    for (card, info) in [
        ("Good", json!({"status": "Accepted", "parentIdTag": "P"})),
        ("Bad", json!({"status": "Blocked"})),
        ("Old", json!({"status": "Accepted", "expiryDate": "2026-11-23T11:00:00Z"})),
    ] {
        bench.evse(&json!([2, card, "Authorize", {"idTag": card}]));
        bench.backend(&json!([3, card, {"idTagInfo": info}]));
    }
    bench.north_down();
    bench.south.clear();
    for (card, verdict) in [("GOOD", "Accepted"), ("bad", "Blocked"), ("Old", "Expired"), ("New", "Invalid")]
    {
        bench.evse(&json!([2, "a", "Authorize", {"idTag": card}]));
        assert_eq!(bench.evse_hears()[2]["idTagInfo"]["status"], verdict, "{card}");
    }
}

#[test]
fn the_limit_goes_first_and_only_the_newest() {
    let mut bench = Bench::both();
    bench.wish(1, 16);
    let id = bench.own("SetChargingProfile");
    bench.backend(&json!([2, "r", "Reset", {}]));
    bench.wish(2, 10);
    bench.wish(3, 8);
    assert_eq!(bench.evse_hears(), Value::Null, "one call is unanswered");
    bench.evse(&json!([3, id, {"status": "Accepted"}]));
    let frame = bench.evse_hears();
    assert_eq!(frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"], 8);
    bench.evse(&json!([3, frame[1], {"status": "Accepted"}]));
    assert_eq!(bench.evse_hears()[2], "Reset");
    let confirmed: Vec<_> = bench.told.iter().filter(|e| matches!(e, EvseEvent::Confirmed { .. })).collect();
    assert!(matches!(
        confirmed[..],
        [EvseEvent::Confirmed { sequence: 1, .. }, EvseEvent::Confirmed { sequence: 3, .. }]
    ));
    assert_eq!(bench.backend_hears(), Value::Null, "nothing of it goes north");
}

#[test]
fn a_refused_limit_is_told_and_tried_again_with_the_next_wish_or_connection() {
    for answer in [json!({"status": "Rejected"}), json!({"status": "NotSupported"}), json!({})] {
        let mut bench = Bench::south();
        bench.wish(1, 16);
        let id = bench.own("SetChargingProfile");
        bench.evse(&json!([3, id, answer]));
        assert!(bench.told.iter().any(|e| matches!(e, EvseEvent::Refused { sequence: 1, .. })), "{answer}");
        assert_eq!(bench.evse_hears(), Value::Null);
        bench.wish(2, 16);
        bench.own("SetChargingProfile");
        bench.wait(11);
        assert!(bench.told.iter().any(|e| matches!(e, EvseEvent::Refused { sequence: 2, .. })), "silent");
        bench.south_up();
        assert_eq!(bench.evse_hears(), Value::Null, "it may be booting");
        bench.wait(2);
        bench.own("SetChargingProfile");
    }
}

#[test]
fn after_an_accepted_boot_the_limit_is_set_again() {
    let mut bench = Bench::both();
    bench.wish(1, 16);
    let id = bench.own("SetChargingProfile");
    bench.evse(&json!([3, id, {"status": "Accepted"}]));
    bench.evse(&json!([2, "b", "BootNotification", {}]));
    bench.backend(&json!([3, "b", {"status": "Accepted", "interval": 20}]));
    assert_eq!(bench.evse_hears()[1], "b");
    bench.own("SetChargingProfile");
}

#[test]
fn a_new_limit_is_measured_unless_the_box_cannot() {
    let mut bench = Bench::south();
    for (sequence, amps, asks) in [(1, 16, true), (2, 16, false), (3, 10, true), (4, 8, false)] {
        bench.wish(sequence, amps);
        let id = bench.own("SetChargingProfile");
        bench.evse(&json!([3, id, {"status": "Accepted"}]));
        bench.wait(3);
        if asks {
            let id = bench.own("TriggerMessage");
            let answer = if sequence == 1 {
                json!([3, id, {"status": "Accepted"}])
            } else {
                json!([4, id, "NotSupported", "", {}])
            };
            bench.evse(&answer);
        }
        assert_eq!(bench.evse_hears(), Value::Null, "{sequence}");
    }
}

#[test]
fn a_call_to_an_absent_or_silent_evse_is_refused() {
    let mut bench = Bench::both();
    bench.backend(&json!([2, "r", "Reset", {}]));
    bench.backend(&json!([2, "u", "UnlockConnector", {}]));
    bench.wait(31);
    assert_eq!(
        bench.backend_hears(),
        json!([4, "r", "GenericError", "the charge point does not answer", {}])
    );
    bench.route.south_down(bench.now);
    bench.drain();
    assert_eq!(bench.backend_hears()[1], "u");
    bench.backend(&json!([2, "x", "Reset", {}]));
    assert_eq!(bench.backend_hears()[2], "GenericError");
    // What the EVSE answers too late goes nowhere.
    bench.south_up();
    bench.evse(&json!([3, "r", {"status": "Accepted"}]));
    assert_eq!(bench.backend_hears(), Value::Null);
}

#[test]
fn answers_do_not_cross_connections() {
    let mut bench = Bench::both();
    bench.backend(&json!([2, "r", "Reset", {}]));
    bench.north_down();
    bench.north_up();
    bench.evse(&json!([3, "r", {"status": "Accepted"}]));
    assert_eq!(bench.backend_hears(), Value::Null);
    bench.south.clear();
    bench.evse(&heartbeat("h"));
    bench.south_up();
    bench.backend(&json!([3, "h", {}]));
    assert_eq!(bench.evse_hears(), Value::Null);
}

#[test]
fn a_flood_is_stemmed() {
    let mut bench = Bench::both();
    for n in 0..100 {
        bench.evse(&heartbeat(&n.to_string()));
        bench.evse(&heartbeat(&n.to_string()));
    }
    assert!(bench.route.live.len() <= MOST_UNANSWERED);
    assert!(bench.south.iter().all(|f| f[2] == "GenericError"));
    for n in 0..100 {
        bench.backend(&json!([2, n, "Reset", {}]));
    }
    assert!(bench.north.iter().filter(|f| f[2] == "GenericError").count() >= 60);
}

#[test]
fn facts_reach_the_site() {
    let mut bench = Bench::south();
    bench.evse(&status("n"));
    assert!(
        bench.told.contains(&EvseEvent::Status { status: ConnectorStatus::Charging, error: String::new() })
    );
    bench.evse(&json!([2, "n0", "StatusNotification",
        {"connectorId": 0, "status": "Faulted", "errorCode": "GroundFailure"}]));
    assert!(bench.told.iter().any(|e| matches!(e, EvseEvent::Problem(p) if p.contains("GroundFailure"))));
    bench.evse(&meter("m", &json!(4711)));
    let adopted =
        |e: &EvseEvent| matches!(e, EvseEvent::Transaction(t) if t.id == 4711 && t.backend_id == Some(4711));
    assert!(bench.told.iter().any(adopted), "a transaction that began elsewhere");
    bench.route.south_frame(bench.now, "rubbish".into());
    bench.drain();
    assert!(bench.told.iter().any(|e| matches!(e, EvseEvent::Problem(p) if p.contains("not a JSON array"))));
}

#[test]
fn the_connection_to_the_backend_follows_the_evse() {
    let mut bench = Bench::empty();
    assert!(!bench.route.wants_north(bench.now.mono));
    bench.south_up();
    assert!(bench.route.wants_north(bench.now.mono));
    bench.route.south_down(bench.now);
    assert!(bench.route.wants_north(bench.now.mono), "it may be rebooting");
    bench.wait(61);
    assert!(!bench.route.wants_north(bench.now.mono));
    bench.south_up();
    bench.evse(&status("n"));
    bench.route.south_down(bench.now);
    bench.wait(61);
    assert!(bench.route.wants_north(bench.now.mono), "something waits");
}

proptest::proptest! {
    /// Whatever either side sends: no panic, and no wake-up that does not help.
    #[test]
    fn rubbish_is_survived(frames in proptest::collection::vec((proptest::bool::ANY, rubbish()), 1..30)) {
        let mut bench = Bench::both();
        bench.wish(1, 16);
        for (south, text) in frames {
            if south {
                bench.route.south_frame(bench.now, text);
            } else {
                bench.route.north_frame(bench.now, text);
            }
            while let Some(out) = bench.route.output() {
                if let Out::Store { ticket, .. } = out {
                    bench.route.stored(bench.now, ticket, &Ok(()));
                }
            }
        }
        bench.wait(5);
    }
}

fn rubbish() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let action = prop_oneof![
        Just("StartTransaction"),
        Just("StopTransaction"),
        Just("MeterValues"),
        Just("BootNotification"),
        Just("StatusNotification"),
        Just("Authorize"),
        Just("SetChargingProfile"),
        Just("ClearChargingProfile"),
        Just("RemoteStopTransaction"),
        Just("X"),
    ];
    let value = prop_oneof![
        Just("1"),
        Just("-1"),
        Just("null"),
        Just("\"x\""),
        Just("[]"),
        Just("{}"),
        Just("1e400"),
        Just("[{}]"),
        Just("99999999999999999999"),
        Just("\"2026-11-23T12:00:00Z\""),
        Just("{\"transactionId\":[]}"),
        Just("{")
    ];
    let key = prop_oneof![
        Just("transactionId"),
        Just("idTag"),
        Just("connectorId"),
        Just("meterValue"),
        Just("timestamp"),
        Just("csChargingProfiles"),
        Just("status"),
        Just("idTagInfo"),
        Just("interval"),
        Just("meterStart")
    ];
    let payload = proptest::collection::vec((key, value), 0..4).prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", members.join(","))
    });
    (2..6_u8, 0..4_u8, action, payload).prop_map(|(kind, id, action, payload)| match kind {
        2 => format!("[2,\"{id}\",\"{action}\",{payload}]"),
        3 => format!("[3,\"{id}\",{payload}]"),
        4 => format!("[4,\"{id}\",\"{action}\",\"\",{payload}]"),
        _ => format!("[{kind},{payload}"),
    })
}

#[test]
fn an_order_waits_for_its_turn_and_its_answer_never_goes_north() {
    let mut bench = Bench::both();
    bench.backend(&json!([2, "b", "Reset", {"type": "Soft"}]));
    let order = |ticket| Order { ticket, action: "UnlockConnector", payload: r#"{"connectorId":1}"#.into() };
    bench.route.order(bench.now, order(7));
    bench.drain();
    assert_eq!(bench.evse_hears()[2], "Reset");
    assert_eq!(bench.evse_hears(), Value::Null, "one at a time");
    bench.evse(&json!([3, "b", {"status": "Accepted"}]));
    let call = bench.evse_hears();
    assert_eq!((&call[2], &call[3]), (&json!("UnlockConnector"), &json!({"connectorId": 1})));
    assert_eq!(bench.backend_hears()[1], "b");
    bench.evse(&json!([3, call[1], {"status": "Unlocked"}]));
    assert_eq!(bench.answered.pop(), Some((7, Ok(r#"{"status":"Unlocked"}"#.to_owned()))));
    assert_eq!(bench.backend_hears(), Value::Null);
    bench.route.order(bench.now, order(8));
    bench.route.order(bench.now, order(9));
    bench.drain();
    bench.route.south_down(bench.now);
    bench.drain();
    bench.route.order(bench.now, order(10));
    bench.drain();
    let mut away: Vec<_> = bench.answered.iter().map(|(t, o)| (*t, o.clone())).collect();
    away.sort_by_key(|(t, _)| *t);
    assert_eq!(away, [8, 9, 10].map(|t| (t, Err(NoAnswer::Away))));
}

#[test]
fn an_order_that_is_not_answered_says_so() {
    let mut bench = Bench::both();
    let order = Order { ticket: 1, action: "Reset", payload: r#"{"type":"Hard"}"#.into() };
    bench.route.order(bench.now, order);
    bench.drain();
    bench.wait(11);
    assert_eq!(bench.answered, [(1, Err(NoAnswer::Silent))]);
}

#[test]
fn a_list_that_the_evse_took_decides_before_what_was_heard() {
    let mut bench = Bench::new(Saved::default(), false);
    bench.south_up();
    bench.north_up();
    bench.wait(2);
    let list = json!([2, "l", "SendLocalList", {"listVersion": 1, "updateType": "Full", "localAuthorizationList": [
        {"idTag": "ADA", "idTagInfo": {"status": "Accepted"}},
        {"idTag": "BEN", "idTagInfo": {"status": "Blocked"}},
        {"idTag": "OLD", "idTagInfo": {"status": "Accepted", "expiryDate": "2020-01-01T00:00:00Z"}}]}]);
    bench.backend(&list);
    assert_eq!(bench.evse_hears(), list, "it passes as it is");
    bench.evse(&json!([3, "l", {"status": "Failed"}]));
    let ask = |bench: &mut Bench, tag: &str| {
        bench.evse(&json!([2, tag, "Authorize", {"idTag": tag}]));
        bench.evse_hears()[2]["idTagInfo"]["status"].clone()
    };
    bench.backend_hears();
    bench.north_down();
    assert_eq!(ask(&mut bench, "ada"), "Invalid", "the EVSE has no list, so there is none here");
    bench.north_up();
    bench.backend(&list);
    bench.evse_hears();
    bench.evse(&json!([3, "l", {"status": "Accepted"}]));
    assert_eq!(bench.backend_hears()[2]["status"], "Accepted");
    bench.north_down();
    for (tag, verdict) in [("ada", "Accepted"), ("ben", "Blocked"), ("OLD", "Expired"), ("cy", "Invalid")] {
        assert_eq!(ask(&mut bench, tag), verdict, "{tag}");
    }
}
