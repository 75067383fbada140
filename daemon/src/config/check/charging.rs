//! Tariffs, named variables, formulas and charging rules: names resolved, formulas compiled, overlaps refused.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::{Check, Checked};
use crate::{
    config::{
        Contact, Evse, Meter, Node, Relay, RelayFunction, Role,
        charging::{Charging, FormulaLimit, User},
        raw::{self, charging as raw_charging},
    },
    formula::{EvseField, Formula, MeterField, Name, Scope, Unit},
    ids::LimitId,
    rules::{Cheapest, Conditions, Ready, Rule, Subject, Surplus, Then, Window},
    tariff::{ByVariable, Schedule, berlin, overlap},
    units::{Milliamps, WattHours, Watts},
    variable::Declaration,
};

/// The parts of the site that expressions may name.
pub(super) struct Parts<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) meters: &'a [Meter],
    pub(super) evses: &'a [Evse],
    pub(super) contacts: &'a [Contact],
    pub(super) relays: &'a [Relay],
}

/// The tables of the document.
pub(super) struct Tables {
    pub(super) tariff: raw_charging::Tariff,
    pub(super) variables: Vec<raw_charging::Variable>,
    pub(super) limits: Vec<raw_charging::FormulaLimit>,
    pub(super) users: Vec<raw_charging::User>,
    pub(super) rules: Vec<raw_charging::Rule>,
}

struct Names<'a> {
    parts: &'a Parts<'a>,
    variables: &'a [Declaration],
    /// Whether there is an EVSE for which there is a price.
    rule: bool,
}

const METER: [(&str, MeterField, Unit); 9] = [
    ("power", MeterField::Power, Unit::Watts),
    ("import", MeterField::Import, Unit::WattHours),
    ("export", MeterField::Export, Unit::WattHours),
    ("i1", MeterField::Current(0), Unit::Amps),
    ("i2", MeterField::Current(1), Unit::Amps),
    ("i3", MeterField::Current(2), Unit::Amps),
    ("u1", MeterField::Voltage(0), Unit::Volts),
    ("u2", MeterField::Voltage(1), Unit::Volts),
    ("u3", MeterField::Voltage(2), Unit::Volts),
];

const EVSE: [(&str, EvseField, Unit); 5] = [
    ("power", EvseField::Power, Unit::Watts),
    ("current", EvseField::Current, Unit::Amps),
    ("setpoint", EvseField::Setpoint, Unit::Amps),
    ("connected", EvseField::Connected, Unit::Truth),
    ("charging", EvseField::Charging, Unit::Truth),
];

const PLAIN: [(&str, Name, Unit, bool); 5] = [
    ("hour", Name::Hour, Unit::None, false),
    ("weekday", Name::Weekday, Unit::None, false),
    ("price", Name::Price, Unit::Price, true),
    ("level", Name::Level, Unit::Text, true),
    ("surplus", Name::Surplus, Unit::Watts, false),
];

impl Scope for Names<'_> {
    fn resolve(&self, path: &[String]) -> Option<(Name, Unit)> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            [name] => {
                if let Some((_, name, unit, _)) = PLAIN.iter().find(|p| p.0 == name && (self.rule || !p.3)) {
                    return Some((*name, *unit));
                }
                let at = self.variables.iter().position(|d| d.name == name)?;
                Some((Name::Variable(at), self.variables[at].unit))
            }
            ["meter", id, field] => {
                let at = self.parts.meters.iter().position(|m| m.id.as_str() == id)?;
                let (_, field, unit) = METER.iter().find(|(name, ..)| *name == field)?;
                Some((Name::Meter(at, *field), *unit))
            }
            ["evse", id, field] => {
                let at = self.parts.evses.iter().position(|e| e.id.as_str() == id)?;
                let (_, field, unit) = EVSE.iter().find(|(name, ..)| *name == field)?;
                Some((Name::Evse(at, *field), *unit))
            }
            ["contact", id] => {
                let at = self.parts.contacts.iter().position(|c| c.id.as_str() == id)?;
                Some((Name::Contact(at), Unit::Truth))
            }
            _ => None,
        }
    }

    fn known(&self) -> Vec<String> {
        let fields = |names: &[&str]| names.join("|");
        let plain = PLAIN.iter().filter(|p| self.rule || !p.3).map(|p| p.0.to_owned());
        let mut known: Vec<String> = self.variables.iter().map(|d| d.name.clone()).chain(plain).collect();
        let meter = fields(&METER.map(|m| m.0));
        known.extend(self.parts.meters.iter().map(|m| format!("meter.{}.{meter}", m.id)));
        let evse = fields(&EVSE.map(|e| e.0));
        known.extend(self.parts.evses.iter().map(|e| format!("evse.{}.{evse}", e.id)));
        known.extend(self.parts.contacts.iter().map(|c| format!("contact.{}", c.id)));
        known
    }
}

impl Check<'_> {
    pub(super) fn charging(&self, tables: Tables, parts: &Parts<'_>) -> Checked<Charging> {
        let variables = self.variables(tables.variables)?;
        let tariff = self.tariff(tables.tariff, &variables)?;
        let users = self.users(tables.users)?;
        let limits = self.formula_limits(tables.limits, parts, &variables)?;
        let names = Names { parts, variables: &variables, rule: true };
        let mut rules: Vec<Rule> = Vec::with_capacity(tables.rules.len());
        if tables.rules.len() > 200 {
            return self.fail("rule", format!("there are {}; at most 200", tables.rules.len()));
        }
        for (i, raw) in tables.rules.into_iter().enumerate() {
            if rules.iter().any(|other| other.id == raw.id) {
                return self
                    .fail(&format!("rule[{i}].id"), format!("\"{}\" names another rule already", raw.id));
            }
            rules.push(self.rule(i, raw, &names, &users)?);
        }
        Ok(Charging { tariff, variables, limits, users, rules })
    }

    fn variables(&self, raw: Vec<raw_charging::Variable>) -> Checked<Vec<Declaration>> {
        let mut all: Vec<Declaration> = Vec::with_capacity(raw.len());
        for (i, v) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("variable[{i}].{name}");
            let letters = v.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let first = v.name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
            let taken =
                ["meter", "evse", "contact", "true", "false", "null", "in", "min", "max", "abs", "floor"];
            if !letters || !first || v.name.len() > 48 {
                return self
                    .fail(&at("name"), "is not a name; use up to 48 letters, digits and _, no digit first");
            }
            if taken.contains(&v.name.as_str()) || PLAIN.iter().any(|p| p.0 == v.name) {
                return self.fail(&at("name"), format!("\"{}\" has a meaning in formulas already", v.name));
            }
            if all.iter().any(|other| other.name == v.name) {
                return self.fail(&at("name"), format!("\"{}\" names another variable already", v.name));
            }
            let max = v.max.unwrap_or(if v.unit == Unit::Percent { 100.0 } else { 1_000_000.0 });
            let min = v.min.unwrap_or(0.0);
            if !(min.is_finite() && max.is_finite() && min < max) {
                return self.fail(&at("max"), format!("{max} is not above min, {min}"));
            }
            if let Some(default) = v.default.filter(|default| !(min..=max).contains(default)) {
                return self.fail(&at("default"), format!("{default} is out of the range {min} to {max}"));
            }
            all.push(Declaration {
                name: v.name,
                unit: v.unit,
                min,
                max,
                default: v.default,
                roles: v.roles.unwrap_or_else(|| vec![Role::Grid, Role::Supplier, Role::Installer]),
            });
        }
        Ok(all)
    }

    fn tariff(&self, raw: raw_charging::Tariff, variables: &[Declaration]) -> Checked<Schedule> {
        let zone = match &raw.time_zone {
            None => berlin(),
            Some(name) if name == "Europe/Berlin" => berlin(),
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(_) => {
                    let problem =
                        format!("{name:?} is no time zone of this system; write it like \"Europe/Berlin\"");
                    return self.fail("tariff.time_zone", problem);
                }
            },
        };
        for (i, new) in raw.zone.iter().enumerate() {
            let field = format!("tariff.zone[{i}]");
            if new.offer().is_empty() {
                return self.fail(&field, "says neither a price nor a level");
            }
            if let Some(other) = raw.zone[..i].iter().position(|other| overlap(new, other)) {
                return self.fail(
                    &field,
                    format!(
                        "holds together with zone[{other}], which has the same priority {}; keep their times apart, \
                         or give one another priority",
                        new.priority
                    ),
                );
            }
        }
        let variable = match raw.variable {
            None => None,
            Some(by) => {
                let Some(variable) = variables.iter().position(|d| d.name == by.name) else {
                    let problem = format!("there is no [[variable]] with name = \"{}\"", by.name);
                    return self.fail("tariff.variable.name", problem);
                };
                let mut values = Vec::with_capacity(by.values.len());
                for (value, offer) in by.values {
                    let field = format!("tariff.variable.values.{value}");
                    let Ok(number) = value.parse() else {
                        return self.fail(&field, "is not a whole number");
                    };
                    if offer.is_empty() {
                        return self.fail(&field, "says neither a price nor a level");
                    }
                    values.push((number, offer));
                }
                Some(ByVariable { variable, values })
            }
        };
        Ok(Schedule { zone, zones: raw.zone, variable, otherwise: raw.otherwise })
    }

    fn users(&self, raw: Vec<raw_charging::User>) -> Checked<Vec<User>> {
        let mut users: Vec<User> = Vec::with_capacity(raw.len());
        for (i, u) in raw.into_iter().enumerate() {
            if users.iter().any(|other| other.name == u.name) {
                return self
                    .fail(&format!("user[{i}].name"), format!("\"{}\" names another user already", u.name));
            }
            let cards: Vec<_> = u.cards.iter().map(|card| card.to_lowercase()).collect();
            if let Some(other) =
                users.iter().find(|other| cards.iter().any(|card| other.cards.contains(card)))
            {
                let problem = format!("one of them belongs to \"{}\" already", other.name);
                return self.fail(&format!("user[{i}].cards"), problem);
            }
            users.push(User { name: u.name, cards });
        }
        Ok(users)
    }

    fn formula_limits(
        &self,
        raw: Vec<raw_charging::FormulaLimit>,
        parts: &Parts<'_>,
        variables: &[Declaration],
    ) -> Checked<Vec<FormulaLimit>> {
        let names = Names { parts, variables, rule: false };
        let mut limits: Vec<FormulaLimit> = Vec::with_capacity(raw.len());
        for (i, limit) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("limit[{i}].{name}");
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if limit.id.is_empty() || limit.id.len() > 48 || !limit.id.bytes().all(fits) {
                return self.fail(&at("id"), "is not a name; use 1 to 48 of A-Z a-z 0-9 . _ -");
            }
            let id = LimitId::new(&format!("formula-{}", limit.id));
            if limits.iter().any(|other| other.id == id) {
                return self.fail(&at("id"), format!("\"{}\" names another limit already", limit.id));
            }
            if limit.otherwise < Watts::ZERO {
                return self.fail(&at("otherwise"), "is negative; a limit is 0 W or more");
            }
            let node = match limit.node {
                None => 0,
                Some(name) => match parts.nodes.iter().position(|n| n.id == name) {
                    Some(index) => index,
                    None => {
                        return self.fail(&at("node"), format!("there is no [[node]] with id = \"{name}\""));
                    }
                },
            };
            let watts = self.formula(&at("watts"), &limit.watts, &names, Unit::Watts)?;
            limits.push(FormulaLimit { id, node, watts, otherwise: limit.otherwise });
        }
        Ok(limits)
    }

    fn formula(&self, field: &str, text: &str, names: &Names<'_>, wanted: Unit) -> Checked<Formula> {
        Formula::compile(text, names, wanted).or_else(|error| self.fail(field, error))
    }

    #[expect(clippy::too_many_lines, reason = "one field after the other")]
    fn rule(&self, i: usize, raw: raw_charging::Rule, names: &Names<'_>, users: &[User]) -> Checked<Rule> {
        let at = |name: &str| format!("rule[{i}].{name}");
        let subject = match (&raw.evse, &raw.user) {
            (None, None) => Subject::Everybody,
            (Some(_), Some(_)) => {
                return self.fail(&at("user"), "stands beside evse; a rule has one subject");
            }
            (Some(name), None) => match names.parts.evses.iter().position(|e| e.id == *name) {
                Some(index) => Subject::Evse(index),
                None => return self.fail(&at("evse"), format!("there is no [[evse]] with id = \"{name}\"")),
            },
            (None, Some(name)) => match users.iter().position(|u| u.name == *name) {
                Some(index) => Subject::User(index),
                None => {
                    return self.fail(&at("user"), format!("there is no [[user]] with name = \"{name}\""));
                }
            },
        };
        let timed = raw.from.is_some() || raw.to.is_some() || raw.weekdays.is_some() || raw.months.is_some();
        let window = timed.then(|| Window {
            from: raw.from.unwrap_or_default(),
            to: raw.to.unwrap_or(crate::tariff::TimeOfDay(1440)),
            weekdays: raw.weekdays.unwrap_or_default(),
            months: raw.months.unwrap_or_default(),
        });
        let s = Duration::from_secs;
        let cheapest = match raw.cheapest {
            None => None,
            Some(c) => Some(Cheapest {
                lasting: self.duration(
                    &at("cheapest.lasting"),
                    Some(c.lasting),
                    s(3600),
                    s(60),
                    s(23 * 3600),
                )?,
                by: c.by,
            }),
        };
        let input = match raw.input {
            None => None,
            Some(input) => match names.parts.contacts.iter().position(|c| c.id == input.contact) {
                Some(index) => Some((index, input.is == raw::Level::Closed)),
                None => {
                    let problem = format!("there is no [[contact]] with id = \"{}\"", input.contact);
                    return self.fail(&at("input.contact"), problem);
                }
            },
        };
        let levels = match raw.level {
            None => Vec::new(),
            Some(raw_charging::OneOrMore::One(level)) => vec![level],
            Some(raw_charging::OneOrMore::More(levels)) => levels,
        };
        let when = raw
            .when
            .as_deref()
            .map(|text| self.formula(&at("when"), text, names, Unit::Truth))
            .transpose()?;
        let then = match (raw.current, raw.formula, raw.surplus) {
            (Some(current), None, None) if current >= Milliamps::ZERO => Then::Current(current),
            (Some(_), None, None) => return self.fail(&at("current"), "is negative; \"0 A\" pauses"),
            (None, Some(text), None) => {
                Then::Formula(self.formula(&at("formula"), &text, names, Unit::Amps)?)
            }
            (None, None, Some(surplus)) => Then::Surplus(Surplus {
                start_after: self.duration(
                    &at("surplus.start_after"),
                    surplus.start_after,
                    s(60),
                    s(0),
                    s(3600),
                )?,
                stop_after: self.duration(
                    &at("surplus.stop_after"),
                    surplus.stop_after,
                    s(180),
                    s(0),
                    s(3600),
                )?,
                switch_after: self.duration(
                    &at("surplus.switch_after"),
                    surplus.switch_after,
                    s(600),
                    s(1),
                    s(7200),
                )?,
                reserve: surplus.reserve.unwrap_or_default(),
                switch_phases: surplus.switch_phases,
            }),
            _ => {
                return self.fail(
                    &at("current"),
                    "is missing, or stands beside formula or surplus; say one of them",
                );
            }
        };
        if let (Then::Surplus(Surplus { switch_phases: true, .. }), relays) = (&then, names.parts.relays) {
            let evses = match subject {
                Subject::Evse(index) => index..index + 1,
                _ => 0..names.parts.evses.len(),
            };
            for e in evses {
                let evse = &names.parts.evses[e];
                let told = evse.device.is_none() && evse.ocpp.one_phase;
                if !told && !relays.iter().any(|r| r.function == RelayFunction::OnePhase(e)) {
                    let problem = format!(
                        "needs a [[relay]] with function = \"one-phase\" and evse = \"{}\", or ocpp.one_phase = true \
                         at the EVSE",
                        evse.id
                    );
                    return self.fail(&at("surplus.switch_phases"), problem);
                }
            }
        }
        let ready = match raw.ready {
            Some(ready) if ready.energy < WattHours(100) || ready.energy > WattHours(500_000) => {
                let problem = format!("{} is out of range; use 0.1 kWh to 500 kWh", ready.energy);
                return self.fail(&at("ready.energy"), problem);
            }
            ready => ready.map(|ready| Ready { energy: ready.energy, by: ready.by }),
        };
        let conditions = Conditions { window, levels, price_below: raw.price_below, cheapest, input, when };
        Ok(Rule { id: raw.id, subject, conditions, then, class: raw.class, ready })
    }
}
