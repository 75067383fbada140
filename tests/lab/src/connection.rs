//! The grid connection of the simulated site: what the house and the cars draw on each phase.
//!
//! In: the house load, the charge points' physical states, their wiring. Out: currents and powers at this instant.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::{evse::State, evse::car::VOLTS, log::lock};

/// How terminals are wired: terminal 1, 2, 3 → index of the phase of the grid connection.
pub type Wiring = [usize; 3];

/// Without rotation.
pub const L123: Wiring = [0, 1, 2];
/// Rotated once.
pub const L231: Wiring = [1, 2, 0];
/// Rotated twice.
pub const L312: Wiring = [2, 0, 1];

#[derive(Debug)]
struct Load {
    wiring: Wiring,
    state: watch::Receiver<State>,
}

/// A grid connection. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    house: Arc<Mutex<[f64; 3]>>,
    loads: Arc<Mutex<Vec<Load>>>,
}

impl Connection {
    /// Sets what the rest of the site draws, A per phase; negative: feeds in.
    pub fn house(&self, amps: [f64; 3]) {
        *lock(&self.house) = amps;
    }

    /// Wires a charge point.
    pub fn wire(&self, wiring: Wiring, state: watch::Receiver<State>) {
        lock(&self.loads).push(Load { wiring, state });
    }

    /// A per phase.
    #[must_use]
    pub fn currents(&self) -> [f64; 3] {
        let mut sum = *lock(&self.house);
        for load in &*lock(&self.loads) {
            let state = load.state.borrow();
            for (terminal, amps) in state.currents.iter().enumerate() {
                sum[load.wiring[terminal]] += amps;
            }
        }
        sum
    }

    /// What the cars draw together, W.
    #[must_use]
    pub fn charging_watts(&self) -> f64 {
        lock(&self.loads).iter().map(|l| l.state.borrow().watts).sum()
    }

    /// What the cars with a running transaction may draw together by the limits in force at their EVSEs, W.
    #[must_use]
    pub fn allowed_watts(&self) -> f64 {
        lock(&self.loads)
            .iter()
            .map(|l| {
                let state = l.state.borrow();
                if state.transaction.is_some() { state.limit * state.car_phases as f64 * VOLTS } else { 0.0 }
            })
            .sum()
    }
}
