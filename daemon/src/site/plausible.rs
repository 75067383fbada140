//! Whether what a meter says can be.
//!
//! In: its answers, what the cars behind it draw by their own measurements, the fuse. Out: taken, or why not. Invariant:
//! an answer that is not taken leaves the one before it in place, with its age: the site plans on the worst case first
//! and falls back to its failsafe values when it lasts.
//!
//! What is found: answers from the future or out of order, values that no fuse lets through, powers that voltage and
//! current do not give, phases that all turn round at once, and a meter that stands still or runs backwards while the
//! cars behind it change.

use std::time::Duration;

use super::event::Reading;
use crate::{
    time::{Mono, Now},
    units::{Milliamps, Millivolts, PerPhase, Phase},
};

/// More than this many times its fuse flows for moments only.
const BEYOND: i64 = 3;
/// The highest voltage of a phase that is believed.
const VOLTAGE: Millivolts = Millivolts(300_000);
/// Clocks of two cores may differ by this.
const AHEAD: Duration = Duration::from_secs(1);
/// So long after a change the cars' own measurements may still be from before it.
const LAG: Duration = Duration::from_secs(30);
/// Cars that change by less say nothing.
const MOVED: Milliamps = Milliamps::amps(6);
/// So often it must run against the cars before it counts as wired the wrong way round.
const STRIKES: u8 = 3;

/// What a meter's answers are judged by.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    /// The last answer, taken or not.
    last: Option<Reading>,
    /// Since when all answers have been the same.
    same: Option<Same>,
    /// Meter and cars when both had been calm.
    calm: Option<(PerPhase<Milliamps>, PerPhase<Milliamps>)>,
    /// Since when the cars draw what they draw.
    cars: Option<(Mono, PerPhase<Milliamps>)>,
    /// All phases turned round at once.
    turned: bool,
    /// How often it ran against the cars.
    against: u8,
    doubts: bool,
}

/// A standstill.
#[derive(Debug, Clone, Copy)]
struct Same {
    since: Mono,
    /// What the cars told then.
    drew: Option<PerPhase<Milliamps>>,
    /// The cars have changed since: that lasts until an answer differs.
    frozen: bool,
}

/// What the cars behind a meter draw together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cars {
    /// If it is known exactly.
    pub exact: Option<PerPhase<Milliamps>>,
    /// By what each has told of late; it may have changed since.
    pub told: Option<PerPhase<Milliamps>>,
}

impl Judge {
    /// Whether the last answer was not taken.
    #[must_use]
    pub fn doubts(&self) -> bool {
        self.doubts
    }

    /// Judges an answer.
    pub fn judge(
        &mut self,
        new: &Reading,
        cars: Cars,
        fuse: Option<PerPhase<Milliamps>>,
        now: Now,
    ) -> Result<(), String> {
        let verdict = self.verdict(new, cars, fuse, now);
        self.doubts = verdict.is_err();
        verdict
    }

    fn verdict(
        &mut self,
        new: &Reading,
        Cars { exact: cars, told }: Cars,
        fuse: Option<PerPhase<Milliamps>>,
        now: Now,
    ) -> Result<(), String> {
        if new.at.mono > now.mono + AHEAD {
            return Err("its answer is from the future".to_owned());
        }
        if self.last.is_some_and(|last| last.at.mono > new.at.mono) {
            return Err("its answer is older than the one before".to_owned());
        }
        possible(new, fuse)?;
        let last = self.last.replace(*new);
        self.turns(last.as_ref(), new, cars);
        self.runs(new, cars);
        let frozen = self.stands_still(last.as_ref(), new, told);
        if let Some((_, drew)) = cars.zip(self.cars).filter(|(now, (_, before))| near(now, before)) {
            self.cars = Some(drew);
        } else {
            self.cars = cars.map(|cars| (new.at.mono, cars));
        }
        if frozen {
            return Err("stands still while the cars behind it change".to_owned());
        }
        if self.turned {
            return Err(
                "all its phases turned round at once: is it wired the wrong way round now?".to_owned()
            );
        }
        if self.against >= STRIKES {
            return Err("runs against the cars behind it: is it wired the wrong way round?".to_owned());
        }
        Ok(())
    }

    /// The same values with the other sign, from one answer to the next.
    fn turns(&mut self, last: Option<&Reading>, new: &Reading, cars: Option<PerPhase<Milliamps>>) {
        let Some(last) = last else { return };
        let mirrored = |p: Phase| {
            let (old, new) = (last.currents[p].0, new.currents[p].0);
            old.abs() >= MOVED.0 && (old + new).abs() <= old.abs() / 10
        };
        let calm = cars.zip(self.cars).is_none_or(|(now, (_, before))| near(&now, &before));
        if calm && Phase::ALL.into_iter().all(mirrored) {
            (self.turned, self.against) = (!self.turned, 0);
        }
    }

    /// Compares one calm state with the next: what the cars add must show.
    fn runs(&mut self, new: &Reading, cars: Option<PerPhase<Milliamps>>) {
        let (Some(cars), Some((since, before))) = (cars, self.cars) else { return };
        if !near(&cars, &before) || new.at.mono.since(since) < LAG {
            return;
        }
        let Some((metered, drew)) = self.calm.replace((new.currents, cars)) else { return };
        let mut strike = false;
        for phase in Phase::ALL {
            let (car, meter) = (cars[phase] - drew[phase], new.currents[phase] - metered[phase]);
            if car.0.abs() < MOVED.0 {
                continue;
            }
            let along = meter.0 * car.0.signum();
            if along >= car.0.abs() / 2 {
                (self.against, self.turned) = (0, false);
                return;
            }
            strike |= along <= -car.0.abs() / 2;
        }
        self.against = self.against.saturating_add(u8::from(strike)).min(STRIKES);
    }

    fn stands_still(
        &mut self,
        last: Option<&Reading>,
        new: &Reading,
        told: Option<PerPhase<Milliamps>>,
    ) -> bool {
        let same = last.is_some_and(|last| {
            (last.currents, last.voltages, last.power) == (new.currents, new.voltages, new.power)
        });
        if !same {
            self.same = None;
            return false;
        }
        let same = self.same.get_or_insert(Same { since: new.at.mono, drew: None, frozen: false });
        // Measurements of the cars that are older than the standstill say nothing about it.
        if same.frozen || new.at.mono.since(same.since) < LAG {
            return same.frozen;
        }
        let Some(told) = told else { return false };
        let before = *same.drew.get_or_insert(told);
        same.frozen = Phase::ALL.into_iter().any(|p| (told[p] - before[p]).0.abs() >= MOVED.0);
        same.frozen
    }
}

/// What no installation can show.
fn possible(new: &Reading, fuse: Option<PerPhase<Milliamps>>) -> Result<(), String> {
    let mut apparent: i128 = 0;
    for phase in Phase::ALL {
        let (volts, amps) = (new.voltages[phase], new.currents[phase]);
        if volts < Millivolts::ZERO || volts > VOLTAGE {
            return Err(format!("its voltage of {volts} on {phase} cannot be"));
        }
        if let Some(fuse) = fuse
            && amps.0.saturating_abs() > fuse[phase].0.saturating_mul(BEYOND)
        {
            return Err(format!(
                "its current of {amps} on {phase} cannot be behind a fuse of {}",
                fuse[phase]
            ));
        }
        apparent += i128::from(volts.0) * i128::from(amps.0).abs();
    }
    // A third more and half a kilowatt for rounding and for values from different instants.
    let most = apparent / 1_000_000 * 4 / 3 + 500;
    if i128::from(new.power.0).abs() > most {
        return Err(format!("its power of {} does not go with its voltages and currents", new.power));
    }
    Ok(())
}

fn near(a: &PerPhase<Milliamps>, b: &PerPhase<Milliamps>) -> bool {
    Phase::ALL.into_iter().all(|p| (a[p] - b[p]).0.abs() < Milliamps::amps(1).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{time::Wall, units::Watts};

    const FUSE: Option<PerPhase<Milliamps>> = Some(PerPhase([Milliamps::amps(63); 3]));

    fn at(s: u64) -> Now {
        let ms = i64::try_from(s).unwrap() * 1000;
        Now { mono: Mono(Duration::from_secs(s)), wall: Wall(ms) }
    }

    fn amps(amps: i64) -> PerPhase<Milliamps> {
        PerPhase([Milliamps::amps(amps); 3])
    }

    fn reading(s: u64, current: i64) -> Reading {
        Reading {
            at: at(s),
            currents: amps(current),
            voltages: PerPhase([Millivolts::NOMINAL; 3]),
            power: Watts(current * 690),
            import: None,
            export: None,
        }
    }

    fn known(cars: PerPhase<Milliamps>) -> Cars {
        Cars { exact: Some(cars), told: Some(cars) }
    }

    /// Second by second what the meter shows while the cars draw so much; gives the first refusal.
    fn watch(judge: &mut Judge, from: u64, to: u64, meter: i64, cars: i64) -> Option<String> {
        (from..to).find_map(|s| judge.judge(&reading(s, meter), known(amps(cars)), FUSE, at(s)).err())
    }

    #[test]
    fn what_cannot_be_is_not_taken() {
        let take = |reading: Reading| Judge::default().judge(&reading, Cars::default(), FUSE, at(10));
        assert_eq!(take(reading(10, 60)), Ok(()));
        assert_eq!(take(reading(10, 189)), Ok(()), "a short overload");
        for (wrong, says) in [
            (reading(12, 5), "from the future"),
            (reading(10, 190), "cannot be behind a fuse of 63.0 A"),
            (reading(10, -400), "cannot be"),
            (Reading { power: Watts(90_000), ..reading(10, 60) }, "does not go with"),
            (
                Reading { voltages: PerPhase([Millivolts(2_300_000); 3]), ..reading(10, 5) },
                "voltage of 2300.0 V",
            ),
        ] {
            let said = take(wrong).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn late_answers_are_not_taken() {
        let mut judge = Judge::default();
        judge.judge(&reading(10, 5), Cars::default(), FUSE, at(10)).unwrap();
        assert!(judge.judge(&reading(8, 5), Cars::default(), FUSE, at(11)).unwrap_err().contains("older"));
        judge.judge(&reading(12, 5), Cars::default(), FUSE, at(12)).unwrap();
        assert!(!judge.doubts());
    }

    #[test]
    fn a_meter_that_stands_still_while_cars_change_is_found() {
        let mut judge = Judge::default();
        assert_eq!(watch(&mut judge, 0, 100, 30, 10), None, "nothing changes: nothing is wrong");
        let said = watch(&mut judge, 100, 140, 30, 26).unwrap();
        assert!(said.contains("stands still"), "{said}");
        // It moves again.
        assert_eq!(watch(&mut judge, 140, 200, 46, 26), None);
    }

    #[test]
    fn a_standstill_is_found_while_cars_move_and_lasts_until_an_answer_differs() {
        let mut judge = Judge::default();
        let mut say = |second: u64, meter: i64, told: Option<i64>| {
            let cars = Cars { exact: None, told: told.map(amps) };
            judge.judge(&reading(second, meter), cars, FUSE, at(second)).is_err()
        };
        assert!((0..40).all(|s| !say(s, 50, Some(40))));
        assert!(say(40, 50, Some(30)), "they have changed");
        assert!(say(41, 50, None) && say(42, 50, Some(40)), "what they do now does not matter");
        assert!(!say(43, 49, Some(40)));
    }

    #[test]
    fn measurements_of_cars_that_come_late_raise_no_alarm() {
        let mut judge = Judge::default();
        for (n, cars) in [0, 16, 6, 16, 0, 32].into_iter().enumerate() {
            let from = u64::try_from(n).unwrap() * 100;
            // The meter shows the change at once, the car tells it 20 s later.
            let before = [0, 0, 16, 6, 16, 0][n];
            assert_eq!(watch(&mut judge, from, from + 20, 5 + cars, before), None);
            assert_eq!(watch(&mut judge, from + 20, from + 100, 5 + cars, cars), None);
        }
    }

    #[test]
    fn phases_that_all_turn_round_at_once_are_found_and_forgiven_when_they_turn_back() {
        let mut judge = Judge::default();
        assert_eq!(watch(&mut judge, 0, 50, 40, 16), None);
        let said = watch(&mut judge, 50, 51, -40, 16).unwrap();
        assert!(said.contains("turned round"), "{said}");
        assert!(watch(&mut judge, 51, 52, -38, 16).is_some());
        assert!(watch(&mut judge, 52, 53, -38, 16).is_some());
        assert_eq!(watch(&mut judge, 53, 60, 38, 16), None);
    }

    #[test]
    fn a_meter_that_was_always_the_wrong_way_round_is_found_by_the_cars() {
        let mut judge = Judge::default();
        let mut found = None;
        for (n, cars) in [0, 16, 0, 16].into_iter().enumerate() {
            let from = u64::try_from(n).unwrap() * 100;
            found = found.or(watch(&mut judge, from, from + 100, -5 - cars, cars));
        }
        assert!(found.unwrap().contains("runs against the cars"));
    }

    #[test]
    fn solar_power_that_feeds_in_is_no_fault() {
        let mut judge = Judge::default();
        for (n, (house, cars)) in [(-30, 0), (-20, 16), (-40, 6), (5, 16), (-10, 0)].into_iter().enumerate() {
            let from = u64::try_from(n).unwrap() * 100;
            assert_eq!(watch(&mut judge, from, from + 100, house + cars, cars), None, "{n}");
        }
    }
}
