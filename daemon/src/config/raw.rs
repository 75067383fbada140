//! The document's own shape: one struct per table, every unknown field refused. Documented for the people who
//! write it in `README.md` and `image/`'s factory configuration.

mod device;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

pub(super) mod charging;
mod ocpp;
mod tree;

pub(super) use self::{
    device::{Broker, Bus, BusMode, EvseDevice, SunSpec},
    ocpp::{EvseOcpp, Ocpp, Profiles, UplinkLoss},
    tree::{Afterwards, At, Device, Grid, Kind, Node, SetpointRegister},
};
use super::Role;
use crate::{
    ids::{ContactId, DeviceId, EvseId, Identity, MeterId, NodeId, RelayId},
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
                    E::custom(format!("{text:?} is not a duration; write it like \"30 s\" (ms, s, min, h)"))
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
                number.checked_mul(unit).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// One fingerprint or a list of them.
#[derive(Debug)]
pub(super) struct Pins(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Pins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> de::Visitor<'de> for OneOrMore {
            type Value = Pins;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a SHA-256 fingerprint or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pins, E> {
                Ok(Pins(vec![text.to_owned()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Pins, A::Error> {
                let mut pins = Vec::new();
                while let Some(pin) = list.next_element()? {
                    pins.push(pin);
                }
                Ok(Pins(pins))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// `[site]`.
    pub(super) site: Site,
    /// `[api]`: the gRPC socket.
    #[serde(default)]
    pub(super) api: Api,
    /// `[uplink]`: the way to the backend; a site without it charges by its own rules.
    pub(super) uplink: Option<Uplink>,
    /// `[backend]`: the OCPP backend; needs `[uplink]`.
    pub(super) backend: Option<Backend>,
    /// `[[operator]]`: who administers the site from behind the gateway; needs `[uplink]`.
    #[serde(default)]
    pub(super) operator: Vec<Operator>,
    /// `[ocpp]`: the side towards the EVSEs.
    #[serde(default)]
    pub(super) ocpp: Ocpp,
    /// `[control]`: how limits and leases move.
    #[serde(default)]
    pub(super) control: Control,
    /// `[[node]]`: the electrical tree, parents first; the first is the grid connection.
    #[serde(default)]
    pub(super) node: Vec<Node>,
    /// `[[bus]]`: serial lines.
    #[serde(default)]
    pub(super) bus: Vec<Bus>,
    /// `[[broker]]`: MQTT brokers.
    #[serde(default)]
    pub(super) broker: Vec<Broker>,
    /// `[[meter]]`.
    #[serde(default)]
    pub(super) meter: Vec<Meter>,
    /// `[[evse]]`.
    #[serde(default)]
    pub(super) evse: Vec<Evse>,
    /// `[[device]]`: other controllable devices: heat pumps, cooling, storage.
    #[serde(default)]
    pub(super) device: Vec<Device>,
    /// `[grid]`: how limits from outside are kept.
    #[serde(default)]
    pub(super) grid: Grid,
    /// `[[contact]]`: digital inputs that carry a limit.
    #[serde(default)]
    pub(super) contact: Vec<Contact>,
    /// `[[relay]]`: digital outputs.
    #[serde(default)]
    pub(super) relay: Vec<Relay>,
    /// `[tariff]`: what energy costs when.
    #[serde(default)]
    pub(super) tariff: charging::Tariff,
    /// `[[variable]]`: numbers that are set from outside.
    #[serde(default)]
    pub(super) variable: Vec<charging::Variable>,
    /// `[[limit]]`: power limits by formula.
    #[serde(default)]
    pub(super) limit: Vec<charging::FormulaLimit>,
    /// `[[user]]`: whose cards have rules.
    #[serde(default)]
    pub(super) user: Vec<charging::User>,
    /// `[[rule]]`: charging rules, the first that holds decides.
    #[serde(default)]
    pub(super) rule: Vec<charging::Rule>,
    /// `[update]`: the device's own software; without it nothing is installed through the interface.
    pub(super) update: Option<Update>,
    /// `[sunspec]`: the site as a SunSpec device; off without.
    pub(super) sunspec: Option<SunSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    /// Directory that takes a bundle on its way to RAUC.
    pub(super) spool: PathBuf,
    /// Largest bundle in bytes; default 96 MiB.
    pub(super) most: Option<u64>,
    /// A file that is there when the running system is not on trial; without it there is no trial.
    pub(super) confirmed: Option<PathBuf>,
    /// A file in which the system's own hook leaves why it refused a bundle.
    pub(super) reason: Option<PathBuf>,
    /// A file whose appearance makes the system start again.
    pub(super) restart: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    /// For people; appears in the evidence.
    pub(super) name: String,
    /// Directory of the database; default `/var/lib/ladewart`.
    pub(super) data: Option<PathBuf>,
    /// Directory of device definitions of your own.
    pub(super) devices: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Api {
    /// Default `/run/ladewart/ladewartd.sock`.
    pub(super) socket: Option<PathBuf>,
    /// `[[api.user]]`: roles of socket users; root and the daemon's own user are `admin`.
    #[serde(default)]
    pub(super) user: Vec<User>,
    /// `[[api.certificate]]`: roles of those who come over TLS.
    #[serde(default)]
    pub(super) certificate: Vec<Certificate>,
    /// `[api.lan]`: the same interface over TCP with mutual TLS; without it there is none.
    pub(super) lan: Option<Lan>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificate {
    /// SHA-256 of the certificate, hexadecimal; or `uri`.
    pub(super) fingerprint: Option<String>,
    /// A URI among its subject alternative names; or `fingerprint`.
    pub(super) uri: Option<String>,
    /// As it appears in limits and in the journal; outlives a change of the certificate.
    pub(super) name: Option<String>,
    /// `viewer`, `installer`, `grid`, `supplier` or `admin`.
    pub(super) role: Role,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lan {
    /// Address and port.
    pub(super) listen: SocketAddr,
    /// PEM, what we show there, leaf first.
    pub(super) certificate: PathBuf,
    /// PEM, its private key.
    pub(super) key: PathBuf,
    /// PEM bundle: who issues the callers' certificates.
    pub(super) ca: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Operator {
    /// Name, for people and for the journal.
    pub(super) name: String,
    /// `"host:port"` as the gateway's proxy shall resolve it. Not with the uplink's mode `"listen"`.
    pub(super) address: Option<String>,
    /// With `"listen"`: name of the `[[uplink.target]]` where the gateway connects for this operator.
    pub(super) target: Option<String>,
    /// SHA-256 of the operator's certificate, hexadecimal; or `ca`.
    pub(super) pin: Option<String>,
    /// PEM bundle of anchors; or `pin`.
    pub(super) ca: Option<PathBuf>,
    /// Name that the certificate must carry; with `ca` only, default the host in `address`.
    pub(super) server_name: Option<String>,
    /// PEM, what we show there, leaf first.
    pub(super) certificate: PathBuf,
    /// PEM, its private key.
    pub(super) key: PathBuf,
    /// The most that anybody may be on this connection; `[[api.certificate]]` says who is what.
    pub(super) roles: Vec<Role>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    /// Numeric user id.
    pub(super) uid: u32,
    /// `viewer`, `installer`, `grid`, `supplier` or `admin`.
    pub(super) role: Role,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uplink {
    /// `"socks5"`, `"sni"`, `"listen"` or `"direct"`.
    pub(super) mode: Mode,
    /// `"host:port"` of the gateway on the HAN: an IPv4 address, a name (`smgw.local` is asked for by mDNS) or
    /// `"[fe80::1%han0]:8443"`. Not with `"listen"`.
    pub(super) gateway: Option<String>,
    /// With `"listen"`: our address on the HAN where the gateway connects; default every address.
    pub(super) listen: Option<IpAddr>,
    /// Network interface to bind to; it must be separated from every other network.
    pub(super) interface: Option<String>,
    /// Name of the identity in the device's own store that is shown until another one is selected; instead of
    /// `certificate` and `key`.
    pub(super) identity: Option<String>,
    /// PEM, our certificate, leaf first.
    pub(super) certificate: Option<PathBuf>,
    /// PEM, its private key.
    pub(super) key: Option<PathBuf>,
    /// How the gateway is judged.
    pub(super) trust: Option<Trust>,
    /// Whether the gateway is offered TLS 1.3 as well; default false. TLS 1.2 is offered always.
    #[serde(default)]
    pub(super) tls13: bool,
    /// Whether a gateway that has no GCM suite is offered AES128-CBC-SHA256; default false.
    #[serde(default)]
    pub(super) cbc: bool,
    /// What this gateway does against the standard.
    pub(super) quirks: Option<Quirks>,
    /// Connections to one target at a time: `"many"` (default) or `"one-per-target"`. OCPP takes one per EVSE.
    pub(super) connections: Option<Connections>,
    /// Age at which a connection is to be renewed; default 47 h, the gateway cuts at 48 h.
    pub(super) renew_after: Option<Span>,
    /// Who is reached through the gateway. The backend needs no entry, except with `"listen"`.
    #[serde(default)]
    pub(super) target: Vec<Target>,
    /// First wait after a failure; default 1 s.
    pub(super) backoff_min: Option<Span>,
    /// Longest wait; default 300 s.
    pub(super) backoff_max: Option<Span>,
    /// Time for each step of a connection; default 10 s.
    pub(super) step_timeout: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quirks {
    /// Whether the handshake goes without TLS_EMPTY_RENEGOTIATION_INFO_SCSV, which some gateways refuse with the alert
    /// illegal_parameter. Without this field it is tried once after such an alert, and kept if it helped.
    pub(super) omit_scsv: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Direct,
    Socks5,
    Sni,
    Listen,
}

impl Mode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Socks5 => "socks5",
            Self::Sni => "sni",
            Self::Listen => "listen",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Connections {
    Many,
    OnePerTarget,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    /// Name, for people and for other parts of the document.
    pub(super) name: String,
    /// Host name or address as the gateway's proxy resolves it; with `"socks5"` and `"direct"`.
    pub(super) host: Option<String>,
    /// Its port; with `"socks5"` and `"direct"`. With `"listen"` the port where the gateway connects to us.
    pub(super) port: Option<u16>,
    /// Name in the handshake that leads to it; with `"sni"`.
    pub(super) sni: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trust {
    /// SHA-256 of the certificate, hexadecimal; a list while one replaces the other.
    pub(super) pin: Option<Pins>,
    /// PEM bundle of anchors; beside a pin either suffices.
    pub(super) ca: Option<PathBuf>,
    /// Name that the certificate must carry; with `ca` only.
    pub(super) name: Option<String>,
    /// Whether `ladewartctl uplink trust` may take on the certificate that the gateway shows next.
    #[serde(default)]
    pub(super) tofu: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    /// `ws://` or `wss://`; the EVSE's identity is appended.
    pub(super) url: String,
    /// Name of its `[[uplink.target]]`; default the one with the host and port of `url`.
    pub(super) target: Option<String>,
    /// PEM bundle of anchors; with `wss://` only.
    pub(super) ca: Option<PathBuf>,
    /// PEM, our certificate there, if it wants one.
    pub(super) certificate: Option<PathBuf>,
    /// PEM, its private key.
    pub(super) key: Option<PathBuf>,
    /// WebSocket ping; default 60 s, at most 9 min.
    pub(super) ping_interval: Option<Span>,
    /// Time for an answer; default 30 s.
    pub(super) call_timeout: Option<Span>,
    /// How often a transaction message is sent that is answered with an error; default 3.
    pub(super) attempts: Option<u32>,
    /// First wait between them; default 60 s.
    pub(super) retry_interval: Option<Span>,
    /// File with the password that we show there (security profiles 1 and 2), the identity being the user.
    pub(super) password_file: Option<PathBuf>,
    /// Under `[evse.ocpp.backend]`: the identity there, if it is another one.
    pub(super) identity: Option<Identity>,
    /// Whether to ask for permessage-deflate; default false.
    pub(super) compression: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    /// How long a setpoint holds without renewal; default 60 s.
    pub(super) lease: Option<Span>,
    /// How long there must be room before a setpoint rises; default 10 s.
    pub(super) raise_dwell: Option<Span>,
    /// How long a car may take to follow; default 5 s.
    pub(super) settle: Option<Span>,
    /// Least charging time before a car may be paused for another; default 10 min.
    pub(super) min_on: Option<Span>,
    /// Least pause of a car that was paused for another; default 30 s.
    pub(super) min_off: Option<Span>,
    /// Most by which a setpoint rises at a time; then the car has `settle` to follow. Default 16 A.
    pub(super) ramp: Option<Milliamps>,
    /// A car that draws less than offered for so long leaves the rest to the others; default 60 s.
    pub(super) follow_after: Option<Span>,
    /// How often such a car is offered its full share again; default 5 min.
    pub(super) probe_every: Option<Span>,
    /// Default 5 s.
    pub(super) meter_stale: Option<Span>,
    /// Default 30 s.
    pub(super) meter_lost: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meter {
    /// Name.
    pub(super) id: MeterId,
    /// Name of the device definition.
    pub(super) device: String,
    /// `"host:port"` of the Modbus TCP server, `"http://host"` of a device that is asked over HTTP; or `bus`.
    pub(super) address: Option<String>,
    /// Name of the `[[bus]]`; or `address`.
    pub(super) bus: Option<String>,
    /// Device file of an optical head (SML, IEC 62056-21); or `address`, or `bus`.
    pub(super) port: Option<PathBuf>,
    /// Name of the `[[broker]]`, with `topic`; or `address`, `bus`, `port`.
    pub(super) broker: Option<String>,
    /// The device's own topic at the broker.
    pub(super) topic: Option<String>,
    /// Modbus unit identifier; default as the definition has it, or 1.
    pub(super) unit: Option<u8>,
    /// Time between readings; default 1 s.
    pub(super) interval: Option<Span>,
    /// Whether it counts the other way round; default false.
    #[serde(default)]
    pub(super) inverted: bool,
}

/// The fields of [`Meter`] that say where it is.
pub(super) struct MeterPlace {
    pub(super) address: Option<String>,
    pub(super) bus: Option<String>,
    pub(super) port: Option<PathBuf>,
    pub(super) broker: Option<String>,
    pub(super) topic: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evse {
    /// Name.
    pub(super) id: EvseId,
    /// OCPP identity; default the name.
    pub(super) identity: Option<Identity>,
    /// Name of its node; default the grid connection.
    pub(super) node: Option<At>,
    /// How its terminals are wired: `"L2 L3 L1"`, `"L3"`; default `"L1 L2 L3"`.
    pub(super) phases: Option<Wiring>,
    /// Rated current per phase.
    pub(super) max: Milliamps,
    /// Least current at which it charges; default 6 A.
    pub(super) min: Option<Milliamps>,
    /// Step of its setpoints; default 1 A.
    pub(super) step: Option<Milliamps>,
    /// What it may draw when its lease ends; 0 A or within min and max; default 6 A.
    pub(super) failsafe: Option<Milliamps>,
    /// `[evse.device]`: driven over a bus; without it the EVSE speaks OCPP.
    pub(super) device: Option<EvseDevice>,
    /// Order of service when not all fit, unless a rule says otherwise: 0 first; default 100.
    pub(super) class: Option<u8>,
    /// Its share among those of its class: 1 to 10; default 1.
    pub(super) weight: Option<u8>,
    /// Whether everybody may use it: then it is no controllable device (EnWG §14a) and no grid limit binds it.
    #[serde(default)]
    pub(super) public: bool,
    /// `[evse.ocpp]`: how it is spoken with.
    #[serde(default)]
    pub(super) ocpp: EvseOcpp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// `"/dev/gpiochip0"`.
    pub(super) chip: Option<PathBuf>,
    /// Line on the chip.
    pub(super) offset: Option<u32>,
    /// On a simulated site: a file that holds 0 or 1.
    pub(super) file: Option<PathBuf>,
    /// Output of a relay only: name of a switch's definition, with `address` or `broker` and `topic`.
    pub(super) switch: Option<String>,
    /// `"http://host"` of the switch.
    pub(super) address: Option<String>,
    /// Name of the switch's `[[broker]]`.
    pub(super) broker: Option<String>,
    /// The switch's own topic.
    pub(super) topic: Option<String>,
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
    /// Name.
    pub(super) id: ContactId,
    /// Where it is.
    pub(super) line: Line,
    /// `"closed"` or `"open"`.
    pub(super) limited_when: Level,
    /// How long a level must hold; default 200 ms.
    pub(super) debounce: Option<Span>,
    /// Power of the controllable devices while limited; or `second` with `limits`, or `signal`.
    pub(super) limit: Option<Watts>,
    /// Second line of a code of two bits.
    pub(super) second: Option<Line>,
    /// With `second`: limits of the codes 0 to 3, `"none"` or a power; the first line's bit counts 1, the second's 2.
    pub(super) limits: Option<Vec<String>>,
    /// `"W3"`, `"S1"` or `"S2"`: feed-in is only told and handed on.
    pub(super) signal: Option<String>,
    /// Name of the limited node; default the grid connection.
    pub(super) node: Option<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Function {
    Release,
    Unlimited,
    #[serde(rename = "one-phase")]
    OnePhase,
    Contactor,
    Contact,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relay {
    /// Name.
    pub(super) id: RelayId,
    /// Where it is.
    pub(super) line: Line,
    /// `"release"`: energised while the EVSE or device may draw; `"unlimited"`: energised while no limit is in force;
    /// `"contactor"`: the contactor before the EVSE; `"contact"`: energised while the contact does not limit.
    pub(super) function: Function,
    /// Name of the EVSE; with `release` and `contactor`.
    pub(super) evse: Option<EvseId>,
    /// Name of the device, instead of an EVSE; with `release` only.
    pub(super) device: Option<DeviceId>,
    /// Name of the contact; with `contact`.
    pub(super) contact: Option<ContactId>,
    /// Where the contactor's mirror contact is.
    pub(super) mirror: Option<Line>,
    /// `"released"` (default): the mirror contact is closed while the main contacts are open; or `"energised"`.
    pub(super) mirror_closed_when: Option<MirrorState>,
    /// Time for the contactor to follow; default 200 ms.
    pub(super) follow: Option<Span>,
    /// With `contactor`: least time closed; default 0 s.
    pub(super) min_on: Option<Span>,
    /// Least time open; default 0 s.
    pub(super) min_off: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MirrorState {
    Released,
    Energised,
}
