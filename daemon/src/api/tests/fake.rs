//! The owner of the site, played: it keeps limits and tells their life, and plans nothing.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    control::{Command, CommandError, Synced},
    grid::{Change, Limit, Record, Refusal, Stage, Wish, pmin::Minimum},
    ids::{ContactId, EvseId, Identity, LimitId, MeterId, NodeId, RelayId},
    journal::{Entry, Journal},
    site::{
        View,
        event::{ConnectorStatus, Draw, Level, Reading, Transaction},
        view::{ContactView, EvseView, MeterView, NodeView, Quality, RelayView, SetpointView},
    },
    store::StoreError,
    time::Now,
    units::{Milliamps, Millivolts, PerPhase, WattHours, Watts},
};

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
        transaction: busy.then_some(Transaction {
            id: -7,
            name: "-7".into(),
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

pub(super) fn view(now: Now) -> View {
    View {
        at: now,
        name: "Depot".into(),
        nodes: vec![NodeView {
            id: NodeId::new("grid"),
            parent: None,
            fuse: PerPhase([Milliamps(63_000); 3]),
            contract: None,
            meter: Some(MeterId::new("main")),
            available: PerPhase([Milliamps(40_000), Milliamps(41_000), Milliamps(42_000)]),
            other_load: PerPhase([Milliamps(-1000), Milliamps(0), Milliamps(2000)]),
            power_limit: None,
            reason: "the fuse".into(),
        }],
        evses: (0..2).map(|n| evse(n, now)).collect(),
        devices: Vec::new(),
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
        sources: Vec::new(),
        minimum: Arc::new(Minimum::default()),
        limits: Vec::new(),
    }
}

/// The owner of the site, as far as the interface sees it.
pub(super) struct Loop {
    pub(super) journal: Journal,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) limits: broadcast::Sender<Record>,
    pub(super) clock: Clock,
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
            percent: request.percent,
            steps: request.steps,
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
            owed: Watts(7_560),
            step: 0,
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

    pub(super) async fn run(self: Arc<Self>, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::SetLimit(request, reply) => drop(reply.send(self.set(request))),
                Command::ClearLimit { id, reply, .. } => drop(reply.send(Ok(self.clear(&id)))),
                Command::Heartbeat { issuer, reply } => {
                    drop(reply.send(Err(CommandError::NoSource(issuer))));
                }
                Command::SetFailsafe { chosen, reply } => {
                    drop(reply.send(Err(CommandError::NoSource(chosen.issuer))));
                }
            }
        }
    }
}
