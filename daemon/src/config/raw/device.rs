//! Tables of what hangs on the site's wires.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::Span;
use crate::{
    device::bus::serial::Parity,
    ids::NodeId,
    units::{Milliamps, Watts},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Bus {
    /// Name.
    pub(in crate::config) id: String,
    /// Device file, best one that stays the same: `"/dev/serial/by-id/…"`.
    pub(in crate::config) port: PathBuf,
    /// `"rtu"` (default) or `"ascii"`.
    pub(in crate::config) mode: Option<BusMode>,
    /// Bits per second; default 19200.
    pub(in crate::config) baud: Option<u32>,
    /// `"even"` (default), `"odd"` or `"none"`.
    pub(in crate::config) parity: Option<Parity>,
    /// 7 or 8; default 8.
    pub(in crate::config) data_bits: Option<u8>,
    /// 1 or 2; default 1, without parity 2 as the specification has it.
    pub(in crate::config) stop_bits: Option<u8>,
    /// For an answer to begin; default 500 ms.
    pub(in crate::config) answer: Option<Span>,
    /// After this no device here answers any more: the bus is held so long after a failure; default twice `answer`.
    pub(in crate::config) late: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Broker {
    /// Name.
    pub(in crate::config) id: String,
    /// `"host:port"`; MQTT's port is 1883.
    pub(in crate::config) address: String,
    /// Who we are there, if it wants to know; with `password_file`.
    pub(in crate::config) user: Option<String>,
    /// File with the password.
    pub(in crate::config) password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum BusMode {
    Rtu,
    Ascii,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct EvseDevice {
    /// Name of the device definition, of kind `wallbox`.
    pub(in crate::config) definition: String,
    /// `"host:port"` of the Modbus TCP server; or `bus`.
    pub(in crate::config) address: Option<String>,
    /// Name of the `[[bus]]`; or `address`.
    pub(in crate::config) bus: Option<String>,
    /// Modbus unit identifier; default as the definition has it, or 1.
    pub(in crate::config) unit: Option<u8>,
    /// Time between readings; default 1 s.
    pub(in crate::config) interval: Option<Span>,
    /// What the box falls to by itself, as set in the box; only for definitions that say it cannot be read.
    pub(in crate::config) failsafe: Option<Milliamps>,
    /// Under which card whoever plugs in charges at the backend; without, a charge is started by the backend or with
    /// `ladewartctl evse start`. Without a backend whoever plugs in charges.
    pub(in crate::config) card: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SunSpec {
    /// Address and port; whoever reaches it may limit the site.
    pub(in crate::config) listen: SocketAddr,
    /// Modbus unit identifier; default 1.
    pub(in crate::config) unit: Option<u8>,
    /// The power that 100 % stands for.
    pub(in crate::config) full: Watts,
    /// Name of the limited node; default the grid connection.
    pub(in crate::config) node: Option<NodeId>,
    /// How long a limit holds that is not written again; default until 100 % is written.
    pub(in crate::config) holds: Option<Span>,
}
