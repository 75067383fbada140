//! Transactions, dead letters and orders over the interface; the stations are played.

use ladewart_proto::v1::{
    self, evse_service_client::EvseServiceClient, transaction_service_client::TransactionServiceClient,
};
use tonic::Code;

use super::*;

#[tokio::test]
async fn changes_of_evses_are_told_after_the_present() {
    let daemon = Daemon::start(vec![]);
    let mut evses = EvseServiceClient::new(daemon.channel().await);
    let unknown = evses.watch_evses(v1::WatchEvsesRequest { id: "attic".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watch = evses.watch_evses(v1::WatchEvsesRequest { id: "wb1".into() }).await.unwrap().into_inner();
    let mut next = async || soon(watch.message()).await.unwrap().unwrap().evse.unwrap();
    assert_eq!((next().await.id.as_str(), daemon.site.view.borrow().evses.len()), ("wb1", 2));
    daemon.site.view.send_modify(|view| {
        let view = Arc::make_mut(view);
        view.evses[0].queued += 1;
        view.evses[1].queued = 77;
    });
    let changed = next().await;
    assert_eq!((changed.id.as_str(), changed.queued_messages), ("wb1", 77), "wb0 is not asked for");
    daemon.stop.cancel();
}

#[tokio::test]
async fn orders_to_nobody_and_cards_that_are_none_are_refused() {
    let daemon = Daemon::start(vec![]);
    let mut evses = EvseServiceClient::new(daemon.channel().await);
    let start = |id: &str, tag: &str| v1::StartChargeRequest { id: id.into(), id_tag: tag.into() };
    let nobody = evses.start_charge(start("attic", "A")).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
    for tag in ["", "123456789012345678901", "a\u{1b}"] {
        let refused = evses.start_charge(start("wb0", tag)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{tag:?}");
        assert!(refused.message().starts_with("id_tag: "), "{}", refused.message());
    }
    daemon.ends().await;
}

#[tokio::test]
async fn an_empty_ledger_is_a_ledger() {
    let daemon = Daemon::start(vec![(own_uid(), Role::Supplier)]);
    let mut client = TransactionServiceClient::new(daemon.channel().await);
    let list = client.list_transactions(v1::ListTransactionsRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.transactions.len(), list.next), (0, 0));
    let mut export =
        client.export_transactions(v1::ExportTransactionsRequest::default()).await.unwrap().into_inner();
    assert!(soon(export.message()).await.unwrap().is_none());
    let filter = v1::TransactionFilter { evse_id: "attic".into(), ..Default::default() };
    let request = v1::ListTransactionsRequest { filter: Some(filter), ..Default::default() };
    assert_eq!(client.list_transactions(request).await.unwrap_err().code(), Code::NotFound);
    let wrong = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let filter = v1::TransactionFilter { from: Some(wrong), ..Default::default() };
    let request = v1::ListTransactionsRequest { filter: Some(filter), ..Default::default() };
    let refused = client.list_transactions(request).await.unwrap_err();
    assert!(refused.message().starts_with("filter.from: "), "{}", refused.message());
    daemon.ends().await;
}
