//! `MeterValues` → what the EVSE draws.
//!
//! In: a 1.6 MeterValues.req as it comes. Out: a [`Draw`], or nothing usable. Invariant: numbers that no EVSE can draw
//! never leave here.
//!
//! Terminals of `Current.Import`: values that name L1, L2 or L3 (also `L1-N`) go there, and a terminal that is not
//! named carries nothing. Values without a phase count in their order if there are two or three of them. A single one
//! says nothing about the number of phases: with a power beside it the number of conductors follows from P / (230 V ·
//! I), without one all three count, which is the most that can flow.

use std::time::Duration;

use super::message::{MeterValues, SampledValue};
use crate::{
    site::event::Draw,
    time::{Now, Wall},
    units::{Milliamps, Millivolts, WattHours, Watts},
};

/// Older records are history: an EVSE that was away delivers them when it is back.
const RECENT: Duration = Duration::from_mins(10);
/// Earlier times come from a clock that was never set; their age means nothing.
const CLOCK_WAS_SET: Wall = Wall(1_577_836_800_000);

const MAX_CURRENT_MA: f64 = 1_000_000.0;
const MAX_POWER_W: f64 = 1_000_000.0;
const MAX_ENERGY_WH: f64 = 1e12;

/// The value in thousandths or units of what `factors` names, if it is a number in range.
fn scaled(sample: &SampledValue, default: f64, factors: &[(&str, f64)], max: f64) -> Option<i64> {
    let factor = match sample.unit.as_str() {
        "" => default,
        unit => factors.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    let value = sample.value.trim().parse::<f64>().ok()? * factor;
    #[expect(clippy::cast_possible_truncation, reason = "finite and in range")]
    (value.is_finite() && value.abs() <= max).then(|| value.round() as i64)
}

fn terminal(phase: &str) -> Option<usize> {
    match phase {
        "L1" | "L1-N" => Some(0),
        "L2" | "L2-N" => Some(1),
        "L3" | "L3-N" => Some(2),
        _ => None,
    }
}

#[derive(Default)]
struct Sums {
    named: [Option<i64>; 3],
    bare: Vec<i64>,
    power: Option<i64>,
    power_by_phase: [Option<i64>; 3],
    energy: Option<i64>,
}

impl Sums {
    fn take(&mut self, sample: &SampledValue) {
        if sample.format == "SignedData" || sample.location == "EV" {
            return;
        }
        match sample.measurand.as_str() {
            "Current.Import" => {
                let Some(ma) = scaled(sample, 1000.0, &[("A", 1000.0), ("mA", 1.0)], MAX_CURRENT_MA) else {
                    return;
                };
                match terminal(&sample.phase) {
                    Some(at) => self.named[at] = Some(ma),
                    None if sample.phase.is_empty() => self.bare.push(ma),
                    None => {}
                }
            }
            "Power.Active.Import" => {
                let Some(w) = scaled(sample, 1.0, &[("W", 1.0), ("kW", 1000.0)], MAX_POWER_W) else {
                    return;
                };
                match terminal(&sample.phase) {
                    Some(at) => self.power_by_phase[at] = Some(w),
                    None if sample.phase.is_empty() => self.power = Some(w),
                    None => {}
                }
            }
            // §7.31: absent means this one.
            "" | "Energy.Active.Import.Register" if sample.phase.is_empty() => {
                let wh = scaled(sample, 1.0, &[("Wh", 1.0), ("kWh", 1000.0)], MAX_ENERGY_WH);
                self.energy = wh.filter(|wh| *wh >= 0).or(self.energy);
            }
            _ => {}
        }
    }

    fn power(&self) -> Option<i64> {
        let by_phase = self.power_by_phase.iter().flatten();
        self.power.or_else(|| by_phase.clone().next().map(|_| by_phase.sum()))
    }

    fn currents(&self) -> Option<[Milliamps; 3]> {
        if self.named.iter().any(Option::is_some) {
            return Some(self.named.map(|ma| Milliamps(ma.unwrap_or(0))));
        }
        let mut all = [Milliamps::ZERO; 3];
        match self.bare[..] {
            [] => return None,
            [one] => {
                let per_phase = Millivolts::NOMINAL.power_ceil(Milliamps(one)).0;
                let phases = match self.power() {
                    Some(power) if per_phase > 0 => (power + per_phase / 2) / per_phase,
                    _ => 3,
                };
                let phases = usize::try_from(phases.clamp(1, 3)).unwrap_or(3);
                all[..phases].fill(Milliamps(one));
            }
            ref several => {
                for (terminal, ma) in all.iter_mut().zip(several) {
                    *terminal = Milliamps(*ma);
                }
            }
        }
        Some(all)
    }
}

/// What is drawn now, if the message tells it.
pub(crate) fn draw(message: &MeterValues, now: Now) -> Option<Draw> {
    let history =
        |time: &str| Wall::parse(time).is_some_and(|at| at >= CLOCK_WAS_SET && at + RECENT < now.wall);
    let recent = message.meter_value.iter().rfind(|m| !history(&m.timestamp))?;
    let mut sums = Sums::default();
    recent.sampled_value.iter().for_each(|s| sums.take(s));
    let draw = Draw {
        at: now,
        currents: sums.currents(),
        power: sums.power().map(Watts),
        energy: sums.energy.map(WattHours),
    };
    (draw.currents.is_some() || draw.power.is_some() || draw.energy.is_some()).then_some(draw)
}

#[cfg(test)]
mod tests {
    use super::{super::message::read, *};

    fn at(time: &str) -> Now {
        Now { wall: Wall::parse(time).unwrap(), ..Now::default() }
    }

    fn of(samples: &str) -> Option<Draw> {
        let text = format!(
            r#"{{"meterValue":[{{"timestamp":"2026-11-23T12:00:00Z","sampledValue":[{samples}]}}]}}"#
        );
        draw(&read(&text), at("2026-11-23T12:00:05Z"))
    }

    fn milliamps(all: [i64; 3]) -> [Milliamps; 3] {
        all.map(Milliamps)
    }

    #[test]
    fn named_phases_go_to_their_terminals() {
        let draw = of(r#"{"value":"15.96","measurand":"Current.Import","phase":"L1","unit":"A"},
            {"value":16012,"measurand":"Current.Import","phase":"L2-N","unit":"mA"},
            {"value":"3.68","measurand":"Power.Active.Import","phase":"L1","unit":"kW"},
            {"value":"3680","measurand":"Power.Active.Import","phase":"L2"},
            {"value":"12.5","unit":"kWh"}"#)
        .unwrap();
        assert_eq!(draw.currents, Some(milliamps([15_960, 16_012, 0])));
        assert_eq!(draw.power, Some(Watts(7360)));
        assert_eq!(draw.energy, Some(WattHours(12_500)));
    }

    #[test]
    fn bare_currents_are_spread_as_the_power_says() {
        let bare = r#"{"value":"16","measurand":"Current.Import"}"#;
        let power = |w: i64| format!(r#"{bare},{{"value":"{w}","measurand":"Power.Active.Import"}}"#);
        assert_eq!(of(bare).unwrap().currents, Some(milliamps([16_000; 3])));
        assert_eq!(of(&power(3600)).unwrap().currents, Some(milliamps([16_000, 0, 0])));
        assert_eq!(of(&power(7400)).unwrap().currents, Some(milliamps([16_000, 16_000, 0])));
        assert_eq!(of(&power(11_000)).unwrap().currents, Some(milliamps([16_000; 3])));
        assert_eq!(of(&format!("{bare},{bare}")).unwrap().currents, Some(milliamps([16_000, 16_000, 0])));
    }

    #[test]
    fn nonsense_is_dropped() {
        for value in ["NaN", "inf", "-inf", "1e300", "", "16,0", "5000", "abc"] {
            let text = format!(r#"{{"value":"{value}","measurand":"Current.Import"}}"#);
            assert_eq!(of(&text), None, "{value}");
        }
        assert_eq!(of(r#"{"value":"16","measurand":"Current.Import","unit":"K"}"#), None);
        assert_eq!(of(r#"{"value":"-5"}"#), None);
        assert_eq!(of(r#"{"value":"16","measurand":"Request.Energy"}"#), None);
        assert_eq!(of(r#"{"value":"OCMF|{}","format":"SignedData"}"#), None);
    }

    #[test]
    fn history_is_not_the_present_but_a_dead_clock_is_no_history() {
        let message = r#"{"meterValue":{"timestamp":"2026-11-23T12:00:00Z","sampledValue":{"value":"1"}}}"#;
        assert!(draw(&read(message), at("2026-11-23T12:09:00Z")).is_some());
        assert!(draw(&read(message), at("2026-11-23T12:11:00Z")).is_none());
        let dead = message.replace("2026", "1970");
        assert!(draw(&read(&dead), at("2026-11-23T12:00:00Z")).is_some());
    }
}
