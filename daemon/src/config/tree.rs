//! The electrical tree, the controllable devices in it, and what the grid may do.

use std::time::Duration;

use super::Attachment;
use crate::{
    ids::{DeviceId, NodeId},
    units::{Milliamps, PerPhase, Watts, Wiring},
};

/// A point of the electrical tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name.
    pub id: NodeId,
    /// Index of the parent in [`super::Config::nodes`]; `None` at the grid connection.
    pub parent: Option<usize>,
    /// Rated current per phase.
    pub fuse: PerPhase<Milliamps>,
    /// Index of the meter that measures it.
    pub meter: Option<usize>,
    /// Power that may be drawn through it, everything counted.
    pub contract: Option<Watts>,
    /// Current per phase that is kept back.
    pub reserve: Milliamps,
    /// How far EVSEs and devices may load the phases differently (VDE-AR-N 4100 no. 5.5); at the grid connection only.
    pub unbalance: Option<Milliamps>,
}

/// What a device is, in the sense of EnWG §14a.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Heat pump with its auxiliary heaters.
    HeatPump,
    /// Cooling of rooms.
    Cooling,
    /// Storage while it charges.
    Storage,
}

impl DeviceKind {
    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeatPump => "heat-pump",
            Self::Cooling => "cooling",
            Self::Storage => "storage",
        }
    }
}

/// A controllable device that is no EVSE.
#[derive(Debug, Clone)]
pub struct Device {
    /// Name.
    pub id: DeviceId,
    /// What it is.
    pub kind: DeviceKind,
    /// Index of its node in [`super::Config::nodes`].
    pub node: usize,
    /// How it is wired.
    pub wiring: Wiring,
    /// Most that it draws.
    pub power: Watts,
    /// Least that it can be told; `power` if it knows on and off only.
    pub min: Watts,
    /// Step of what it is told.
    pub step: Watts,
    /// Where it is told its power; a relay switches it without.
    pub setpoint: Option<SetpointRegister>,
    /// Index of a meter of its own.
    pub meter: Option<usize>,
    /// Least time that it runs before it is switched off for another.
    pub min_on: Duration,
    /// Least time that it stays off.
    pub min_off: Duration,
    /// Order of service when not all fit: 0 first.
    pub class: u8,
    /// Its share among those of its class.
    pub weight: u8,
}

/// A holding register that takes a power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetpointRegister {
    /// The bus that it is on.
    pub at: Attachment,
    /// Modbus unit identifier.
    pub unit: u8,
    /// Number, counted from 0.
    pub register: u16,
    /// Watts that one count is.
    pub watts_per_step: i64,
}

/// How limits from outside are kept.
#[derive(Debug, Clone)]
pub struct Grid {
    /// How long the return to full power takes after a limit.
    pub return_over: Duration,
    /// Whether what is generated on the site and not used by others adds to a limit.
    pub generation: bool,
    /// Who must be heard from regularly.
    pub sources: Vec<GridSource>,
}

/// Somebody who limits from afar and must be heard from regularly.
#[derive(Debug, Clone)]
pub struct GridSource {
    /// The caller as it appears in limits.
    pub issuer: String,
    /// Index of the node that its failsafe value limits.
    pub node: usize,
    /// Silence after which it counts as gone.
    pub timeout: Duration,
    /// Power of the controllable devices while it is gone.
    pub failsafe: Watts,
    /// Least time in failsafe.
    pub failsafe_for: Duration,
    /// Whether the site goes its own way after that time.
    pub autonomous: bool,
}
