//! Budget → one leased setpoint per EVSE, one grant per device. Pure: no async, no I/O, no clock.
//!
//! ```text
//! budget ─→ targets (allocate: fair, all at once)
//!        ─→ decreases at once
//!        ─→ increases: only into room that is confirmed free, after a dwell, by no more than the ramp at a time
//! ```
//!
//! In: the site, the budget, the time. Out: a [`Plan`]. Invariant: at no instant is the sum of what the EVSEs may be
//! obeying (old setpoints not yet replaced included) raised above a cap, nor into own generation that is in doubt;
//! each setpoint is 0 or at least the EVSE's minimum; each says what bound it.

pub mod allocate;
mod constraint;
pub mod kept;
mod rank;
pub mod reserve;

use std::time::Duration;

pub use self::reserve::reserve;
use self::{
    allocate::{Allocation, Binding, Demand, Turn, allocate},
    constraint::Bounds,
};
use crate::{
    policy::{Bound, Budget, Want},
    rules::Phases,
    site::Site,
    time::{Mono, Now},
    units::{Milliamps, Millivolts, PerPhase, Watts},
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
    /// The EVSE shall charge on one phase, where it can be told so.
    pub one_phase: bool,
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
    /// On one phase, where the EVSE can be told so.
    pub one_phase: bool,
    /// The binding constraint, in words.
    pub reason: String,
    /// Since when there has been room for more.
    pub room_since: Option<Mono>,
}

/// What the plan grants one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceGrant {
    /// Power; 0 switches it off.
    pub power: Watts,
    /// The binding constraint, in words.
    pub reason: String,
    /// Since when there has been room for more.
    pub room_since: Option<Mono>,
}

/// What a node leaves to its EVSEs and devices.
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
    /// One per device.
    pub devices: Vec<DeviceGrant>,
    /// One per node.
    pub nodes: Vec<NodeShare>,
}

/// Decides.
#[must_use]
pub fn plan(site: &Site, budget: &Budget, now: Now) -> Plan {
    let (evses, devices) = (site.config.evses.len(), site.config.devices.len());
    let Bounds { constraints, owners, limited, doubts } = constraint::bounds(site, budget, now);

    let held: Vec<Option<Milliamps>> = (0..evses).map(|e| reserve::uncontrolled(site, e, now.mono)).collect();
    let stuck: Vec<Option<&str>> = (0..devices).map(|d| reserve::stuck(site, d)).collect();
    let fixed: Vec<i64> = held
        .iter()
        .map(|h| h.map_or(0, |ma| ma.0))
        .chain((0..devices).map(|d| stuck[d].map_or(0, |_| site.config.devices[d].power.0)))
        .collect();
    let demands: Vec<Demand> = (0..evses)
        .map(|e| demand(site, budget, e, held[e].is_some(), now))
        .chain((0..devices).map(|d| device_demand(site, budget, d, stuck[d].is_some(), now.mono)))
        .collect();
    let targets = allocate(&demands, &constraints, &fixed);

    // Where everybody may be right now, and what is left above that. A car that was told to draw less may still be on
    // its way down: its room is free once it has had time to follow.
    let in_force: Vec<i64> = (0..evses)
        .map(|e| reserve(site, e, now.mono).0)
        .chain((0..devices).map(|d| reserve::device(site, d, now.mono).0))
        .collect();
    let drawn: Vec<i64> = (0..evses)
        .map(|e| in_force[e].max(reserve::descending(site, e, now.mono).0))
        .chain(in_force[evses..].iter().copied())
        .collect();
    let mut rooms = constraints.less(&drawn);
    rooms.iter_mut().zip(doubts).for_each(|(room, doubt)| *room -= doubt);
    let because =
        |i: usize, own: &str, seen: bool| because(&targets[i], &owners, budget, own, &demands[i], seen);

    // Devices first: theirs are the lower classes.
    let device_grants = (0..devices)
        .map(|d| {
            let i = evses + d;
            let own = &budget.devices[d].reason;
            if let Some(problem) = stuck[d] {
                let reason = format!("does not obey, counts with all it can draw: {problem}");
                return DeviceGrant { power: Watts::ZERO, reason, room_since: None };
            }
            let step = raise(site, d, targets[i].value, constraints.free(&rooms, i), &demands[i], now.mono);
            constraints.take(&mut rooms, i, (step.value - in_force[i]).max(0));
            let reason = waiting(because(i, own, false), step.waits, &Watts(targets[i].value));
            DeviceGrant { power: Watts(step.value), reason, room_since: step.room_since }
        })
        .collect();
    let grants = (0..evses)
        .map(|e| {
            let (facts, config) = (&site.evses[e], &site.config.evses[e]);
            let one_phase = config.ocpp.one_phase && site.rules[e].sun.phases == Phases::One;
            if let Some(counts) = held[e] {
                let reason = if facts.connected.is_none() {
                    "not connected: counts with what it may draw by itself".to_owned()
                } else {
                    format!("does not follow, counts with {counts}: {}", facts.refusal)
                };
                let (limit, failsafe) = (config.failsafe, config.failsafe);
                return Grant { limit, failsafe, one_phase, reason, room_since: None };
            }
            let free = constraints.free(&rooms, e);
            let step = approach(site, e, targets[e].value, in_force[e], free, &demands[e], now.mono);
            constraints.take(&mut rooms, e, (step.value - in_force[e]).max(0));
            let limit = Milliamps(step.value);
            let limited = limited[config.node] && !config.public;
            let failsafe = if limited { config.failsafe.min(limit) } else { config.failsafe };
            let because = because(e, &budget.shares[e].reason, facts.follow.used().is_some());
            let reason = waiting(because, step.waits, &Milliamps(targets[e].value));
            Grant { limit, failsafe, one_phase, reason, room_since: step.room_since }
        })
        .collect();
    Plan { grants, devices: device_grants, nodes: nodes(site, budget) }
}

fn demand(site: &Site, budget: &Budget, e: usize, held: bool, now: Now) -> Demand {
    let (facts, config, share) = (&site.evses[e], &site.config.evses[e], &budget.shares[e]);
    let most = match share.want {
        _ if held => Milliamps::ZERO,
        Want::Nothing => Milliamps::ZERO,
        Want::Least => config.min.min(share.most),
        Want::All => share.most,
    };
    // What it can take by itself, as far as that was seen.
    let able = facts.able(config).min(share.most).max(config.min);
    // One whose phases were never seen is taken for slow until it has charged: else it would wait too long for its turn.
    let slow =
        if facts.phases_known() { 1 } else { i64::try_from(config.wiring.count()).unwrap_or(3).max(1) };
    let power = Watts(site.power_at(e, able, now.mono).0 / slow);
    Demand {
        least: config.min.0,
        most: most.0,
        // Up to a whole step: what it draws must not shrink by being held to it.
        used: facts.bound().map_or(most.0, |used| up(used.max(config.min).0, config.step.0)),
        step: config.step.0,
        rate: 1000 * i64::from(config.weight),
        rank: (share.class, rank::rank(facts, share.want, share.deadline, power, &site.config.control, now)),
        turn: if share.want == Want::Least && facts.rest.yields() {
            Turn::Yields
        } else if let Some(spare) = rank::presses(share.deadline, power, now) {
            let phases = facts.loads(config);
            Turn::Presses { phases, spare, keeps: rank::keeps(facts, &site.config.control, now.mono) }
        } else if rank::keeps(facts, &site.config.control, now.mono) {
            Turn::Keeps
        } else {
            Turn::Usual
        },
    }
}

fn up(value: i64, step: i64) -> i64 {
    let step = step.max(1);
    (value + step - 1) / step * step
}

fn device_demand(site: &Site, budget: &Budget, d: usize, stuck: bool, now: Mono) -> Demand {
    let (facts, config, share) = (&site.devices[d], &site.config.devices[d], &budget.devices[d]);
    let most = if stuck { Watts::ZERO } else { share.most };
    let count = i64::try_from(config.wiring.count()).unwrap_or(3);
    let running = facts.on_since.is_some_and(|since| now.since(since) < config.min_on);
    Demand {
        least: config.min.0,
        most: most.0,
        used: most.0,
        step: config.step.0,
        // A level ampere is what its phases make of it.
        rate: (Millivolts::NOMINAL.0 * count / 1000).max(1) * i64::from(config.weight),
        rank: (share.class, u64::from(!running)),
        turn: if running { Turn::Keeps } else { Turn::Usual },
    }
}

/// One step of an EVSE or device towards its target.
struct Step {
    value: i64,
    room_since: Option<Mono>,
    /// Whether the target is not reached yet.
    waits: bool,
}

impl Step {
    const fn arrived(value: i64) -> Self {
        Self { value, room_since: None, waits: false }
    }
}

/// One step from where the EVSE may be towards its target: down at once; up only into free room, after the dwell, and
/// by no more than the ramp.
fn approach(
    site: &Site,
    e: usize,
    target: i64,
    in_force: i64,
    free: i64,
    demand: &Demand,
    now: Mono,
) -> Step {
    let (facts, control) = (&site.evses[e], &site.config.control);
    let standing = facts.leash.newest().map_or(0, |s| s.limit.0).min(in_force);
    if target <= in_force && facts.leash.newest().is_none_or(|s| target <= s.limit.0) {
        return Step::arrived(target);
    }
    let room_since = facts.room_since.unwrap_or(now);
    let waited = if standing == 0 && facts.on_since.is_none() {
        // A car that comes is served at once; one that was paused waits.
        // One that takes nothing is not switched on and off with every gap that the others leave.
        let rests = if demand.turn == Turn::Yields { control.min_on } else { control.min_off };
        facts.on_until.is_none_or(|until| now.since(until) >= control.raise_dwell.max(rests))
    } else {
        let moved = facts.leash.last_change().is_none_or(|(at, _)| now.since(at) >= control.settle);
        now.since(room_since) >= control.raise_dwell && moved
    };
    if !waited {
        return Step { value: standing, room_since: Some(room_since), waits: true };
    }
    let step = demand.step.max(1);
    let ramp = standing.saturating_add(control.ramp.0).max(demand.least);
    let mut reached = in_force.saturating_add(free).min(target).min(ramp) / step * step;
    if reached < demand.least || reached < standing {
        reached = standing;
    }
    let waits = reached < target;
    Step { value: reached, room_since: waits.then_some(room_since), waits }
}

/// The same for a device, which has no lease and follows at once.
fn raise(site: &Site, d: usize, target: i64, free: i64, demand: &Demand, now: Mono) -> Step {
    let (facts, config) = (&site.devices[d], &site.config.devices[d]);
    let standing = facts.granted.0;
    if target <= standing {
        return Step::arrived(target);
    }
    let room_since = facts.room_since.unwrap_or(now);
    let waited = match facts.on_until {
        Some(until) if standing == 0 => now.since(until) >= config.min_off,
        _ => now.since(room_since) >= site.config.control.raise_dwell || facts.changed.is_none(),
    };
    let step = demand.step.max(1);
    let mut reached = standing;
    if waited {
        let up = standing.saturating_add(free).min(target) / step * step;
        reached = if up < demand.least { standing } else { up };
    }
    let waits = reached < target;
    Step { value: reached, room_since: waits.then_some(room_since), waits }
}

fn waiting(reason: String, waits: bool, target: &dyn std::fmt::Display) -> String {
    if waits { format!("{reason}; rises to {target} when the room lasts") } else { reason }
}

/// Why a target is what it is; `seen` says whether what it uses was seen.
fn because(
    target: &Allocation,
    owners: &[usize],
    budget: &Budget,
    own: &str,
    demand: &Demand,
    seen: bool,
) -> String {
    match target.binding {
        Binding::Own => own.to_owned(),
        Binding::Constraint(c) => {
            let cap = &budget.caps[owners[c]].reason;
            if target.value == 0 && demand.turn == Turn::Yields {
                format!("takes nothing at present, the others come first; {cap}")
            } else if target.value == 0 && demand.most > 0 {
                format!("waits: {cap}")
            } else if seen && target.value >= demand.used && demand.used < demand.most {
                format!("takes less than others, as far as was seen: they get theirs first; {cap}")
            } else {
                cap.clone()
            }
        }
    }
}

fn nodes(site: &Site, budget: &Budget) -> Vec<NodeShare> {
    let empty = NodeShare { available: PerPhase::default(), power_limit: None, reason: String::new() };
    let mut shares = vec![empty; site.config.nodes.len()];
    for cap in &budget.caps {
        let share = &mut shares[cap.node];
        match cap.bound {
            Bound::Current(room) => share.available = room,
            Bound::Power(watts) => {
                share.power_limit = Some(share.power_limit.map_or(watts, |before| before.min(watts)));
            }
            Bound::Unbalance(_) => {}
        }
        if !share.reason.is_empty() {
            share.reason.push_str("; ");
        }
        share.reason.push_str(&cap.reason);
    }
    shares
}
