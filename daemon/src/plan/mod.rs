//! Budget → one leased setpoint per EVSE. Pure: no async, no I/O, no clock.
//!
//! ```text
//! budget ─→ targets (allocate: fair, all at once)
//!        ─→ decreases at once
//!        ─→ increases: only into room that is confirmed free, after a dwell
//! ```
//!
//! In: the site, the budget, the time. Out: a [`Plan`]. Invariant: at no instant is the sum of what the EVSEs may be
//! obeying (old setpoints not yet replaced included) raised above a cap; each setpoint is 0 or at least the EVSE's
//! minimum; each says what bound it.

pub mod allocate;
pub mod kept;

use std::time::Duration;

use self::allocate::{Allocation, Binding, Constraint, Demand, allocate};
use crate::{
    policy::{Bound, Budget, Cap, Want},
    site::{Site, facts::EvseFacts},
    time::{Mono, Now},
    units::{Milliamps, Millivolts, PerPhase, Phase, Watts},
};

/// What an EVSE may draw, as a lease: without renewal it falls to `failsafe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setpoint {
    /// Rises with every setpoint handed to this EVSE, renewals included.
    pub sequence: u64,
    /// Current per phase: 0 or at least the EVSE's minimum.
    pub limit: Milliamps,
    /// Current per phase after the lease; never above `limit` while a grid limit is in force.
    pub failsafe: Milliamps,
    /// How long it holds.
    pub lease: Duration,
    /// The binding constraint, in words.
    pub reason: String,
}

/// What the plan grants one EVSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Current per phase.
    pub limit: Milliamps,
    /// Current per phase after the lease.
    pub failsafe: Milliamps,
    /// The binding constraint, in words.
    pub reason: String,
    /// Since when there has been room for more.
    pub room_since: Option<Mono>,
}

/// What a node leaves to its EVSEs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeShare {
    /// Per phase.
    pub available: PerPhase<Milliamps>,
    /// Smallest power limit.
    pub power_limit: Option<Watts>,
    /// Why.
    pub reason: String,
}

/// One decision about everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One per EVSE.
    pub grants: Vec<Grant>,
    /// One per node.
    pub nodes: Vec<NodeShare>,
}

/// Decides.
#[must_use]
pub fn plan(site: &Site, budget: &Budget, now: Now) -> Plan {
    let count = site.config.evses.len();
    let voltages = site.voltages(now.mono);
    let held: Vec<Option<Milliamps>> = (0..count).map(|e| uncontrolled(site, e, now.mono)).collect();
    let caps: Vec<Constraint> = budget.caps.iter().flat_map(|cap| constraints(site, cap, voltages)).collect();
    let owners: Vec<&Cap> = budget
        .caps
        .iter()
        .flat_map(|cap| std::iter::repeat_n(cap, if matches!(cap.bound, Bound::Current(_)) { 3 } else { 1 }))
        .collect();

    let fixed: Vec<i64> = held.iter().map(|h| h.map_or(0, |ma| ma.0)).collect();
    let demands: Vec<Demand> =
        (0..count).map(|e| demand(site, budget, e, held[e].is_some(), now.mono)).collect();
    let targets = allocate(&demands, &less(&caps, &fixed));

    // Where everybody may be right now, and what is left above that. A car that was told to draw less may still be on
    // its way down: its room is free once it has had time to follow.
    let in_force: Vec<i64> = (0..count).map(|e| reserve(site, e, now.mono).0).collect();
    let drawn: Vec<i64> = (0..count).map(|e| in_force[e].max(descending(site, e, now.mono).0)).collect();
    let mut rooms = less(&caps, &drawn);
    let grants = (0..count)
        .map(|e| {
            let facts = &site.evses[e];
            let config = &site.config.evses[e];
            let reason = because(&targets[e], &owners, &budget.shares[e].reason, &demands[e]);
            if held[e].is_some() {
                let reason = if facts.connected.is_none() {
                    "not connected: counts with what it may draw by itself".to_owned()
                } else {
                    format!("does not follow, counts with {}: {}", held[e].unwrap_or_default(), facts.refusal)
                };
                return Grant { limit: config.failsafe, failsafe: config.failsafe, reason, room_since: None };
            }
            let (limit, room_since, waits) =
                approach(site, e, targets[e].current, in_force[e], &mut rooms, &demands[e], now.mono);
            let limited = caps_power(site, budget, e);
            let failsafe = if limited { config.failsafe.min(limit) } else { config.failsafe };
            let reason = if waits {
                format!("{reason}; rises to {} when the room lasts", Milliamps(targets[e].current))
            } else {
                reason
            };
            Grant { limit, failsafe, reason, room_since }
        })
        .collect();
    Plan { grants, nodes: nodes(site, budget) }
}

/// What an EVSE may be drawing: nothing without a vehicle, else what it may be obeying.
#[must_use]
pub fn reserve(site: &Site, e: usize, now: Mono) -> Milliamps {
    let (facts, config) = (&site.evses[e], &site.config.evses[e]);
    if facts.connected.is_none() && facts.leash.untouched() {
        // Never heard of: it holds what it was left with.
        return config.failsafe;
    }
    if facts.vehicle_possible() { facts.leash.in_force(now, config.max) } else { Milliamps::ZERO }
}

/// What an EVSE whose setpoint was just lowered may be drawing until its car has followed.
fn descending(site: &Site, e: usize, now: Mono) -> Milliamps {
    let facts = &site.evses[e];
    match facts.leash.last_change() {
        Some((at, before)) if facts.vehicle_possible() && now < at + site.config.control.settle => before,
        _ => Milliamps::ZERO,
    }
}

/// The current of an EVSE that does not listen now, if so.
fn uncontrolled(site: &Site, e: usize, now: Mono) -> Option<Milliamps> {
    let facts = &site.evses[e];
    (facts.connected.is_none() || facts.leash.adrift(now)).then(|| reserve(site, e, now))
}

fn demand(site: &Site, budget: &Budget, e: usize, held: bool, now: Mono) -> Demand {
    let (facts, config, share) = (&site.evses[e], &site.config.evses[e], &budget.shares[e]);
    let most = match share.want {
        _ if held => Milliamps::ZERO,
        Want::Nothing => Milliamps::ZERO,
        Want::Least => config.min.min(share.most),
        Want::All => share.most,
    };
    Demand {
        least: config.min.0,
        most: most.0,
        step: config.step.0,
        rank: (share.class, rank(facts, share.want, site, now)),
    }
}

/// A turn lasts at least this long: cars need time to start, and do not like to be paused often.
const LEAST_TURN: Duration = Duration::from_secs(30);

/// Order of service when the floors do not fit: those whose turn lasts, those who have waited for a whole turn
/// (longest first), those whose turn is over (longest last), those who wait since a moment ago, and last the vehicles
/// that take nothing.
fn rank(facts: &EvseFacts, want: Want, site: &Site, now: Mono) -> u64 {
    const CLASS: u64 = 1 << 60;
    let ms = |at: Mono| u64::try_from(at.0.as_millis()).unwrap_or(CLASS - 1).min(CLASS - 1);
    let turn = site.config.control.min_on.max(LEAST_TURN);
    if want == Want::Least {
        return 4 * CLASS;
    }
    match (facts.on_since, facts.on_until) {
        (Some(since), _) if now.since(since) < turn => ms(since),
        (Some(since), _) => 2 * CLASS + (CLASS - 1 - ms(since)),
        (None, Some(until)) if now.since(until) < turn => 3 * CLASS + ms(until),
        (None, Some(until)) => CLASS + ms(until),
        (None, None) => CLASS,
    }
}

fn constraints(site: &Site, cap: &Cap, voltages: PerPhase<Millivolts>) -> Vec<Constraint> {
    let behind: Vec<bool> = {
        let mut behind = vec![false; site.config.evses.len()];
        site.behind(cap.node).for_each(|e| behind[e] = true);
        behind
    };
    let used = |e: usize| site.evses[e].phases(&site.config.evses[e]);
    match cap.bound {
        Bound::Current(room) => Phase::ALL
            .into_iter()
            .map(|p| Constraint {
                weights: behind.iter().enumerate().map(|(e, b)| i64::from(*b && used(e)[p])).collect(),
                room: i128::from(room[p].0),
            })
            .collect(),
        // Milliamperes times millivolts are microwatts.
        Bound::Power(watts) => vec![Constraint {
            weights: behind
                .iter()
                .enumerate()
                .map(|(e, b)| {
                    if *b {
                        Phase::ALL.into_iter().filter(|p| used(e)[*p]).map(|p| voltages[p].0).sum()
                    } else {
                        0
                    }
                })
                .collect(),
            room: i128::from(watts.0) * 1_000_000,
        }],
    }
}

/// The constraints with some currents taken already.
fn less(constraints: &[Constraint], taken: &[i64]) -> Vec<Constraint> {
    constraints
        .iter()
        .map(|c| {
            let used: i128 = c.weights.iter().zip(taken).map(|(w, t)| i128::from(*w) * i128::from(*t)).sum();
            Constraint { weights: c.weights.clone(), room: c.room - used }
        })
        .collect()
}

/// One step from where the EVSE may be towards its target: down at once; up only into free room and after the dwell.
/// Returns the value, since when there is room, and whether it waits.
fn approach(
    site: &Site,
    e: usize,
    target: i64,
    in_force: i64,
    rooms: &mut [Constraint],
    demand: &Demand,
    now: Mono,
) -> (Milliamps, Option<Mono>, bool) {
    let facts = &site.evses[e];
    let dwell = site.config.control.raise_dwell;
    let standing = facts.leash.newest().map_or(0, |s| s.limit.0).min(in_force);
    if target <= in_force && facts.leash.newest().is_none_or(|s| target <= s.limit.0) {
        return (Milliamps(target), None, false);
    }
    let room_since = facts.room_since.unwrap_or(now);
    let waited = if standing == 0 && facts.on_since.is_none() {
        // A car that comes is served at once; one that was paused waits.
        facts.on_until.is_none_or(|until| now.since(until) >= dwell)
    } else {
        now.since(room_since) >= dwell
    };
    if !waited {
        return (Milliamps(standing), Some(room_since), true);
    }
    let step = demand.step.max(1);
    let free = rooms
        .iter()
        .filter(|c| c.weights[e] > 0)
        .map(|c| i64::try_from((c.room / i128::from(c.weights[e])).max(0)).unwrap_or(i64::MAX))
        .min()
        .unwrap_or(i64::MAX);
    let mut reached = in_force.saturating_add(free).min(target) / step * step;
    if reached < demand.least {
        reached = standing;
    }
    let more = (reached - in_force).max(0);
    for c in rooms.iter_mut() {
        c.room -= i128::from(c.weights[e]) * i128::from(more);
    }
    let waits = reached < target;
    (Milliamps(reached), waits.then_some(room_since), waits)
}

fn because(target: &Allocation, owners: &[&Cap], own: &str, demand: &Demand) -> String {
    match target.binding {
        Binding::Own => own.to_owned(),
        Binding::Constraint(c) => {
            let cap = &owners[c].reason;
            if target.current == 0 && demand.most > 0 { format!("waits: {cap}") } else { cap.clone() }
        }
    }
}

/// Whether a power limit lies on the EVSE's way to the grid connection.
fn caps_power(site: &Site, budget: &Budget, e: usize) -> bool {
    let mut at = Some(site.config.evses[e].node);
    while let Some(n) = at {
        if budget.caps.iter().any(|c| c.node == n && matches!(c.bound, Bound::Power(_))) {
            return true;
        }
        at = site.config.nodes[n].parent;
    }
    false
}

fn nodes(site: &Site, budget: &Budget) -> Vec<NodeShare> {
    (0..site.config.nodes.len())
        .map(|n| {
            let mut share =
                NodeShare { available: PerPhase::default(), power_limit: None, reason: String::new() };
            for cap in budget.caps.iter().filter(|c| c.node == n) {
                match cap.bound {
                    Bound::Current(room) => share.available = room,
                    Bound::Power(watts) => share.power_limit = Some(watts),
                }
                if !share.reason.is_empty() {
                    share.reason.push_str("; ");
                }
                share.reason.push_str(&cap.reason);
            }
            share
        })
        .collect()
}
