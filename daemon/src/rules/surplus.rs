//! Charging from surplus, with hysteresis, on one phase or three.
//!
//! ```text
//!        enough for start_after            three suit for switch_after
//!  off ──────────────────────▶ on(1) ◀──────────────────────────────────▶ on(3)
//!   ▲                            │        by a pause, until no current      │
//!   └── too little for stop_after┴──────────────flows, as measured──────────┘
//! ```
//!
//! Switching under load would wear contactors and upset cars: the cap is 0 A until a measurement shows no current, and
//! the other number of phases counts as reached when measured currents show it. Until then the plan counts all phases.
//! An EVSE that refuses one phase, or goes on with more for [`DISOBEYS`], is not told again until another car comes.

use std::time::Duration;

use super::Surplus;
use crate::{
    site::{Site, event::ConnectorStatus},
    time::{Mono, Now},
    units::{Milliamps, Phase, Watts},
};

/// How many phases an EVSE is told to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phases {
    /// As many as it has.
    #[default]
    All,
    /// One.
    One,
}

/// What is remembered of charging from surplus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sun {
    /// Charging from it since.
    pub on: Option<Mono>,
    /// Enough for the least current, or too little, without a break since.
    since: Option<(bool, Mono)>,
    /// What it is told.
    pub phases: Phases,
    /// The other number would suit better since.
    other_since: Option<Mono>,
    /// Switching since: nothing flows until it is measured that nothing flows.
    pub switching: Option<(Phases, Mono)>,
    /// Told to use one phase since.
    one_since: Option<Mono>,
    /// Seen to use more since, although told.
    more_since: Option<Mono>,
    /// It does not do as told.
    pub stuck: bool,
}

/// Below it no current flows.
const IDLE: Milliamps = Milliamps(500);
/// From here on a conductor carries current.
const FLOWING: Milliamps = Milliamps(3_000);
/// How long more than one phase may carry current after one was told.
const DISOBEYS: Duration = Duration::from_secs(60);

/// Shares the surplus among those who charge from it. Gives the new state, the cap and the reason of each.
pub(super) fn share(
    site: &Site,
    wanted: &[Option<Surplus>],
    now: Now,
) -> Vec<Option<(Sun, Milliamps, String)>> {
    let mut result: Vec<Option<(Sun, Milliamps, String)>> = vec![None; wanted.len()];
    let mut order: Vec<usize> = (0..wanted.len()).filter(|e| wanted[*e].is_some()).collect();
    // Those who charge already first, the longest first.
    order.sort_by_key(|e| (site.rules[*e].sun.on.is_none(), site.rules[*e].sun.on, *e));
    let mut left = site.surplus(now);
    for e in order {
        let Some(how) = wanted[e] else { continue };
        let mine = left.map(|left| left - how.reserve);
        let plugged = site.evses[e].connected.is_some()
            && (site.evses[e].transaction.is_some()
                || matches!(
                    site.evses[e].status,
                    ConnectorStatus::Preparing
                        | ConnectorStatus::Charging
                        | ConnectorStatus::SuspendedEvse
                        | ConnectorStatus::SuspendedEv
                ));
        if !plugged {
            result[e] =
                Some((Sun::default(), Milliamps::ZERO, "no vehicle to charge from surplus".to_owned()));
            continue;
        }
        let (sun, cap, why) = step(site, e, how, mine, now);
        if let Some(left) = &mut left {
            *left -= power(site, e, sun.phases, cap, now);
        }
        result[e] = Some((sun, cap, why));
    }
    result
}

/// Power of a current on the phases that are used.
fn power(site: &Site, e: usize, phases: Phases, current: Milliamps, now: Now) -> Watts {
    let voltages = site.voltages(now.mono);
    let wired = Phase::ALL.into_iter().filter(|p| site.config.evses[e].wiring.uses(*p));
    let observed = site.evses[e].phases(&site.config.evses[e]);
    match phases {
        Phases::One => wired.take(1).map(|p| voltages[p].power_ceil(current)).sum(),
        Phases::All => wired.filter(|p| observed[*p]).map(|p| voltages[p].power_ceil(current)).sum(),
    }
}

fn step(site: &Site, e: usize, how: Surplus, mine: Option<Watts>, now: Now) -> (Sun, Milliamps, String) {
    let config = &site.config.evses[e];
    let mut sun = site.rules[e].sun;
    let Some(mine) = mine else {
        return (Sun::default(), Milliamps::ZERO, "the surplus is not known: the meter is silent".to_owned());
    };
    look(site, e, &mut sun, now);
    let can_switch = how.switch_phases && config.wiring.count() == 3 && !sun.stuck;
    if !can_switch {
        sun.phases = Phases::All;
        sun.switching = None;
    } else if sun.on.is_none() && sun.switching.is_none() && sun.since.is_none() {
        // Begins with what suits.
        sun.phases =
            if mine >= power(site, e, Phases::All, config.min, now) { Phases::All } else { Phases::One };
    }
    if let Some((to, since)) = sun.switching {
        // Only a measurement from after the pause began says that nothing flows.
        let still =
            site.evses[e].draw_phases(config).is_some_and(|phases| phases.iter().all(|(_, i)| *i <= IDLE))
                && site.evses[e].draw.is_some_and(|draw| draw.at.mono > since);
        if !still {
            return (sun, Milliamps::ZERO, format!("pauses to switch to {}", words(to)));
        }
        sun.switching = None;
        sun.phases = to;
        sun.other_since = None;
    }
    sun.one_since = match (sun.phases, sun.one_since) {
        (Phases::One, None) => Some(now.mono),
        (Phases::One, since) => since,
        (Phases::All, _) => None,
    };
    let least = power(site, e, sun.phases, config.min, now);
    let enough = mine >= least;
    let since = match sun.since {
        Some((before, since)) if before == enough => since,
        _ => now.mono,
    };
    sun.since = Some((enough, since));
    let lasted = now.mono.since(since);
    match (sun.on, enough) {
        (None, true) if lasted >= how.start_after => sun.on = Some(now.mono),
        (Some(_), false) if lasted >= how.stop_after && !would_switch(can_switch, sun.phases) => {
            sun.on = None;
            return (
                sun,
                Milliamps::ZERO,
                format!("surplus of {mine} is less than {least} for the least current"),
            );
        }
        _ => {}
    }
    if sun.on.is_none() {
        let why = if enough {
            format!("surplus of {mine} must last {} s", how.start_after.as_secs())
        } else {
            format!("surplus of {mine} is less than {least} for the least current")
        };
        return (sun, Milliamps::ZERO, why);
    }
    if can_switch {
        let all = power(site, e, Phases::All, config.min, now);
        let better = if mine >= all { Phases::All } else { Phases::One };
        if better == sun.phases {
            sun.other_since = None;
        } else {
            let since = *sun.other_since.get_or_insert(now.mono);
            if now.mono.since(since) >= how.switch_after {
                sun.switching = Some((better, now.mono));
                sun.other_since = None;
                return (sun, Milliamps::ZERO, format!("pauses to switch to {}", words(better)));
            }
        }
    }
    // What one ampere costs, so that nothing is taken from the grid.
    let one = power(site, e, sun.phases, Milliamps::amps(1), now).0.max(1);
    let cap = Milliamps((mine.0.max(0) * 1000 / one).clamp(config.min.0, config.max.0));
    let note = if sun.stuck { "; it does not switch to one phase" } else { unconfirmed(site, e, sun.phases) };
    (sun, cap, format!("surplus of {mine} on {}{note}", words(sun.phases)))
}

/// Whether an EVSE that was told to use one phase does it.
fn look(site: &Site, e: usize, sun: &mut Sun, now: Now) {
    let Some(since) = sun.one_since.filter(|_| sun.phases == Phases::One) else {
        sun.more_since = None;
        return;
    };
    let facts = &site.evses[e];
    let after = since + site.config.control.settle;
    let more = facts.draw.is_some_and(|draw| draw.at.mono >= after)
        && facts
            .draw_phases(&site.config.evses[e])
            .is_some_and(|phases| phases.iter().filter(|(_, i)| **i >= FLOWING).count() > 1);
    if more {
        let since = *sun.more_since.get_or_insert(now.mono);
        sun.stuck |= now.mono.since(since) >= DISOBEYS;
    } else {
        sun.more_since = None;
    }
    let told = site.config.evses[e].ocpp.one_phase && facts.leash.newest().is_none_or(|s| s.one_phase);
    sun.stuck |= told && facts.leash.refused_at().is_some_and(|at| at >= since);
}

/// Three phases that should become one are not stopped meanwhile: the switch comes first.
fn would_switch(can_switch: bool, phases: Phases) -> bool {
    can_switch && phases == Phases::All
}

fn words(phases: Phases) -> &'static str {
    match phases {
        Phases::All => "all phases",
        Phases::One => "one phase",
    }
}

/// Whether measured currents show what was told.
fn unconfirmed(site: &Site, e: usize, phases: Phases) -> &'static str {
    let flowing = site.evses[e]
        .draw_phases(&site.config.evses[e])
        .map_or(0, |phases| phases.iter().filter(|(_, i)| **i > IDLE).count());
    if phases == Phases::One && flowing > 1 { "; currents still show more" } else { "" }
}
