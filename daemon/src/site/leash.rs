//! What an EVSE may be obeying at an instant: the setpoints that were sent and not yet replaced by a confirmation.
//!
//! ```text
//!            sent                 confirmed
//! unknown ─────────→ pending ─────────────────→ held ──lease over──→ failsafe
//!    ↑                  │ refused                │
//!    └──────────────────┴────── rebooted ────────┘
//! ```
//!
//! In: setpoints sent, confirmations, refusals, reboots. Out: the bound [`Leash::in_force`]. Invariant: the bound is
//! never below what the EVSE may lawfully draw: a lower value counts once it is confirmed, a higher one as soon as
//! it is sent.

use std::time::Duration;

use crate::{plan::Setpoint, time::Mono, units::Milliamps};

/// How long a sent setpoint may stay unanswered before the EVSE counts as not following.
const ANSWER: Duration = Duration::from_secs(15);

/// How long a car may take to follow a change (IEC 61851-1 Annex A: 5 s).
const FOLLOW: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
struct Sent {
    setpoint: Setpoint,
    at: Mono,
}

/// The setpoints of one EVSE.
#[derive(Debug, Clone, Default)]
pub struct Leash {
    /// Sent and not yet answered, oldest first.
    pending: Vec<Sent>,
    /// The last confirmed one and the end of its lease.
    held: Option<(Setpoint, Mono)>,
    /// Whether nothing is known of what it obeys, since when.
    unknown_since: Option<Mono>,
    /// The last refusal, with its time.
    refused: Option<Mono>,
    /// When the value last changed on its side, as far as is known.
    changed: Option<Mono>,
    /// The bound before the last changes, as far as the car may not have followed them.
    before: Milliamps,
}

impl Leash {
    /// A setpoint leaves for the EVSE.
    pub fn sent(&mut self, setpoint: Setpoint, now: Mono, most: Milliamps) {
        let same = self.newest().is_some_and(|s| s.limit == setpoint.limit);
        if !same {
            let still =
                self.changed.filter(|at| now.since(*at) < FOLLOW).map_or(Milliamps::ZERO, |_| self.before);
            self.before = self.in_force(now, most).max(still);
            self.changed = Some(now);
        }
        // Renewals of the same value need no bound of their own.
        self.pending
            .retain(|p| p.setpoint.limit != setpoint.limit || p.setpoint.failsafe != setpoint.failsafe);
        self.pending.push(Sent { setpoint, at: now });
    }

    /// The EVSE took a setpoint. Later ones stay pending.
    pub fn confirmed(&mut self, sequence: u64, lease_until: Mono, now: Mono) {
        let Some(at) = self.pending.iter().position(|p| p.setpoint.sequence == sequence) else {
            if let Some((held, until)) = &mut self.held
                && held.sequence == sequence
            {
                *until = lease_until;
            }
            return;
        };
        let sent = self.pending.remove(at);
        self.pending.retain(|p| p.setpoint.sequence > sequence);
        if self.held.as_ref().is_none_or(|(held, _)| held.limit != sent.setpoint.limit) {
            self.changed = Some(now);
        }
        self.held = Some((sent.setpoint, lease_until));
        self.unknown_since = None;
        self.refused = None;
    }

    /// The EVSE refused a setpoint: what it held before still holds.
    pub fn refused(&mut self, sequence: u64, now: Mono) {
        self.pending.retain(|p| p.setpoint.sequence != sequence);
        self.refused = Some(now);
        if self.held.is_none() && self.unknown_since.is_none() {
            self.unknown_since = Some(now);
        }
    }

    /// The EVSE came back from a restart: it may have forgotten everything.
    pub fn rebooted(&mut self, now: Mono) {
        self.held = None;
        self.unknown_since = Some(now);
    }

    /// The most that the EVSE may be drawing per phase; `most` is its rated current.
    #[must_use]
    pub fn in_force(&self, now: Mono, most: Milliamps) -> Milliamps {
        let pending = self.pending.iter().map(|p| p.bound(now));
        let known = match (&self.held, self.unknown_since) {
            (_, Some(_)) => Some(most),
            (Some((setpoint, until)), None) => {
                Some(if now < *until { setpoint.limit } else { setpoint.failsafe })
            }
            (None, None) => None,
        };
        pending.chain(known).max().unwrap_or(Milliamps::ZERO).min(most)
    }

    /// Whether nothing was ever sent to it or heard from it.
    #[must_use]
    pub fn untouched(&self) -> bool {
        self.pending.is_empty() && self.held.is_none() && self.unknown_since.is_none()
    }

    /// Whether it does not do what it is told: it refused, or has not answered in time.
    #[must_use]
    pub fn adrift(&self, now: Mono) -> bool {
        self.refused.is_some() || self.pending.iter().any(|p| now.since(p.at) > ANSWER)
    }

    /// The setpoint last sent, confirmed or not.
    #[must_use]
    pub fn newest(&self) -> Option<&Setpoint> {
        self.pending.last().map(|p| &p.setpoint).or(self.held.as_ref().map(|(s, _)| s))
    }

    /// Whether the newest value is confirmed.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.pending.is_empty() && self.held.is_some() && self.unknown_since.is_none()
    }

    /// Whether a setpoint waits for its answer.
    #[must_use]
    pub fn waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// When the last setpoint was refused; `None` once one is taken.
    #[must_use]
    pub fn refused_at(&self) -> Option<Mono> {
        self.refused
    }

    /// End of the confirmed lease.
    #[must_use]
    pub fn lease_until(&self) -> Option<Mono> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    /// When its value last changed, and the bound that held before.
    #[must_use]
    pub fn last_change(&self) -> Option<(Mono, Milliamps)> {
        self.changed.map(|at| (at, self.before))
    }

    /// When the newest setpoint should be renewed: at half of its lease.
    #[must_use]
    pub fn renew_at(&self) -> Option<Mono> {
        if let Some(p) = self.pending.last() {
            return Some(p.at + p.setpoint.lease / 2);
        }
        self.held.as_ref().map(|(s, until)| Mono(until.0.saturating_sub(s.lease / 2)))
    }
}

impl Sent {
    /// What this setpoint alone allows. The EVSE may have got it a little after it was sent.
    fn bound(&self, now: Mono) -> Milliamps {
        let over = now >= self.at + self.setpoint.lease + ANSWER;
        if over { self.setpoint.failsafe } else { self.setpoint.limit.max(self.setpoint.failsafe) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Milliamps = Milliamps::amps(32);

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    fn setpoint(sequence: u64, amps: i64) -> Setpoint {
        Setpoint {
            sequence,
            limit: Milliamps::amps(amps),
            failsafe: Milliamps::amps(6).min(Milliamps::amps(amps)),
            lease: Duration::from_secs(60),
            one_phase: false,
            reason: String::new(),
        }
    }

    #[test]
    fn lower_counts_when_confirmed_and_higher_when_sent() {
        let mut leash = Leash::default();
        leash.sent(setpoint(1, 16), at(0), MOST);
        leash.confirmed(1, at(60), at(0));
        leash.sent(setpoint(2, 10), at(5), MOST);
        assert_eq!(leash.in_force(at(5), MOST), Milliamps::amps(16));
        leash.confirmed(2, at(66), at(6));
        assert_eq!(leash.in_force(at(6), MOST), Milliamps::amps(10));
        leash.sent(setpoint(3, 20), at(7), MOST);
        assert_eq!(leash.in_force(at(7), MOST), Milliamps::amps(20));
        leash.refused(3, at(8));
        assert_eq!(leash.in_force(at(8), MOST), Milliamps::amps(10));
        assert!(leash.adrift(at(8)));
    }

    #[test]
    fn a_lease_that_runs_out_leaves_the_failsafe_value() {
        let mut leash = Leash::default();
        leash.sent(setpoint(1, 16), at(0), MOST);
        leash.confirmed(1, at(60), at(0));
        assert_eq!(leash.in_force(at(59), MOST), Milliamps::amps(16));
        assert_eq!(leash.in_force(at(60), MOST), Milliamps::amps(6));
    }

    #[test]
    fn after_a_reboot_everything_is_possible_until_confirmed() {
        let mut leash = Leash::default();
        leash.sent(setpoint(1, 0), at(0), MOST);
        leash.confirmed(1, at(60), at(0));
        leash.rebooted(at(1));
        assert_eq!(leash.in_force(at(1), MOST), MOST);
        leash.sent(setpoint(2, 0), at(1), MOST);
        assert_eq!(leash.in_force(at(1), MOST), MOST);
        leash.confirmed(2, at(61), at(1));
        assert_eq!(leash.in_force(at(1), MOST), Milliamps::ZERO);
    }

    #[test]
    fn an_older_confirmation_does_not_hide_a_newer_setpoint() {
        let mut leash = Leash::default();
        leash.sent(setpoint(1, 10), at(0), MOST);
        leash.sent(setpoint(2, 20), at(0), MOST);
        leash.confirmed(1, at(60), at(0));
        assert_eq!(leash.in_force(at(0), MOST), Milliamps::amps(20));
        assert!(!leash.settled());
        leash.confirmed(2, at(60), at(0));
        assert!(leash.settled());
        assert_eq!(leash.in_force(at(0), MOST), Milliamps::amps(20));
    }
}
