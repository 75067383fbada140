//! Charge points that are played here towards the backend: a device of the site that does not speak OCPP, and the
//! site as a whole.
//!
//! In: what the site knows of the device (its [`View`]), frames of the backend. Out: whether the device may charge,
//! what the backend's profiles allow, frames. Invariant: what is played here is a charge point like any other for the
//! rest of the gateway: it connects to its station over a pipe, and its transactions take the same durable way.
//!
//! ```text
//!   view ──→ charge (who, when, how much) ──→ v16 (frames) ⇄ pipe ⇄ station(route, queue) ⇄ uplink ⇄ backend
//!     │           └─→ released → driver           └─→ profiles → cap of the EVSE, or limit of the site
//!     └────→ controller (limits told) ──────→ frames of 2.x ⇄ pipe ⇄ …
//! ```

mod charge;
mod controller;
mod keys;
mod profiles;
#[cfg(test)]
mod tests;
mod v16;

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use rusqlite::OptionalExtension;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use self::{
    charge::{Facts, Sample},
    controller::Controller,
    v16::{Make, Out, Point},
};
use super::{Error, Version, handshake::Request, orders};
use crate::{
    clock::Clock,
    config::{self, Role},
    control,
    grid::Wish,
    ids::{EvseId, Identity, LimitId},
    site::{
        Event, View,
        event::{ConnectorStatus, EvseEvent},
        view::Quality,
    },
    smgw::Dial,
    store::{Migration, Store},
    time::{Now, Wall},
    units::{Milliamps, Millivolts, Phase, Watts},
};

/// The table of this room.
pub(super) const MIGRATION: Migration = Migration {
    name: "ocpp-local-1",
    sql: "CREATE TABLE ocpp_local (identity TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;",
};

/// The pace of everything that only time changes.
const TICK: Duration = Duration::from_secs(1);
/// Between attempts to reach our own station.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes on the pipe.
const PIPE: usize = 64 << 10;
const BUFFER: usize = 4 << 10;

/// Whom a charge point that is played here stands for.
#[derive(Debug)]
pub enum Stands {
    /// For a device of the site.
    Evse {
        /// Which.
        evse: EvseId,
        /// Most current per phase.
        most: Milliamps,
        /// Whoever plugs in charges, under this card; without, a card must be shown or the backend must start.
        free: Option<String>,
        /// Whether the device may charge.
        released: watch::Sender<bool>,
    },
    /// For the whole site: its profile is a limit of the grid connection.
    Site {
        /// The way to the site.
        site: control::Handle,
        /// Fuse of the grid connection.
        most: Milliamps,
    },
    /// For the site's controller itself, in 2.x: it tells the limits that do not come from the backend.
    Controller,
}

/// A charge point that is played here.
pub struct Local {
    /// What the configuration says of it; for the site what follows from its grid connection.
    pub settings: config::Evse,
    /// The way to its own backend, if it has one.
    pub way: Option<Arc<dyn Dial>>,
    /// Whom it stands for.
    pub stands: Stands,
    /// Pictures of the site.
    pub view: watch::Receiver<Arc<View>>,
    /// What people want of it.
    pub inbox: orders::Inbox,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("identity", &self.settings.identity)
            .field("stands", &self.stands)
            .finish_non_exhaustive()
    }
}

/// What a running charge point needs besides.
pub(super) struct Player {
    pub(super) identity: Identity,
    pub(super) stands: Stands,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) door: mpsc::Sender<Request>,
    pub(super) events: control::Events,
    pub(super) store: Store,
    pub(super) clock: Clock,
    /// What must be remembered could not be stored last.
    pub(super) broken: bool,
}

type Line = WebSocketStream<DuplexStream>;

/// Whether a fact that the route found in frames is news to the site. What a charge point that is played here tells
/// of its connector is what the site told it.
pub(super) fn is_news(event: &EvseEvent) -> bool {
    matches!(
        event,
        EvseEvent::Transaction(_)
            | EvseEvent::TransactionEnded
            | EvseEvent::Backend(_)
            | EvseEvent::Queue { .. }
            | EvseEvent::Problem(_)
    )
}

/// What is played.
enum Part {
    Point(Box<Point>),
    Controller(Box<Controller>),
}

impl Part {
    fn link_up(&mut self, now: Now) {
        match self {
            Self::Point(point) => point.link_up(now),
            Self::Controller(controller) => controller.link_up(now),
        }
    }

    fn link_down(&mut self) {
        match self {
            Self::Point(point) => point.link_down(),
            Self::Controller(controller) => controller.link_down(),
        }
    }

    fn received(&mut self, text: &str, now: Now) {
        match self {
            Self::Point(point) => point.received(text, now),
            Self::Controller(controller) => controller.received(text, now),
        }
    }

    fn tick(&mut self, now: Now) {
        match self {
            Self::Point(point) => point.tick(now),
            Self::Controller(controller) => controller.tick(now),
        }
    }

    fn output(&mut self) -> Vec<Out> {
        match self {
            Self::Point(point) => point.output(),
            Self::Controller(controller) => controller.output(),
        }
    }
}

impl Player {
    /// Takes up the stored state, then plays until stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let key = self.identity.to_string();
        let saved = self.store.read(move |db| load(db, &key)).await;
        let saved = saved.map_err(|source| Error::Store { identity: self.identity.clone(), source })?;
        let mut part = self.part(saved.as_deref());
        stop.run_until_cancelled(self.play(&mut part)).await;
        Ok(())
    }

    fn part(&self, saved: Option<&str>) -> Part {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let (model, most, whole, free) = match &self.stands {
            Stands::Evse { most, free, .. } => ("EVSE", *most, false, free.clone()),
            Stands::Site { most, .. } => ("Site", *most, true, None),
            Stands::Controller => {
                return Part::Controller(Box::new(Controller::new(self.identity.to_string(), saved, seed)));
            }
        };
        let make = Make {
            vendor: "Ladewart".to_owned(),
            model: model.to_owned(),
            serial: self.identity.to_string(),
            most,
            whole,
            free,
        };
        Part::Point(Box::new(Point::new(make, saved, seed)))
    }

    /// What it offers to speak.
    fn versions(&self) -> &'static [Version] {
        match self.stands {
            Stands::Evse { .. } | Stands::Site { .. } => &[Version::V16],
            Stands::Controller => &[Version::V21, Version::V201],
        }
    }

    async fn play(&mut self, part: &mut Part) {
        self.look(part);
        self.carry_out(part, &mut None).await;
        loop {
            let mut opening = Box::pin(connect(self.identity.clone(), self.versions(), self.door.clone()));
            let opened = loop {
                tokio::select! {
                    opened = &mut opening => break opened,
                    () = tokio::time::sleep(AGAIN) => self.pass(part).await,
                }
            };
            match opened {
                Ok(line) => {
                    part.link_up(self.clock.now());
                    let mut line = Some(line);
                    self.carry_out(part, &mut line).await;
                    self.talk(part, &mut line).await;
                    part.link_down();
                }
                Err(why) => tracing::debug!(why, "the charge point that is played here is not let in"),
            }
            self.wait(part).await;
        }
    }

    /// Time without a connection.
    async fn wait(&mut self, part: &mut Part) {
        tokio::time::sleep(AGAIN).await;
        self.pass(part).await;
    }

    async fn pass(&mut self, part: &mut Part) {
        self.look(part);
        part.tick(self.clock.now());
        self.carry_out(part, &mut None).await;
    }

    /// Converses until the connection ends.
    async fn talk(&mut self, part: &mut Part, line: &mut Option<Line>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = true;
        while let Some(open) = line {
            tokio::select! {
                message = open.next() => match message {
                    Some(Ok(Message::Text(text))) => part.received(text.as_str(), self.clock.now()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                changed = self.view.changed(), if seen => {
                    seen = changed.is_ok();
                    self.look(part);
                }
                _ = tick.tick() => part.tick(self.clock.now()),
            }
            self.carry_out(part, line).await;
        }
    }

    /// Tells the charge point what the site knows of its device.
    fn look(&mut self, part: &mut Part) {
        let view = self.view.borrow_and_update().clone();
        let now = self.clock.now();
        let point = match part {
            Part::Point(point) => point,
            Part::Controller(controller) => return controller.look(&view, now),
        };
        match &self.stands {
            Stands::Evse { evse, .. } => {
                if let Some(seen) = view.evses.iter().find(|e| e.id == *evse) {
                    let draw = seen.draw.as_ref();
                    let facts = Facts {
                        there: seen.connected_since.is_some(),
                        status: seen.status,
                        fault: seen.error.clone(),
                        paused: seen.setpoint.as_ref().is_some_and(|s| s.limit == Milliamps::ZERO),
                        sample: Sample {
                            energy: draw.and_then(|d| d.energy).map(|e| e.0),
                            power: draw.and_then(|d| d.power).map(|p| p.0),
                            currents: draw.and_then(|d| d.currents).map(|c| c.map(|i| i.0)),
                        },
                    };
                    point.report(facts, &seen.vendor, &seen.model, now);
                }
            }
            Stands::Site { .. } => point.report(whole(&view), "", "", now),
            Stands::Controller => {}
        }
    }

    /// Does what the charge point wants done, in its order.
    async fn carry_out(&mut self, part: &mut Part, line: &mut Option<Line>) {
        let (mut stored, mut held) = (true, Vec::new());
        for out in part.output() {
            match out {
                Out::Store(state) => stored &= self.keep(state).await,
                out if !stored && out.waits_for_disk() => held.push(out),
                Out::Send(text) => {
                    if let Some(open) = line
                        && let Err(error) = open.send(Message::text(text)).await
                    {
                        tracing::debug!(%error, "the station took no more");
                        *line = None;
                    }
                }
                Out::Release(release) => {
                    if let Stands::Evse { released, .. } = &self.stands {
                        released.send_replace(release);
                    }
                }
                Out::Limit(limit, until) => self.limit(limit, until).await,
                Out::Reconnect => *line = None,
            }
        }
        match part {
            _ if stored => {}
            Part::Point(point) => point.not_stored(&held, self.clock.now()),
            Part::Controller(controller) => controller.not_stored(),
        }
    }

    /// Whether the state is on disk. A failure is logged once.
    async fn keep(&mut self, state: String) -> bool {
        let identity = self.identity.to_string();
        let outcome = self.store.write(move |db| keep(db, &identity, &state)).await;
        match &outcome {
            Err(error) if !self.broken => {
                tracing::error!(%error, "what a charge point that is played here must remember is not stored; no charge begins");
            }
            Ok(()) if self.broken => tracing::info!("the charge point that is played here is stored again"),
            _ => {}
        }
        self.broken = outcome.is_err();
        outcome.is_ok()
    }

    async fn limit(&self, limit: Option<Milliamps>, until: Option<Wall>) {
        match &self.stands {
            Stands::Evse { evse, .. } => {
                let event = Event::Evse(evse.clone(), EvseEvent::BackendLimit(limit));
                if self.events.send(event).await.is_err() {
                    tracing::debug!("the site takes no more events");
                }
            }
            Stands::Site { site, .. } => {
                let id = LimitId::new(&format!("ocpp-{}", self.identity));
                let issuer = format!("ocpp:{}", self.identity);
                let outcome = match limit {
                    Some(limit) => site.set_limit(wish(id, &issuer, limit, until)).await.map(drop),
                    None => site.clear_limit(id, issuer, Role::Supplier).await.map(drop),
                };
                if let Err(error) = outcome {
                    tracing::error!(%error, "the backend's limit of the site");
                }
            }
            Stands::Controller => {}
        }
    }
}

/// Opens a connection to our own station, as any charge point would.
async fn connect(
    identity: Identity,
    versions: &[Version],
    door: mpsc::Sender<Request>,
) -> Result<Line, String> {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let name = super::handshake::encode(identity.as_str());
    let mut request = format!("ws://localhost/{name}").into_client_request().map_err(|e| e.to_string())?;
    let offer = versions.iter().map(|v| v.subprotocol()).collect::<Vec<_>>().join(", ");
    let offer = HeaderValue::from_str(&offer).map_err(|e| e.to_string())?;
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    let client = client_async_with_config(request, ours, Some(config));
    let server = async {
        let request = Request::read(Box::new(theirs), false, None).await.map_err(|e| format!("{e:?}"))?;
        door.send(request).await.map_err(|_| "the station is gone".to_owned())
    };
    let (client, server) = tokio::join!(client, server);
    server?;
    client.map(|(line, _)| line).map_err(|e| e.to_string())
}

/// A current per phase as a power: at nominal voltage on three phases, as it was turned round on its way in.
fn wish(id: LimitId, issuer: &str, limit: Milliamps, until: Option<Wall>) -> Wish {
    let watts = limit.0.saturating_mul(Millivolts::NOMINAL.0).saturating_mul(3) / 1_000_000;
    Wish {
        id: Some(id),
        valid_until: until,
        reason: "charging profile of the backend for the site".to_owned(),
        ..Wish::new(issuer, Role::Supplier, Watts(watts))
    }
}

/// The grid connection as a charge point sees itself.
fn whole(view: &View) -> Facts {
    let meter = view.nodes.first().and_then(|node| node.meter.as_ref());
    let meter = meter.and_then(|id| view.meters.iter().find(|m| m.id == *id));
    let reading = meter.filter(|m| m.quality == Quality::Good).and_then(|m| m.reading);
    Facts {
        there: true,
        status: ConnectorStatus::Available,
        fault: String::new(),
        paused: false,
        sample: reading.map_or_else(Sample::default, |r| Sample {
            energy: r.import.map(|e| e.0),
            power: Some(r.power.0),
            currents: Some(Phase::ALL.map(|p| r.currents[p].0)),
        }),
    }
}

fn load(db: &rusqlite::Connection, identity: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT state FROM ocpp_local WHERE identity = ?1", [identity], |row| row.get(0)).optional()
}

fn keep(db: &rusqlite::Connection, identity: &str, state: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO ocpp_local VALUES (?1, ?2)")?.execute([identity, state])?;
    Ok(())
}
