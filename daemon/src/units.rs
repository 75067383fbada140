//! Units are types: integers inside, never bare numbers between rooms.
//!
//! In: integers in the named base unit, or text such as `"63 A"` from the configuration. Out: values that do not
//! mix by accident. Invariant: arithmetic saturates, it never wraps and never panics.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Index, IndexMut, Neg, Sub, SubAssign},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}; write it like {example:?}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// Splits `"10.5 kW"` into a number of `factor`ths and a unit, exactly: at most `digits` decimals are taken.
fn parse_quantity(text: &str, units: &[(&str, i64)]) -> Option<i64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))?;
    let (number, unit) = (text[..split].trim(), text[split..].trim());
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut value = whole.parse::<i64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let scale = 10_i64.pow(u32::try_from(fraction.len()).ok()?);
        let part = fraction.parse::<i64>().ok()?.checked_mul(factor)?;
        if part % scale != 0 {
            return None;
        }
        value = value.checked_add(part / scale)?;
    }
    Some(if negative { -value } else { value })
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $what:literal, $example:literal, $units:expr, $show:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub i64);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);

            /// The smaller of two.
            #[must_use]
            pub fn min(self, other: Self) -> Self {
                Self(self.0.min(other.0))
            }

            /// The larger of two.
            #[must_use]
            pub fn max(self, other: Self) -> Self {
                Self(self.0.max(other.0))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl Neg for $name {
            type Output = Self;
            fn neg(self) -> Self {
                Self(self.0.saturating_neg())
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }

        impl FromStr for $name {
            type Err = QuantityError;
            fn from_str(text: &str) -> Result<Self, QuantityError> {
                parse_quantity(text, $units).map(Self).ok_or_else(|| QuantityError {
                    text: text.to_owned(),
                    what: $what,
                    example: $example,
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let show: fn(i64) -> String = $show;
                f.pad(&show(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} like {:?}", $what, $example)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

fn thousandths(value: i64, unit: &str, kilo: &str, decimals: u32) -> String {
    if value.unsigned_abs() < 1000 && kilo != unit {
        return format!("{value} {unit}");
    }
    let drop = 10_u64.pow(3 - decimals);
    let shown = value.unsigned_abs() / drop;
    let scale = 10_u64.pow(decimals);
    let sign = if value < 0 { "-" } else { "" };
    let width = usize::try_from(decimals).unwrap_or(0);
    format!("{sign}{}.{:0width$} {kilo}", shown / scale, shown % scale)
}

quantity!(
    /// Active power. Positive: drawn from the grid.
    Watts, "a power", "11 kW", &[("W", 1), ("kW", 1000)], |w| {
        if w % 10 == 0 { thousandths(w, "W", "kW", 2) } else { format!("{w} W") }
    }
);
quantity!(
    /// Current of one conductor. Positive: drawn from the grid.
    Milliamps, "a current", "16 A", &[("A", 1000), ("mA", 1)], |ma| {
        if ma % 100 == 0 { thousandths(ma, "A", "A", 1) } else { thousandths(ma, "A", "A", 3) }
    }
);
quantity!(
    /// Voltage of a phase against neutral.
    Millivolts, "a voltage", "230 V", &[("V", 1000), ("mV", 1)], |mv| thousandths(mv, "V", "V", 1)
);
quantity!(
    /// Energy as a meter register counts it.
    WattHours, "an energy", "12.5 kWh", &[("Wh", 1), ("kWh", 1000)], |wh| thousandths(wh, "Wh", "kWh", 3)
);

impl Milliamps {
    /// Whole amperes.
    #[must_use]
    pub const fn amps(amps: i64) -> Self {
        Self(amps * 1000)
    }
}

impl Millivolts {
    /// 230 V, the nominal voltage of the European low-voltage grid (EN 50160).
    pub const NOMINAL: Self = Self(230_000);
    /// 253 V, nominal plus 10 %: the worst case for a power limit that is kept by currents (EN 50160).
    pub const HIGHEST: Self = Self(253_000);

    /// 207 V, nominal minus 10 %: the worst case for a fuse that is kept by powers (EN 50160).
    pub const LOWEST: Self = Self(207_000);

    /// Power of `current` at this voltage, rounded away from zero, so that a limit is never understated.
    #[must_use]
    pub fn power_ceil(self, current: Milliamps) -> Watts {
        let micro = i128::from(self.0) * i128::from(current.0);
        let watts = if micro >= 0 { (micro + 999_999) / 1_000_000 } else { (micro - 999_999) / 1_000_000 };
        Watts(i64::try_from(watts).unwrap_or(i64::MAX))
    }
}

/// A phase of the grid connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Conductor L1.
    L1,
    /// Conductor L2.
    L2,
    /// Conductor L3.
    L3,
}

impl Phase {
    /// The three, in order.
    pub const ALL: [Self; 3] = [Self::L1, Self::L2, Self::L3];

    const fn index(self) -> usize {
        match self {
            Self::L1 => 0,
            Self::L2 => 1,
            Self::L3 => 2,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["L1", "L2", "L3"][self.index()])
    }
}

/// One value per phase of the grid connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PerPhase<T>(pub [T; 3]);

impl<T> PerPhase<T> {
    /// Makes one value per phase.
    pub fn from_fn(mut make: impl FnMut(Phase) -> T) -> Self {
        Self(Phase::ALL.map(&mut make))
    }

    /// Phase and value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, &T)> {
        Phase::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Phase> for PerPhase<T> {
    type Output = T;
    fn index(&self, phase: Phase) -> &T {
        &self.0[phase.index()]
    }
}

impl<T> IndexMut<Phase> for PerPhase<T> {
    fn index_mut(&mut self, phase: Phase) -> &mut T {
        &mut self.0[phase.index()]
    }
}

/// How an EVSE's terminals are wired: terminal 1, 2, 3 → phase of the grid connection. One to three terminals,
/// no phase twice. Written `"L2 L3 L1"`, or `"L3"` for a one-phase EVSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wiring {
    terminals: [Option<Phase>; 3],
}

impl Wiring {
    /// Three phases without rotation.
    pub const L123: Self = Self { terminals: [Some(Phase::L1), Some(Phase::L2), Some(Phase::L3)] };

    /// The phase behind a terminal, counted from 0 as the EVSE's own L1, L2, L3.
    #[must_use]
    pub fn phase(&self, terminal: usize) -> Option<Phase> {
        self.terminals.get(terminal).copied().flatten()
    }

    /// The phases in use, in terminal order.
    pub fn phases(&self) -> impl Iterator<Item = Phase> {
        self.terminals.into_iter().flatten()
    }

    /// Whether the EVSE is on this phase.
    #[must_use]
    pub fn uses(&self, phase: Phase) -> bool {
        self.phases().any(|p| p == phase)
    }

    /// How many phases: 1 to 3.
    #[must_use]
    pub fn count(&self) -> usize {
        self.phases().count()
    }
}

impl FromStr for Wiring {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError {
            text: text.to_owned(),
            what: "a phase wiring without repetition",
            example: "L1 L2 L3",
        };
        let mut terminals = [None; 3];
        let mut count = 0;
        for word in text.split([' ', ',']).filter(|w| !w.is_empty()) {
            let phase = Phase::ALL.into_iter().find(|p| p.to_string() == word).ok_or_else(error)?;
            if count == 3 || terminals.contains(&Some(phase)) {
                return Err(error());
            }
            terminals[count] = Some(phase);
            count += 1;
        }
        if count == 0 { Err(error()) } else { Ok(Self { terminals }) }
    }
}

impl fmt::Display for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.phases().map(|p| p.to_string()).collect();
        f.pad(&names.join(" "))
    }
}

impl<'de> Deserialize<'de> for Wiring {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly_and_refuse_foreign_units() {
        assert_eq!("63 A".parse(), Ok(Milliamps(63_000)));
        assert_eq!("0.5A".parse(), Ok(Milliamps(500)));
        assert_eq!("10.5 kW".parse(), Ok(Watts(10_500)));
        assert_eq!("-3 W".parse(), Ok(Watts(-3)));
        for bad in
            ["63", "A", "63 kW", "6.0005 A", "1e3 A", ".5 A", "", "9999999999999999999 A", "- 5 A", "1.-2 A"]
        {
            assert!(bad.parse::<Milliamps>().is_err(), "{bad}");
        }
        let error = "63 kW".parse::<Milliamps>().unwrap_err().to_string();
        assert_eq!(error, r#""63 kW" is not a current; write it like "16 A""#);
    }

    #[test]
    fn quantities_read_what_they_show() {
        for ma in [0, 1, 6000, 16_000, 16_100, 63_001, -500] {
            assert_eq!(Milliamps(ma).to_string().parse(), Ok(Milliamps(ma)));
        }
        assert_eq!(Watts(10_000).to_string(), "10.00 kW");
        assert_eq!(Watts(4_140).to_string(), "4.14 kW");
        assert_eq!(Watts(12_345).to_string(), "12345 W");
        assert_eq!(Watts(-20).to_string(), "-20 W");
        assert_eq!(Milliamps(-500).to_string(), "-0.5 A");
    }

    #[test]
    fn power_is_never_understated() {
        assert_eq!(Millivolts(230_000).power_ceil(Milliamps(6000)), Watts(1380));
        assert_eq!(Millivolts(230_001).power_ceil(Milliamps(6000)), Watts(1381));
        assert_eq!(Millivolts(230_000).power_ceil(Milliamps(-1)), Watts(-1));
    }

    #[test]
    fn wiring_keeps_rotation() {
        let wiring: Wiring = "L2 L3 L1".parse().unwrap();
        assert_eq!(wiring.phase(0), Some(Phase::L2));
        assert_eq!(wiring.to_string(), "L2 L3 L1");
        assert_eq!("L3".parse::<Wiring>().unwrap().count(), 1);
        for bad in ["", "L1 L1", "L4", "L1 L2 L3 L1", "l1"] {
            assert!(bad.parse::<Wiring>().is_err(), "{bad}");
        }
    }
}
