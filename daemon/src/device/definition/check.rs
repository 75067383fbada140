//! TOML → [`Definition`]: the document's own shape, and everything that its types cannot say.

mod document;
mod wallbox;

use std::time::Duration;

use serde::Deserialize;

use self::document::{RawAnswer, RawDocument, RawSwitch};
use self::wallbox::{RawCell, RawFailsafe, RawPlug, RawState, RawWallbox, RawWatchdog};
use super::{Block, Definition, DeviceKind, Field, Function, Head, Probe, Protocol, SunSpec, Window};
use crate::{
    config::{ConfigError, Source},
    device::{
        bus::tty,
        quantity::{Form, Kind, Quantity, Unit, WordOrder},
    },
    ids::MAX_NAME,
    units::Phase,
};

/// Most registers in one request (MODBUS Application Protocol V1.1b3 §6.3, §6.4).
const MOST_REGISTERS: u16 = 125;

pub(super) fn definition(source: &Source) -> Result<Definition, ConfigError> {
    let raw: RawDefinition = toml::from_str(source.text()).map_err(|e| source.parse_error(&e))?;
    Check { source, order: raw.word_order.unwrap_or_default() }.definition(raw)
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
    /// Modbus unit identifier that it comes with.
    unit: Option<u8>,
    sunspec: Option<RawSunSpec>,
    probe: Option<RawProbe>,
    head: Option<Head>,
    #[serde(default)]
    plausible: RawPlausible,
    #[serde(default)]
    block: Vec<RawBlock>,
    state: Option<RawState>,
    plug: Option<RawPlug>,
    #[serde(default)]
    setup: Vec<RawCell>,
    setpoint: Option<RawCell>,
    enable: Option<RawCell>,
    failsafe: Option<RawFailsafe>,
    watchdog: Option<RawWatchdog>,
    answer: Option<RawAnswer>,
    /// HTTP.
    #[serde(default)]
    request: Vec<RawDocument>,
    /// MQTT.
    #[serde(default)]
    message: Vec<RawDocument>,
    switch: Option<RawSwitch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSunSpec {
    model: u16,
    /// Where the map may begin.
    base: Option<Vec<u16>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    max_registers: Option<u16>,
    frame_delay_ms: Option<u64>,
    write_delay_ms: Option<u64>,
    /// Whether the first of two equal requests only wakes the device.
    #[serde(default)]
    wake: bool,
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
    /// A register of the same block whose number is a power of ten that scales this one.
    scale_register: Option<u16>,
}

type Checked<T> = Result<T, ConfigError>;

struct Check<'a> {
    source: &'a Source,
    order: WordOrder,
}

impl Check<'_> {
    pub(super) fn fail<T>(&self, field: &str, problem: impl std::fmt::Display) -> Checked<T> {
        Err(self.source.problem(field, problem))
    }

    fn definition(&self, raw: RawDefinition) -> Checked<Definition> {
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if raw.name.is_empty() || raw.name.len() > MAX_NAME || !raw.name.chars().all(named) {
            let problem = format!("{:?} is not a device name; use 1 to {MAX_NAME} of a-z 0-9 -", raw.name);
            return self.fail("name", problem);
        }
        if raw.about.trim().is_empty() {
            return self.fail("about", "is empty; name make and model for the people who read it");
        }
        let most = raw.limits.max_registers.unwrap_or(MOST_REGISTERS);
        if !(1..=MOST_REGISTERS).contains(&most) {
            return self
                .fail("limits.max_registers", format!("{most} is out of range; use 1 to {MOST_REGISTERS}"));
        }
        let delay = |name: &str, given: Option<u64>| match given.unwrap_or(0) {
            ms @ 0..=1000 => Ok(Duration::from_millis(ms)),
            ms => self.fail(&format!("limits.{name}"), format!("{ms} is out of range; use 0 to 1000")),
        };
        let frame_delay = delay("frame_delay_ms", raw.limits.frame_delay_ms)?;
        let write_delay = delay("write_delay_ms", raw.limits.write_delay_ms)?.max(frame_delay);
        let windows = self.windows(&raw.plausible)?;
        let modbus = raw.protocol == Protocol::Modbus;
        self.fits_protocol(modbus, &raw)?;
        let probe = raw.probe.as_ref().map(|probe| self.probe(probe)).transpose()?;
        let telling = self.telling(raw.protocol, raw.kind, raw.answer, raw.request, raw.message)?;
        let switch = match (raw.kind, raw.switch) {
            (DeviceKind::Switch, Some(switch)) => Some(self.switch(raw.protocol, switch)?),
            (DeviceKind::Switch, None) => {
                return self.fail("switch", "is missing; add [switch] with on, off, read and expires_s");
            }
            (_, Some(_)) => {
                return self.fail("switch", "goes with kind = \"switch\" only; remove it");
            }
            (_, None) => None,
        };
        let blocks = if modbus { self.blocks(raw.block, most, raw.kind)? } else { Vec::new() };
        let tables = RawWallbox {
            state: raw.state,
            plug: raw.plug,
            setup: raw.setup,
            setpoint: raw.setpoint,
            enable: raw.enable,
            failsafe: raw.failsafe,
            watchdog: raw.watchdog,
        };
        let wallbox = match (raw.kind, tables.any()) {
            (DeviceKind::Wallbox, _) => Some(self.wallbox(tables)?),
            (_, Some(table)) => {
                return self.fail(table, "goes with kind = \"wallbox\" only; remove it");
            }
            (_, None) => None,
        };
        let definition = Definition {
            name: raw.name,
            about: raw.about,
            kind: raw.kind,
            protocol: raw.protocol,
            unit: raw.unit,
            frame_delay,
            write_delay,
            wake: raw.limits.wake,
            sunspec: raw.sunspec.map(|s| SunSpec {
                model: s.model,
                bases: s.base.unwrap_or_else(|| vec![40_000, 0, 50_000]),
            }),
            wallbox,
            probe,
            head: raw.head,
            telling,
            switch,
            blocks,
            windows,
        };
        match definition.kind {
            DeviceKind::Switch => {}
            DeviceKind::Meter if definition.telling.is_some() => self.told_meter(&definition)?,
            DeviceKind::Meter if !modbus => self.windows_of_meter(&definition)?,
            DeviceKind::Meter => self.meter(&definition)?,
            DeviceKind::Wallbox => self.windows_for(&definition)?,
        }
        Ok(definition)
    }

    /// What each protocol needs, and what has no meaning with it.
    fn fits_protocol(&self, modbus: bool, raw: &RawDefinition) -> Checked<()> {
        if modbus {
            if raw.probe.is_none() {
                return self
                    .fail("probe", "is missing; add [probe]: a register that tells this device from others");
            }
            if raw.head.is_some() {
                return self.fail("head", "goes with an optical head only; remove it");
            }
            if raw.kind == DeviceKind::Switch {
                return self.fail("protocol", "switches nothing; use http or mqtt");
            }
            return Ok(());
        }
        if raw.kind == DeviceKind::Wallbox {
            return self.fail("protocol", "does not drive a wallbox; use modbus");
        }
        if raw.kind == DeviceKind::Switch && raw.protocol.by_head() {
            return self.fail("protocol", "switches nothing; use http or mqtt");
        }
        if raw.head.is_some() && !raw.protocol.by_head() {
            return self.fail("head", "goes with an optical head only; remove it");
        }
        let foreign = [
            ("probe", raw.probe.is_some()),
            ("block", !raw.block.is_empty()),
            ("sunspec", raw.sunspec.is_some()),
            ("unit", raw.unit.is_some()),
        ];
        for (field, there) in foreign {
            if there {
                return self.fail(field, "goes with protocol = \"modbus\" only; remove it");
            }
        }
        if let Some(head) = raw.head
            && !tty::knows(head.baud)
        {
            return self.fail("head.baud", format!("{} is not a speed; use 300 to 115200", head.baud));
        }
        Ok(())
    }

    /// A meter that tells its values by itself may tell any of them.
    fn windows_of_meter(&self, definition: &Definition) -> Checked<()> {
        for kind in [Kind::Voltage, Kind::Current, Kind::Power, Kind::Energy] {
            if definition.window(kind).is_none() {
                let problem = format!("is missing; say what is plausible in {}", kind.base());
                return self.fail(&format!("plausible.{}", kind.name()), problem);
            }
        }
        Ok(())
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
                let problem = format!("{} to {} is not a window; min is below max", window.min, window.max);
                return self.fail(&format!("plausible.{}", kind.name()), problem);
            }
            windows.push((kind, window));
        }
        Ok(windows)
    }

    pub(super) fn function(&self, field: &str, code: u8) -> Checked<Function> {
        match code {
            3 => Ok(Function::Holding),
            4 => Ok(Function::Input),
            _ => self.fail(field, format!("{code} does not read registers; use 3 (holding) or 4 (input)")),
        }
    }

    fn probe(&self, raw: &RawProbe) -> Checked<Probe> {
        let window = Window { min: raw.min, max: raw.max };
        if !(window.min <= window.max && window.min.is_finite() && window.max.is_finite()) {
            return self
                .fail("probe", format!("{} to {} is not a range; min is at most max", raw.min, raw.max));
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

    fn blocks(&self, raw: Vec<RawBlock>, most: u16, kind: DeviceKind) -> Checked<Vec<Block>> {
        if raw.is_empty() && kind == DeviceKind::Meter {
            return self.fail("block", "is missing; add [[block]] with function, start, count and field");
        }
        let mut blocks: Vec<Block> = Vec::with_capacity(raw.len());
        for (i, b) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("block[{i}].{name}");
            let function = self.function(&at("function"), b.function)?;
            if !(1..=most).contains(&b.count) {
                let problem =
                    format!("{} is out of range; this device gives 1 to {most} in one request", b.count);
                return self.fail(&at("count"), problem);
            }
            if b.start.checked_add(b.count - 1).is_none() {
                let problem = format!("{} registers from 0x{:04X} go beyond 0xFFFF", b.count, b.start);
                return self.fail(&at("count"), problem);
            }
            let mut block = Block { function, start: b.start, count: b.count, fields: Vec::new() };
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

    fn field(&self, place: &str, raw: &RawField, block: &Block) -> Checked<Field> {
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
            return self.fail(&format!("{place}.register"), problem);
        }
        let ends = |f: &Field| f.register + (f.form.registers() - 1);
        if let Some(other) =
            block.fields.iter().find(|o| o.register <= last.unwrap_or(u16::MAX) && raw.register <= ends(o))
        {
            let problem = format!("0x{:04X} is part of {} already", raw.register, other.quantity);
            return self.fail(&format!("{place}.register"), problem);
        }
        let (kind, factor) = raw.unit.factor();
        if kind != raw.quantity.kind() {
            let problem = format!(
                "{} is not a unit of {}; its base is {}",
                raw.unit,
                raw.quantity,
                raw.quantity.kind().base()
            );
            return self.fail(&format!("{place}.unit"), problem);
        }
        let scale = raw.scale.unwrap_or(1.0);
        if !scale.is_normal() {
            return self
                .fail(&format!("{place}.scale"), format!("{scale} is not a scale; write a number like 0.1"));
        }
        let invalid =
            raw.invalid.as_deref().map(|text| self.pattern(&format!("{place}.invalid"), text, raw.form));
        Ok(Field {
            quantity: raw.quantity,
            register: raw.register,
            form: raw.form,
            order: raw.word_order.unwrap_or(self.order),
            factor: scale * factor,
            invalid: invalid.transpose()?,
            power: match raw.scale_register {
                Some(at) if !registers.contains(&at) => {
                    let problem = format!("0x{at:04X} is not within the block");
                    return self.fail(&format!("{place}.scale_register"), problem);
                }
                given => given,
            },
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
        let block_of =
            |q: Quantity| definition.blocks.iter().position(|b| b.fields.iter().any(|f| f.quantity == q));
        for phase in Phase::ALL {
            for quantity in [Quantity::voltage(phase), Quantity::current(phase), Quantity::power(phase)] {
                if block_of(quantity).is_none() {
                    return self
                        .fail("block", format!("{quantity} is missing; a meter needs it for every phase"));
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
        self.windows_for(definition)
    }

    pub(super) fn windows_for(&self, definition: &Definition) -> Checked<()> {
        let told = definition.telling.iter().flat_map(|t| &t.documents).flat_map(|d| &d.values);
        let read = definition.blocks.iter().flat_map(|b| &b.fields).map(|f| f.quantity);
        for quantity in read.chain(told.map(|v| v.quantity)) {
            let kind = quantity.kind();
            if definition.window(kind).is_none() {
                let problem = format!(
                    "is missing; {} is read, so say what is plausible in {}: {} = {{ min = …, max = … }}",
                    quantity,
                    kind.base(),
                    kind.name()
                );
                return self.fail(&format!("plausible.{}", kind.name()), problem);
            }
        }
        Ok(())
    }
}
