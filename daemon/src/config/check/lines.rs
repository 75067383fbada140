//! Digital inputs and outputs.

use std::time::Duration;

use super::{Check, Checked};
use crate::{
    config::{
        Attachment, Broker, Contact, ContactMeaning, Device, Evse, Line, Mirror, Node, Relay, RelayFunction,
        raw,
    },
    ids::RelayId,
    units::Watts,
};

impl Check<'_> {
    fn line(&self, field: &str, raw: raw::Line) -> Checked<Line> {
        if raw.switch.is_some() || raw.address.is_some() || raw.broker.is_some() || raw.topic.is_some() {
            return self
                .fail(field, "a switch in the network is an output: write it as the line of a [[relay]]");
        }
        match (raw.chip, raw.offset, raw.file) {
            (Some(chip), Some(offset), None) => Ok(Line::Gpio { chip, offset }),
            (None, None, Some(file)) => Ok(Line::File(self.source.directory().join(file))),
            _ => self.fail(
                field,
                "write { chip = \"/dev/gpiochip0\", offset = 4 }, or { file = \"…\" } on a simulated site",
            ),
        }
    }

    /// Where a relay's output is.
    fn output(&self, field: &str, relay: &RelayId, raw: raw::Line, brokers: &[Broker]) -> Checked<Line> {
        let Some(definition) = raw.switch else { return self.line(field, raw) };
        if raw.chip.is_some() || raw.offset.is_some() || raw.file.is_some() {
            return self.fail(field, "switch stands beside chip, offset or file; an output is in one place");
        }
        let at = match (raw.address, raw.broker, raw.topic) {
            (Some(address), None, None) => match self.attachment(field, Some(address), None, &[])? {
                Attachment::Http(address) => Attachment::Http(address),
                _ => {
                    return self.fail(
                        &format!("{field}.address"),
                        "is not a switch's; write it like \"http://10.0.0.9\"",
                    );
                }
            },
            (None, Some(broker), Some(topic)) => self.topic(field, &broker, topic, brokers)?,
            _ => {
                return self
                    .fail(field, "say where the switch is: address = \"http://…\", or broker and topic");
            }
        };
        Ok(Line::Switch { relay: relay.clone(), definition, at })
    }

    pub(super) fn contacts(&self, raw: Vec<raw::Contact>, nodes: &[Node]) -> Checked<Vec<Contact>> {
        let mut contacts: Vec<Contact> = Vec::with_capacity(raw.len());
        for (i, c) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("contact[{i}].{name}");
            if contacts.iter().any(|other| other.id == c.id) {
                return self.fail(&at("id"), format!("\"{}\" names another contact already", c.id));
            }
            let meaning = match (c.limit, c.second, c.limits, c.signal) {
                (Some(limit), None, None, None) if limit < Watts::ZERO => {
                    return self.fail(&at("limit"), format!("{limit} is negative; a limit is 0 W or more"));
                }
                (Some(limit), None, None, None) => ContactMeaning::Limit(limit),
                (None, Some(second), Some(limits), None) => ContactMeaning::Code(
                    self.line(&at("second"), second)?,
                    self.limits(&at("limits"), &limits)?,
                ),
                (None, None, None, Some(signal)) => match signal.as_str() {
                    "W3" | "S1" | "S2" => ContactMeaning::Signal,
                    _ => {
                        return self.fail(
                            &at("signal"),
                            format!("{signal:?} is not a feed-in signal; use W3, S1 or S2, or limit for W4"),
                        );
                    }
                },
                _ => {
                    return self.fail(
                        &at("limit"),
                        "say what it means: limit = \"4.2 kW\", second = { … } with limits = [ … ], or signal = \"W3\"",
                    );
                }
            };
            contacts.push(Contact {
                id: c.id,
                line: self.line(&at("line"), c.line)?,
                limited_when_closed: c.limited_when == raw::Level::Closed,
                debounce: self.duration(
                    &at("debounce"),
                    c.debounce,
                    Duration::from_millis(200),
                    Duration::from_millis(1),
                    Duration::from_secs(10),
                )?,
                meaning,
                node: self.node(&at("node"), c.node, nodes)?,
            });
        }
        Ok(contacts)
    }

    fn limits(&self, field: &str, given: &[String]) -> Checked<[Option<Watts>; 4]> {
        let Ok(codes) = <&[String; 4]>::try_from(given) else {
            let problem = format!("has {} entries; two lines make four codes", given.len());
            return self.fail(field, problem);
        };
        let mut limits = [None; 4];
        for (i, (limit, text)) in limits.iter_mut().zip(codes).enumerate() {
            *limit = match text.as_str() {
                "none" => None,
                text => match text.parse::<Watts>() {
                    Ok(watts) if watts >= Watts::ZERO => Some(watts),
                    _ => {
                        return self.fail(
                            &format!("{field}[{i}]"),
                            format!("{text:?} is not a limit; write a power like \"4.2 kW\", or \"none\""),
                        );
                    }
                },
            };
        }
        if limits.iter().all(Option::is_none) {
            return self.fail(field, "limits nothing; give at least one code a power");
        }
        Ok(limits)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each mistake, in the order of the fields")]
    pub(super) fn relays(
        &self,
        raw: Vec<raw::Relay>,
        evses: &[Evse],
        devices: &[Device],
        contacts: &[Contact],
        brokers: &[Broker],
    ) -> Checked<Vec<Relay>> {
        let mut relays: Vec<Relay> = Vec::with_capacity(raw.len());
        for (i, r) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("relay[{i}].{name}");
            if relays.iter().any(|other| other.id == r.id) {
                return self.fail(&at("id"), format!("\"{}\" names another relay already", r.id));
            }
            let evse = match (&r.evse, r.function) {
                (Some(name), raw::Function::Release | raw::Function::Contactor | raw::Function::OnePhase) => {
                    match evses.iter().position(|e| e.id == *name) {
                        Some(index) => Some(index),
                        None => {
                            return self
                                .fail(&at("evse"), format!("there is no [[evse]] with id = \"{name}\""));
                        }
                    }
                }
                (Some(_), raw::Function::Unlimited) => {
                    return self.fail(&at("evse"), "has no meaning with function = \"unlimited\"; remove it");
                }
                (Some(_), raw::Function::Contact) => {
                    return self.fail(&at("evse"), "has no meaning with function = \"contact\"; remove it");
                }
                (None, raw::Function::Release) if r.device.is_none() => {
                    let mend = "is missing; name the EVSE that this relay releases, or the device";
                    return self.fail(&at("evse"), mend);
                }
                (None, raw::Function::OnePhase) => {
                    let mend = "is missing; name the EVSE that this relay puts on one phase";
                    return self.fail(&at("evse"), mend);
                }
                (None, raw::Function::Contactor) => {
                    return self.fail(&at("evse"), "is missing; name the EVSE that this contactor is before");
                }
                (None, _) => None,
            };
            let device = match (&r.device, r.function, evse) {
                (None, ..) => None,
                (Some(_), raw::Function::Release, Some(_)) => {
                    return self.fail(&at("device"), "stands beside evse; a relay releases one of them");
                }
                (Some(name), raw::Function::Release, None) => {
                    match devices.iter().position(|d| d.id == *name) {
                        Some(index) => Some(index),
                        None => {
                            let problem = format!("there is no [[device]] with id = \"{name}\"");
                            return self.fail(&at("device"), problem);
                        }
                    }
                }
                (Some(_), raw::Function::Unlimited, _) => {
                    return self
                        .fail(&at("device"), "has no meaning with function = \"unlimited\"; remove it");
                }
                (Some(_), ..) => {
                    return self.fail(&at("device"), "goes with function = \"release\" only; remove it");
                }
            };
            let contact = match (&r.contact, r.function) {
                (Some(name), raw::Function::Contact) => match contacts.iter().position(|c| c.id == *name) {
                    Some(index) => Some(index),
                    None => {
                        return self
                            .fail(&at("contact"), format!("there is no [[contact]] with id = \"{name}\""));
                    }
                },
                (Some(_), _) => {
                    return self.fail(&at("contact"), "goes with function = \"contact\" only; remove it");
                }
                (None, raw::Function::Contact) => {
                    return self.fail(&at("contact"), "is missing; name the contact that is handed on");
                }
                (None, _) => None,
            };
            let function = match (r.function, evse.or(device), contact) {
                (raw::Function::Release, Some(index), _) if evse.is_none() => RelayFunction::Device(index),
                (raw::Function::Release, Some(evse), _) => RelayFunction::Release(evse),
                (raw::Function::Contactor, Some(evse), _) => RelayFunction::Contactor(evse),
                (raw::Function::OnePhase, Some(evse), _) => RelayFunction::OnePhase(evse),
                (raw::Function::Contact, _, Some(contact)) => RelayFunction::Contact(contact),
                _ => RelayFunction::Unlimited,
            };
            let (zero, ms) = (Duration::ZERO, Duration::from_millis);
            let contactor = matches!(function, RelayFunction::Contactor(_));
            if r.min_on.is_some() && !contactor {
                return self.fail(
                    &at("min_on"),
                    "goes with function = \"contactor\" only: a limit waits for nothing",
                );
            }
            let follow = self.duration(&at("follow"), r.follow, ms(200), ms(20), ms(500))?;
            let mirror = match r.mirror {
                Some(line) => Some(Mirror {
                    line: self.line(&at("mirror"), line)?,
                    closed_when_released: r.mirror_closed_when != Some(raw::MirrorState::Energised),
                    follow,
                }),
                None if r.mirror_closed_when.is_some() => {
                    return self.fail(
                        &at("mirror_closed_when"),
                        "says something of a mirror contact that is not given",
                    );
                }
                None => None,
            };
            let most = Duration::from_secs(3600);
            relays.push(Relay {
                line: self.output(&at("line"), &r.id, r.line, brokers)?,
                id: r.id,
                function,
                mirror,
                min_on: self.duration(&at("min_on"), r.min_on, zero, zero, most)?,
                min_off: self.duration(&at("min_off"), r.min_off, zero, zero, most)?,
            });
        }
        Ok(relays)
    }
}
