//! Who may draw, and how much each: admission by floors, then weighted max–min fair filling, all at once.
//!
//! ```text
//! who presses, beside the floors that must stay: one after the other up to its bound, those first that turn an ampere
//!        into the most power, then those with the least time to spare; where what is left is less than a floor, who
//!        was served last gives way
//! the others: in order of rank, who still fits with its floor
//!        ─→ filling: all of them rise together; who meets its bound or a full constraint stops, the others go on
//!        ─→ the floors of those who take nothing at present, where they still fit
//!        ─→ once more for those that were held to what they use, up to their real bound
//!        ─→ down to whole steps; what that frees goes to those that lost most
//! ```
//!
//! In: demands and linear constraints, integers only. Out: one value per demand and what bound it. Invariant: no
//! constraint is exceeded; each value is 0 or within the demand's bounds and on its step. Effort: nearly linear in
//! the number of (demand, constraint) pairs.

use std::{cmp::Reverse, collections::BinaryHeap};

/// What one device asks for. Values are in its own unit: milliamperes per phase, or watts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Least value it can run with.
    pub least: i64,
    /// Most it may have; below `least` it gets nothing.
    pub most: i64,
    /// What it was seen to use, or is taken to use: beyond it, it gets only what the others leave.
    pub used: i64,
    /// Its values are multiples of this.
    pub step: i64,
    /// Its share in thousandths of its unit per unit of level: 1000 for a milliampere per milliampere.
    pub rate: i64,
    /// Class and rank in it: served in rising order when the floors of all do not fit.
    pub rank: (u8, u64),
    /// When it is served.
    pub turn: Turn,
}

/// When a device is served. The rank decides within each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It can only just be on time: up to its bound before the others of its class get their floors. Not all that press
    /// can be on time where they are too many; then least energy is lost if those go first that load the most phases
    /// at once, and among them those with the least time to spare.
    Presses {
        /// How many phases it loads.
        phases: u8,
        /// Its time to spare, in any unit, and then by when.
        spare: (i64, i64),
        /// It has just begun: its floor stays, whoever else presses.
        keeps: bool,
    },
    /// It has just begun: its floor stays, whoever presses.
    Keeps,
    /// With all others.
    Usual,
    /// It takes nothing at present: its floor, where the others leave it.
    Yields,
}

/// `Σ weight × value ≤ room` for each constraint; weights are positive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constraints {
    /// What is left for the demands; negative when overdrawn already.
    pub rooms: Vec<i128>,
    /// Where each demand's part of `uses` begins; one more than there are demands.
    starts: Vec<usize>,
    uses: Vec<Use>,
}

/// A demand's part in a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Index of the constraint.
    pub constraint: usize,
    /// How much of it one unit takes.
    pub weight: i64,
}

impl Constraints {
    /// Constraints of these rooms that concern nobody yet.
    #[must_use]
    pub fn new(rooms: Vec<i128>) -> Self {
        Self { rooms, starts: vec![0], uses: Vec::new() }
    }

    /// Adds the next demand with its part in the constraints. Weights that are not positive do not count.
    pub fn concern(&mut self, uses: impl IntoIterator<Item = Use>) {
        let known = self.rooms.len();
        self.uses.extend(uses.into_iter().filter(|u| u.weight > 0 && u.constraint < known));
        self.starts.push(self.uses.len());
    }

    /// What concerns a demand.
    #[must_use]
    pub fn of(&self, demand: usize) -> &[Use] {
        match (self.starts.get(demand), self.starts.get(demand + 1)) {
            (Some(from), Some(to)) => &self.uses[*from..*to],
            _ => &[],
        }
    }

    /// The rooms with some values taken already.
    #[must_use]
    pub fn less(&self, taken: &[i64]) -> Vec<i128> {
        let mut rooms = self.rooms.clone();
        for (i, value) in taken.iter().enumerate().filter(|(_, value)| **value != 0) {
            self.take(&mut rooms, i, *value);
        }
        rooms
    }

    /// How much more a demand may have within these rooms.
    #[must_use]
    pub fn free(&self, rooms: &[i128], demand: usize) -> i64 {
        let each = self.of(demand).iter().map(|u| (rooms[u.constraint] / i128::from(u.weight)).max(0));
        i64::try_from(each.min().unwrap_or(i128::from(i64::MAX))).unwrap_or(i64::MAX)
    }

    /// Takes a value from the rooms.
    pub fn take(&self, rooms: &mut [i128], demand: usize, value: i64) {
        for u in self.of(demand) {
            rooms[u.constraint] -= i128::from(u.weight) * i128::from(value);
        }
    }

    fn blocking(&self, rooms: &[i128], demand: usize, more: i64) -> Option<usize> {
        let full = |u: &&Use| i128::from(u.weight) * i128::from(more) > rooms[u.constraint];
        self.of(demand).iter().find(full).map(|u| u.constraint)
    }
}

/// What kept a device from more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Its own bound.
    Own,
    /// This constraint.
    Constraint(usize),
}

/// The outcome for one demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// In the demand's unit.
    pub value: i64,
    /// What kept it from more.
    pub binding: Binding,
}

/// Shares out within the constraints, `taken` counted as gone already (one value per demand). Demands that want
/// nothing have `most` 0.
#[must_use]
pub fn allocate(demands: &[Demand], constraints: &Constraints, taken: &[i64]) -> Vec<Allocation> {
    let mut rooms = constraints.less(taken);
    let mut out = vec![Allocation { value: 0, binding: Binding::Own }; demands.len()];
    let most: Vec<i64> = demands.iter().map(|d| down(d.most, d.step)).collect();

    let mut order: Vec<usize> = (0..demands.len()).filter(|i| most[*i] >= floor(&demands[*i])).collect();
    order.sort_by_key(|i| (demands[*i].rank, *i));
    let mut admitted = Vec::with_capacity(order.len());
    let admit = |i: usize, rooms: &mut [i128], out: &mut [Allocation], admitted: &mut Vec<usize>| {
        let least = floor(&demands[i]);
        match constraints.blocking(rooms, i, least) {
            Some(c) => out[i].binding = Binding::Constraint(c),
            None => {
                constraints.take(rooms, i, least);
                out[i].value = least;
                admitted.push(i);
            }
        }
    };
    let (yielding, order): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|i| demands[*i].turn == Turn::Yields);
    let left = |out: &[Allocation]| {
        let gone: Vec<i64> = out.iter().zip(taken).map(|(a, t)| a.value + t).collect();
        constraints.less(&gone)
    };
    let used: Vec<i64> = demands.iter().zip(&most).map(|(d, m)| down(d.used, d.step).min(*m)).collect();
    // A class at a time: who presses goes before the others of its class, not before those of a better one.
    let presses = |i: &usize| matches!(demands[*i].turn, Turn::Presses { .. });
    let mut waiting = order;
    while let Some(class) = waiting.iter().filter(|i| presses(i)).map(|i| demands[*i].rank.0).min() {
        let stays = |i: &usize| {
            let d = &demands[*i];
            let keeps = matches!(d.turn, Turn::Keeps | Turn::Presses { keeps: true, .. });
            d.rank.0 < class || (d.rank.0 == class && keeps)
        };
        let of_class = |i: &usize| demands[*i].rank.0 == class && presses(i);
        let mut pressing: Vec<usize> = waiting.iter().copied().filter(of_class).collect();
        pressing.sort_by_key(|i| (pressure(&demands[*i]), *i));
        let (first, others): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(stays);
        for i in first {
            admit(i, &mut rooms, &mut out, &mut admitted);
        }
        let mut served: Vec<usize> = Vec::with_capacity(pressing.len());
        let mut tries = TRIES;
        for i in pressing {
            if out[i].value == 0 && !stays(&i) {
                if constraints.blocking(&rooms, i, floor(&demands[i])).is_some() && tries > 0 {
                    let gave = give_way(demands, constraints, i, &served, &mut rooms, &mut out);
                    tries -= u32::from(gave == Some(false));
                }
                admit(i, &mut rooms, &mut out, &mut admitted);
            }
            if out[i].value > 0 {
                raise(&demands[i], used[i], i, constraints, &mut rooms, &mut out[i]);
                served.push(i);
            }
        }
        waiting = others.into_iter().filter(|i| !of_class(i)).collect();
    }
    for i in waiting {
        admit(i, &mut rooms, &mut out, &mut admitted);
    }
    let usual: Vec<usize> = admitted.iter().copied().filter(|i| !presses(i)).collect();
    fill(demands, constraints, &rooms, &used, &usual, &mut out);
    let held: Vec<usize> =
        admitted.iter().copied().filter(|i| used[*i] < most[*i] && out[*i].value >= used[*i]).collect();
    if !yielding.is_empty() {
        let mut rooms = left(&out);
        for i in yielding {
            admit(i, &mut rooms, &mut out, &mut admitted);
        }
    }
    if !held.is_empty() {
        fill(demands, constraints, &left(&out), &most, &held, &mut out);
    }
    settle(demands, constraints, taken, &most, &admitted, &mut out);
    out
}

/// Who goes first among those that press, lower first.
fn pressure(demand: &Demand) -> (Reverse<u8>, (i64, i64)) {
    match demand.turn {
        Turn::Presses { phases, spare, .. } => (Reverse(phases), spare),
        _ => (Reverse(0), (i64::MAX, i64::MAX)),
    }
}

/// Raises one that has its floor by whole steps, as far as there is room.
fn raise(
    demand: &Demand,
    bound: i64,
    i: usize,
    constraints: &Constraints,
    rooms: &mut [i128],
    out: &mut Allocation,
) {
    let step = demand.step.max(1);
    let wanted = (bound - out.value).max(0);
    let more = down(wanted.min(constraints.free(rooms, i)), step);
    constraints.take(rooms, i, more);
    out.value += more;
    if more < down(wanted, step)
        && let Some(c) = constraints.blocking(rooms, i, step)
    {
        out.binding = Binding::Constraint(c);
    }
}

/// How often room for one more floor is looked for in vain.
const TRIES: u32 = 64;

/// Lowers those that were served, the last first, so that the floor of one more fits, where that uses more of the room
/// than it costs them: what is left beside them would be of no use to anybody. `None` when there is nothing left.
fn give_way(
    demands: &[Demand],
    constraints: &Constraints,
    i: usize,
    served: &[usize],
    rooms: &mut [i128],
    out: &mut [Allocation],
) -> Option<bool> {
    let least = floor(&demands[i]);
    if constraints.free(rooms, i) < demands[i].step.max(1) {
        return None;
    }
    let short = |rooms: &[i128], c: usize| {
        let mine = constraints.of(i).iter().find(|u| u.constraint == c);
        mine.map_or(0, |u| i128::from(u.weight) * i128::from(least) - rooms[c])
    };
    let phases = |d: usize| match demands[d].turn {
        Turn::Presses { phases, .. } => i64::from(phases.max(1)),
        _ => 1,
    };
    let mut gives = Vec::new();
    let mut cost = 0;
    for j in served.iter().rev().copied() {
        if constraints.blocking(rooms, i, least).is_none() {
            break;
        }
        let step = demands[j].step.max(1);
        let needs = constraints.of(j).iter().map(|u| (short(rooms, u.constraint), i128::from(u.weight)));
        let needs =
            needs.filter(|(short, _)| *short > 0).map(|(short, weight)| (short + weight - 1) / weight);
        let needs = i64::try_from(needs.max().unwrap_or(0)).unwrap_or(i64::MAX);
        let gives_up = ((needs + step - 1) / step * step).min(down(out[j].value - floor(&demands[j]), step));
        if gives_up > 0 {
            constraints.take(rooms, j, -gives_up);
            out[j].value -= gives_up;
            cost += gives_up.saturating_mul(phases(j));
            gives.push((j, gives_up));
        }
    }
    let worth = constraints.blocking(rooms, i, least).is_none() && cost < least.saturating_mul(phases(i));
    if !worth {
        for (j, gave) in gives {
            constraints.take(rooms, j, gave);
            out[j].value += gave;
        }
    }
    Some(worth)
}

/// The least value on the step grid that the device can run with.
fn floor(demand: &Demand) -> i64 {
    let step = demand.step.max(1);
    (demand.least + step - 1) / step * step
}

fn down(value: i64, step: i64) -> i64 {
    let step = step.max(1);
    value.max(0) / step * step
}

/// A constraint while the level rises. Rooms are in thousandths, so that rates need no fractions.
#[derive(Clone, Copy, Default)]
struct Filling {
    room: i128,
    /// What one unit of level takes.
    rate: i128,
    /// The level that `room` is told for.
    at: i64,
    version: u32,
    full: bool,
}

impl Filling {
    /// Moves to a level; what rose until then is taken.
    fn to(&mut self, level: i64) {
        self.room -= self.rate * i128::from(level - self.at);
        self.at = level;
    }

    /// The level at which it will be full.
    fn full_at(&self) -> Option<i64> {
        if self.rate <= 0 {
            return None;
        }
        let (room, rate) = (self.room.max(0), self.rate);
        // Division of the narrow type is many times faster.
        let more = match (i64::try_from(room), i64::try_from(rate)) {
            (Ok(room), Ok(rate)) => room / rate,
            _ => i64::try_from(room / rate).unwrap_or(i64::MAX),
        };
        Some(self.at.saturating_add(more))
    }
}

/// Raises all active ones together until each meets its bound or a constraint. Those that stand lower rise first, so
/// that fair shares come out even when the floors differ. `rooms` is what is left beside the present values.
fn fill(
    demands: &[Demand],
    constraints: &Constraints,
    rooms: &[i128],
    bounds: &[i64],
    active: &[usize],
    out: &mut [Allocation],
) {
    let rate = |i: usize| demands[i].rate.max(1);
    let enters = |i: usize, out: &[Allocation]| out[i].value.saturating_mul(1000) / rate(i);
    let leaves = |i: usize| (bounds[i].saturating_mul(1000) + rate(i) - 1) / rate(i);
    let mut state: Vec<Filling> =
        rooms.iter().map(|room| Filling { room: room.saturating_mul(1000), ..Filling::default() }).collect();
    let mut entering: Vec<(i64, usize)> =
        active.iter().filter(|i| out[**i].value < bounds[**i]).map(|i| (enters(*i, out), *i)).collect();
    entering.sort_unstable();
    let mut leaving: Vec<(i64, usize)> = entering.iter().map(|(_, i)| (leaves(*i), *i)).collect();
    leaving.sort_unstable();
    let members = Members::new(constraints, entering.iter().map(|(_, i)| *i));

    let mut rising = vec![false; demands.len()];
    let mut dirty: Vec<usize> = Vec::new();
    let mut heap: BinaryHeap<Reverse<(i64, usize, u32)>> = BinaryHeap::new();
    let (mut entering, mut leaving) = (entering.into_iter().peekable(), leaving.into_iter().peekable());
    loop {
        for c in dirty.drain(..) {
            state[c].version += 1;
            if let Some(level) = state[c].full_at().filter(|_| !state[c].full) {
                heap.push(Reverse((level, c, state[c].version)));
            }
        }
        while heap.peek().is_some_and(|Reverse((_, c, version))| state[*c].version != *version) {
            heap.pop();
        }
        let enter = entering.peek().map(|(level, _)| *level);
        let leave = leaving.peek().map(|(level, _)| *level);
        let full = heap.peek().map(|Reverse((level, ..))| *level);
        let Some(level) = [enter, leave, full].into_iter().flatten().min() else { break };
        let mut stop = |i: usize, state: &mut [Filling], dirty: &mut Vec<usize>| {
            if !std::mem::replace(&mut rising[i], false) {
                return false;
            }
            for u in constraints.of(i) {
                state[u.constraint].to(level);
                state[u.constraint].rate -= i128::from(u.weight) * i128::from(rate(i));
                dirty.push(u.constraint);
            }
            true
        };
        if leave == Some(level) {
            if let Some((_, i)) = leaving.next()
                && stop(i, &mut state, &mut dirty)
            {
                out[i].value = bounds[i];
            }
        } else if full == Some(level) {
            let Some(Reverse((_, c, _))) = heap.pop() else { break };
            state[c].full = true;
            for i in members.of(c) {
                if stop(*i, &mut state, &mut dirty) {
                    out[*i].value = out[*i].value.max(share(level, rate(*i)));
                    out[*i].binding = Binding::Constraint(c);
                }
            }
        } else if let Some((_, i)) = entering.next() {
            match constraints.of(i).iter().find(|u| state[u.constraint].full) {
                Some(u) => out[i].binding = Binding::Constraint(u.constraint),
                None => {
                    rising[i] = true;
                    for u in constraints.of(i) {
                        state[u.constraint].to(level);
                        state[u.constraint].rate += i128::from(u.weight) * i128::from(rate(i));
                        dirty.push(u.constraint);
                    }
                }
            }
        }
    }
}

/// What a rate has at a level.
fn share(level: i64, rate: i64) -> i64 {
    if rate == 1000 {
        return level;
    }
    i64::try_from(i128::from(level) * i128::from(rate) / 1000).unwrap_or(i64::MAX)
}

/// Who takes part in each constraint.
struct Members {
    starts: Vec<usize>,
    demands: Vec<usize>,
}

impl Members {
    fn new(constraints: &Constraints, demands: impl Iterator<Item = usize> + Clone) -> Self {
        let mut starts = vec![0; constraints.rooms.len() + 1];
        for u in demands.clone().flat_map(|i| constraints.of(i)) {
            starts[u.constraint + 1] += 1;
        }
        for c in 1..starts.len() {
            starts[c] += starts[c - 1];
        }
        let mut next = starts.clone();
        let mut members = vec![0; starts.last().copied().unwrap_or(0)];
        for i in demands {
            for u in constraints.of(i) {
                members[next[u.constraint]] = i;
                next[u.constraint] += 1;
            }
        }
        Self { starts, demands: members }
    }

    fn of(&self, constraint: usize) -> &[usize] {
        &self.demands[self.starts[constraint]..self.starts[constraint + 1]]
    }
}

/// Rounds down to steps; what that frees goes step by step to those that lost most.
fn settle(
    demands: &[Demand],
    constraints: &Constraints,
    taken: &[i64],
    most: &[i64],
    admitted: &[usize],
    out: &mut [Allocation],
) {
    let mut lost = Vec::with_capacity(admitted.len());
    for &i in admitted {
        let rest = out[i].value % demands[i].step.max(1);
        out[i].value -= rest;
        lost.push((rest, i));
    }
    let gone: Vec<i64> = out.iter().zip(taken).map(|(a, t)| a.value + t).collect();
    let mut rooms = constraints.less(&gone);
    lost.sort_by_key(|(rest, i)| (Reverse(*rest), out[*i].value, *i));
    for (_, i) in lost {
        let step = demands[i].step.max(1);
        if out[i].value + step <= most[i] && constraints.blocking(&rooms, i, step).is_none() {
            constraints.take(&mut rooms, i, step);
            out[i].value += step;
        }
    }
}

#[cfg(test)]
mod tests;
