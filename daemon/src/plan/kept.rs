//! Which limits are kept: `applied` by what the EVSEs confirmed, `effective` by what was measured.
//!
//! In: the site, the time. Out: the stages that limits have newly reached. Invariant: `effective` needs a measurement
//! taken after the limit was applied, of every EVSE behind the node with a running transaction; the stages are reached
//! in their order.

use super::reserve::{self, reserve};
use crate::{
    grid::Stage,
    ids::LimitId,
    site::Site,
    time::{Now, Wall},
    units::{Milliamps, Watts},
};

/// A stage that a limit has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The limit.
    pub id: LimitId,
    /// Its time of receipt: names the record together with `id`.
    pub received: Wall,
    /// [`Stage::Applied`] or [`Stage::Effective`].
    pub stage: Stage,
    /// Measured power.
    pub measured: Option<Watts>,
}

/// Looks at every limit in force.
#[must_use]
pub fn reached(site: &Site, now: Now) -> Vec<Reached> {
    let mut out = Vec::new();
    let time = site.certain(now);
    for record in site.limits.in_force(time).filter(|r| r.accepted.is_some()) {
        let Some(node) = site.node(&record.limit.node) else { continue };
        let reached = |stage, measured| Reached {
            id: record.limit.id.clone(),
            received: record.received,
            stage,
            measured,
        };
        // Own generation may be drawn beside the limit (BK6-22-300 Anlage 1 no. 2.3).
        let allowed = record.limit.watts_at(time) + site.own_generation(node, now.mono);
        match record.applied {
            None if bound(site, node, now) <= allowed => out.push(reached(Stage::Applied, None)),
            Some(applied) if record.effective.is_none() => {
                if let Some(watts) = measured(site, node, applied, now)
                    && watts <= allowed
                {
                    out.push(reached(Stage::Effective, Some(watts)));
                }
            }
            _ => {}
        }
    }
    out
}

/// The most that the controllable devices behind a node may be drawing.
#[must_use]
pub fn bound(site: &Site, node: usize, now: Now) -> Watts {
    let evses = concerned(site, node).map(|e| site.power_at(e, reserve(site, e, now.mono), now.mono));
    evses.chain(site.devices_behind(node).map(|d| reserve::device(site, d, now.mono))).sum()
}

/// What the controllable devices behind a node draw, measured after `since`; `None` while a measurement is missing. A
/// device without a meter of its own counts with what it may draw.
#[must_use]
pub fn measured(site: &Site, node: usize, since: Wall, now: Now) -> Option<Watts> {
    let voltages = site.voltages(now.mono);
    let mut sum = Watts::ZERO;
    for e in concerned(site, node) {
        let (facts, config) = (&site.evses[e], &site.config.evses[e]);
        if facts.connected.is_some() && facts.transaction.is_none() {
            // Its contactor is open without a transaction (OCPP 1.6 §4.8: energy is offered within one).
            continue;
        }
        if facts.connected.is_none() && reserve(site, e, now.mono) == Milliamps::ZERO {
            continue;
        }
        facts.draw.filter(|d| d.at.wall >= since)?;
        sum += facts.draw_power(config, voltages)?;
    }
    for d in site.devices_behind(node) {
        sum += match site.config.devices[d].meter {
            Some(meter) => site.meters[meter].reading.filter(|r| r.at.wall >= since)?.power.max(Watts::ZERO),
            None => reserve::device(site, d, now.mono),
        };
    }
    Some(sum)
}

/// The EVSEs behind a node that a grid limit binds.
fn concerned(site: &Site, node: usize) -> impl Iterator<Item = usize> + '_ {
    site.behind(node).filter(|e| !site.config.evses[*e].public)
}
