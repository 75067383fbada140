//! Bad input of either side: each kind has a defined end, and the connection outlives it where it can.

use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};

use super::*;

#[tokio::test]
async fn bad_input_has_a_defined_end() {
    let (dir, csms, way) = world(true).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut backend) = through(&site, &csms, "CP1").await;
    // What is no JSON is refused under its id; what has no id, or no known type, is passed over.
    evse.say_text(
        r#"[2,"nan","MeterValues",{"connectorId":1,"meterValue":[{"sampledValue":[{"value":NaN}]}]}]"#,
    )
    .await;
    let refused = evse.hear().await;
    assert_eq!((&refused[1], &refused[2]), (&json!("nan"), &json!("FormationViolation")));
    for text in
        ["[,{}]", "hello", "[7,\"x\",{}]", "[3,\"nobody\",{}]", "[4,\"nobody\",\"InternalError\",\"\",{}]"]
    {
        evse.say_text(text).await;
    }
    // An unknown action is the backend's to judge.
    evse.say(json!([2, "u", "Invented", { "x": 1 }])).await;
    assert_eq!(backend.hear_call("Invented").await.0, "u");
    backend.say(json!([4, "u", "NotImplemented", "", {}])).await;
    assert_eq!(evse.hear().await[2], "NotImplemented");
    // Times from 1970 or with an offset pass as they are; a stop of nothing is kept as it is, twice if it comes twice.
    for (id, time) in [("old", "1970-01-01T00:00:00Z"), ("offset", "2026-11-23T12:00:00+03:00")] {
        let stop = json!({ "transactionId": -1, "meterStop": 1, "timestamp": time });
        evse.say(json!([2, id, "StopTransaction", stop])).await;
        assert_eq!(backend.hear_call("StopTransaction").await, (json!(id), stop));
        backend.say(json!([3, id, {}])).await;
        assert_eq!(evse.hear().await, json!([3, id, {}]));
    }
    // A newer connection under the same identity wins.
    let mut newer = site.connect("CP1").await;
    assert_eq!(evse.end().await, 1008);
    // Frames beyond every measure, and what is no text, end the connection; the next one is welcome.
    newer.0.send(Message::text("x".repeat(10 << 20))).await.ok();
    assert!([1009, 1006].contains(&newer.end().await));
    let mut evse = site.connect("CP1").await;
    evse.0.send(Message::binary(vec![0xff, 0xfe])).await.unwrap();
    assert_eq!(evse.end().await, 1003);
    let mut evse = site.connect("CP1").await;
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");
}

/// A backend that closes after every call gets every message all the same, once answered never again.
#[tokio::test]
async fn a_backend_that_closes_after_every_call_gets_everything() {
    let (dir, csms, way) = world(false).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let mut evse = site.connect("CP1").await;
    let started = evse.call("s", "StartTransaction", start()).await;
    evse.call("e", "StopTransaction", stop(&started["transactionId"])).await;
    way.open.store(true, Ordering::SeqCst);
    let (_, mut backend) = csms.accept().await;
    assert_eq!(backend.hear_call("StartTransaction").await.0, "s");
    drop(backend);
    let (_, mut backend) = csms.accept().await;
    assert_eq!(backend.hear_call("StartTransaction").await, (json!("s"), start()), "the same once more");
    backend.say(json!([3, "s", { "transactionId": 9, "idTagInfo": { "status": "Accepted" } }])).await;
    assert_eq!(backend.hear_call("StopTransaction").await.1["transactionId"], 9);
    drop(backend);
    let (_, mut backend) = csms.accept().await;
    assert_eq!(backend.hear_call("StopTransaction").await.0, "e", "never the start again");
    backend.say(json!([3, "e", {}])).await;
    site.event("CP1", |e| *e == EvseEvent::Queue { waiting: 0, dead: 0 }).await;
}

/// A text frame that is no UTF-8.
fn broken_text() -> Message {
    Message::Frame(Frame::message(vec![b'[', 0xff, 0xfe], OpCode::Data(Data::Text), true))
}

#[tokio::test]
async fn what_is_no_utf8_ends_its_connection() {
    let (dir, csms, way) = world(true).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut backend) = through(&site, &csms, "CP1").await;
    evse.0.send(broken_text()).await.unwrap();
    assert_eq!(evse.end().await, 1007);
    let problem = site.event("CP1", |e| matches!(e, EvseEvent::Problem(p) if p.contains("UTF-8"))).await;
    assert!(matches!(problem, EvseEvent::Problem(_)));
    let mut evse = site.connect("CP1").await;
    backend.0.send(broken_text()).await.unwrap();
    assert_eq!(backend.end().await, 1007);
    let (_, mut backend) = csms.accept().await;
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");
}

#[tokio::test]
async fn nonsense_of_the_backend_reaches_nobody() {
    let (dir, csms, way) = world(true).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut backend) = through(&site, &csms, "CP1").await;
    for text in [
        "[,{}]",
        "hello",
        "[7,\"x\",{}]",
        "[3,\"nobody\",{}]",
        "[4,\"nobody\",\"InternalError\",\"\",{}]",
        "[5,\"nobody\",\"InternalError\",\"\",{}]",
        "[6,\"x\",\"NotifyPeriodicEventStream\",{}]",
    ] {
        backend.say_text(text).await;
    }
    backend.say_text(r#"[2,"b","Reset",{"type":NaN}]"#).await;
    assert_eq!(backend.hear().await, json!([4, "b", "FormationViolation", "is not valid JSON", {}]));
    // What we do not know is the EVSE's to judge; its answer is the first that it hears of all this.
    backend.say(json!([2, "u", "Invented", { "x": 1 }])).await;
    assert_eq!(evse.hear_call("Invented").await, (json!("u"), json!({ "x": 1 })));
    evse.say(json!([4, "u", "NotImplemented", "", {}])).await;
    assert_eq!(backend.hear().await[2], "NotImplemented");
    // An answer that comes once more goes nowhere.
    evse.say(json!([3, "u", {}])).await;
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");
}
