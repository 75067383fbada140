//! A car that draws less than it is offered leaves the rest to the others, and is asked again from time to time.
//!
//! ```text
//! free ──draws less for `follow_after`──→ asked: held 2 A above what it draws ──draws up to that──→ free
//!                                           ↑            │ does not, for `follow_after`               ↑
//!                          `probe_every`, then twice as  │                                             │
//!                          long each time, up to 16 times ↓                                            │
//!                                         held at what it draws ──is offered more, and draws it────────┘
//! ```
//!
//! In: what it draws, by a measurement that shows the present offer; the offer; the time. Out: what it was seen to
//! use. Invariant: it is held at no less than it was seen to draw while it could have drawn more.

use crate::{config, time::Mono, units::Milliamps};

/// Above what it draws: a car that wants more shows it within this margin.
const MARGIN: Milliamps = Milliamps::amps(2);
/// This close to its offer it takes all of it.
const CLOSE: Milliamps = Milliamps::amps(1);
/// By so much more than before it has shown that it takes more.
const MORE: Milliamps = Milliamps(500);
/// How often the time between two questions doubles.
const DOUBLINGS: u32 = 4;

/// The state of one EVSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Follow {
    /// It draws clearly less than it may since.
    slack_since: Option<Mono>,
    held: Option<Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    used: Milliamps,
    /// It was last seen not to take more at this time.
    seen: Mono,
    /// Whether it is offered the margin.
    asked: bool,
    /// How often it was asked in vain.
    in_vain: u32,
}

impl Follow {
    /// What it was seen to use, margin included where it is asked; `None` while it uses what it gets.
    #[must_use]
    pub fn used(&self) -> Option<Milliamps> {
        self.held.map(|held| if held.asked { held.used + MARGIN } else { held.used })
    }

    /// A measurement under the present offer; `None` when there is none that shows it.
    pub fn look(
        &mut self,
        drawn: Option<Milliamps>,
        offered: Milliamps,
        control: &config::Control,
        now: Mono,
    ) {
        let Some(drawn) = drawn else {
            self.slack_since = None;
            return;
        };
        let Some(held) = &mut self.held else {
            if drawn + MARGIN >= offered {
                self.slack_since = None;
            } else if self.lasts(control, now) {
                self.hold(drawn, 0, now);
            }
            return;
        };
        // All of an offer that is hardly more than what it was seen to use shows nothing.
        if drawn > held.used + MORE && drawn + CLOSE >= offered {
            *self = Self::default();
        } else if offered > held.used + CLOSE {
            // It could draw more, and does not.
            if !held.asked {
                (held.used, held.seen) = (drawn, now);
                self.slack_since = None;
                return;
            }
            let in_vain = held.in_vain.saturating_add(1);
            if self.lasts(control, now) {
                self.held = Some(Held { used: drawn, seen: now, asked: false, in_vain });
                self.slack_since = None;
            }
        } else if drawn + MARGIN < offered.min(held.used) {
            let in_vain = held.in_vain;
            if self.lasts(control, now) {
                self.hold(drawn, in_vain, now);
            }
        } else {
            let every = control.probe_every * (1 << held.in_vain.saturating_sub(1).min(DOUBLINGS));
            held.asked |= now.since(held.seen) >= every;
            self.slack_since = None;
        }
    }

    fn lasts(&mut self, control: &config::Control, now: Mono) -> bool {
        now.since(*self.slack_since.get_or_insert(now)) >= control.follow_after
    }

    /// With the margin at first: the measurement may have been one of a car on its way up.
    fn hold(&mut self, used: Milliamps, in_vain: u32, now: Mono) {
        *self = Self { slack_since: None, held: Some(Held { used, seen: now, asked: true, in_vain }) };
    }

    /// Another car, or none.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn control() -> config::Control {
        let s = Duration::from_secs;
        config::Control {
            lease: s(60),
            raise_dwell: s(10),
            settle: s(5),
            min_on: s(600),
            min_off: s(30),
            ramp: Milliamps::amps(16),
            follow_after: s(60),
            probe_every: s(300),
            wake_every: s(1800),
            meter_stale: s(5),
            meter_lost: s(30),
        }
    }

    /// A car with an appetite, offered what it was seen to use but never more than `room`, for some seconds.
    fn drive(follow: &mut Follow, appetite: i64, room: i64, seconds: std::ops::Range<u64>) {
        for s in seconds {
            let offered = follow.used().map_or(room, |used| used.0.min(room));
            let drawn = Milliamps(offered.min(appetite));
            follow.look(Some(drawn), Milliamps(offered), &control(), Mono(Duration::from_secs(s)));
        }
    }

    #[test]
    fn a_modest_car_is_held_at_what_it_draws() {
        let mut follow = Follow::default();
        drive(&mut follow, 15_600, 25_000, 0..60);
        assert_eq!(follow.used(), None);
        drive(&mut follow, 15_600, 25_000, 60..61);
        assert_eq!(follow.used(), Some(Milliamps(17_600)), "with the margin at first");
        drive(&mut follow, 15_600, 25_000, 61..130);
        assert_eq!(follow.used(), Some(Milliamps(15_600)));
    }

    #[test]
    fn who_wants_more_gets_it_when_asked_and_is_asked_less_and_less_often() {
        let mut follow = Follow::default();
        let mut asked = Vec::new();
        let mut before = None;
        for s in 0..40_000 {
            drive(&mut follow, 10_000, 25_000, s..s + 1);
            let used = follow.used();
            if before == Some(Milliamps(10_000)) && used == Some(Milliamps(12_000)) {
                asked.push(s);
            }
            before = used;
        }
        let waits: Vec<u64> = asked.windows(2).map(|pair| (pair[1] - pair[0]) / 300).collect();
        assert_eq!(waits[..4], [2, 4, 8, 16], "{asked:?}");
        assert!(waits[4..].iter().all(|wait| *wait == 16), "{asked:?}");
        // Now it wants all.
        drive(&mut follow, 32_000, 25_000, 40_000..45_000);
        assert_eq!(follow.used(), None);
    }

    #[test]
    fn a_car_that_draws_less_and_less_is_followed_down() {
        let mut follow = Follow::default();
        drive(&mut follow, 16_000, 25_000, 0..200);
        drive(&mut follow, 12_000, 25_000, 200..400);
        assert_eq!(follow.used(), Some(Milliamps(12_000)));
    }

    #[test]
    fn an_offer_that_is_not_needed_by_others_shows_what_it_wants() {
        let mut follow = Follow::default();
        drive(&mut follow, 12_000, 25_000, 0..200);
        let look = |follow: &mut Follow, drawn, s| {
            follow.look(Some(Milliamps(drawn)), Milliamps(25_000), &control(), Mono(Duration::from_secs(s)));
        };
        look(&mut follow, 12_000, 201);
        assert_eq!(follow.used(), Some(Milliamps(12_000)), "offered 25 A, it stays what it is");
        look(&mut follow, 14_000, 202);
        assert_eq!(follow.used(), Some(Milliamps(14_000)));
        look(&mut follow, 24_500, 203);
        assert_eq!(follow.used(), None);
    }
}
