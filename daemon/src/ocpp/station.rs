//! One station: its route, its two connections, its share of the store.
//!
//! In: upgrade requests of the EVSE, the site's setpoints. Out: facts for the site. Invariant: this task alone moves
//! the route; every other task of the station only carries frames and ends with its connection.
//!
//! ```text
//!   request ─┬─ backend connected, resting or not ready ──────────────→ accept
//!            └─ dial first, at most 5 s ─┬─ connected, or unreachable ─→ accept
//!                                        └─ 401, 403, 404 ─────────────→ the same to the EVSE
//!
//!   north:  off ─EVSE there, or messages wait─→ dialing ─→ up ─end─→ resting ─→ dialing …
//! ```
//!
//! `renewal` replaces the backend's connection while it stands.

mod renewal;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Schemas, Secret, Version,
    handshake::{Refusal, Request, Socket},
    local,
    orders::{self, Action, Command, Desk, Failed},
    queue,
    route::{BackendRules, Out, Route, Rules},
    socket::{self, End, Heard, Link},
    uplink::{self, Backoff, Failure},
};
use crate::{
    clock::Clock,
    config, control,
    ids::{EvseId, Identity},
    plan::Setpoint,
    site::Event,
    smgw::Dial,
    store::{Store, StoreError},
    time::Mono,
};

/// How long an EVSE waits for us to ask the backend about it.
const ASK_FIRST: Duration = Duration::from_secs(5);
/// The same in strict mode, where the EVSE gets no other answer.
const ASK_STRICT: Duration = Duration::from_secs(30);
/// How long a refusal by the backend is repeated without asking again.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);
/// For connections to end after we said goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// How often the backend may refuse a version in which messages wait before they are laid aside.
const REFUSED_VERSION: u32 = 3;

type Dialed = Result<(Socket, Version), Failure>;
type Dialing = Pin<Box<dyn Future<Output = Dialed> + Send>>;
type Ack = Pin<Box<dyn Future<Output = (u64, Result<(), StoreError>)> + Send>>;

enum North {
    Off,
    Resting(Mono),
    /// With the versions that are offered.
    Dialing(Vec<Version>, Dialing),
    Up {
        link: Link,
        since: Mono,
        version: Version,
    },
}

/// A station's task.
pub(super) struct Station {
    pub(super) evse: EvseId,
    pub(super) identity: Identity,
    /// What the configuration says of it.
    pub(super) settings: config::Evse,
    pub(super) schemas: Option<Arc<Schemas>>,
    pub(super) setpoint: watch::Receiver<Option<Setpoint>>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) inbox: orders::Inbox,
    /// The charge point is played here.
    pub(super) local: bool,
    pub(super) config: config::Ocpp,
    pub(super) backend: Option<(config::Backend, Arc<dyn Dial>)>,
    pub(super) events: control::Events,
    pub(super) store: Store,
    pub(super) clock: Clock,
}

struct Running {
    station: Station,
    route: Route,
    acks: FuturesOrdered<Ack>,
    links: JoinSet<()>,
    heard: mpsc::Sender<(u64, Heard)>,
    connections: u64,
    south: Option<Link>,
    /// What the EVSE offered last.
    offers: Vec<Version>,
    north: North,
    next: Option<renewal::Next>,
    /// Refusals of a version in which messages wait.
    unspoken: u32,
    /// That the backend gave.
    password: Option<Secret>,
    backoff: Backoff,
    waiting: Option<(Request, Mono)>,
    refused: Option<(u16, Mono)>,
    desk: Desk,
}

impl Station {
    /// Takes up the stored state, then runs until stopped.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let identity = self.identity.clone();
        let loaded = self.store.read(move |db| queue::load(db, &identity)).await;
        let saved = loaded.map_err(|source| Error::Store { identity: self.identity.clone(), source })?;
        let backend = self.backend.as_ref().map(|(backend, _)| BackendRules {
            call_timeout: backend.call_timeout,
            attempts: backend.attempts,
            retry_interval: backend.retry_interval,
        });
        let rules = Rules {
            backend,
            own_timeout: self.config.call_timeout,
            accept_unknown: self.config.accept_unknown_offline,
            users: Arc::clone(&self.config.users),
            local: self.local,
            rated: self.settings.max,
            phases: self.settings.wiring.count(),
            merged: self.settings.ocpp.merged_profiles,
            schemas: self.schemas.clone(),
            refuses: self.config.check == config::Check::Refuse,
        };
        let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
        let (heard, inbox) = mpsc::channel(64);
        let password = saved.password.clone();
        let mut running = Running {
            password,
            route: Route::new(self.clock.now().mono, rules, saved, seed),
            station: self,
            acks: FuturesOrdered::new(),
            links: JoinSet::new(),
            heard,
            connections: 0,
            south: None,
            offers: Vec::new(),
            unspoken: 0,
            north: North::Off,
            next: None,
            backoff: Backoff::default(),
            waiting: None,
            refused: None,
            desk: Desk::default(),
        };
        running.turn(inbox, &stop).await;
        running.leave().await;
        Ok(())
    }
}

impl Running {
    async fn turn(&mut self, mut inbox: mpsc::Receiver<(u64, Heard)>, stop: &CancellationToken) {
        let first = self.station.setpoint.borrow_and_update().clone();
        self.route.setpoint(self.station.clock.now(), first);
        let mut wishes = true;
        loop {
            self.renew().await;
            self.reach_north();
            self.carry_out().await;
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = self.station.requests.recv() => self.request(request).await,
                Some((id, heard)) = inbox.recv() => self.heard(id, heard),
                Some(command) = self.station.inbox.0.recv() => self.command(command).await,
                Some((ticket, outcome)) = self.acks.next(), if !self.acks.is_empty() => {
                    self.route.stored(self.station.clock.now(), ticket, &outcome);
                }
                changed = self.station.setpoint.changed(), if wishes => {
                    wishes = changed.is_ok();
                    let wish = self.station.setpoint.borrow_and_update().clone();
                    self.route.setpoint(self.station.clock.now(), wish);
                }
                dialed = dialed(&mut self.north) => self.dialed(dialed).await,
                progress = renewal::progress(&mut self.next) => self.renewing(progress),
                Some(end) = self.links.join_next(), if !self.links.is_empty() => {
                    if let Err(error) = end {
                        tracing::error!(%error, "a connection ended abnormally");
                    }
                }
                () = tokio::time::sleep(wake) => self.timeout().await,
            }
        }
    }

    /// How long nothing happens by itself.
    fn wake(&self) -> Duration {
        let route = self.route.poll_timeout().map(|(at, _)| at);
        let north = match &self.north {
            North::Resting(until) => Some(*until),
            _ => None,
        };
        let request = self.waiting.as_ref().map(|(_, until)| *until);
        let renewal = self.next.as_ref().and_then(renewal::Next::wake);
        let now = self.station.clock.now().mono;
        let next = [route, north, request, renewal].into_iter().flatten().min();
        next.map_or(Duration::from_secs(3600), |at| at.since(now) + Duration::from_millis(1))
    }

    async fn timeout(&mut self) {
        let now = self.station.clock.now();
        if self.route.poll_timeout().is_some_and(|(at, _)| at <= now.mono) {
            self.route.timeout(now);
        }
        if self.waiting.as_ref().is_some_and(|(_, until)| *until <= now.mono) && self.is_strict() {
            self.refuse_waiting(503).await;
        } else if self.waiting.as_ref().is_some_and(|(_, until)| *until <= now.mono) {
            tracing::debug!("the backend is slow; the EVSE is accepted without it");
            self.accept().await;
        }
    }

    /// Whether what waits for the backend is of another version than the EVSE now speaks.
    fn is_draining(&self) -> bool {
        self.route.wants_version() != self.route.version()
    }

    /// What to offer the backend: what is spoken with the EVSE, then what it would speak besides. While messages of
    /// another version wait, that one alone.
    fn offer(&self) -> Vec<Version> {
        let first = self.route.wants_version();
        let mut offer = vec![first];
        if !self.is_draining() {
            offer.extend(self.offers.iter().filter(|v| **v != first));
        }
        offer
    }

    /// Begins or ends the connection to the backend as it is needed.
    fn reach_north(&mut self) {
        let now = self.station.clock.now().mono;
        let wanted = self.waiting.is_some() || self.route.wants_north(now);
        match &self.north {
            North::Off if wanted => self.dial(self.offer()),
            North::Resting(until) if wanted && *until <= now => self.dial(self.offer()),
            // A rest that is over and leads nowhere must not wake the task again and again.
            North::Resting(until) if *until <= now => self.north = North::Off,
            North::Dialing(..) if !wanted => self.north = North::Off,
            North::Up { .. } if !wanted => self.close_north("the charge point is away"),
            // What waits is of another version, or does not any longer. (The other case is `renegotiate`'s.)
            North::Up { version, .. }
                if *version != self.route.wants_version()
                    && self.waiting.is_none()
                    && (self.is_draining() || self.south.is_some()) =>
            {
                self.close_north("another version is spoken from here on");
                self.dial(self.offer());
            }
            North::Off | North::Resting(_) | North::Dialing(..) | North::Up { .. } => {}
        }
    }

    fn close_north(&mut self, why: &'static str) {
        if let North::Up { link, .. } = std::mem::replace(&mut self.north, North::Off) {
            link.close(CloseCode::Away, why);
            self.route.north_down(self.station.clock.now());
        }
    }

    fn dial(&mut self, versions: Vec<Version>) {
        let Some((backend, dial)) = &self.station.backend else {
            return;
        };
        let (dial, backend, identity) = (Arc::clone(dial), backend.clone(), self.station.identity.clone());
        let max_frame = self.station.config.max_frame;
        let attempt =
            uplink::open(dial, backend, identity, versions.clone(), self.password.clone(), max_frame);
        self.north = North::Dialing(versions, Box::pin(attempt));
    }

    /// The EVSE wants to connect.
    async fn request(&mut self, request: Request) {
        let allowed = &self.station.settings.ocpp.versions;
        let assumed = allowed.iter().min().copied().unwrap_or_default();
        let offers = request.versions(allowed, assumed);
        if offers.is_empty() {
            let spoken: Vec<_> = allowed.iter().map(|v| v.subprotocol()).collect();
            tracing::warn!(offered = ?request.protocols, ?spoken, "the EVSE offers no subprotocol that it may speak here");
            return request.refuse(400).await;
        }
        let now = self.station.clock.now().mono;
        if let Some((status, at)) = self.refused
            && now.since(at) < REFUSAL_HOLDS
            && !matches!(self.north, North::Up { .. })
        {
            return request.refuse(status).await;
        }
        let ready = self.station.backend.as_ref().is_some_and(|(_, dial)| dial.ready());
        self.waiting = Some((request, now + if self.is_strict() { ASK_STRICT } else { ASK_FIRST }));
        let drains = !offers.contains(&self.route.wants_version()) && self.is_draining();
        self.offers = offers;
        match &self.north {
            // What waits goes first, in its own version; the EVSE is answered here meanwhile.
            _ if drains && !self.is_strict() => self.accept().await,
            North::Up { version, .. } if self.offers.contains(version) => self.accept().await,
            North::Dialing(versions, _) if ready && *versions == self.offers => {}
            North::Up { .. } if ready => {
                self.close_north("another version is spoken from here on");
                self.dial(self.offers.clone());
            }
            North::Off | North::Resting(_) | North::Dialing(..) if ready => self.dial(self.offers.clone()),
            _ if self.is_strict() => self.refuse_waiting(503).await,
            _ => self.accept().await,
        }
    }

    /// Whether the EVSE is let go while the backend is away.
    fn is_strict(&self) -> bool {
        self.station.settings.ocpp.strict && self.station.backend.is_some()
    }

    async fn refuse_waiting(&mut self, status: u16) {
        if let Some((request, _)) = self.waiting.take() {
            request.refuse(status).await;
        }
    }

    /// The version for an EVSE that comes in: the backend's choice, else the last one, else its own first.
    fn choose(&self) -> Version {
        let backend = match &self.north {
            North::Up { version, .. } => Some(*version),
            _ => None,
        };
        let candidates =
            backend.into_iter().chain([self.route.version()]).chain(self.offers.first().copied());
        candidates.into_iter().find(|v| self.offers.contains(v)).unwrap_or_default()
    }

    /// Lets the waiting EVSE in; an older connection ends.
    async fn accept(&mut self) {
        let Some((request, _)) = self.waiting.take() else {
            return;
        };
        let version = self.choose();
        let accepted =
            request.accept(version, self.station.config.max_frame, self.station.config.compression);
        let socket = match tokio::time::timeout(GOODBYE, accepted).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return tracing::debug!(%error, "the EVSE left during its handshake"),
            Err(_) => return tracing::debug!("the EVSE does not take our answer to its handshake"),
        };
        if let Some(older) = self.south.take() {
            tracing::warn!("a newer connection under this identity took over; the older one is closed");
            let what = "a newer connection took over while the older one stood: the EVSE lost its network, or two \
                        share this identity";
            self.route.south_trouble(self.station.clock.now(), what);
            older.close(CloseCode::Policy, "a newer connection took over");
        }
        let ping = self.station.settings.ocpp.pings.then_some(self.station.config.ping_interval);
        self.south = Some(self.start(socket, ping));
        tracing::info!(%version, "the EVSE is connected");
        self.route.south_up(self.station.clock.now(), version);
    }

    fn start(&mut self, socket: Socket, ping: Option<Duration>) -> Link {
        self.connections += 1;
        let (link, told) = Link::new(self.connections);
        self.links.spawn(socket::run(socket, link.id, told, self.heard.clone(), ping));
        link
    }

    /// An attempt to reach the backend has ended.
    async fn dialed(&mut self, outcome: Dialed) {
        let now = self.station.clock.now();
        match outcome {
            Ok((socket, version)) => {
                let ping = self.station.backend.as_ref().map_or(ASK_FIRST, |(b, _)| b.ping_interval);
                let link = self.start(socket, Some(ping));
                self.north = North::Up { link, since: now.mono, version };
                self.plan_renewal(now.mono, version);
                self.refused = None;
                self.unspoken = 0;
                tracing::info!(%version, "the backend is connected");
                self.route.north_up(now, version);
                self.accept().await;
                self.renegotiate(version);
            }
            Err(failure) => {
                self.north = North::Resting(now.mono + self.backoff.after(&failure));
                if matches!(failure, Failure::Way(crate::smgw::DialError::Failed(_))) {
                    // The uplink tells of its own outage, once.
                    tracing::debug!(%failure, "no connection to the backend");
                } else {
                    tracing::warn!(%failure, "no connection to the backend");
                    self.route.north_trouble(&failure.to_string());
                }
                if matches!(failure, Failure::Refused(_)) && self.is_draining() {
                    self.unspoken += 1;
                    if self.unspoken >= REFUSED_VERSION {
                        self.unspoken = 0;
                        let version = self.route.wants_version();
                        tracing::error!(%version, "the backend refuses the version in which messages wait");
                        self.route.bury(now, version);
                    }
                }
                if let Failure::Refused(Refusal::Status(status @ (401 | 403 | 404))) = failure {
                    self.refused = Some((status, now.mono));
                    if let Some((request, _)) = self.waiting.take() {
                        tracing::warn!(status, "the backend refuses this identity, and so do we");
                        request.refuse(status).await;
                    }
                }
                if self.is_strict() {
                    return self.refuse_waiting(503).await;
                }
                self.accept().await;
            }
        }
    }

    /// An EVSE that came in while the backend was away may speak what the backend does not: it shall come again.
    fn renegotiate(&mut self, version: Version) {
        if version == self.route.version() || self.is_draining() || !self.offers.contains(&version) {
            return;
        }
        if let Some(link) = self.south.take() {
            tracing::warn!(%version, spoken = %self.route.version(), "the backend chose another version than the EVSE speaks");
            link.close(CloseCode::Restart, "another version is spoken from here on");
            self.route.south_down(self.station.clock.now());
        }
    }

    fn heard(&mut self, id: u64, heard: Heard) {
        let now = self.station.clock.now();
        let south = self.south.as_ref().is_some_and(|link| link.id == id);
        let north = matches!(&self.north, North::Up { link, .. } if link.id == id);
        match heard {
            Heard::Text(text) if south => self.route.south_frame(now, text),
            Heard::Text(text) if north => self.route.north_frame(now, text),
            Heard::End(end) if south => self.south_ended(&end),
            Heard::End(end) if north => self.north_ended(&end.why),
            // The last words of a connection that was replaced.
            Heard::Text(_) | Heard::End(_) => {}
        }
    }

    fn south_ended(&mut self, end: &End) {
        let now = self.station.clock.now();
        tracing::info!(why = end.why, "the EVSE is gone");
        self.south = None;
        if end.broke_rules {
            tracing::warn!(why = end.why, "the EVSE's connection was closed");
            self.route.south_trouble(now, &format!("the EVSE's connection was closed: {}", end.why));
        }
        self.route.south_down(now);
    }

    fn north_ended(&mut self, why: &str) {
        let now = self.station.clock.now();
        tracing::info!(why, "the backend is gone");
        if let North::Up { since, .. } = self.north {
            let wait = self.backoff.after_end(now.mono.since(since), self.route.north_has_answered());
            self.north = North::Resting(now.mono + wait);
            self.route.north_down(now);
            self.let_go();
        }
    }

    /// In strict mode the EVSE shall see that its backend is away, and queue by itself (2.0.1 Part 4 §6.3).
    fn let_go(&mut self) {
        if self.is_strict()
            && let Some(link) = self.south.take()
        {
            link.close(CloseCode::Away, "the backend is away");
            self.route.south_down(self.station.clock.now());
        }
    }

    /// Somebody wants something of this station.
    async fn command(&mut self, command: Command) {
        let now = self.station.clock.now();
        match command {
            Command::Order(action, reply) => {
                let refused = match &action {
                    Action::Authorize { id_tag } => self.route.refuses(id_tag, now.wall),
                    _ => None,
                };
                if let Some(verdict) = refused {
                    let _ = reply.send(Err(Failed::Refused(verdict)));
                } else if let Some(order) =
                    self.desk.take(&action, self.route.version(), self.route.running(), reply)
                {
                    self.route.order(now, order);
                }
            }
            Command::Revive(seq, reply) => {
                let identity = self.station.identity.clone();
                let dead = self.station.store.read(move |db| queue::dead(db, &identity, seq)).await;
                // The caller may have gone.
                let _ = reply.send(dead.map(|messages| {
                    let count = messages.len();
                    self.route.revive(now, messages);
                    count
                }));
            }
            Command::Discard(seq, reply) => {
                let identity = self.station.identity.clone();
                let dead = self.station.store.read(move |db| queue::dead(db, &identity, seq)).await;
                let _ = reply.send(dead.map(|messages| {
                    let seqs: Vec<_> = messages.iter().map(|m| m.seq).collect();
                    let count = seqs.len();
                    self.route.discard(now, seqs);
                    count
                }));
            }
        }
    }

    /// Does what the route wants done.
    async fn carry_out(&mut self) {
        while let Some(out) = self.route.output() {
            match out {
                Out::South(text) => {
                    if self.south.as_ref().is_some_and(|link| !link.send(text)) {
                        self.south_ended(&stuck());
                    }
                }
                Out::North(text) => match &self.north {
                    North::Up { link, .. } if !link.send(text) => self.north_ended("it takes no more data"),
                    _ => {}
                },
                Out::Store { ticket, ops } => {
                    let identity = self.station.identity.clone();
                    let apply = move |db: &rusqlite::Connection| {
                        ops.iter().try_for_each(|op| queue::apply(db, &identity, op))
                    };
                    let stored = self.station.store.submit(apply);
                    self.acks.push_back(Box::pin(async move {
                        let gone = || Err(StoreError::Unavailable("the writer is gone".into()));
                        (ticket, stored.await.unwrap_or_else(|_| gone()))
                    }));
                }
                Out::Tell(event) if self.station.local && !local::is_news(&event) => {}
                Out::Tell(event) => {
                    let event = Event::Evse(self.station.evse.clone(), event);
                    if self.station.events.send(event).await.is_err() {
                        tracing::debug!("the site takes no more events");
                    }
                }
                Out::Answered { ticket, outcome } => self.desk.answered(ticket, outcome),
                Out::CloseNorth(why) => {
                    if let North::Up { link, .. } = std::mem::replace(&mut self.north, North::Off) {
                        link.close(CloseCode::Away, why);
                        let now = self.station.clock.now();
                        self.north = North::Resting(now.mono + self.backoff.after_end(Duration::ZERO, false));
                        self.route.north_down(now);
                        self.let_go();
                    }
                }
                Out::Password(password) => {
                    tracing::info!("the backend gave a new password; it is used from now on");
                    self.password = Some(password);
                    // Behind the answer, which is on its way.
                    self.close_north("the password is another one");
                }
            }
        }
    }

    async fn leave(mut self) {
        if let Some(link) = self.south.take() {
            link.close(CloseCode::Away, "the controller is going down");
        }
        if let North::Up { link, .. } = self.north {
            link.close(CloseCode::Away, "the controller is going down");
        }
        // What is left after that is dropped with the set.
        let all = async { while self.links.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, all).await;
    }
}

fn stuck() -> End {
    End { why: "it takes no more data".into(), broke_rules: true, close: None }
}

/// The outcome of the attempt that runs; never, if none does.
async fn dialed(north: &mut North) -> Dialed {
    match north {
        North::Dialing(_, attempt) => attempt.await,
        _ => std::future::pending().await,
    }
}
