//! A wallbox on a bus, as its definition describes it.
//!
//! In: leased setpoints, whether charging is released, signs of fresh plans. Out: the same events as from an OCPP
//! station. Invariant: a setpoint is confirmed only after it was read back from a box whose failsafe current and
//! shortest timeout were read back, too; the box's watchdog is fed only while the plan is fresh and the lease runs.
//!
//! ```text
//!            state read, probe fits        failsafe, timeout read back as written
//!  (absent) ─────────────────────→ (adopt) ─────────────────────────────────────→ (managed) → Confirmed
//!     ↑  wait, ≤ 5 s                  │ they differ → Problem                        │
//!     │                               └──→ (driven, not trusted) → Refused           │ plan stale: not fed,
//!     └── three failures in a row: the lease ends with the box's watchdog ←──────────┘ the box falls by itself
//! ```

mod carry;
mod look;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config,
    control::Events,
    device::{
        AskError, Definition, Reader,
        bus::{Bus, BusError},
        definition::wallbox::{Failsafe, Wallbox},
    },
    plan::Setpoint,
    site::{
        Event,
        event::{ConnectorStatus, EvseEvent},
    },
    time::Mono,
    units::Milliamps,
};

/// A plan older than this is not fresh.
pub(super) const STALE: Duration = Duration::from_secs(4);
/// How long a request may wait for others on its bus.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many failures in a row, and the box counts as gone.
const MOST_FAILURES: u32 = 3;
/// Waits between attempts to reach a box.
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What a driver needs.
#[derive(Debug)]
pub struct Parts {
    /// The EVSE, with its device.
    pub evse: config::Evse,
    /// How it is reached.
    pub device: config::EvseDevice,
    /// What it is; of kind wallbox.
    pub definition: Arc<Definition>,
    /// Where it is.
    pub bus: Bus,
    /// What it may draw.
    pub setpoint: watch::Receiver<Option<Setpoint>>,
    /// Whether it may charge at all: 0 A while it is false.
    pub released: watch::Receiver<bool>,
    /// The most that an installer's test lets through.
    pub cap: watch::Receiver<Option<Milliamps>>,
    /// When the last plan was made.
    pub fresh: watch::Receiver<Mono>,
    /// Where its facts go.
    pub events: Events,
    /// The clock.
    pub clock: Clock,
}

/// Drives a wallbox until `stop`. One that is dead at the start is tried again like any other.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let Some(wallbox) = parts.definition.wallbox.clone() else {
        // A checked configuration names wallboxes only; without one there is nothing to drive.
        tracing::error!(evse = %parts.evse.id, device = parts.definition.name, "is not a wallbox");
        return stop.cancelled().await;
    };
    let reader = Reader::new(Arc::clone(&parts.definition), parts.bus.clone(), parts.device.unit, PATIENCE);
    let driver = Driver { parts, wallbox, reader, known: Known::default(), told: Told::default() };
    stop.run_until_cancelled(driver.life()).await;
}

struct Driver {
    parts: Parts,
    wallbox: Wallbox,
    reader: Reader,
    known: Known,
    told: Told,
}

/// What is known of the box since it was taken on.
#[derive(Debug, Default)]
struct Known {
    /// The current that was written last, and since when it is offered.
    current: Option<(Milliamps, Mono)>,
    /// What it falls to by itself, as read back.
    failsafe: Option<Milliamps>,
    /// Why it is not trusted.
    distrust: Option<String>,
    /// The last setpoint that was confirmed.
    confirmed: Option<Setpoint>,
    /// The last one that was answered in any way.
    answered: Option<u64>,
    /// When its watchdog was last fed.
    fed: Option<Mono>,
    /// Failures in a row.
    failures: u32,
}

/// What the site knows.
#[derive(Debug, Default)]
struct Told {
    status: Option<(ConnectorStatus, String)>,
    problem: String,
}

/// Why the box is given up for now.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    Other(String),
}

impl From<BusError> for Lost {
    fn from(error: BusError) -> Self {
        Self::Ask(error.into())
    }
}

impl Driver {
    /// Never ends.
    async fn life(mut self) {
        let mut failures = 0_u32;
        loop {
            self.known = Known::default();
            let error = match self.adopt().await {
                Ok(()) => {
                    failures = 0;
                    let Err(error) = self.drive().await;
                    self.lost().await;
                    error
                }
                Err(error) => error,
            };
            self.problem(error.to_string()).await;
            let wait = WAIT_MIN.saturating_mul(1 << failures.min(8)).min(WAIT_MAX);
            failures = failures.saturating_add(1);
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Makes sure that it is this box, sets it up, and says that it is there.
    async fn adopt(&mut self) -> Result<(), Lost> {
        self.probe().await?;
        for (cell, value) in self.wallbox.setup.clone() {
            if let Err(why) = self.put(cell, value, "a setting").await? {
                return Err(Lost::Other(why));
            }
        }
        self.tell(EvseEvent::Connected).await;
        // It may come from a restart: nothing is known of what it obeys.
        let definition = self.reader.definition();
        let (vendor, model) = (definition.about.clone(), definition.name.clone());
        self.tell(EvseEvent::Boot { vendor, model }).await;
        self.secure().await?;
        let distrust = self.known.distrust.clone().unwrap_or_default();
        self.problem(distrust).await;
        tracing::info!(evse = %self.parts.evse.id, managed = self.known.distrust.is_none(), "taken on");
        Ok(())
    }

    /// Failsafe current and timeout: written where they can be, read back where they can be, and judged.
    async fn secure(&mut self) -> Result<(), Lost> {
        let most = self.parts.evse.failsafe;
        if let Some(cell) = self.wallbox.watchdog.armed {
            let seconds = self.wallbox.watchdog.timeout.as_secs_f64();
            if let Err(why) = self.put(cell, seconds, "the timeout of its watchdog").await? {
                self.known.distrust = Some(why);
                return Ok(());
            }
            self.known.fed = Some(self.now());
        }
        let falls_to = match self.wallbox.failsafe {
            Failsafe::Written(cell) => match self.put(cell, amps(most), "its failsafe current").await? {
                Ok(()) => Some(most),
                Err(why) => {
                    self.known.distrust = Some(why);
                    return Ok(());
                }
            },
            Failsafe::Read(cell) => self.read_back(cell).await?.map(milliamps),
            Failsafe::Fixed(current) => Some(current),
            Failsafe::ByHand => self.parts.device.failsafe,
        };
        self.known.failsafe = falls_to;
        self.known.distrust = match falls_to {
            Some(current) if current <= most => None,
            Some(current) => Some(format!(
                "falls to {current} by itself, more than the failsafe of {most}; set it in the box, or raise failsafe"
            )),
            None => Some(
                "what it falls to by itself cannot be read; set it in the box and say it in evse.device.failsafe"
                    .to_owned(),
            ),
        };
        Ok(())
    }

    /// The connection is gone. What the site may count with until it is back: the box's own watchdog ends the lease.
    async fn lost(&mut self) {
        let (confirmed, fed) = (self.known.confirmed.clone(), self.known.fed);
        if let (Some(setpoint), Some(fed), Some(failsafe)) = (confirmed, fed, self.known.failsafe) {
            if failsafe <= setpoint.failsafe {
                let lease_until = fed + self.wallbox.watchdog.timeout;
                let (sequence, limit) = (setpoint.sequence, setpoint.limit);
                self.tell(EvseEvent::Confirmed { sequence, limit, lease_until }).await;
            } else {
                // It may take more than the setpoint says after its lease.
                let definition = self.reader.definition();
                let (vendor, model) = (definition.about.clone(), definition.name.clone());
                self.tell(EvseEvent::Boot { vendor, model }).await;
            }
        }
        self.tell(EvseEvent::Disconnected).await;
        self.told.status = None;
    }

    /// Runs until the box is lost.
    async fn drive(&mut self) -> Result<std::convert::Infallible, Lost> {
        let mut look = self.now();
        loop {
            self.carry_out().await?;
            let now = self.now();
            if now >= look {
                look = now + self.parts.device.interval;
                if self.may_talk(now) {
                    self.look().await?;
                }
            }
            let wait = look.since(self.now());
            // A channel whose sender is gone says nothing more; the daemon is going down.
            tokio::select! {
                Ok(()) = self.parts.setpoint.changed() => {}
                Ok(()) = self.parts.released.changed() => {}
                Ok(()) = self.parts.cap.changed() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Keeps count: an answer clears it, three failures in a row give the box up.
    fn counted<T>(&mut self, outcome: Result<T, AskError>) -> Result<Option<T>, Lost> {
        match outcome {
            Ok(value) => {
                self.known.failures = 0;
                Ok(Some(value))
            }
            Err(error) => {
                self.known.failures += 1;
                if self.known.failures >= MOST_FAILURES {
                    return Err(error.into());
                }
                tracing::debug!(evse = %self.parts.evse.id, %error, "not answered");
                Ok(None)
            }
        }
    }

    async fn problem(&mut self, problem: String) {
        if problem == self.told.problem {
            return;
        }
        if problem.is_empty() {
            tracing::info!(evse = %self.parts.evse.id, "is right again");
        } else {
            tracing::warn!(evse = %self.parts.evse.id, problem);
        }
        self.told.problem.clone_from(&problem);
        self.tell(EvseEvent::Problem(problem)).await;
    }

    async fn tell(&mut self, event: EvseEvent) {
        if self.parts.events.send(Event::Evse(self.parts.evse.id.clone(), event)).await.is_err() {
            // The site is gone: the daemon is going down, and `stop` follows.
            std::future::pending::<()>().await;
        }
    }

    fn now(&self) -> Mono {
        self.parts.clock.now().mono
    }
}

fn amps(current: Milliamps) -> f64 {
    current.0 as f64 / 1000.0
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to what no fuse lets through")]
fn milliamps(amps: f64) -> Milliamps {
    // What is no number counts as the most.
    Milliamps(if amps.is_finite() { (amps.clamp(0.0, 10_000.0) * 1000.0).round() as i64 } else { 10_000_000 })
}

#[cfg(test)]
mod tests;
