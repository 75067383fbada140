//! A device as data: which registers to read, and what they mean.
//!
//! In: TOML text, built in or from the user's directory. Out: [`Definition`], checked as a whole, or an error that
//! names file, line, field and what would be right. Invariant: in a [`Definition`] every field lies within its
//! block, no register is read twice, every quantity is there once, its unit fits and has a window; a meter has
//! voltage, current and power of all three phases, the last two from one request or document.

mod check;
pub mod document;
pub mod wallbox;

use std::{ops::RangeInclusive, time::Duration};

use serde::Deserialize;

use super::quantity::{Form, Kind, Quantity, WordOrder};
use crate::config::{ConfigError, Source};

/// A checked description of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// What the site's configuration calls it.
    pub name: String,
    /// Make and model, for people.
    pub about: String,
    /// What it can be used as.
    pub kind: DeviceKind,
    /// How it is asked.
    pub protocol: Protocol,
    /// Modbus unit identifier that it comes with.
    pub unit: Option<u8>,
    /// Least rest between two requests.
    pub frame_delay: Duration,
    /// Least rest before a write.
    pub write_delay: Duration,
    /// Whether the first of two equal requests only wakes the device.
    pub wake: bool,
    /// Its registers are counted from a SunSpec model that must be found first.
    pub sunspec: Option<SunSpec>,
    /// How it is driven, if it is a wallbox.
    pub wallbox: Option<wallbox::Wallbox>,
    /// How to tell that it is this device; with Modbus always.
    pub probe: Option<Probe>,
    /// How its optical head is used.
    pub head: Option<Head>,
    /// What it tells as JSON; with HTTP and MQTT always.
    pub telling: Option<document::Telling>,
    /// How it is switched, if it is a switch.
    pub switch: Option<document::Switch>,
    /// The requests of one reading, in order.
    pub blocks: Vec<Block>,
    windows: Vec<(Kind, Window)>,
}

/// What a device can be used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// Measures a node of the site.
    Meter,
    /// Charges a vehicle.
    Wallbox,
    /// An output that is switched by requests or messages.
    Switch,
}

/// How a device is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Modbus; whether TCP or a serial line is the site's matter.
    Modbus,
    /// SML through an optical head.
    Sml,
    /// IEC 62056-21 through an optical head.
    #[serde(rename = "iec62056-21")]
    Iec,
    /// JSON over HTTP, when it is asked.
    Http,
    /// JSON over MQTT, when it likes.
    Mqtt,
}

impl Protocol {
    /// Whether it is read through an optical head.
    #[must_use]
    pub const fn by_head(self) -> bool {
        matches!(self, Self::Sml | Self::Iec)
    }
}

/// How an optical head is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Bits per second of a meter that speaks by itself.
    #[serde(default = "Head::usual")]
    pub baud: u32,
    /// Whether the meter must be asked (IEC 62056-21 modes A to C), beginning at 300 Bd.
    #[serde(default)]
    pub pull: bool,
}

impl Head {
    const fn usual() -> u32 {
        9600
    }
}

impl Default for Head {
    fn default() -> Self {
        Self { baud: Self::usual(), pull: false }
    }
}

/// The Modbus function that reads a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// 3: holding registers.
    Holding,
    /// 4: input registers.
    Input,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Function code.
    pub function: Function,
    /// First register, from 0.
    pub start: u16,
    /// How many: 1 to 125, within the device's limit.
    pub count: u16,
    /// What is in it.
    pub fields: Vec<Field>,
}

impl Block {
    /// The registers that it reads.
    #[must_use]
    pub fn registers(&self) -> RangeInclusive<u16> {
        self.start..=self.start + (self.count - 1)
    }
}

/// One value of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// What it is.
    pub quantity: Quantity,
    /// Its first register, from 0.
    pub register: u16,
    /// Binary form.
    pub form: Form,
    /// Which register comes first.
    pub order: WordOrder,
    /// Raw number × this = value in the base unit of the quantity's kind.
    pub factor: f64,
    /// Bits that mean "not available".
    pub invalid: Option<u64>,
    /// A register of the same block: ten to the power of its signed number scales this one (SunSpec `sunssf`).
    pub power: Option<u16>,
}

/// Where a SunSpec map is looked for, and which model in it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SunSpec {
    /// Model number; the definition's registers are counted from its header.
    pub model: u16,
    /// Where the map may begin.
    pub bases: Vec<u16>,
}

/// Tells one device from another in a scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// Function code.
    pub function: Function,
    /// First register, from 0.
    pub register: u16,
    /// Binary form.
    pub form: Form,
    /// Which register comes first.
    pub order: WordOrder,
    /// The raw number lies within, or it is another device.
    pub window: Window,
}

/// A closed range of plausible values.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Least plausible value.
    pub min: f64,
    /// Largest plausible value.
    pub max: f64,
}

impl Window {
    /// Whether a value lies within; NaN never does.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        value >= self.min && value <= self.max
    }
}

impl Definition {
    /// Reads and checks the text of a definition file.
    pub fn parse(source: &Source) -> Result<Self, ConfigError> {
        check::definition(source)
    }

    /// The plausible values of a kind, in its base unit.
    #[must_use]
    pub fn window(&self, kind: Kind) -> Option<Window> {
        self.windows.iter().find(|(k, _)| *k == kind).map(|(_, w)| *w)
    }
}

#[cfg(test)]
mod tests;
