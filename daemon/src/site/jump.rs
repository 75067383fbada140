//! Whether the wall clock can be believed: it may have been set, rightly or wrongly, while limits run.
//!
//! ```text
//! believed ──differs by more than `STEP`──→ doubted ──holds for `BELIEVE`──→ believed
//!     ↑                                        │
//!     └────────── back where it was ───────────┘
//! ```
//!
//! In: both clocks. Out: the time as far as it is certain. Invariant: while the clock is doubted, both the old and the
//! new time are possible; limits begin at the earlier and end at the later of the two.

use std::time::Duration;

use crate::time::{Certain, Mono, Now, Wall};

/// A clock that is disciplined moves by less than this between two looks.
const STEP: Duration = Duration::from_secs(2);
/// A clock that was set is believed after it ran on evenly for so long.
pub const BELIEVE: Duration = Duration::from_secs(300);

/// What is known of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    /// Wall clock less monotonic clock, ms.
    believed: Option<i64>,
    doubted: Option<(i64, Mono)>,
}

impl Watch {
    /// Looks at the clocks. Tells by how many milliseconds the clock has jumped, when it has.
    pub fn look(&mut self, now: Now) -> Option<i64> {
        let offset = offset(now);
        let believed = *self.believed.get_or_insert(offset);
        let close = |other: i64| offset.abs_diff(other) <= STEP.as_millis().try_into().unwrap_or(u64::MAX);
        if close(believed) {
            (self.believed, self.doubted) = (Some(offset), None);
            return None;
        }
        match self.doubted {
            Some((doubted, since)) if close(doubted) => {
                if now.mono.since(since) >= BELIEVE {
                    (self.believed, self.doubted) = (Some(offset), None);
                } else {
                    self.doubted = Some((offset, since));
                }
                None
            }
            before => {
                self.doubted = Some((offset, now.mono));
                Some(offset.saturating_sub(before.map_or(believed, |(other, _)| other)))
            }
        }
    }

    /// Whether the clock is doubted.
    #[must_use]
    pub fn doubted(&self) -> bool {
        self.doubted.is_some()
    }

    /// The time as far as it is certain.
    #[must_use]
    pub fn certain(&self, now: Now) -> Certain {
        let believed = self.believed.map_or(now.wall, |offset| Wall(millis(now.mono).saturating_add(offset)));
        let close = now.wall.0.abs_diff(believed.0) <= STEP.as_millis().try_into().unwrap_or(u64::MAX);
        if close {
            return now.wall.into();
        }
        Certain { earliest: believed.min(now.wall), latest: believed.max(now.wall) }
    }
}

fn offset(now: Now) -> i64 {
    now.wall.0.saturating_sub(millis(now.mono))
}

fn millis(mono: Mono) -> i64 {
    i64::try_from(mono.0.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono: i64, wall: i64) -> Now {
        Now { mono: Mono(Duration::from_millis(mono.try_into().unwrap())), wall: Wall(wall) }
    }

    #[test]
    fn a_clock_that_runs_evenly_is_certain() {
        let mut watch = Watch::default();
        for s in 0..10_000 {
            // 500 ppm fast.
            let now = at(s * 1000, 1_000_000 + s * 1000 + s / 2);
            assert_eq!(watch.look(now), None);
            assert_eq!(watch.certain(now), now.wall.into());
        }
    }

    #[test]
    fn a_jump_leaves_both_times_possible_until_it_has_lasted() {
        for jump in [3_600_000, -3_600_000, 86_400_000, 378_691_200_000] {
            let mut watch = Watch::default();
            watch.look(at(0, 2_000_000_000_000));
            assert_eq!(watch.look(at(1000, 2_000_000_001_000 + jump)), Some(jump));
            for s in 1..300 {
                let now = at(s * 1000 + 500, 2_000_000_000_500 + s * 1000 + jump);
                let certain = watch.certain(now);
                assert_eq!(certain.latest.0 - certain.earliest.0, jump.abs(), "{s}");
                assert_eq!(watch.look(now), None);
            }
            let now = at(301_000, 2_000_000_301_000 + jump);
            watch.look(now);
            assert_eq!(watch.certain(now), now.wall.into());
        }
    }

    #[test]
    fn a_clock_that_comes_back_is_as_if_nothing_had_been() {
        let mut watch = Watch::default();
        watch.look(at(0, 5_000_000));
        assert!(watch.look(at(1000, 5_001_000 + 90_000)).is_some());
        assert!(watch.doubted());
        watch.look(at(2000, 5_002_000));
        assert!(!watch.doubted());
        assert_eq!(watch.certain(at(3000, 5_003_000)), Wall(5_003_000).into());
    }
}
