//! Who may charge, and how much each: admission by floors, then max–min fair filling, all EVSEs at once.
//!
//! In: demands and linear constraints, integers only. Out: one current per demand and what bound it. Invariant: no
//! constraint is exceeded; each current is 0 or within the demand's bounds and on its step.

/// What one EVSE asks for. Currents in milliamperes per phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Least current it can charge with.
    pub least: i64,
    /// Most it may have; below `least` it gets nothing.
    pub most: i64,
    /// Its setpoints are multiples of this.
    pub step: i64,
    /// Class and rank in it: served in rising order when the floors of all do not fit.
    pub rank: (u8, u64),
}

/// `Σ weight[i] × current[i] ≤ room`. Weights are not negative; 0 means not concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// One per demand.
    pub weights: Vec<i64>,
    /// What is left for the demands; negative when overdrawn already.
    pub room: i128,
}

/// What kept an EVSE from more.
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
    /// Milliamperes per phase.
    pub current: i64,
    /// What kept it from more.
    pub binding: Binding,
}

/// Shares out. `demands` that want nothing have `most` 0.
#[must_use]
pub fn allocate(demands: &[Demand], constraints: &[Constraint]) -> Vec<Allocation> {
    let mut rooms: Vec<i128> = constraints.iter().map(|c| c.room).collect();
    let mut out = vec![Allocation { current: 0, binding: Binding::Own }; demands.len()];
    let most: Vec<i64> = demands.iter().map(|d| d.most / d.step.max(1) * d.step.max(1)).collect();

    let mut order: Vec<usize> = (0..demands.len()).filter(|i| most[*i] >= demands[*i].least).collect();
    order.sort_by_key(|i| (demands[*i].rank, *i));
    let mut active = Vec::with_capacity(order.len());
    for i in order {
        match blocking(constraints, &rooms, i, floor(&demands[i])) {
            Some(c) => out[i].binding = Binding::Constraint(c),
            None => {
                take(constraints, &mut rooms, i, floor(&demands[i]));
                out[i].current = floor(&demands[i]);
                active.push(i);
            }
        }
    }
    fill(constraints, &mut rooms, &most, active.clone(), &mut out);
    settle(demands, constraints, &mut rooms, &most, &active, &mut out);
    out
}

/// The least current on the step grid that the EVSE can charge with.
fn floor(demand: &Demand) -> i64 {
    let step = demand.step.max(1);
    (demand.least + step - 1) / step * step
}

fn blocking(constraints: &[Constraint], rooms: &[i128], i: usize, more: i64) -> Option<usize> {
    constraints
        .iter()
        .zip(rooms)
        .position(|(c, room)| c.weights[i] > 0 && i128::from(c.weights[i]) * i128::from(more) > *room)
}

fn take(constraints: &[Constraint], rooms: &mut [i128], i: usize, more: i64) {
    for (c, room) in constraints.iter().zip(rooms) {
        *room -= i128::from(c.weights[i]) * i128::from(more);
    }
}

/// Raises all active ones together to the next point where a constraint or a bound is met, freezes those, repeats.
/// Those that stand lower rise first, so that equal shares come out even when the floors differ.
fn fill(
    constraints: &[Constraint],
    rooms: &mut [i128],
    most: &[i64],
    mut active: Vec<usize>,
    out: &mut [Allocation],
) {
    active.retain(|i| out[*i].current < most[*i]);
    while !active.is_empty() {
        let level = active.iter().map(|i| out[*i].current).min().unwrap_or(0);
        let (rising, higher): (Vec<usize>, Vec<usize>) =
            active.iter().partition(|i| out[**i].current == level);
        // Up to the level of the next higher one, or to the lowest bound among the rising.
        let mut by = rising.iter().map(|i| most[*i] - level).min().unwrap_or(0);
        by = higher.iter().map(|i| out[*i].current - level).min().map_or(by, |up| by.min(up));
        let mut tight = None;
        for (c, (constraint, room)) in constraints.iter().zip(rooms.iter()).enumerate() {
            let weight: i128 = rising.iter().map(|i| i128::from(constraint.weights[*i])).sum();
            if weight > 0 {
                let fits = i64::try_from((room / weight).max(0)).unwrap_or(i64::MAX);
                if fits < by {
                    by = fits;
                    tight = Some(c);
                }
            }
        }
        for i in &rising {
            take(constraints, rooms, *i, by);
            out[*i].current += by;
        }
        active.retain(|i| {
            let bound = out[*i].current >= most[*i];
            let stuck = tight.filter(|c| constraints[*c].weights[*i] > 0 && rising.contains(i));
            if let Some(c) = stuck {
                out[*i].binding = Binding::Constraint(c);
            }
            !bound && stuck.is_none()
        });
    }
}

/// Rounds down to steps; what that frees goes step by step to those that lost most.
fn settle(
    demands: &[Demand],
    constraints: &[Constraint],
    rooms: &mut [i128],
    most: &[i64],
    admitted: &[usize],
    out: &mut [Allocation],
) {
    let mut lost = Vec::with_capacity(admitted.len());
    for &i in admitted {
        let step = demands[i].step.max(1);
        let rest = out[i].current % step;
        if rest > 0 {
            take(constraints, rooms, i, -rest);
            out[i].current -= rest;
        }
        lost.push((rest, i));
    }
    lost.sort_by_key(|(rest, i)| (std::cmp::Reverse(*rest), out[*i].current, *i));
    for (_, i) in lost {
        let step = demands[i].step.max(1);
        if out[i].current + step <= most[i] && blocking(constraints, rooms, i, step).is_none() {
            take(constraints, rooms, i, step);
            out[i].current += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand(most: i64) -> Demand {
        Demand { least: 6000, most, step: 1000, rank: (0, 0) }
    }

    fn currents(out: &[Allocation]) -> Vec<i64> {
        out.iter().map(|a| a.current).collect()
    }

    #[test]
    fn equal_claims_get_equal_shares_and_leftovers_go_round() {
        let all = Constraint { weights: vec![1; 3], room: 50_000 };
        assert_eq!(currents(&allocate(&[demand(32_000); 3], &[all])), [17_000, 17_000, 16_000]);
    }

    #[test]
    fn who_cannot_use_more_leaves_it_to_the_others() {
        let all = Constraint { weights: vec![1; 3], room: 50_000 };
        let out = allocate(&[demand(8_000), demand(32_000), demand(32_000)], &[all]);
        assert_eq!(currents(&out), [8_000, 21_000, 21_000]);
        assert_eq!(out[0].binding, Binding::Own);
        assert_eq!(out[1].binding, Binding::Constraint(0));
    }

    #[test]
    fn floors_that_do_not_fit_are_served_by_rank() {
        let all = Constraint { weights: vec![1; 3], room: 13_000 };
        let mut demands = [demand(16_000); 3];
        demands[0].rank = (0, 9);
        let out = allocate(&demands, &[all]);
        assert_eq!(currents(&out), [0, 7_000, 6_000]);
        assert_eq!(out[0].binding, Binding::Constraint(0));
    }

    #[test]
    fn a_phase_of_its_own_is_not_held_down_by_the_others() {
        // Two one-phase cars on L1, one on L2.
        let l1 = Constraint { weights: vec![1, 1, 0], room: 20_000 };
        let l2 = Constraint { weights: vec![0, 0, 1], room: 20_000 };
        assert_eq!(currents(&allocate(&[demand(32_000); 3], &[l1, l2])), [10_000, 10_000, 20_000]);
    }

    #[test]
    fn an_overdrawn_constraint_stops_those_it_concerns_only() {
        let gone = Constraint { weights: vec![1, 0], room: -5 };
        assert_eq!(currents(&allocate(&[demand(16_000); 2], &[gone])), [0, 16_000]);
    }

    fn cases() -> impl Strategy<Value = (Vec<Demand>, Vec<Constraint>)> {
        let demand =
            (6_000_i64..10_000, 0_i64..64_000, prop::sample::select(vec![100_i64, 500, 1000]), 0_u64..4)
                .prop_map(|(least, most, step, rank)| Demand { least, most, step, rank: (0, rank) });
        prop::collection::vec(demand, 1..12).prop_flat_map(|demands| {
            let n = demands.len();
            let constraint = (prop::collection::vec(0_i64..3, n), -10_000_i128..200_000)
                .prop_map(|(weights, room)| Constraint { weights, room });
            (Just(demands), prop::collection::vec(constraint, 1..8))
        })
    }

    proptest! {
        /// Nothing is ever exceeded; everybody gets 0 or what the EVSE can do.
        #[test]
        fn bounds_are_kept((demands, constraints) in cases()) {
            let out = allocate(&demands, &constraints);
            for c in &constraints {
                let sum: i128 =
                    out.iter().zip(&c.weights).map(|(a, w)| i128::from(a.current) * i128::from(*w)).sum();
                prop_assert!(sum <= c.room.max(0));
            }
            for (a, d) in out.iter().zip(&demands) {
                prop_assert!(a.current == 0 || (a.current >= d.least && a.current <= d.most));
                prop_assert_eq!(a.current % d.step, 0);
            }
        }

        /// Nobody who could have one step more by itself is left below it: no room is wasted on the admitted.
        #[test]
        fn admitted_ones_cannot_all_be_left_short((demands, constraints) in cases()) {
            let out = allocate(&demands, &constraints);
            for (i, (a, d)) in out.iter().zip(&demands).enumerate() {
                if a.current == 0 || a.binding == Binding::Own {
                    continue;
                }
                // Two steps would not fit: one may be lost to rounding of the others.
                let more = 2 * d.step.max(demands.iter().map(|d| d.step).max().unwrap_or(0)) * 12;
                let fits = a.current + more <= d.most && constraints.iter().all(|c| {
                    let sum: i128 =
                        out.iter().zip(&c.weights).map(|(a, w)| i128::from(a.current) * i128::from(*w)).sum();
                    c.weights[i] == 0 || sum + i128::from(more) * i128::from(c.weights[i]) <= c.room
                });
                prop_assert!(!fits, "{i} stays at {} although there is room", a.current);
            }
        }

        /// A smaller room never gives more in sum under a single common constraint.
        #[test]
        fn less_room_never_gives_more(
            n in 1_usize..12, most in prop::collection::vec(0_i64..40_000, 12), room in 0_i128..200_000,
            less in 0_i128..200_000,
        ) {
            let demands: Vec<_> = most[..n].iter().map(|m| demand(*m)).collect();
            let total = |room| -> i64 {
                let c = Constraint { weights: vec![1; n], room };
                currents(&allocate(&demands, &[c])).iter().sum()
            };
            prop_assert!(total(room.min(less)) <= total(room.max(less)));
        }
    }
}
