//! Whether a source of limits from afar is still there, and what holds while it is not. The states and times are those
//! of the EEBUS use case LPC (Limitation of Power Consumption), for every source, whatever way it comes.
//!
//! ```text
//!          heartbeat + write                     write ends / lapses
//!   init ───────────────────→ limited ←──────────────────────────────→ unlimited/controlled
//!    │                           │ silent for `timeout`                        │
//!    │ `START` without both      └──────────────→ failsafe ←──────────────────┘
//!    ↓                                             │  │ heartbeat + write → limited, or unlimited/controlled
//!  unlimited/autonomous ←── heartbeat, no write ───┘  │
//!  (or failsafe, if it    ←── `failsafe_for` over ────┘ (only where the site may go its own way)
//!  may not go its own way)
//! ```
//!
//! In: heartbeats, writes, the time. Out: the state, and the failsafe value while it holds. Invariant: time is
//! monotonic; a heartbeat alone never ends failsafe at once, and a write without a heartbeat never does.

use std::time::Duration;

use crate::{config::GridSource, time::Mono, units::Watts};

/// How long the first heartbeat and write may take after a start, and the first write after a heartbeat that came back.
pub const START: Duration = Duration::from_secs(120);

/// Where a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not heard yet since the start: the failsafe value holds.
    Init,
    /// Heard, and it does not limit.
    UnlimitedControlled,
    /// Heard, and it limits.
    Limited,
    /// Silent: the failsafe value holds.
    Failsafe,
    /// Silent for so long that the site goes its own way.
    UnlimitedAutonomous,
}

impl State {
    /// As the journal writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::UnlimitedControlled => "unlimited/controlled",
            Self::Limited => "limited",
            Self::Failsafe => "failsafe",
            Self::UnlimitedAutonomous => "unlimited/autonomous",
        }
    }
}

/// What was heard of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A sign of life.
    Heartbeat,
    /// It set a limit.
    Limit,
    /// It ended its limit, or said that there is none.
    NoLimit,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    state: State,
    since: Mono,
    /// Last heartbeat.
    heard: Option<Mono>,
    /// First heartbeat after a silence.
    back: Option<Mono>,
    timeout: Duration,
    /// Power while it is gone.
    failsafe: Watts,
    /// Least time in failsafe.
    failsafe_for: Duration,
    autonomous: bool,
}

impl Guard {
    /// A source after a start.
    #[must_use]
    pub fn new(config: &GridSource, now: Mono) -> Self {
        Self {
            state: State::Init,
            since: now,
            heard: None,
            back: None,
            timeout: config.timeout,
            failsafe: config.failsafe,
            failsafe_for: config.failsafe_for,
            autonomous: config.autonomous,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Mono {
        self.since
    }

    /// Its last heartbeat.
    #[must_use]
    pub fn heard_at(&self) -> Option<Mono> {
        self.heard
    }

    /// The failsafe value and its least time.
    #[must_use]
    pub fn failsafe(&self) -> (Watts, Duration) {
        (self.failsafe, self.failsafe_for)
    }

    /// The source chose another failsafe value.
    pub fn set_failsafe(&mut self, watts: Watts, lasting: Duration) {
        (self.failsafe, self.failsafe_for) = (watts, lasting);
    }

    /// The power that holds in its absence, if it is absent.
    #[must_use]
    pub fn cap(&self) -> Option<Watts> {
        matches!(self.state, State::Init | State::Failsafe).then_some(self.failsafe)
    }

    /// Takes in what was heard. `true` if the state changed.
    pub fn hear(&mut self, heard: Heard, now: Mono) -> bool {
        let controlled = matches!(self.state, State::Limited | State::UnlimitedControlled);
        let next = match heard {
            Heard::Heartbeat => {
                if !controlled && !self.alive(now) {
                    self.back = Some(now);
                }
                self.heard = Some(now);
                return false;
            }
            // A write by somebody who is not alive limits all the same; only the state does not follow.
            _ if !controlled && !self.alive(now) => return false,
            Heard::Limit => State::Limited,
            Heard::NoLimit => State::UnlimitedControlled,
        };
        self.enter(next, now)
    }

    /// Looks at what only time changes; `limits`: whether a limit of its own is in force. `true` if the state changed.
    pub fn tick(&mut self, limits: bool, now: Mono) -> bool {
        let alive = self.alive(now);
        match self.state {
            State::Limited | State::UnlimitedControlled if !alive => self.enter(State::Failsafe, now),
            State::Limited if !limits => self.enter(State::UnlimitedControlled, now),
            State::UnlimitedControlled if limits => self.enter(State::Limited, now),
            State::Init if now.since(self.since) >= START => {
                self.enter(if self.autonomous { State::UnlimitedAutonomous } else { State::Failsafe }, now)
            }
            State::Failsafe if alive && self.back.is_some_and(|back| now.since(back) >= START) => {
                self.enter(State::UnlimitedAutonomous, now)
            }
            State::Failsafe if !alive && self.autonomous && now.since(self.since) >= self.failsafe_for => {
                self.enter(State::UnlimitedAutonomous, now)
            }
            _ => false,
        }
    }

    /// When the next tick may change something; for those who sleep until then.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        match self.state {
            State::Init => Some(self.since + START),
            State::Limited | State::UnlimitedControlled => self.heard.map(|at| at + self.timeout),
            State::Failsafe => self.back.map(|at| at + START).or(Some(self.since + self.failsafe_for)),
            State::UnlimitedAutonomous => None,
        }
    }

    /// Whether it gives signs of life.
    #[must_use]
    pub fn alive(&self, now: Mono) -> bool {
        self.heard.is_some_and(|at| now.since(at) < self.timeout)
    }

    fn enter(&mut self, next: State, now: Mono) -> bool {
        if next == self.state {
            return false;
        }
        if next == State::Failsafe && self.state != State::Init {
            self.back = None;
        }
        (self.state, self.since) = (next, now);
        true
    }
}

#[cfg(test)]
mod tests;
