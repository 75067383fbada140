//! How fast a limit reaches the charge points: from the call to the last setpoint that was needed on the wire.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::{
    clock::eventually,
    evse::{Event, Evse, car::VOLTS},
};

/// What each charge point may draw before the limit: amperes and phases.
#[derive(Debug, Clone)]
pub struct Before {
    at: Instant,
    loads: Vec<(f64, usize)>,
}

impl Before {
    /// The present, right before the call.
    #[must_use]
    pub fn now(evses: &[Evse]) -> Self {
        let loads = evses
            .iter()
            .map(Evse::state)
            .map(|s| (s.limit, if s.transaction.is_some() { s.car_phases } else { 0 }))
            .collect();
        Self { at: Instant::now(), loads }
    }

    /// Time since then.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// Waits until the charge points have received setpoints that keep `watts`; gives the time from the call to the
    /// last one needed. Errors: they have not within 5 s.
    pub async fn until(&self, evses: &[Evse], watts: f64) -> anyhow::Result<Duration> {
        eventually(Duration::from_secs(5), &format!("setpoints that keep {watts} W"), || {
            let mut arrivals: Vec<(Instant, usize, f64)> = Vec::new();
            for (i, evse) in evses.iter().enumerate() {
                arrivals.extend(evse.log().since(self.at).into_iter().filter_map(|e| match e.what {
                    Event::Profile(p) => Some((e.at, i, p.limit)),
                    _ => None,
                }));
            }
            arrivals.sort_by_key(|(at, ..)| *at);
            let mut loads = self.loads.clone();
            arrivals.into_iter().find_map(|(at, i, limit)| {
                loads[i].0 = limit;
                let sum: f64 = loads.iter().map(|(amps, phases)| amps * *phases as f64 * VOLTS).sum();
                (sum <= watts).then(|| at.duration_since(self.at))
            })
        })
        .await
        .context("the limit did not reach the charge points")
    }
}
