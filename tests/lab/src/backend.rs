//! An OCPP 1.6J backend (CSMS) at the energy market participant: terminates the gateway's WAN leg, speaks WebSocket
//! with subprotocol `ocpp1.6`, one connection per charge point identity.
//!
//! In: connections, CALLs. Out: answers, own CALLs, a log of everything per identity. Invariant: a transaction id
//! belongs to one StartTransaction; the same request sent again gets the same id and is counted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Callback, ErrorResponse, Request, Response},
    http::{HeaderValue, StatusCode},
};

use crate::{
    clock,
    frame::Frame,
    gateway::Stream,
    log::{Log, lock},
};

/// First transaction id given.
pub const FIRST_TRANSACTION: i64 = 700_001;

/// What the backend saw of one identity.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A connection opened; they are numbered from 1.
    Opened(u64),
    /// It ended.
    Closed(u64),
    /// Somebody unknown was refused.
    Unknown,
    /// A frame arrived.
    Received(Frame),
    /// Something arrived that is no frame.
    Garbage(String),
    /// A frame was sent.
    Sent(Frame),
}

/// How the backend misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Answers nothing.
    pub silent: bool,
    /// Answers this many CALLs with a CALLERROR first; with `only`, only of that action.
    pub errors: u32,
    /// Restricts `errors` to one action.
    pub only: Option<&'static str>,
    /// Closes the connection after this many further CALLs, without an answer to the last.
    pub close_after: Option<u32>,
    /// Waits before each answer.
    pub late: Duration,
}

/// A transaction as the backend's bill would have it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transaction {
    /// Identity of the charge point.
    pub identity: String,
    /// The id that was given.
    pub id: i64,
    /// Who charged.
    pub tag: String,
    /// Register at the start, Wh.
    pub meter_start: i64,
    /// Time of the start, as told.
    pub started: String,
    /// StartTransactions that were answered with this id. 1 in a sound bill: the same message again under its own id
    /// is no second one (nobody can know whether a peer had a message whose answer was cut off).
    pub starts: usize,
    /// Registers of the StopTransactions that named this id, Wh. One in a sound bill.
    pub meter_stops: Vec<i64>,
    /// MeterValues that named this id.
    pub meter_values: usize,
}

struct Shared {
    identities: Mutex<Option<Vec<String>>>,
    log: Log<(String, Event)>,
    faults: Mutex<Faults>,
    next_transaction: AtomicI64,
    next_connection: AtomicU64,
    next_call: AtomicU64,
    links: Mutex<HashMap<String, Link>>,
    refused_tags: Mutex<Vec<String>>,
    given: Mutex<HashMap<(String, String), i64>>,
}

struct Link {
    number: u64,
    calls: mpsc::Sender<Outgoing>,
}

struct Outgoing {
    action: String,
    payload: Value,
    answer: oneshot::Sender<Result<Value, String>>,
}

/// A running backend; ends when dropped.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Backend {
    /// Binds a free port of the loopback interface. `layers` are TLS servers from the outside in: the WAN leg, then
    /// perhaps a second one for `wss` inside the channel.
    pub async fn start(layers: Vec<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            identities: Mutex::default(),
            log: Log::default(),
            faults: Mutex::default(),
            next_transaction: AtomicI64::new(FIRST_TRANSACTION),
            next_connection: AtomicU64::new(1),
            next_call: AtomicU64::new(1),
            links: Mutex::default(),
            refused_tags: Mutex::default(),
            given: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, layers, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything, as (identity, event).
    #[must_use]
    pub fn log(&self) -> &Log<(String, Event)> {
        &self.shared.log
    }

    /// Sets how it misbehaves from now on.
    pub fn faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// Lets in only these; everybody else gets 404.
    pub fn only(&self, identities: Vec<String>) {
        *lock(&self.shared.identities) = Some(identities);
    }

    /// Refuses this card from now on.
    pub fn refuse_tag(&self, tag: &str) {
        lock(&self.shared.refused_tags).push(tag.to_owned());
    }

    /// Whether a connection of this identity stands.
    #[must_use]
    pub fn connected(&self, identity: &str) -> bool {
        lock(&self.shared.links).contains_key(identity)
    }

    /// Sends a CALL to a charge point and waits for its answer.
    /// Errors: not connected, CALLERROR, no answer within 10 s.
    pub async fn call(&self, identity: &str, action: &str, payload: Value) -> anyhow::Result<Value> {
        let calls = lock(&self.shared.links).get(identity).map(|l| l.calls.clone());
        let calls = calls.with_context(|| format!("{identity} is not connected to the backend"))?;
        let (answer, answered) = oneshot::channel();
        calls.send(Outgoing { action: action.to_owned(), payload, answer }).await?;
        match tokio::time::timeout(Duration::from_secs(10), answered).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => bail!("{identity} answered {action} with {error}"),
            Ok(Err(_)) => bail!("the connection of {identity} ended before it answered {action}"),
            Err(_) => bail!("{identity} did not answer {action}"),
        }
    }

    /// Payloads of the CALLs of one action that one identity sent, in order of arrival.
    #[must_use]
    pub fn received(&self, identity: &str, action: &str) -> Vec<Value> {
        self.shared
            .log
            .entries()
            .into_iter()
            .filter_map(|e| match e.what {
                (who, Event::Received(Frame::Call { action: a, payload, .. }))
                    if who == identity && a == action =>
                {
                    Some(payload)
                }
                _ => None,
            })
            .collect()
    }

    /// The bill: every transaction that was given an id, in order, with what was told about it later.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        let mut calls = HashMap::new();
        let mut bill = BTreeMap::new();
        let (mut told, mut answered) = (HashSet::new(), HashSet::new());
        for entry in self.shared.log.entries() {
            let (identity, event) = entry.what;
            match event {
                Event::Received(Frame::Call { id, action, payload }) => {
                    let number = |name: &str| payload[name].as_i64().unwrap_or_default();
                    let again = !told.insert((identity.clone(), id.clone(), payload.to_string()));
                    match action.as_str() {
                        "StartTransaction" => {
                            calls.insert((identity, id), payload);
                        }
                        "StopTransaction" | "MeterValues" if again => {}
                        "StopTransaction" => {
                            if let Some(t) = bill.get_mut(&number("transactionId")) {
                                let t: &mut Transaction = t;
                                t.meter_stops.push(number("meterStop"));
                            }
                        }
                        "MeterValues" => {
                            if let Some(t) = bill.get_mut(&number("transactionId")) {
                                t.meter_values += 1;
                            }
                        }
                        _ => {}
                    }
                }
                Event::Sent(Frame::Result { id, payload }) => {
                    let Some(start) = calls.remove(&(identity.clone(), id.clone())) else {
                        continue;
                    };
                    let Some(given) = payload["transactionId"].as_i64() else {
                        continue;
                    };
                    let transaction = bill.entry(given).or_insert_with(|| Transaction {
                        identity: identity.clone(),
                        id: given,
                        tag: start["idTag"].as_str().unwrap_or_default().to_owned(),
                        meter_start: start["meterStart"].as_i64().unwrap_or_default(),
                        started: start["timestamp"].as_str().unwrap_or_default().to_owned(),
                        ..Transaction::default()
                    });
                    if answered.insert((identity, id, start.to_string())) {
                        transaction.starts += 1;
                    }
                }
                _ => {}
            }
        }
        bill.into_values().collect()
    }
}

async fn accept(listener: TcpListener, layers: Vec<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (layers, shared) = (layers.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let step = tokio::time::timeout(Duration::from_secs(10), open(stream, &layers, &shared));
                    if let Ok(Ok((identity, socket))) = step.await {
                        serve(&identity, socket, &shared).await;
                    }
                });
            }
        }
    }
}

type Socket = tokio_tungstenite::WebSocketStream<Box<dyn Stream>>;

/// Takes the identity from the path and answers the upgrade (OCPP-J 1.6 §3.1).
struct Upgrade<'a> {
    shared: &'a Shared,
    identity: &'a mut String,
}

impl Callback for Upgrade<'_> {
    #[expect(clippy::result_large_err, reason = "the trait's own type")]
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let refuse = |status| {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = status;
            Err(refusal)
        };
        let identity = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let known = lock(&self.shared.identities).as_ref().is_none_or(|list| list.contains(&identity));
        if identity.is_empty() || !known {
            self.shared.log.push((identity, Event::Unknown));
            return refuse(StatusCode::NOT_FOUND);
        }
        let offered = request.headers().get("sec-websocket-protocol").and_then(|v| v.to_str().ok());
        if !offered.is_some_and(|list| list.split(',').any(|p| p.trim() == "ocpp1.6")) {
            return refuse(StatusCode::BAD_REQUEST);
        }
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("ocpp1.6"));
        *self.identity = identity;
        Ok(response)
    }
}

async fn open(
    stream: TcpStream,
    layers: &[TlsAcceptor],
    shared: &Shared,
) -> anyhow::Result<(String, Socket)> {
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = Box::new(stream);
    for layer in layers {
        stream = Box::new(layer.accept(stream).await?);
    }
    let mut identity = String::new();
    let upgrade = Upgrade { shared, identity: &mut identity };
    let socket = tokio_tungstenite::accept_hdr_async(stream, upgrade).await?;
    Ok((identity, socket))
}

async fn serve(identity: &str, mut socket: Socket, shared: &Shared) {
    let number = shared.next_connection.fetch_add(1, Ordering::Relaxed);
    let (calls, mut outgoing) = mpsc::channel(16);
    lock(&shared.links).insert(identity.to_owned(), Link { number, calls });
    let log = |event| shared.log.push((identity.to_owned(), event));
    log(Event::Opened(number));
    let mut pending: HashMap<String, oneshot::Sender<Result<Value, String>>> = HashMap::new();
    loop {
        let reply = tokio::select! {
            call = outgoing.recv() => {
                let Some(Outgoing { action, payload, answer }) = call else { break };
                let id = format!("csms-{}", shared.next_call.fetch_add(1, Ordering::Relaxed));
                pending.insert(id.clone(), answer);
                Some(Frame::Call { id, action, payload })
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => match Frame::read(&text) {
                    None => {
                        log(Event::Garbage(text.to_string()));
                        None
                    }
                    Some(frame) => {
                        log(Event::Received(frame.clone()));
                        match frame {
                            Frame::Call { id, action, payload } => match answer(shared, identity, &id, &action, &payload).await {
                                Answer::Send(frame) => Some(frame),
                                Answer::Nothing => None,
                                Answer::Close => break,
                            },
                            Frame::Result { id, payload } => {
                                if let Some(waiting) = pending.remove(&id) {
                                    let _ = waiting.send(Ok(payload));
                                }
                                None
                            }
                            Frame::Error { id, code, description } => {
                                if let Some(waiting) = pending.remove(&id) {
                                    let _ = waiting.send(Err(format!("{code}: {description}")));
                                }
                                None
                            }
                        }
                    }
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => None,
            }
        };
        if let Some(frame) = reply {
            if socket.send(Message::text(frame.write())).await.is_err() {
                break;
            }
            log(Event::Sent(frame));
        }
    }
    let mut links = lock(&shared.links);
    if links.get(identity).is_some_and(|l| l.number == number) {
        links.remove(identity);
    }
    drop(links);
    log(Event::Closed(number));
}

enum Answer {
    Send(Frame),
    Nothing,
    Close,
}

async fn answer(shared: &Shared, identity: &str, id: &str, action: &str, payload: &Value) -> Answer {
    let late = {
        let mut faults = lock(&shared.faults);
        if let Some(left) = &mut faults.close_after {
            if *left <= 1 {
                faults.close_after = None;
                return Answer::Close;
            }
            *left -= 1;
        }
        if faults.silent {
            return Answer::Nothing;
        }
        if faults.errors > 0 && faults.only.is_none_or(|only| only == action) {
            faults.errors -= 1;
            let (id, code) = (id.to_owned(), "InternalError".to_owned());
            return Answer::Send(Frame::Error { id, code, description: "as told".to_owned() });
        }
        faults.late
    };
    tokio::time::sleep(late).await;
    let verdict = |tag: &Value| {
        let refused = lock(&shared.refused_tags).iter().any(|t| Some(t.as_str()) == tag.as_str());
        json!({ "status": if refused { "Blocked" } else { "Accepted" } })
    };
    let payload = match action {
        "BootNotification" => {
            json!({ "status": "Accepted", "currentTime": clock::wall().to_string(), "interval": 300 })
        }
        "Heartbeat" => json!({ "currentTime": clock::wall().to_string() }),
        "Authorize" => json!({ "idTagInfo": verdict(&payload["idTag"]) }),
        "StartTransaction" => {
            let next = || shared.next_transaction.fetch_add(1, Ordering::Relaxed);
            let request = (identity.to_owned(), payload.to_string());
            let given = *lock(&shared.given).entry(request).or_insert_with(next);
            json!({ "transactionId": given, "idTagInfo": verdict(&payload["idTag"]) })
        }
        "StopTransaction" | "MeterValues" | "StatusNotification" => json!({}),
        "DataTransfer" => json!({ "status": "UnknownVendorId" }),
        _ => {
            let (id, code) = (id.to_owned(), "NotImplemented".to_owned());
            return Answer::Send(Frame::Error { id, code, description: action.to_owned() });
        }
    };
    Answer::Send(Frame::Result { id: id.to_owned(), payload })
}
