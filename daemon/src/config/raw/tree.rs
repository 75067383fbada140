//! The tables of the electrical tree, of controllable devices, and of what the grid may do.

use serde::{Deserialize, Deserializer, de};

use super::Span;
use crate::{
    ids::{DeviceId, MeterId, NodeId},
    units::{Milliamps, PerPhase, Watts, Wiring},
};

/// A fuse: one value for all phases, or one per phase.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Fuse(pub(in crate::config) PerPhase<Milliamps>);

impl<'de> Deserialize<'de> for Fuse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrThree;
        impl<'de> de::Visitor<'de> for OneOrThree {
            type Value = Fuse;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a current like \"16 A\", or one for each of L1, L2, L3")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Fuse, E> {
                let fuse: Milliamps = text.parse().map_err(E::custom)?;
                Ok(Fuse(PerPhase([fuse; 3])))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Fuse, A::Error> {
                let mut fuses = Vec::new();
                while let Some(fuse) = list.next_element::<Milliamps>()? {
                    fuses.push(fuse);
                }
                let fuses = <[Milliamps; 3]>::try_from(fuses).map_err(|given| {
                    de::Error::custom(format!(
                        "has {} values; give one, or one for each of L1, L2, L3",
                        given.len()
                    ))
                })?;
                Ok(Fuse(PerPhase(fuses)))
            }
        }
        deserializer.deserialize_any(OneOrThree)
    }
}

/// The one node that something stands at.
#[derive(Debug)]
pub(in crate::config) struct At(pub(in crate::config) NodeId);

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> de::Visitor<'de> for One {
            type Value = At;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of one node")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<At, E> {
                NodeId::deserialize(de::value::StrDeserializer::<E>::new(text)).map(At)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<At, A::Error> {
                let mut names: Vec<String> = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Err(de::Error::custom(format!(
                    "names {} nodes ({}); a device stands at one node, the lowest whose fuse it is behind",
                    names.len(),
                    names.join(", ")
                )))
            }
        }
        deserializer.deserialize_any(One)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Node {
    /// Name.
    pub(in crate::config) id: NodeId,
    /// Name of the node above; not at the grid connection.
    pub(in crate::config) parent: Option<NodeId>,
    /// Rated current per phase: `"63 A"`, or `["63 A", "63 A", "35 A"]`.
    pub(in crate::config) fuse: Fuse,
    /// Name of the meter that measures it.
    pub(in crate::config) meter: Option<MeterId>,
    /// Power that may be drawn through it, everything counted.
    pub(in crate::config) contract: Option<Watts>,
    /// Current per phase that is never given to EVSEs and devices; default 0 A.
    pub(in crate::config) reserve: Option<Milliamps>,
    /// At the grid connection: how far EVSEs and devices may load the phases differently; default 20 A.
    pub(in crate::config) unbalance: Option<Milliamps>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Kind {
    HeatPump,
    Cooling,
    Storage,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Device {
    /// Name.
    pub(in crate::config) id: DeviceId,
    /// `"heat-pump"`, `"cooling"` or `"storage"`.
    pub(in crate::config) kind: Kind,
    /// Name of its node; default the grid connection.
    pub(in crate::config) node: Option<At>,
    /// How it is wired; default `"L1 L2 L3"`.
    pub(in crate::config) phases: Option<Wiring>,
    /// Most that it draws, auxiliary heaters included.
    pub(in crate::config) power: Watts,
    /// Where it is told its power; without, a `[[relay]]` switches it on and off.
    pub(in crate::config) setpoint: Option<SetpointRegister>,
    /// Least that it can be told, with `setpoint` only; default one step.
    pub(in crate::config) min: Option<Watts>,
    /// Step of what it is told, with `setpoint` only; default 100 W.
    pub(in crate::config) step: Option<Watts>,
    /// Name of a meter of its own.
    pub(in crate::config) meter: Option<MeterId>,
    /// Least time that it runs before it is switched off for another; default 10 min.
    pub(in crate::config) min_on: Option<Span>,
    /// Least time that it stays off; default 5 min.
    pub(in crate::config) min_off: Option<Span>,
    /// Order of service when not all fit: 0 first; default 50, before the EVSEs.
    pub(in crate::config) class: Option<u8>,
    /// Its share among those of its class: 1 to 10; default 1.
    pub(in crate::config) weight: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SetpointRegister {
    /// `"host:port"` of the Modbus TCP server; or `bus`.
    pub(in crate::config) address: Option<String>,
    /// Name of the `[[bus]]`; or `address`.
    pub(in crate::config) bus: Option<String>,
    /// Modbus unit identifier; default 1.
    pub(in crate::config) unit: Option<u8>,
    /// Number of the holding register, counted from 0.
    pub(in crate::config) register: u16,
    /// What one count of the register is; default 1 W.
    pub(in crate::config) count: Option<Watts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Grid {
    /// How long the return to full power takes after a limit; default 5 min.
    pub(in crate::config) return_over: Option<Span>,
    /// Whether what is generated on the site and not used by others adds to a limit; default true.
    pub(in crate::config) generation: Option<bool>,
    /// `[[grid.source]]`: who must be heard from regularly.
    #[serde(default)]
    pub(in crate::config) source: Vec<GridSource>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct GridSource {
    /// The caller as it appears in limits: `"cert:dso"`, `"uid:1001"`, `"ocpp:csms"`.
    pub(in crate::config) issuer: String,
    /// Name of the node that its failsafe value limits; default the grid connection.
    pub(in crate::config) node: Option<NodeId>,
    /// Silence after which it counts as gone; default 120 s.
    pub(in crate::config) timeout: Option<Span>,
    /// Power of the controllable devices while it is gone; default 4.2 kW. The source itself may change it.
    pub(in crate::config) failsafe: Option<Watts>,
    /// Least time in failsafe before `afterwards` counts; 2 h to 24 h, default 2 h.
    pub(in crate::config) failsafe_for: Option<Span>,
    /// What follows when it stays silent: `"limited"` (default) or `"autonomous"`.
    pub(in crate::config) afterwards: Option<Afterwards>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Afterwards {
    Limited,
    Autonomous,
}
