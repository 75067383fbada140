//! A site as physics and OCPP have it, around the real core: cars that follow slowly, EVSEs that answer late or drop
//! out, a heat pump on a relay, a house that does what it likes, a meter and clocks that can fail.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::{sync::Arc, time::Duration};

use ladewartd::{
    config::{self, Config, Role},
    evse,
    grid::{Book, Wish, guard::Heard},
    ids::{ContactId, EvseId, LimitId, MeterId, RelayId},
    plan::{self, Plan, Setpoint},
    policy,
    site::{
        Event, Site,
        event::{ConnectorStatus, Draw, EvseEvent, Level, Reading, Transaction},
    },
    time::{Mono, Now, Wall},
    units::{Milliamps, Millivolts, PerPhase, WattHours, Watts},
};

pub const STEP: Duration = Duration::from_millis(500);
pub const VOLTS: Millivolts = Millivolts(231_000);

/// A charge point with a car.
#[derive(Clone)]
pub struct Station {
    pub plugged: bool,
    /// Most that the car takes, and on how many of the EVSE's terminals.
    pub appetite: Milliamps,
    pub terminals: usize,
    pub drawing: Milliamps,
    pub obeys: Option<(Setpoint, Mono)>,
    on_the_way: Vec<(Mono, Setpoint)>,
    pub answers_after: Duration,
    /// Whether it can be reached.
    pub online: bool,
    /// Whether it takes setpoints.
    pub refuses: bool,
    since_told: u32,
    sequence: u64,
}

impl Station {
    pub fn allowed(&self, now: Mono) -> Milliamps {
        match &self.obeys {
            Some((s, until)) if now < *until => s.limit,
            Some((s, _)) => s.failsafe,
            None => Milliamps::ZERO,
        }
    }

    pub fn phases(&self, config: &config::Evse) -> PerPhase<Milliamps> {
        let mut phases = PerPhase::default();
        for t in 0..self.terminals {
            if let Some(p) = config.wiring.phase(t) {
                phases[p] = self.drawing;
            }
        }
        phases
    }
}

/// What the meter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    Right,
    Silent,
    /// Says 600 A.
    Wild,
    /// Every value negated.
    Turned,
    /// The last answer again and again, as if it were new.
    Frozen,
    /// So much more on each phase than there is.
    Off(Milliamps),
    /// Answers, but with a value that says "not available".
    NotANumber,
    /// Answers of a time that is still to come.
    Ahead,
}

pub struct World {
    pub config: Arc<Config>,
    pub site: Site,
    pub now: Now,
    pub house: PerPhase<Milliamps>,
    pub boxes: Vec<Station>,
    pub meter: Meter,
    /// What the meter said last.
    pub shown: PerPhase<Milliamps>,
    /// What each device draws while it may.
    pub devices: Vec<Watts>,
    /// Whether each relay's contacts are stuck closed.
    pub welded: bool,
    pub plan: Plan,
    /// Sources that give signs of life with each step.
    pub alive: bool,
}

pub fn config(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    std::fs::write(&path, text).unwrap();
    config::load(&path).unwrap().0
}

impl World {
    pub fn new(text: &str) -> Self {
        Self::of(Arc::new(config(text)))
    }

    pub fn of(config: Arc<Config>) -> Self {
        let now = Now { mono: Mono(Duration::from_secs(1000)), wall: Wall(1_800_000_000_000) };
        let station = Station {
            plugged: false,
            appetite: Milliamps::amps(16),
            terminals: 3,
            drawing: Milliamps::ZERO,
            obeys: None,
            on_the_way: Vec::new(),
            answers_after: Duration::from_millis(100),
            online: true,
            refuses: false,
            since_told: 0,
            sequence: 0,
        };
        let site = Site::new(Arc::clone(&config), Book::default(), now);
        let plan = plan::plan(&site, &policy::budget(&site, now), now);
        let mut world = Self {
            boxes: vec![station; config.evses.len()],
            devices: config.devices.iter().map(|d| d.power).collect(),
            site,
            config,
            now,
            house: PerPhase::default(),
            meter: Meter::Right,
            shown: PerPhase::default(),
            welded: false,
            plan,
            alive: false,
        };
        for e in 0..world.boxes.len() {
            world.connect(e, true);
        }
        world
    }

    pub fn tell(&mut self, e: usize, event: EvseEvent) {
        let id = self.config.evses[e].id.clone();
        self.site.apply(Event::Evse(id, event), self.now);
    }

    pub fn connect(&mut self, e: usize, online: bool) {
        self.boxes[e].online = online;
        if !online {
            self.boxes[e].on_the_way.clear();
            self.tell(e, EvseEvent::Disconnected);
            return;
        }
        self.tell(e, EvseEvent::Connected);
        let status =
            if self.boxes[e].plugged { ConnectorStatus::Charging } else { ConnectorStatus::Available };
        self.tell(e, EvseEvent::Status { status, error: String::new() });
    }

    /// What flows at the grid connection.
    pub fn total(&self) -> PerPhase<Milliamps> {
        let mut sum = self.house;
        for (b, c) in self.boxes.iter().zip(&self.config.evses) {
            for (p, ma) in b.phases(c).iter() {
                sum[p] += *ma;
            }
        }
        for d in 0..self.devices.len() {
            let each = Milliamps(self.device_draw(d).0 * 1_000_000 / VOLTS.0 / 3);
            sum = PerPhase(sum.0.map(|ma| ma + each));
        }
        sum
    }

    /// What a device draws: its relay decides.
    pub fn device_draw(&self, d: usize) -> Watts {
        let on = self.welded || self.plan.devices[d].power > Watts::ZERO;
        if on { self.devices[d] } else { Watts::ZERO }
    }

    /// Sets or ends the limit of an issuer, as `control` does.
    pub fn limit(&mut self, watts: Option<i64>) {
        self.limit_by("uid:1", watts, None);
    }

    pub fn limit_by(&mut self, issuer: &str, watts: Option<i64>, until: Option<Wall>) {
        let id = LimitId::new(issuer);
        let heard = match watts {
            Some(watts) => {
                let wish = Wish {
                    id: Some(id.clone()),
                    valid_until: until,
                    ..Wish::new(issuer, Role::Grid, Watts(watts))
                };
                self.site.set_limit(wish, self.now, || id).unwrap();
                Heard::Limit
            }
            None => {
                self.site.limits.clear(&id, issuer, Role::Grid, self.now.wall).unwrap();
                Heard::NoLimit
            }
        };
        self.hear(issuer, heard);
        self.decide();
    }

    pub fn hear(&mut self, issuer: &str, heard: Heard) {
        let known = self.config.grid.sources.iter().position(|s| s.issuer == issuer);
        if let Some(guard) = known.and_then(|g| self.site.guards.get_mut(g)) {
            guard.hear(heard, self.now.mono);
        }
    }

    /// A contact changes, as `control` takes it.
    pub fn contact(&mut self, level: Level) {
        let id: ContactId = self.config.contacts[0].id.clone();
        self.site.apply(Event::Contact(id, level), self.now);
        self.contacts();
        self.decide();
    }

    pub fn contacts(&mut self) {
        for c in 0..self.config.contacts.len() {
            let limited = self.site.contact_asks(c).is_some();
            let (watts, issuer) = (
                self.config.contacts[c].strictest().unwrap_or_default(),
                format!("contact:{}", self.config.contacts[c].id),
            );
            self.limit_by(&issuer, limited.then_some(watts.0), None);
        }
    }

    pub fn plug(&mut self, e: usize, plugged: bool) {
        if self.boxes[e].plugged == plugged {
            return;
        }
        self.boxes[e].plugged = plugged;
        if !plugged {
            self.boxes[e].drawing = Milliamps::ZERO;
        }
        if !self.boxes[e].online {
            return;
        }
        if plugged {
            let transaction = Transaction {
                id: 1,
                name: "1".into(),
                backend_id: None,
                started: self.now.wall,
                meter_start: WattHours(0),
            };
            self.tell(e, EvseEvent::Transaction(transaction));
            self.tell(e, EvseEvent::Status { status: ConnectorStatus::Charging, error: String::new() });
        } else {
            self.tell(e, EvseEvent::TransactionEnded);
            self.tell(e, EvseEvent::Status { status: ConnectorStatus::Available, error: String::new() });
        }
    }

    pub fn decide(&mut self) {
        let budget = policy::budget(&self.site, self.now);
        self.plan = plan::plan(&self.site, &budget, self.now);
        self.site.granted(&self.plan, self.now);
        for e in 0..self.boxes.len() {
            let (grant, config) = (&self.plan.grants[e], &self.config.evses[e]);
            assert!(grant.limit == Milliamps::ZERO || grant.limit >= config.min, "{grant:?}");
            assert!(grant.limit <= config.max);
            assert!(!grant.reason.is_empty());
            let facts = &mut self.site.evses[e];
            let lease = self.config.control.lease;
            if let Some(s) = evse::due(facts, grant, lease, self.boxes[e].sequence, self.now.mono) {
                self.boxes[e].sequence = s.sequence;
                facts.leash.sent(s.clone(), self.now.mono, config.max);
                let arrives = self.now.mono + self.boxes[e].answers_after;
                self.boxes[e].on_the_way.push((arrives, s));
            }
        }
        for r in 0..self.config.relays.len() {
            let config::RelayFunction::Device(d) = self.config.relays[r].function else { continue };
            let wanted = self.plan.devices[d].power > Watts::ZERO;
            let id: RelayId = self.config.relays[r].id.clone();
            let state = if self.welded && !wanted { Err("does not follow".to_owned()) } else { Ok(wanted) };
            self.site.apply(Event::Relay(id, state), self.now);
        }
    }

    pub fn run(&mut self, seconds: u64) {
        (0..seconds * 2).for_each(|_| self.step());
    }

    pub fn step(&mut self) {
        self.now = self.now.plus(STEP);
        for e in 0..self.boxes.len() {
            self.deliver(e);
            self.drive(e);
        }
        self.read();
        if self.alive {
            let issuers: Vec<_> = self.config.grid.sources.iter().map(|s| s.issuer.clone()).collect();
            for issuer in &issuers {
                self.hear(issuer, Heard::Heartbeat);
            }
        }
        self.site.limits.expire(self.site.certain(self.now).earliest);
        self.site.tick(self.now);
        self.decide();
    }

    /// Setpoints arrive and are answered.
    fn deliver(&mut self, e: usize) {
        let (arrived, still): (Vec<_>, Vec<_>) = std::mem::take(&mut self.boxes[e].on_the_way)
            .into_iter()
            .partition(|(at, _)| *at <= self.now.mono);
        self.boxes[e].on_the_way = still;
        for (_, s) in arrived {
            if self.boxes[e].refuses {
                self.tell(e, EvseEvent::Refused { sequence: s.sequence, why: "Rejected".into() });
                continue;
            }
            let until = self.now.mono + s.lease;
            if self.boxes[e].obeys.as_ref().is_none_or(|(old, _)| old.limit != s.limit) {
                // The gateway asks for a measurement about 2 s after a change.
                self.boxes[e].since_told = 16;
            }
            let confirmed = EvseEvent::Confirmed { sequence: s.sequence, limit: s.limit, lease_until: until };
            self.boxes[e].obeys = Some((s, until));
            self.tell(e, confirmed);
        }
    }

    /// IEC 61851-1: a car follows within 5 s; here up to 8 A a second down, 4 A a second up.
    fn drive(&mut self, e: usize) {
        let now = self.now.mono;
        let b = &mut self.boxes[e];
        let wants = if b.plugged { b.appetite.min(b.allowed(now)) } else { Milliamps::ZERO };
        let wants = if wants < Milliamps::amps(6) { Milliamps::ZERO } else { wants };
        b.drawing = if wants < b.drawing {
            wants.max(b.drawing - Milliamps::amps(4))
        } else {
            wants.min(b.drawing + Milliamps::amps(2))
        };
        b.since_told += 1;
        if b.plugged && b.online && b.since_told >= 20 {
            b.since_told = 0;
            let mut currents = [Milliamps::ZERO; 3];
            currents[..b.terminals].fill(b.drawing);
            let draw = Draw { at: self.now, currents: Some(currents), power: None, energy: None };
            self.tell(e, EvseEvent::Draw(draw));
        }
    }

    fn read(&mut self) {
        let currents = match self.meter {
            Meter::Right | Meter::Ahead => self.total(),
            Meter::Silent => return,
            Meter::Wild => PerPhase([Milliamps::amps(600); 3]),
            Meter::Turned => PerPhase(self.total().0.map(|ma| Milliamps(-ma.0))),
            Meter::Frozen => self.shown,
            Meter::Off(by) => PerPhase(self.total().0.map(|ma| ma + by)),
            Meter::NotANumber => {
                let problem = "current-l1 (register 0x0006) is not available: NaN".to_owned();
                self.site.apply(Event::MeterProblem(MeterId::new("grid"), problem), self.now);
                return;
            }
        };
        self.shown = currents;
        let ahead = if self.meter == Meter::Ahead { Duration::from_secs(3600) } else { Duration::ZERO };
        let reading = Reading {
            at: self.now.plus(ahead),
            currents,
            voltages: PerPhase([VOLTS; 3]),
            power: Watts(0),
            import: None,
            export: None,
        };
        self.site.apply(Event::Reading(MeterId::new("grid"), reading), self.now);
    }

    /// What the EVSEs obey and what devices may draw, in watts.
    pub fn obeyed(&self) -> Watts {
        let evses = self.boxes.iter().zip(&self.config.evses).filter(|(b, _)| b.plugged).map(|(b, c)| {
            let terminals = i64::try_from(b.terminals.min(c.wiring.count())).unwrap();
            VOLTS.power_ceil(Milliamps(b.allowed(self.now.mono).0 * terminals))
        });
        evses.chain((0..self.devices.len()).map(|d| self.device_draw(d))).sum()
    }

    /// What cars and devices draw, in watts.
    pub fn drawn(&self) -> Watts {
        let stations = self.boxes.iter().zip(&self.config.evses);
        let cars = stations.flat_map(|(b, c)| b.phases(c).0).map(|current| VOLTS.power_ceil(current));
        cars.chain((0..self.devices.len()).map(|d| self.device_draw(d))).sum()
    }

    pub fn evse(&self, id: &str) -> usize {
        self.config.evses.iter().position(|e| e.id == EvseId::new(id)).unwrap()
    }
}
