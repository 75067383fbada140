//! Registers → [`Reading`].
//!
//! In: a definition and the registers of its blocks. Out: one reading, or the first value that cannot be believed.
//! Invariant: a reading is whole or not at all; no value outside its window ever leaves this room. Pure.

use crate::{
    device::{
        Definition, Quantity,
        definition::{Block, Field},
    },
    site::event::Reading,
    time::Now,
    units::{Milliamps, Millivolts, PerPhase, Phase, WattHours, Watts},
};

/// A value that cannot be believed. Each names the field as the definition does.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A block has another number of registers than was asked for.
    #[error("short answer: {got} of {wanted} registers from 0x{start:04X}")]
    Length {
        /// First register.
        start: u16,
        /// Asked for.
        wanted: u16,
        /// Answered.
        got: usize,
    },
    /// The device says "not available" (NaN, infinite, or the definition's pattern).
    #[error("{quantity} (register 0x{register:04X}) is not available: {shown}")]
    NotAvailable {
        /// Which value.
        quantity: Quantity,
        /// Where.
        register: u16,
        /// What stands there.
        shown: String,
    },
    /// Outside the definition's window.
    #[error(
        "{quantity} (register 0x{register:04X}) is {value} {}, outside {min} to {max}", quantity.kind().base()
    )]
    Implausible {
        /// Which value.
        quantity: Quantity,
        /// Where.
        register: u16,
        /// In the base unit.
        value: f64,
        /// Least plausible.
        min: f64,
        /// Largest plausible.
        max: f64,
    },
    /// Outside the definition's window, told by the meter itself.
    #[error("{quantity} is {value} {}, outside {min} to {max}", quantity.kind().base())]
    Outside {
        /// Which value.
        quantity: Quantity,
        /// In the base unit.
        value: f64,
        /// Least plausible.
        min: f64,
        /// Largest plausible.
        max: f64,
    },
    /// The definition does not give it; a checked definition of a meter does.
    #[error("{0} is not in the device's definition")]
    Missing(Quantity),
}

impl DecodeError {
    /// The value that is wrong.
    #[must_use]
    pub const fn quantity(&self) -> Option<Quantity> {
        match self {
            Self::Length { .. } => None,
            Self::NotAvailable { quantity, .. }
            | Self::Implausible { quantity, .. }
            | Self::Outside { quantity, .. }
            | Self::Missing(quantity) => Some(*quantity),
        }
    }
}

/// Makes a reading of the registers of all blocks, in the definition's order.
///
/// A current is signed by the direction of its phase's power; many meters give its magnitude only. Of a current that
/// flows back, the active part counts. Without a total the power is the sum of the phases. `inverted` turns a meter round that is mounted the other way: signs change,
/// import and export change places.
pub fn decode(
    definition: &Definition,
    registers: &[Vec<u16>],
    inverted: bool,
    at: Now,
) -> Result<Reading, DecodeError> {
    let values = values(definition, registers)?
        .into_iter()
        .map(|(quantity, value)| Ok((quantity, value?)))
        .collect::<Result<Vec<(Quantity, f64)>, DecodeError>>()?;
    reading(&values, inverted, at)
}

/// Makes a reading of values that a meter told by itself.
pub(super) fn assemble(
    definition: &Definition,
    values: &[(Quantity, f64)],
    inverted: bool,
    at: Now,
) -> Result<Reading, DecodeError> {
    for (quantity, value) in values.iter().copied() {
        plausible(definition, quantity, value)?;
    }
    reading(values, inverted, at)
}

/// The value, if it lies in the definition's window.
pub(super) fn plausible(definition: &Definition, quantity: Quantity, value: f64) -> Result<f64, DecodeError> {
    match definition.window(quantity.kind()) {
        Some(window) if window.holds(value) => Ok(value),
        Some(window) => Err(DecodeError::Outside { quantity, value, min: window.min, max: window.max }),
        None => Err(DecodeError::Missing(quantity)),
    }
}

fn reading(values: &[(Quantity, f64)], inverted: bool, at: Now) -> Result<Reading, DecodeError> {
    let optional = |quantity| values.iter().find(|(q, _)| *q == quantity).map(|(_, v)| *v);
    let required = |quantity| optional(quantity).ok_or(DecodeError::Missing(quantity));
    let turn = if inverted { -1.0 } else { 1.0 };

    let mut voltages = PerPhase::<Millivolts>::default();
    let mut currents = PerPhase::<Milliamps>::default();
    let mut sum = 0.0;
    for phase in Phase::ALL {
        let power = required(Quantity::power(phase))? * turn;
        let magnitude = required(Quantity::current(phase))?.abs();
        let voltage = required(Quantity::voltage(phase))?;
        voltages[phase] = Millivolts(thousandths(voltage));
        // Only its active part flows back; the reactive part loads the fuse and relieves nobody.
        let back = || if voltage > 0.0 { magnitude.min(-power / voltage) } else { 0.0 };
        currents[phase] = Milliamps(thousandths(if power < 0.0 { -back() } else { magnitude }));
        sum += power;
    }
    let power = optional(Quantity::Power).map_or(sum, |total| total * turn);
    let (import, export) =
        if inverted { (Quantity::Export, Quantity::Import) } else { (Quantity::Import, Quantity::Export) };
    Ok(Reading {
        at,
        currents,
        voltages,
        power: Watts(whole(power)),
        import: optional(import).map(|wh| WattHours(whole(wh))),
        export: optional(export).map(|wh| WattHours(whole(wh))),
    })
}

/// A quantity and its value in its base unit, or why it cannot be believed.
pub type Value = (Quantity, Result<f64, DecodeError>);

/// Each value in its base unit, or why it cannot be believed; an error as a whole where a block is short.
pub fn values(definition: &Definition, registers: &[Vec<u16>]) -> Result<Vec<Value>, DecodeError> {
    let mut values = Vec::with_capacity(16);
    for (i, block) in definition.blocks.iter().enumerate() {
        let answer = registers.get(i).map_or(&[][..], Vec::as_slice);
        if answer.len() != usize::from(block.count) {
            let (start, wanted) = (block.start, block.count);
            return Err(DecodeError::Length { start, wanted, got: answer.len() });
        }
        values.extend(block.fields.iter().map(|f| (f.quantity, value(definition, block, f, answer))));
    }
    Ok(values)
}

/// One value in its base unit. `answer` holds the whole block.
fn value(definition: &Definition, block: &Block, field: &Field, answer: &[u16]) -> Result<f64, DecodeError> {
    let (quantity, register) = (field.quantity, field.register);
    let from = usize::from(register - block.start);
    let raw = &answer[from..from + usize::from(field.form.registers())];
    let bits = field.form.bits(raw, field.order);
    let number = field.form.number(bits);
    if field.invalid == Some(bits) || !number.is_finite() {
        let shown =
            if number.is_finite() { format!("0x{bits:0w$X}", w = raw.len() * 4) } else { number.to_string() };
        return Err(DecodeError::NotAvailable { quantity, register, shown });
    }
    // SunSpec's sunssf: -10 to 10, 0x8000 for "not available".
    let power = match field.power.map(|at| answer[usize::from(at - block.start)].cast_signed()) {
        None => 0,
        Some(power @ -10..=10) => power,
        Some(power) => {
            let shown = format!("its scale is 10^{power}");
            return Err(DecodeError::NotAvailable { quantity, register, shown });
        }
    };
    let value = number * field.factor * 10_f64.powi(i32::from(power));
    match definition.window(quantity.kind()) {
        Some(window) if window.holds(value) => Ok(value),
        Some(window) => {
            Err(DecodeError::Implausible { quantity, register, value, min: window.min, max: window.max })
        }
        None => Err(DecodeError::Missing(quantity)),
    }
}

fn thousandths(value: f64) -> i64 {
    whole(value * 1000.0)
}

/// The nearest whole number. Windows keep values far within range (`definition`).
#[expect(clippy::cast_possible_truncation, reason = "finite and within 10^15 by the definition's windows")]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::{Catalog, Kind, definition::DeviceKind, quantity::Form};

    fn sdm630() -> std::sync::Arc<Definition> {
        Catalog::load(None).unwrap().find("eastron-sdm630").unwrap()
    }

    /// Registers 0x0000 to 0x004B as an SDM630 answers them, big-endian singles; written as bytes, so that no code
    /// of this crate makes what it reads.
    const IMAGE: &str = "\
        43670000 43668000 43660000 \
        4121999A 40C00000 3F800000 \
        4512C000 C4ABE000 43650000 \
        00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
        00000000 00000000 00000000 00000000 00000000 \
        44998000 \
        00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
        4247EB85 \
        449A5225 42F6E979";

    fn image() -> Vec<u16> {
        let hex: String = IMAGE.split_whitespace().collect();
        (0..hex.len() / 4).map(|i| u16::from_str_radix(&hex[4 * i..4 * i + 4], 16).unwrap()).collect()
    }

    fn put(registers: &mut [u16], at: usize, value: f32) {
        registers[at] = (value.to_bits() >> 16) as u16;
        registers[at + 1] = (value.to_bits() & 0xFFFF) as u16;
    }

    #[test]
    fn an_sdm630_image_becomes_a_reading() {
        let at = Now::default().plus(std::time::Duration::from_secs(7));
        let reading = decode(&sdm630(), &[image()], false, at).unwrap();
        assert_eq!(
            reading,
            Reading {
                at,
                currents: PerPhase([Milliamps(10_100), Milliamps(-5965), Milliamps(1000)]),
                voltages: PerPhase([Millivolts(231_000), Millivolts(230_500), Millivolts(230_000)]),
                power: Watts(1228),
                import: Some(WattHours(1_234_567)),
                export: Some(WattHours(123_456)),
            }
        );
    }

    #[test]
    fn a_meter_mounted_the_other_way_round_is_turned() {
        let reading = decode(&sdm630(), &[image()], true, Now::default()).unwrap();
        assert_eq!(reading.currents, PerPhase([Milliamps(-10_100), Milliamps(6000), Milliamps(-996)]));
        assert_eq!(reading.voltages.0[0], Millivolts(231_000));
        assert_eq!(reading.power, Watts(-1228));
        assert_eq!(reading.import, Some(WattHours(123_456)));
        assert_eq!(reading.export, Some(WattHours(1_234_567)));
    }

    #[test]
    fn an_abb_image_becomes_a_reading_and_its_missing_phase_is_named() {
        let d = Catalog::load(None).unwrap().find("abb-b23").unwrap();
        // 230.1 V, 230.2 V, 230.3 V; 16.00 A, 0.25 A, 0 A; -3676.31 W in all: -3680.12 W, 3.81 W, 0 W; 50.01 Hz.
        let mut phases = vec![0_u16; 45];
        for (register, bytes) in [
            (0x5B00, 2301),
            (0x5B02, 2302),
            (0x5B04, 2303),
            (0x5B0C, 1600),
            (0x5B0E, 25),
            (0x5B14, 0xFFFA_63F1_u32),
            (0x5B16, 0xFFFA_6274),
            (0x5B18, 381),
        ] {
            phases[register - 0x5B00] = (bytes >> 16) as u16;
            phases[register - 0x5AFF] = (bytes & 0xFFFF) as u16;
        }
        phases[0x2C] = 5001;
        let energy = vec![0, 0, 0x0001, 0xE240, 0, 0, 0, 100];
        let reading = decode(&d, &[phases.clone(), energy.clone()], false, Now::default()).unwrap();
        assert_eq!(
            reading.voltages,
            PerPhase([Millivolts(230_100), Millivolts(230_200), Millivolts(230_300)])
        );
        assert_eq!(reading.currents, PerPhase([Milliamps(-15_994), Milliamps(250), Milliamps(0)]));
        assert_eq!(reading.power, Watts(-3676));
        assert_eq!(reading.import, Some(WattHours(1_234_560)));
        assert_eq!(reading.export, Some(WattHours(1000)));

        (phases[0x10], phases[0x11]) = (0xFFFF, 0xFFFF);
        let error = decode(&d, &[phases, energy], false, Now::default()).unwrap_err().to_string();
        assert_eq!(error, "current-l3 (register 0x5B10) is not available: 0xFFFFFFFF");
    }

    #[test]
    fn nonsense_is_refused_by_name_and_value() {
        let refused = |at: usize, value: f32| {
            let mut registers = image();
            put(&mut registers, at, value);
            decode(&sdm630(), &[registers], false, Now::default()).unwrap_err().to_string()
        };
        assert_eq!(refused(0x00, f32::NAN), "voltage-l1 (register 0x0000) is not available: NaN");
        assert_eq!(refused(0x08, f32::INFINITY), "current-l2 (register 0x0008) is not available: inf");
        assert_eq!(refused(0x04, 400.0), "voltage-l3 (register 0x0004) is 400 V, outside 0 to 300");
        assert_eq!(
            refused(0x34, -5.0e6),
            "power (register 0x0034) is -5000000 W, outside -4200000 to 4200000"
        );
        assert_eq!(refused(0x48, -1.0), "import (register 0x0048) is -1000 Wh, outside 0 to 100000000000");

        let mut short = image();
        short.pop();
        let error = decode(&sdm630(), &[short], false, Now::default()).unwrap_err().to_string();
        assert_eq!(error, "short answer: 75 of 76 registers from 0x0000");
        let error = decode(&sdm630(), &[], false, Now::default()).unwrap_err().to_string();
        assert_eq!(error, "short answer: 0 of 76 registers from 0x0000");
    }

    proptest! {
        /// Whatever a device answers: an error or values within the windows, never a panic.
        #[test]
        fn any_answer_is_refused_or_plausible(registers in prop::collection::vec(any::<u16>(), 0..90)) {
            let d = sdm630();
            if let Ok(reading) = decode(&d, &[registers], false, Now::default()) {
                for voltage in reading.voltages.0 {
                    prop_assert!((0..=300_000).contains(&voltage.0));
                }
                for current in reading.currents.0 {
                    prop_assert!((-6_000_000..=6_000_000).contains(&current.0));
                }
                prop_assert!((-4_200_000..=4_200_000).contains(&reading.power.0));
            }
        }

        /// What is written into the registers of any shipped definition is what is read.
        #[test]
        fn every_shipped_definition_reads_what_was_written(
            volts in prop::array::uniform3(2000_i64..2600),
            amps in prop::array::uniform3(0_i64..600),
            watts in prop::array::uniform3(-1300_i64..1300),
            kwh in prop::array::uniform2(0_i64..1_000_000),
        ) {
            for d in Catalog::load(None).unwrap().iter().filter(|d| d.kind == DeviceKind::Meter && !d.blocks.is_empty()) {
                // In tenths of a volt and an ampere, tens of watts, kilowatt-hours: exact in every meter's scale.
                let wanted = |q: Quantity| -> f64 {
                    let of = |values: &[i64; 3], make: fn(Phase) -> Quantity| {
                        Phase::ALL.iter().position(|p| make(*p) == q).map(|i| values[i])
                    };
                    if let Some(v) = of(&volts, Quantity::voltage) { return v as f64 / 10.0; }
                    if let Some(a) = of(&amps, Quantity::current) { return a as f64 / 10.0; }
                    if let Some(w) = of(&watts, Quantity::power) { return w as f64 * 10.0; }
                    match q {
                        Quantity::Power => watts.iter().sum::<i64>() as f64 * 10.0,
                        Quantity::Import => kwh[0] as f64 * 1000.0,
                        Quantity::Export => kwh[1] as f64 * 1000.0,
                        _ => 50.0,
                    }
                };
                let registers: Vec<_> = d.blocks.iter().map(|b| encode(b, wanted)).collect();
                let reading = decode(d, &registers, false, Now::default()).unwrap();
                for (i, phase) in Phase::ALL.into_iter().enumerate() {
                    prop_assert_eq!(reading.voltages[phase].0, volts[i] * 100, "{}", d.name);
                    let got = reading.currents[phase].0;
                    if watts[i] < 0 {
                        let active = if volts[i] > 0 { watts[i] * -10_000 * 10 / volts[i] } else { 0 };
                        let expected = -(amps[i] * 100).min(active);
                        prop_assert!((got - expected).abs() <= 1, "{}: {got} instead of {expected}", d.name);
                    } else {
                        prop_assert_eq!(got, amps[i] * 100, "{}", d.name);
                    }
                }
                prop_assert_eq!(reading.power.0, watts.iter().sum::<i64>() * 10, "{}", d.name);
                let has = |q| d.blocks.iter().any(|b| b.fields.iter().any(|f| f.quantity == q));
                // A single carries 24 bits: to the next 64 Wh at 1 GWh.
                for (quantity, got, expected) in
                    [(Quantity::Import, reading.import, kwh[0]), (Quantity::Export, reading.export, kwh[1])]
                {
                    prop_assert_eq!(got.is_some(), has(quantity), "{}", d.name);
                    if let Some(got) = got {
                        prop_assert!((got.0 - expected * 1000).abs() <= 64, "{} {}", d.name, quantity);
                    }
                }
            }
        }
    }

    /// The registers of a block as a device would hold them.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the values are small and fit"
    )]
    fn encode(block: &Block, wanted: impl Fn(Quantity) -> f64) -> Vec<u16> {
        let mut registers = vec![0_u16; usize::from(block.count)];
        for field in &block.fields {
            let mut raw = wanted(field.quantity) / field.factor;
            if let Some(at) = field.power {
                // What keeps the test's values whole and within 16 bits.
                let power: i16 = match field.quantity.kind() {
                    Kind::Voltage | Kind::Current | Kind::Frequency => -1,
                    Kind::Power => 1,
                    Kind::Energy => 3,
                };
                registers[usize::from(at - block.start)] = power.cast_unsigned();
                raw /= 10_f64.powi(i32::from(power));
            }
            let bytes: Vec<u8> = match field.form {
                Form::U16 => (raw.round() as u16).to_be_bytes().to_vec(),
                Form::I16 => (raw.round() as i16).to_be_bytes().to_vec(),
                Form::U32 => (raw.round() as u32).to_be_bytes().to_vec(),
                Form::I32 => (raw.round() as i32).to_be_bytes().to_vec(),
                Form::F32 => (raw as f32).to_be_bytes().to_vec(),
                Form::U64 => (raw.round() as u64).to_be_bytes().to_vec(),
                Form::I64 => (raw.round() as i64).to_be_bytes().to_vec(),
                Form::F64 => raw.to_be_bytes().to_vec(),
            };
            let mut words: Vec<_> = bytes.chunks(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect();
            if field.order == crate::device::quantity::WordOrder::LowFirst {
                words.reverse();
            }
            let from = usize::from(field.register - block.start);
            registers[from..from + words.len()].copy_from_slice(&words);
        }
        registers
    }
}
