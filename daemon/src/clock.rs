//! The only place that reads a clock.

use std::time::Duration;

use crate::time::{Mono, Now, Wall};

/// Hands out the present. Cheap to copy; every task holds one.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// tokio's view of the monotonic clock: it stands still where a test pauses the time.
    start: tokio::time::Instant,
}

impl Clock {
    /// The system's clocks; monotonic time starts now.
    #[must_use]
    pub fn system() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// Both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Now {
        let wall =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now {
            mono: Mono(self.start.elapsed()),
            wall: Wall(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}
