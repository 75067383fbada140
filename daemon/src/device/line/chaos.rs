//! Lines in memory that fail at will, for tests of the rooms above.
//!
//! In: levels and faults from the test. Out: the same as a real line. Invariant: a fault stays until it is lifted,
//! and every order to an output is on record.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Board, DigitalInput, DigitalOutput, LineError, Sample};
use crate::{clock::Clock, config::Line, time::Mono};

/// A board whose lines are named by their [`Line`].
#[derive(Debug, Clone, Default)]
pub struct ChaosBoard {
    lines: Arc<Mutex<HashMap<String, Wire>>>,
}

/// One line.
#[derive(Debug, Clone)]
struct Wire {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    level: bool,
    at: Option<Mono>,
    opening: Option<LineError>,
    using: Option<LineError>,
    stuck: bool,
    orders: Vec<bool>,
}

impl ChaosBoard {
    /// A board without faults, every line open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what an input sees. `at` is the time the sample carries; the time of looking if absent.
    pub fn drive(&self, line: &Line, closed: bool, at: Option<Mono>) {
        self.wire(line).send_modify(|s| (s.level, s.at) = (closed, at));
    }

    /// From now on the line cannot be opened (`None`: it can).
    pub fn fail_open(&self, line: &Line, error: Option<LineError>) {
        self.wire(line).send_modify(|s| s.opening = error);
    }

    /// From now on every use of the line fails (`None`: works).
    pub fn fail_use(&self, line: &Line, error: Option<LineError>) {
        self.wire(line).send_modify(|s| s.using = error);
    }

    /// From now on an output takes orders and does not follow, like a welded contact.
    pub fn stick(&self, line: &Line, stuck: bool) {
        self.wire(line).send_modify(|s| s.stuck = stuck);
    }

    /// What the line is.
    #[must_use]
    pub fn level(&self, line: &Line) -> bool {
        self.wire(line).borrow().level
    }

    /// Every order to the output so far.
    #[must_use]
    pub fn orders(&self, line: &Line) -> Vec<bool> {
        self.wire(line).borrow().orders.clone()
    }

    fn wire(&self, line: &Line) -> watch::Sender<State> {
        let mut lines = self.lock();
        let new = || Wire { state: watch::Sender::new(State::default()) };
        lines.entry(format!("{line:?}")).or_insert_with(new).state.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Wire>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An input of a [`ChaosBoard`].
#[derive(Debug)]
pub struct ChaosInput {
    state: watch::Receiver<State>,
    clock: Clock,
    looked: bool,
}

/// An output of a [`ChaosBoard`].
#[derive(Debug)]
pub struct ChaosOutput {
    state: watch::Sender<State>,
}

impl Board for ChaosBoard {
    type Input = ChaosInput;
    type Output = ChaosOutput;

    fn input(&mut self, line: &Line, _bounce: Duration, clock: Clock) -> Result<ChaosInput, LineError> {
        let state = self.wire(line).subscribe();
        let refused = state.borrow().opening.clone();
        refused.map_or(Ok(ChaosInput { state, clock, looked: false }), Err)
    }

    fn output(&mut self, line: &Line) -> Result<ChaosOutput, LineError> {
        let state = self.wire(line);
        let refused = state.borrow().opening.clone();
        if let Some(error) = refused {
            return Err(error);
        }
        let mut output = ChaosOutput { state };
        output.set(false)?;
        Ok(output)
    }
}

impl DigitalInput for ChaosInput {
    async fn next(&mut self) -> Result<Sample, LineError> {
        if self.looked && self.state.changed().await.is_err() {
            return Err(LineError::Absent { what: "the line".into(), why: "the board is gone".into() });
        }
        self.looked = true;
        let state = self.state.borrow_and_update();
        match &state.using {
            Some(error) => Err(error.clone()),
            None => Ok(Sample { closed: state.level, at: state.at.unwrap_or_else(|| self.clock.now().mono) }),
        }
    }
}

impl DigitalOutput for ChaosOutput {
    fn set(&mut self, energised: bool) -> Result<(), LineError> {
        let mut outcome = Ok(());
        self.state.send_modify(|s| match &s.using {
            Some(error) => outcome = Err(error.clone()),
            None => {
                s.orders.push(energised);
                if !s.stuck {
                    s.level = energised;
                }
            }
        });
        outcome
    }

    fn read_back(&mut self) -> Result<Option<bool>, LineError> {
        let state = self.state.borrow();
        match &state.using {
            Some(error) => Err(error.clone()),
            None => Ok(Some(state.level)),
        }
    }
}

impl Drop for ChaosOutput {
    fn drop(&mut self) {
        // As the kernel does, whatever the fault.
        self.state.send_modify(|s| s.level &= s.stuck);
    }
}
