//! The site as one picture, for `api`.

use std::{sync::Arc, time::Duration};

use super::event::{ConnectorStatus, Draw, Level, Reading, Transaction};
use crate::{
    grid::{Record, guard::State, pmin::Minimum},
    ids::{ContactId, DeviceId, EvseId, Identity, MeterId, NodeId, RelayId},
    time::{Now, Wall},
    units::{Milliamps, PerPhase, Watts},
};

/// Everything that can be shown, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// When.
    pub at: Now,
    /// The site's name.
    pub name: String,
    /// Parents before children.
    pub nodes: Vec<NodeView>,
    /// In the order of the configuration.
    pub evses: Vec<EvseView>,
    /// In the order of the configuration.
    pub devices: Vec<DeviceView>,
    /// In the order of the configuration.
    pub meters: Vec<MeterView>,
    /// In the order of the configuration.
    pub contacts: Vec<ContactView>,
    /// In the order of the configuration.
    pub relays: Vec<RelayView>,
    /// Who must be heard from, in the order of the configuration.
    pub sources: Vec<SourceView>,
    /// What the controllable devices of the whole site are owed.
    pub minimum: Arc<Minimum>,
    /// Every limit that is known, ended ones included; oldest first.
    pub limits: Vec<Record>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Name.
    pub id: NodeId,
    /// Name of the parent.
    pub parent: Option<NodeId>,
    /// Rated current.
    pub fuse: PerPhase<Milliamps>,
    /// Power agreed for it.
    pub contract: Option<Watts>,
    /// Name of the meter.
    pub meter: Option<MeterId>,
    /// What the EVSEs behind may draw.
    pub available: PerPhase<Milliamps>,
    /// What the rest draws.
    pub other_load: PerPhase<Milliamps>,
    /// Smallest power limit in force.
    pub power_limit: Option<Watts>,
    /// Why `available` is what it is.
    pub reason: String,
}

/// Somebody who limits from afar and must be heard from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceView {
    /// The caller.
    pub issuer: String,
    /// The node that its failsafe value limits.
    pub node: NodeId,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Wall,
    /// Last heartbeat.
    pub heard: Option<Wall>,
    /// Silence after which it counts as gone.
    pub timeout: Duration,
    /// Power while it is gone.
    pub failsafe: Watts,
    /// Least time in failsafe.
    pub failsafe_for: Duration,
}

/// A controllable device that is no EVSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// Name.
    pub id: DeviceId,
    /// Its node.
    pub node: NodeId,
    /// `"heat-pump"`, `"cooling"` or `"storage"`.
    pub kind: &'static str,
    /// Most that it draws.
    pub power: Watts,
    /// What it may draw now.
    pub granted: Watts,
    /// What it draws, by a meter of its own.
    pub measured: Option<Watts>,
    /// The binding constraint.
    pub reason: String,
}

/// An EVSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvseView {
    /// Name.
    pub id: EvseId,
    /// OCPP identity.
    pub identity: Identity,
    /// Its node.
    pub node: NodeId,
    /// Its connection stands since.
    pub connected_since: Option<Wall>,
    /// Its backend connection stands.
    pub backend_connected: bool,
    /// Connector state.
    pub status: ConnectorStatus,
    /// Error code, empty without.
    pub error: String,
    /// Make.
    pub vendor: String,
    /// Model.
    pub model: String,
    /// Running transaction.
    pub transaction: Option<Transaction>,
    /// What it may draw.
    pub setpoint: Option<SetpointView>,
    /// What it draws, as told.
    pub draw: Option<Draw>,
    /// The same on the phases of the grid connection.
    pub draw_phases: PerPhase<Milliamps>,
    /// Messages that wait.
    pub queued: u64,
    /// Messages given up.
    pub dead: u64,
    /// What is wrong, empty when nothing is.
    pub problem: String,
}

/// A setpoint as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetpointView {
    /// The value wanted.
    pub limit: Milliamps,
    /// The value after the lease.
    pub failsafe: Milliamps,
    /// Whether the EVSE confirmed this value.
    pub confirmed: bool,
    /// End of the confirmed lease.
    pub lease_until: Option<Wall>,
    /// The binding constraint.
    pub reason: String,
}

/// How far a meter can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Fresh.
    Good,
    /// Old: the site plans on the worst case.
    Stale,
    /// It answers, but what it says cannot be: as stale, and as lost when it lasts.
    Implausible,
    /// Nothing usable: the site is at its failsafe values.
    Lost,
}

/// A meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterView {
    /// Name.
    pub id: MeterId,
    /// Device definition.
    pub device: String,
    /// How far it can be trusted.
    pub quality: Quality,
    /// Last reading.
    pub reading: Option<Reading>,
    /// What is wrong, empty when nothing is.
    pub problem: String,
}

/// A contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactView {
    /// Name.
    pub id: ContactId,
    /// State.
    pub level: Level,
    /// Since when.
    pub since: Wall,
}

/// A relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayView {
    /// Name.
    pub id: RelayId,
    /// Energised?
    pub energised: bool,
    /// Since when.
    pub since: Wall,
    /// What is wrong, empty when nothing is.
    pub problem: String,
}
