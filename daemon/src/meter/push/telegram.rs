//! What a meter says by itself: values by OBIS code, and a reading made of them.
//!
//! In: telegrams in base units. Out: values for a [`Reading`](crate::site::event::Reading), or why there is none.
//! Invariant: a meter that tells counters only is never taken for one that draws nothing; a power whose sign contradicts
//! the counters is not believed. Pure.

use std::fmt;

use crate::device::Quantity;

/// C, D and E of an OBIS code of electricity (IEC 62056-61): 16.7.0 is the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Obis(pub u8, pub u8, pub u8);

impl fmt::Display for Obis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The values of one telegram, in W, Wh, V, A, Hz.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Telegram {
    /// By code, as they came.
    pub values: Vec<(Obis, f64)>,
}

/// Why a telegram makes no reading.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoReading {
    /// Counters only.
    #[error(
        "the meter tells its counter only: enter its PIN at the optical button and switch the detailed values on (InF)"
    )]
    PinMissing,
    /// Nothing of electricity.
    #[error("the telegram has neither counter nor power; it has {0}")]
    Nothing(String),
}

const VOLTAGES: [u8; 3] = [32, 52, 72];
const CURRENTS: [u8; 3] = [31, 51, 71];
const POWERS: [u8; 3] = [36, 56, 76];
const DRAWN: [u8; 3] = [21, 41, 61];
const FED: [u8; 3] = [22, 42, 62];
/// What a phase is taken to have where a meter tells no voltage.
const NOMINAL: f64 = 230.0;

impl Telegram {
    /// The value of a code.
    #[must_use]
    pub fn get(&self, obis: Obis) -> Option<f64> {
        self.values.iter().find(|(o, _)| *o == obis).map(|(_, v)| *v)
    }

    /// Power now, however the meter tells it: signed, drawn less fed, or as a sum of the phases.
    #[must_use]
    pub fn power(&self) -> Option<f64> {
        let difference = |drawn: u8, fed: u8| {
            let drawn = self.get(Obis(drawn, 7, 0))?;
            Some(drawn - self.get(Obis(fed, 7, 0)).unwrap_or(0.0))
        };
        let phases = self.phases().map(|p| p.into_iter().sum());
        self.get(Obis(16, 7, 0)).or_else(|| difference(1, 2)).or(phases)
    }

    /// Power of each phase, if all three are told.
    fn phases(&self) -> Option<[f64; 3]> {
        let mut powers = [0.0; 3];
        for (i, power) in powers.iter_mut().enumerate() {
            *power = self.get(Obis(POWERS[i], 7, 0)).or_else(|| {
                let drawn = self.get(Obis(DRAWN[i], 7, 0))?;
                Some(drawn - self.get(Obis(FED[i], 7, 0)).unwrap_or(0.0))
            })?;
        }
        Some(powers)
    }

    fn counter(&self, c: u8) -> Option<f64> {
        self.get(Obis(c, 8, 0)).or_else(|| {
            // Some tell their tariff registers only.
            let tariffs = [self.get(Obis(c, 8, 1)), self.get(Obis(c, 8, 2))];
            tariffs.iter().any(Option::is_some).then(|| tariffs.into_iter().flatten().sum())
        })
    }
}

/// Makes readings of a meter's telegrams.
#[derive(Debug, Clone, Default)]
pub struct Teller {
    /// The counters when the power turned negative.
    negative: Option<(f64, f64)>,
    /// The power's sign was found wrong.
    unsigned: bool,
}

/// So much must a counter move to be evidence, in Wh: more than the coarsest resolution with a PIN.
const EVIDENCE: f64 = 2.0;

impl Teller {
    /// The values of a reading in the base units of [`Quantity::kind`].
    ///
    /// Without values of its phases, each phase counts with the whole power: nobody knows on which it is drawn.
    pub fn values(&mut self, telegram: &Telegram) -> Result<Vec<(Quantity, f64)>, NoReading> {
        let (import, export) = (telegram.counter(1), telegram.counter(2));
        let Some(mut power) = telegram.power() else {
            if import.is_some() || export.is_some() {
                return Err(NoReading::PinMissing);
            }
            let found: Vec<String> = telegram.values.iter().take(8).map(|(o, _)| o.to_string()).collect();
            return Err(NoReading::Nothing(found.join(", ")));
        };
        let mut phases = telegram.phases();
        if self.doubtful(power, import, export) {
            power = power.abs();
            phases = phases.map(|p| p.map(f64::abs));
        }
        let mut values = vec![(Quantity::Power, power)];
        for (i, (voltage, current, phase)) in [
            (Quantity::VoltageL1, Quantity::CurrentL1, Quantity::PowerL1),
            (Quantity::VoltageL2, Quantity::CurrentL2, Quantity::PowerL2),
            (Quantity::VoltageL3, Quantity::CurrentL3, Quantity::PowerL3),
        ]
        .into_iter()
        .enumerate()
        {
            let volts = telegram.get(Obis(VOLTAGES[i], 7, 0)).unwrap_or(NOMINAL);
            let watts = phases.map_or(power, |p| p[i]);
            let amps = telegram.get(Obis(CURRENTS[i], 7, 0)).unwrap_or(watts.abs() / volts.max(1.0));
            values.extend([(voltage, volts), (current, amps), (phase, watts)]);
        }
        values.extend(import.map(|wh| (Quantity::Import, wh)));
        values.extend(export.map(|wh| (Quantity::Export, wh)));
        Ok(values)
    }

    /// Whether a negative power is not believed: while it was told, the meter counted what was drawn, not what was fed.
    fn doubtful(&mut self, power: f64, import: Option<f64>, export: Option<f64>) -> bool {
        if power >= 0.0 {
            self.negative = None;
            return false;
        }
        let Some(import) = import else { return self.unsigned };
        let export = export.unwrap_or(0.0);
        let (drawn, fed) = *self.negative.get_or_insert((import, export));
        if export - fed >= EVIDENCE {
            // It feeds in: negative is negative.
            self.unsigned = false;
            self.negative = Some((import, export));
        } else if import - drawn >= EVIDENCE {
            self.unsigned = true;
        }
        self.unsigned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telegram(values: &[(u8, u8, u8, f64)]) -> Telegram {
        Telegram { values: values.iter().map(|(c, d, e, v)| (Obis(*c, *d, *e), *v)).collect() }
    }

    fn value(values: &[(Quantity, f64)], quantity: Quantity) -> f64 {
        values.iter().find(|(q, _)| *q == quantity).unwrap().1
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these numbers are exact")]
    fn phases_are_told_or_the_worst_is_taken() {
        let mut teller = Teller::default();
        let whole = telegram(&[
            (1, 8, 0, 1000.0),
            (16, 7, 0, 2300.0),
            (36, 7, 0, 2300.0),
            (56, 7, 0, 460.0),
            (76, 7, 0, -460.0),
            (32, 7, 0, 230.0),
        ]);
        let values = teller.values(&whole).unwrap();
        assert_eq!(value(&values, Quantity::CurrentL1), 10.0);
        assert_eq!(value(&values, Quantity::PowerL3), -460.0);
        assert_eq!(value(&values, Quantity::Import), 1000.0);
        let total = telegram(&[(1, 8, 1, 400.0), (1, 8, 2, 600.0), (1, 7, 0, 2300.0)]);
        let values = teller.values(&total).unwrap();
        for current in [Quantity::CurrentL1, Quantity::CurrentL2, Quantity::CurrentL3] {
            assert_eq!(value(&values, current), 10.0);
        }
        assert_eq!(value(&values, Quantity::Import), 1000.0);
    }

    #[test]
    fn a_missing_pin_is_no_reading_of_nothing() {
        let mut teller = Teller::default();
        assert_eq!(teller.values(&telegram(&[(1, 8, 0, 2_324_000.0)])), Err(NoReading::PinMissing));
        assert!(matches!(teller.values(&telegram(&[(96, 1, 0, 1.0)])), Err(NoReading::Nothing(_))));
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these numbers are exact")]
    fn a_sign_that_contradicts_the_counters_is_not_believed() {
        let mut teller = Teller::default();
        let mut power = |import: f64, export: f64, watts: f64| {
            let t = telegram(&[(1, 8, 0, import), (2, 8, 0, export), (16, 7, 0, watts)]);
            value(&teller.values(&t).unwrap(), Quantity::Power)
        };
        assert_eq!(power(100.0, 50.0, -300.0), -300.0);
        assert_eq!(power(101.0, 50.0, -300.0), -300.0);
        assert_eq!(power(103.0, 50.0, -300.0), 300.0, "drawn was counted, and nothing fed");
        assert_eq!(power(104.0, 50.0, 200.0), 200.0);
        assert_eq!(power(104.0, 50.0, -200.0), 200.0);
        assert_eq!(power(104.0, 53.0, -200.0), -200.0, "fed was counted");
        assert_eq!(power(104.0, 54.0, -200.0), -200.0);
    }
}
