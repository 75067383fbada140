//! Tariffs, named variables, formulas and charging rules.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Role, Span};
use crate::{
    formula::Unit,
    ids::{ContactId, EvseId, NodeId},
    tariff::{Days, Level, Months, Offer, TimeOfDay, Zone},
    units::{Milliamps, Price, WattHours, Watts},
};

/// `[tariff]`: what energy costs when, as far as nobody announces it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tariff {
    /// The calendar of the windows; default `"Europe/Berlin"`.
    pub(in crate::config) time_zone: Option<String>,
    /// `[[tariff.zone]]`: windows that recur, e.g. §14a Modul 3: `{ from, to, weekdays, months, level, price }`.
    #[serde(default)]
    pub(in crate::config) zone: Vec<Zone>,
    /// `[tariff.variable]`: a named variable that tells the level or the price.
    pub(in crate::config) variable: Option<ByVariable>,
    /// What holds where nothing else does, e.g. `{ level = "normal" }`.
    #[serde(default)]
    pub(in crate::config) otherwise: Offer,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ByVariable {
    /// Name of the `[[variable]]`.
    pub(in crate::config) name: String,
    /// Value → what it means: `{ 0 = { level = "normal" }, 1 = { level = "low" } }`.
    pub(in crate::config) values: BTreeMap<String, Offer>,
}

/// `[[variable]]`: a number that somebody sets from outside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Variable {
    /// `"AVAIL"`: letters, digits and _, no digit first.
    pub(in crate::config) name: String,
    /// `"%"`, `"W"`, `"A"`, `"V"`, `"Wh"`, `"ct/kWh"`; default none.
    #[serde(default)]
    pub(in crate::config) unit: Unit,
    /// Least value; default 0.
    pub(in crate::config) min: Option<f64>,
    /// Largest value; default 100 with `"%"`, else a million.
    pub(in crate::config) max: Option<f64>,
    /// What holds while nobody sets it, and when a setting is over; without it there is no value then.
    pub(in crate::config) default: Option<f64>,
    /// Who may set it beside `admin`; default `["grid", "supplier", "installer"]`.
    pub(in crate::config) roles: Option<Vec<Role>>,
}

/// `[[limit]]`: a power limit by a formula.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct FormulaLimit {
    /// Name, as in `limit list`.
    pub(in crate::config) id: String,
    /// Limited node; default the grid connection.
    pub(in crate::config) node: Option<NodeId>,
    /// `"55000 * AVAIL / 100"`.
    pub(in crate::config) watts: String,
    /// What holds while the formula has no value: a meter is silent, a variable is over.
    pub(in crate::config) otherwise: Watts,
}

/// `[[user]]`: somebody whose cards have rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct User {
    /// Name.
    pub(in crate::config) name: String,
    /// IdTags or tokens.
    pub(in crate::config) cards: Vec<String>,
}

/// `[[rule]]`: the first of a subject's rules whose conditions all hold decides; none, no cap.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rule {
    /// Name, for the reasons.
    pub(in crate::config) id: String,
    /// For one EVSE; for every EVSE without `evse` and `user`.
    pub(in crate::config) evse: Option<EvseId>,
    /// For whoever charges with a card of this `[[user]]`.
    pub(in crate::config) user: Option<String>,
    /// Only from this local time…
    pub(in crate::config) from: Option<TimeOfDay>,
    /// …to this one.
    pub(in crate::config) to: Option<TimeOfDay>,
    /// Only on these days: `"Mo-Fr"`.
    pub(in crate::config) weekdays: Option<Days>,
    /// Only in these months.
    pub(in crate::config) months: Option<Months>,
    /// Only at this tariff level, or one of these.
    pub(in crate::config) level: Option<OneOrMore<Level>>,
    /// Only below this price.
    pub(in crate::config) price_below: Option<Price>,
    /// Only in the cheapest time before the next deadline.
    pub(in crate::config) cheapest: Option<Cheapest>,
    /// Only while a contact is so.
    pub(in crate::config) input: Option<Input>,
    /// Only while this holds: `"TARIF == 1 && hour < 22"`.
    pub(in crate::config) when: Option<String>,
    /// The most per phase; `"0 A"` pauses.
    pub(in crate::config) current: Option<Milliamps>,
    /// The most per phase by a formula in amperes.
    pub(in crate::config) formula: Option<String>,
    /// What the site would feed in otherwise.
    pub(in crate::config) surplus: Option<Surplus>,
    /// Order of service when not all fit: 0 first.
    pub(in crate::config) class: Option<u8>,
    /// What it shall have got by when; as soon as it can only just be on time, it goes before the others of its class. Without
    /// it counts what the car asks for itself, where its EVSE passes that on (OCPP 2.x, `NotifyEVChargingNeeds`).
    pub(in crate::config) ready: Option<Ready>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::config) enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Cheapest {
    /// How much time: `"3 h"`.
    pub(in crate::config) lasting: Span,
    /// The deadline, local time of day.
    pub(in crate::config) by: TimeOfDay,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ready {
    /// `"20 kWh"` from the beginning of the charge.
    pub(in crate::config) energy: WattHours,
    /// Local time of day; the next one after the beginning.
    pub(in crate::config) by: TimeOfDay,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Input {
    /// Name of the `[[contact]]`.
    pub(in crate::config) contact: ContactId,
    /// `"open"` or `"closed"`.
    pub(in crate::config) is: super::Level,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Surplus {
    /// How long there must be enough before it begins; default 60 s.
    pub(in crate::config) start_after: Option<Span>,
    /// How long there must be too little before it ends; default 180 s.
    pub(in crate::config) stop_after: Option<Span>,
    /// What is left to the grid, or, negative, taken from it; default 0 W.
    pub(in crate::config) reserve: Option<Watts>,
    /// Whether the EVSE can be told to charge on one phase; default false.
    #[serde(default)]
    pub(in crate::config) switch_phases: bool,
    /// How long one phase or three must suit better before they are switched; default 10 min.
    pub(in crate::config) switch_after: Option<Span>,
}
