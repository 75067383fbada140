//! What the upper half tells the site.

use crate::{
    ids::{ContactId, DeviceId, EvseId, MeterId, RelayId},
    time::{Mono, Now, Wall},
    units::{Milliamps, Millivolts, PerPhase, WattHours, Watts},
};

/// One thing that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A meter answered.
    Reading(MeterId, Reading),
    /// A meter did not answer, or nonsense. Its last reading keeps its age.
    MeterProblem(MeterId, String),
    /// Something about an EVSE.
    Evse(EvseId, EvseEvent),
    /// A contact has a new state that held for its debounce time, or cannot be read.
    Contact(ContactId, Level),
    /// The edges behind the contact's next state: when the first of them was, by the kernel's clock, and how many there
    /// were until it held.
    Edges {
        /// Which contact.
        id: ContactId,
        /// The first.
        at: Wall,
        /// All of them.
        count: u32,
    },
    /// A relay was switched or refused.
    Relay(RelayId, Result<bool, String>),
    /// Its contactor stays closed without current in its coil, or was cleared by an operator.
    Welded(RelayId, bool),
    /// A device was told a power, or does not take it.
    Device(DeviceId, Result<Watts, String>),
}

/// One answer of a meter: all values from one instant. Phases are those of the grid connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When the answer arrived.
    pub at: Now,
    /// Current per phase, signed by the direction of the phase's power.
    pub currents: PerPhase<Milliamps>,
    /// Voltage per phase.
    pub voltages: PerPhase<Millivolts>,
    /// Power of all phases.
    pub power: Watts,
    /// Energy drawn so far.
    pub import: Option<WattHours>,
    /// Energy fed in so far.
    pub export: Option<WattHours>,
}

/// State of a digital input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// No current flows.
    Open,
    /// Current flows.
    Closed,
    /// Two lines: a bit for each, set where it limits; the first counts 1, the second 2.
    Code(u8),
    /// Counts as limited; the text says why.
    Unreadable(String),
}

/// Something about an EVSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvseEvent {
    /// Its connection stands.
    Connected,
    /// Its connection is gone. Its setpoint's lease runs on.
    Disconnected,
    /// It told its make.
    Boot {
        /// `chargePointVendor`.
        vendor: String,
        /// `chargePointModel`.
        model: String,
    },
    /// State of its connector.
    Status {
        /// OCPP 1.6 §7.7 ChargePointStatus.
        status: ConnectorStatus,
        /// `errorCode`, empty for `NoError`.
        error: String,
    },
    /// A transaction began, or got its backend id.
    Transaction(Transaction),
    /// The card or token that the running transaction was begun with. It goes no further than to the user it belongs to.
    Card(String),
    /// No transaction runs any more.
    TransactionEnded,
    /// What it draws, by its own measurement.
    Draw(Draw),
    /// What its car said that it needs.
    Needs(Needs),
    /// It has confirmed a setpoint.
    Confirmed {
        /// [`crate::plan::Setpoint::sequence`].
        sequence: u64,
        /// The confirmed value.
        limit: Milliamps,
        /// From when on the other value of the lease counts.
        lease_until: Mono,
    },
    /// It refused a setpoint, or did not answer in time.
    Refused {
        /// [`crate::plan::Setpoint::sequence`].
        sequence: u64,
        /// The refusal in words.
        why: String,
    },
    /// What the backend's charging profiles allow an EVSE that we play towards it; `None`: they say nothing.
    BackendLimit(Option<Milliamps>),
    /// Its own connection to the backend came or went.
    Backend(bool),
    /// How many of its messages wait for the backend, and how many the backend refused for good.
    Queue {
        /// Waiting.
        waiting: u64,
        /// Refused.
        dead: u64,
    },
    /// Something is wrong that a person should see; empty when it is right again.
    Problem(String),
}

/// What a car says of itself (OCPP 2.0.1 Part 2, `ChargingNeedsType`). It is a wish and a rating, no permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// When it leaves.
    pub departure: Option<Wall>,
    /// What it still wanted when it said so.
    pub energy: Option<WattHours>,
    /// The most that it can take on each phase.
    pub most: Option<Milliamps>,
    /// On how many phases of alternating current.
    pub phases: Option<u8>,
}

/// OCPP 1.6 §7.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectorStatus {
    /// Not heard yet, or unknown to this version.
    #[default]
    Unknown,
    /// No vehicle.
    Available,
    /// A vehicle or a user, no transaction yet.
    Preparing,
    /// The contactor is closed and the vehicle draws.
    Charging,
    /// The EVSE offers nothing.
    SuspendedEvse,
    /// The vehicle takes nothing.
    SuspendedEv,
    /// The transaction is over, the vehicle still plugged.
    Finishing,
    /// Reserved.
    Reserved,
    /// Out of service.
    Unavailable,
    /// Broken.
    Faulted,
}

/// A running transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The id that the EVSE knows; of 2.x a number that stands for its name.
    pub id: i64,
    /// The id as OCPP writes it: of 1.6 the number, of 2.x the EVSE's own text.
    pub name: String,
    /// The id that the backend gave.
    pub backend_id: Option<i64>,
    /// When it began, by the EVSE's clock.
    pub started: Wall,
    /// Meter register at the start.
    pub meter_start: WattHours,
}

/// What an EVSE draws. Terminals are the EVSE's own L1, L2, L3, before rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// When it arrived here.
    pub at: Now,
    /// `Current.Import` per terminal; absent if only a power is told.
    pub currents: Option<[Milliamps; 3]>,
    /// `Power.Active.Import`, all phases.
    pub power: Option<Watts>,
    /// `Energy.Active.Import.Register`.
    pub energy: Option<WattHours>,
}
