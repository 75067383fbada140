//! The gateway as its neighbours see it: real sockets, a backend and EVSEs that say what the test wants.

mod access;
mod bad_input;
mod renewal;
mod silence;
mod tariffs;

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Error as WsError, Message,
        client::IntoClientRequest,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use super::*;
use crate::{
    site::{
        Event,
        event::{ConnectorStatus, EvseEvent},
    },
    smgw::{BoxedIo, DialError, Renewal},
    store::Writer,
    units::Milliamps,
};

const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The way to the backend: open or not.
struct Way {
    to: std::net::SocketAddr,
    open: AtomicBool,
    renewal: Option<Renewal>,
    dialed: watch::Sender<usize>,
}

impl Dial for Way {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + '_>> {
        Box::pin(async {
            if !self.open.load(Ordering::SeqCst) {
                return Err(DialError::Failed("the way is closed".into()));
            }
            let io = TcpStream::connect(self.to).await.map_err(|e| DialError::Failed(e.to_string()))?;
            self.dialed.send_modify(|count| *count += 1);
            Ok(Box::new(io) as BoxedIo)
        })
    }

    fn ready(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    fn renewal(&self) -> Option<Renewal> {
        self.renewal
    }
}

/// One end of a WebSocket, its subprotocol, and the authorization that it was shown.
struct Peer(WebSocketStream<TcpStream>, String, Option<String>);

impl Peer {
    async fn say(&mut self, value: Value) {
        self.0.send(Message::text(value.to_string())).await.unwrap();
    }

    async fn say_text(&mut self, text: &str) {
        self.0.send(Message::text(text.to_owned())).await.unwrap();
    }

    async fn hear_text(&mut self) -> String {
        soon("a frame", async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return text.as_str().to_owned(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("{other:?} instead of a frame"),
                }
            }
        })
        .await
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.hear_text().await).unwrap()
    }

    /// Hears a CALL with this action; gives its id and payload.
    async fn hear_call(&mut self, action: &str) -> (Value, Value) {
        let frame = self.hear().await;
        assert_eq!((&frame[0], frame[2].as_str()), (&json!(2), Some(action)), "{frame}");
        (frame[1].clone(), frame[3].clone())
    }

    async fn call(&mut self, id: &str, action: &str, payload: Value) -> Value {
        self.say(json!([2, id, action, payload])).await;
        let frame = self.hear().await;
        assert_eq!((&frame[0], &frame[1]), (&json!(3), &json!(id)), "{frame}");
        frame[2].clone()
    }

    /// The close code, after whatever else comes; 1006 if there is none.
    async fn end(&mut self) -> u16 {
        soon("the end", async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map_or(1005, |f| f.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return 1006,
                }
            }
        })
        .await
    }
}

/// With the subprotocols that it speaks, the best first.
struct Csms(TcpListener, Vec<&'static str>);

impl Csms {
    async fn accept(&self) -> (String, Peer) {
        self.answer(None).await.unwrap()
    }

    /// Accepts, or refuses with a status.
    #[expect(clippy::result_large_err, reason = "the callback's type is given")]
    async fn answer(&self, status: Option<u16>) -> Result<(String, Peer), WsError> {
        soon("a connection to the backend", async {
            let (io, _) = self.0.accept().await.unwrap();
            let mut path = String::new();
            let mut callback = |request: &Request, mut response: Response| {
                path = request.uri().path().to_owned();
                let offered = request.headers()["sec-websocket-protocol"].to_str().unwrap();
                let offered: Vec<_> = offered.split(", ").collect();
                let chosen = self.1.iter().find(|v| offered.contains(*v)).expect("no version in common");
                response.headers_mut().insert("sec-websocket-protocol", chosen.parse().unwrap());
                match status {
                    None => Ok(response),
                    Some(status) => {
                        let mut refusal = ErrorResponse::new(None);
                        *refusal.status_mut() = status.try_into().unwrap();
                        Err(refusal)
                    }
                }
            };
            let mut version = String::new();
            let mut authorization = None;
            let callback = |request: &Request, response: Response| {
                let shown = request.headers().get("authorization");
                authorization = shown.map(|v| v.to_str().unwrap().to_owned());
                let response = callback(request, response)?;
                version = response.headers()["sec-websocket-protocol"].to_str().unwrap().to_owned();
                Ok(response)
            };
            let socket = accept_hdr_async(io, callback).await?;
            Ok((path, Peer(socket, version, authorization)))
        })
        .await
    }
}

struct Site {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    running: JoinSet<Result<(), Error>>,
    events: mpsc::Receiver<Event>,
    wishes: Vec<watch::Sender<Option<Setpoint>>>,
    orders: Orders,
    owner: control::Handle,
    store: Store,
    _writer: Writer,
}

fn evse(name: &str) -> config::Evse {
    config::Evse {
        id: EvseId::new(name),
        identity: Identity::new(name),
        node: 0,
        wiring: crate::units::Wiring::L123,
        max: Milliamps::amps(32),
        min: Milliamps::amps(6),
        step: Milliamps::amps(1),
        failsafe: Milliamps::amps(6),
        device: None,
        class: 100,
        weight: 1,
        public: false,
        ocpp: config::EvseOcpp::default(),
    }
}

/// Whom tariffs are told to: the daemon's own owner of the site, with one EVSE that has a rule about prices.
fn owner(store: &Store) -> (control::Control, control::Handle) {
    let text = "[site]\nname = \"x\"\n[[node]]\nid = \"main\"\nfuse = \"63 A\"\n[[evse]]\nid = \"CP1\"\nmax = \"16 A\"\n\
                [[rule]]\nid = \"cheap\"\nprice_below = \"20 ct/kWh\"\ncurrent = \"16 A\"\n\
                [[rule]]\nid = \"dear\"\ncurrent = \"6 A\"\n";
    let source = config::Source::new("site.toml".into(), text.to_owned());
    let parts = control::Parts {
        config: Arc::new(config::parse(&source).unwrap()),
        limits: vec![],
        tariffs: crate::tariff::Book::default(),
        variables: vec![],
        failsafes: vec![],
        store: store.clone(),
        journal: crate::journal::Journal::new(store.clone()),
        clock: Clock::system(),
        setpoints: vec![watch::channel(None).0],
        devices: vec![],
        relays: vec![],
        alive: Box::new(|| ()),
    };
    let (owner, handle, _) = control::Control::new(parts);
    (owner, handle)
}

const NAMES: [&str; 2] = ["CP1", "CP|2"];

impl Site {
    async fn start(dir: &std::path::Path, way: Option<&Arc<Way>>) -> Self {
        Self::start_with(dir, way, |_| ()).await
    }

    async fn start_with(dir: &std::path::Path, way: Option<&Arc<Way>>, change: impl Fn(&mut Parts)) -> Self {
        let migrations = [
            MIGRATIONS,
            crate::journal::MIGRATIONS,
            crate::grid::MIGRATIONS,
            crate::tariff::keep::MIGRATIONS,
            crate::variable::keep::MIGRATIONS,
        ]
        .concat();
        let (store, writer) = Store::open(dir, &migrations).unwrap();
        let (owner, handle) = owner(&store);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (events, heard) = mpsc::channel(1000);
        let (mut wishes, mut stations) = (vec![], vec![]);
        let (orders, mut inboxes) = Orders::new(&NAMES.map(EvseId::new));
        inboxes.reverse();
        for name in NAMES {
            let (wish, setpoint) = watch::channel(None);
            wishes.push(wish);
            let inbox = inboxes.pop().unwrap();
            stations.push(Station {
                evse: EvseId::new(name),
                identity: Identity::new(name),
                settings: evse(name),
                way: None,
                setpoint,
                inbox,
            });
        }
        let backend = config::Backend {
            tls: None,
            host: "csms.example".into(),
            port: 80,
            target: None,
            path: "/ocpp/".into(),
            ping_interval: Duration::from_secs(60),
            call_timeout: Duration::from_secs(30),
            attempts: 2,
            retry_interval: Duration::from_millis(20),
            password: None,
            identity: None,
            compression: false,
        };
        let mut parts = Parts {
            config: config::Ocpp {
                listen: address,
                ping_interval: Duration::from_secs(30),
                call_timeout: Duration::from_secs(10),
                accept_unknown_offline: true,
                users: Arc::default(),
                site: None,
                controller: None,
                max_frame: 65_536,
                tls: None,
                compression: true,
                check: config::Check::Off,
                schemas: None,
            },
            backend: way.map(|way| (backend, Arc::clone(way) as Arc<dyn Dial>)),
            stations,
            locals: vec![],
            events,
            site: handle.clone(),
            store: store.clone(),
            clock: Clock::system(),
            listener,
            tls: None,
            schemas: None,
        };
        change(&mut parts);
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(run(parts, stop.clone()));
        let token = stop.clone();
        running.spawn(async move {
            owner.run(token).await;
            Ok(())
        });
        Self { address, stop, running, events: heard, wishes, orders, owner: handle, store, _writer: writer }
    }

    async fn try_connect(&self, path: &str, protocol: Option<&str>) -> Result<Peer, WsError> {
        self.try_connect_as(path, protocol, None).await
    }

    async fn try_connect_as(
        &self,
        path: &str,
        protocol: Option<&str>,
        authorization: Option<&str>,
    ) -> Result<Peer, WsError> {
        let io = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/{path}", self.address).into_client_request().unwrap();
        if let Some(protocol) = protocol {
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        if let Some(authorization) = authorization {
            request.headers_mut().insert("authorization", authorization.parse().unwrap());
        }
        let (socket, response) = soon("the upgrade", client_async(request, io)).await?;
        let version = response.headers().get("sec-websocket-protocol");
        Ok(Peer(socket, version.map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default(), None))
    }

    async fn connect(&self, path: &str) -> Peer {
        self.try_connect(path, Some("ocpp1.6")).await.unwrap()
    }

    async fn refused(&self, path: &str, protocol: Option<&str>) -> u16 {
        match self.try_connect(path, protocol).await {
            Err(WsError::Http(response)) => response.status().as_u16(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    }

    async fn event(&mut self, evse: &str, mut wanted: impl FnMut(&EvseEvent) -> bool) -> EvseEvent {
        soon("an event", async {
            loop {
                if let Some(Event::Evse(id, event)) = self.events.recv().await
                    && id.as_str() == evse
                    && wanted(&event)
                {
                    return event;
                }
            }
        })
        .await
    }

    async fn end(mut self) {
        self.stop.cancel();
        soon("the end", self.running.join_next()).await.unwrap().unwrap().unwrap();
    }
}

async fn world(open: bool) -> (tempfile::TempDir, Csms, Arc<Way>) {
    renewed(open, None).await
}

async fn renewed(open: bool, renewal: Option<Renewal>) -> (tempfile::TempDir, Csms, Arc<Way>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let way = Arc::new(Way { to, open: AtomicBool::new(open), renewal, dialed: watch::Sender::new(0) });
    (tempfile::tempdir().unwrap(), Csms(listener, vec!["ocpp1.6"]), way)
}

/// Both ends of one station.
async fn through(site: &Site, csms: &Csms, path: &str) -> (Peer, Peer) {
    let (evse, (_, backend)) = tokio::join!(site.connect(path), csms.accept());
    (evse, backend)
}

fn setpoint(sequence: u64, amps: i64) -> Setpoint {
    Setpoint {
        sequence,
        limit: Milliamps::amps(amps),
        failsafe: Milliamps::amps(6),
        lease: Duration::from_secs(60),
        one_phase: false,
        reason: "test".into(),
    }
}

fn start() -> Value {
    json!({ "connectorId": 1, "idTag": "CARD", "meterStart": 100, "timestamp": "2026-11-23T12:00:00Z" })
}

fn stop(id: &Value) -> Value {
    json!({ "transactionId": id, "meterStop": 900, "timestamp": "2026-11-23T13:00:00Z" })
}

#[tokio::test]
async fn frames_pass_byte_for_byte_and_our_own_stay_between() {
    let (dir, csms, way) = world(true).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, (path, mut backend)) = tokio::join!(site.connect("some//CP%7C2"), csms.accept());
    assert_eq!(path, "/ocpp/CP%7C2");
    site.event("CP|2", |e| *e == EvseEvent::Connected).await;

    let boot = r#"[2, "b1","BootNotification", {"chargePointModel":"M","chargePointVendor":"V","x":1.0e0}]"#;
    evse.say_text(boot).await;
    assert_eq!(backend.hear_text().await, boot);
    let answer = r#"[3,"b1",{"status":"Accepted", "currentTime":"2026-11-23T12:00:00Z","interval":300 }]"#;
    backend.say_text(answer).await;
    assert_eq!(evse.hear_text().await, answer);

    site.wishes[1].send(Some(setpoint(7, 16))).unwrap();
    let (id, payload) = evse.hear_call("SetChargingProfile").await;
    assert_eq!(payload["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"], 16);
    // A call of the backend waits until ours is answered.
    backend.say(json!([2, "r1", "Reset", { "type": "Soft" }])).await;
    evse.say(json!([3, id, { "status": "Accepted" }])).await;
    assert!(matches!(
        site.event("CP|2", |e| matches!(e, EvseEvent::Confirmed { .. })).await,
        EvseEvent::Confirmed { sequence: 7, limit: Milliamps(16_000), .. }
    ));
    let (id, _) = evse.hear_call("Reset").await;
    assert_eq!(id, "r1");
    evse.say(json!([3, "r1", { "status": "Accepted" }])).await;
    assert_eq!(backend.hear().await, json!([3, "r1", { "status": "Accepted" }]), "the first answer it hears");
    let (id, payload) = evse.hear_call("TriggerMessage").await;
    assert_eq!(payload["requestedMessage"], "MeterValues");
    evse.say(json!([3, id, { "status": "Accepted" }])).await;
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");

    site.end().await;
    assert_eq!(evse.end().await, 1001);
    assert_eq!(backend.end().await, 1001);
}

#[tokio::test]
async fn a_live_transaction_has_the_backends_id() {
    let (dir, csms, way) = world(true).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let (mut evse, mut backend) = through(&site, &csms, "CP1").await;
    evse.say(json!([2, "s", "StartTransaction", start()])).await;
    let (id, payload) = backend.hear_call("StartTransaction").await;
    assert_eq!((id, payload), (json!("s"), start()));
    backend.say(json!([3, "s", { "transactionId": 42, "idTagInfo": { "status": "Accepted" } }])).await;
    assert_eq!(evse.hear().await[2]["transactionId"], 42);
    let event = site.event("CP1", |e| matches!(e, EvseEvent::Transaction(t) if t.backend_id.is_some())).await;
    assert!(matches!(event, EvseEvent::Transaction(t) if t.id == 42 && t.meter_start.0 == 100));
    evse.say(json!([2, "e", "StopTransaction", stop(&json!(42))])).await;
    assert_eq!(backend.hear_call("StopTransaction").await.1["transactionId"], 42);
    backend.say(json!([3, "e", {}])).await;
    assert_eq!(evse.hear().await, json!([3, "e", {}]));
    site.event("CP1", |e| *e == EvseEvent::TransactionEnded).await;
    site.event("CP1", |e| *e == EvseEvent::Queue { waiting: 0, dead: 0 }).await;
}

#[tokio::test]
async fn what_happens_while_the_backend_is_away_arrives_afterwards_in_order() {
    let (dir, csms, way) = world(false).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let mut evse = site.connect("CP1").await;
    let boot = json!({ "chargePointVendor": "V", "chargePointModel": "M" });
    assert_eq!(evse.call("b", "BootNotification", boot.clone()).await["status"], "Pending");
    let time = evse.call("h", "Heartbeat", json!({})).await;
    assert!(crate::time::Wall::parse(time["currentTime"].as_str().unwrap()).is_some());
    let status = json!({ "connectorId": 1, "status": "Charging", "errorCode": "NoError" });
    assert_eq!(evse.call("n", "StatusNotification", status).await, json!({}));
    site.event("CP1", |e| matches!(e, EvseEvent::Status { status: ConnectorStatus::Charging, .. })).await;
    let started = evse.call("s", "StartTransaction", start()).await;
    assert_eq!(started["idTagInfo"]["status"], "Accepted");
    let id = &started["transactionId"];
    let meter = json!({ "connectorId": 1, "transactionId": id, "meterValue": [] });
    assert_eq!(evse.call("m", "MeterValues", meter).await, json!({}));
    assert_eq!(evse.call("e", "StopTransaction", stop(id)).await, json!({}));
    assert_eq!(
        evse.call("d", "DataTransfer", json!({ "vendorId": "v" })).await,
        json!({ "status": "Rejected" })
    );
    site.event("CP1", |e| *e == EvseEvent::Queue { waiting: 4, dead: 0 }).await;

    way.open.store(true, Ordering::SeqCst);
    let (_, mut backend) = csms.accept().await;
    assert_eq!(backend.hear_call("BootNotification").await, (json!("b"), boot));
    backend
        .say(json!([3, "b", { "status": "Accepted", "currentTime": "2026-11-23T12:00:00Z", "interval": 9 }]))
        .await;
    assert_eq!(backend.hear_call("StatusNotification").await.0, "n");
    backend.say(json!([3, "n", {}])).await;
    assert_eq!(backend.hear_call("StartTransaction").await, (json!("s"), start()));
    backend.say(json!([3, "s", { "transactionId": 9, "idTagInfo": { "status": "Accepted" } }])).await;
    let (id, payload) = backend.hear_call("MeterValues").await;
    assert_eq!((id, &payload["transactionId"]), (json!("m"), &json!(9)));
    backend.say(json!([3, "m", {}])).await;
    let (id, payload) = backend.hear_call("StopTransaction").await;
    assert_eq!((id, payload), (json!("e"), stop(&json!(9))));
    backend.say(json!([3, "e", {}])).await;
    site.event("CP1", |e| *e == EvseEvent::Queue { waiting: 0, dead: 0 }).await;
}

#[tokio::test]
async fn a_restart_loses_nothing_and_repeats_nothing() {
    let (dir, csms, way) = world(false).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let mut evse = site.connect("CP1").await;
    let started = evse.call("s", "StartTransaction", start()).await;
    let id = started["transactionId"].clone();
    drop(site);

    let mut site = Site::start(dir.path(), Some(&way)).await;
    let event = site.event("CP1", |e| matches!(e, EvseEvent::Transaction(_))).await;
    assert!(
        matches!(event, EvseEvent::Transaction(t) if json!(t.id) == id && t.backend_id.is_none()),
        "adopted"
    );
    let mut evse = site.connect("CP1").await;
    assert_eq!(
        evse.call("s", "StartTransaction", start()).await["transactionId"],
        id,
        "a retry has the same answer"
    );
    assert_eq!(evse.call("s2", "StartTransaction", start()).await["transactionId"], id);
    evse.call("e", "StopTransaction", stop(&id)).await;
    evse.call("e2", "StopTransaction", stop(&id)).await;
    way.open.store(true, Ordering::SeqCst);
    let (_, mut backend) = csms.accept().await;
    assert_eq!(backend.hear_call("StartTransaction").await.0, "s");
    // The backend vanishes before it answers: the same bytes again.
    drop(backend);
    let (_, mut backend) = csms.accept().await;
    assert_eq!(backend.hear_call("StartTransaction").await, (json!("s"), start()));
    backend.say(json!([3, "s", { "transactionId": 5, "idTagInfo": { "status": "Accepted" } }])).await;
    assert_eq!(backend.hear_call("StopTransaction").await, (json!("e"), stop(&json!(5))));
    drop((site, backend));

    let site = Site::start(dir.path(), Some(&way)).await;
    let (_, mut backend) = csms.accept().await;
    assert_eq!(
        backend.hear_call("StopTransaction").await,
        (json!("e"), stop(&json!(5))),
        "sent, but not answered"
    );
    backend.say(json!([3, "e", {}])).await;
    let mut evse = site.connect("CP1").await;
    assert_eq!(evse.call("e", "StopTransaction", stop(&id)).await, json!({}));
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h", "nothing came twice");
}

#[tokio::test]
async fn the_newer_connection_wins() {
    let (dir, csms, way) = world(true).await;
    let site = Site::start(dir.path(), Some(&way)).await;
    let (mut older, mut backend) = through(&site, &csms, "CP1").await;
    let mut newer = site.connect("CP1").await;
    assert_eq!(older.end().await, 1008);
    newer.say(json!([2, "h", "Heartbeat", {}])).await;
    backend.hear_call("Heartbeat").await;
    backend.say(json!([3, "h", { "currentTime": "2026-11-23T12:00:00Z" }])).await;
    assert_eq!(newer.hear().await[1], "h", "the backend saw one charge point all along");
}

#[tokio::test]
async fn bad_frames_harm_only_their_sender() {
    let (dir, csms, way) = world(true).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let (mut good, mut good_backend) = through(&site, &csms, "CP%7C2").await;
    let (mut evse, _backend) = through(&site, &csms, "CP1").await;

    evse.say_text("[,{}]").await;
    evse.say_text(r#"[2,"g","Heartbeat",{]"#).await;
    let error = evse.hear().await;
    assert_eq!((&error[0], &error[1], &error[2]), (&json!(4), &json!("g"), &json!("FormationViolation")));
    let problem = site.event("CP1", |e| matches!(e, EvseEvent::Problem(_))).await;
    assert!(matches!(problem, EvseEvent::Problem(text) if text.contains("not valid JSON")));

    evse.say_text(&format!(r#"[2,"x","DataTransfer",{{"data":"{}"}}]"#, "x".repeat(100_000))).await;
    assert_eq!(evse.end().await, 1009);
    let problem = site.event("CP1", |e| matches!(e, EvseEvent::Problem(p) if p.contains("too much"))).await;
    assert!(matches!(problem, EvseEvent::Problem(_)));
    site.event("CP1", |e| *e == EvseEvent::Disconnected).await;

    let mut evse = site.connect("CP1").await;
    evse.0.send(Message::binary(vec![0xff, 0xfe])).await.unwrap();
    assert_eq!(evse.end().await, 1003);

    good.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(good_backend.hear_call("Heartbeat").await.0, "h");
}

#[tokio::test]
async fn the_backend_chooses_among_the_versions_of_the_evse() {
    let (dir, mut csms, way) = world(true).await;
    csms.1 = vec!["ocpp2.0.1", "ocpp1.6"];
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let (evse, (_, mut backend)) =
        tokio::join!(site.try_connect("CP1", Some("ocpp2.1, ocpp2.0.1, ocpp1.6")), csms.accept());
    let mut evse = evse.unwrap();
    assert_eq!(evse.1, "ocpp2.0.1");
    let event = r#"[2,"e", "TransactionEvent",{"eventType":"Started","timestamp":"2026-11-23T12:00:00Z",  "seqNo":0,
        "triggerReason":"CablePluggedIn","transactionInfo":{"transactionId":"tx"}}]"#;
    evse.say_text(event).await;
    assert_eq!(backend.hear_text().await, event);
    backend.say(json!([3, "e", {}])).await;
    assert_eq!(evse.hear().await, json!([3, "e", {}]));
    // It may come again in the version that stands, but in no other without asking the backend.
    let mut evse = site.try_connect("CP1", Some("ocpp2.0.1")).await.unwrap();
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");
    let (evse, (_, mut backend)) = tokio::join!(site.connect("CP1"), csms.accept());
    assert_eq!((evse.1.as_str(), backend.1.as_str()), ("ocpp1.6", "ocpp1.6"));
    let mut evse = evse;
    evse.say(json!([2, "h2", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h2");
    site.event("CP1", |e| matches!(e, EvseEvent::Backend(false))).await;
}

#[tokio::test]
async fn an_evse_that_came_while_the_backend_was_away_comes_again_in_its_version() {
    let (dir, mut csms, way) = world(false).await;
    csms.1 = vec!["ocpp2.0.1"];
    let site = Site::start(dir.path(), Some(&way)).await;
    let mut evse = site.try_connect("CP1", Some("ocpp2.1, ocpp2.0.1")).await.unwrap();
    assert_eq!(evse.1, "ocpp2.1", "its own first choice");
    way.open.store(true, Ordering::SeqCst);
    let (_, mut backend) = csms.accept().await;
    assert_eq!(evse.end().await, 1012);
    let mut evse = site.try_connect("CP1", Some("ocpp2.1, ocpp2.0.1")).await.unwrap();
    assert_eq!(evse.1, "ocpp2.0.1");
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");
}

#[tokio::test]
async fn a_site_without_a_backend_charges() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::start(dir.path(), None).await;
    site.wishes[0].send(Some(setpoint(1, 10))).unwrap();
    let mut evse = site.connect("CP1").await;
    let boot = json!({ "chargePointVendor": "V", "chargePointModel": "M" });
    assert_eq!(evse.call("b", "BootNotification", boot).await["status"], "Accepted");
    let (id, _) = evse.hear_call("SetChargingProfile").await;
    evse.say(json!([3, id, { "status": "Rejected" }])).await;
    site.event("CP1", |e| matches!(e, EvseEvent::Refused { sequence: 1, .. })).await;
    let id = evse.call("s", "StartTransaction", start()).await["transactionId"].clone();
    assert!(id.as_i64().unwrap() > 0);
    assert_eq!(evse.call("e", "StopTransaction", stop(&id)).await, json!({}));
    site.event("CP1", |e| *e == EvseEvent::TransactionEnded).await;
}

#[tokio::test]
async fn an_order_reaches_the_evse_and_its_answer_the_caller_alone() {
    let dir = tempfile::tempdir().unwrap();
    let csms = Csms(TcpListener::bind("127.0.0.1:0").await.unwrap(), vec!["ocpp1.6"]);
    let way = Arc::new(Way {
        to: csms.0.local_addr().unwrap(),
        open: AtomicBool::new(true),
        renewal: None,
        dialed: watch::Sender::new(0),
    });
    let site = Site::start(dir.path(), Some(&way)).await;
    let (evse, mut peer, mut backend) = (EvseId::new("CP1"), None, None);
    let away = site.orders.order(&evse, orders::Action::Unlock).await;
    assert_eq!(away, Err(orders::Failed::Away));
    let ((), accepted) = tokio::join!(async { peer = Some(site.connect("CP1").await) }, csms.accept());
    backend.replace(accepted.1);
    let mut peer = peer.unwrap();
    let orders = site.orders.clone();
    let answer = async {
        let (id, payload) = peer.hear_call("UnlockConnector").await;
        assert_eq!(payload, json!({ "connectorId": 1 }));
        peer.say(json!([3, id, { "status": "UnlockFailed" }])).await;
    };
    let (asked, ()) = tokio::join!(orders.order(&evse, orders::Action::Unlock), answer);
    assert_eq!(asked, Err(orders::Failed::Refused("UnlockFailed".into())));
    peer.say(json!([2, "h", "Heartbeat", {}])).await;
    let (id, _) = backend.unwrap().hear_call("Heartbeat").await;
    assert_eq!(id, "h", "the backend hears of nothing before");
    let stranger = site.orders.order(&EvseId::new("CP9"), orders::Action::Stop).await;
    assert!(matches!(stranger, Err(orders::Failed::Unknown(_))));
}

#[tokio::test]
async fn a_dead_letter_is_shown_and_sent_again_on_command() {
    let dir = tempfile::tempdir().unwrap();
    let csms = Csms(TcpListener::bind("127.0.0.1:0").await.unwrap(), vec!["ocpp1.6"]);
    let way = Arc::new(Way {
        to: csms.0.local_addr().unwrap(),
        open: AtomicBool::new(true),
        renewal: None,
        dialed: watch::Sender::new(0),
    });
    let mut site = Site::start(dir.path(), Some(&way)).await;
    let mut peer = None;
    let ((), (_, mut backend)) =
        tokio::join!(async { peer = Some(site.connect("CP1").await) }, csms.accept());
    let mut peer = peer.unwrap();
    let start =
        json!({ "connectorId": 1, "idTag": "Ada", "meterStart": 100, "timestamp": "2026-11-23T12:00:00Z" });
    peer.say(json!([2, "s", "StartTransaction", start])).await;
    for _ in 0..2 {
        let (id, _) = backend.hear_call("StartTransaction").await;
        backend.say(json!([4, id, "InternalError", "", {}])).await;
    }
    site.event("CP1", |e| matches!(e, EvseEvent::Queue { dead: 1, .. })).await;
    let answer = peer.hear().await;
    let known = answer[2]["transactionId"].clone();
    let ledger = ledger::Ledger::new(site.store.clone());
    let dead = soon("the letter on disk", async {
        loop {
            let dead = ledger.dead_letters(None, 10).await.unwrap();
            if !dead.is_empty() {
                break dead;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((dead.len(), dead[0].identity.as_str(), dead[0].why.as_str()), (1, "CP1", "InternalError"));
    assert!(dead[0].frame.contains("Ada") && dead[0].died.is_some());
    let filter = ledger::Filter::default();
    let session = ledger.sessions(filter.clone(), None, true, 1).await.unwrap().remove(0);
    assert_eq!((session.delivery, session.id_tag.as_str()), (ledger::Delivery::Refused, "Ada"));
    let revived = site.orders.revive(&EvseId::new("CP1"), Some(dead[0].seq)).await.unwrap();
    assert_eq!(revived.unwrap(), 1);
    let (id, _) = backend.hear_call("StartTransaction").await;
    backend.say(json!([3, id, { "transactionId": 41, "idTagInfo": { "status": "Accepted" } }])).await;
    peer.say(json!([2, "e", "StopTransaction",
        { "transactionId": known, "meterStop": 1100, "timestamp": "2026-11-23T13:00:00Z", "reason": "EVDisconnected" }]))
        .await;
    let (id, stop) = backend.hear_call("StopTransaction").await;
    assert_eq!(stop["transactionId"], 41, "the charge has its id after all");
    backend.say(json!([3, id, {}])).await;
    peer.hear().await;
    site.event("CP1", |e| matches!(e, EvseEvent::Queue { waiting: 0, dead: 0 })).await;
    soon("the delivery", async {
        loop {
            let session = ledger.sessions(filter.clone(), None, true, 1).await.unwrap().remove(0);
            if session.delivery == ledger::Delivery::Delivered {
                assert_eq!((session.energy(), session.reason.as_str()), (Some(1000), "EVDisconnected"));
                assert_eq!(session.backend_id.as_deref(), Some("41"));
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A site whose only EVSE is set up as the test wants.
async fn with(dir: &std::path::Path, way: &Arc<Way>, change: impl Fn(&mut Parts)) -> Site {
    Site::start_with(dir, Some(way), change).await
}

#[tokio::test]
async fn in_strict_mode_the_evse_shares_the_backends_fate() {
    let (dir, csms, way) = world(false).await;
    let site = with(dir.path(), &way, |parts| parts.stations[0].settings.ocpp.strict = true).await;
    assert_eq!(site.refused("CP1", Some("ocpp1.6")).await, 503);
    way.open.store(true, Ordering::SeqCst);
    let (status, refusal) = tokio::join!(site.refused("CP1", Some("ocpp1.6")), csms.answer(Some(500)));
    assert_eq!((status, refusal.is_err()), (503, true));
    let (mut evse, mut backend) = through(&site, &csms, "CP1").await;
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");
    drop(backend);
    assert_eq!(evse.end().await, 1001);
}

#[tokio::test]
async fn an_evse_on_its_own_is_not_looked_at() {
    let (dir, csms, way) = world(true).await;
    let mut site = with(dir.path(), &way, |parts| parts.stations[0].settings.ocpp.pass_through = true).await;
    let (mut evse, mut backend) = through(&site, &csms, "CP1").await;
    site.wishes[0].send(Some(setpoint(1, 6))).unwrap();
    evse.say_text("no frame at all").await;
    assert_eq!(backend.hear_text().await, "no frame at all");
    backend.say_text("[]").await;
    assert_eq!(evse.hear_text().await, "[]", "and nothing of ours");
    // The newer connection wins here, too.
    let (_newer, mut second) = through(&site, &csms, "CP1").await;
    assert_eq!(backend.end().await, 1006);
    second.say_text("x").await;
    assert_eq!(evse.end().await, 1006);
    assert!(site.events.try_recv().is_err());
}
