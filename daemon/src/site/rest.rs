//! A car that takes nothing leaves even its least current to the others while they need it, and is asked again.
//!
//! ```text
//! hungry ──offered something, takes nothing for `follow_after`──→ sated ──takes something; unplugged──→ hungry
//!                                                                 │   ↑
//!                    without current for `wake_every`, then twice, │   │ offered its least for `follow_after`,
//!                                            then four times as long ↓   │ took nothing
//!                                                                asking
//! ```
//!
//! In: what the EVSE says and measures, whether it is offered something, the time. Out: whether others come first.
//! Invariant: only a car that was offered something and did not take it is sated; it gets its least current whenever
//! that is free, and with its turn after the times above at the latest.

use crate::{
    config,
    site::{event::ConnectorStatus, facts::IDLE},
    time::Mono,
    units::Milliamps,
};

/// How often the time between two questions doubles.
const DOUBLINGS: u32 = 2;

/// The state of one EVSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rest {
    /// It is offered something and takes nothing since.
    idle_since: Option<Mono>,
    sated: bool,
    /// It is offered nothing since.
    off_since: Option<Mono>,
    asking: bool,
    /// How often it was offered something in vain.
    in_vain: u32,
    /// Its EVSE says that it charges; that it does not was measured.
    unsaid: bool,
}

impl Rest {
    /// Whether it was seen to take nothing of what it was offered.
    #[must_use]
    pub fn sated(&self) -> bool {
        self.sated
    }

    /// Whether the others come first: it is sated, and it is not its turn to be asked.
    #[must_use]
    pub fn yields(&self) -> bool {
        self.sated && !self.asking
    }

    /// A look at it under the present plan; `drawn` is what it was measured to draw under its present offer.
    pub fn look(
        &mut self,
        status: ConnectorStatus,
        drawn: Option<Milliamps>,
        offered: bool,
        control: &config::Control,
        now: Mono,
    ) {
        use ConnectorStatus::{Charging, Preparing, SuspendedEv, SuspendedEvse};
        // Not every EVSE says that its car is full.
        self.unsaid = status == Charging && drawn.map_or(self.unsaid, |drawn| drawn <= IDLE);
        let status = match (self.unsaid, offered, drawn) {
            (false, ..) => status,
            (true, false, _) => SuspendedEvse,
            (true, true, Some(_)) => SuspendedEv,
            (true, true, None) => return,
        };
        if !matches!(status, SuspendedEv | SuspendedEvse | Preparing) {
            *self = Self::default();
        } else if offered {
            self.off_since = None;
            if status != SuspendedEv {
                self.idle_since = None;
                return;
            }
            let since = *self.idle_since.get_or_insert(now);
            if (!self.sated || self.asking) && now.since(since) >= control.follow_after {
                (self.sated, self.asking) = (true, false);
                self.in_vain = self.in_vain.saturating_add(1);
            }
        } else {
            self.idle_since = None;
            let since = *self.off_since.get_or_insert(now);
            let doubled = self.in_vain.saturating_sub(1).min(DOUBLINGS);
            self.asking = self.sated && now.since(since) >= control.wake_every * (1 << doubled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use ConnectorStatus::{Available, Charging, Preparing, SuspendedEv, SuspendedEvse};

    fn control() -> config::Control {
        let s = Duration::from_secs;
        config::Control {
            lease: s(60),
            raise_dwell: s(10),
            settle: s(5),
            min_on: s(600),
            min_off: s(30),
            ramp: crate::units::Milliamps::amps(16),
            follow_after: s(60),
            probe_every: s(300),
            wake_every: s(1800),
            meter_stale: s(5),
            meter_lost: s(30),
        }
    }

    /// Looks each second; gives the state after the last.
    fn during(rest: &mut Rest, status: ConnectorStatus, offered: bool, seconds: std::ops::Range<u64>) {
        for s in seconds {
            rest.look(status, None, offered, &control(), Mono(Duration::from_secs(s)));
        }
    }

    #[test]
    fn only_who_was_offered_something_is_sated() {
        let mut rest = Rest::default();
        during(&mut rest, SuspendedEv, false, 0..10_000);
        assert_eq!((rest.sated(), rest.yields()), (false, false), "nothing was offered");
        during(&mut rest, SuspendedEv, true, 10_000..10_060);
        assert!(!rest.sated(), "cars need time");
        during(&mut rest, SuspendedEv, true, 10_060..10_061);
        assert!(rest.sated() && rest.yields());
        during(&mut rest, SuspendedEvse, false, 10_061..10_070);
        assert!(rest.yields(), "what the EVSE says while it is paused proves nothing");
        for status in [Charging, Available] {
            let mut other = rest;
            during(&mut other, status, true, 10_070..10_071);
            assert_eq!(other, Rest::default());
        }
    }

    #[test]
    fn a_measurement_shows_what_an_evse_does_not_say() {
        let mut rest = Rest::default();
        let mut look = |second: u64, milliamps: Option<i64>, offered| {
            rest.look(
                Charging,
                milliamps.map(Milliamps),
                offered,
                &control(),
                Mono(Duration::from_secs(second)),
            );
            rest.yields()
        };
        assert!(!look(0, None, true) && !look(5, Some(200), true) && !look(64, None, true));
        assert!(look(65, Some(200), true), "it takes nothing for a minute");
        assert!(look(70, None, false) && look(80, Some(0), false), "it is paused, which proves nothing");
        assert!(!look(1870, None, false), "its turn");
        assert!(
            !look(1880, None, true) && !look(1890, Some(0), true) && look(1950, Some(0), true),
            "in vain"
        );
        assert!(!look(1960, Some(6_000), true));
        assert!(!look(1970, None, true), "it charges");
    }

    #[test]
    fn a_paused_car_is_asked_less_and_less_often_but_always_again() {
        let mut rest = Rest::default();
        during(&mut rest, SuspendedEv, true, 0..61);
        let mut now = 61;
        for wait in [1800, 3600, 7200, 7200, 7200] {
            during(&mut rest, Preparing, false, now..now + wait);
            assert!(rest.yields(), "{now}");
            during(&mut rest, Preparing, false, now + wait..now + wait + 1);
            assert!(!rest.yields(), "its turn begins after {wait} s");
            now += wait + 1;
            during(&mut rest, SuspendedEvse, true, now..now + 100);
            assert!(!rest.yields(), "its turn lasts until it has answered");
            during(&mut rest, SuspendedEv, true, now + 100..now + 161);
            assert!(rest.yields(), "and ends in vain");
            now += 161;
        }
    }
}
