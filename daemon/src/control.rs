//! The loop: event or tick → site → policy → plan → difference → actuate → journal. Owns the site.
//!
//! In: [`Event`]s and commands by queues, the tick. Out: setpoints and relay states by `watch`, pictures by `watch`,
//! journal entries. Invariant: setpoints leave before anything is written; a command is acknowledged only after its
//! journal entry is synced. The loop itself never waits for the storage.

mod acts;
mod charging;
mod handle;
mod sources;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::json;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::handle::Command;
#[cfg(test)]
pub(crate) use self::handle::Synced;
pub use self::{
    charging::Offers,
    handle::{CommandError, Handle},
};
use crate::{
    clock::Clock,
    config::{Config, RelayFunction},
    evidence::Recorder,
    evse,
    grid::{Book, Failsafe, Record, Stage},
    ids::LimitId,
    journal::{Entry, Journal},
    plan::{self, Plan, Setpoint, kept},
    policy, rules,
    site::{Event, Note, Site, View, event::Level},
    store::{Store, StoreError},
    tariff,
    time::{Now, Wall},
    units::{Milliamps, Watts},
    variable::{self, Variables},
};

/// Where rooms that hear something put it.
pub type Events = mpsc::Sender<Event>;

/// The pace at which time alone is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Most events taken in before the next plan.
const BATCH: usize = 256;
/// How many events may wait; then those who hear them wait.
const QUEUE: usize = 1024;

/// What the loop needs.
pub struct Parts {
    /// The site's configuration.
    pub config: Arc<Config>,
    /// Limits that were in force before the start.
    pub limits: Vec<Record>,
    /// Tariffs that were announced before the start.
    pub tariffs: tariff::Book,
    /// Variables that were set before the start.
    pub variables: Vec<(String, variable::Setting)>,
    /// Failsafe values that sources chose before the start.
    pub failsafes: Vec<Failsafe>,
    /// The database.
    pub store: Store,
    /// The evidence.
    pub journal: Journal,
    /// The clock.
    pub clock: Clock,
    /// One per EVSE.
    pub setpoints: Vec<watch::Sender<Option<Setpoint>>>,
    /// One per device: what it may draw.
    pub devices: Vec<watch::Sender<Watts>>,
    /// One per relay: energised or not.
    pub relays: Vec<watch::Sender<bool>>,
    /// Called after each tick's plan: the watchdog lives on fresh plans only.
    pub alive: Box<dyn FnMut() + Send>,
}

/// The owner of the site.
pub struct Control {
    parts: Parts,
    site: Site,
    plan: Plan,
    sequences: Vec<u64>,
    /// The limit that each contact has set.
    contact_limits: Vec<Option<Watts>>,
    formula_limits: Vec<Option<charging::Given>>,
    offers: watch::Sender<Arc<Offers>>,
    /// The events of power reduction that are open.
    recorder: Recorder,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<Event>,
    view: watch::Sender<Arc<View>>,
    limits: broadcast::Sender<Record>,
    acks: FuturesUnordered<BoxFuture<'static, Ack>>,
    /// Setpoints that changed and are not in the journal yet, by EVSE.
    changed: BTreeMap<String, serde_json::Value>,
    /// Limits whose evidence is on its way to the disk.
    storing: Vec<(LimitId, Wall)>,
}

/// A limit's evidence reached the disk, or did not.
struct Ack {
    limit: Option<(LimitId, Wall)>,
    result: Result<(), StoreError>,
    reply: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Control {
    /// Makes the loop, the way to it, and the queue into it.
    #[must_use]
    pub fn new(mut parts: Parts) -> (Self, Handle, Events) {
        let now = parts.clock.now();
        let limits = Book::with(std::mem::take(&mut parts.limits));
        let mut site = Site::new(Arc::clone(&parts.config), limits, now);
        for chosen in &parts.failsafes {
            sources::restore(&mut site, chosen);
        }
        site.tariffs = Arc::new(std::mem::take(&mut parts.tariffs));
        site.variables =
            Variables::new(&parts.config.charging.variables, std::mem::take(&mut parts.variables));
        let (offers, offers_out) = watch::channel(Arc::new(Offers::new(Arc::clone(&parts.config))));
        let plan = plan::plan(&site, &policy::budget(&site, now), now);
        let (view, view_out) = watch::channel(Arc::new(site.view(&plan, now)));
        let (commands_in, commands) = mpsc::channel(64);
        let (events_in, events) = mpsc::channel(QUEUE);
        let (limits, _) = broadcast::channel(256);
        let handle =
            Handle { commands: commands_in, view: view_out, limits: limits.clone(), offers: offers_out };
        let control = Self {
            sequences: vec![0; parts.config.evses.len()],
            contact_limits: vec![None; parts.config.contacts.len()],
            formula_limits: vec![None; parts.config.charging.limits.len()],
            offers,
            recorder: Recorder::default(),
            parts,
            site,
            plan,
            commands,
            events,
            view,
            limits,
            acks: FuturesUnordered::new(),
            changed: BTreeMap::new(),
            storing: Vec::new(),
        };
        (control, handle, events_in)
    }

    /// Runs until asked to stop, or until nobody is left who could command something.
    pub async fn run(mut self, stop: CancellationToken) {
        // Contacts count as limited until they are read.
        self.contacts(self.parts.clock.now());
        self.offers_changed();
        // So do limits by formulas: they are not kept, and nothing is sent before they hold again.
        self.formulas(self.parts.clock.now());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut ticked = false;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(ack) = self.acks.next() => self.acknowledged(ack),
                // A site on which nothing can be heard is one all the same: limits and time go on.
                Some(event) = self.events.recv() => self.heard(event),
                _ = tick.tick() => ticked = true,
            }
            let now = self.parts.clock.now();
            if ticked {
                let notes = self.site.tick(now);
                self.write(notes, now);
                self.store_again(now);
            }
            self.turn(now);
            if ticked {
                (self.parts.alive)();
            }
        }
    }

    fn heard(&mut self, first: Event) {
        let now = self.parts.clock.now();
        let mut notes = self.site.apply(first, now);
        for _ in 1..BATCH {
            let Ok(event) = self.events.try_recv() else { break };
            notes.extend(self.site.apply(event, now));
        }
        self.contacts(now);
        // What was heard may lower a setpoint: that goes first.
        self.turn(now);
        self.write(notes, now);
    }

    /// One decision, what it leaves for the evidence, what it reaches, and the new picture.
    fn turn(&mut self, now: Now) {
        self.charging_ended(now);
        self.formulas(now);
        let time = self.site.certain(now);
        let mut expired = self.site.limits.expire(time.earliest);
        expired.extend(self.abandoned(now));
        let stepped = self.site.limits.step(time.earliest);
        self.decide(now);
        for record in &expired {
            self.ended(record, "", now);
        }
        for record in &stepped {
            self.stepped(record, now);
        }
        let changed = std::mem::take(&mut self.changed);
        if !changed.is_empty() {
            let body = json!({ "setpoints": changed });
            self.write(vec![Note::new("plan.changed", &self.parts.config.name, body)], now);
        }
        for reached in kept::reached(&self.site, now) {
            let advanced = self.site.limits.advance(
                &reached.id,
                reached.received,
                reached.stage,
                reached.measured,
                now.wall,
            );
            if let Some(record) = advanced {
                self.told(&record, "", now);
            }
        }
        let notes = self.recorder.look(&self.site, now);
        self.write(notes, now);
        self.view.send_replace(Arc::new(self.site.view(&self.plan, now)));
    }

    /// Plans and sends what changed. What the journal gets of it follows, so that a limit's receipt stands before its
    /// consequences.
    fn decide(&mut self, now: Now) {
        rules::apply(&mut self.site, now);
        let budget = policy::budget(&self.site, now);
        self.plan = plan::plan(&self.site, &budget, now);
        self.site.granted(&self.plan, now);
        self.actuate(now);
    }

    /// Sends setpoints and relay states.
    fn actuate(&mut self, now: Now) {
        let config = Arc::clone(&self.parts.config);
        for (e, grant) in self.plan.grants.iter().enumerate() {
            let facts = &mut self.site.evses[e];
            if facts.connected.is_none() {
                // An old value must not greet the EVSE when it returns.
                self.parts.setpoints[e].send_if_modified(|s| s.take().is_some());
                continue;
            }
            let due = evse::due(facts, grant, config.control.lease, self.sequences[e], now.mono);
            let Some(setpoint) = due else { continue };
            self.sequences[e] = setpoint.sequence;
            if facts
                .leash
                .newest()
                .is_none_or(|s| s.limit != setpoint.limit || s.failsafe != setpoint.failsafe)
            {
                self.changed.insert(
                    config.evses[e].id.to_string(),
                    json!({
                        "milliamps": setpoint.limit.0,
                        "failsafe_milliamps": setpoint.failsafe.0,
                        "reason": setpoint.reason,
                    }),
                );
            }
            facts.leash.sent(setpoint.clone(), now.mono, config.evses[e].max);
            self.parts.setpoints[e].send_replace(Some(setpoint));
        }
        for (grant, wanted) in self.plan.devices.iter().zip(&self.parts.devices) {
            wanted.send_if_modified(|power| std::mem::replace(power, grant.power) != grant.power);
        }
        let limited = (0..config.nodes.len()).any(|n| self.site.smallest_limit(n, now).is_some());
        for (relay, wanted) in config.relays.iter().zip(&self.parts.relays) {
            let energised = match relay.function {
                RelayFunction::Release(e) => self.plan.grants[e].limit > Milliamps::ZERO,
                RelayFunction::OnePhase(e) => self.site.rules[e].sun.phases == rules::Phases::One,
                RelayFunction::Device(d) => self.plan.devices[d].power > Watts::ZERO,
                RelayFunction::Unlimited => !limited,
                RelayFunction::Contactor(e) => {
                    let granted = self.plan.grants[e].limit;
                    evse::contactor(&self.site.evses[e], granted, *wanted.borrow(), now.mono)
                }
                RelayFunction::Contact(c) => match (&config.contacts[c], &self.site.contacts[c].level) {
                    (contact, Level::Closed) => !contact.limited_when_closed,
                    (contact, Level::Open) => contact.limited_when_closed,
                    (_, Level::Code(code)) => *code == 0,
                    (_, Level::Unreadable(_)) => false,
                },
            };
            wanted.send_if_modified(|state| std::mem::replace(state, energised) != energised);
        }
    }

    fn write(&self, notes: Vec<Note>, now: Now) {
        if notes.is_empty() {
            return;
        }
        let entries = notes
            .into_iter()
            .map(|note| Entry {
                at: now.wall,
                kind: note.kind,
                subject: note.subject,
                actor: note.actor,
                body: note.body,
            })
            .collect();
        // The storage reports its own failures; control goes on without it.
        drop(self.parts.journal.append(entries));
    }

    /// A limit reached a stage: journal and watchers.
    fn told(&self, record: &Record, actor: &str, now: Now) {
        self.write(vec![acts::note(record, record.stage, actor)], now);
        // Nobody may be watching.
        let _ = self.limits.send(record.clone());
    }

    fn ended(&self, record: &Record, actor: &str, now: Now) {
        self.told(record, actor, now);
        let id = record.limit.id.clone();
        drop(self.parts.store.submit(move |db| crate::grid::forget(db, &id)));
    }

    fn acknowledged(&mut self, ack: Ack) {
        if let Some((id, received)) = ack.limit {
            self.storing.retain(|(i, r)| (i, r) != (&id, &received));
            if ack.result.is_ok() {
                let now = self.parts.clock.now();
                if let Some(record) = self.site.limits.advance(&id, received, Stage::Accepted, None, now.wall)
                {
                    let _ = self.limits.send(record);
                }
            }
        }
        if let Some(reply) = ack.reply {
            // The caller may have gone.
            let _ = reply.send(ack.result);
        }
    }
}
