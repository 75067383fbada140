//! Who gets in, what is found there, and what others cannot spoil.

use ladewart_proto::v1::{
    self, grid_service_client::GridServiceClient, journal_service_client::JournalServiceClient,
    site_service_client::SiteServiceClient,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;

#[tokio::test]
async fn the_role_decides_over_every_service() {
    let daemon = Daemon::start(vec![(own_uid(), Role::Viewer)]);
    let channel = daemon.channel().await;
    let mut grid = GridServiceClient::new(channel.clone());
    let refused = grid.set_limit(v1::SetLimitRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains(&format!("user {}", own_uid())), "{}", refused.message());
    assert_eq!(daemon.site.view.borrow().limits.len(), 0);
    let mut journal = JournalServiceClient::new(channel.clone());
    let export = journal.export_journal(v1::ExportJournalRequest::default()).await.unwrap_err();
    assert_eq!(export.code(), Code::PermissionDenied);
    assert!(grid.list_limits(v1::ListLimitsRequest::default()).await.is_ok());
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    assert!(health.is_ok());
    daemon.ends().await;
}

#[tokio::test]
async fn health_and_reflection_know_every_service() {
    let daemon = Daemon::start(vec![]);
    let channel = daemon.channel().await;
    let services: std::collections::BTreeSet<_> =
        authz::TABLE.iter().map(|(path, _)| path.split('/').nth(1).unwrap().to_owned()).collect();
    let mut health = HealthClient::new(channel.clone());
    let ours = services.iter().filter(|name| name.starts_with("ladewart.")).map(String::as_str);
    for service in ours.chain([""]) {
        let request = HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving, "{service}");
    }
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answers: Vec<_> = soon(answers.collect()).await;
    let Some(MessageResponse::ListServicesResponse(list)) = &answers[0].as_ref().unwrap().message_response
    else {
        panic!("{answers:?}");
    };
    let listed: std::collections::BTreeSet<_> = list.service.iter().map(|s| s.name.clone()).collect();
    assert_eq!(listed, services);
    daemon.ends().await;
}

#[tokio::test]
async fn streams_end_when_the_daemon_stops() {
    let daemon = Daemon::start(vec![]);
    let channel = daemon.channel().await;
    let mut site = SiteServiceClient::new(channel.clone());
    let mut sites = site.watch_site(v1::WatchSiteRequest::default()).await.unwrap().into_inner();
    let mut grid = GridServiceClient::new(channel.clone());
    let mut limits = grid.watch_limits(v1::WatchLimitsRequest {}).await.unwrap().into_inner();
    let mut health = HealthClient::new(channel);
    let mut healths = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    soon(healths.message()).await.unwrap();
    next_site(&mut sites).await.unwrap();
    let ended = daemon.ends();
    let ((), site, limit, health) =
        tokio::join!(ended, soon(sites.message()), soon(limits.message()), soon(healths.message()));
    for status in [site.unwrap_err(), limit.unwrap_err(), health.unwrap_err()] {
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the daemon is stopping"));
    }
}

#[tokio::test]
async fn oversized_and_garbled_input_hurts_nobody_else() {
    let daemon = Daemon::start(vec![]);
    let mut grid = GridServiceClient::new(daemon.channel().await);
    let huge = v1::SetLimitRequest { reason: "x".repeat(2 << 20), ..Default::default() };
    let refused = grid.set_limit(huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"]
    {
        let mut raw = UnixStream::connect(&daemon.socket).await.unwrap();
        // The daemon may close before it has read everything.
        let _ = raw.write_all(garbage).await;
        let _ = raw.shutdown().await;
        let mut rest = Vec::new();
        let _ = soon(raw.read_to_end(&mut rest)).await;
    }
    assert!(grid.list_limits(v1::ListLimitsRequest::default()).await.is_ok());
    daemon.ends().await;
}

#[tokio::test]
async fn one_users_connections_are_bounded_and_given_back() {
    let daemon = Daemon::start(vec![]);
    let mut open = Vec::new();
    // A connection over the bound is closed at once; one below stays open.
    let closed = async |stream: &mut UnixStream| {
        let mut byte = [0; 1];
        matches!(stream.read(&mut byte).await, Ok(0) | Err(_))
    };
    for _ in 0..32 {
        open.push(UnixStream::connect(&daemon.socket).await.unwrap());
    }
    let mut over = UnixStream::connect(&daemon.socket).await.unwrap();
    assert!(soon(closed(&mut over)).await);
    open.clear();
    let works = async {
        loop {
            let attempt = UnixStream::connect(&daemon.socket).await.unwrap();
            let connect = tower::service_fn({
                let mut attempt = Some(TokioIo::new(attempt));
                move |_| {
                    let attempt = attempt.take();
                    async move { attempt.ok_or_else(|| std::io::Error::other("once")) }
                }
            });
            let endpoint = Endpoint::from_static("http://ladewart");
            if let Ok(channel) = endpoint.connect_with_connector(connect).await {
                let answer = SiteServiceClient::new(channel).get_site(v1::GetSiteRequest {}).await;
                if answer.is_ok() {
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    soon(works).await;
    daemon.ends().await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_does_not_hold_up_the_end() {
    let mut daemon = Daemon::start(vec![]);
    let mut site = SiteServiceClient::new(daemon.channel().await);
    let request = v1::WatchSiteRequest { min_interval_ms: 10 };
    let mut unread = site.watch_site(request).await.unwrap().into_inner();
    next_site(&mut unread).await.unwrap();
    // A picture that is larger than what may be on its way. The client refuses it by its announced length, which
    // shows that it is coming, and reads no further.
    let huge = "x".repeat(8 << 20);
    daemon.site.view.send_modify(|view| Arc::make_mut(view).name = huge);
    assert_eq!(next_site(&mut unread).await.unwrap_err().code(), Code::OutOfRange);
    daemon.stop.cancel();
    let ended = soon(daemon.tasks.join_next()).await.expect("the interface");
    ended.unwrap().unwrap();
    drop(unread);
}

/// The status that a call without a message is refused with before any service sees it.
async fn refusal(channel: &mut Channel, path: &str) -> Option<Code> {
    use tower::{Service, ServiceExt};
    let request = http::Request::post(format!("http://ladewart{path}"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = soon(channel.ready().await.unwrap().call(request)).await.unwrap();
    let status = Status::from_header_map(response.headers())?;
    matches!(status.code(), Code::PermissionDenied | Code::Unimplemented).then_some(status.code())
}

#[tokio::test]
async fn every_method_lets_in_exactly_the_roles_of_its_row() {
    for role in [Role::Viewer, Role::Installer, Role::Grid, Role::Supplier, Role::Admin] {
        let daemon = Daemon::start(vec![(own_uid(), role)]);
        let mut channel = daemon.channel().await;
        for (path, roles) in authz::TABLE {
            let expected = (!roles.contains(&role)).then_some(Code::PermissionDenied);
            assert_eq!(refusal(&mut channel, path).await, expected, "{path} as {}", role.name());
        }
        for path in ["/ladewart.v1.SiteService/Shutdown", "/ladewart.v2.SiteService/GetSite", "/"] {
            assert_eq!(refusal(&mut channel, path).await, Some(Code::Unimplemented), "{path}");
        }
        assert_eq!(daemon.site.view.borrow().limits.len(), 0, "nothing was set on the way");
        daemon.ends().await;
    }
}
