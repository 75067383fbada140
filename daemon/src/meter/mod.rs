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
mod modbus;

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_modbus::client::Context;
use tokio_util::sync::CancellationToken;

pub use self::decode::{DecodeError, decode};
use self::modbus::ReadError;
use crate::{clock::Clock, config, control::Events, device::Definition, site::Event, site::event::Reading};

/// Times of the connection.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// For TCP's handshake.
    connect: Duration,
    /// For one answer. Below the usual interval of 1 s, so that one lost answer costs one reading.
    answer: Duration,
    /// First wait after a failed connection; doubled up to `wait_max`.
    wait_min: Duration,
    /// Longest wait between two connections.
    wait_max: Duration,
}

const PACE: Pace = Pace {
    connect: Duration::from_secs(2),
    answer: Duration::from_millis(800),
    wait_min: Duration::from_millis(250),
    wait_max: Duration::from_secs(5),
};

/// Reads a meter at its interval until `stop`. A meter that is dead at the start is tried again like any other.
pub async fn run(
    config: config::Meter,
    definition: Arc<Definition>,
    events: Events,
    clock: Clock,
    stop: CancellationToken,
) {
    let task = Task { config, definition, events, clock, pace: PACE, link: Link::default(), told: None };
    stop.run_until_cancelled(task.poll()).await;
}

/// The connection and the failures since it last worked.
#[derive(Default)]
struct Link {
    context: Option<Context>,
    failures: u32,
}

struct Task {
    config: config::Meter,
    definition: Arc<Definition>,
    events: Events,
    clock: Clock,
    pace: Pace,
    link: Link,
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
        let (unit, pace) = (self.config.unit, self.pace);
        let mut context = match self.link.context.take() {
            Some(context) => context,
            None => modbus::connect(&self.config.address, unit, pace.connect).await?,
        };
        // The context comes back only when the stream is known to be in step: also this future being dropped in
        // the middle of a request closes the connection.
        let outcome = self.blocks(&mut context).await;
        if !matches!(&outcome, Err(error) if error.spoils_connection()) {
            self.link.context = Some(context);
        }
        outcome
    }

    // `&mut self` although nothing changes: the client in it is Send, not Sync.
    async fn blocks(&mut self, context: &mut Context) -> Result<Reading, ReadError> {
        let mut registers = Vec::with_capacity(self.definition.blocks.len());
        for (i, block) in self.definition.blocks.iter().enumerate() {
            if i > 0 && !self.definition.frame_delay.is_zero() {
                sleep(self.definition.frame_delay).await;
            }
            registers.push(modbus::read(context, block, self.config.unit, self.pace.answer).await?);
        }
        Ok(decode(&self.definition, &registers, self.config.inverted, self.clock.now())?)
    }

    async fn good(&mut self, reading: Reading) {
        self.link.failures = 0;
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
        if error.spoils_connection() {
            sleep(backoff(self.pace, self.link.failures, fastrand::f64())).await;
            self.link.failures = self.link.failures.saturating_add(1);
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
