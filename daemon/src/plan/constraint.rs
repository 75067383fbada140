//! The budget's caps as constraints on all EVSEs and devices at once.
//!
//! In: the site, the budget, the time. Out: [`Bounds`]: rooms, and who takes how much of each. Demands are the EVSEs in
//! milliamperes per phase, then the devices in watts. Currents are summed in microamperes, powers in microwatts, so
//! that both units fit without fractions; what does not divide is rounded against the device.

use super::allocate::{Constraints, Use};
use crate::{
    policy::{Bound, Budget, Scope},
    site::Site,
    time::Now,
    units::{Phase, Watts},
};

/// Constraints, and the cap that each comes from.
pub(super) struct Bounds {
    pub(super) constraints: Constraints,
    /// Index of the cap in the budget, for each constraint.
    pub(super) owners: Vec<usize>,
    /// Whether a power limit from outside lies on the way from the node to the grid connection.
    pub(super) limited: Vec<bool>,
    /// How much of each room is in doubt: nobody rises into it, nobody falls for it.
    pub(super) doubts: Vec<i128>,
}

/// Pairs of phases: how much more the first may carry than the second.
const PAIRS: [(Phase, Phase); 6] = [
    (Phase::L1, Phase::L2),
    (Phase::L1, Phase::L3),
    (Phase::L2, Phase::L1),
    (Phase::L2, Phase::L3),
    (Phase::L3, Phase::L1),
    (Phase::L3, Phase::L2),
];

pub(super) fn bounds(site: &Site, budget: &Budget, now: Now) -> Bounds {
    let config = &site.config;
    let (mut rooms, mut owners) = (Vec::new(), Vec::new());
    let mut at: Vec<Vec<(usize, usize)>> = vec![Vec::new(); config.nodes.len()];
    for (c, cap) in budget.caps.iter().enumerate() {
        at[cap.node].push((c, rooms.len()));
        match cap.bound {
            Bound::Current(room) => rooms.extend(room.0.map(|ma| i128::from(ma.0) * 1000)),
            Bound::Power(watts) => rooms.push(i128::from(watts.0) * 1_000_000),
            Bound::Unbalance(most) => rooms.extend([i128::from(most.0) * 1000; PAIRS.len()]),
        }
        owners.resize(rooms.len(), c);
    }
    let doubts = owners
        .iter()
        .map(|c| &budget.caps[*c])
        .map(|cap| if cap.limits() { site.doubtful_generation(cap.node, now.mono) } else { Watts::ZERO })
        .map(|watts| i128::from(watts.0) * 1_000_000)
        .collect();
    let mut constraints = Constraints::new(rooms);
    let (high, low) = (site.voltages(now.mono), site.lowest_voltages(now.mono));
    let way = |mut node: usize| {
        let mut way = vec![node];
        while let Some(parent) = config.nodes[node].parent {
            way.push(parent);
            node = parent;
        }
        way
    };
    let ways: Vec<Vec<usize>> = (0..config.nodes.len()).map(way).collect();
    for (e, evse) in config.evses.iter().enumerate() {
        let uses = site.evses[e].phases(evse);
        let micro_watts = Phase::ALL.into_iter().filter(|p| uses[*p]).map(|p| high[p].0).sum();
        let concerned = ways[evse.node].iter().flat_map(|n| &at[*n]).flat_map(|(c, first)| {
            let cap = &budget.caps[*c];
            parts(cap.bound, *first, |p| if uses[p] { 1000 } else { 0 }, micro_watts)
                .filter(move |_| cap.scope == Scope::All || !evse.public)
        });
        constraints.concern(concerned);
    }
    for device in &config.devices {
        let count = i64::try_from(device.wiring.count()).unwrap_or(3).max(1);
        let concerned = ways[device.node].iter().flat_map(|n| &at[*n]).flat_map(|(c, first)| {
            let each = |p: Phase| {
                if !device.wiring.uses(p) {
                    return 0;
                }
                let volts = (low[p].0 * count).max(1);
                (1_000_000_000 + volts - 1) / volts
            };
            parts(budget.caps[*c].bound, *first, each, 1_000_000)
        });
        constraints.concern(concerned);
    }
    let own: Vec<bool> = at.iter().map(|caps| caps.iter().any(|(c, _)| budget.caps[*c].limits())).collect();
    let limited = ways.iter().map(|way| way.iter().any(|n| own[*n])).collect();
    Bounds { constraints, owners, limited, doubts }
}

/// What one unit takes of each constraint that a cap became.
fn parts(
    bound: Bound,
    first: usize,
    micro_amps: impl Fn(Phase) -> i64,
    micro_watts: i64,
) -> impl Iterator<Item = Use> {
    let mut weights = [0; 6];
    match bound {
        Bound::Current(_) => weights[..3].copy_from_slice(&Phase::ALL.map(&micro_amps)),
        Bound::Power(_) => weights[0] = micro_watts,
        // What loads the other phase as well balances nothing: it may stop at any time. So it is not set off.
        Bound::Unbalance(_) => {
            weights = PAIRS.map(|(more, less)| if micro_amps(less) == 0 { micro_amps(more) } else { 0 });
        }
    }
    let part = move |(k, weight)| Use { constraint: first + k, weight };
    weights.into_iter().enumerate().filter(|(_, weight)| *weight > 0).map(part)
}
