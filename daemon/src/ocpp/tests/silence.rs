//! EVSEs that do not answer pings.

use super::*;

#[tokio::test]
async fn one_that_knows_no_pings_is_let_be_and_the_others_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::start_with(dir.path(), None, |parts| {
        parts.config.ping_interval = Duration::from_millis(200);
        parts.stations[0].settings.ocpp.pings = false;
    })
    .await;
    let mut unpinged = site.connect("CP1").await;
    // Whoever does not read answers no ping either.
    let _silent = site.connect("CP%7C2").await;
    site.event("CP|2", |event| *event == EvseEvent::Disconnected).await;
    let answer = unpinged.call("h", "Heartbeat", json!({})).await;
    assert!(answer["currentTime"].is_string(), "it came first and stands still: {answer}");
    site.end().await;
}
