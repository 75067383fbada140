//! Tariffs of the backend in the route.

use serde_json::json;

use super::{tariffs::News, tests::Bench, *};

fn default() -> serde_json::Value {
    let tariff = json!({"tariffId": "t", "currency": "EUR", "energy": {"prices": [{"priceKwh": 0.2}]}});
    json!([2, "a", "SetDefaultTariff", {"evseId": 0, "tariff": tariff}])
}

fn both() -> Bench {
    let mut bench = Bench::empty();
    bench.route.south_up(bench.now, Version::V21);
    bench.wait(2);
    bench.route.north_up(bench.now, Version::V21);
    bench.drain();
    bench
}

#[test]
fn an_evse_that_is_away_is_answered_for_only_with_what_is_stored() {
    for (outcome, expected) in [(Ok(()), 3), (Err("the disk is full".to_owned()), 4)] {
        let mut bench = both();
        bench.tariff_outcome = outcome;
        bench.route.south_down(bench.now);
        bench.backend(&default());
        assert_eq!(bench.backend_hears()[0], expected);
        assert_eq!(bench.tariffs.len(), 1);
    }
}

#[test]
fn what_is_not_taken_in_is_the_evses_alone() {
    let mut bench = both();
    bench.tariff_outcome = Err("no".to_owned());
    bench.backend(&default());
    assert_eq!(bench.evse_hears(), default());
    bench.evse(&json!([4, "a", "NotImplemented", "", {}]));
    assert_eq!(bench.backend_hears(), json!([4, "a", "NotImplemented", "", {}]));
}

#[test]
fn without_a_transaction_there_is_no_tariff_for_one() {
    let mut bench = both();
    let mut change = default();
    change[2] = json!("ChangeTransactionTariff");
    bench.backend(&change);
    assert_eq!(bench.evse_hears(), change);
    assert!(bench.tariffs.is_empty());
    // Signed, it is for whoever can check the signature.
    let mut signed = default();
    signed[2] = json!("SetDefaultTariff-Signed");
    bench.evse(&json!([3, "a", {"status": "TxNotFound"}]));
    bench.backend_hears();
    bench.backend(&signed);
    assert_eq!(bench.evse_hears(), signed);
    assert!(bench.tariffs.is_empty());
    bench.evse(&json!([3, "a", {"status": "Accepted"}]));
    bench.backend(&json!([2, "b", "ClearTariffs", {"tariffIds": ["t"]}]));
    assert_eq!(bench.tariffs, [News::Cleared(vec!["t".to_owned()])]);
}
