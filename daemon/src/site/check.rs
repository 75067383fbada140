//! What an installer answers for, checked one by one against what is known.
//!
//! In: the configuration and a picture of the site. Out: checks with what to do. Invariant: what is not known is not right.
//! Pure.

use super::view::{EvseView, Quality, View};
use crate::{
    config::{Config, Evse},
    site::event::{ConnectorStatus, Level},
    units::{Milliamps, PerPhase, Phase},
};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub what: String,
    /// Whether it is right.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do; empty if it is right.
    pub advice: String,
}

impl Check {
    /// A check that went well, or with advice.
    #[must_use]
    pub fn new(what: impl Into<String>, found: impl Into<String>, advice: Option<&str>) -> Self {
        let advice = advice.map(str::to_owned).unwrap_or_default();
        Self { what: what.into(), ok: advice.is_empty(), found: found.into(), advice }
    }
}

/// From this current on, the phase that a vehicle draws on shows at the meter.
const SHOWS: Milliamps = Milliamps(5_000);
/// What other loads and the meter's class may hide of it.
const MARGIN: Milliamps = Milliamps(1_000);

/// Every check that needs the configuration and the picture alone.
#[must_use]
pub fn checks(config: &Config, view: &View) -> Vec<Check> {
    let mut checks = failsafes(config, view);
    for meter in &view.meters {
        let advice = match meter.quality {
            Quality::Good => None,
            Quality::Stale | Quality::Lost | Quality::Implausible => {
                Some("look at its wiring, address and definition: device read")
            }
        };
        let found = match (&meter.reading, meter.quality) {
            (Some(reading), Quality::Good) => format!("answers, {} now", reading.power),
            _ if meter.problem.is_empty() => "does not answer".to_owned(),
            _ => meter.problem.clone(),
        };
        checks.push(Check::new(format!("meter {} ({})", meter.id, meter.device), found, advice));
    }
    for (evse, shown) in config.evses.iter().zip(&view.evses) {
        checks.push(connection(evse, shown));
        checks.push(phases(config, evse, shown, view));
    }
    for contact in &view.contacts {
        let (found, advice) = match &contact.level {
            Level::Unreadable(why) => (why.clone(), Some("look at the line's chip, number and holder")),
            level => (super::words(level), None),
        };
        checks.push(Check::new(format!("contact {}", contact.id), found, advice));
    }
    for relay in &view.relays {
        let (found, advice) = if relay.problem.is_empty() {
            (if relay.energised { "energised" } else { "de-energised" }.to_owned(), None)
        } else {
            (relay.problem.clone(), Some("do what the finding says, and check again"))
        };
        checks.push(Check::new(format!("relay {}", relay.id), found, advice));
    }
    checks
}

/// All EVSEs at their failsafe values against each fuse, and what that leaves to everything else.
fn failsafes(config: &Config, view: &View) -> Vec<Check> {
    let mut checks = Vec::new();
    for (n, node) in config.nodes.iter().enumerate() {
        let behind = |mut at: usize| loop {
            if at == n {
                break true;
            }
            match config.nodes[at].parent {
                Some(parent) => at = parent,
                None => break false,
            }
        };
        let sums = PerPhase::from_fn(|p| {
            let uses = |e: &&Evse| behind(e.node) && e.wiring.uses(p);
            config.evses.iter().filter(uses).map(|e| e.failsafe).sum::<Milliamps>()
        });
        let other = view.nodes.get(n).map(|shown| shown.other_load).unwrap_or_default();
        let over = Phase::ALL.into_iter().find(|p| sums[*p] + other[*p].max(Milliamps::ZERO) > node.fuse[*p]);
        let found = Phase::ALL
            .map(|p| {
                let others = other[p].max(Milliamps::ZERO);
                format!("{p} {} and {others} of others below {}", sums[p], node.fuse[p])
            })
            .join(", ");
        let advice = over.map(|_| "lower the EVSEs' failsafe: without the controller this fuse would trip");
        checks.push(Check::new(format!("failsafe currents behind {}", node.id), found, advice));
    }
    checks
}

fn connection(evse: &Evse, shown: &EvseView) -> Check {
    let what = match &evse.device {
        Some(device) => {
            format!("EVSE {} ({}), failsafe {} read back", evse.id, device.definition, evse.failsafe)
        }
        None => format!("EVSE {} (OCPP), failsafe {}", evse.id, evse.failsafe),
    };
    if shown.connected_since.is_none() {
        let why =
            if shown.problem.is_empty() { "is not connected".to_owned() } else { shown.problem.clone() };
        return Check::new(what, why, Some("look at its wiring, address and definition"));
    }
    if !shown.problem.is_empty() {
        return Check::new(what, shown.problem.clone(), Some("do what the finding says, and check again"));
    }
    match &shown.setpoint {
        Some(setpoint) if setpoint.confirmed => {
            let found = format!("connected, {} confirmed, then {}", setpoint.limit, setpoint.failsafe);
            Check::new(what, found, None)
        }
        _ => Check::new(
            what,
            "connected, its setpoint is not confirmed",
            Some("wait a minute and check again; then look at what it refuses: evse list"),
        ),
    }
}

/// Whether a vehicle's current shows at the meter on the phases that the wiring says.
fn phases(config: &Config, evse: &Evse, shown: &EvseView, view: &View) -> Check {
    let what = format!("phases of EVSE {}", evse.id);
    let charge = Some("charge a vehicle with more than 5 A and check again");
    let draw = shown.draw_phases;
    if shown.status != ConnectorStatus::Charging || draw.iter().all(|(_, i)| *i < SHOWS) {
        return Check::new(what, "no vehicle draws enough to tell", charge);
    }
    // The nearest meter on the way to the grid connection.
    let mut at = Some(evse.node);
    let mut meter = None;
    while let Some(n) = at {
        meter = config.nodes[n].meter;
        if meter.is_some() {
            break;
        }
        at = config.nodes[n].parent;
    }
    let reading = meter.and_then(|m| view.meters.get(m)).filter(|m| m.quality == Quality::Good);
    let Some(reading) = reading.and_then(|m| m.reading) else {
        return Check::new(what, "no meter measures it", Some("name the meter of its node, or of one above"));
    };
    let hidden =
        Phase::ALL.into_iter().find(|p| draw[*p] >= SHOWS && reading.currents[*p] + MARGIN < draw[*p]);
    match hidden {
        None => {
            let on: Vec<String> =
                draw.iter().filter(|(_, i)| **i >= SHOWS).map(|(p, i)| format!("{i} on {p}")).collect();
            Check::new(what, format!("draws {}, and so says the meter", on.join(", ")), None)
        }
        Some(phase) => {
            let found = format!(
                "draws {} on {phase} by its wiring, the meter shows {} there",
                draw[phase], reading.currents[phase]
            );
            Check::new(
                what,
                found,
                Some("correct phases of this EVSE, or the meter's wiring; PV may hide it"),
            )
        }
    }
}
