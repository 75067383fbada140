//! Limits and their evidence.

use ladewart_proto::v1::{
    self, grid_service_client::GridServiceClient, journal_service_client::JournalServiceClient,
};
use prost_types::Timestamp;
use tokio_stream::StreamExt;
use tonic::Code;

use super::*;

#[tokio::test]
async fn a_limit_is_set_watched_recorded_and_cleared() {
    let daemon = Daemon::start(vec![]);
    let mut grid = GridServiceClient::new(daemon.channel().await);
    let request =
        v1::SetLimitRequest { id: "dso-1".into(), watts: 0, reason: "§14a".into(), ..Default::default() };
    let first = grid.set_limit(request).await.unwrap().into_inner();
    let limit = first.limit.clone().unwrap();
    assert_eq!(first.change(), v1::Change::Created);
    assert_eq!((limit.issuer, limit.role.as_str()), (format!("uid:{}", own_uid()), "admin"));
    assert_eq!((limit.stage, limit.watts), (v1::LimitStage::Accepted.into(), 0));
    assert!(limit.received_at.is_some() && limit.accepted_at.is_some() && limit.applied_at.is_none());

    let mut watch = grid.watch_limits(v1::WatchLimitsRequest {}).await.unwrap().into_inner();
    let mut told = async || {
        let limit = soon(watch.message()).await.unwrap().unwrap().limit.unwrap();
        (limit.id.clone(), limit.stage())
    };
    assert_eq!(told().await, ("dso-1".into(), v1::LimitStage::Accepted));
    let request = v1::SetLimitRequest { id: "dso-2".into(), watts: 4200, ..Default::default() };
    grid.set_limit(request).await.unwrap();
    assert_eq!(told().await, ("dso-2".into(), v1::LimitStage::Received));
    assert_eq!(told().await, ("dso-2".into(), v1::LimitStage::Accepted));
    let clear = |id: &str| v1::ClearLimitRequest { id: id.into() };
    let change = grid.clear_limit(clear("dso-1")).await.unwrap().into_inner().change();
    assert_eq!(change, v1::Change::Removed);
    assert_eq!(told().await, ("dso-1".into(), v1::LimitStage::Cleared));
    let change = grid.clear_limit(clear("dso-1")).await.unwrap().into_inner().change();
    assert_eq!(change, v1::Change::None);

    let mut ids = async |include_ended| {
        let list =
            grid.list_limits(v1::ListLimitsRequest { include_ended }).await.unwrap().into_inner().limits;
        list.into_iter().map(|limit| limit.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(false).await, ["dso-2"]);
    assert_eq!(ids(true).await, ["dso-1", "dso-2"]);

    let mut journal = JournalServiceClient::new(daemon.channel().await);
    let request = v1::ExportJournalRequest { kind: "limit.".into(), ..Default::default() };
    let entries = journal.export_journal(request).await.unwrap().into_inner();
    let entries: Vec<_> = soon(entries.map(|e| e.unwrap().entry.unwrap()).collect()).await;
    assert_eq!(entries.iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((entries[1].body.as_str(), entries[1].hash.len()), (r#"{"watts":4200}"#, 64));
    let verdict = journal.verify_journal(v1::VerifyJournalRequest {}).await.unwrap().into_inner();
    assert!(verdict.intact && verdict.entries == 2 && verdict.head == entries[1].hash, "{verdict:?}");
    daemon.ends().await;
}

#[tokio::test]
async fn bad_fields_are_named_and_nothing_happens() {
    let daemon = Daemon::start(vec![]);
    let mut grid = GridServiceClient::new(daemon.channel().await);
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let good = || v1::SetLimitRequest { id: "l".into(), ..Default::default() };
    let cases = [
        ("watts", v1::SetLimitRequest { watts: -1, ..good() }),
        ("watts", v1::SetLimitRequest { watts: i64::MIN, ..good() }),
        ("id", v1::SetLimitRequest { id: "a b".into(), ..good() }),
        ("id", v1::SetLimitRequest { id: "x".repeat(65), ..good() }),
        ("id", v1::SetLimitRequest { id: "ä".into(), ..good() }),
        ("node", v1::SetLimitRequest { node: "attic".into(), ..good() }),
        ("valid_until", v1::SetLimitRequest { valid_until: at(0), ..good() }),
        (
            "valid_until",
            v1::SetLimitRequest { valid_from: at(4_000_000_000), valid_until: at(3_999_999_999), ..good() },
        ),
        (
            "valid_until",
            v1::SetLimitRequest { valid_from: at(4_000_000_000), valid_until: at(4_000_000_000), ..good() },
        ),
        ("valid_until", v1::SetLimitRequest { valid_from: at(10), valid_until: at(20), ..good() }),
        ("valid_until", v1::SetLimitRequest { valid_until: at(i64::MAX), ..good() }),
        (
            "valid_from",
            v1::SetLimitRequest { valid_from: Some(Timestamp { seconds: 0, nanos: -1 }), ..good() },
        ),
        ("reason", v1::SetLimitRequest { reason: "x".repeat(201), ..good() }),
        ("reason", v1::SetLimitRequest { reason: "\u{1b}[2J".into(), ..good() }),
    ];
    for (field, request) in cases {
        let refused = grid.set_limit(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}");
        assert!(refused.message().starts_with(&format!("{field}: ")), "{}", refused.message());
    }
    for id in ["", "a/b"] {
        let refused = grid.clear_limit(v1::ClearLimitRequest { id: id.into() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with("id: "), "{}", refused.message());
    }
    let umlauts = v1::SetLimitRequest { reason: "ä".repeat(200), ..good() };
    assert!(grid.set_limit(umlauts).await.is_ok(), "characters are counted, not bytes");
    assert_eq!(daemon.site.view.borrow().limits.len(), 1);

    let mut journal = JournalServiceClient::new(daemon.channel().await);
    for (field, request) in [
        ("to_sequence", v1::ExportJournalRequest { from_sequence: 5, to_sequence: 4, ..Default::default() }),
        ("kind", v1::ExportJournalRequest { kind: "limit'; --".into(), ..Default::default() }),
    ] {
        let refused = journal.export_journal(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{}", refused.message());
    }
    daemon.ends().await;
}

#[tokio::test]
async fn failures_have_codes_that_tell_what_to_do() {
    let daemon = Daemon::start(vec![]);
    let mut grid = GridServiceClient::new(daemon.channel().await);
    let named = |id: &str| v1::SetLimitRequest { id: id.into(), ..Default::default() };
    assert_eq!(grid.set_limit(named("full")).await.unwrap_err().code(), Code::ResourceExhausted);
    let theirs = grid.set_limit(named("theirs")).await.unwrap_err();
    assert_eq!(theirs.code(), Code::PermissionDenied);
    assert!(theirs.message().contains("uid:7"), "{}", theirs.message());
    daemon.ends().await;
}
