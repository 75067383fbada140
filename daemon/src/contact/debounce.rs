//! Bounces away: a level counts when it has held long enough.
//!
//! In: samples (level, time) and the passing of time. Out: each level that held, once. Invariant: a level that lasts
//! shorter than the period never shows; one that lasts as long always shows, also when the looker comes late. Pure.
//!
//! ```text
//!            first sample: reported at once
//! (new) ─────────────────────────────────────→ (holds L) ←───────────┐ L again: nothing was
//!                                                  │ other level      │
//!  lost()                                          ↓                  │
//! ───────→ (unknown) ── any level ──→ (L' since t) ──────────────────┘
//!                                                  │ t + period is over
//!                                                  └──→ (holds L'): reported
//! ```

use std::time::Duration;

use crate::time::Mono;

/// See the module.
#[derive(Debug, Clone)]
pub struct Debounce<L = bool> {
    period: Duration,
    state: State<L>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State<L> {
    /// Nothing heard since the start.
    New,
    /// Nothing can be believed yet: the line was unreadable.
    Unknown,
    /// `level` counts.
    Holds { level: L },
    /// `level` may become true; `before` is what counts until then.
    Pending { level: L, since: Mono, before: Option<L> },
}

impl<L: Copy + PartialEq> Debounce<L> {
    /// A level counts after `period`.
    #[must_use]
    pub const fn new(period: Duration) -> Self {
        Self { period, state: State::New }
    }

    /// The level was `closed` at `at`. Returns a level that counts from now on: the very first one, or one that had
    /// held long enough before this sample. Samples come in the order of their times.
    pub fn sample(&mut self, closed: L, at: Mono) -> Option<L> {
        let due = self.poll(at);
        self.state = match self.state {
            State::New => {
                self.state = State::Holds { level: closed };
                return Some(closed);
            }
            State::Holds { level } if level == closed => self.state,
            State::Holds { level } => State::Pending { level: closed, since: at, before: Some(level) },
            State::Pending { level, .. } if level == closed => self.state,
            State::Pending { before: Some(level), .. } if level == closed => State::Holds { level },
            State::Pending { before: Some(level), .. } => {
                State::Pending { level: closed, since: at, before: Some(level) }
            }
            State::Unknown | State::Pending { before: None, .. } => {
                State::Pending { level: closed, since: at, before: None }
            }
        };
        due
    }

    /// When to call [`Self::poll`]; `None` while nothing is pending.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Pending { since, .. } => Some(since + self.period),
            _ => None,
        }
    }

    /// Time has passed. Returns a level that counts from now on.
    pub fn poll(&mut self, now: Mono) -> Option<L> {
        match self.state {
            State::Pending { level, since, .. } if now >= since + self.period => {
                self.state = State::Holds { level };
                Some(level)
            }
            _ => None,
        }
    }

    /// The line became unreadable: what was known is void, the next level must hold before it counts.
    pub const fn lost(&mut self) {
        self.state = State::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(200);

    fn ms(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn the_first_level_counts_at_once_and_a_change_after_its_time() {
        let mut d = Debounce::new(PERIOD);
        assert_eq!(d.sample(false, ms(0)), Some(false));
        assert_eq!(d.sample(true, ms(1000)), None);
        assert_eq!(d.deadline(), Some(ms(1200)));
        assert_eq!(d.poll(ms(1199)), None);
        assert_eq!(d.poll(ms(1200)), Some(true));
        assert_eq!((d.poll(ms(9000)), d.deadline()), (None, None));
    }

    #[test]
    fn a_level_that_held_shows_even_if_nobody_looked_in_time() {
        let mut d = Debounce::new(PERIOD);
        d.sample(false, ms(0));
        d.sample(true, ms(100));
        assert_eq!(d.sample(false, ms(300)), Some(true));
        assert_eq!(d.poll(ms(500)), Some(false));
    }

    #[test]
    fn after_a_loss_a_level_must_hold_even_the_one_from_before() {
        let mut d = Debounce::new(PERIOD);
        d.sample(false, ms(0));
        d.lost();
        assert_eq!(d.sample(false, ms(10)), None);
        assert_eq!(d.sample(true, ms(100)), None);
        assert_eq!(d.poll(ms(250)), None);
        assert_eq!(d.poll(ms(300)), Some(true));
    }

    proptest! {
        /// Against the plain definition, for any train of edges and any lateness of the looker.
        #[test]
        fn what_shows_is_what_held(
            lengths in prop::collection::vec(1_u64..600, 1..40),
            looks in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut d = Debounce::new(PERIOD);
            let (mut at, mut level) = (0, false);
            let mut shown = vec![d.sample(level, ms(at)).unwrap()];
            let mut expected = vec![false];
            for (i, length) in lengths.iter().enumerate() {
                // The level lasts for `length`, then toggles.
                if *length >= 200 && expected.last() != Some(&level) {
                    expected.push(level);
                }
                // A looker that comes in time sees it at the deadline exactly, never before.
                if looks[i] && let Some(deadline) = d.deadline() && deadline <= ms(at + length) {
                    prop_assert_eq!(d.poll(Mono(deadline.0.saturating_sub(Duration::from_nanos(1)))), None);
                    shown.extend(d.poll(deadline));
                }
                at += length;
                level = !level;
                shown.extend(d.sample(level, ms(at)));
            }
            prop_assert_eq!(&shown, &expected);
            // And the last level, once it holds.
            shown.extend(d.poll(ms(at + 200)));
            prop_assert_eq!(*shown.last().unwrap(), level);
        }

        /// R17: bounces of 1 to 199 ms around one real change never show, the change does, once, in time.
        #[test]
        fn bounces_are_filtered(bounces in prop::collection::vec(1_u64..200, 0..20)) {
            let mut d = Debounce::new(PERIOD);
            d.sample(false, ms(0));
            let (mut at, mut level) = (1000, false);
            for bounce in bounces {
                level = !level;
                prop_assert_eq!(d.sample(level, ms(at)), None);
                at += bounce;
            }
            if !level {
                prop_assert_eq!(d.sample(true, ms(at)), None);
            }
            let end = d.deadline().unwrap();
            prop_assert!(end <= ms(at) + PERIOD);
            prop_assert_eq!(d.poll(end), Some(true));
        }
    }
}
