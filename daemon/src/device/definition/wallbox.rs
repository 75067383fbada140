//! A wallbox as data: its state, its setpoint, and what it does when nobody talks to it.
//!
//! In: checked tables of a definition file. Out: requests to write and read back, decoded answers. Invariant: a value is
//! written only if its register can hold it; 0 A is written as the box understands it. Pure.

use std::time::Duration;

use super::Function;
use crate::{
    device::{
        bus::Request,
        quantity::{Form, WordOrder},
    },
    units::Milliamps,
};

/// How a wallbox is driven.
#[derive(Debug, Clone, PartialEq)]
pub struct Wallbox {
    /// Where the vehicle's state stands.
    pub state: State,
    /// Where it stands whether a vehicle is plugged in, if the state does not tell.
    pub plug: Option<Plug>,
    /// What is written once when the box is taken on, and read back.
    pub setup: Vec<(Cell, f64)>,
    /// The current per phase.
    pub setpoint: Cell,
    /// What stands in the setpoint's register for 0 A; if left out, 0 A is only the release taken away.
    pub off: Option<f64>,
    /// The box's own bounds of a setpoint that is not 0 A.
    pub range: (Milliamps, Milliamps),
    /// Charging is allowed apart from its current: register, value for yes, value for no.
    pub enable: Option<(Cell, f64, f64)>,
    /// What the box falls to by itself.
    pub failsafe: Failsafe,
    /// What keeps it from that.
    pub watchdog: Watchdog,
}

/// A register that is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Register, from 0.
    pub register: u16,
    /// Whether function 16 writes it; function 6 otherwise, where it is one register.
    pub many: bool,
    /// Binary form.
    pub form: Form,
    /// Which register comes first.
    pub order: WordOrder,
    /// Raw number × this = value in A, s, or as it is.
    pub factor: f64,
    /// Where it is read back; not at all where the box cannot.
    pub read: Option<(Function, u16)>,
}

/// What a box falls to when its watchdog runs out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Failsafe {
    /// A register takes it.
    Written(Cell),
    /// It is set in the box by hand; here it can be read, in A.
    Read(Cell),
    /// It is set in the box by hand and cannot be read.
    ByHand,
    /// Always this.
    Fixed(Milliamps),
}

/// What keeps a box from its failsafe current.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watchdog {
    /// How it is fed.
    pub family: Family,
    /// After how long without being fed the box falls to its failsafe current.
    pub timeout: Duration,
    /// Where the timeout is written, and read back, if it can be set. Value in s.
    pub armed: Option<Cell>,
}

/// The four ways in which boxes are fed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Family {
    /// Any request feeds it, a reading too.
    Traffic,
    /// A value must be written to a register again and again.
    LifeBit(Cell, f64),
    /// The setpoint expires and must be written again.
    Setpoint,
    /// The timeout itself is written again.
    Timeout,
}

/// IEC 61851-1 Annex A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vehicle {
    /// A: none.
    None,
    /// B: connected, takes nothing.
    Connected,
    /// C, D: takes current.
    Charging,
    /// E, F: the box or the vehicle reports a fault.
    Fault,
}

/// Where the vehicle's state stands.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Function code.
    pub function: Function,
    /// First register, from 0.
    pub register: u16,
    /// A number, masked; or text over so many registers.
    pub form: StateForm,
    /// What the values mean. A value that is not here is a fault, told with its number.
    pub meanings: Vec<(StateValue, Vehicle)>,
}

/// How a state is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateForm {
    /// A number of which these bits count.
    Number(Form, WordOrder, u64),
    /// ASCII, two characters in a register; ends at a zero or a space.
    Text(u16),
}

/// A value of the state's register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateValue {
    /// A number.
    Number(u64),
    /// A text; matches what begins with it.
    Text(String),
}

impl std::fmt::Display for StateValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Where it stands whether a vehicle is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plug {
    /// Function code.
    pub function: Function,
    /// First register, from 0.
    pub register: u16,
    /// Binary form.
    pub form: Form,
    /// Which register comes first.
    pub order: WordOrder,
    /// Any of these bits: a vehicle is there.
    pub mask: u64,
}

impl Cell {
    /// The registers of a value; `None` if they cannot hold it.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the form's range by the check before"
    )]
    pub fn registers(&self, value: f64) -> Option<Vec<u16>> {
        let raw = value / self.factor;
        let bits = match self.form {
            Form::F32 => u64::from((raw as f32).to_bits()),
            Form::F64 => raw.to_bits(),
            form => {
                let (least, most) = form.range();
                // Down, so that a current is never above what was wanted; but 16 A in mA are 16 000.
                let whole = (raw + 1e-6).floor();
                if !(whole >= least && whole <= most) {
                    return None;
                }
                if whole < 0.0 { (whole as i64).cast_unsigned() } else { whole as u64 }
            }
        };
        let count = usize::from(self.form.registers());
        let mut registers: Vec<u16> =
            (0..count).map(|i| (bits >> (16 * (count - 1 - i)) & 0xFFFF) as u16).collect();
        if self.order == WordOrder::LowFirst {
            registers.reverse();
        }
        raw.is_finite().then_some(registers)
    }

    /// The request that writes these registers.
    #[must_use]
    pub fn write(&self, registers: Vec<u16>) -> Request {
        match *registers {
            [value] if !self.many => Request::WriteOne { register: self.register, value },
            _ => Request::WriteMany { start: self.register, values: registers },
        }
    }

    /// The request that reads it back.
    #[must_use]
    pub fn read_back(&self) -> Option<Request> {
        let (function, start) = self.read?;
        Some(Request::Read { function, start, count: self.form.registers() })
    }

    /// The value of registers that were read back.
    #[must_use]
    pub fn value(&self, registers: &[u16]) -> f64 {
        self.form.number(self.form.bits(registers, self.order)) * self.factor
    }
}

impl Wallbox {
    /// What is written for a current. Below the box's own least it is 0 A, above its most the most.
    #[must_use]
    pub fn current(&self, wanted: Milliamps) -> Milliamps {
        let (least, most) = self.range;
        if wanted < least { Milliamps::ZERO } else { wanted.min(most) }
    }

    /// The current that the setpoint's register reads.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "clamped to what no fuse lets through")]
    pub fn current_of(&self, registers: &[u16]) -> Milliamps {
        let amps = self.setpoint.value(registers);
        if self.off.is_some_and(|off| (amps - off).abs() < 1e-6) {
            return Milliamps::ZERO;
        }
        Milliamps((amps.clamp(0.0, 10_000.0) * 1000.0).round() as i64)
    }

    /// How often it must be fed: a third of its time, and every second at least asked for.
    #[must_use]
    pub fn feed_every(&self) -> Duration {
        self.watchdog.timeout / 3
    }
}

impl State {
    /// The request that reads it.
    #[must_use]
    pub const fn request(&self) -> Request {
        let count = match self.form {
            StateForm::Number(form, ..) => form.registers(),
            StateForm::Text(registers) => registers,
        };
        Request::Read { function: self.function, start: self.register, count }
    }

    /// What the registers say; the value in words where it means nothing known.
    pub fn vehicle(&self, registers: &[u16]) -> Result<Vehicle, String> {
        let value = match self.form {
            StateForm::Number(form, order, mask) => StateValue::Number(form.bits(registers, order) & mask),
            StateForm::Text(_) => {
                let bytes: Vec<u8> = registers.iter().flat_map(|r| r.to_be_bytes()).collect();
                let end = bytes.iter().position(|b| *b == 0 || *b == b' ').unwrap_or(bytes.len());
                StateValue::Text(String::from_utf8_lossy(&bytes[..end]).into_owned())
            }
        };
        let fits = |known: &StateValue| match (known, &value) {
            (StateValue::Text(known), StateValue::Text(text)) => {
                text.starts_with(known.as_str()) && !text.is_empty()
            }
            (known, value) => known == value,
        };
        let found = self.meanings.iter().find(|(known, _)| fits(known)).map(|(_, vehicle)| *vehicle);
        found.ok_or_else(|| value.to_string())
    }
}

impl Plug {
    /// The request that reads it.
    #[must_use]
    pub const fn request(&self) -> Request {
        Request::Read { function: self.function, start: self.register, count: self.form.registers() }
    }

    /// Whether a vehicle is there.
    #[must_use]
    pub fn vehicle(&self, registers: &[u16]) -> bool {
        self.form.bits(registers, self.order) & self.mask != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(form: Form, factor: f64) -> Cell {
        Cell { register: 9, many: false, form, order: WordOrder::HighFirst, factor, read: None }
    }

    #[test]
    fn values_become_registers_and_what_does_not_fit_is_not_written() {
        assert_eq!(cell(Form::U16, 0.001).registers(16.0), Some(vec![16_000]));
        assert_eq!(cell(Form::U16, 0.1).registers(0.0), Some(vec![0]));
        assert_eq!(cell(Form::U16, 0.001).registers(66.0), None);
        assert_eq!(cell(Form::U16, 0.06).registers(16.0), Some(vec![266]), "never above what was wanted");
        assert_eq!(cell(Form::U16, 1.0).registers(-1.0), None);
        assert_eq!(cell(Form::I16, 1.0).registers(-1.0), Some(vec![0xFFFF]));
        assert_eq!(cell(Form::U32, 0.001).registers(70.0), Some(vec![1, 4464]));
        assert_eq!(cell(Form::F32, 1.0).registers(16.0), Some(vec![0x4180, 0]));
        assert_eq!(cell(Form::F32, 1.0).registers(f64::NAN), None);
        let low = Cell { order: WordOrder::LowFirst, ..cell(Form::U32, 0.001) };
        assert_eq!(low.registers(70.0), Some(vec![4464, 1]));
        assert!((low.value(&[4464, 1]) - 70.0).abs() < 1e-9);
    }

    #[test]
    fn a_state_is_a_number_or_a_text_and_an_unknown_one_is_named() {
        let number = |mask| State {
            function: Function::Input,
            register: 5,
            form: StateForm::Number(Form::U16, WordOrder::HighFirst, mask),
            meanings: vec![
                (StateValue::Number(2), Vehicle::None),
                (StateValue::Number(7), Vehicle::Charging),
            ],
        };
        assert_eq!(number(0xFFFF).vehicle(&[7]), Ok(Vehicle::Charging));
        assert_eq!(number(0x00FF).vehicle(&[0x0102]), Ok(Vehicle::None));
        assert_eq!(number(0xFFFF).vehicle(&[99]), Err("99".to_owned()));
        let text = State {
            form: StateForm::Text(2),
            meanings: vec![(StateValue::Text("C".into()), Vehicle::Charging)],
            ..number(0)
        };
        assert_eq!(text.vehicle(&[0x4332, 0]), Ok(Vehicle::Charging));
        assert_eq!(text.vehicle(&[0, 0]), Err("\"\"".to_owned()));
    }
}
