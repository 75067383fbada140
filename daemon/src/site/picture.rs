//! Facts → [`View`].

use std::sync::Arc;

use super::{
    Site, View,
    view::{ContactView, DeviceView, EvseView, MeterView, NodeView, RelayView, SetpointView, SourceView},
};
use crate::{
    plan::Plan,
    time::{Mono, Now, Wall},
};

impl Site {
    /// The site as it stands, under the plan in force.
    #[must_use]
    pub fn view(&self, plan: &Plan, now: Now) -> View {
        let config = &self.config;
        View {
            at: now,
            name: config.name.clone(),
            nodes: config
                .nodes
                .iter()
                .enumerate()
                .map(|(i, node)| {
                    let share = &plan.nodes[i];
                    NodeView {
                        id: node.id.clone(),
                        parent: node.parent.map(|p| config.nodes[p].id.clone()),
                        fuse: node.fuse,
                        contract: node.contract,
                        meter: node.meter.map(|m| config.meters[m].id.clone()),
                        available: share.available,
                        other_load: self.loads[i].map(|l| l.other).unwrap_or_default(),
                        power_limit: share.power_limit,
                        reason: share.reason.clone(),
                    }
                })
                .collect(),
            evses: (0..config.evses.len()).map(|e| self.evse_view(e, plan, now)).collect(),
            devices: config
                .devices
                .iter()
                .zip(&plan.devices)
                .map(|(d, grant)| DeviceView {
                    id: d.id.clone(),
                    node: config.nodes[d.node].id.clone(),
                    kind: d.kind.name(),
                    power: d.power,
                    granted: grant.power,
                    measured: d.meter.and_then(|m| self.meters[m].reading).map(|r| r.power),
                    reason: grant.reason.clone(),
                })
                .collect(),
            meters: config
                .meters
                .iter()
                .zip(&self.meters)
                .map(|(m, facts)| MeterView {
                    id: m.id.clone(),
                    device: m.device.clone(),
                    quality: facts.quality(&config.control, now.mono),
                    reading: facts.reading,
                    problem: facts.problem.clone(),
                })
                .collect(),
            contacts: config
                .contacts
                .iter()
                .zip(&self.contacts)
                .map(|(c, facts)| ContactView {
                    id: c.id.clone(),
                    level: facts.level.clone(),
                    since: facts.since,
                })
                .collect(),
            relays: config
                .relays
                .iter()
                .zip(&self.relays)
                .map(|(r, facts)| RelayView {
                    id: r.id.clone(),
                    energised: facts.energised,
                    since: facts.since,
                    problem: facts.problem.clone(),
                })
                .collect(),
            sources: (0..self.guards.len()).map(|g| self.source_view(g, now)).collect(),
            minimum: Arc::clone(&self.minimum),
            limits: self.limits.records().to_vec(),
        }
    }

    /// Where a source stands.
    #[must_use]
    pub fn source_view(&self, g: usize, now: Now) -> SourceView {
        let (guard, config) = (&self.guards[g], &self.config.grid.sources[g]);
        let (failsafe, failsafe_for) = guard.failsafe();
        SourceView {
            issuer: config.issuer.clone(),
            node: self.config.nodes[config.node].id.clone(),
            state: guard.state(),
            since: wall(guard.since(), now),
            heard: guard.heard_at().map(|at| wall(at, now)),
            timeout: config.timeout,
            failsafe,
            failsafe_for,
        }
    }

    fn evse_view(&self, e: usize, plan: &Plan, now: Now) -> EvseView {
        let (config, facts, grant) = (&self.config.evses[e], &self.evses[e], &plan.grants[e]);
        let problem = if facts.problem.is_empty() && !facts.refusal.is_empty() {
            format!("does not take setpoints: {}", facts.refusal)
        } else {
            facts.problem.clone()
        };
        EvseView {
            id: config.id.clone(),
            identity: config.identity.clone(),
            node: self.config.nodes[config.node].id.clone(),
            connected_since: facts.connected.map(|at| at.wall),
            backend_connected: facts.backend,
            status: facts.status,
            error: facts.error.clone(),
            vendor: facts.vendor.clone(),
            model: facts.model.clone(),
            transaction: facts.transaction.clone(),
            setpoint: Some(SetpointView {
                limit: grant.limit,
                failsafe: grant.failsafe,
                confirmed: facts.leash.settled()
                    && facts
                        .leash
                        .newest()
                        .is_some_and(|s| s.limit == grant.limit && s.failsafe == grant.failsafe),
                lease_until: facts.leash.lease_until().map(|until| wall(until, now)),
                reason: grant.reason.clone(),
            }),
            draw: facts.draw,
            draw_phases: facts.draw_phases(config).unwrap_or_default(),
            queued: facts.queued,
            dead: facts.dead,
            problem,
        }
    }
}

/// A monotonic point as wall-clock time, by the two clocks' present distance.
fn wall(at: Mono, now: Now) -> Wall {
    if at >= now.mono { now.wall + at.since(now.mono) } else { now.wall - now.mono.since(at) }
}
