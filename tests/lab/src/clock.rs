//! The lab's only reader of the wall clock, and its way to wait for something to become true.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// The present, for OCPP timestamps and limits.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the lab stands for the world outside; this is its one place")]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For durations.
    pub mono: Instant,
    /// For protocols and people.
    pub wall: jiff::Timestamp,
}

impl Moment {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self { mono: Instant::now(), wall: wall() }
    }
}

/// Looks every 20 ms until `look` finds something. Errors: the deadline passed; the message names `what`.
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: did not happen within {} s", limit.as_secs_f32());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
