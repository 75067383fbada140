//! Tariffs of a backend at the socket: what the site's rules know of them, what the EVSE hears, what survives.

use super::*;

fn tariff(id: &str, price: f64) -> Value {
    json!({"tariffId": id, "currency": "EUR", "energy": {"prices": [{"priceKwh": price}]}})
}

/// What energy costs at CP1 now, in words.
fn price(site: &Site) -> String {
    let (now, offers) = (Clock::system().now().wall, site.owner.offers());
    let rate = offers.tariffs(now).at(&EvseId::new("CP1"), now);
    rate.price.map_or_else(String::new, |price| price.to_string())
}

/// Waits until energy costs so much.
async fn costs(site: &Site, wanted: &str) {
    soon(wanted, async {
        while price(site) != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Hears a CALL of the backend at the EVSE and answers it.
async fn answers(evse: &mut Peer, action: &str, answer: Value) -> Value {
    let (id, payload) = evse.hear_call(action).await;
    evse.say(if answer.is_string() { json!([4, id, answer, "", {}]) } else { json!([3, id, answer]) }).await;
    payload
}

async fn both(protocol: &'static str) -> (tempfile::TempDir, Site, Peer, Peer) {
    let (dir, mut csms, way) = world(true).await;
    csms.1 = vec![protocol];
    let change = |parts: &mut Parts| {
        for station in &mut parts.stations {
            station.settings.ocpp.versions = vec![Version::V16, Version::V201, Version::V21];
        }
    };
    let site = Site::start_with(dir.path(), Some(&way), change).await;
    let (evse, backend) = tokio::join!(site.try_connect("ocpp/CP1", Some(protocol)), csms.accept());
    (dir, site, evse.unwrap(), backend.1)
}

#[tokio::test]
async fn a_default_and_a_transactions_tariff_reach_the_rules_and_the_evse() {
    let (_dir, site, mut evse, mut backend) = both("ocpp2.1").await;
    assert_eq!(price(&site), "");
    let default = json!({"evseId": 0, "tariff": tariff("std", 0.18)});
    backend.say(json!([2, "a", "SetDefaultTariff", default])).await;
    let heard = answers(&mut evse, "SetDefaultTariff", json!({"status": "Accepted", "x": 1})).await;
    assert_eq!(heard, default, "byte for byte");
    assert_eq!(
        backend.hear().await,
        json!([3, "a", {"status": "Accepted", "x": 1}]),
        "the EVSE's own answer"
    );
    costs(&site, "18 ct/kWh").await;

    // Another one stands in its place; this EVSE does not know tariffs, so it is answered for.
    backend.say(json!([2, "b", "SetDefaultTariff", {"evseId": 1, "tariff": tariff("new", 0.31)}])).await;
    answers(&mut evse, "SetDefaultTariff", json!("NotImplemented")).await;
    assert_eq!(backend.hear().await, json!([3, "b", {"status": "Accepted"}]));
    costs(&site, "31 ct/kWh").await;
    assert_eq!(site.owner.offers().book.by_priority().count(), 1, "the older one is gone");

    // What cannot be used here is the EVSE's alone, and its answer stands.
    let mut fixed = tariff("fix", 0.1);
    fixed["fixedFee"] = json!({"prices": [{"priceFixed": 1.0}]});
    backend.say(json!([2, "c", "SetDefaultTariff", {"evseId": 0, "tariff": fixed}])).await;
    answers(&mut evse, "SetDefaultTariff", json!("NotImplemented")).await;
    let frame = backend.hear().await;
    assert_eq!((&frame[0], &frame[2]), (&json!(4), &json!("NotImplemented")));
    assert_eq!(price(&site), "31 ct/kWh");

    // For one transaction, until it is over.
    let event = |kind: &str, seq: i64| {
        json!([2, format!("t{seq}"), "TransactionEvent", {"eventType": kind, "timestamp": "2026-11-23T12:00:00Z",
            "triggerReason": "CablePluggedIn", "seqNo": seq, "transactionInfo": {"transactionId": "tx"},
            "evse": {"id": 1, "connectorId": 1}}])
    };
    evse.say(event("Started", 0)).await;
    let (id, _) = backend.hear_call("TransactionEvent").await;
    backend.say(json!([3, id, {}])).await;
    evse.hear().await;
    backend.say(json!([2, "d", "ChangeTransactionTariff", {"transactionId": "tx", "tariff": tariff("trip", 0.09)}])).await;
    answers(&mut evse, "ChangeTransactionTariff", json!({"status": "Accepted"})).await;
    assert_eq!(backend.hear().await[2]["status"], "Accepted");
    costs(&site, "9 ct/kWh").await;
    evse.say(event("Ended", 1)).await;
    let (id, _) = backend.hear_call("TransactionEvent").await;
    backend.say(json!([3, id, {}])).await;
    evse.hear().await;
    costs(&site, "31 ct/kWh").await;

    backend.say(json!([2, "e", "ClearTariffs", {"tariffIds": ["other"]}])).await;
    answers(&mut evse, "ClearTariffs", json!("NotSupported")).await;
    assert_eq!(backend.hear().await[2], json!({"clearTariffsResult": [{"status": "Accepted"}]}));
    assert_eq!(price(&site), "31 ct/kWh", "of another name");
    backend.say(json!([2, "f", "ClearTariffs", {}])).await;
    answers(&mut evse, "ClearTariffs", json!("NotSupported")).await;
    backend.hear().await;
    costs(&site, "").await;
    site.end().await;
}

#[tokio::test]
async fn a_tariff_by_data_transfer_is_kept_before_it_is_accepted() {
    let (dir, site, mut evse, mut backend) = both("ocpp1.6").await;
    let now = Clock::system().now().wall;
    let announcement = json!({"id": "day", "sequence": 1, "valid_from": now, "valid_until": now + Duration::from_secs(3600),
        "otherwise": {"price": "12.5 ct/kWh"}});
    let transfer =
        |data: &Value| json!({"vendorId": "de.ladewart", "messageId": "Tariff", "data": data.to_string()});
    let answer = backend.call("a", "DataTransfer", transfer(&announcement)).await;
    assert_eq!(answer, json!({"status": "Accepted"}));
    costs(&site, "12.5 ct/kWh").await;
    let stored = site.store.read(crate::tariff::keep::kept).await.unwrap();
    assert_eq!(stored.by_priority().map(|known| known.id.as_str()).collect::<Vec<_>>(), ["day"]);
    // Again, it is the same; wrong, it is refused with the reason.
    assert_eq!(backend.call("b", "DataTransfer", transfer(&announcement)).await["status"], "Accepted");
    let mut wrong = announcement.clone();
    wrong["evses"] = json!(["attic"]);
    wrong["sequence"] = json!(2);
    let answer = backend.call("c", "DataTransfer", transfer(&wrong)).await;
    assert_eq!(answer["status"], "Rejected");
    assert!(answer["data"].as_str().unwrap().contains("there is no EVSE \"attic\""), "{answer}");
    let answer = backend.call("d", "DataTransfer", transfer(&json!({"id": 1}))).await;
    assert!(answer["data"].as_str().unwrap().contains("is not a tariff"), "{answer}");
    // Of another vendor: the EVSE's.
    backend.say(json!([2, "e", "DataTransfer", {"vendorId": "other", "data": "x"}])).await;
    answers(&mut evse, "DataTransfer", json!({"status": "UnknownVendorId"})).await;
    assert_eq!(backend.hear().await[2]["status"], "UnknownVendorId");
    site.end().await;
    drop(dir);
}
