//! The only place that reads a clock.

use std::time::Duration;

use crate::time::{Mono, Now, Wall};

/// Hands out the present. Cheap to copy; every task holds one.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// tokio's view of the monotonic clock: it stands still where a test pauses the time.
    start: tokio::time::Instant,
    /// Wall time at `start` where it is not the system's.
    set: Option<Wall>,
}

/// No clock that is right shows less: when this program was built (`SOURCE_DATE_EPOCH`, seconds), or its first
/// release.
const BUILT: Wall = Wall(
    1000 * match option_env!("SOURCE_DATE_EPOCH") {
        Some(text) => match i64::from_str_radix(text, 10) {
            Ok(seconds) if seconds > FIRST_RELEASE_S => seconds,
            _ => FIRST_RELEASE_S,
        },
        None => FIRST_RELEASE_S,
    },
);

/// 2026-11-01.
const FIRST_RELEASE_S: i64 = 1_793_491_200;

/// Whether a clock that shows this may be right. Without it (no battery, no NTP yet) dates are not judged by it.
#[must_use]
pub fn plausible(wall: Wall) -> bool {
    wall >= BUILT
}

impl Clock {
    /// The system's clocks; monotonic time starts now.
    #[must_use]
    pub fn system() -> Self {
        Self { start: tokio::time::Instant::now(), set: None }
    }

    /// A wall clock that shows `wall` now and goes on with the monotonic one: for simulated sites and tests.
    #[must_use]
    pub fn set_to(wall: Wall) -> Self {
        Self { start: tokio::time::Instant::now(), set: Some(wall) }
    }

    /// Both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Now {
        if let Some(wall) = self.set {
            let mono = self.start.elapsed();
            return Now { mono: Mono(mono), wall: wall + mono };
        }
        let wall =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now {
            mono: Mono(self.start.elapsed()),
            wall: Wall(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}
