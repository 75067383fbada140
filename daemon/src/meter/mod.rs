//! Meters: one task each, one [`Reading`](crate::site::event::Reading) per interval.
//!
//! In: the site's configuration of a meter and its device's definition. Out: [`Event::Reading`], and
//! [`Event::MeterProblem`] once per cause; the next reading clears it. Invariant: a reading is stamped when its
//! last answer arrives, never with an older or newer time; an answer that comes after its time never counts.
//!
//! ```text
//!            connected                     answer within its time, plausible → Reading
//! (down) ───────────────────→ (up) ──────────────────────────────────────────┐
//!    ↑                         │ ↑────────────────────────────────────────────┘
//!    │ wait: jittered, ≤ 5 s   │   exception, NaN, implausible → MeterProblem, stays up
//!    └─────────────────────────┘
//!      timeout, short or foreign answer, broken → MeterProblem, connection dropped
//! ```

mod decode;
pub mod document;
pub mod push;
mod told;

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

pub use self::decode::{DecodeError, Value, decode, values};
use crate::{
    clock::Clock,
    config,
    control::Events,
    device::{AskError, Definition, Reader, bus::Bus},
    site::{Event, event::Reading},
};

/// Waits between attempts.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// First wait after a failure; doubled up to `wait_max`.
    wait_min: Duration,
    /// Longest wait between two attempts.
    wait_max: Duration,
}

const PACE: Pace = Pace { wait_min: Duration::from_millis(250), wait_max: Duration::from_secs(5) };

/// How long a reading may wait for others on its bus.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The device did not give its registers.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The registers make no reading.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl ReadError {
    /// Whether to wait before the next attempt.
    const fn lost(&self) -> bool {
        match self {
            Self::Ask(error) => error.lost(),
            Self::Decode(error) => error.quantity().is_none(),
        }
    }

    /// What stays the same while the values in the message change: it is told once.
    fn cause(&self) -> String {
        match self {
            Self::Ask(error) => error.cause(),
            Self::Decode(error) => match (error, error.quantity()) {
                (DecodeError::NotAvailable { .. }, Some(quantity)) => format!("not available {quantity}"),
                (_, Some(quantity)) => format!("implausible {quantity}"),
                (_, None) => "short".to_owned(),
            },
        }
    }
}

/// Reads a meter at its interval until `stop`. A meter that is dead at the start is tried again like any other.
pub async fn run(
    config: config::Meter,
    definition: Arc<Definition>,
    bus: Bus,
    events: Events,
    clock: Clock,
    stop: CancellationToken,
) {
    let reader = Reader::new(definition, bus, config.unit, PATIENCE);
    let task = Task { config, reader, events, clock, pace: PACE, failures: 0, told: None };
    stop.run_until_cancelled(task.poll()).await;
}

struct Task {
    config: config::Meter,
    reader: Reader,
    events: Events,
    clock: Clock,
    pace: Pace,
    /// Since it last worked.
    failures: u32,
    /// Cause of the problem that the site knows about.
    told: Option<String>,
}

impl Task {
    /// Never ends.
    async fn poll(mut self) {
        let mut ticks = interval(self.config.interval);
        // Ticks stay on the grid of the first one, whatever an answer takes.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            match self.read().await {
                Ok(reading) => self.good(reading).await,
                Err(error) => self.bad(&error).await,
            }
        }
    }

    async fn read(&mut self) -> Result<Reading, ReadError> {
        let registers = self.reader.blocks().await?;
        Ok(decode(self.reader.definition(), &registers, self.config.inverted, self.clock.now())?)
    }

    async fn good(&mut self, reading: Reading) {
        self.failures = 0;
        if self.told.take().is_some() {
            tracing::info!(meter = %self.config.id, "answers again");
        }
        self.tell(Event::Reading(self.config.id.clone(), reading)).await;
    }

    async fn bad(&mut self, error: &ReadError) {
        let cause = error.cause();
        if self.told.as_ref() != Some(&cause) {
            tracing::warn!(meter = %self.config.id, %error, "no reading");
            self.told = Some(cause);
            self.tell(Event::MeterProblem(self.config.id.clone(), error.to_string())).await;
        }
        if error.lost() {
            sleep(backoff(self.pace, self.failures, fastrand::f64())).await;
            self.failures = self.failures.saturating_add(1);
        }
    }

    async fn tell(&mut self, event: Event) {
        if self.events.send(event).await.is_err() {
            // The site is gone: the daemon is going down, and `stop` follows.
            std::future::pending::<()>().await;
        }
    }
}

/// The wait after `failures` failures in a row: doubled each time, between half and all of it (`random` 0 to 1).
fn backoff(pace: Pace, failures: u32, random: f64) -> Duration {
    let full = pace.wait_min.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(pace.wait_max);
    full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests;
