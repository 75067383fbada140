//! The record of one event of power reduction (EnWG §14a; BNetzA BK6-22-300 Anlage 1 no. 7.2 and 7.3): what was
//! commanded, how it took effect, and what was drawn, minute by minute.
//!
//! In: the site and the time, at every turn. Out: [`Note`]s for the journal. Invariant: an event has one beginning and
//! one end, and between them a sample for every minute that was looked at; a limit that the site gave itself (by its
//! installer, or the failsafe value of a source) is no event, but a `restriction`.
//!
//! ```text
//! a limit is in force → event.began → event.sample, every minute → event.ended
//!                             └→ event.effect, when the measured power keeps it
//! ```
//!
//! Pure.

use serde_json::{Value, json};

use crate::{
    config::Role,
    grid::Record,
    ids::LimitId,
    site::{Note, Site, view::Quality},
    time::{Now, Wall},
    units::Watts,
};

/// Length of a sample.
const MINUTE: i64 = 60_000;

/// One limit in force.
#[derive(Debug, Clone)]
struct Open {
    id: LimitId,
    received: Wall,
    kind: &'static str,
    began: Wall,
    /// The power when it began, if it was known.
    before: Option<Watts>,
    effect: bool,
    minute: i64,
    tally: Tally,
    /// Over the whole event.
    minutes: u32,
    highest: Option<Watts>,
}

/// What was measured within the running minute.
#[derive(Debug, Clone, Default)]
struct Tally {
    count: i64,
    sum: i64,
    highest: Option<Watts>,
    grid: Option<Watts>,
    controllable: Option<Watts>,
}

/// Keeps the events that are open.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    open: Vec<Open>,
}

/// Powers at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Powers {
    /// What the controllable devices behind the node draw.
    pub controllable: Watts,
    /// What the node draws, if it is measured.
    pub node: Option<Watts>,
    /// The part of the node's draw that the controllable devices cause (no. 2.3).
    pub caused: Watts,
}

/// What the controllable devices cause of a draw: not more than they take, and not more than is drawn at all. Without
/// a measurement of the node all that they take.
#[must_use]
pub fn caused(controllable: Watts, node: Option<Watts>) -> Watts {
    let controllable = controllable.max(Watts::ZERO);
    node.map_or(controllable, |node| controllable.min(node.max(Watts::ZERO)))
}

fn powers(site: &Site, node: usize, now: Now) -> Option<Powers> {
    let mut controllable = Watts::ZERO;
    for e in site.behind(node) {
        controllable += site.evse_power(e, now)?;
    }
    let meter = site.config.nodes[node].meter.map(|m| &site.meters[m]);
    let fresh = meter.filter(|meter| meter.quality(&site.config.control, now.mono) == Quality::Good);
    let node = fresh.and_then(|meter| meter.reading).map(|reading| reading.power);
    Some(Powers { controllable, node, caused: caused(controllable, node) })
}

impl Recorder {
    /// Looks at every limit.
    pub fn look(&mut self, site: &Site, now: Now) -> Vec<Note> {
        let mut notes = Vec::new();
        let ongoing =
            |r: &&Record| !r.stage.ended() && r.limit.valid_from <= now.wall && r.accepted.is_some();
        for record in site.limits.records().iter().filter(ongoing) {
            let known = self.open.iter().any(|o| o.id == record.limit.id && o.received == record.received);
            if !known {
                self.open.push(began(site, record, now, &mut notes));
            }
        }
        let records = site.limits.records();
        self.open.retain_mut(|open| {
            let record = records.iter().find(|r| r.limit.id == open.id && r.received == open.received);
            let Some(record) = record.filter(|r| !r.stage.ended()) else {
                notes.push(open.ended(record, now));
                return false;
            };
            if let Some(node) = site.node(&record.limit.node) {
                open.look(site, record, node, now, &mut notes);
            }
            true
        });
        notes
    }
}

/// A limit is an event if the grid operator gave it; what the site gave itself is a restriction.
fn kind(record: &Record) -> &'static str {
    if record.limit.role == Role::Grid { "event" } else { "restriction" }
}

fn began(site: &Site, record: &Record, now: Now, notes: &mut Vec<Note>) -> Open {
    let limit = &record.limit;
    let node = site.node(&limit.node);
    let before = node.and_then(|node| powers(site, node, now));
    let devices: Vec<Value> = node
        .into_iter()
        .flat_map(|node| site.behind(node).collect::<Vec<_>>())
        .map(|e| {
            json!({
                "evse": site.config.evses[e].id,
                "connected": site.evses[e].connected.is_some(),
                "watts": site.evse_power(e, now).map(|w| w.0),
            })
        })
        .collect();
    let kind = kind(record);
    let body = json!({
        "event": name(record),
        "node": limit.node.as_str(),
        "watts": limit.watts.0,
        "owed_watts": record.owed.0,
        "below_owed": limit.watts < record.owed,
        "issuer": limit.issuer,
        "role": limit.role.name(),
        "reason": limit.reason,
        "received": record.received,
        "valid_from": limit.valid_from,
        "valid_until": limit.valid_until,
        "before_watts": before.map(|p| p.caused.0),
        "devices": devices,
    });
    notes.push(Note::new(&format!("{kind}.began"), &limit.id, body));
    Open {
        id: limit.id.clone(),
        received: record.received,
        kind,
        began: now.wall,
        before: before.map(|p| p.caused),
        effect: false,
        minute: now.wall.0.div_euclid(MINUTE),
        tally: Tally::default(),
        minutes: 0,
        highest: None,
    }
}

/// Names an event for good: a limit's name may be used again.
fn name(record: &Record) -> String {
    format!("{}@{}", record.limit.id, record.received)
}

impl Open {
    fn look(&mut self, site: &Site, record: &Record, node: usize, now: Now, notes: &mut Vec<Note>) {
        if !self.effect
            && let Some(effective) = record.effective
        {
            self.effect = true;
            let below = self.before.is_some_and(|before| before <= record.limit.watts);
            let body = json!({
                "event": name(record),
                "how": if below { "already below" } else { "commanded" },
                "applied": record.applied,
                "effective": effective,
                "after_ms": effective.0 - record.received.0,
                "measured_watts": record.measured.map(|w| w.0),
            });
            notes.push(Note::new(&format!("{}.effect", self.kind), &self.id, body));
        }
        let minute = now.wall.0.div_euclid(MINUTE);
        if minute != self.minute {
            notes.push(self.sample(record));
            self.minute = minute;
        }
        if let Some(powers) = powers(site, node, now) {
            self.tally.count += 1;
            self.tally.sum = self.tally.sum.saturating_add(powers.caused.0);
            self.tally.highest = Some(self.tally.highest.unwrap_or(powers.caused).max(powers.caused));
            self.tally.grid = powers.node;
            self.tally.controllable = Some(powers.controllable);
        }
    }

    fn sample(&mut self, record: &Record) -> Note {
        let tally = std::mem::take(&mut self.tally);
        let mean = (tally.count > 0).then(|| tally.sum / tally.count);
        self.minutes += 1;
        if let Some(mean) = mean {
            self.highest = Some(self.highest.unwrap_or(Watts(mean)).max(Watts(mean)));
        }
        let body = json!({
            "event": name(record),
            "minute": Wall(self.minute * MINUTE),
            "limit_watts": record.limit.watts.0,
            "mean_watts": mean,
            "highest_watts": tally.highest.map(|w| w.0),
            "measurements": tally.count,
            "grid_watts": tally.grid.map(|w| w.0),
            "controllable_watts": tally.controllable.map(|w| w.0),
        });
        Note::new(&format!("{}.sample", self.kind), &self.id, body)
    }

    fn ended(&mut self, record: Option<&Record>, now: Now) -> Note {
        let body = json!({
            "event": format!("{}@{}", self.id, self.received),
            "how": record.map_or("forgotten", |r| r.stage.name()),
            "began": self.began,
            "ended": record.and_then(|r| r.ended).unwrap_or(now.wall),
            "minutes": self.minutes,
            "highest_mean_watts": self.highest.map(|w| w.0),
            "effective": self.effect,
        });
        Note::new(&format!("{}.ended", self.kind), &self.id, body)
    }
}

#[cfg(test)]
mod tests;
