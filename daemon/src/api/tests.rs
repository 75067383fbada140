//! Over a real socket, with a real client, against a site whose loop is played here.

use std::{path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use ladewart_proto::v1::{
    self, evse_service_client::EvseServiceClient, grid_service_client::GridServiceClient,
    journal_service_client::JournalServiceClient, meter_service_client::MeterServiceClient,
    site_service_client::SiteServiceClient, system_service_client::SystemServiceClient,
    uplink_service_client::UplinkServiceClient,
};
use prost_types::Timestamp;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{broadcast, mpsc, oneshot},
    task::JoinSet,
};
use tokio_stream::StreamExt;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::{
    config::Role,
    control::{Command, CommandError, Handle, Synced},
    grid::{Change, Limit, Record, Refusal, Stage, Wish},
    ids::{ContactId, EvseId, Identity, LimitId, MeterId, NodeId, RelayId},
    journal::{Entry, MIGRATIONS},
    site::{
        View,
        event::{ConnectorStatus, Draw, Level, Reading, Transaction},
        view::{ContactView, EvseView, MeterView, NodeView, Quality, RelayView, SetpointView},
    },
    smgw::{CertificateStatus, State},
    store::{Store, StoreError, Writer},
    units::{Milliamps, Millivolts, PerPhase, WattHours, Watts},
};

const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

fn evse(n: usize, now: Now) -> EvseView {
    let busy = n == 0;
    EvseView {
        id: EvseId::new(&format!("wb{n}")),
        identity: Identity::new(&format!("CP-{n}")),
        node: NodeId::new("grid"),
        connected_since: busy.then_some(now.wall),
        backend_connected: busy,
        status: if busy { ConnectorStatus::Charging } else { ConnectorStatus::Unknown },
        error: String::new(),
        vendor: "Acme".into(),
        model: "W1".into(),
        transaction: busy.then(|| Transaction {
            id: -7,
            backend_id: Some(41),
            started: now.wall,
            meter_start: WattHours(1200),
        }),
        setpoint: busy.then(|| SetpointView {
            limit: Milliamps(16_000),
            failsafe: Milliamps(6000),
            confirmed: true,
            lease_until: Some(now.wall),
            reason: "the EVSE's own maximum".into(),
        }),
        draw: busy.then_some(Draw {
            at: now,
            currents: Some([Milliamps(15_800); 3]),
            power: Some(Watts(10_900)),
            energy: None,
        }),
        draw_phases: PerPhase([Milliamps(15_800); 3]),
        queued: 3,
        dead: 0,
        problem: if busy { String::new() } else { "never connected".into() },
    }
}

fn view(now: Now) -> View {
    View {
        at: now,
        name: "Depot".into(),
        nodes: vec![NodeView {
            id: NodeId::new("grid"),
            parent: None,
            fuse: Milliamps(63_000),
            meter: Some(MeterId::new("main")),
            available: PerPhase([Milliamps(40_000), Milliamps(41_000), Milliamps(42_000)]),
            other_load: PerPhase([Milliamps(-1000), Milliamps(0), Milliamps(2000)]),
            power_limit: None,
            reason: "the fuse".into(),
        }],
        evses: (0..2).map(|n| evse(n, now)).collect(),
        meters: vec![
            MeterView {
                id: MeterId::new("main"),
                device: "eastron-sdm630".into(),
                quality: Quality::Good,
                reading: Some(Reading {
                    at: now,
                    currents: PerPhase([Milliamps(1000); 3]),
                    voltages: PerPhase([Millivolts(230_100); 3]),
                    power: Watts(-690),
                    import: Some(WattHours(5)),
                    export: None,
                }),
                problem: String::new(),
            },
            MeterView {
                id: MeterId::new("pv"),
                device: "eastron-sdm630".into(),
                quality: Quality::Lost,
                reading: None,
                problem: "no answer".into(),
            },
        ],
        contacts: vec![ContactView {
            id: ContactId::new("w4"),
            level: Level::Unreadable("no such line".into()),
            since: now.wall,
        }],
        relays: vec![RelayView {
            id: RelayId::new("k1"),
            energised: true,
            since: now.wall,
            problem: String::new(),
        }],
        limits: Vec::new(),
    }
}

/// The owner of the site, as far as the interface sees it.
struct Loop {
    journal: Journal,
    view: watch::Sender<Arc<View>>,
    limits: broadcast::Sender<Record>,
    clock: Clock,
}

impl Loop {
    fn tell(&self, record: &Record) {
        self.view.send_modify(|view| {
            let limits = &mut Arc::make_mut(view).limits;
            match limits.iter_mut().find(|old| old.limit == record.limit) {
                Some(old) => *old = record.clone(),
                None => limits.push(record.clone()),
            }
        });
        let _ = self.limits.send(record.clone());
    }

    fn set(&self, request: Wish) -> Result<Synced<(Limit, Change)>, CommandError> {
        let id = request.id.unwrap_or_else(|| LimitId::new("chosen"));
        if id.as_str() == "theirs" {
            return Err(Refusal::NotYours { id, owner: "uid:7".into() }.into());
        }
        let now = self.clock.now().wall;
        let limit = Limit {
            id,
            issuer: request.issuer,
            role: request.role,
            node: request.node.unwrap_or_else(|| NodeId::new("grid")),
            watts: request.watts,
            valid_from: request.valid_from.unwrap_or(now),
            valid_until: request.valid_until,
            reason: request.reason,
        };
        let (full, stored) = oneshot::channel();
        if limit.id.as_str() == "full" {
            let _ = full.send(Err(StoreError::Full));
            return Ok(Synced { value: (limit, Change::Created), stored });
        }
        let mut record = Record {
            limit: limit.clone(),
            stage: Stage::Received,
            received: now,
            accepted: None,
            applied: None,
            effective: None,
            ended: None,
            measured: None,
        };
        self.tell(&record);
        let entry = Entry {
            at: now,
            kind: "limit.accepted".into(),
            subject: limit.id.to_string(),
            actor: limit.issuer.clone(),
            body: json!({ "watts": limit.watts.0 }),
        };
        let stored = self.journal.append(vec![entry]);
        record.stage = Stage::Accepted;
        record.accepted = Some(now);
        self.tell(&record);
        Ok(Synced { value: (limit, Change::Created), stored })
    }

    fn clear(&self, id: &LimitId) -> Synced<Change> {
        let (sync, stored) = oneshot::channel();
        let _ = sync.send(Ok(()));
        let found =
            self.view.borrow().limits.iter().find(|r| r.limit.id == *id && r.ended.is_none()).cloned();
        let Some(mut record) = found else {
            return Synced { value: Change::None, stored };
        };
        record.stage = Stage::Cleared;
        record.ended = Some(self.clock.now().wall);
        self.tell(&record);
        Synced { value: Change::Removed, stored }
    }

    async fn run(self: Arc<Self>, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::SetLimit(request, reply) => drop(reply.send(self.set(request))),
                Command::ClearLimit { id, reply, .. } => drop(reply.send(Ok(self.clear(&id)))),
            }
        }
    }
}

struct Daemon {
    socket: PathBuf,
    stop: CancellationToken,
    site: Arc<Loop>,
    uplink: watch::Sender<smgw::Status>,
    tasks: JoinSet<Result<(), Error>>,
    _dir: tempfile::TempDir,
    _writer: Writer,
}

impl Daemon {
    fn start(users: Vec<(u32, Role)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), MIGRATIONS).unwrap();
        let (clock, journal) = (Clock::system(), Journal::new(store));
        let (commands, queue) = mpsc::channel(16);
        let (view, shown) = watch::channel(Arc::new(view(clock.now())));
        let (limits, _) = broadcast::channel(64);
        let (uplink, status) = watch::channel(smgw::Status { mode: "socks5", ..Default::default() });
        let socket = dir.path().join("l.sock");
        let listener = bind(&socket).unwrap();
        let stop = CancellationToken::new();
        let site = Arc::new(Loop { journal: journal.clone(), view, limits: limits.clone(), clock });
        let parts = Parts {
            config: config::Api { socket: socket.clone(), users },
            site: Handle { commands, view: shown, limits },
            uplink: Some(status),
            journal,
            clock,
            listener,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(run(parts, stop.clone()));
        let owner = Arc::clone(&site);
        tasks.spawn(async move {
            owner.run(queue).await;
            Ok(())
        });
        Self { socket, stop, site, uplink, tasks, _dir: dir, _writer: writer }
    }

    async fn channel(&self) -> Channel {
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://ladewart").connect_with_connector(connect).await.unwrap()
    }

    async fn ends(mut self) {
        self.stop.cancel();
        // The interface ends and drops the way to the site; then the site's owner ends, too.
        while let Some(ended) = soon(self.tasks.join_next()).await {
            ended.unwrap().unwrap();
        }
        assert!(!self.socket.exists(), "a stopped daemon leaves no socket");
    }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[tokio::test]
async fn the_picture_shows_what_the_site_knows() {
    let daemon = Daemon::start(vec![]);
    let channel = daemon.channel().await;
    let certificate = CertificateStatus {
        subject: "CN=gateway".into(),
        fingerprint: [0xab; 32],
        not_before: Wall(0),
        not_after: Wall(1_500),
    };
    daemon.uplink.send_modify(|status| {
        status.state = State::Down;
        status.last_error = Some(("proxy: 05 connection refused".into(), Wall(2_000)));
        status.peer = Some(certificate);
    });
    let site = SiteServiceClient::new(channel.clone()).get_site(v1::GetSiteRequest {}).await.unwrap();
    let site = site.into_inner().site.unwrap();
    assert_eq!(site.name, "Depot");
    let node = &site.nodes[0];
    assert_eq!((node.fuse_milliamps, node.available.unwrap().l3_milliamps), (63_000, 42_000));
    assert_eq!(node.other_load.unwrap().l1_milliamps, -1000);
    let [busy, dead] = &site.evses[..] else { panic!("two EVSEs") };
    assert_eq!(busy.status(), v1::ConnectorStatus::Charging);
    assert_eq!(busy.transaction.as_ref().unwrap().backend_id, Some(41));
    assert_eq!(busy.setpoint.as_ref().unwrap().milliamps, 16_000);
    assert_eq!(busy.draw.as_ref().unwrap().currents.unwrap().l2_milliamps, 15_800);
    assert!(!dead.connected && dead.draw.is_none() && dead.problem == "never connected");
    let [main, lost] = &site.meters[..] else { panic!("two meters") };
    assert!(main.age_milliseconds.is_some() && main.power_watts == Some(-690));
    assert_eq!((lost.quality(), lost.age_milliseconds, lost.power_watts), (v1::Quality::Lost, None, None));
    assert_eq!(site.contacts[0].state(), v1::ContactState::Unreadable);
    assert_eq!(site.contacts[0].problem, "no such line");
    assert!(site.relays[0].energised);
    let uplink = site.uplink.unwrap();
    assert_eq!((uplink.state(), uplink.backend_connections), (v1::UplinkState::Down, 1));
    assert_eq!(uplink.last_error_at, Some(Timestamp { seconds: 2, nanos: 0 }));
    let gateway = uplink.gateway_certificate.unwrap();
    assert_eq!(gateway.fingerprint, "ab".repeat(32));
    assert_eq!(gateway.not_after, Some(Timestamp { seconds: 1, nanos: 500_000_000 }));

    let evses = EvseServiceClient::new(channel.clone()).list_evses(v1::ListEvsesRequest {}).await.unwrap();
    assert_eq!(evses.into_inner().evses, site.evses);
    let meters =
        MeterServiceClient::new(channel.clone()).list_meters(v1::ListMetersRequest {}).await.unwrap();
    assert_eq!(meters.into_inner().meters.len(), 2);
    let mut uplinks = UplinkServiceClient::new(channel.clone());
    let status = uplinks.get_uplink_status(v1::GetUplinkStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.uplink.unwrap().last_error, "proxy: 05 connection refused");
    let version = SystemServiceClient::new(channel).get_version(v1::GetVersionRequest {}).await.unwrap();
    assert_eq!(version.into_inner().api, "ladewart.v1");
    daemon.ends().await;
}

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
        ("to_sequence", v1::ExportJournalRequest { from_sequence: 5, to_sequence: 4, kind: String::new() }),
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

async fn next_site(stream: &mut tonic::Streaming<v1::WatchSiteResponse>) -> Result<v1::Site, Status> {
    soon(stream.message()).await.map(|answer| answer.expect("a picture").site.unwrap())
}

#[tokio::test]
async fn a_slow_reader_gets_the_latest_picture_and_holds_up_nobody() {
    let daemon = Daemon::start(vec![]);
    let mut slow = SiteServiceClient::new(daemon.channel().await);
    let request = v1::WatchSiteRequest { min_interval_ms: 10 };
    let mut watch = slow.watch_site(request).await.unwrap().into_inner();
    assert_eq!(next_site(&mut watch).await.unwrap().name, "Depot");
    // Names of 64 KiB fill the connection's window, so that the reader below is really behind.
    let mut quick = SiteServiceClient::new(daemon.channel().await);
    for n in 0..200 {
        let name = format!("{n}:{}", "x".repeat(64 << 10));
        daemon.site.view.send_modify(|view| Arc::make_mut(view).name = name);
        let site = soon(quick.get_site(v1::GetSiteRequest {})).await.unwrap().into_inner().site.unwrap();
        assert!(site.name.starts_with(&format!("{n}:")), "others are served meanwhile");
    }
    let mut pictures = 0;
    loop {
        let site = next_site(&mut watch).await.unwrap();
        pictures += 1;
        if site.name.starts_with("199:") {
            break;
        }
    }
    assert!(pictures < 200, "pictures are skipped, not queued: {pictures}");
    daemon.ends().await;
}

#[tokio::test]
async fn news_of_the_uplink_makes_one_new_picture() {
    let daemon = Daemon::start(vec![]);
    let mut client = SiteServiceClient::new(daemon.channel().await);
    let request = v1::WatchSiteRequest { min_interval_ms: 10 };
    let mut watch = client.watch_site(request).await.unwrap().into_inner();
    next_site(&mut watch).await.unwrap();
    daemon.uplink.send_modify(|status| status.state = State::Up);
    assert_eq!(next_site(&mut watch).await.unwrap().uplink.unwrap().state(), v1::UplinkState::Up);
    let more = tokio::time::timeout(Duration::from_millis(300), watch.message()).await;
    assert!(more.is_err(), "nothing changed any more: {more:?}");
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
