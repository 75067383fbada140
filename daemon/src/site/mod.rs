//! The facts of the site and their age. The only mutable state; one owner, `control`.
//!
//! In: [`Event`]s with the time they are applied at, and what `plan` granted. Out: facts for `policy` and `plan`,
//! pictures ([`View`]) for `api`, [`Note`]s for the journal. Invariant: a fact is never re-stamped: its age is that
//! of the reading, not of the reader. Pure: no async, no I/O, no clock.

pub mod event;
pub mod facts;
pub mod leash;
pub mod load;
mod note;
mod picture;
pub mod view;

use std::sync::Arc;

use serde_json::json;

pub use self::{event::Event, note::Note, view::View};
use self::{
    event::{ConnectorStatus, EvseEvent, Level},
    facts::{EvseFacts, MeterFacts},
    load::Overload,
    view::Quality,
};
use crate::{
    config::Config,
    grid::Book,
    ids::NodeId,
    plan::Plan,
    policy,
    time::{Mono, Now, Wall},
    units::{Milliamps, Millivolts, PerPhase, Phase, Watts},
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
}

/// Everything that is known. Vectors are indexed as in the configuration.
#[derive(Debug, Clone)]
pub struct Site {
    /// What the site consists of.
    pub config: Arc<Config>,
    /// EVSEs.
    pub evses: Vec<EvseFacts>,
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
    /// What charging rules wish, one per EVSE.
    pub wishes: Vec<policy::Wish>,
    /// Since when each node's fuse has been exceeded, by its meter.
    over_since: Vec<PerPhase<Option<Mono>>>,
    /// The quality of each meter when last looked at.
    quality: Vec<Quality>,
}

impl Site {
    /// A site of which nothing is known but its configuration and the limits that outlived a restart.
    #[must_use]
    pub fn new(config: Arc<Config>, limits: Book, now: Now) -> Self {
        Self {
            evses: vec![EvseFacts::default(); config.evses.len()],
            wishes: vec![policy::Wish::default(); config.evses.len()],
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
                    self.meters[at] = MeterFacts { reading: Some(reading), problem: String::new() };
                    self.split_load(at, now.mono);
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
            EvseEvent::Transaction(transaction) => evse.transaction = Some(transaction),
            EvseEvent::TransactionEnded => {
                evse.transaction = None;
                evse.mask = None;
            }
            EvseEvent::Draw(draw) => {
                evse.draw = Some(draw);
                evse.observe(config, &self.config.control);
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

    fn split_load(&mut self, meter: usize, now: Mono) {
        let Some(reading) = self.meters[meter].reading else { return };
        for node in 0..self.config.nodes.len() {
            if self.config.nodes[node].meter != Some(meter) {
                continue;
            }
            let over = &mut self.over_since[node];
            let overload = PerPhase::from_fn(|p| {
                if reading.currents[p] <= self.config.nodes[node].fuse {
                    over[p] = None;
                    return Overload::None;
                }
                let since = *over[p].get_or_insert(now);
                if now.since(since) < self.config.control.settle { Overload::New } else { Overload::Lasting }
            });
            let behind = self
                .behind(node)
                .map(|e| self.evses[e].interval(&self.config.evses[e], &self.config.control, now));
            self.loads[node] = Some(load::split(self.loads[node], reading.currents, overload, behind));
        }
    }

    /// Looks at what only time changes: meters that grow stale or come back.
    pub fn tick(&mut self, now: Now) -> Vec<Note> {
        let mut notes = Vec::new();
        for (at, meter) in self.meters.iter().enumerate() {
            let quality = meter.quality(&self.config.control, now.mono);
            if quality != self.quality[at] {
                let kind = match quality {
                    Quality::Good => "meter.good",
                    Quality::Stale => "meter.stale",
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
    pub fn granted(&mut self, plan: &Plan, now: Mono) {
        for (evse, grant) in self.evses.iter_mut().zip(&plan.grants) {
            evse.room_since = grant.room_since;
            let on = grant.limit > Milliamps::ZERO;
            if !evse.vehicle_possible() {
                // The next car begins its own turn.
                (evse.on_since, evse.on_until) = (None, None);
                continue;
            }
            match (on, evse.on_since) {
                (true, None) => evse.on_since = Some(now),
                (false, Some(_)) => {
                    evse.on_since = None;
                    evse.on_until = Some(now);
                }
                _ => {}
            }
        }
    }

    /// The EVSEs behind a node, those of its children included.
    pub fn behind(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let config = &self.config;
        (0..config.evses.len()).filter(move |e| {
            let mut at = Some(config.evses[*e].node);
            while let Some(n) = at {
                if n == node {
                    return true;
                }
                at = config.nodes[n].parent;
            }
            false
        })
    }

    /// Index of a node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<usize> {
        self.config.nodes.iter().position(|n| n.id == *id)
    }

    /// Voltages for turning power into current: measured at the grid connection if that is fresh and plausible, else
    /// the highest lawful ones, so that a power limit is kept in any case.
    #[must_use]
    pub fn voltages(&self, now: Mono) -> PerPhase<Millivolts> {
        let control = &self.config.control;
        let measured = self.config.nodes.first().and_then(|n| n.meter).and_then(|m| {
            let fresh = self.meters[m].quality(control, now) == Quality::Good;
            self.meters[m].reading.filter(|_| fresh).map(|r| r.voltages)
        });
        PerPhase::from_fn(|p| match measured {
            Some(v) if (Millivolts(195_000)..=Millivolts(264_000)).contains(&v[p]) => v[p],
            _ => Millivolts::HIGHEST,
        })
    }

    /// Power of an EVSE that draws `current` on the phases it uses.
    #[must_use]
    pub fn power_at(&self, evse: usize, current: Milliamps, now: Mono) -> Watts {
        let voltages = self.voltages(now);
        let phases = self.evses[evse].phases(&self.config.evses[evse]);
        Phase::ALL.into_iter().filter(|p| phases[*p]).map(|p| voltages[p].power_ceil(current)).sum()
    }
}

pub(crate) fn words(level: &Level) -> String {
    match level {
        Level::Open => "open".to_owned(),
        Level::Closed => "closed".to_owned(),
        Level::Unreadable(why) => format!("unreadable: {why}"),
    }
}
