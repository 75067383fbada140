//! Whether a rule's conditions hold now, and why.

use std::time::Duration;

use super::shown;
use crate::{
    formula::Fault,
    site::{Site, event::Level as ContactLevel},
    tariff::{Level, Local, Stretch, TimeOfDay},
    time::{Now, Wall},
};

/// What becomes of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every condition holds.
    Yes(String),
    /// One does not.
    No(String),
    /// One has no value now.
    Unknown(String),
}

/// Judges a rule, by its index, for an EVSE.
#[must_use]
pub fn judge(site: &Site, e: usize, rule: usize, now: Now) -> Verdict {
    let conditions = &site.config.charging.rules[rule].conditions;
    let (mut held, mut unknown) = (Vec::new(), Vec::new());
    let local = Local::of(now.wall, &site.config.charging.tariff.zone);
    if let Some(window) = &conditions.window {
        let words = format!("{} to {} on {}", window.from, window.to, window.weekdays);
        if !window.covers(local) {
            return Verdict::No(format!("it is not within {words}"));
        }
        held.push(words);
    }
    if let Some((contact, closed)) = conditions.input {
        let (id, wanted) = (&site.config.contacts[contact].id, if closed { "closed" } else { "open" });
        match (&site.contacts[contact].level, closed) {
            (ContactLevel::Closed, true) | (ContactLevel::Open, false) => {
                held.push(format!("{id} is {wanted}"));
            }
            (ContactLevel::Unreadable(why), _) => unknown.push(format!("{id} cannot be read: {why}")),
            _ => return Verdict::No(format!("{id} is not {wanted}")),
        }
    }
    if !conditions.levels.is_empty() || conditions.price_below.is_some() {
        let rate = site.tariffs_now(now).at(&site.config.evses[e].id, now.wall);
        if !conditions.levels.is_empty() {
            match rate.level {
                Some(level) if conditions.levels.contains(&level) => held.push(format!("tariff {level}")),
                Some(level) => {
                    let wanted: Vec<_> = conditions.levels.iter().map(|l| l.name()).collect();
                    return Verdict::No(format!("the tariff is {level}, not {}", wanted.join(" or ")));
                }
                None => unknown.push("no tariff level is known".to_owned()),
            }
        }
        if let Some(bound) = conditions.price_below {
            match rate.price {
                Some(price) if price < bound => held.push(format!("{price} is below {bound}")),
                Some(price) => return Verdict::No(format!("{price} is not below {bound}")),
                None => unknown.push("no price is known".to_owned()),
            }
        }
    }
    if let Some(cheapest) = conditions.cheapest {
        let words =
            format!("the cheapest {} h before {}", cheapest.lasting.as_secs() as f64 / 3600.0, cheapest.by);
        match site.rules[e].cheapest.as_ref().filter(|chosen| chosen.of.1 == rule) {
            Some(chosen) if chosen.times.iter().any(|(from, until)| (*from..*until).contains(&now.wall)) => {
                held.push(format!("within {words}"));
            }
            Some(chosen) => {
                let next = chosen.times.iter().find(|(from, _)| *from > now.wall);
                let next = next.map_or_else(String::new, |(from, _)| {
                    let at = Local::of(*from, &site.config.charging.tariff.zone);
                    format!("; the next begins at {}", TimeOfDay(at.minute))
                });
                return Verdict::No(format!("it is not within {words}{next}"));
            }
            None => unknown.push("nothing is chosen yet".to_owned()),
        }
    }
    if let Some(formula) = &conditions.when {
        let look = |name| site.value(name, Some(e), now);
        match formula.holds(&look) {
            Ok(true) => held.push(formula.text().to_owned()),
            Ok(false) => {
                let values: Vec<_> = formula
                    .names()
                    .into_iter()
                    .filter_map(|(name, text)| Some(format!("{text} = {}", shown(&look(name)?))))
                    .collect();
                let values =
                    if values.is_empty() { String::new() } else { format!(", {}", values.join(", ")) };
                return Verdict::No(format!("{} does not hold{values}", formula.text()));
            }
            Err(fault) => unknown.push(words(formula.text(), &fault)),
        }
    }
    if unknown.is_empty() { Verdict::Yes(held.join(", ")) } else { Verdict::Unknown(unknown.join(", ")) }
}

fn words(text: &str, fault: &Fault) -> String {
    format!("{text}: {fault}")
}

/// The cheapest stretches that last so long together, in the order of time. A stretch that is not needed whole is
/// taken from its beginning. What has no price comes after what has one, by its level.
pub(super) fn cheapest(rates: &[Stretch], lasting: Duration) -> Vec<(Wall, Wall)> {
    let mut order: Vec<&Stretch> = rates.iter().collect();
    order.sort_by_key(|s| {
        let price = s.rate.price.map_or((1, 0), |price| (0, price.0));
        let level = s.rate.level.map_or(3, |level| match level {
            Level::Low => 0,
            Level::Normal => 1,
            Level::High => 2,
        });
        (price, level, s.from)
    });
    let mut left = i64::try_from(lasting.as_millis()).unwrap_or(i64::MAX);
    let mut times = Vec::new();
    for stretch in order {
        if left <= 0 {
            break;
        }
        let until = Wall(stretch.until.0.min(stretch.from.0.saturating_add(left)));
        left -= until.0 - stretch.from.0;
        times.push((stretch.from, until));
    }
    times.sort_unstable();
    times
}
