//! What the rest of the site draws behind a metered node, seen through a meter that counts EVSEs and rest together.
//!
//! In: the meter's currents, and per EVSE an interval of what it may be drawing at that moment. Out: one estimate per
//! phase. Invariant: the estimate lies where meter and intervals allow; inside that, it stays what it was, so that a
//! car that has not followed a new setpoint yet is not taken for a change of the house. Where no car moves and nothing
//! new is known of one, what the cars draw stays what it was, so that a change of the house is not taken for a car's.
//! Above the fuse the doubt turns round: then what rose is the house, so that the cars make room for all of it at once,
//! and if that does not help, the house is taken as large as it can be.

use crate::units::{Milliamps, PerPhase, Phase};

/// What an EVSE may be drawing on each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    /// At least.
    pub low: PerPhase<Milliamps>,
    /// At most.
    pub high: PerPhase<Milliamps>,
    /// What it told of late, 0 if nothing. It may draw less, where the meter has fallen since, or more, where it told it
    /// before it had time to follow.
    pub told: PerPhase<Milliamps>,
    /// Whether it may have changed what it draws since it was last heard: it follows a setpoint, or it was not heard
    /// drawing at all.
    pub moves: PerPhase<bool>,
}

impl Interval {
    /// What is known to be drawn exactly.
    #[must_use]
    pub fn exactly(draws: PerPhase<Milliamps>) -> Self {
        Self { low: draws, high: draws, told: draws, moves: PerPhase::default() }
    }

    /// What it told under the setpoint that it has, if it did.
    #[must_use]
    pub fn settled(&self) -> Option<PerPhase<Milliamps>> {
        let settled = self.moves == PerPhase::default() && self.told == self.high;
        settled.then_some(self.told)
    }
}

/// Who draws what behind a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Split {
    /// The rest of the site.
    pub other: PerPhase<Milliamps>,
    /// All EVSEs.
    pub evses: PerPhase<Milliamps>,
    /// The least that the EVSEs may have been drawing.
    pub least: PerPhase<Milliamps>,
    /// The most that they may have been drawing.
    pub most: PerPhase<Milliamps>,
    /// What they draw for certain: one that has just stopped is not seen while another rises.
    pub certain: PerPhase<Milliamps>,
    /// The rest of the site where what it feeds in is counted: falls only as far as that is certain.
    pub feeds: PerPhase<Milliamps>,
}

impl Split {
    /// The most that the rest of the site may draw: negative only where it feeds in for certain.
    #[must_use]
    pub fn other_at_most(&self) -> PerPhase<Milliamps> {
        PerPhase::from_fn(|phase| self.other[phase] + self.evses[phase] - self.certain[phase])
    }

    /// Whether the bounds of what the EVSEs draw are still these, so that no car has left and none has told anything new.
    fn knows_no_more(&self, phase: Phase, least: Milliamps, most: Milliamps) -> bool {
        self.least[phase] == least && self.most[phase] == most
    }
}

/// How the meter stands to its fuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overload {
    /// Within the fuse.
    #[default]
    None,
    /// Above it.
    New,
    /// Above it for longer than cars need to follow: what was done did not help.
    Lasting,
}

/// The new split from the old one (if there is one), the meter, how it stands to its fuse, and the EVSEs behind it.
pub fn split(
    old: Option<Split>,
    metered: PerPhase<Milliamps>,
    overload: PerPhase<Overload>,
    evses: impl Iterator<Item = Interval>,
) -> Split {
    let (mut least, mut most) = (PerPhase::default(), PerPhase::default());
    let mut rise = PerPhase::<Milliamps>::default();
    let (mut moves, mut falls) = (PerPhase::<bool>::default(), PerPhase::<bool>::default());
    for evse in evses {
        for phase in Phase::ALL {
            let (low, high, told) = (evse.low[phase], evse.high[phase], evse.told[phase]);
            moves[phase] |= evse.moves[phase] && low < high;
            rise[phase] += high - told;
            falls[phase] |= low < told;
            least[phase] += low;
            most[phase] += high;
        }
    }
    let other = PerPhase::from_fn(|phase| {
        let low = metered[phase] - most[phase];
        let high = (metered[phase] - least[phase]).max(low);
        let (Some(old), Overload::None | Overload::New) = (old, overload[phase]) else {
            // Without a past, and when the past was wrong, the larger load is the careful guess.
            return high;
        };
        let (as_before, changed) = (old.other[phase], metered[phase] - old.evses[phase]);
        let news = falls[phase] || !old.knows_no_more(phase, least[phase], most[phase]);
        let other = match overload[phase] {
            Overload::New => as_before.max(changed),
            _ if moves[phase] => as_before,
            // It may be the cars that fell, and the rest that rose.
            _ if news && rise[phase] > Milliamps::ZERO => as_before.max(changed),
            _ if news => as_before,
            _ => changed,
        };
        other.max(low).min(high)
    });
    let certain = PerPhase::from_fn(|phase| (least[phase] - rise[phase]).max(Milliamps::ZERO));
    let feeds = PerPhase::from_fn(|phase| {
        let at_most = metered[phase] - certain[phase];
        old.map_or(at_most, |old| old.feeds[phase].max(other[phase]).min(at_most))
    });
    Split {
        other,
        evses: PerPhase::from_fn(|phase| metered[phase] - other[phase]),
        least,
        most,
        certain,
        feeds,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(ma: i64) -> PerPhase<Milliamps> {
        PerPhase::from_fn(|_| Milliamps(ma))
    }

    fn moving(low: i64, high: i64) -> Interval {
        Interval { low: same(low), high: same(high), told: same(low), moves: PerPhase([true; 3]) }
    }

    fn estimate(
        old: Option<PerPhase<Milliamps>>,
        metered: PerPhase<Milliamps>,
        evses: impl Iterator<Item = Interval>,
    ) -> PerPhase<Milliamps> {
        split(old.map(|other| Split { other, ..Split::default() }), metered, PerPhase::default(), evses).other
    }

    #[test]
    fn above_the_fuse_what_rose_is_the_house() {
        let car = moving(0, 63_000);
        let before = split(Some(Split::default()), same(48_000), PerPhase::default(), [car].into_iter());
        assert_eq!((before.other, before.evses), (same(0), same(48_000)));
        let after = split(Some(before), same(64_000), PerPhase([Overload::New; 3]), [car].into_iter());
        assert_eq!(after.other, same(16_000));
        let last = split(Some(before), same(64_000), PerPhase([Overload::Lasting; 3]), [car].into_iter());
        assert_eq!(last.other, same(64_000));
    }

    #[test]
    fn a_car_on_its_way_down_is_not_the_house() {
        // House 25 A, cars 48 A together, told to go to 38 A; the meter still shows 73 A.
        let car = moving(38_000, 48_000);
        assert_eq!(estimate(Some(same(25_000)), same(73_000), [car].into_iter()), same(25_000));
        // Halfway and at the end the answer is the same.
        assert_eq!(estimate(Some(same(25_000)), same(68_000), [car].into_iter()), same(25_000));
        assert_eq!(estimate(Some(same(25_000)), same(63_000), [car].into_iter()), same(25_000));
    }

    #[test]
    fn while_no_car_moves_it_is_the_house() {
        // A car that may draw 18 A told 10 A before it had time to follow.
        let mut car = moving(10_000, 18_000);
        let before = split(None, same(10_000), PerPhase::default(), [moving(10_000, 10_000)].into_iter());
        assert_eq!((before.other, before.evses), (same(0), same(10_000)));
        let now = |old, car| split(Some(old), same(38_000), PerPhase::default(), [car].into_iter());
        let told = split(Some(before), same(10_000), PerPhase::default(), [car].into_iter());
        assert_eq!(now(told, car).evses, same(18_000), "it may be the car");
        car.moves = PerPhase::default();
        let after = now(told, car);
        assert_eq!((after.other, after.evses), (same(28_000), same(10_000)));
        assert_eq!(after.other_at_most(), same(36_000), "or it has risen as another stopped");
    }

    #[test]
    fn a_car_that_leaves_takes_its_draw_with_it() {
        // One draws 16 A and leaves; the other told nothing since it was offered more.
        let (leaves, stays) =
            (moving(16_000, 16_000), Interval { moves: PerPhase::default(), ..moving(10_000, 32_000) });
        let before = split(None, same(31_000), PerPhase::default(), [leaves, stays].into_iter());
        assert_eq!((before.other, before.evses), (same(5_000), same(26_000)));
        let after = split(Some(before), same(15_000), PerPhase::default(), [stays].into_iter());
        assert_eq!((after.other, after.evses), (same(5_000), same(10_000)), "nothing is fed in");
    }

    #[test]
    fn what_no_car_explains_is_the_house() {
        let car = moving(10_000, 16_000);
        assert_eq!(estimate(Some(same(5_000)), same(40_000), [car].into_iter()), same(24_000));
        assert_eq!(estimate(Some(same(30_000)), same(20_000), [car].into_iter()), same(10_000));
    }

    #[test]
    fn what_is_fed_in_counts_when_it_is_certain() {
        // A car draws 16 A; another is told to rise from 6 A to 16 A.
        let steady = Interval::exactly(same(16_000));
        let (before, rising, after) =
            (Interval::exactly(same(6_000)), moving(6_000, 16_000), Interval::exactly(same(16_000)));
        let now = |old: Split, metered, car: Interval| {
            split(Some(old), same(metered), PerPhase::default(), [steady, car].into_iter())
        };
        let first = now(Split::default(), 22_000, before);
        assert_eq!((first.other, first.feeds), (same(0), same(0)));
        // It rises as the first one stops by itself, or it does not rise and the rest feeds in: who knows?
        let doubt = now(first, 16_000, rising);
        assert_eq!((doubt.other, doubt.feeds), (same(-6_000), same(0)));
        // The second one has told that it draws 16 A: then the first one has stopped, or the rest feeds in; it would
        // have shown in the meter as it fell.
        let certain = now(doubt, 16_000, after);
        assert_eq!((certain.other, certain.feeds), (same(-16_000), same(-16_000)));
    }

    #[test]
    fn generation_shows_as_negative_load() {
        let car = moving(6_000, 6_000);
        assert_eq!(estimate(None, same(-4_000), [car].into_iter()), same(-10_000));
    }

    proptest! {
        /// With exact draws the estimate is exact, whatever it was before.
        #[test]
        fn exact_draws_give_the_exact_load(
            old in -100_000_i64..100_000, house in -50_000_i64..100_000,
            draws in prop::collection::vec(0_i64..32_000, 0..8),
        ) {
            let total: i64 = draws.iter().sum();
            let evses = draws.iter().map(|d| moving(*d, *d));
            let got = estimate(Some(same(old)), same(house + total), evses);
            prop_assert_eq!(got[Phase::L2], Milliamps(house));
        }

        /// The estimate is always one that meter and intervals allow.
        #[test]
        fn the_estimate_is_possible(
            old in -100_000_i64..100_000, metered in -50_000_i64..200_000, overload in prop::sample::select(vec![Overload::None, Overload::New, Overload::Lasting]),
            evses in prop::collection::vec((0_i64..32_000, 0_i64..32_000), 0..8),
        ) {
            let intervals: Vec<_> = evses
                .iter()
                .map(|(a, b)| moving(*a.min(b), *a.max(b)))
                .collect();
            let least: i64 = evses.iter().map(|(a, b)| *a.min(b)).sum();
            let most: i64 = evses.iter().map(|(a, b)| *a.max(b)).sum();
            let old = Split { other: same(old), evses: same(7_000), ..Split::default() };
            let got = split(Some(old), same(metered), PerPhase([overload; 3]), intervals.into_iter()).other[Phase::L1].0;
            prop_assert!(got >= metered - most && got <= metered - least);
        }
    }
}
