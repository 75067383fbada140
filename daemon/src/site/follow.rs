//! A car that draws less than it is offered leaves the rest to the others, and is asked again from time to time.
//!
//! ```text
//! free ──draws less for `follow_after`──→ held at what it uses ──draws up to that bound──→ free
//!   ↑                                          │
//!   └────────────── `probe_every` ─────────────┘
//! ```
//!
//! In: what it draws, by a measurement that shows the present offer; the offer; the time. Out: what it was seen to
//! use. Invariant: the margin above what it draws is large enough to show when it wants more.

use crate::{config, time::Mono, units::Milliamps};

/// Above what it draws: a car that wants more shows it within this margin.
const MARGIN: Milliamps = Milliamps::amps(2);
/// This close to its bound it wants more.
const CLOSE: Milliamps = Milliamps::amps(1);

/// The state of one EVSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Follow {
    slack_since: Option<Mono>,
    held: Option<(Milliamps, Mono)>,
}

impl Follow {
    /// What it was seen to use, margin included; `None` while it uses what it gets.
    #[must_use]
    pub fn used(&self) -> Option<Milliamps> {
        self.held.map(|(used, _)| used)
    }

    /// A measurement under the present offer; `None` when there is none that shows it.
    pub fn look(
        &mut self,
        drawn: Option<Milliamps>,
        offered: Milliamps,
        control: &config::Control,
        now: Mono,
    ) {
        let Some(drawn) = drawn else {
            self.slack_since = None;
            return;
        };
        if let Some((used, since)) = self.held {
            if drawn + CLOSE >= used.min(offered) {
                *self = Self::default();
            } else if now.since(since) >= control.probe_every {
                *self = Self { slack_since: Some(now), held: None };
            }
            return;
        }
        if drawn + MARGIN >= offered {
            self.slack_since = None;
            return;
        }
        let since = *self.slack_since.get_or_insert(now);
        if now.since(since) >= control.follow_after {
            self.held = Some((drawn + MARGIN, now));
        }
    }

    /// Another car, or none.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}
