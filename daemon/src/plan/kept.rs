//! Which limits are kept: `applied` by what the EVSEs confirmed, `effective` by what was measured.
//!
//! In: the site, the time. Out: the stages that limits have newly reached. Invariant: `effective` needs a measurement
//! taken after the limit was applied, of every EVSE behind the node with a running transaction; the stages are reached
//! in their order.

use super::reserve;
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
    for record in site.limits.in_force(now.wall).filter(|r| r.accepted.is_some()) {
        let Some(node) = site.node(&record.limit.node) else { continue };
        let reached = |stage, measured| Reached {
            id: record.limit.id.clone(),
            received: record.received,
            stage,
            measured,
        };
        match record.applied {
            None if bound(site, node, now) <= record.limit.watts => out.push(reached(Stage::Applied, None)),
            Some(applied) if record.effective.is_none() => {
                if let Some(watts) = measured(site, node, applied, now)
                    && watts <= record.limit.watts
                {
                    out.push(reached(Stage::Effective, Some(watts)));
                }
            }
            _ => {}
        }
    }
    out
}

/// The most that the EVSEs behind a node may be drawing.
#[must_use]
pub fn bound(site: &Site, node: usize, now: Now) -> Watts {
    site.behind(node).map(|e| site.power_at(e, reserve(site, e, now.mono), now.mono)).sum()
}

/// What the EVSEs behind a node draw, measured after `since`; `None` while a measurement is missing.
fn measured(site: &Site, node: usize, since: Wall, now: Now) -> Option<Watts> {
    let voltages = site.voltages(now.mono);
    let mut sum = Watts::ZERO;
    for e in site.behind(node) {
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
    Some(sum)
}
