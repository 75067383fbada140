//! The facts of the site and their age. The only mutable state; one owner, `control`.
//!
//! In: [`Event`]s with the time they are applied at, and what `plan` granted. Out: facts for `policy` and `plan`,
//! pictures ([`View`]) for `api`, [`Note`]s for the journal. Invariant: a fact is never re-stamped: its age is that
//! of the reading, not of the reader. Pure: no async, no I/O, no clock.

pub mod check;
pub mod event;
pub mod facts;
pub mod fall;
pub mod follow;
pub mod jump;
pub mod leash;
mod limits;
pub mod load;
mod metering;
mod note;
mod picture;
pub mod plausible;
mod power;
pub mod rest;
pub mod returning;
mod values;
pub mod view;

use std::sync::Arc;

use serde_json::json;

pub use self::{event::Event, note::Note, view::View};
use self::{
    event::{ConnectorStatus, EvseEvent, Level},
    facts::{DeviceFacts, EvseFacts, MeterFacts},
    returning::Return,
    view::Quality,
};
use crate::{
    config::{Config, RelayFunction},
    grid::{Book, Guard, Place, pmin},
    ids::NodeId,
    plan::Plan,
    policy, rules, tariff,
    time::{Mono, Now, Wall},
    units::{Milliamps, PerPhase},
    variable::Variables,
};

/// A digital input as last reported.
#[derive(Debug, Clone)]
pub struct ContactFacts {
    /// State.
    pub level: Level,
    /// Since when.
    pub since: Wall,
}

/// A digital output as last reported.
#[derive(Debug, Clone, Default)]
pub struct RelayFacts {
    /// Energised?
    pub energised: bool,
    /// Since when.
    pub since: Wall,
    /// What is wrong.
    pub problem: String,
    /// Its contactor stays closed: what is behind it must be kept at 0 A by other means.
    pub welded: bool,
}

/// Everything that is known. Vectors are indexed as in the configuration.
#[derive(Debug, Clone)]
pub struct Site {
    /// What the site consists of.
    pub config: Arc<Config>,
    /// EVSEs.
    pub evses: Vec<EvseFacts>,
    /// Other controllable devices.
    pub devices: Vec<DeviceFacts>,
    /// Meters.
    pub meters: Vec<MeterFacts>,
    /// Contacts; unreadable until first reported, and that counts as limited.
    pub contacts: Vec<ContactFacts>,
    /// Relays.
    pub relays: Vec<RelayFacts>,
    /// Who draws what behind each node that has a meter.
    pub loads: Vec<Option<load::Split>>,
    /// Grid limits.
    pub limits: Book,
    /// Who limits from afar, one per `[[grid.source]]`.
    pub guards: Vec<Guard>,
    /// The nodes, as limits see them.
    pub places: Arc<[Place]>,
    /// What the controllable devices of the whole site are owed.
    pub minimum: Arc<pmin::Minimum>,
    /// Whether the wall clock can be believed.
    pub clock: jump::Watch,
    /// What charging rules wish, one per EVSE.
    pub wishes: Vec<policy::Wish>,
    /// What the rules remember, one per EVSE.
    pub rules: Vec<rules::State>,
    /// Announced tariffs.
    pub tariffs: Arc<tariff::Book>,
    /// Named variables.
    pub variables: Variables,
    /// Rises with every change of tariffs and variables.
    pub revision: u64,
    /// The gradual return after a limit, for each node.
    pub returns: Vec<Return>,
    /// Which EVSEs and which devices are behind each node.
    members: Arc<[(Vec<usize>, Vec<usize>)]>,
    /// Since when each node's fuse has been exceeded, by its meter.
    over_since: Vec<PerPhase<Option<Mono>>>,
    /// What the meter of each node said of late.
    recent: Vec<fall::Recent>,
    /// The quality of each meter when last looked at.
    quality: Vec<Quality>,
}

impl Site {
    /// A site of which nothing is known but its configuration and the limits that outlived a restart.
    #[must_use]
    pub fn new(config: Arc<Config>, limits: Book, now: Now) -> Self {
        Self {
            evses: vec![EvseFacts::default(); config.evses.len()],
            devices: vec![DeviceFacts::default(); config.devices.len()],
            returns: vec![Return::default(); config.nodes.len()],
            members: members(&config),
            guards: config.grid.sources.iter().map(|source| Guard::new(source, now.mono)).collect(),
            places: limits::places(&config),
            minimum: Arc::new(pmin::minimum(pmin::count(&config, 0))),
            clock: jump::Watch::default(),
            wishes: vec![policy::Wish::default(); config.evses.len()],
            rules: vec![rules::State::default(); config.evses.len()],
            tariffs: Arc::default(),
            variables: Variables::new(&config.charging.variables, Vec::new()),
            revision: 0,
            meters: vec![MeterFacts::default(); config.meters.len()],
            contacts: vec![
                ContactFacts {
                    level: Level::Unreadable("not read yet".to_owned()),
                    since: now.wall
                };
                config.contacts.len()
            ],
            relays: vec![RelayFacts { since: now.wall, ..RelayFacts::default() }; config.relays.len()],
            loads: vec![None; config.nodes.len()],
            over_since: vec![PerPhase::default(); config.nodes.len()],
            recent: vec![fall::Recent::default(); config.nodes.len()],
            quality: vec![Quality::Lost; config.meters.len()],
            limits,
            config,
        }
    }

    /// Takes one event in. Names that the configuration does not know are ignored: they cannot come from a room
    /// that was built from the same configuration.
    pub fn apply(&mut self, event: Event, now: Now) -> Vec<Note> {
        let mut notes = Vec::new();
        let config = Arc::clone(&self.config);
        match event {
            Event::Reading(id, reading) => {
                if let Some(at) = config.meters.iter().position(|m| m.id == id) {
                    self.take_reading(at, reading, now);
                }
            }
            Event::MeterProblem(id, problem) => {
                if let Some(at) = config.meters.iter().position(|m| m.id == id) {
                    self.meters[at].problem = problem;
                }
            }
            Event::Evse(id, event) => {
                if let Some(at) = config.evses.iter().position(|e| e.id == id) {
                    self.apply_evse(at, event, now, &mut notes);
                }
            }
            Event::Contact(id, level) => {
                if let Some(at) = config.contacts.iter().position(|c| c.id == id)
                    && self.contacts[at].level != level
                {
                    notes.push(Note::new("contact.changed", &id, json!({ "state": words(&level) })));
                    self.contacts[at] = ContactFacts { level, since: now.wall };
                }
            }
            Event::Edges { id, at, count } => {
                notes.push(Note::new("contact.edges", &id, json!({ "first": at, "count": count })));
            }
            Event::Welded(id, welded) => {
                if let Some(at) = config.relays.iter().position(|r| r.id == id)
                    && self.relays[at].welded != welded
                {
                    let kind = if welded { "relay.welded" } else { "relay.cleared" };
                    notes.push(Note::bare(kind, &id));
                    self.relays[at].welded = welded;
                }
            }
            Event::Device(id, outcome) => {
                if let Some(at) = config.devices.iter().position(|d| d.id == id) {
                    if let Err(problem) = &outcome {
                        notes.push(Note::new("device.failed", &id, json!({ "problem": problem })));
                    }
                    self.devices[at].told = Some(outcome);
                }
            }
            Event::Relay(id, outcome) => {
                if let Some(at) = config.relays.iter().position(|r| r.id == id) {
                    let relay = &mut self.relays[at];
                    match outcome {
                        Ok(energised) => {
                            if relay.energised != energised {
                                notes.push(Note::new(
                                    "relay.switched",
                                    &id,
                                    json!({ "energised": energised }),
                                ));
                                relay.since = now.wall;
                            }
                            relay.energised = energised;
                            relay.problem.clear();
                        }
                        Err(problem) => {
                            if relay.problem != problem {
                                notes.push(Note::new("relay.failed", &id, json!({ "problem": problem })));
                            }
                            relay.problem = problem;
                        }
                    }
                }
            }
        }
        notes
    }

    fn apply_evse(&mut self, at: usize, event: EvseEvent, now: Now, notes: &mut Vec<Note>) {
        let config = &self.config.evses[at];
        let evse = &mut self.evses[at];
        match event {
            EvseEvent::Connected => {
                if evse.connected.is_none() {
                    notes.push(Note::bare("evse.connected", &config.id));
                }
                evse.connected = Some(now);
                if evse.leash.untouched() {
                    evse.leash.rebooted(now.mono);
                }
            }
            EvseEvent::Disconnected => {
                if evse.connected.take().is_some() {
                    notes.push(Note::bare("evse.disconnected", &config.id));
                }
                evse.backend = false;
            }
            EvseEvent::Boot { vendor, model } => {
                notes.push(Note::new("evse.booted", &config.id, json!({ "vendor": vendor, "model": model })));
                evse.vendor = vendor;
                evse.model = model;
                evse.leash.rebooted(now.mono);
            }
            EvseEvent::Status { status, error } => {
                if error != evse.error && !error.is_empty() {
                    notes.push(Note::new("evse.error", &config.id, json!({ "code": error })));
                }
                evse.status = status;
                evse.error = error;
                if status != ConnectorStatus::Charging {
                    evse.mask = None;
                }
            }
            EvseEvent::Transaction(transaction) => {
                if evse.transaction.as_ref().is_none_or(|before| before.name != transaction.name) {
                    evse.forget_draw();
                }
                evse.transaction = Some(transaction);
            }
            EvseEvent::Card(card) => evse.user = self.config.charging.user(&card),
            EvseEvent::TransactionEnded => {
                evse.user = None;
                evse.transaction = None;
                evse.mask = None;
                evse.needs = None;
                evse.forget_draw();
            }
            EvseEvent::Needs(needs) => {
                if evse.needs.is_none_or(|(before, _)| before != needs) {
                    notes.push(Note::new("evse.needs", &config.id, needs_told(&needs)));
                }
                let started = evse.transaction.as_ref().map(|t| t.meter_start);
                evse.needs = Some((needs, evse.draw.and_then(|draw| draw.energy).or(started)));
            }
            EvseEvent::Draw(draw) => {
                evse.draw = Some(draw);
                if let Some((_, register)) = &mut evse.needs {
                    *register = register.or(draw.energy);
                }
                evse.observe(config, &self.config.control);
                self.heard_draw(at);
            }
            EvseEvent::Confirmed { sequence, lease_until, .. } => {
                evse.leash.confirmed(sequence, lease_until, now.mono);
                evse.refusal.clear();
            }
            EvseEvent::Refused { sequence, why } => {
                if evse.refusal != why {
                    notes.push(Note::new("setpoint.refused", &config.id, json!({ "why": why })));
                }
                evse.leash.refused(sequence, now.mono);
                evse.refusal = why;
            }
            EvseEvent::Backend(up) => evse.backend = up,
            EvseEvent::BackendLimit(limit) => {
                if limit != evse.backend_limit {
                    let body = json!({ "milliamps": limit.map(|l| l.0) });
                    notes.push(Note::new("evse.backend-limit", &config.id, body));
                }
                evse.backend_limit = limit;
            }
            EvseEvent::Queue { waiting, dead } => {
                if dead > evse.dead {
                    notes.push(Note::new("backend.refused", &config.id, json!({ "dead_messages": dead })));
                }
                evse.queued = waiting;
                evse.dead = dead;
            }
            EvseEvent::Problem(problem) => {
                if problem != evse.problem && !problem.is_empty() {
                    notes.push(Note::new("evse.problem", &config.id, json!({ "problem": problem })));
                }
                evse.problem = problem;
            }
        }
    }

    /// Looks at what only time changes: meters that grow stale or come back.
    pub fn tick(&mut self, now: Now) -> Vec<Note> {
        let mut notes = Vec::new();
        if let Some(by) = self.clock.look(now) {
            notes.push(Note::new("clock.jumped", &self.config.name, json!({ "by_milliseconds": by })));
        }
        for g in 0..self.guards.len() {
            self.look_at_source(g, now, &mut notes);
        }
        for (at, meter) in self.meters.iter().enumerate() {
            let quality = meter.quality(&self.config.control, now.mono);
            if quality != self.quality[at] {
                let kind = match quality {
                    Quality::Good => "meter.good",
                    Quality::Stale => "meter.stale",
                    Quality::Implausible => "meter.implausible",
                    Quality::Lost => "meter.lost",
                };
                notes.push(Note::new(kind, &self.config.meters[at].id, json!({ "problem": meter.problem })));
                self.quality[at] = quality;
                if quality == Quality::Lost {
                    for (node, load) in self.loads.iter_mut().enumerate() {
                        if self.config.nodes[node].meter == Some(at) {
                            *load = None;
                        }
                    }
                }
            }
        }
        notes
    }

    /// Keeps what the plan granted, for its next turn.
    pub fn granted(&mut self, plan: &Plan, now: Now) {
        let control = self.config.control;
        for ((evse, config), grant) in self.evses.iter_mut().zip(&self.config.evses).zip(&plan.grants) {
            evse.room_since = grant.room_since;
            let drawn = evse.settled_draw(config, &control, now.mono);
            let offered = evse.leash.newest().map_or(Milliamps::ZERO, |s| s.limit);
            evse.follow.look(drawn, offered, &control, now.mono);
            let on = grant.limit > Milliamps::ZERO;
            evse.rest.look(evse.status, drawn, offered > Milliamps::ZERO, &control, now.mono);
            if !evse.vehicle_possible() {
                // The next car begins its own turn.
                (evse.on_since, evse.on_until) = (None, None);
                (evse.loaded, evse.highest, evse.needs) = (None, Milliamps::ZERO, None);
                evse.follow.forget();
                continue;
            }
            match (on, evse.on_since) {
                (true, None) => evse.on_since = Some(now.mono),
                (false, Some(_)) => {
                    evse.on_since = None;
                    evse.on_until = Some(now.mono);
                }
                _ => {}
            }
        }
        for (facts, grant) in self.devices.iter_mut().zip(&plan.devices) {
            facts.granted(grant.power, grant.room_since, control.settle, now.mono);
        }
        for n in 0..self.returns.len() {
            let limit = self.smallest_limit(n, now).map(|(watts, _)| watts);
            let full = self.rated(n);
            self.returns[n].look(limit, full, self.config.grid.return_over, now.mono);
        }
    }

    /// The EVSEs behind a node, those of its children included.
    pub fn behind(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.members[node].0.iter().copied()
    }

    /// The devices behind a node, those of its children included.
    pub fn devices_behind(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.members[node].1.iter().copied()
    }

    /// Whether the contactor before an EVSE is welded.
    #[must_use]
    pub fn welded(&self, evse: usize) -> bool {
        let before = |relay: &crate::config::Relay| relay.function == RelayFunction::Contactor(evse);
        self.config.relays.iter().zip(&self.relays).any(|(config, facts)| before(config) && facts.welded)
    }

    /// Index of a node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<usize> {
        self.config.nodes.iter().position(|n| n.id == *id)
    }
}

/// Which EVSEs and which devices are behind each node.
fn needs_told(needs: &event::Needs) -> serde_json::Value {
    json!({
        "departure": needs.departure.map(|at| at.to_string()),
        "watt_hours": needs.energy.map(|energy| energy.0),
        "milliamps": needs.most.map(|most| most.0),
        "phases": needs.phases,
    })
}

fn members(config: &Config) -> Arc<[(Vec<usize>, Vec<usize>)]> {
    let mut members = vec![(Vec::new(), Vec::new()); config.nodes.len()];
    let way = |node: usize| std::iter::successors(Some(node), |n| config.nodes[*n].parent);
    for (e, evse) in config.evses.iter().enumerate() {
        way(evse.node).for_each(|n| members[n].0.push(e));
    }
    for (d, device) in config.devices.iter().enumerate() {
        way(device.node).for_each(|n| members[n].1.push(d));
    }
    members.into()
}

pub(crate) fn words(level: &Level) -> String {
    match level {
        Level::Open => "open".to_owned(),
        Level::Closed => "closed".to_owned(),
        Level::Code(code) => format!("code {code}"),
        Level::Unreadable(why) => format!("unreadable: {why}"),
    }
}
