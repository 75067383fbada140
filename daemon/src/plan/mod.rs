//! Budget → one leased setpoint per EVSE. Pure: no async, no I/O, no clock.

use std::time::Duration;

use crate::units::Milliamps;

/// What an EVSE may draw, as a lease: without renewal it falls to `failsafe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setpoint {
    /// Rises with every setpoint handed to this EVSE, renewals included.
    pub sequence: u64,
    /// Current per phase: 0 or at least the EVSE's minimum.
    pub limit: Milliamps,
    /// Current per phase after the lease; never above `limit` while a grid limit is in force.
    pub failsafe: Milliamps,
    /// How long it holds.
    pub lease: Duration,
    /// The binding constraint, in words.
    pub reason: String,
}
