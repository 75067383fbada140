//! The only place that reads a clock.

use jiff::Timestamp;

/// The present.
#[expect(clippy::disallowed_methods, reason = "this is the one place of this program")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
