//! What a register can hold: which physical quantity, in which unit, in which binary form.
//!
//! In: words of a definition file. Out: types that the decoder switches on. Invariant: a unit always fits its
//! quantity once a definition is loaded.

use std::fmt;

use serde::Deserialize;

use crate::units::Phase;

/// A value that a device measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Voltage of L1 against neutral.
    VoltageL1,
    /// Voltage of L2 against neutral.
    VoltageL2,
    /// Voltage of L3 against neutral.
    VoltageL3,
    /// Current of L1.
    CurrentL1,
    /// Current of L2.
    CurrentL2,
    /// Current of L3.
    CurrentL3,
    /// Active power of L1, positive when drawn.
    PowerL1,
    /// Active power of L2, positive when drawn.
    PowerL2,
    /// Active power of L3, positive when drawn.
    PowerL3,
    /// Active power of all phases, positive when drawn.
    Power,
    /// Energy drawn so far.
    Import,
    /// Energy fed in so far.
    Export,
    /// Frequency of the grid.
    Frequency,
}

/// What a plausibility window is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Volts.
    Voltage,
    /// Amperes of one conductor.
    Current,
    /// Watts, of one phase or of all.
    Power,
    /// Watt-hours.
    Energy,
    /// Hertz.
    Frequency,
}

impl Quantity {
    /// Voltage of a phase.
    #[must_use]
    pub const fn voltage(phase: Phase) -> Self {
        match phase {
            Phase::L1 => Self::VoltageL1,
            Phase::L2 => Self::VoltageL2,
            Phase::L3 => Self::VoltageL3,
        }
    }

    /// Current of a phase.
    #[must_use]
    pub const fn current(phase: Phase) -> Self {
        match phase {
            Phase::L1 => Self::CurrentL1,
            Phase::L2 => Self::CurrentL2,
            Phase::L3 => Self::CurrentL3,
        }
    }

    /// Active power of a phase.
    #[must_use]
    pub const fn power(phase: Phase) -> Self {
        match phase {
            Phase::L1 => Self::PowerL1,
            Phase::L2 => Self::PowerL2,
            Phase::L3 => Self::PowerL3,
        }
    }

    /// The kind it is judged as.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::VoltageL1 | Self::VoltageL2 | Self::VoltageL3 => Kind::Voltage,
            Self::CurrentL1 | Self::CurrentL2 | Self::CurrentL3 => Kind::Current,
            Self::PowerL1 | Self::PowerL2 | Self::PowerL3 | Self::Power => Kind::Power,
            Self::Import | Self::Export => Kind::Energy,
            Self::Frequency => Kind::Frequency,
        }
    }

    /// As a definition file writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VoltageL1 => "voltage-l1",
            Self::VoltageL2 => "voltage-l2",
            Self::VoltageL3 => "voltage-l3",
            Self::CurrentL1 => "current-l1",
            Self::CurrentL2 => "current-l2",
            Self::CurrentL3 => "current-l3",
            Self::PowerL1 => "power-l1",
            Self::PowerL2 => "power-l2",
            Self::PowerL3 => "power-l3",
            Self::Power => "power",
            Self::Import => "import",
            Self::Export => "export",
            Self::Frequency => "frequency",
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Kind {
    /// As a definition file writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Voltage => "voltage",
            Self::Current => "current",
            Self::Power => "power",
            Self::Energy => "energy",
            Self::Frequency => "frequency",
        }
    }

    /// The unit that decoded values and windows of this kind are in.
    #[must_use]
    pub const fn base(self) -> Unit {
        match self {
            Self::Voltage => Unit::V,
            Self::Current => Unit::A,
            Self::Power => Unit::W,
            Self::Energy => Unit::Wh,
            Self::Frequency => Unit::Hz,
        }
    }
}

/// The unit of a register after scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(non_camel_case_types, reason = "units are written as physics writes them")]
pub enum Unit {
    /// Volt.
    V,
    /// Millivolt.
    mV,
    /// Ampere.
    A,
    /// Milliampere.
    mA,
    /// Watt.
    W,
    /// Kilowatt.
    kW,
    /// Milliwatt.
    mW,
    /// Watt-hour.
    Wh,
    /// Kilowatt-hour.
    kWh,
    /// Hertz.
    Hz,
}

impl Unit {
    /// What it measures, and how many base units ([`Kind::base`]) one of it is.
    #[must_use]
    pub const fn factor(self) -> (Kind, f64) {
        match self {
            Self::V => (Kind::Voltage, 1.0),
            Self::mV => (Kind::Voltage, 0.001),
            Self::A => (Kind::Current, 1.0),
            Self::mA => (Kind::Current, 0.001),
            Self::W => (Kind::Power, 1.0),
            Self::kW => (Kind::Power, 1000.0),
            Self::mW => (Kind::Power, 0.001),
            Self::Wh => (Kind::Energy, 1.0),
            Self::kWh => (Kind::Energy, 1000.0),
            Self::Hz => (Kind::Frequency, 1.0),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Binary form of a value over one, two or four registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Unsigned, one register.
    U16,
    /// Two's complement, one register.
    I16,
    /// Unsigned, two registers.
    U32,
    /// Two's complement, two registers.
    I32,
    /// IEEE 754 single, two registers.
    F32,
    /// Unsigned, four registers.
    U64,
    /// Two's complement, four registers.
    I64,
    /// IEEE 754 double, four registers.
    F64,
}

impl Form {
    /// How many registers it takes: 1, 2 or 4.
    #[must_use]
    pub const fn registers(self) -> u16 {
        match self {
            Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
        }
    }

    /// Least and largest number of a whole form; everything for a float.
    #[must_use]
    pub const fn range(self) -> (f64, f64) {
        match self {
            Self::U16 => (0.0, u16::MAX as f64),
            Self::I16 => (i16::MIN as f64, i16::MAX as f64),
            Self::U32 => (0.0, u32::MAX as f64),
            Self::I32 => (i32::MIN as f64, i32::MAX as f64),
            // The largest that a double tells apart from its neighbours.
            Self::U64 => (0.0, 9_007_199_254_740_992.0),
            Self::I64 => (-9_007_199_254_740_992.0, 9_007_199_254_740_992.0),
            Self::F32 | Self::F64 => (f64::MIN, f64::MAX),
        }
    }

    /// The bits of the registers, the most significant register first.
    #[must_use]
    pub fn bits(self, registers: &[u16], order: WordOrder) -> u64 {
        let shift = |bits: u64, register: &u16| bits << 16 | u64::from(*register);
        match order {
            WordOrder::HighFirst => registers.iter().fold(0, shift),
            WordOrder::LowFirst => registers.iter().rev().fold(0, shift),
        }
    }

    /// The number that the bits stand for. Floats may be NaN or infinite.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the low bits of a register value are reread as the form says"
    )]
    pub fn number(self, bits: u64) -> f64 {
        match self {
            Self::U16 | Self::U32 | Self::U64 => bits as f64,
            Self::I16 => f64::from(bits as u16 as i16),
            Self::I32 => f64::from(bits as u32 as i32),
            Self::I64 => bits as i64 as f64,
            Self::F32 => f64::from(f32::from_bits(bits as u32)),
            Self::F64 => f64::from_bits(bits),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// Which register of a longer value comes first on the wire. Bytes within a register are big-endian always
/// (MODBUS Application Protocol V1.1b3 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WordOrder {
    /// The most significant register first.
    #[default]
    HighFirst,
    /// The least significant register first.
    LowFirst,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "these numbers are exact")]
    fn registers_become_numbers_in_both_word_orders() {
        use {Form::*, WordOrder::*};
        for (form, registers, order, expected) in [
            (U16, &[0xFFFF][..], HighFirst, 65_535.0),
            (I16, &[0xFFFF], HighFirst, -1.0),
            (U32, &[0x0001, 0x0000], HighFirst, 65_536.0),
            (U32, &[0x0001, 0x0000], LowFirst, 1.0),
            (I32, &[0xFFFF, 0xFFFE], HighFirst, -2.0),
            (I32, &[0xFFFE, 0xFFFF], LowFirst, -2.0),
            (F32, &[0x4366, 0x8000], HighFirst, 230.5),
            (F32, &[0x8000, 0x4366], LowFirst, 230.5),
            (U64, &[0, 0, 1, 2], HighFirst, 65_538.0),
            (I64, &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF], HighFirst, -1.0),
            (F64, &[0x4060, 0, 0, 0], HighFirst, 128.0),
            (F64, &[0, 0, 0, 0x4060], LowFirst, 128.0),
        ] {
            assert_eq!(registers.len(), usize::from(form.registers()), "{form}");
            assert_eq!(
                form.number(form.bits(registers, order)),
                expected,
                "{form} {registers:04X?} {order:?}"
            );
        }
    }
}
