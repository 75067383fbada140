//! How far the meter has fallen since a car told what it draws: by so much it may draw less by now, without a word.
//!
//! In: the currents of the nearest meter above the EVSE, and when the EVSE told its draw. Out: per phase the largest
//! fall from one value to a later one since then. Invariant: a car that draws less than it told shows in the meter,
//! unless the rest of the site rises as much at the same moment; then what both draw together is still right.

use std::{collections::VecDeque, time::Duration};

use crate::{
    time::Mono,
    units::{Milliamps, PerPhase},
};

/// So old may be what an EVSE tells when it arrives.
const LATE: Duration = Duration::from_secs(5);

/// What a meter said of late.
#[derive(Debug, Clone, Default)]
pub struct Recent(VecDeque<(Mono, PerPhase<Milliamps>)>);

impl Recent {
    /// An answer of the meter.
    pub fn push(&mut self, currents: PerPhase<Milliamps>, now: Mono) {
        self.0.push_back((now, currents));
        // The last one from before that time stays: a fall may have begun there.
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= LATE) {
            self.0.pop_front();
        }
    }
}

/// The largest fall since a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fall {
    highest: Option<PerPhase<Milliamps>>,
    most: PerPhase<Milliamps>,
}

impl Fall {
    /// What an EVSE told has just arrived.
    #[must_use]
    pub fn since(recent: &Recent) -> Self {
        let mut fall = Self::default();
        recent.0.iter().for_each(|(_, currents)| fall.see(*currents));
        fall
    }

    /// An answer of the meter.
    pub fn see(&mut self, currents: PerPhase<Milliamps>) {
        let highest = self.highest.map_or(currents, |h| PerPhase::from_fn(|p| h[p].max(currents[p])));
        self.highest = Some(highest);
        self.most = PerPhase::from_fn(|p| self.most[p].max(highest[p] - currents[p]));
    }

    /// The largest fall on each phase.
    #[must_use]
    pub const fn most(&self) -> PerPhase<Milliamps> {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amps(amps: i64) -> PerPhase<Milliamps> {
        PerPhase([Milliamps::amps(amps); 3])
    }

    #[test]
    fn the_largest_fall_counts_wherever_it_began() {
        let mut fall = Fall::default();
        for (metered, most) in
            [(20, 0), (30, 0), (28, 2), (31, 2), (30, 2), (12, 19), (40, 19), (25, 19), (20, 20)]
        {
            fall.see(amps(metered));
            assert_eq!(fall.most(), amps(most), "at {metered} A");
        }
    }

    #[test]
    fn what_came_late_counts_from_before() {
        let mut recent = Recent::default();
        let at = |s: u64| Mono(Duration::from_secs(s));
        for (s, metered) in [(0, 50), (1, 40), (2, 40), (6, 24), (7, 24)] {
            recent.push(amps(metered), at(s));
        }
        assert_eq!(Fall::since(&recent).most(), amps(16));
        recent.push(amps(24), at(30));
        assert_eq!(Fall::since(&recent), Fall { highest: Some(amps(24)), most: amps(0) });
        assert_eq!(Fall::since(&Recent::default()), Fall::default());
    }
}
