//! A device as data: which registers to read, and what they mean.
//!
//! In: TOML text, built in or from the user's directory. Out: [`Definition`], checked as a whole, or an error that
//! names file, line, field and what would be right. Invariant: in a [`Definition`] every field lies within its
//! block, no register is read twice, every quantity is there once, its unit fits and has a window; a meter has
//! voltage, current and power of all three phases, the last two from one request.

use std::{ops::RangeInclusive, time::Duration};

use serde::Deserialize;

use super::quantity::{Form, Kind, Quantity, Unit, WordOrder};
use crate::{
    config::{ConfigError, Source},
    ids::MAX_NAME,
    units::Phase,
};

/// Most registers in one request (MODBUS Application Protocol V1.1b3 §6.3, §6.4).
const MOST_REGISTERS: u16 = 125;

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
    /// Least rest between two requests.
    pub frame_delay: Duration,
    /// How to tell that it is this device.
    pub probe: Probe,
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
}

/// How a device is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Modbus; whether TCP or a serial line is the site's matter.
    Modbus,
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
        let raw: RawDefinition = toml::from_str(source.text()).map_err(|e| source.parse_error(&e))?;
        Check {
            source,
            order: raw.word_order.unwrap_or_default(),
        }
        .definition(raw)
    }

    /// The plausible values of a kind, in its base unit.
    #[must_use]
    pub fn window(&self, kind: Kind) -> Option<Window> {
        self.windows.iter().find(|(k, _)| *k == kind).map(|(_, w)| *w)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefinition {
    name: String,
    about: String,
    kind: DeviceKind,
    protocol: Protocol,
    word_order: Option<WordOrder>,
    #[serde(default)]
    limits: RawLimits,
    probe: RawProbe,
    #[serde(default)]
    plausible: RawPlausible,
    #[serde(default)]
    block: Vec<RawBlock>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    max_registers: Option<u16>,
    frame_delay_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProbe {
    function: u8,
    register: u16,
    #[serde(rename = "type")]
    form: Form,
    word_order: Option<WordOrder>,
    min: f64,
    max: f64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlausible {
    voltage: Option<Window>,
    current: Option<Window>,
    power: Option<Window>,
    energy: Option<Window>,
    frequency: Option<Window>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlock {
    function: u8,
    start: u16,
    count: u16,
    field: Vec<RawField>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    quantity: Quantity,
    register: u16,
    #[serde(rename = "type")]
    form: Form,
    word_order: Option<WordOrder>,
    scale: Option<f64>,
    unit: Unit,
    invalid: Option<String>,
}

type Checked<T> = Result<T, ConfigError>;

struct Check<'a> {
    source: &'a Source,
    order: WordOrder,
}

impl Check<'_> {
    fn fail<T>(&self, field: &str, problem: impl std::fmt::Display) -> Checked<T> {
        Err(self.source.problem(field, problem))
    }

    fn definition(&self, raw: RawDefinition) -> Checked<Definition> {
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if raw.name.is_empty() || raw.name.len() > MAX_NAME || !raw.name.chars().all(named) {
            let problem = format!(
                "{:?} is not a device name; use 1 to {MAX_NAME} of a-z 0-9 -",
                raw.name
            );
            return self.fail("name", problem);
        }
        if raw.about.trim().is_empty() {
            return self.fail(
                "about",
                "is empty; name make and model for the people who read it",
            );
        }
        let most = raw.limits.max_registers.unwrap_or(MOST_REGISTERS);
        if !(1..=MOST_REGISTERS).contains(&most) {
            return self.fail(
                "limits.max_registers",
                format!("{most} is out of range; use 1 to {MOST_REGISTERS}"),
            );
        }
        let delay = raw.limits.frame_delay_ms.unwrap_or(0);
        if delay > 1000 {
            return self.fail(
                "limits.frame_delay_ms",
                format!("{delay} is out of range; use 0 to 1000"),
            );
        }
        let windows = self.windows(&raw.plausible)?;
        let probe = self.probe(&raw.probe)?;
        let blocks = self.blocks(raw.block, most)?;
        let definition = Definition {
            name: raw.name,
            about: raw.about,
            kind: raw.kind,
            protocol: raw.protocol,
            frame_delay: Duration::from_millis(delay),
            probe,
            blocks,
            windows,
        };
        match definition.kind {
            DeviceKind::Meter => self.meter(&definition)?,
        }
        Ok(definition)
    }

    fn windows(&self, raw: &RawPlausible) -> Checked<Vec<(Kind, Window)>> {
        let mut windows = Vec::new();
        for (kind, given) in [
            (Kind::Voltage, raw.voltage),
            (Kind::Current, raw.current),
            (Kind::Power, raw.power),
            (Kind::Energy, raw.energy),
            (Kind::Frequency, raw.frequency),
        ] {
            let Some(window) = given else { continue };
            // Beyond this a value in milli-units no longer fits a whole number without loss.
            let bound = 1.0e12;
            if !(window.min < window.max && window.min >= -bound && window.max <= bound) {
                let problem = format!(
                    "{} to {} is not a window; min is below max",
                    window.min, window.max
                );
                return self.fail(&format!("plausible.{}", kind.name()), problem);
            }
            windows.push((kind, window));
        }
        Ok(windows)
    }

    fn function(&self, field: &str, code: u8) -> Checked<Function> {
        match code {
            3 => Ok(Function::Holding),
            4 => Ok(Function::Input),
            _ => self.fail(
                field,
                format!("{code} does not read registers; use 3 (holding) or 4 (input)"),
            ),
        }
    }

    fn probe(&self, raw: &RawProbe) -> Checked<Probe> {
        let window = Window {
            min: raw.min,
            max: raw.max,
        };
        if !(window.min <= window.max && window.min.is_finite() && window.max.is_finite()) {
            return self.fail(
                "probe",
                format!("{} to {} is not a range; min is at most max", raw.min, raw.max),
            );
        }
        if raw.register.checked_add(raw.form.registers() - 1).is_none() {
            return self.fail(
                "probe.register",
                format!("a {} does not fit behind 0x{:04X}", raw.form, raw.register),
            );
        }
        Ok(Probe {
            function: self.function("probe.function", raw.function)?,
            register: raw.register,
            form: raw.form,
            order: raw.word_order.unwrap_or(self.order),
            window,
        })
    }

    fn blocks(&self, raw: Vec<RawBlock>, most: u16) -> Checked<Vec<Block>> {
        if raw.is_empty() {
            return self.fail(
                "block",
                "is missing; add [[block]] with function, start, count and field",
            );
        }
        let mut blocks: Vec<Block> = Vec::with_capacity(raw.len());
        for (i, b) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("block[{i}].{name}");
            let function = self.function(&at("function"), b.function)?;
            if !(1..=most).contains(&b.count) {
                let problem = format!(
                    "{} is out of range; this device gives 1 to {most} in one request",
                    b.count
                );
                return self.fail(&at("count"), problem);
            }
            if b.start.checked_add(b.count - 1).is_none() {
                let problem = format!("{} registers from 0x{:04X} go beyond 0xFFFF", b.count, b.start);
                return self.fail(&at("count"), problem);
            }
            let mut block = Block {
                function,
                start: b.start,
                count: b.count,
                fields: Vec::new(),
            };
            for (j, other) in blocks.iter().enumerate() {
                let (a, b) = (block.registers(), other.registers());
                if other.function == function && a.start() <= b.end() && b.start() <= a.end() {
                    let problem = format!(
                        "0x{:04X} to 0x{:04X} overlaps block[{j}], 0x{:04X} to 0x{:04X}; read a register once",
                        a.start(),
                        a.end(),
                        b.start(),
                        b.end()
                    );
                    return self.fail(&at("start"), problem);
                }
            }
            if b.field.is_empty() {
                return self.fail(&at("field"), "is empty; a block without fields need not be read");
            }
            for (j, f) in b.field.iter().enumerate() {
                let field = self.field(&format!("block[{i}].field[{j}]"), f, &block)?;
                if blocks
                    .iter()
                    .flat_map(|b| &b.fields)
                    .chain(&block.fields)
                    .any(|o| o.quantity == field.quantity)
                {
                    let problem = format!("{} is there already; give each quantity once", field.quantity);
                    return self.fail(&at(&format!("field[{j}].quantity")), problem);
                }
                block.fields.push(field);
            }
            blocks.push(block);
        }
        Ok(blocks)
    }

    fn field(&self, at: &str, raw: &RawField, block: &Block) -> Checked<Field> {
        let registers = block.registers();
        let last = raw.register.checked_add(raw.form.registers() - 1);
        if !(registers.contains(&raw.register) && last.is_some_and(|l| registers.contains(&l))) {
            let problem = format!(
                "a {} at 0x{:04X} is not within its block, 0x{:04X} to 0x{:04X}",
                raw.form,
                raw.register,
                registers.start(),
                registers.end()
            );
            return self.fail(&format!("{at}.register"), problem);
        }
        let ends = |f: &Field| f.register + (f.form.registers() - 1);
        if let Some(other) = block
            .fields
            .iter()
            .find(|o| o.register <= last.unwrap_or(u16::MAX) && raw.register <= ends(o))
        {
            let problem = format!("0x{:04X} is part of {} already", raw.register, other.quantity);
            return self.fail(&format!("{at}.register"), problem);
        }
        let (kind, factor) = raw.unit.factor();
        if kind != raw.quantity.kind() {
            let problem = format!(
                "{} is not a unit of {}; its base is {}",
                raw.unit,
                raw.quantity,
                raw.quantity.kind().base()
            );
            return self.fail(&format!("{at}.unit"), problem);
        }
        let scale = raw.scale.unwrap_or(1.0);
        if !scale.is_normal() {
            return self.fail(
                &format!("{at}.scale"),
                format!("{scale} is not a scale; write a number like 0.1"),
            );
        }
        let invalid = raw
            .invalid
            .as_deref()
            .map(|text| self.pattern(&format!("{at}.invalid"), text, raw.form));
        Ok(Field {
            quantity: raw.quantity,
            register: raw.register,
            form: raw.form,
            order: raw.word_order.unwrap_or(self.order),
            factor: scale * factor,
            invalid: invalid.transpose()?,
        })
    }

    fn pattern(&self, at: &str, text: &str, form: Form) -> Checked<u64> {
        let digits = usize::from(form.registers()) * 4;
        match u64::from_str_radix(text, 16) {
            Ok(bits) if text.len() == digits => Ok(bits),
            _ => self.fail(
                at,
                format!("{text:?} is not a bit pattern of a {form}; write {digits} hexadecimal digits"),
            ),
        }
    }

    /// What a site's meter must give.
    fn meter(&self, definition: &Definition) -> Checked<()> {
        let block_of = |q: Quantity| {
            definition
                .blocks
                .iter()
                .position(|b| b.fields.iter().any(|f| f.quantity == q))
        };
        for phase in Phase::ALL {
            for quantity in [
                Quantity::voltage(phase),
                Quantity::current(phase),
                Quantity::power(phase),
            ] {
                if block_of(quantity).is_none() {
                    return self.fail(
                        "block",
                        format!("{quantity} is missing; a meter needs it for every phase"),
                    );
                }
            }
        }
        let first = block_of(Quantity::CurrentL1);
        for phase in Phase::ALL {
            for quantity in [Quantity::current(phase), Quantity::power(phase)] {
                if block_of(quantity) != first {
                    let problem = format!(
                        "{quantity} is not in the block of current-l1; currents and powers must be from one instant"
                    );
                    return self.fail("block", problem);
                }
            }
        }
        for field in definition.blocks.iter().flat_map(|b| &b.fields) {
            let kind = field.quantity.kind();
            if definition.window(kind).is_none() {
                let problem = format!(
                    "is missing; {} is read, so say what is plausible in {}: {} = {{ min = …, max = … }}",
                    field.quantity,
                    kind.base(),
                    kind.name()
                );
                return self.fail(&format!("plausible.{}", kind.name()), problem);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::device::catalog::BUILT_IN;

    fn sdm630() -> &'static str {
        BUILT_IN
            .iter()
            .find(|(name, _)| *name == "eastron-sdm630")
            .unwrap()
            .1
    }

    fn parse(text: &str) -> Result<Definition, ConfigError> {
        Definition::parse(&Source::new(PathBuf::from("mine.toml"), text.to_owned()))
    }

    /// The SDM630 with one line changed; the error's text.
    fn wrong(from: &str, to: &str) -> String {
        let text = sdm630();
        assert!(text.contains(from), "{from}");
        parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn the_sdm630_is_read_in_one_request() {
        let d = parse(sdm630()).unwrap();
        assert_eq!(d.blocks.len(), 1);
        assert_eq!((d.blocks[0].start, d.blocks[0].count), (0, 76));
        assert_eq!(d.blocks[0].function, Function::Input);
        assert_eq!(d.window(Kind::Voltage), Some(Window { min: 0.0, max: 300.0 }));
    }

    #[test]
    fn errors_name_file_line_field_and_the_remedy() {
        for (from, to, place, says) in [
            ("about =", "abuot =", "abuot =", "unknown field `abuot`"),
            (
                "type = \"f32\", unit = \"V\"",
                "type = \"f16\", unit = \"V\"",
                "\"voltage-l1\"",
                "unknown variant `f16`",
            ),
            (
                "quantity = \"voltage-l2\"",
                "quantity = \"volts\"",
                "volts",
                "unknown variant `volts`",
            ),
            (
                "0x0048, type",
                "0x004B, type",
                "0x004B, type",
                "block[0].field[11].register: a f32 at 0x004B is not within its block, 0x0000 to 0x004B",
            ),
            (
                "0x0046, type",
                "0x0100, type",
                "0x0100, type",
                "block[0].field[10].register: a f32 at 0x0100 is not within its block",
            ),
            (
                "0x0002, type",
                "0x0001, type",
                "0x0001, type",
                "block[0].field[1].register: 0x0001 is part of voltage-l1 already",
            ),
            (
                "\"voltage-l2\"",
                "\"voltage-l1\"",
                "0x0002",
                "block[0].field[1].quantity: voltage-l1 is there already",
            ),
            (
                "unit = \"Hz\"",
                "unit = \"V\"",
                "\"frequency\"",
                "block[0].field[10].unit: V is not a unit of frequency; its base is Hz",
            ),
            (
                "unit = \"Hz\"",
                "unit = \"Hz\", scale = 0",
                "\"frequency\"",
                "block[0].field[10].scale: 0 is not a scale",
            ),
            (
                "unit = \"Hz\"",
                "unit = \"Hz\", invalid = \"FF\"",
                "\"frequency\"",
                "write 8 hexadecimal digits",
            ),
            (
                "count = 76",
                "count = 81",
                "count = 81",
                "block[0].count: 81 is out of range; this device gives 1 to 80",
            ),
            (
                "count = 76",
                "count = 0",
                "count = 0",
                "block[0].count: 0 is out of range",
            ),
            (
                "function = 4\nstart",
                "function = 6\nstart",
                "function = 6",
                "block[0].function: 6 does not read registers; use 3",
            ),
            (
                "max_registers = 80",
                "max_registers = 200",
                "max_registers = 200",
                "limits.max_registers: 200 is out of range",
            ),
            (
                "voltage = { min = 0.0,",
                "voltage = { min = 400.0,",
                "voltage = {",
                "plausible.voltage: 400 to 300 is not a window",
            ),
            (
                "energy = { min",
                "# energy = { min",
                "[plausible]",
                "plausible.energy: is missing; import is read, so say what is plausible in Wh",
            ),
            (
                "name = \"eastron-sdm630\"",
                "name = \"Eastron SDM\"",
                "name =",
                "name: \"Eastron SDM\" is not a device name",
            ),
        ] {
            let error = wrong(from, to);
            let changed = sdm630().replacen(from, to, 1);
            let line = changed.lines().position(|l| l.contains(place)).unwrap() + 1;
            assert!(error.contains(says), "{error}\n  lacks {says}");
            assert!(
                error.starts_with(&format!("mine.toml:{line}:")),
                "{error}\n  is at line {line}"
            );
        }
    }

    #[test]
    fn overlapping_blocks_and_torn_readings_are_refused() {
        let more = |text: &str| parse(&format!("{}\n{text}", sdm630())).unwrap_err().to_string();
        let error = more("[[block]]\nfunction = 4\nstart = 0x004B\ncount = 2\nfield = []\n");
        assert!(
            error.contains("block[1].start: 0x004B to 0x004C overlaps block[0], 0x0000 to 0x004B"),
            "{error}"
        );
        let error = more("[[block]]\nfunction = 4\nstart = 0xFFFF\ncount = 2\nfield = []\n");
        assert!(error.contains("go beyond 0xFFFF"), "{error}");
        let error = more("[[block]]\nfunction = 3\nstart = 0x0000\ncount = 2\nfield = []\n");
        assert!(error.contains("block[1].field: is empty"), "{error}");

        let apart = sdm630().replacen(
            "    { quantity = \"power-l3\", register = 0x0010, type = \"f32\", unit = \"W\" },\n",
            "",
            1,
        );
        let error = parse(&apart).unwrap_err().to_string();
        assert!(
            error.contains("power-l3 is missing; a meter needs it for every phase"),
            "{error}"
        );
        let apart = format!(
            "{apart}\n[[block]]\nfunction = 3\nstart = 0x0010\ncount = 2\nfield = [{{ quantity = \"power-l3\", register = 0x0010, type = \"f32\", unit = \"W\" }}]\n"
        );
        let error = parse(&apart).unwrap_err().to_string();
        assert!(
            error.contains("power-l3 is not in the block of current-l1"),
            "{error}"
        );
    }
}
