//! What a charge point does, whatever protocol tells of it: who may charge, when a charge begins and ends, what is
//! shown and measured. Sans-IO.
//!
//! In: what the device reports ([`Facts`]), verdicts on cards, wishes from afar, the passing of time. Out: [`Say`].
//! Invariant: charging is released only while a charge runs that is on disk; its registers are those of the device.
//!
//! ```text
//!            a start from afar, in service              on disk
//!   (idle) ─────────────────────────────→ (welcome) ─plug─→ (charging: released) ─unplug, stop─→ (finishing) ─unplug→ idle
//!                                             └─ nobody plugs in time → idle
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    site::event::ConnectorStatus,
    time::{Mono, Now, Wall},
    units::Millivolts,
};

/// W·ms in a Wh.
const PER_WH: i64 = 3_600_000;
/// A counted register is kept each time it passes a multiple of this, Wh.
const KEEP_EVERY: i64 = 100;
/// For longer than this the last power says nothing.
const UNHEARD: Duration = Duration::from_secs(10);

/// What is measured at one instant. Terminals as the device's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sample {
    /// Register, Wh.
    pub(super) energy: Option<i64>,
    /// W.
    pub(super) power: Option<i64>,
    /// mA.
    pub(super) currents: Option<[i64; 3]>,
}

impl Sample {
    /// Power, or what the currents make of the nominal voltage.
    fn watts(&self) -> Option<i64> {
        let nominal = || Some(self.currents?.iter().sum::<i64>() * Millivolts::NOMINAL.0 / 1_000_000);
        self.power.or_else(nominal)
    }
}

/// What the device reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    /// It answers.
    pub(super) there: bool,
    /// Its own word on the connector.
    pub(super) status: ConnectorStatus,
    /// What is broken.
    pub(super) fault: String,
    /// The site offers nothing.
    pub(super) paused: bool,
    /// Last measurement.
    pub(super) sample: Sample,
}

impl Facts {
    fn plugged(&self) -> bool {
        use ConnectorStatus::{Charging, Finishing, Preparing, SuspendedEv, SuspendedEvse};
        self.there && matches!(self.status, Preparing | Charging | SuspendedEv | SuspendedEvse | Finishing)
    }

    /// Certainly nobody is plugged in: a device that is not there says nothing about it.
    fn unplugged(&self) -> bool {
        self.there && self.status == ConnectorStatus::Available
    }
}

/// A charge that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Ours, rising.
    pub(super) key: u64,
    /// Who.
    pub(super) tag: String,
    /// When.
    pub(super) started: Wall,
    /// Register, Wh.
    pub(super) meter_start: i64,
    /// The id that was given for it.
    pub(super) transaction: Option<i64>,
}

/// Why a charge ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Remote,
    Unplugged,
    NotWelcome,
    SoftReset,
    HardReset,
}

/// When something is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    Periodic,
    Clock,
    Trigger,
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Say {
    /// The connector, or the charge point as a whole.
    Status { connector: u8, status: ConnectorStatus, fault: String },
    /// Whether a card may charge.
    Ask(String),
    /// A charge begins.
    Begin(Session),
    /// A charge is over.
    End { session: Session, at: Wall, meter_stop: i64, reason: Reason },
    /// Something was measured.
    Measured { context: Context, at: Wall, sample: Sample, session: Option<u64>, whole: bool },
}

/// What outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// In service.
    pub(super) operative: bool,
    /// Out of service once the charge is over.
    pub(super) retire: bool,
    pub(super) session: Option<Session>,
    /// The charge of this plug is over.
    pub(super) finishing: bool,
    pub(super) next_key: u64,
    /// Last register that was seen, Wh.
    pub(super) register: i64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { operative: true, retire: false, session: None, finishing: false, next_key: 1, register: 0 }
    }
}

/// How it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Habits {
    /// How long somebody who is welcome has for plugging in.
    pub(super) plug_within: Duration,
    /// Between measurements of a charge; none without.
    pub(super) sample_every: Option<Duration>,
    /// Between measurements by the clock; none without.
    pub(super) clock_every: Option<Duration>,
    /// Whoever plugs in charges, under this card.
    pub(super) free: Option<String>,
    /// There is no connector: the charge point stands for the site.
    pub(super) whole: bool,
}

/// The charge point.
#[derive(Debug)]
pub(super) struct Charge {
    pub(super) habits: Habits,
    pub(super) kept: Kept,
    pub(super) facts: Facts,
    /// A card that may charge, until then.
    welcome: Option<(String, Mono)>,
    /// The card that is asked about.
    asking: Option<String>,
    told: Option<(ConnectorStatus, String)>,
    sample_due: Mono,
    clock_due: Option<Wall>,
    /// What a device without a register drew, and when, W.
    drew: Option<(Mono, i64)>,
    /// Of it what makes no whole Wh yet, W·ms.
    rest: i64,
    pub(super) out: Vec<Say>,
    /// What outlives a restart has changed.
    pub(super) dirty: bool,
}

impl Charge {
    pub(super) fn new(habits: Habits, kept: Kept) -> Self {
        Self {
            habits,
            kept,
            facts: Facts::default(),
            welcome: None,
            asking: None,
            told: None,
            sample_due: Mono::default(),
            clock_due: None,
            drew: None,
            rest: 0,
            out: Vec::new(),
            dirty: false,
        }
    }

    /// Whether the device may charge.
    pub(super) fn released(&self) -> bool {
        self.kept.session.is_some()
    }

    /// The device reports.
    pub(super) fn report(&mut self, mut facts: Facts, now: Now) {
        if !self.habits.whole {
            self.count(&mut facts, now.mono);
        }
        if let Some(energy) = facts.sample.energy {
            // A register that stands still or jumps back for a moment makes no energy.
            self.kept.register = self.kept.register.max(energy);
        }
        self.facts = facts;
        self.go_on(now);
    }

    /// A device without a register: its power is summed up instead. What it drew while it was not heard is not known.
    fn count(&mut self, facts: &mut Facts, now: Mono) {
        let before = self.drew.take();
        if !facts.there || facts.sample.energy.is_some() {
            return;
        }
        let Some(watts) = facts.sample.watts() else { return };
        self.drew = Some((now, watts));
        if let Some((at, watts)) = before {
            let elapsed = i64::try_from(now.since(at).min(UNHEARD).as_millis()).unwrap_or_default();
            self.rest += watts.max(0).saturating_mul(elapsed);
        }
        let whole = self.rest / PER_WH;
        self.rest %= PER_WH;
        self.dirty |= (self.kept.register + whole) / KEEP_EVERY != self.kept.register / KEEP_EVERY;
        self.kept.register += whole;
        facts.sample.energy = Some(self.kept.register);
    }

    /// The verdict on a card that was asked about.
    pub(super) fn judged(&mut self, tag: &str, welcome: bool, now: Now) {
        if self.asking.take_if(|t| t.as_str() == tag).is_some() && welcome {
            self.welcome = Some((tag.to_owned(), now.mono + self.habits.plug_within));
        }
        self.go_on(now);
    }

    /// A start from afar; says whether it is possible. `ask`: the card is asked about first.
    pub(super) fn remote_start(&mut self, tag: &str, ask: bool, now: Now) -> bool {
        let possible = self.kept.session.is_none()
            && self.kept.operative
            && self.facts.there
            && self.facts.status != ConnectorStatus::Faulted
            && !self.habits.whole;
        if possible && ask {
            self.asking = Some(tag.to_owned());
            self.out.push(Say::Ask(tag.to_owned()));
        } else if possible {
            self.welcome = Some((tag.to_owned(), now.mono + self.habits.plug_within));
        }
        self.go_on(now);
        possible
    }

    /// The charge has its id; without a welcome it ends.
    pub(super) fn begun(&mut self, key: u64, id: Option<i64>, welcome: bool, now: Now) {
        if let Some(session) = self.kept.session.as_mut().filter(|s| s.key == key) {
            session.transaction = id;
            self.dirty = true;
            if !welcome {
                self.end(Reason::NotWelcome, now);
            }
        }
        self.go_on(now);
    }

    /// In or out of service; says whether it must wait for the end of the charge.
    pub(super) fn availability(&mut self, operative: bool, now: Now) -> bool {
        let waits = !operative && self.kept.session.is_some();
        self.kept.retire = waits;
        if !waits {
            self.kept.operative = operative;
        }
        self.dirty = true;
        self.go_on(now);
        waits
    }

    /// Ends the running charge.
    pub(super) fn end(&mut self, reason: Reason, now: Now) {
        let Some(session) = self.kept.session.take() else { return };
        let meter_stop = self.kept.register.max(session.meter_start);
        self.kept.finishing = !self.facts.unplugged();
        if std::mem::take(&mut self.kept.retire) {
            self.kept.operative = false;
        }
        self.dirty = true;
        self.out.push(Say::End { session, at: now.wall, meter_stop, reason });
    }

    /// What the connector shows.
    pub(super) fn status(&self) -> ConnectorStatus {
        use ConnectorStatus::{
            Available, Charging, Faulted, Finishing, Preparing, SuspendedEv, SuspendedEvse, Unavailable,
        };
        let facts = &self.facts;
        if self.habits.whole {
            return if self.kept.operative { Available } else { Unavailable };
        }
        match facts.status {
            _ if !facts.there => Unavailable,
            Faulted => Faulted,
            status if self.kept.session.is_some() => match status {
                _ if facts.paused => SuspendedEvse,
                Charging | SuspendedEvse | SuspendedEv => status,
                _ => SuspendedEv,
            },
            _ if !self.kept.operative => Unavailable,
            _ if facts.plugged() && self.kept.finishing => Finishing,
            _ if facts.plugged() || self.welcome.is_some() => Preparing,
            _ => Available,
        }
    }

    /// Tells the status, whether it is news or not.
    pub(super) fn tell_status(&mut self, connector: u8) {
        let status = if connector == 0 {
            if self.facts.there || self.habits.whole {
                ConnectorStatus::Available
            } else {
                ConnectorStatus::Unavailable
            }
        } else {
            self.status()
        };
        let fault = self.facts.fault.clone();
        if connector != 0 {
            self.told = Some((status, fault.clone()));
        }
        self.out.push(Say::Status { connector, status, fault });
    }

    /// Measures now.
    pub(super) fn measure(&mut self, context: Context, at: Wall) {
        let session = self.kept.session.as_ref().map(|s| s.key).filter(|_| context != Context::Clock);
        let sample = self.facts.sample;
        self.out.push(Say::Measured { context, at, sample, session, whole: self.habits.whole });
    }

    /// Time has passed, or something was heard.
    pub(super) fn go_on(&mut self, now: Now) {
        if self.kept.session.is_some() && self.facts.unplugged() {
            self.end(Reason::Unplugged, now);
        }
        if self.facts.unplugged() && self.kept.finishing {
            self.kept.finishing = false;
            self.dirty = true;
        }
        let plugged = self.facts.plugged();
        if plugged && self.kept.session.is_none() && self.kept.operative && self.facts.sample.energy.is_some()
        {
            let free = self.habits.free.clone().filter(|_| !self.kept.finishing);
            if let Some(tag) = self.welcome.take().map(|(tag, _)| tag).or(free) {
                self.begin(tag, now);
            }
        }
        self.welcome = self.welcome.take().filter(|(_, until)| now.mono < *until);
        if self.told.as_ref() != Some(&(self.status(), self.facts.fault.clone())) {
            self.tell_status(1);
        }
        if let Some(every) = self.habits.sample_every.filter(|_| self.kept.session.is_some())
            && now.mono >= self.sample_due
        {
            self.sample_due = now.mono + every;
            self.measure(Context::Periodic, now.wall);
        }
        self.by_the_clock(now.wall);
    }

    /// §3.16.3: at whole multiples of the interval from midnight.
    fn by_the_clock(&mut self, now: Wall) {
        let Some(every) = self.habits.clock_every.and_then(|e| i64::try_from(e.as_millis()).ok()) else {
            self.clock_due = None;
            return;
        };
        let next = Wall((now.0.div_euclid(every) + 1) * every);
        match self.clock_due {
            Some(due) if due <= now => {
                self.measure(Context::Clock, due);
                self.clock_due = Some(next);
            }
            // A clock that was set back must not silence the meter.
            Some(due) if due <= next => {}
            _ => self.clock_due = Some(next),
        }
    }

    fn begin(&mut self, tag: String, now: Now) {
        let session = Session {
            key: self.kept.next_key,
            tag,
            started: now.wall,
            meter_start: self.kept.register,
            transaction: None,
        };
        self.kept.next_key += 1;
        self.kept.finishing = false;
        self.kept.session = Some(session.clone());
        self.sample_due = now.mono + self.habits.sample_every.unwrap_or_default();
        self.dirty = true;
        self.out.push(Say::Begin(session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Now {
        Now { mono: Mono::default(), wall: Wall(1_800_000_000_000) }.plus(Duration::from_secs(s))
    }

    fn facts(status: ConnectorStatus, energy: i64) -> Facts {
        Facts {
            there: true,
            status,
            sample: Sample { energy: Some(energy), ..Sample::default() },
            ..Facts::default()
        }
    }

    fn charge(free: Option<&str>) -> Charge {
        let habits = Habits {
            plug_within: Duration::from_secs(60),
            sample_every: Some(Duration::from_secs(10)),
            clock_every: None,
            free: free.map(str::to_owned),
            whole: false,
        };
        Charge::new(habits, Kept::default())
    }

    fn said(charge: &mut Charge) -> Vec<Say> {
        std::mem::take(&mut charge.out)
    }

    #[test]
    fn a_card_a_plug_a_charge_and_its_end() {
        let mut c = charge(None);
        c.report(facts(ConnectorStatus::Available, 100), at(0));
        assert!(matches!(said(&mut c)[..], [Say::Status { status: ConnectorStatus::Available, .. }]));
        assert!(c.remote_start("Ada", true, at(1)));
        assert_eq!(said(&mut c), [Say::Ask("Ada".into())]);
        c.judged("Ada", true, at(2));
        assert!(!c.released(), "nobody is plugged in");
        c.report(facts(ConnectorStatus::Preparing, 120), at(3));
        assert!(c.released());
        let begun = said(&mut c);
        assert!(begun.iter().any(|s| matches!(s, Say::Begin(b) if b.meter_start == 120 && b.tag == "Ada")));
        c.begun(1, Some(7), true, at(4));
        c.report(facts(ConnectorStatus::Charging, 500), at(14));
        assert!(said(&mut c).iter().any(|s| matches!(s, Say::Measured { session: Some(1), .. })));
        c.report(facts(ConnectorStatus::Available, 900), at(15));
        assert!(!c.released());
        let ended = said(&mut c);
        let Say::End { session, meter_stop: 900, reason: Reason::Unplugged, .. } = &ended[0] else {
            panic!("{ended:?}")
        };
        assert_eq!(session.transaction, Some(7));
        assert_eq!(c.status(), ConnectorStatus::Available);
    }

    #[test]
    fn who_is_not_welcome_or_does_not_plug_in_does_not_charge() {
        let mut c = charge(None);
        c.report(facts(ConnectorStatus::Preparing, 0), at(0));
        assert!(c.remote_start("Ben", true, at(1)));
        c.judged("Ben", false, at(2));
        assert!(!c.released());
        c.report(facts(ConnectorStatus::Available, 0), at(3));
        assert!(c.remote_start("Ada", false, at(4)));
        assert_eq!(c.status(), ConnectorStatus::Preparing);
        c.report(facts(ConnectorStatus::Preparing, 0), at(70));
        assert!(c.released(), "who plugs at the last moment is still welcome");
        let mut c = charge(None);
        c.report(facts(ConnectorStatus::Available, 0), at(0));
        assert!(c.remote_start("Ada", false, at(1)));
        c.go_on(at(62));
        c.report(facts(ConnectorStatus::Preparing, 0), at(63));
        assert!(!c.released());
    }

    #[test]
    fn a_dead_device_ends_no_charge_and_a_restart_goes_on_with_it() {
        let mut c = charge(Some("FREE"));
        c.report(facts(ConnectorStatus::Preparing, 5), at(0));
        assert!(c.released());
        c.report(Facts::default(), at(10));
        assert!(c.released() && c.status() == ConnectorStatus::Unavailable);
        let mut later = Charge::new(c.habits.clone(), c.kept.clone());
        assert!(later.released());
        later.report(facts(ConnectorStatus::Charging, 50), at(0));
        assert!(!said(&mut later).iter().any(|s| matches!(s, Say::Begin(_))), "it is the same charge");
        later.end(Reason::Remote, at(5));
        later.go_on(at(6));
        assert!(!later.released(), "the free plug does not begin at once again");
        assert_eq!(later.status(), ConnectorStatus::Finishing);
    }

    #[test]
    fn out_of_service_waits_for_the_end_of_the_charge() {
        let mut c = charge(Some("FREE"));
        c.report(facts(ConnectorStatus::Charging, 5), at(0));
        assert!(c.availability(false, at(1)));
        assert!(c.released());
        c.report(facts(ConnectorStatus::Available, 9), at(2));
        assert_eq!(c.status(), ConnectorStatus::Unavailable);
        c.report(facts(ConnectorStatus::Preparing, 9), at(3));
        assert!(!c.released());
        assert!(!c.availability(true, at(4)));
        assert!(c.released());
    }

    #[test]
    fn a_device_without_a_register_is_counted() {
        let mut c = charge(Some("FREE"));
        let mut drawing = facts(ConnectorStatus::Charging, 0);
        drawing.sample = Sample { currents: Some([16_000; 3]), ..Sample::default() };
        for s in 0..=3600 {
            c.report(drawing.clone(), at(s));
        }
        assert!(c.released());
        assert_eq!(c.kept.register, 11_040, "16 A on three phases for an hour");
        c.report(Facts::default(), at(3601));
        c.report(drawing.clone(), at(9000));
        assert_eq!(c.kept.register, 11_040, "nothing is made up");
        c.report(facts(ConnectorStatus::Available, 11_050), at(9001));
        let Some(Say::End { meter_stop: 11_050, .. }) =
            said(&mut c).into_iter().find(|s| matches!(s, Say::End { .. }))
        else {
            panic!("no end")
        };
    }

    #[test]
    fn the_clock_strikes_at_whole_multiples() {
        let mut c = charge(None);
        c.habits.clock_every = Some(Duration::from_secs(900));
        c.report(facts(ConnectorStatus::Available, 5), at(0));
        said(&mut c);
        for s in 1..=2000 {
            c.go_on(at(s));
        }
        let struck: Vec<_> = said(&mut c)
            .into_iter()
            .filter_map(|s| match s {
                Say::Measured { at, session: None, .. } => Some(at.0 % 900_000),
                _ => None,
            })
            .collect();
        assert_eq!(struck, [0, 0]);
    }
}
