//! What HTTP and MQTT definitions say.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Check, Checked};
use crate::{
    device::{
        definition::{
            Definition, DeviceKind, Protocol,
            document::{Document, Look, Order, Pick, Stamp, Switch, Telling},
        },
        quantity::{Quantity, Unit},
    },
    units::Phase,
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAnswer {
    timeout_ms: Option<u64>,
    max_age_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDocument {
    /// HTTP: path and query.
    path: Option<String>,
    /// MQTT: below the device's own topic.
    topic: Option<String>,
    time: Option<RawStamp>,
    value: Vec<RawPick>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStamp {
    pointer: String,
    unit: Option<StampUnit>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StampUnit {
    S,
    Ms,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPick {
    quantity: Quantity,
    #[serde(default)]
    pointer: String,
    scale: Option<f64>,
    unit: Unit,
    #[serde(default)]
    invalid: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSwitch {
    on: RawOrder,
    off: RawOrder,
    read: RawLook,
    expires_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrder {
    path: Option<String>,
    topic: Option<String>,
    body: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLook {
    path: Option<String>,
    topic: Option<String>,
    #[serde(default)]
    pointer: String,
    on: Value,
    off: Value,
}

impl Check<'_> {
    /// What the device tells, where it is of a kind that tells.
    pub(super) fn telling(
        &self,
        protocol: Protocol,
        kind: DeviceKind,
        answer: Option<RawAnswer>,
        request: Vec<RawDocument>,
        message: Vec<RawDocument>,
    ) -> Checked<Option<Telling>> {
        let (name, raw, other) = match protocol {
            Protocol::Http => ("request", request, ("message", message.len())),
            Protocol::Mqtt => ("message", message, ("request", request.len())),
            _ => {
                for (field, there) in [
                    ("answer", answer.is_some()),
                    ("request", !request.is_empty()),
                    ("message", !message.is_empty()),
                ] {
                    if there {
                        return self.fail(field, "goes with protocol = \"http\" or \"mqtt\" only; remove it");
                    }
                }
                return Ok(None);
            }
        };
        if other.1 > 0 {
            return self.fail(other.0, format!("goes with another protocol; write [[{name}]]"));
        }
        let answer = answer.unwrap_or_default();
        let within = |field: &str, given: u64, least: u64, most: u64| match given {
            given if (least..=most).contains(&given) => Ok(given),
            given => self
                .fail(&format!("answer.{field}"), format!("{given} is out of range; use {least} to {most}")),
        };
        let mut telling = Telling {
            answer: Duration::from_millis(within(
                "timeout_ms",
                answer.timeout_ms.unwrap_or(2000),
                50,
                10_000,
            )?),
            max_age: Duration::from_secs(within("max_age_s", answer.max_age_s.unwrap_or(10), 1, 3600)?),
            documents: Vec::with_capacity(raw.len()),
        };
        if raw.is_empty() && kind == DeviceKind::Meter {
            return self.fail(name, format!("is missing; add [[{name}]] with value = [ … ]"));
        }
        if !raw.is_empty() && kind == DeviceKind::Switch {
            return self.fail(name, "is for meters; a switch has [switch] alone");
        }
        for (i, document) in raw.into_iter().enumerate() {
            let place = format!("{name}[{i}]");
            let document = self.document(&place, protocol, document, &telling.documents)?;
            telling.documents.push(document);
        }
        Ok(Some(telling))
    }

    fn document(
        &self,
        at: &str,
        protocol: Protocol,
        raw: RawDocument,
        before: &[Document],
    ) -> Checked<Document> {
        let place = self.place(at, protocol, raw.path, raw.topic)?;
        if before.iter().any(|other| other.place == place) {
            return self.fail(at, format!("{place:?} is there already; write its values there"));
        }
        let time = match raw.time {
            Some(time) => Some(Stamp {
                pointer: self.pointer(&format!("{at}.time.pointer"), time.pointer)?,
                per_second: match time.unit.unwrap_or(StampUnit::S) {
                    StampUnit::S => 1.0,
                    StampUnit::Ms => 1000.0,
                },
            }),
            None => None,
        };
        if raw.value.is_empty() {
            return self.fail(&format!("{at}.value"), "is empty; what gives no value need not be asked for");
        }
        let mut values: Vec<Pick> = Vec::with_capacity(raw.value.len());
        for (j, v) in raw.value.into_iter().enumerate() {
            let at = |name: &str| format!("{at}.value[{j}].{name}");
            let known = before.iter().flat_map(|d| &d.values).chain(&values);
            if known.into_iter().any(|o| o.quantity == v.quantity) {
                let problem = format!("{} is there already; give each quantity once", v.quantity);
                return self.fail(&at("quantity"), problem);
            }
            let (kind, factor) = v.unit.factor();
            if kind != v.quantity.kind() {
                let problem = format!(
                    "{} is not a unit of {}; its base is {}",
                    v.unit,
                    v.quantity,
                    v.quantity.kind().base()
                );
                return self.fail(&at("unit"), problem);
            }
            let scale = v.scale.unwrap_or(1.0);
            if !scale.is_normal() {
                let problem = format!("{scale} is not a scale; write a number like 0.1");
                return self.fail(&at("scale"), problem);
            }
            for invalid in &v.invalid {
                self.scalar(&at("invalid"), invalid)?;
            }
            values.push(Pick {
                quantity: v.quantity,
                pointer: self.pointer(&at("pointer"), v.pointer)?,
                factor: scale * factor,
                invalid: v.invalid,
            });
        }
        Ok(Document { place, time, values })
    }

    /// Where a document comes from, or an order goes to.
    fn place(
        &self,
        at: &str,
        protocol: Protocol,
        path: Option<String>,
        topic: Option<String>,
    ) -> Checked<String> {
        match (protocol, path, topic) {
            (Protocol::Http, Some(path), None) => {
                let printable = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
                if path.starts_with('/') && printable && path.len() <= 1000 {
                    return Ok(path);
                }
                let problem = format!("{path:?} is not a path; write it like \"/status?id=0\", without host");
                self.fail(&format!("{at}.path"), problem)
            }
            (Protocol::Mqtt, None, Some(topic)) => {
                let plain = !topic.contains(['+', '#', '\0']) && !topic.starts_with('/');
                if plain && topic.len() <= 1000 {
                    return Ok(topic);
                }
                let problem = format!("{topic:?} is not a topic below the device's own; use no + and #");
                self.fail(&format!("{at}.topic"), problem)
            }
            (Protocol::Http, ..) => self.fail(&format!("{at}.path"), "is missing, or topic stands beside it"),
            _ => self.fail(&format!("{at}.topic"), "is missing, or path stands beside it"),
        }
    }

    fn pointer(&self, at: &str, text: String) -> Checked<String> {
        if text.is_empty() || text.starts_with('/') {
            return Ok(text);
        }
        let problem =
            format!("{text:?} is not a JSON pointer (RFC 6901); write it like \"/phases/0/voltage\"");
        self.fail(at, problem)
    }

    fn scalar(&self, at: &str, value: &Value) -> Checked<()> {
        if value.is_array() || value.is_object() {
            return self.fail(at, "is not one value; write numbers, texts, true or false");
        }
        Ok(())
    }

    pub(super) fn switch(&self, protocol: Protocol, raw: RawSwitch) -> Checked<Switch> {
        if !(5..=600).contains(&raw.expires_s) {
            return self.fail(
                "switch.expires_s",
                format!(
                    "{} is out of range; use 5 to 600: a switch opens by itself when it hears nothing more",
                    raw.expires_s
                ),
            );
        }
        let order = |name: &str, raw: RawOrder| {
            let at = format!("switch.{name}");
            if protocol == Protocol::Mqtt && raw.body.is_none() {
                return self.fail(&format!("{at}.body"), "is missing; say what is sent to the topic");
            }
            Ok(Order { place: self.place(&at, protocol, raw.path, raw.topic)?, body: raw.body })
        };
        let (on, off) = (order("on", raw.on)?, order("off", raw.off)?);
        if on == off {
            return self.fail("switch.off", "is what on is; a switch needs two orders");
        }
        for (name, value) in [("on", &raw.read.on), ("off", &raw.read.off)] {
            self.scalar(&format!("switch.read.{name}"), value)?;
        }
        if raw.read.on == raw.read.off {
            return self.fail("switch.read.off", "is what on is; the two states must read differently");
        }
        Ok(Switch {
            on,
            off,
            read: Look {
                place: self.place("switch.read", protocol, raw.read.path, raw.read.topic)?,
                pointer: self.pointer("switch.read.pointer", raw.read.pointer)?,
                on: raw.read.on,
                off: raw.read.off,
            },
            expires: Duration::from_secs(raw.expires_s),
        })
    }

    /// What a site's meter must tell.
    pub(super) fn told_meter(&self, definition: &Definition) -> Checked<()> {
        let Some(telling) = &definition.telling else { return Ok(()) };
        let name = if definition.protocol == Protocol::Http { "request" } else { "message" };
        let document_of =
            |q: Quantity| telling.documents.iter().position(|d| d.values.iter().any(|v| v.quantity == q));
        for phase in Phase::ALL {
            for quantity in [Quantity::voltage(phase), Quantity::current(phase), Quantity::power(phase)] {
                let Some(at) = document_of(quantity) else {
                    let problem = format!("{quantity} is missing; a meter needs it for every phase");
                    return self.fail(name, problem);
                };
                if quantity != Quantity::voltage(phase) && at != telling.main() {
                    let problem = format!(
                        "{quantity} is not in the document of current-l1; currents and powers must be from one instant"
                    );
                    return self.fail(name, problem);
                }
            }
        }
        self.windows_for(definition)
    }
}
