//! The backend's connection is replaced in good time, and nobody notices.

use std::collections::BTreeMap;

use super::*;

const EVERY: Duration = Duration::from_millis(200);

async fn due(overlap: bool) -> (tempfile::TempDir, Csms, Arc<Way>) {
    renewed(true, Some(Renewal { after: EVERY, overlap })).await
}

/// Waits until a connection to the backend was opened for the n-th time; its station knows of it by then.
async fn dialed(way: &Way, n: usize) {
    soon("a connection", way.dialed.subscribe().wait_for(|count| *count >= n)).await.unwrap();
}

async fn started(evse: &mut Peer, backend: &mut Peer) {
    evse.say(json!([2, "s", "StartTransaction", start()])).await;
    assert_eq!(backend.hear_call("StartTransaction").await.0, "s");
}

async fn answered(evse: &mut Peer, backend: &mut Peer) {
    backend.say(json!([3, "s", { "transactionId": 42, "idTagInfo": { "status": "Accepted" } }])).await;
    assert_eq!(evse.hear().await[2]["transactionId"], 42, "the answer over the old connection counts");
}

#[tokio::test]
async fn the_next_connection_takes_over_when_nobody_waits_for_an_answer() {
    let (dir, csms, way) = due(true).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut old) = through(&site, &csms, "CP1").await;
    started(&mut evse, &mut old).await;
    dialed(&way, 2).await;
    // What comes now waits for the next connection.
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    answered(&mut evse, &mut old).await;
    let (path, mut new) = csms.accept().await;
    assert_eq!(path, "/ocpp/CP1");
    assert_eq!(new.hear_call("Heartbeat").await.0, "h");
    assert_eq!(old.end().await, 1001, "it has carried nothing more");
    new.say(json!([3, "h", { "currentTime": "2026-11-23T12:00:00Z" }])).await;
    assert_eq!(evse.hear().await[1], "h");
    site.end().await;
}

#[tokio::test]
async fn what_the_backend_asks_is_answered_before_its_connection_ends() {
    let (dir, csms, way) = due(true).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut old) = through(&site, &csms, "CP1").await;
    old.say(json!([2, "g", "GetConfiguration", {}])).await;
    assert_eq!(evse.hear_call("GetConfiguration").await.0, "g");
    dialed(&way, 2).await;
    evse.say(json!([3, "g", { "configurationKey": [] }])).await;
    assert_eq!(old.hear().await[1], "g");
    let (_, mut new) = csms.accept().await;
    assert_eq!(old.end().await, 1001);
    new.say(json!([2, "g2", "GetConfiguration", {}])).await;
    assert_eq!(evse.hear_call("GetConfiguration").await.0, "g2");
    site.end().await;
}

#[tokio::test]
async fn where_there_may_be_but_one_the_old_one_ends_first_and_in_silence() {
    let (dir, csms, way) = due(false).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut old) = through(&site, &csms, "CP1").await;
    started(&mut evse, &mut old).await;
    tokio::time::timeout(3 * EVERY, old.end()).await.unwrap_err();
    assert_eq!(*way.dialed.borrow(), 1, "it stays while an answer is waited for");
    answered(&mut evse, &mut old).await;
    assert_eq!(old.end().await, 1001);
    let (_, _new) = csms.accept().await;
    site.end().await;
}

#[tokio::test]
async fn a_backend_that_takes_no_second_connection_gets_one_after_the_other() {
    let (dir, csms, way) = due(true).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (_evse, mut old) = through(&site, &csms, "CP1").await;
    assert!(csms.answer(Some(409)).await.is_err());
    assert_eq!(old.end().await, 1001);
    let (path, _new) = csms.accept().await;
    assert_eq!(path, "/ocpp/CP1");
    site.end().await;
}

#[tokio::test]
async fn a_way_that_is_closed_leaves_the_old_connection_alone() {
    let (dir, csms, way) = due(true).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut old) = through(&site, &csms, "CP1").await;
    way.open.store(false, Ordering::SeqCst);
    tokio::time::timeout(3 * EVERY, old.end()).await.unwrap_err();
    started(&mut evse, &mut old).await;
    answered(&mut evse, &mut old).await;
    way.open.store(true, Ordering::SeqCst);
    let (_, _new) = csms.accept().await;
    assert_eq!(old.end().await, 1001);
    site.end().await;
}

/// What a backend heard: message ids in their order, per station, and how often a message came again.
#[derive(Default)]
struct Heard {
    ids: BTreeMap<String, Vec<String>>,
    connections: usize,
}

/// Serves every connection. One that is superseded is closed at once, as many backends do.
async fn serve(csms: Csms, heard: Arc<std::sync::Mutex<Heard>>) {
    let mut serving = JoinSet::new();
    let mut current: BTreeMap<String, tokio::task::AbortHandle> = BTreeMap::new();
    loop {
        let (path, mut peer) = csms.accept().await;
        heard.lock().unwrap().connections += 1;
        let (heard, name) = (Arc::clone(&heard), path.clone());
        let serve = async move {
            let mut transactions = 0;
            while let Some(Ok(message)) = peer.0.next().await {
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(text.as_str()).unwrap();
                let id = frame[1].as_str().unwrap().to_owned();
                heard.lock().unwrap().ids.entry(name.clone()).or_default().push(id.clone());
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..8))).await;
                transactions += 1;
                let answer = match frame[2].as_str() {
                    Some("StartTransaction") => {
                        json!({ "transactionId": 1000 + transactions, "idTagInfo": { "status": "Accepted" } })
                    }
                    _ => json!({}),
                };
                if peer.0.send(Message::text(json!([3, id, answer]).to_string())).await.is_err() {
                    return;
                }
            }
        };
        if let Some(old) = current.insert(path, serving.spawn(serve)) {
            old.abort();
        }
    }
}

/// Charges again and again; the ids of what was sent.
async fn charges(evse: &mut Peer, name: &str, times: usize) -> Vec<String> {
    let mut sent = Vec::new();
    for n in 0..times {
        let call = |kind: &str| format!("{name}-{n}-{kind}");
        let answer = evse.call(&call("start"), "StartTransaction", start()).await;
        let id = answer["transactionId"].clone();
        sent.push(call("start"));
        for sample in ["m1", "m2", "m3"] {
            let values =
                json!({ "connectorId": 1, "transactionId": id, "meterValue": [{ "timestamp": sample }] });
            evse.call(&call(sample), "MeterValues", values).await;
            sent.push(call(sample));
        }
        evse.call(&call("stop"), "StopTransaction", stop(&id)).await;
        sent.push(call("stop"));
    }
    sent
}

/// Two EVSEs charge while their connections are renewed all the time: each message arrives once and in order.
async fn under_load(overlap: bool) {
    let (dir, csms, way) = renewed(true, Some(Renewal { after: Duration::from_millis(60), overlap })).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let heard = Arc::<std::sync::Mutex<Heard>>::default();
    let mut serving = JoinSet::new();
    serving.spawn(serve(csms, Arc::clone(&heard)));
    let (mut a, mut b) = tokio::join!(site.connect("CP1"), site.connect("CP%7C2"));
    // The site takes its events as they come.
    let charging = async { tokio::join!(charges(&mut a, "a", 20), charges(&mut b, "b", 20)) };
    let (sent_a, sent_b) = tokio::select! {
        sent = charging => sent,
        () = async { while site.events.recv().await.is_some() {} } => panic!("the site ended"),
    };
    let all = || {
        let heard = heard.lock().unwrap();
        heard.ids.values().map(Vec::len).sum::<usize>() >= sent_a.len() + sent_b.len()
    };
    soon("everything", async {
        while !all() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let heard = heard.lock().unwrap();
    assert_eq!(heard.ids["/ocpp/CP1"], sent_a, "overlap: {overlap}");
    assert_eq!(heard.ids["/ocpp/CP%7C2"], sent_b, "overlap: {overlap}");
    assert!(heard.connections >= 10, "{} connections", heard.connections);
}

#[tokio::test]
async fn renewals_under_load_lose_nothing_and_repeat_nothing() {
    under_load(true).await;
    under_load(false).await;
}
