//! The tables of a wallbox.

use std::time::Duration;

use serde::Deserialize;

use super::{Check, Checked};
use crate::{
    device::{
        definition::{
            Function,
            wallbox::{
                Cell, Failsafe, Family, Plug, State, StateForm, StateValue, Vehicle, Wallbox, Watchdog,
            },
        },
        quantity::{Form, WordOrder},
    },
    units::Milliamps,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawState {
    function: u8,
    register: u16,
    #[serde(rename = "type")]
    form: RawForm,
    /// With text only.
    registers: Option<u16>,
    mask: Option<u64>,
    word_order: Option<WordOrder>,
    a: Vec<RawValue>,
    b: Vec<RawValue>,
    c: Vec<RawValue>,
    #[serde(default)]
    f: Vec<RawValue>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RawForm {
    Text,
    U16,
    U32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawValue {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlug {
    function: u8,
    register: u16,
    #[serde(rename = "type")]
    form: Form,
    word_order: Option<WordOrder>,
    mask: u64,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCell {
    function: u8,
    register: u16,
    #[serde(rename = "type")]
    form: Form,
    word_order: Option<WordOrder>,
    unit: Option<RawUnit>,
    scale: Option<f64>,
    read: Option<RawRead>,
    value: Option<f64>,
    off: Option<f64>,
    on: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

#[derive(Deserialize, Clone, Copy)]
#[expect(non_camel_case_types, reason = "units are written as physics writes them")]
enum RawUnit {
    A,
    mA,
    s,
    ms,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum RawRead {
    Place(RawPlace),
    Can(bool),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    function: u8,
    register: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFailsafe {
    current: Option<RawCell>,
    by_hand: Option<bool>,
    amps: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWatchdog {
    family: RawFamily,
    seconds: f64,
    timeout: Option<RawCell>,
    life: Option<RawCell>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum RawFamily {
    Traffic,
    LifeBit,
    Setpoint,
    Timeout,
}

/// The tables that only a wallbox has.
#[derive(Default)]
pub(super) struct RawWallbox {
    pub(super) state: Option<RawState>,
    pub(super) plug: Option<RawPlug>,
    pub(super) setup: Vec<RawCell>,
    pub(super) setpoint: Option<RawCell>,
    pub(super) enable: Option<RawCell>,
    pub(super) failsafe: Option<RawFailsafe>,
    pub(super) watchdog: Option<RawWatchdog>,
}

impl RawWallbox {
    /// The first of its tables that is there.
    pub(super) fn any(&self) -> Option<&'static str> {
        [
            ("state", self.state.is_some()),
            ("plug", self.plug.is_some()),
            ("setup", !self.setup.is_empty()),
            ("setpoint", self.setpoint.is_some()),
            ("enable", self.enable.is_some()),
            ("failsafe", self.failsafe.is_some()),
            ("watchdog", self.watchdog.is_some()),
        ]
        .into_iter()
        .find_map(|(name, there)| there.then_some(name))
    }
}

impl Check<'_> {
    pub(super) fn wallbox(&self, raw: RawWallbox) -> Checked<Wallbox> {
        let missing = |table: &str, what: &str| self.source.problem(table, format!("is missing; {what}"));
        let state =
            raw.state.ok_or_else(|| missing("state", "add [state]: what the box says of the vehicle"))?;
        let setpoint = raw
            .setpoint
            .ok_or_else(|| missing("setpoint", "add [setpoint]: where the current is written"))?;
        let failsafe = raw
            .failsafe
            .ok_or_else(|| missing("failsafe", "add [failsafe]: what the box falls to when nobody talks"))?;
        let watchdog = raw
            .watchdog
            .ok_or_else(|| missing("watchdog", "add [watchdog]: what keeps the box from its failsafe"))?;

        let mut setup = Vec::with_capacity(raw.setup.len());
        for (i, cell) in raw.setup.into_iter().enumerate() {
            let at = format!("setup[{i}]");
            let value = self.value(&at, "value", cell.value)?;
            setup.push((self.fits(&at, self.cell(&at, &cell)?, value)?, value));
        }
        let cell = self.cell("setpoint", &setpoint)?;
        // Given as it stands in the register; kept as the value that is written like any other.
        let off = setpoint.off.map(|raw| raw * cell.factor);
        if let Some(off) = off {
            self.fits("setpoint", cell, off)?;
        }
        let bound = |name: &str, given: Option<f64>, default: f64| {
            let amps = given.unwrap_or(default);
            if (1.0..=500.0).contains(&amps) {
                Ok(milliamps(amps))
            } else {
                self.fail(&format!("setpoint.{name}"), format!("{amps} is out of range; use 1 to 500, in A"))
            }
        };
        let range = (bound("min", setpoint.min, 6.0)?, bound("max", setpoint.max, 63.0)?);
        if range.0 > range.1 {
            return self.fail("setpoint.max", "is below min");
        }
        self.fits("setpoint", cell, range.1.0 as f64 / 1000.0)?;
        let enable = match &raw.enable {
            None => None,
            Some(enable) => {
                let cell = self.cell("enable", enable)?;
                let on = self.value("enable", "on", enable.on)?;
                let off = self.value("enable", "off", enable.off)?;
                Some((self.fits("enable", self.fits("enable", cell, on)?, off)?, on, off))
            }
        };
        if off.is_none() && enable.is_none() {
            return self.fail(
                "setpoint.off",
                "is missing; say what the register takes for 0 A, or add [enable] with on and off",
            );
        }
        Ok(Wallbox {
            state: self.state(state)?,
            plug: raw.plug.map(|plug| self.plug(&plug)).transpose()?,
            setup,
            setpoint: cell,
            off,
            range,
            enable,
            failsafe: self.failsafe(&failsafe)?,
            watchdog: self.watchdog(&watchdog)?,
        })
    }

    fn value(&self, at: &str, name: &str, given: Option<f64>) -> Checked<f64> {
        match given {
            Some(value) => Ok(value),
            None => self.fail(&format!("{at}.{name}"), "is missing; say what is written"),
        }
    }

    fn fits(&self, at: &str, cell: Cell, value: f64) -> Checked<Cell> {
        if cell.registers(value).is_some() {
            return Ok(cell);
        }
        self.fail(at, format!("a {} with this scale cannot hold {value}", cell.form))
    }

    fn cell(&self, at: &str, raw: &RawCell) -> Checked<Cell> {
        let many = match (raw.function, raw.form.registers()) {
            (16, _) => true,
            (6, 1) => false,
            (6, _) => {
                return self
                    .fail(&format!("{at}.function"), "6 writes one register; use 16 for longer types");
            }
            (code, _) => {
                return self.fail(
                    &format!("{at}.function"),
                    format!("{code} does not write registers; use 6 (one) or 16 (several)"),
                );
            }
        };
        let scale = raw.scale.unwrap_or(1.0);
        if !scale.is_normal() {
            return self
                .fail(&format!("{at}.scale"), format!("{scale} is not a scale; write a number like 0.1"));
        }
        let unit = match raw.unit {
            Some(RawUnit::mA | RawUnit::ms) => 0.001,
            Some(RawUnit::A | RawUnit::s) | None => 1.0,
        };
        self.room(at, raw.register, raw.form)?;
        let read = match raw.read {
            None | Some(RawRead::Can(true)) => Some((Function::Holding, raw.register)),
            Some(RawRead::Can(false)) => None,
            Some(RawRead::Place(place)) => {
                self.room(&format!("{at}.read"), place.register, raw.form)?;
                Some((self.function(&format!("{at}.read.function"), place.function)?, place.register))
            }
        };
        Ok(Cell {
            register: raw.register,
            many,
            form: raw.form,
            order: raw.word_order.unwrap_or(self.order),
            factor: scale * unit,
            read,
        })
    }

    fn room(&self, at: &str, register: u16, form: Form) -> Checked<()> {
        if register.checked_add(form.registers() - 1).is_none() {
            return self
                .fail(&format!("{at}.register"), format!("a {form} does not fit behind 0x{register:04X}"));
        }
        Ok(())
    }

    fn state(&self, raw: RawState) -> Checked<State> {
        let form = match (raw.form, raw.registers) {
            (RawForm::Text, Some(registers @ 1..=32)) => StateForm::Text(registers),
            (RawForm::Text, _) => {
                return self.fail("state.registers", "is missing or out of range; use 1 to 32 with text");
            }
            (_, Some(_)) => return self.fail("state.registers", "goes with type = \"text\" only; remove it"),
            (form, None) => StateForm::Number(
                if form == RawForm::U16 { Form::U16 } else { Form::U32 },
                raw.word_order.unwrap_or(self.order),
                raw.mask.unwrap_or(u64::MAX),
            ),
        };
        let count = match form {
            StateForm::Text(registers) => registers,
            StateForm::Number(form, ..) => form.registers(),
        };
        if raw.register.checked_add(count - 1).is_none() {
            return self.fail("state.register", "does not fit below 0xFFFF");
        }
        let mut meanings: Vec<(StateValue, Vehicle)> = Vec::new();
        for (name, values, vehicle) in [
            ("a", raw.a, Vehicle::None),
            ("b", raw.b, Vehicle::Connected),
            ("c", raw.c, Vehicle::Charging),
            ("f", raw.f, Vehicle::Fault),
        ] {
            for value in values {
                let value = match (value, form) {
                    (RawValue::Number(n), StateForm::Number(..)) => StateValue::Number(n),
                    (RawValue::Text(text), StateForm::Text(_)) if !text.is_empty() => StateValue::Text(text),
                    (RawValue::Number(_), StateForm::Text(_)) => {
                        return self
                            .fail(&format!("state.{name}"), "holds a number, but the state is a text");
                    }
                    (RawValue::Text(_), _) => {
                        return self.fail(
                            &format!("state.{name}"),
                            "holds an empty text, or a text although the state is a number",
                        );
                    }
                };
                if meanings.iter().any(|(known, _)| *known == value) {
                    return self.fail(&format!("state.{name}"), format!("{value} has a meaning already"));
                }
                meanings.push((value, vehicle));
            }
        }
        // Longer texts first, so that "C2" is not taken for "C".
        meanings.sort_by_key(|(value, _)| match value {
            StateValue::Text(text) => std::cmp::Reverse(text.len()),
            StateValue::Number(_) => std::cmp::Reverse(0),
        });
        let function = self.function("state.function", raw.function)?;
        Ok(State { function, register: raw.register, form, meanings })
    }

    fn plug(&self, raw: &RawPlug) -> Checked<Plug> {
        self.room("plug", raw.register, raw.form)?;
        Ok(Plug {
            function: self.function("plug.function", raw.function)?,
            register: raw.register,
            form: raw.form,
            order: raw.word_order.unwrap_or(self.order),
            mask: raw.mask,
        })
    }

    fn failsafe(&self, raw: &RawFailsafe) -> Checked<Failsafe> {
        Ok(match (&raw.current, raw.by_hand, raw.amps) {
            (Some(cell), None | Some(false), None) => {
                let cell = self.cell("failsafe.current", cell)?;
                if cell.read.is_none() {
                    return self
                        .fail("failsafe.current.read", "must be possible: a box is trusted by reading it");
                }
                Failsafe::Written(cell)
            }
            (Some(cell), Some(true), None) => Failsafe::Read(self.cell("failsafe.current", cell)?),
            (None, Some(true), None) => Failsafe::ByHand,
            (None, None, Some(amps)) if (0.0..=63.0).contains(&amps) => Failsafe::Fixed(milliamps(amps)),
            _ => {
                return self.fail(
                    "failsafe",
                    "give current = { … }, by_hand = true, both, or amps = 0 for a box that always falls to that",
                );
            }
        })
    }

    fn watchdog(&self, raw: &RawWatchdog) -> Checked<Watchdog> {
        if !(1.0..=600.0).contains(&raw.seconds) {
            return self.fail("watchdog.seconds", format!("{} is out of range; use 1 to 600", raw.seconds));
        }
        let armed = raw.timeout.as_ref().map(|cell| self.cell("watchdog.timeout", cell)).transpose()?;
        if let Some(cell) = armed {
            self.fits("watchdog.timeout", cell, raw.seconds)?;
        }
        let family = match (raw.family, &raw.life) {
            (RawFamily::LifeBit, Some(life)) => {
                let value = self.value("watchdog.life", "value", life.value)?;
                Family::LifeBit(self.fits("watchdog.life", self.cell("watchdog.life", life)?, value)?, value)
            }
            (RawFamily::LifeBit, None) => {
                return self.fail("watchdog.life", "is missing; say which register takes which value");
            }
            (_, Some(_)) => {
                return self.fail("watchdog.life", "goes with family = \"life-bit\" only; remove it");
            }
            (RawFamily::Traffic, None) => Family::Traffic,
            (RawFamily::Setpoint, None) => Family::Setpoint,
            (RawFamily::Timeout, None) if armed.is_some() => Family::Timeout,
            (RawFamily::Timeout, None) => {
                return self.fail("watchdog.timeout", "is missing; this family writes it again and again");
            }
        };
        Ok(Watchdog { family, timeout: Duration::from_secs_f64(raw.seconds), armed })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "amperes within 0 to 500 by the checks before")]
fn milliamps(amps: f64) -> Milliamps {
    Milliamps((amps * 1000.0).round() as i64)
}
