//! What is known of one EVSE and one meter, with its age.

use std::time::Duration;

use super::{
    event::{ConnectorStatus, Draw, Needs, Reading, Transaction},
    fall::Fall,
    follow::Follow,
    leash::Leash,
    load::Interval,
    plausible::Judge,
    rest::Rest,
    view::Quality,
};
use crate::{
    config,
    time::{Mono, Now},
    units::{Milliamps, PerPhase, Phase, WattHours, Watts},
};

/// How old an EVSE's own measurement may be to count as what it draws now.
pub(super) const DRAW_FRESH: Duration = Duration::from_secs(30);
/// From here on a conductor carries current, below [`IDLE`] it does not.
const FLOWING: Milliamps = Milliamps(3_000);
/// No more than what an EVSE itself needs.
pub(super) const IDLE: Milliamps = Milliamps(500);

/// What most cars take on each of three phases (11 kW).
const COMMON: Milliamps = Milliamps::amps(16);

/// What shows whether a car takes more than that.
const SHOWS: Milliamps = Milliamps::amps(3);

/// One EVSE.
#[derive(Debug, Clone, Default)]
pub struct EvseFacts {
    /// Its connection stands since.
    pub connected: Option<Now>,
    /// Its backend connection stands.
    pub backend: bool,
    /// Make.
    pub vendor: String,
    /// Model.
    pub model: String,
    /// Connector state.
    pub status: ConnectorStatus,
    /// Error code.
    pub error: String,
    /// What the backend's charging profiles allow, where we play the charge point.
    pub backend_limit: Option<Milliamps>,
    /// Running transaction.
    pub transaction: Option<Transaction>,
    /// Who charges, by index into the configuration's users.
    pub user: Option<usize>,
    /// Last measurement of its own.
    pub draw: Option<Draw>,
    /// How far the meter above it has fallen since.
    pub fall: Fall,
    /// What its car said that it needs, and the EVSE's register at that moment, as far as it was told.
    pub needs: Option<(Needs, Option<WattHours>)>,
    /// Whether only these phases were seen to carry current in this charge.
    pub mask: Option<PerPhase<bool>>,
    /// How many phases its vehicle was last seen to load; unlike `mask` it outlasts a pause.
    pub loaded: Option<u8>,
    /// The most that its vehicle was seen to draw on a phase.
    pub highest: Milliamps,
    /// Messages that wait for the backend.
    pub queued: u64,
    /// Messages that the backend refused.
    pub dead: u64,
    /// What is wrong.
    pub problem: String,
    /// What was refused, in words; empty when the last setpoint was taken.
    pub refusal: String,
    /// Its setpoints.
    pub leash: Leash,
    /// Since when it is admitted, by the plan.
    pub on_since: Option<Mono>,
    /// When it was last admitted, until when.
    pub on_until: Option<Mono>,
    /// Since when there has been room for a higher setpoint.
    pub room_since: Option<Mono>,
    /// Whether it uses what it is offered.
    pub follow: Follow,
    /// Whether it takes nothing and lets the others go first.
    pub rest: Rest,
}

impl EvseFacts {
    /// Whether a vehicle may draw: everything but the states that exclude it.
    #[must_use]
    pub fn vehicle_possible(&self) -> bool {
        self.connected.is_none()
            || self.transaction.is_some()
            || !matches!(
                self.status,
                ConnectorStatus::Available
                    | ConnectorStatus::Unavailable
                    | ConnectorStatus::Reserved
                    | ConnectorStatus::Faulted
                    | ConnectorStatus::Finishing
            )
    }

    /// The phases that count for this EVSE: those wired, or fewer if the car was seen to use fewer.
    #[must_use]
    pub fn phases(&self, config: &config::Evse) -> PerPhase<bool> {
        let wired = PerPhase::from_fn(|p| config.wiring.uses(p));
        match self.mask {
            Some(mask) => PerPhase::from_fn(|p| wired[p] && mask[p]),
            None => wired,
        }
    }

    /// What its vehicle can take on a phase, as far as that was seen. Of one that was never seen at its own limit it is
    /// not known: it is taken for one like most until it shows more, so that it is not left waiting for too long.
    #[must_use]
    pub fn able(&self, config: &config::Evse) -> Milliamps {
        let shown = self.follow.used().or(self.told_most()).unwrap_or_else(|| self.highest.max(COMMON));
        shown.min(config.max).max(config.min)
    }

    /// What it is offered before the others have theirs: what its vehicle was seen to use, or a little more than most
    /// cars take, until it has shown that it takes more than these.
    #[must_use]
    pub fn bound(&self) -> Option<Milliamps> {
        let common = (self.highest <= COMMON + Milliamps::amps(1)).then_some(COMMON + SHOWS);
        self.follow.used().or(self.told_most()).or(common)
    }

    /// The most that its car says it can take; not if it was seen to take more.
    fn told_most(&self) -> Option<Milliamps> {
        self.needs.and_then(|(needs, _)| needs.most).filter(|most| *most >= self.highest)
    }

    /// How many phases its vehicle loads, as far as that was seen, else as it says; without either those wired.
    #[must_use]
    pub fn loads(&self, config: &config::Evse) -> u8 {
        let wired = u8::try_from(config.wiring.count()).unwrap_or(3);
        let told = self.needs.and_then(|(needs, _)| needs.phases).map(|phases| phases.min(wired));
        self.loaded.or(told).unwrap_or(wired)
    }

    /// Whether it is known on how many phases its vehicle charges: it was seen, or it said so.
    #[must_use]
    pub fn phases_known(&self) -> bool {
        self.loaded.is_some() || self.needs.is_some_and(|(needs, _)| needs.phases.is_some())
    }

    /// Its own measurement on the phases of the grid connection. A power without currents is taken as equal on all
    /// wired phases at nominal voltage.
    #[must_use]
    pub fn draw_phases(&self, config: &config::Evse) -> Option<PerPhase<Milliamps>> {
        let draw = self.draw?;
        let mut phases = PerPhase::<Milliamps>::default();
        if let Some(currents) = draw.currents {
            for (terminal, current) in currents.into_iter().enumerate() {
                if let Some(phase) = config.wiring.phase(terminal) {
                    phases[phase] = current.max(Milliamps::ZERO);
                }
            }
            return Some(phases);
        }
        let power = draw.power?.max(Watts::ZERO);
        let count = i64::try_from(config.wiring.count()).unwrap_or(3).max(1);
        for phase in config.wiring.phases() {
            phases[phase] =
                Milliamps(power.0.saturating_mul(1_000_000) / crate::units::Millivolts::NOMINAL.0 / count);
        }
        Some(phases)
    }

    /// Its power by its own measurement: as told, else from currents at `voltages`.
    #[must_use]
    pub fn draw_power(
        &self,
        config: &config::Evse,
        voltages: PerPhase<crate::units::Millivolts>,
    ) -> Option<Watts> {
        let draw = self.draw?;
        draw.power.or_else(|| {
            let phases = self.draw_phases(config)?;
            Some(phases.iter().map(|(p, i)| voltages[p].power_ceil(*i)).sum())
        })
    }

    /// What it told of late that it draws; nothing where no vehicle can.
    #[must_use]
    pub fn told(&self, config: &config::Evse, now: Mono) -> Option<PerPhase<Milliamps>> {
        if !self.vehicle_possible() {
            return Some(PerPhase::default());
        }
        self.draw.filter(|d| now.since(d.at.mono) <= DRAW_FRESH)?;
        self.draw_phases(config)
    }

    /// What it may be drawing now.
    #[must_use]
    pub fn interval(&self, config: &config::Evse, control: &config::Control, now: Mono) -> Interval {
        if !self.vehicle_possible() {
            return Interval::default();
        }
        let most = self.leash.in_force(now, config.max);
        let (changed, before) = self.leash.last_change().unwrap_or((Mono::default(), Milliamps::ZERO));
        let moving = now < changed + control.settle;
        let told = self.draw.and_then(|d| self.told(config, now).map(|phases| (d.at.mono, phases)));
        let counts = self.phases(config);
        let fell = self.fall.most();
        let mut interval = Interval::default();
        for phase in Phase::ALL.into_iter().filter(|p| config.wiring.uses(*p)) {
            let bound = if counts[phase] { most } else { Milliamps::ZERO };
            let Some((at, phases)) = &told else {
                interval.high[phase] = if moving { before.max(bound) } else { bound };
                interval.moves[phase] = true;
                continue;
            };
            // More than it may draw is not its right: it counts as load that the others make room for.
            let heard = phases[phase].min(most);
            interval.told[phase] = heard;
            interval.low[phase] = (heard - fell[phase]).max(Milliamps::ZERO);
            interval.high[phase] = heard;
            if *at < changed + control.settle {
                let high = if moving { phases[phase].max(before).max(bound) } else { bound };
                interval.high[phase] = high.max(heard);
                interval.moves[phase] = moving || phases[phase] == Milliamps::ZERO;
            }
        }
        interval
    }

    /// What the car draws on its most loaded phase while it charges, by a measurement that shows the present setpoint.
    #[must_use]
    pub fn settled_draw(
        &self,
        config: &config::Evse,
        control: &config::Control,
        now: Mono,
    ) -> Option<Milliamps> {
        let draw = self
            .draw
            .filter(|d| self.status == ConnectorStatus::Charging && now.since(d.at.mono) <= DRAW_FRESH)?;
        let settled = self.leash.last_change().is_none_or(|(at, _)| draw.at.mono >= at + control.settle);
        settled.then(|| self.draw_phases(config))?.and_then(|phases| phases.0.into_iter().max())
    }

    /// What it drew in one charge says nothing of the next; its register stays.
    pub fn forget_draw(&mut self) {
        self.draw = self.draw.map(|draw| Draw { currents: None, power: None, ..draw });
    }

    /// Learns from a measurement which phases the car uses; a phase that carries current counts at once.
    pub fn observe(&mut self, config: &config::Evse, control: &config::Control) {
        let Some(draw) = self.draw.filter(|d| d.currents.is_some()) else { return };
        let Some(phases) = self.draw_phases(config) else { return };
        let settled = self.leash.last_change().is_none_or(|(at, _)| draw.at.mono >= at + control.settle);
        if self.vehicle_possible() && settled {
            self.highest = phases.iter().map(|(_, i)| *i).fold(self.highest, Milliamps::max);
        }
        if self.status != ConnectorStatus::Charging || config.wiring.count() == 1 {
            self.mask = None;
        } else if let Some(mask) = &mut self.mask {
            for phase in Phase::ALL {
                mask[phase] |= phases[phase] > IDLE;
            }
        } else if settled
            && phases.iter().any(|(_, i)| *i >= FLOWING)
            && phases.iter().all(|(_, i)| *i >= FLOWING || *i <= IDLE)
        {
            self.mask = Some(PerPhase::from_fn(|p| phases[p] >= FLOWING));
        }
        if let Some(mask) = self.mask {
            self.loaded = u8::try_from(mask.iter().filter(|(_, used)| **used).count()).ok();
        }
    }
}

/// One controllable device that is no EVSE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceFacts {
    /// What the plan grants it.
    pub granted: Watts,
    /// When that last changed.
    pub changed: Option<Mono>,
    /// What it was granted before, as long as it may not have followed.
    pub before: Watts,
    /// Since when it may run.
    pub on_since: Option<Mono>,
    /// Until when it last might.
    pub on_until: Option<Mono>,
    /// Since when there has been room for more.
    pub room_since: Option<Mono>,
    /// What it was told and read back, or why it does not follow; `None` before the first answer.
    pub told: Option<Result<Watts, String>>,
}

impl DeviceFacts {
    /// Keeps what the plan grants.
    pub fn granted(&mut self, power: Watts, room_since: Option<Mono>, settle: Duration, now: Mono) {
        self.room_since = room_since;
        if power == self.granted {
            return;
        }
        let moving = self.changed.is_some_and(|at| now.since(at) < settle);
        self.before = if moving { self.before.max(self.granted) } else { self.granted };
        match (self.granted > Watts::ZERO, power > Watts::ZERO) {
            (false, true) => self.on_since = Some(now),
            (true, false) => (self.on_since, self.on_until) = (None, Some(now)),
            _ => {}
        }
        (self.granted, self.changed) = (power, Some(now));
    }
}

/// One meter.
#[derive(Debug, Clone, Default)]
pub struct MeterFacts {
    /// Last answer that can be believed.
    pub reading: Option<Reading>,
    /// What is wrong since.
    pub problem: String,
    /// What later answers are judged by.
    pub judge: Judge,
}

impl MeterFacts {
    /// How far the last answer can be trusted. One that cannot be believed does not make an older one younger.
    #[must_use]
    pub fn quality(&self, control: &config::Control, now: Mono) -> Quality {
        let Some(reading) = self.reading else { return Quality::Lost };
        let age = now.since(reading.at.mono);
        if age > control.meter_lost {
            Quality::Lost
        } else if age <= control.meter_stale {
            Quality::Good
        } else if self.judge.doubts() {
            Quality::Implausible
        } else {
            Quality::Stale
        }
    }
}
