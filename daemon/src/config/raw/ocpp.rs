//! What concerns OCPP: `[ocpp]` and `[evse.ocpp]`.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::{Backend, Span};
use crate::{
    config::{Check, Security},
    ids::Identity,
    ocpp::Version,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ocpp {
    /// Default `0.0.0.0:8887`. With `certificate` EVSEs may come there with TLS, too.
    pub(in crate::config) listen: Option<SocketAddr>,
    /// WebSocket ping; default 30 s.
    pub(in crate::config) ping_interval: Option<Span>,
    /// Time for an EVSE's answer; default 10 s.
    pub(in crate::config) call_timeout: Option<Span>,
    /// Whether an unknown card may charge while the backend cannot be asked; default false.
    pub(in crate::config) accept_unknown_offline: Option<bool>,
    /// The site as one charge point: its identity towards the backend; its profile is a limit of the grid connection.
    pub(in crate::config) site: Option<Identity>,
    /// The controller itself as a station of a 2.x backend: its identity there. It tells the limits of the grid
    /// connection that do not come from the backend (NotifyChargingLimit).
    pub(in crate::config) controller: Option<Identity>,
    /// Cards (IdTags) that may charge while the backend cannot be asked, and on a site without one.
    #[serde(default)]
    pub(in crate::config) cards: Vec<String>,
    /// Largest frame in bytes; default 1 MiB.
    pub(in crate::config) max_frame: Option<usize>,
    /// PEM, what we show the EVSEs over TLS, leaf first.
    pub(in crate::config) certificate: Option<PathBuf>,
    /// PEM, its private key.
    pub(in crate::config) key: Option<PathBuf>,
    /// PEM bundle: who issues the EVSEs' certificates (security profile 3).
    pub(in crate::config) ca: Option<PathBuf>,
    /// The least that every EVSE must show: `"none"` (default), `"basic"` (security profile 1), `"tls-basic"` (2),
    /// `"mutual-tls"` (3).
    pub(in crate::config) security: Option<Security>,
    /// Whether an EVSE that offers permessage-deflate gets it; default true.
    pub(in crate::config) compression: Option<bool>,
    /// What happens to payloads that the official schemas do not allow: `"off"` (default), `"warn"`, `"refuse"`.
    pub(in crate::config) check: Option<Check>,
    /// Directory of the official schemas, with `1.6`, `2.0.1`, `2.1` in it; needed for `check`.
    pub(in crate::config) schemas: Option<PathBuf>,
}

/// How one EVSE is spoken with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct EvseOcpp {
    /// The versions that it may speak, `"1.6"`, `"2.0.1"`, `"2.1"`; default all. One that names no subprotocol is
    /// taken to speak the oldest of them.
    pub(in crate::config) versions: Option<Vec<Version>>,
    /// What it must show; default `ocpp.security`.
    pub(in crate::config) security: Option<Security>,
    /// File with its password.
    pub(in crate::config) password_file: Option<PathBuf>,
    /// `"overlay"` (default): the backend's profiles for transactions are set at the EVSE; `"merged"`: it gets one
    /// profile with all limits, for one that knows a single stack level.
    pub(in crate::config) profiles: Option<Profiles>,
    /// Whether it follows `numberPhases` of a charging profile, 1 or 3; default false.
    #[serde(default)]
    pub(in crate::config) one_phase: bool,
    /// While the backend is away: `"resident"` (default): the EVSE is served here; `"strict"`: it is let go.
    pub(in crate::config) uplink_loss: Option<UplinkLoss>,
    /// Whether it is pinged, and let go when it is silent for two intervals; default true. `false` for a box that does
    /// not answer pings.
    pub(in crate::config) pings: Option<bool>,
    /// It is on its own: its bytes pass through the uplink to its backend, and no limit reaches it.
    #[serde(default)]
    pub(in crate::config) pass_through: bool,
    /// A backend of its own instead of `[backend]`.
    pub(in crate::config) backend: Option<Backend>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Profiles {
    Overlay,
    Merged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum UplinkLoss {
    Resident,
    Strict,
}
