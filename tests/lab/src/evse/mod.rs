//! A charge point with one connector and a car: OCPP 1.6J over WebSocket, power and energy that follow the
//! installed charging profile.
//!
//! In: the site controller's frames; the doings of driver and tester through [`Evse`]. Out: frames; its physical
//! [`State`] for meter and observer; a log. Invariant: the state is never older than [`TICK`].

pub mod car;
pub mod profile;
mod station;

use std::{pin::Pin, time::Duration};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use self::{car::Car, profile::Installed, station::Station};
use crate::{clock::Moment, frame::Frame, log::Log};

/// How often physics and timers move.
pub const TICK: Duration = Duration::from_millis(50);
/// Longest wait between two attempts to connect.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3);

/// What kind of charge point.
#[derive(Debug, Clone)]
pub struct Settings {
    /// OCPP identity.
    pub identity: String,
    /// Host and port of the site controller.
    pub server: String,
    /// Most current per phase, A.
    pub max_amps: f64,
    /// Terminals: 1 to 3.
    pub phases: usize,
    /// Maker.
    pub vendor: String,
    /// Model.
    pub model: String,
    /// Energy register at the start, Wh.
    pub register_wh: f64,
    /// Time between MeterValues.
    pub meter_interval: Duration,
    /// Time for an answer.
    pub call_timeout: Duration,
    /// How many times faster than real ones cars ramp and batteries fill.
    pub pace: f64,
}

impl Settings {
    /// A usual 22 kW wallbox.
    #[must_use]
    pub fn new(identity: &str, server: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            server: server.to_owned(),
            max_amps: 32.0,
            phases: 3,
            vendor: "Lab".to_owned(),
            model: "Wallbox 22".to_owned(),
            register_wh: 100_000.0,
            meter_interval: Duration::from_secs(1),
            call_timeout: Duration::from_secs(10),
            pace: 1.0,
        }
    }
}

/// The charge point as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Its connection stands.
    pub connected: bool,
    /// Its boot was accepted.
    pub booted: bool,
    /// A car is plugged in.
    pub plugged: bool,
    /// ChargePointStatus (OCPP 1.6 §7.7).
    pub status: &'static str,
    /// What it may offer now, A per phase.
    pub limit: f64,
    /// Phases that the plugged car uses.
    pub car_phases: usize,
    /// What flows, A per terminal.
    pub currents: [f64; 3],
    /// What flows, W.
    pub watts: f64,
    /// Energy register, Wh.
    pub register_wh: i64,
    /// The running transaction; its id once it is known.
    pub transaction: Option<Option<i64>>,
    /// Every transaction so far.
    pub sessions: Vec<Session>,
    /// Messages that wait for an answer or for the connection.
    pub waiting: usize,
}

/// A transaction as the charge point knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who charged.
    pub tag: String,
    /// The id that was given.
    pub id: Option<i64>,
    /// The start was answered without an id.
    pub lost: bool,
    /// Register at the start, Wh.
    pub meter_start: i64,
    /// Time of the start.
    pub started: String,
    /// Register at the end, Wh.
    pub meter_stop: Option<i64>,
}

/// What the charge point saw or did.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The WebSocket stands.
    Connected,
    /// It is gone.
    Disconnected(String),
    /// An attempt to connect failed.
    Unreachable(String),
    /// An own CALL went out.
    Sent(Frame),
    /// An own CALL got no answer in time.
    Unanswered(&'static str),
    /// An own CALL was answered with an error.
    Failed(&'static str, String),
    /// An answer to nothing that was asked.
    Stray(String),
    /// A CALL came in.
    Called(String, Value),
    /// A profile was installed.
    Profile(Installed),
    /// A profile was refused.
    ProfileRejected(&'static str),
    /// A new status.
    Status(&'static str),
    /// Something came in that is no frame.
    Garbage(String),
    /// A reset was asked for.
    ResetAsked,
}

#[derive(Debug)]
enum Command {
    Plug(Option<Car>),
    Present(String),
    Mute(bool),
    RefuseProfiles(bool),
    Raw(String),
    Drop,
    Offline(bool),
    Reboot,
}

/// A running charge point; ends when dropped.
pub struct Evse {
    identity: String,
    commands: mpsc::UnboundedSender<Command>,
    state: watch::Receiver<State>,
    log: Log<Event>,
    _tasks: JoinSet<()>,
}

impl Evse {
    /// Starts it; it connects by itself, again and again.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let station = Station::new(settings.clone(), Moment::now());
        let (commands, incoming) = mpsc::unbounded_channel();
        let (publish, state) = watch::channel(station.state(Moment::now()));
        let log = Log::default();
        let identity = settings.identity.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(run(settings, station, incoming, publish, log.clone()));
        Self { identity, commands, state, log, _tasks: tasks }
    }

    /// OCPP identity.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its state now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// A handle on the state that outlives borrows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// What happened.
    #[must_use]
    pub fn log(&self) -> &Log<Event> {
        &self.log
    }

    /// A car arrives.
    pub fn plug(&self, car: Car) {
        self.command(Command::Plug(Some(car)));
    }

    /// The car leaves; a running transaction ends.
    pub fn unplug(&self) {
        self.command(Command::Plug(None));
    }

    /// A card is held to the reader: begins a transaction, or ends the running one.
    pub fn present(&self, tag: &str) {
        self.command(Command::Present(tag.to_owned()));
    }

    /// Leaves incoming CALLs unanswered from now on, or not.
    pub fn mute(&self, on: bool) {
        self.command(Command::Mute(on));
    }

    /// Rejects every charging profile from now on, or not.
    pub fn refuse_profiles(&self, on: bool) {
        self.command(Command::RefuseProfiles(on));
    }

    /// Sends text as it is.
    pub fn send_raw(&self, text: impl Into<String>) {
        self.command(Command::Raw(text.into()));
    }

    /// Drops the connection; it dials again.
    pub fn drop_connection(&self) {
        self.command(Command::Drop);
    }

    /// Takes the network away, or gives it back.
    pub fn offline(&self, on: bool) {
        self.command(Command::Offline(on));
    }

    /// Restarts its software: it sends BootNotification again.
    pub fn reboot(&self) {
        self.command(Command::Reboot);
    }

    fn command(&self, command: Command) {
        // The task ends only with this handle.
        let _ = self.commands.send(command);
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn run(
    settings: Settings,
    mut station: Station,
    mut commands: mpsc::UnboundedReceiver<Command>,
    publish: watch::Sender<State>,
    log: Log<Event>,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut socket: Option<Socket> = None;
    let mut offline = false;
    let mut backoff = Duration::from_millis(100);
    let mut next_dial = Instant::now();
    let mut dialing: Option<Dialing> = None;
    loop {
        if let Some(open) = &mut socket {
            let mut broken = None;
            while let Some(text) = station.transmit(Moment::now()) {
                if let Err(why) = send(open, text).await {
                    broken = Some(why);
                    break;
                }
            }
            if let Some(why) = broken {
                socket = None;
                station.disconnected(why);
            }
        }
        for event in station.events() {
            log.push(event);
        }
        publish.send_replace(station.state(Moment::now()));
        if socket.is_some() || offline {
            dialing = None;
        } else if dialing.is_none() {
            dialing = Some(Box::pin(dial(settings.clone(), next_dial)));
        }
        tokio::select! {
            _ = ticks.tick() => station.tick(Moment::now()),
            command = commands.recv() => match command {
                None => return,
                Some(Command::Plug(car)) => station.plug(car, Moment::now()),
                Some(Command::Present(tag)) => station.present(&tag, Moment::now()),
                Some(Command::Mute(on)) => station.mute = on,
                Some(Command::RefuseProfiles(on)) => station.refuse_profiles = on,
                Some(Command::Reboot) => station.reboot(Moment::now()),
                Some(Command::Raw(text)) => {
                    if let Some(open) = &mut socket {
                        // What comes of it shows in the next read.
                        let _ = send(open, text).await;
                    }
                }
                Some(Command::Drop) => {
                    if socket.take().is_some() {
                        station.disconnected("as told".to_owned());
                    }
                }
                Some(Command::Offline(on)) => {
                    offline = on;
                    if on && socket.take().is_some() {
                        station.disconnected("as told".to_owned());
                    }
                }
            },
            message = receive(&mut socket) => match message {
                Ok(Some(text)) => station.received(&text, Moment::now()),
                Ok(None) => {}
                Err(why) => {
                    socket = None;
                    station.disconnected(why);
                }
            },
            dialed = finish(&mut dialing) => {
                dialing = None;
                match dialed {
                    Ok(open) => {
                        socket = Some(open);
                        backoff = Duration::from_millis(100);
                        station.connected(Moment::now());
                    }
                    Err(error) => {
                        log.push(Event::Unreachable(format!("{error:#}")));
                        next_dial = Instant::now() + backoff.mul_f64(0.5 + fastrand::f64());
                        backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    }
                }
            }
        }
    }
}

async fn send(socket: &mut Socket, text: String) -> Result<(), String> {
    match tokio::time::timeout(Duration::from_secs(5), socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the peer does not read".to_owned()),
    }
}

async fn receive(socket: &mut Option<Socket>) -> Result<Option<String>, String> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(Some(text.to_string())),
        Some(Ok(Message::Close(frame))) => Err(format!("closed: {frame:?}")),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("closed".to_owned()),
    }
}

type Dialing = Pin<Box<dyn Future<Output = anyhow::Result<Socket>> + Send>>;

async fn finish(dialing: &mut Option<Dialing>) -> anyhow::Result<Socket> {
    match dialing {
        Some(dialing) => dialing.await,
        None => std::future::pending().await,
    }
}

/// One attempt, not before `when`.
async fn dial(settings: Settings, when: Instant) -> anyhow::Result<Socket> {
    tokio::time::sleep_until(when).await;
    let attempt = async {
        let stream = TcpStream::connect(&settings.server).await?;
        stream.set_nodelay(true)?;
        let mut request =
            format!("ws://{}/ocpp/{}", settings.server, settings.identity).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("ocpp1.6"));
        anyhow::Ok(tokio_tungstenite::client_async(request, stream).await?.0)
    };
    tokio::time::timeout(Duration::from_secs(30), attempt).await.context("no answer within 30 s")?
}
