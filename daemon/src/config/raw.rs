//! The document's own shape: one struct per table, every unknown field refused. Documented for the people who
//! write it in `README.md` and `image/`'s factory configuration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::Role;
use crate::{
    ids::{ContactId, EvseId, Identity, MeterId, NodeId, RelayId},
    units::{Milliamps, Watts, Wiring},
};

/// A duration with a unit: `"500 ms"`, `"30 s"`, `"5 min"`, `"48 h"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration like \"30 s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let wrong = || {
                    E::custom(format!(
                        "{text:?} is not a duration; write it like \"30 s\" (ms, s, min, h)"
                    ))
                };
                let text = text.trim();
                let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
                let number: u64 = text[..split].parse().map_err(|_| wrong())?;
                let unit = match text[split..].trim() {
                    "ms" => 1,
                    "s" => 1000,
                    "min" => 60_000,
                    "h" => 3_600_000,
                    _ => return Err(wrong()),
                };
                number
                    .checked_mul(unit)
                    .map(|ms| Span(Duration::from_millis(ms)))
                    .ok_or_else(wrong)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) site: Site,
    #[serde(default)]
    pub(super) api: Api,
    pub(super) uplink: Option<Uplink>,
    pub(super) backend: Option<Backend>,
    #[serde(default)]
    pub(super) ocpp: Ocpp,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) node: Vec<Node>,
    #[serde(default)]
    pub(super) meter: Vec<Meter>,
    #[serde(default)]
    pub(super) evse: Vec<Evse>,
    #[serde(default)]
    pub(super) contact: Vec<Contact>,
    #[serde(default)]
    pub(super) relay: Vec<Relay>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) data: Option<PathBuf>,
    pub(super) devices: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Api {
    pub(super) socket: Option<PathBuf>,
    #[serde(default)]
    pub(super) user: Vec<User>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) role: Role,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uplink {
    pub(super) mode: Mode,
    pub(super) gateway: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) trust: Option<Trust>,
    pub(super) backoff_min: Option<Span>,
    pub(super) backoff_max: Option<Span>,
    pub(super) step_timeout: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Direct,
    Socks5,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trust {
    pub(super) pin: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    pub(super) url: String,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) ping_interval: Option<Span>,
    pub(super) call_timeout: Option<Span>,
    pub(super) attempts: Option<u32>,
    pub(super) retry_interval: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ocpp {
    pub(super) listen: Option<SocketAddr>,
    pub(super) ping_interval: Option<Span>,
    pub(super) call_timeout: Option<Span>,
    pub(super) accept_unknown_offline: Option<bool>,
    pub(super) max_frame: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) lease: Option<Span>,
    pub(super) raise_dwell: Option<Span>,
    pub(super) settle: Option<Span>,
    pub(super) min_on: Option<Span>,
    pub(super) meter_stale: Option<Span>,
    pub(super) meter_lost: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) parent: Option<NodeId>,
    pub(super) fuse: Milliamps,
    pub(super) meter: Option<MeterId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meter {
    pub(super) id: MeterId,
    pub(super) device: String,
    pub(super) address: String,
    pub(super) unit: Option<u8>,
    pub(super) interval: Option<Span>,
    #[serde(default)]
    pub(super) inverted: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evse {
    pub(super) id: EvseId,
    pub(super) identity: Option<Identity>,
    pub(super) node: Option<NodeId>,
    pub(super) phases: Option<Wiring>,
    pub(super) max: Milliamps,
    pub(super) min: Option<Milliamps>,
    pub(super) step: Option<Milliamps>,
    pub(super) failsafe: Option<Milliamps>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) chip: Option<PathBuf>,
    pub(super) offset: Option<u32>,
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Open,
    Closed,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contact {
    pub(super) id: ContactId,
    pub(super) line: Line,
    pub(super) limited_when: Level,
    pub(super) debounce: Option<Span>,
    pub(super) limit: Watts,
    pub(super) node: Option<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Function {
    Release,
    Unlimited,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) line: Line,
    pub(super) function: Function,
    pub(super) evse: Option<EvseId>,
}
