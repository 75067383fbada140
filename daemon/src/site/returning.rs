//! The gradual return to full power after a grid limit (BNetzA BK6-22-300 Anlage 1 no. 4.3).
//!
//! In: the limit in force at a node, or none; the node's full power; the time. Out: what may be drawn while the return
//! lasts. Invariant: it never rises faster than from the last limit to full power in the configured time, and never
//! stands in the way of a lower limit.

use std::time::Duration;

use crate::{time::Mono, units::Watts};

/// The return at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Return {
    way: Option<Way>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    from: Watts,
    since: Mono,
    full: Watts,
    over: Duration,
}

impl Return {
    /// What may be drawn; `None` without a limit before.
    #[must_use]
    pub fn at(&self, now: Mono) -> Option<Watts> {
        let way = self.way?;
        let passed = now.since(way.since);
        if passed >= way.over || way.full <= way.from {
            return None;
        }
        let (passed, over) = (passed.as_millis(), way.over.as_millis().max(1));
        let rise = u128::try_from(way.full.0 - way.from.0).unwrap_or(0) * passed / over;
        Some(way.from + Watts(i64::try_from(rise).unwrap_or(i64::MAX)))
    }

    /// Looks at the limit in force now.
    pub fn look(&mut self, limit: Option<Watts>, full: Watts, over: Duration, now: Mono) {
        let back = self.at(now);
        match (limit, back) {
            // Still on the way back below it: a limit that is raised is left gradually, too.
            (Some(limit), Some(back)) if back < limit => {}
            (Some(limit), _) => self.way = Some(Way { from: limit, since: now, full, over }),
            (None, None) => self.way = None,
            (None, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Watts = Watts(34_000);
    const OVER: Duration = Duration::from_secs(300);

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    #[test]
    fn the_way_back_is_a_straight_line() {
        let mut back = Return::default();
        assert_eq!(back.at(at(0)), None);
        for s in 0..100 {
            back.look(Some(Watts(4_000)), FULL, OVER, at(s));
        }
        for s in [100, 160, 220] {
            back.look(None, FULL, OVER, at(s));
        }
        assert_eq!(back.at(at(129)), Some(Watts(7_000)));
        assert_eq!(back.at(at(249)), Some(Watts(19_000)));
        assert_eq!(back.at(at(399)), None);
        back.look(None, FULL, OVER, at(399));
        assert_eq!(back, Return::default());
    }

    #[test]
    fn a_raised_limit_is_left_gradually_and_a_lower_one_holds_at_once() {
        let mut back = Return::default();
        back.look(Some(Watts(4_000)), FULL, OVER, at(0));
        back.look(Some(Watts(20_000)), FULL, OVER, at(1));
        assert_eq!(back.at(at(30)), Some(Watts(7_000)));
        back.look(Some(Watts(5_000)), FULL, OVER, at(30));
        assert_eq!(back.at(at(30)), Some(Watts(5_000)));
        back.look(Some(Watts(20_000)), FULL, OVER, at(31));
        assert!(back.at(at(31)) < Some(Watts(5_200)));
    }

    #[test]
    fn without_a_time_there_is_no_way() {
        let mut back = Return::default();
        back.look(Some(Watts(0)), FULL, Duration::ZERO, at(0));
        assert_eq!(back.at(at(0)), None);
    }
}
