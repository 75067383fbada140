//! Charging rules: who may charge how much, when. Per EVSE and per user; the smaller result wins.
//!
//! In: the rules of the configuration and the facts of the site. Out: one [`Wish`] per EVSE, with its reason. Invariant:
//! rules only take away; a rule whose condition cannot be judged counts both ways, and the smaller result wins. Pure.
//!
//! ```text
//! rules of the EVSE and for everybody, in order ─→ first that holds ─→ cap ─┐
//! rules of the user who charges,       in order ─→ first that holds ─→ cap ─┴→ the smaller
//! ```
//!
//! Surplus is shared in order: those who charge from it already first, each up to its maximum.

mod judge;
mod surplus;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    judge::{Verdict, judge},
    surplus::{Phases, Sun},
};
use crate::{
    formula::{Formula, Name, Value},
    policy::{Deadline, Wish},
    site::Site,
    tariff::{Days, Level, Local, Months, TimeOfDay, Zone},
    time::{Now, Wall},
    units::{Milliamps, Price, WattHours, Watts},
};

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Name.
    pub id: String,
    /// For whom.
    pub subject: Subject,
    /// All of them must hold.
    pub conditions: Conditions,
    /// The result.
    pub then: Then,
    /// Order of service when not all fit: 0 first.
    pub class: Option<u8>,
    /// What it shall have got by when.
    pub ready: Option<Ready>,
}

/// For whom a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Every EVSE.
    Everybody,
    /// One EVSE, by index.
    Evse(usize),
    /// Whoever charges with a card of this user, by index.
    User(usize),
}

/// Conditions; absent ones hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conditions {
    /// On the local calendar.
    pub window: Option<Window>,
    /// One of these levels; empty is any.
    pub levels: Vec<Level>,
    /// The price is below.
    pub price_below: Option<Price>,
    /// Among the cheapest time before a deadline.
    pub cheapest: Option<Cheapest>,
    /// A contact (index) is closed (`true`) or open.
    pub input: Option<(usize, bool)>,
    /// An expression holds.
    pub when: Option<Formula>,
}

/// A window on the local calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First minute.
    pub from: TimeOfDay,
    /// First minute after; up to `from` means the next day.
    pub to: TimeOfDay,
    /// Days on which it begins.
    pub weekdays: Days,
    /// Months in which it begins.
    pub months: Months,
}

impl Window {
    /// Whether the local clock is within it.
    #[must_use]
    pub fn covers(&self, local: Local) -> bool {
        let zone = Zone {
            from: self.from,
            to: self.to,
            weekdays: self.weekdays,
            months: self.months,
            valid_from: None,
            valid_to: None,
            priority: 0,
            price: None,
            level: None,
        };
        zone.covers(local)
    }
}

/// The cheapest time before a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cheapest {
    /// How much time.
    pub lasting: Duration,
    /// The deadline, local time of day.
    pub by: TimeOfDay,
}

/// What a car shall have got by when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// From the beginning of the charge.
    pub energy: WattHours,
    /// The deadline, local time of day.
    pub by: TimeOfDay,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// At most this per phase.
    Current(Milliamps),
    /// At most what this gives, in amperes.
    Formula(Formula),
    /// At most what the site would feed in otherwise.
    Surplus(Surplus),
}

/// How surplus is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surplus {
    /// How long there must be enough before it begins.
    pub start_after: Duration,
    /// How long there must be too little before it ends.
    pub stop_after: Duration,
    /// How long another number of phases must suit better before they are switched.
    pub switch_after: Duration,
    /// Left to the grid; negative: taken from it.
    pub reserve: Watts,
    /// Whether the EVSE can be told to charge on one phase.
    pub switch_phases: bool,
}

/// What the rules remember of an EVSE.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Charging from surplus.
    pub sun: Sun,
    /// The chosen cheapest time, so that it is chosen once.
    cheapest: Option<Chosen>,
}

#[derive(Debug, Clone)]
struct Chosen {
    /// Revision of the tariffs, rule, start and end: what it was chosen for.
    of: (u64, usize, Wall, Wall),
    times: Vec<(Wall, Wall)>,
}

/// A result before the surplus is shared.
struct Outcome {
    cap: Option<Milliamps>,
    surplus: Option<Surplus>,
    class: Option<u8>,
    ready: Option<Ready>,
    reason: String,
}

/// Judges every rule for every EVSE, keeps what must be remembered, and leaves the wishes in the site.
pub fn apply(site: &mut Site, now: Now) {
    if site.config.charging.rules.is_empty() {
        for e in 0..site.evses.len() {
            site.wishes[e].deadline = told(site, e);
        }
        return;
    }
    for e in 0..site.evses.len() {
        choose(site, e, now);
    }
    let outcomes: Vec<Outcome> = (0..site.evses.len()).map(|e| outcome(site, e, now)).collect();
    let suns = surplus::share(site, &outcomes.iter().map(|o| o.surplus).collect::<Vec<_>>(), now);
    for (e, (outcome, sun)) in outcomes.into_iter().zip(suns).enumerate() {
        let mut wish = Wish { cap: outcome.cap, reason: outcome.reason, ..Wish::default() };
        if let Some(class) = outcome.class {
            wish.class = class;
        }
        wish.deadline = outcome.ready.and_then(|ready| deadline(site, e, ready)).or_else(|| told(site, e));
        if let Some((state, cap, why)) = sun {
            if site.rules[e].sun.phases != state.phases {
                // What was seen of its phases was seen under the other number.
                site.evses[e].mask = None;
            }
            site.rules[e].sun = state;
            if wish.cap.is_none_or(|other| cap < other) {
                wish.cap = Some(cap);
                wish.reason = if wish.reason.is_empty() { why } else { format!("{}: {why}", wish.reason) };
            }
        } else {
            site.rules[e].sun = Sun::default();
        }
        let least = site.config.evses[e].min;
        if let Some(cap) = wish.cap.filter(|cap| *cap > Milliamps::ZERO && *cap < least) {
            wish.reason = format!("{}; {cap} is below the least current of {least}", wish.reason);
            wish.cap = Some(Milliamps::ZERO);
        }
        site.wishes[e] = wish;
    }
}

/// The first such time after the charge began, and what is missing by the EVSE's own register; none without a charge or
/// a register.
fn deadline(site: &Site, e: usize, ready: Ready) -> Option<Deadline> {
    let facts = &site.evses[e];
    let transaction = facts.transaction.as_ref()?;
    let (_, at) = site.config.charging.tariff.around(ready.by, transaction.started)?;
    let charged = facts.draw.and_then(|draw| draw.energy)? - transaction.meter_start;
    let missing = (ready.energy - charged.max(WattHours(0))).max(WattHours(0));
    Some(Deadline { at, missing })
}

/// What the car itself has asked for: what it wanted then, less what was charged since by the EVSE's register.
fn told(site: &Site, e: usize) -> Option<Deadline> {
    let facts = &site.evses[e];
    facts.transaction.as_ref()?;
    let (needs, register) = facts.needs?;
    let charged = facts.draw.and_then(|draw| draw.energy)? - register?;
    let missing = (needs.energy? - charged.max(WattHours(0))).max(WattHours(0));
    Some(Deadline { at: needs.departure?, missing })
}

/// The rules that concern an EVSE now, in two lists: its own, and its user's.
fn lists(site: &Site, e: usize) -> [Vec<usize>; 2] {
    let user = site.evses[e].user;
    let rules = site.config.charging.rules.iter().enumerate();
    let (mut own, mut users) = (Vec::new(), Vec::new());
    for (at, rule) in rules {
        match rule.subject {
            Subject::Everybody => own.push(at),
            Subject::Evse(index) if index == e => own.push(at),
            Subject::User(index) if user == Some(index) => users.push(at),
            _ => {}
        }
    }
    [own, users]
}

fn outcome(site: &Site, e: usize, now: Now) -> Outcome {
    let mut result = Outcome { cap: None, surplus: None, class: None, ready: None, reason: String::new() };
    for list in lists(site, e) {
        for at in list {
            let rule = &site.config.charging.rules[at];
            let (held, why) = match judge(site, e, at, now) {
                Verdict::No(_) => continue,
                Verdict::Yes(why) => (true, why),
                Verdict::Unknown(why) => (false, format!("cannot be judged, so the smaller counts: {why}")),
            };
            let (cap, surplus, what) = match &rule.then {
                Then::Current(current) => (Some(*current), None, String::new()),
                Then::Surplus(surplus) => (None, Some(*surplus), String::new()),
                Then::Formula(formula) => match formula.number(&|name| site.value(name, Some(e), now)) {
                    Ok(amps) => {
                        (Some(milliamps(amps)), None, format!(", {} = {}", formula.text(), milliamps(amps)))
                    }
                    Err(fault) => {
                        (Some(Milliamps::ZERO), None, format!(", {} has no value: {fault}", formula.text()))
                    }
                },
            };
            let whose = if matches!(rule.subject, Subject::User(_)) { "user rule" } else { "rule" };
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            let reason = format!("{whose} \"{}\"{why}{what}", rule.id);
            match cap {
                Some(cap) if result.cap.is_none_or(|other| cap < other) => {
                    result.cap = Some(cap);
                    result.reason = reason;
                }
                None if result.cap.is_none() => result.reason = reason,
                _ => {}
            }
            result.surplus = surplus.or(result.surplus);
            result.ready = result.ready.or(rule.ready);
            result.class = match (result.class, rule.class) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
            if held {
                break;
            }
        }
    }
    result
}

/// Rounded down; never below 0.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn milliamps(amps: f64) -> Milliamps {
    Milliamps((amps * 1000.0).floor().clamp(0.0, 1_000_000.0) as i64)
}

/// Chooses the cheapest time for each rule that asks for it, once per tariff and deadline.
fn choose(site: &mut Site, e: usize, now: Now) {
    for list in lists(site, e) {
        for at in list {
            let Some(cheapest) = site.config.charging.rules[at].conditions.cheapest else { continue };
            let Some((before, deadline)) = site.config.charging.tariff.around(cheapest.by, now.wall) else {
                continue;
            };
            let began = site.evses[e].transaction.as_ref().map(|t| t.started);
            let start = began.filter(|began| (before..deadline).contains(began)).unwrap_or(before);
            let of = (site.revision, at, start, deadline);
            if site.rules[e].cheapest.as_ref().is_some_and(|chosen| chosen.of == of) {
                continue;
            }
            let rates = site.tariffs_now(now).rates(&site.config.evses[e].id, start, deadline);
            let times = judge::cheapest(&rates, cheapest.lasting);
            site.rules[e].cheapest = Some(Chosen { of, times });
        }
    }
}

/// What every rule of an EVSE says now, for people: name, verdict in a word, why.
#[must_use]
pub fn trace(site: &Site, e: usize, now: Now) -> Vec<(String, &'static str, String)> {
    let mut lines = Vec::new();
    for list in lists(site, e) {
        let mut decided = false;
        for at in list {
            let rule = &site.config.charging.rules[at];
            if decided {
                lines.push((rule.id.clone(), "passed over", "a rule before it holds".to_owned()));
                continue;
            }
            let (word, why) = match judge(site, e, at, now) {
                Verdict::Yes(why) => {
                    decided = true;
                    ("holds", why)
                }
                Verdict::No(why) => ("does not hold", why),
                Verdict::Unknown(why) => ("cannot be judged", why),
            };
            lines.push((rule.id.clone(), word, why));
        }
    }
    lines
}

/// Whether a formula depends on measurements, which change all the time.
#[must_use]
pub fn measured(formula: &Formula) -> bool {
    formula.names().iter().any(|(name, _)| matches!(name, Name::Meter(..) | Name::Evse(..) | Name::Surplus))
}

/// A value for people.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => {
            let text = format!("{number:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Value::Truth(truth) => truth.to_string(),
        Value::Text(text) => text.to_string(),
    }
}
