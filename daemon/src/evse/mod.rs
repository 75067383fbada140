//! Grants → setpoints on their way: what goes out now, as a change or as a renewal.
//!
//! In: what the plan grants an EVSE and what it may be obeying. Out: the next [`Setpoint`], if one is due. Invariant: a
//! change goes out at once, a renewal at half the lease, a refused one again after a pause; nothing goes to an EVSE
//! that is not connected. Pure, but for [`driver`]: wallboxes on buses. How a setpoint becomes a charging profile is
//! `ocpp`'s.

pub mod driver;

use std::time::Duration;

use crate::{
    plan::{Grant, Setpoint},
    site::facts::EvseFacts,
    time::Mono,
    units::Milliamps,
};

/// Pause before a refused setpoint is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The setpoint that is due now.
#[must_use]
pub fn due(facts: &EvseFacts, grant: &Grant, lease: Duration, last: u64, now: Mono) -> Option<Setpoint> {
    facts.connected?;
    let changed = facts.leash.newest().is_none_or(|s| {
        s.limit != grant.limit || s.failsafe != grant.failsafe || s.one_phase != grant.one_phase
    });
    let renew = facts.leash.renew_at().is_none_or(|at| now >= at);
    let forgotten = !facts.leash.settled() && !facts.leash.waiting();
    let pause = facts.leash.refused_at().is_some_and(|at| now.since(at) < RETRY);
    let lower = facts.leash.newest().is_some_and(|s| grant.limit < s.limit);
    if !(changed || renew || forgotten) || (pause && !lower) {
        return None;
    }
    Some(Setpoint {
        sequence: last + 1,
        limit: grant.limit.max(Milliamps::ZERO),
        failsafe: grant.failsafe,
        lease,
        one_phase: grant.one_phase,
        reason: grant.reason.clone(),
    })
}

/// Below this a contactor opens without load.
const NO_LOAD: Milliamps = Milliamps(1_000);
/// After so long at 0 A a vehicle has let go (IEC 61851-1 Annex A: 5 s, and then its own switch).
const LETS_GO: Duration = Duration::from_secs(10);
/// How old a measurement may be to prove that nothing flows.
const MEASURED: Duration = Duration::from_secs(5);

/// Whether the contactor before an EVSE shall be closed: while it is granted something, and then until nothing flows.
#[must_use]
pub fn contactor(facts: &EvseFacts, granted: Milliamps, closed: bool, now: Mono) -> bool {
    if granted > Milliamps::ZERO {
        return true;
    }
    if !closed || !facts.vehicle_possible() {
        return false;
    }
    let idle = facts.draw.is_some_and(|draw| {
        now.since(draw.at.mono) <= MEASURED
            && draw.currents.is_some_and(|currents| currents.iter().all(|i| *i < NO_LOAD))
    });
    let told = facts.leash.newest().is_some_and(|s| s.limit == Milliamps::ZERO);
    let let_go = facts.leash.last_change().is_some_and(|(at, _)| now.since(at) >= LETS_GO);
    !(idle || (told && let_go))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Now, Wall};

    const LEASE: Duration = Duration::from_secs(60);
    const MOST: Milliamps = Milliamps::amps(32);

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    fn grant(amps: i64) -> Grant {
        Grant {
            limit: Milliamps::amps(amps),
            failsafe: Milliamps::amps(6),
            one_phase: false,
            reason: String::new(),
            room_since: None,
        }
    }

    fn connected() -> EvseFacts {
        let mut facts =
            EvseFacts { connected: Some(Now { mono: at(0), wall: Wall(0) }), ..EvseFacts::default() };
        facts.leash.rebooted(at(0));
        facts
    }

    #[test]
    fn a_change_goes_out_at_once_and_a_renewal_at_half_the_lease() {
        let mut facts = connected();
        let first = due(&facts, &grant(16), LEASE, 0, at(0)).unwrap();
        assert_eq!(first.sequence, 1);
        facts.leash.sent(first, at(0), MOST);
        assert_eq!(due(&facts, &grant(16), LEASE, 1, at(0)), None, "one answer at a time");
        facts.leash.confirmed(1, at(60), at(0));
        assert_eq!(due(&facts, &grant(16), LEASE, 1, at(29)), None);
        assert!(due(&facts, &grant(16), LEASE, 1, at(30)).is_some());
        assert!(due(&facts, &grant(10), LEASE, 1, at(1)).is_some());
    }

    #[test]
    fn a_refusal_is_not_answered_with_a_storm() {
        let mut facts = connected();
        facts.leash.sent(due(&facts, &grant(16), LEASE, 0, at(0)).unwrap(), at(0), MOST);
        facts.leash.refused(1, at(1));
        assert_eq!(due(&facts, &grant(16), LEASE, 1, at(2)), None);
        assert!(due(&facts, &grant(16), LEASE, 1, at(11)).is_some());
    }

    #[test]
    fn nothing_goes_to_an_absent_evse() {
        assert_eq!(due(&EvseFacts::default(), &grant(16), LEASE, 0, at(0)), None);
    }

    #[test]
    fn after_a_reboot_the_same_value_is_sent_again() {
        let mut facts = connected();
        facts.leash.sent(due(&facts, &grant(16), LEASE, 0, at(0)).unwrap(), at(0), MOST);
        facts.leash.confirmed(1, at(60), at(0));
        facts.leash.rebooted(at(5));
        assert!(due(&facts, &grant(16), LEASE, 1, at(5)).is_some());
    }

    #[test]
    fn a_contactor_opens_without_load() {
        use crate::site::event::{ConnectorStatus, Draw};
        let mut facts = connected();
        facts.status = ConnectorStatus::Charging;
        assert!(contactor(&facts, Milliamps::amps(16), false, at(0)));
        facts.leash.sent(due(&facts, &grant(0), LEASE, 0, at(0)).unwrap(), at(0), MOST);
        let drawing = |amps: i64, s: u64| Draw {
            at: Now { mono: at(s), wall: Wall(0) },
            currents: Some([Milliamps::amps(amps); 3]),
            power: None,
            energy: None,
        };
        facts.draw = Some(drawing(16, 1));
        assert!(contactor(&facts, Milliamps::ZERO, true, at(2)), "opened under load");
        assert!(!contactor(&facts, Milliamps::ZERO, false, at(2)), "closed without need");
        facts.draw = Some(drawing(0, 3));
        assert!(!contactor(&facts, Milliamps::ZERO, true, at(3)));
        facts.draw = None;
        assert!(contactor(&facts, Milliamps::ZERO, true, at(9)));
        assert!(!contactor(&facts, Milliamps::ZERO, true, at(10)));
        facts.status = ConnectorStatus::Available;
        facts.draw = Some(drawing(16, 1));
        assert!(!contactor(&facts, Milliamps::ZERO, true, at(2)));
    }
}
