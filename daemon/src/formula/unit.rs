//! What a number counts, and what becomes of it in a calculation.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A unit, or what stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Unit {
    /// A bare number: takes the unit of what it meets.
    #[default]
    None,
    /// Hundredths; scales.
    Percent,
    /// Power.
    Watts,
    /// Current.
    Amps,
    /// Voltage.
    Volts,
    /// Energy.
    WattHours,
    /// Cents per kilowatt hour.
    Price,
    /// A condition.
    Truth,
    /// A text.
    Text,
}

impl Unit {
    /// Whether it counts something.
    #[must_use]
    pub const fn is_number(self) -> bool {
        !matches!(self, Self::Truth | Self::Text)
    }

    /// The unit of a sum, of a comparison or of a choice; none if they do not fit.
    #[must_use]
    pub fn common(self, other: Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Self::None, b) if b.is_number() => Some(b),
            (a, Self::None) if a.is_number() => Some(a),
            _ => None,
        }
    }

    /// The unit of a product.
    #[must_use]
    pub fn times(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::None, Self::Percent) | (Self::Percent, Self::None | Self::Percent) => Some(Self::None),
            (Self::None | Self::Percent, b) if b.is_number() => Some(b),
            (a, Self::None | Self::Percent) if a.is_number() => Some(a),
            (Self::Amps, Self::Volts) | (Self::Volts, Self::Amps) => Some(Self::Watts),
            _ => None,
        }
    }

    /// The unit of a quotient.
    #[must_use]
    pub fn over(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Percent, Self::None) => Some(Self::Percent),
            (a, Self::None | Self::Percent) if a.is_number() => Some(a),
            (Self::Watts, Self::Amps) => Some(Self::Volts),
            (Self::Watts, Self::Volts) => Some(Self::Amps),
            (a, b) if a == b && a.is_number() => Some(Self::None),
            _ => None,
        }
    }

    /// As written in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Percent => "%",
            Self::Watts => "W",
            Self::Amps => "A",
            Self::Volts => "V",
            Self::WattHours => "Wh",
            Self::Price => "ct/kWh",
            Self::Truth => "a condition",
            Self::Text => "a text",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if *self == Self::None { "a number without unit" } else { self.name() })
    }
}

/// The units that a variable may have.
impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let all =
            [Self::None, Self::Percent, Self::Watts, Self::Amps, Self::Volts, Self::WattHours, Self::Price];
        all.into_iter().find(|unit| unit.name() == text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is not a unit; use \"%\", \"W\", \"A\", \"V\", \"Wh\", \"ct/kWh\" or \"\""
            ))
        })
    }
}
