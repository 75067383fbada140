use proptest::prelude::*;

use super::*;

fn demand(most: i64) -> Demand {
    Demand { least: 6000, most, used: most, step: 1000, rate: 1000, rank: (0, 0), turn: Turn::Usual }
}

/// One row of weights per constraint, and its room.
fn dense(rows: &[(Vec<i64>, i128)]) -> Constraints {
    let mut all = Constraints::new(rows.iter().map(|(_, room)| *room).collect());
    for i in 0..rows.first().map_or(0, |(weights, _)| weights.len()) {
        all.concern(
            rows.iter().enumerate().map(|(constraint, (weights, _))| Use { constraint, weight: weights[i] }),
        );
    }
    all
}

fn given(demands: &[Demand], rows: &[(Vec<i64>, i128)]) -> Vec<Allocation> {
    allocate(demands, &dense(rows), &vec![0; demands.len()])
}

fn values(out: &[Allocation]) -> Vec<i64> {
    out.iter().map(|a| a.value).collect()
}

#[test]
fn equal_claims_get_equal_shares_and_leftovers_go_round() {
    let out = given(&[demand(32_000); 3], &[(vec![1; 3], 50_000)]);
    assert_eq!(values(&out), [17_000, 17_000, 16_000]);
}

#[test]
fn who_cannot_use_more_leaves_it_to_the_others() {
    let out = given(&[demand(8_000), demand(32_000), demand(32_000)], &[(vec![1; 3], 50_000)]);
    assert_eq!(values(&out), [8_000, 21_000, 21_000]);
    assert_eq!(out[0].binding, Binding::Own);
    assert_eq!(out[1].binding, Binding::Constraint(0));
}

#[test]
fn what_a_car_does_not_use_goes_to_the_others_first_and_back_when_it_is_left() {
    let slow = Demand { used: 10_000, ..demand(32_000) };
    let out = given(&[slow, demand(32_000)], &[(vec![1; 2], 40_000)]);
    assert_eq!(values(&out), [10_000, 30_000]);
    let out = given(&[slow, demand(16_000)], &[(vec![1; 2], 40_000)]);
    assert_eq!(values(&out), [24_000, 16_000]);
}

#[test]
fn twice_the_rate_is_twice_the_share() {
    let double = Demand { rate: 2000, ..demand(32_000) };
    let out = given(&[double, demand(32_000)], &[(vec![1; 2], 30_000)]);
    assert_eq!(values(&out), [20_000, 10_000]);
}

#[test]
fn a_device_in_watts_shares_with_cars_in_amperes() {
    // 690 W a level ampere: what three phases at 230 V make of it. Room in microwatts.
    let storage = Demand { least: 0, most: 20_000, used: 20_000, step: 10, rate: 690, ..demand(0) };
    let rows = [(vec![690_000, 1_000_000], 13_800_000_000)];
    let out = given(&[demand(32_000), storage], &rows);
    assert_eq!(values(&out), [10_000, 6_900]);
}

#[test]
fn floors_that_do_not_fit_are_served_by_rank() {
    let mut demands = [demand(16_000); 3];
    demands[0].rank = (0, 9);
    let out = given(&demands, &[(vec![1; 3], 13_000)]);
    assert_eq!(values(&out), [0, 7_000, 6_000]);
    assert_eq!(out[0].binding, Binding::Constraint(0));
}

#[test]
fn who_takes_nothing_gets_its_floor_where_the_others_leave_it() {
    let full = Demand { turn: Turn::Yields, ..demand(6_000) };
    let out = given(&[full, demand(16_000), demand(16_000)], &[(vec![1; 3], 30_000)]);
    assert_eq!(values(&out), [0, 15_000, 15_000]);
    assert_eq!(out[0].binding, Binding::Constraint(0));
    let out = given(&[full, demand(16_000), demand(16_000)], &[(vec![1; 3], 38_000)]);
    assert_eq!(values(&out), [6_000, 16_000, 16_000]);
    // What another is offered beyond what it uses can wait, too.
    let slow = Demand { used: 10_000, ..demand(32_000) };
    let out = given(&[full, slow, demand(16_000)], &[(vec![1; 3], 38_000)]);
    assert_eq!(values(&out), [6_000, 16_000, 16_000]);
}

#[test]
fn who_presses_goes_first_and_leaves_the_floors_that_must_stay() {
    let presses = pressing(3, 0);
    let keeps = Demand { turn: Turn::Keeps, ..demand(16_000) };
    let out = given(&[demand(16_000), keeps, presses], &[(vec![1; 3], 26_000)]);
    assert_eq!(values(&out), [0, 10_000, 16_000], "no floor is held free for who has time");
    let out = given(&[demand(16_000), keeps, presses], &[(vec![1; 3], 20_000)]);
    assert_eq!(values(&out), [0, 6_000, 14_000]);
    let out = given(&[demand(16_000), presses, presses], &[(vec![1; 3], 40_000)]);
    assert_eq!(values(&out), [8_000, 16_000, 16_000]);
    // Not before a better class.
    let better = Demand { rank: (0, 0), ..demand(16_000) };
    let worse = Demand { rank: (1, 0), ..presses };
    assert_eq!(values(&given(&[better, worse], &[(vec![1; 2], 20_000)])), [6_000, 14_000]);
}

fn pressing(phases: u8, spare: i64) -> Demand {
    Demand { turn: Turn::Presses { phases, spare: (spare, 0), keeps: false }, ..demand(16_000) }
}

#[test]
fn who_presses_is_served_by_phases_and_by_time_to_spare() {
    // All keep their floors where these fit; then whoever has less time.
    let out = given(&[demand(16_000), pressing(3, 2), pressing(3, 1)], &[(vec![1; 3], 26_000)]);
    assert_eq!(values(&out), [0, 10_000, 16_000]);
    assert_eq!(out[1].binding, Binding::Constraint(0));
    let out = given(&[pressing(3, 2), pressing(3, 1)], &[(vec![1; 2], 11_000)]);
    assert_eq!(values(&out), [0, 11_000]);
    // An ampere of L1 charges three times as much where it comes with L2 and L3.
    let rows = [(vec![1, 1], 20_000), (vec![0, 1], 32_000), (vec![0, 1], 32_000)];
    assert_eq!(values(&given(&[pressing(1, 0), pressing(3, 5)], &rows)), [0, 16_000]);
    // What it has begun is not taken away.
    let keeps = Demand { turn: Turn::Presses { phases: 1, spare: (0, 0), keeps: true }, ..demand(16_000) };
    assert_eq!(values(&given(&[keeps, pressing(3, 5)], &rows)), [6_000, 14_000]);
}

#[test]
fn a_phase_of_its_own_is_not_held_down_by_the_others() {
    // Two one-phase cars on L1, one on L2.
    let rows = [(vec![1, 1, 0], 20_000), (vec![0, 0, 1], 20_000)];
    assert_eq!(values(&given(&[demand(32_000); 3], &rows)), [10_000, 10_000, 20_000]);
}

#[test]
fn a_tight_feeder_leaves_the_rest_of_the_tree_to_the_others() {
    let rows = [(vec![1; 4], 63_000), (vec![1, 1, 0, 0], 16_000)];
    let out = given(&[demand(32_000); 4], &rows);
    assert_eq!(values(&out), [8_000, 8_000, 24_000, 23_000]);
    assert_eq!(out[0].binding, Binding::Constraint(1));
    assert_eq!(out[3].binding, Binding::Constraint(0));
}

#[test]
fn an_overdrawn_constraint_stops_those_it_concerns_only() {
    assert_eq!(values(&given(&[demand(16_000); 2], &[(vec![1, 0], -5)])), [0, 16_000]);
}

#[test]
fn what_is_taken_already_is_not_given_again() {
    let all = dense(&[(vec![1; 2], 40_000)]);
    let out = allocate(&[demand(0), demand(32_000)], &all, &[16_000, 0]);
    assert_eq!(values(&out), [0, 24_000]);
}

fn cases() -> impl Strategy<Value = (Vec<Demand>, Vec<(Vec<i64>, i128)>)> {
    let demand = (
        6_000_i64..10_000,
        0_i64..64_000,
        0_i64..64_000,
        prop::sample::select(vec![100_i64, 500, 1000]),
        prop::sample::select(vec![1000_i64, 1000, 690, 2500]),
        0_u64..4,
    )
        .prop_map(|(least, most, used, step, rate, rank)| Demand {
            least,
            most,
            used: used.max(least),
            step,
            rate,
            rank: (0, rank),
            turn: Turn::Usual,
        });
    prop::collection::vec(demand, 1..12).prop_flat_map(|demands| {
        let n = demands.len();
        let row = (prop::collection::vec(0_i64..3, n), -10_000_i128..200_000);
        (Just(demands), prop::collection::vec(row, 1..8))
    })
}

/// The same shares the slow way: everybody who can rises by the smallest amount, over and over.
#[allow(clippy::cast_possible_truncation, reason = "amperes of a test")]
fn naively(demands: &[Demand], rows: &[(Vec<i64>, i128)]) -> Vec<i64> {
    let fits = |x: &[f64]| {
        rows.iter().all(|(weights, room)| {
            let sum: f64 = weights.iter().zip(x).map(|(w, v)| *w as f64 * v).sum();
            sum <= (*room as f64).max(0.0) + 1e-6
        })
    };
    let grid = |v: i64, d: &Demand| v / d.step * d.step;
    let mut x = vec![0.0; demands.len()];
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|i| (demands[*i].rank, *i));
    let mut active = Vec::new();
    for i in order {
        let d = &demands[i];
        let least = (d.least + d.step - 1) / d.step * d.step;
        if grid(d.most, d) < least {
            continue;
        }
        x[i] = least as f64;
        if rows.iter().any(|(w, room)| w[i] > 0 && *room < 0) || !fits(&x) {
            x[i] = 0.0;
        } else {
            active.push(i);
        }
    }
    for bound in [|d: &Demand| d.used.min(d.most), |d: &Demand| d.most] {
        let top = |i: usize| grid(bound(&demands[i]), &demands[i]) as f64;
        let mut rising: Vec<usize> = active.iter().copied().filter(|i| x[*i] < top(*i)).collect();
        let mut level = 0.0;
        while !rising.is_empty() && level < 200_000.0 {
            level += 10.0;
            rising.retain(|i| {
                let wanted = level * demands[*i].rate as f64 / 1000.0;
                if wanted <= x[*i] {
                    return true;
                }
                let before = x[*i];
                x[*i] = wanted.min(top(*i));
                if !fits(&x) {
                    x[*i] = before;
                    return false;
                }
                x[*i] < top(*i)
            });
        }
    }
    x.iter().map(|v| *v as i64).collect()
}

proptest! {
    /// Nothing is ever exceeded; everybody gets 0 or what the device can do.
    #[test]
    fn bounds_are_kept((demands, rows) in cases()) {
        let presses = |keeps| Turn::Presses { phases: 1, spare: (0, 0), keeps };
        let turns = [Turn::Usual, presses(false), Turn::Yields, Turn::Keeps, presses(true)];
        let some = |(i, d): (usize, &Demand)| Demand { turn: turns[i % 5], ..*d };
        let demands: Vec<_> = demands.iter().enumerate().map(some).collect();
        let out = given(&demands, &rows);
        for (weights, room) in &rows {
            let sum: i128 = out.iter().zip(weights).map(|(a, w)| i128::from(a.value) * i128::from(*w)).sum();
            prop_assert!(sum <= (*room).max(0));
        }
        for (a, d) in out.iter().zip(&demands) {
            prop_assert!(a.value == 0 || (a.value >= d.least && a.value <= d.most));
            prop_assert_eq!(a.value % d.step, 0);
        }
    }

    /// The same as raising everybody little by little, within rounding to steps.
    #[test]
    fn shares_are_those_of_slow_filling((demands, rows) in cases()) {
        let out = given(&demands, &rows);
        let slow = naively(&demands, &rows);
        for (i, (a, s)) in out.iter().zip(&slow).enumerate() {
            // One step of its own, and the steps of the others that share a constraint with it.
            let tolerance = 13 * 1000 + 200;
            prop_assert!((a.value - s).abs() <= tolerance, "{i}: {} and {s}: {out:?} {slow:?}", a.value);
            prop_assert_eq!(a.value == 0, *s == 0);
        }
    }

    /// Nobody who could have one step more by itself is left below it: no room is wasted on the admitted.
    #[test]
    fn admitted_ones_cannot_all_be_left_short((demands, rows) in cases()) {
        let out = given(&demands, &rows);
        for (i, (a, d)) in out.iter().zip(&demands).enumerate() {
            if a.value == 0 {
                continue;
            }
            // Some steps may be lost to rounding of the others.
            let more = 2 * d.step.max(demands.iter().map(|d| d.step).max().unwrap_or(0)) * 12;
            let fits = a.value + more <= d.most && rows.iter().all(|(weights, room)| {
                let sum: i128 =
                    out.iter().zip(weights).map(|(a, w)| i128::from(a.value) * i128::from(*w)).sum();
                weights[i] == 0 || sum + i128::from(more) * i128::from(weights[i]) <= *room
            });
            prop_assert!(!fits, "{i} stays at {} although there is room", a.value);
        }
    }

    /// A smaller room never gives more in sum under a single common constraint.
    #[test]
    fn less_room_never_gives_more(
        n in 1_usize..12, most in prop::collection::vec(0_i64..40_000, 12), room in 0_i128..200_000,
        less in 0_i128..200_000,
    ) {
        let demands: Vec<_> = most[..n].iter().map(|m| demand(*m)).collect();
        let total = |room| -> i64 { values(&given(&demands, &[(vec![1; n], room)])).iter().sum() };
        prop_assert!(total(room.min(less)) <= total(room.max(less)));
    }
}
