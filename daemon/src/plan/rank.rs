//! Who goes first when not everybody fits with the least it can run with.
//!
//! In: how long an EVSE has been served or has waited, its deadline. Out: a rank within its class, lower first.
//! Invariant: a turn that has begun lasts its least time; then who waited longest goes first, so that all get equal
//! turns. A deadline that can only just be met goes before those that have time.

use std::time::Duration;

use crate::{
    config,
    policy::{Deadline, Want},
    site::facts::EvseFacts,
    time::{Mono, Now},
    units::Watts,
};

/// A turn lasts at least this long: cars need time to start, and do not like to be paused often.
const LEAST_TURN: Duration = Duration::from_secs(30);
/// With less time to spare than this, a deadline presses.
const PRESSES: Duration = Duration::from_secs(1800);
/// Less of a difference in time to spare decides nothing: who waits loses it while who is served does not, so they
/// would take turns every second, and each turn costs the time that the next car needs to follow.
const ALIKE: i64 = 1_800_000;

const BAND: u64 = 1 << 60;

/// Its rank: its turn lasts (longest running first), presses (least time to spare first), has waited for a turn
/// (longest first), its turn is over (longest last), waits since a moment ago, takes nothing.
pub(super) fn rank(
    facts: &EvseFacts,
    want: Want,
    deadline: Option<Deadline>,
    most: Watts,
    control: &config::Control,
    now: Now,
) -> u64 {
    let ms = |at: Mono| u64::try_from(at.0.as_millis()).unwrap_or(BAND - 1).min(BAND - 1);
    let turn = control.min_on.max(LEAST_TURN);
    if want == Want::Least {
        return 5 * BAND;
    }
    if let Some(since) = facts.on_since.filter(|_| keeps(facts, control, now.mono)) {
        return ms(since);
    }
    if let Some(spare) = deadline.and_then(|d| spare(d, most, now))
        && spare < i64::try_from(PRESSES.as_millis()).unwrap_or(i64::MAX)
    {
        let offset = spare.saturating_add(1 << 40).clamp(0, (1 << 41) - 1);
        return BAND + u64::try_from(offset).unwrap_or(0);
    }
    match (facts.on_since, facts.on_until) {
        (Some(since), _) => 3 * BAND + (BAND - 1 - ms(since)),
        (None, Some(until)) if now.mono.since(until) < turn => 4 * BAND + ms(until),
        (None, Some(until)) => 2 * BAND + ms(until),
        (None, None) => 2 * BAND,
    }
}

/// Whether its turn has begun a moment ago and lasts.
pub(super) fn keeps(facts: &EvseFacts, control: &config::Control, now: Mono) -> bool {
    facts.on_since.is_some_and(|since| now.since(since) < control.min_on.max(LEAST_TURN))
}

/// How little time a deadline leaves, in steps of [`ALIKE`], and when it is; `None` while there is enough.
pub(super) fn presses(deadline: Option<Deadline>, most: Watts, now: Now) -> Option<(i64, i64)> {
    let deadline = deadline?;
    let spare = spare(deadline, most, now)?;
    let presses = spare < i64::try_from(PRESSES.as_millis()).unwrap_or(i64::MAX);
    presses.then(|| (spare.div_euclid(ALIKE), deadline.at.0))
}

/// Milliseconds to spare if it charged with all it can from now on; negative when it will be late. `None` when
/// nothing is missing or the time is over.
fn spare(deadline: Deadline, most: Watts, now: Now) -> Option<i64> {
    let left = deadline.at.0.saturating_sub(now.wall.0);
    if left <= 0 || deadline.missing.0 <= 0 || most.0 <= 0 {
        return None;
    }
    let needs = i128::from(deadline.missing.0) * 3_600_000 / i128::from(most.0);
    Some(left.saturating_sub(i64::try_from(needs).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{time::Wall, units::WattHours};

    const NOW: Now = Now { mono: Mono(Duration::from_secs(10_000)), wall: Wall(0) };

    fn control() -> config::Control {
        let s = Duration::from_secs;
        config::Control {
            lease: s(60),
            raise_dwell: s(10),
            settle: s(5),
            min_on: s(600),
            min_off: s(30),
            ramp: crate::units::Milliamps::amps(16),
            follow_after: s(60),
            probe_every: s(300),
            wake_every: s(1800),
            meter_stale: s(5),
            meter_lost: s(30),
        }
    }

    fn of(on_since: Option<u64>, on_until: Option<u64>, deadline: Option<Deadline>) -> u64 {
        let at = |s: u64| Mono(Duration::from_secs(s));
        let facts =
            EvseFacts { on_since: on_since.map(at), on_until: on_until.map(at), ..EvseFacts::default() };
        rank(&facts, Want::All, deadline, Watts(11_000), &control(), NOW)
    }

    #[test]
    fn turns_last_then_who_waited_longest_goes_first() {
        let due =
            |h: i64, kwh: i64| Some(Deadline { at: Wall(h * 3_600_000), missing: WattHours(kwh * 1000) });
        let order = [
            of(Some(9_500), None, None),
            of(Some(9_900), None, None),
            of(None, Some(9_990), due(1, 20)),
            of(None, None, due(2, 20)),
            of(None, None, None),
            of(None, Some(100), None),
            of(None, Some(5_000), due(10, 20)),
            of(Some(9_000), Some(5), None),
            of(Some(1_000), None, None),
            of(None, Some(9_800), None),
        ];
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
    }
}
