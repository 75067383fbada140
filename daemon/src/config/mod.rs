//! The site's configuration: TOML text → typed values, or an error that names file, line, field and what would
//! be right.
//!
//! In: one TOML document. Out: [`Config`], whole and cross-checked; nothing downstream checks again. Invariant:
//! a value of type [`Config`] has one root node, no dangling name, no identity twice, and every quantity in range.

pub mod charging;
mod check;
mod error;
mod raw;
mod tree;

use std::{collections::HashSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;

pub use self::{
    check::{load, parse},
    error::{ConfigError, Source},
    tree::{Device, DeviceKind, Grid, GridSource, Node, SetpointRegister},
};
use crate::{
    device::bus::Port,
    ids::{ContactId, EvseId, Identity, MeterId, RelayId},
    ocpp::{Secret, Version},
    units::{Milliamps, Millivolts, Watts, Wiring},
};

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The site's name, for people.
    pub name: String,
    /// The gRPC socket.
    pub api: Api,
    /// Directory of the database.
    pub data_dir: PathBuf,
    /// The channel through the gateway; `None` runs the site without a backend.
    pub uplink: Option<Uplink>,
    /// The OCPP backend.
    pub backend: Option<Backend>,
    /// Who administers the site from behind the gateway; with [`Config::uplink`] only.
    pub operators: Vec<Operator>,
    /// The side towards the EVSEs.
    pub ocpp: Ocpp,
    /// How limits and leases move.
    pub control: Control,
    /// The electrical tree, parents before children; the first is the grid connection.
    pub nodes: Vec<Node>,
    /// Serial lines.
    pub buses: Vec<Bus>,
    /// MQTT brokers.
    pub brokers: Vec<Broker>,
    /// Meters.
    pub meters: Vec<Meter>,
    /// Directory of the user's own device definitions.
    pub device_dir: Option<PathBuf>,
    /// Charging points.
    pub evses: Vec<Evse>,
    /// Other controllable devices.
    pub devices: Vec<Device>,
    /// How limits from outside are kept.
    pub grid: Grid,
    /// Digital inputs.
    pub contacts: Vec<Contact>,
    /// Digital outputs.
    pub relays: Vec<Relay>,
    /// Tariffs, named variables, formulas and charging rules.
    pub charging: charging::Charging,
    /// How the device's own software is updated; not at all without.
    pub update: Option<Update>,
    /// The site as a SunSpec device; off without.
    pub sunspec: Option<SunSpec>,
}

/// The site as a SunSpec device over Modbus TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SunSpec {
    /// Where.
    pub listen: SocketAddr,
    /// Its Modbus unit identifier.
    pub unit: u8,
    /// What 100 % stands for.
    pub full: Watts,
    /// Index of the node that it limits.
    pub node: usize,
    /// How long a limit holds that is not written again; without it until it is taken back.
    pub holds: Option<Duration>,
}

/// The device's own software.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Directory that takes a bundle on its way to RAUC.
    pub spool: PathBuf,
    /// Largest bundle in bytes.
    pub most: u64,
    /// A file that is there when the running system is not on trial.
    pub confirmed: Option<PathBuf>,
    /// A file in which the system's own hook leaves why it refused a bundle.
    pub reason: Option<PathBuf>,
    /// A file whose appearance makes the system start again.
    pub restart: Option<PathBuf>,
}

/// The gRPC socket and who may do what on it.
#[derive(Debug, Clone)]
pub struct Api {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Roles of socket users by numeric user id. The daemon's own user and root are `admin` without an entry.
    pub users: Vec<(u32, Role)>,
    /// Roles of those who come over TLS.
    pub certificates: Vec<KnownCertificate>,
    /// The interface over TCP; off without.
    pub lan: Option<Lan>,
}

/// A certificate that has a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCertificate {
    /// How it is recognised.
    pub by: Mark,
    /// The caller's name in limits and in the journal, without the `cert:` before it.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
}

/// How a certificate is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// SHA-256 of the whole certificate (DER).
    Fingerprint([u8; 32]),
    /// A URI among its subject alternative names (RFC 5280 §4.2.1.6).
    Uri(String),
}

/// The interface over TCP with mutual TLS.
#[derive(Debug, Clone)]
pub struct Lan {
    /// Where.
    pub listen: SocketAddr,
    /// PEM file with our certificate there, leaf first.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM bundle of the callers' issuers.
    pub ca: PathBuf,
}

/// Where an operator is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorPlace {
    /// We open the connection through the uplink.
    Dialed {
        /// Host as the gateway's proxy shall resolve it.
        host: String,
        /// Port.
        port: u16,
    },
    /// The gateway opens it: [`Mode::Listen`].
    Coming {
        /// Name of the uplink's target.
        target: String,
    },
}

/// Somebody who administers the site through the uplink.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Name.
    pub name: String,
    /// Where they are met.
    pub place: OperatorPlace,
    /// How the operator's certificate is judged.
    pub trust: OperatorTrust,
    /// PEM file with our certificate there, leaf first.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// The most that anybody may be on this connection.
    pub roles: Vec<Role>,
}

/// How an operator's certificate is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorTrust {
    /// SHA-256 of the whole certificate (DER).
    Pin([u8; 32]),
    /// It ends in one of these anchors and carries the name.
    Ca {
        /// PEM bundle.
        file: PathBuf,
        /// The expected name; of no meaning for one who comes.
        name: String,
    },
}

/// What a caller may do; see `api/authz.rs` for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Commissions the site.
    Installer,
    /// The grid operator: limits, evidence.
    Grid,
    /// The energy supplier: tariffs, transactions.
    Supplier,
    /// Everything.
    Admin,
}

impl Role {
    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Installer => "installer",
            Self::Grid => "grid",
            Self::Supplier => "supplier",
            Self::Admin => "admin",
        }
    }
}

/// How the site reaches the world behind the gateway.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// The way in.
    pub mode: Mode,
    /// Who is reached; the backend may be missing here, except with [`Mode::Listen`].
    pub targets: Vec<Target>,
    /// Connections to one target at a time.
    pub connections: Connections,
    /// Age at which a connection is to be renewed.
    pub renew_after: Duration,
    /// First wait after a failure; doubled with jitter up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest wait between two attempts.
    pub backoff_max: Duration,
    /// Time for one step of the connection (TCP, TLS, proxy).
    pub step_timeout: Duration,
}

/// The proxy format (domain: TR-03109-1 leaves it to the gateway administrator).
#[derive(Debug, Clone)]
pub enum Mode {
    /// No gateway: the site reaches the backend over its own network.
    Direct,
    /// TLS with mutual certificates to the gateway, SOCKS5 CONNECT inside.
    Socks5(Gateway),
    /// TLS with mutual certificates to the gateway; the name in the handshake (SNI) leads to the target.
    Sni(Gateway),
    /// The gateway connects to us (HKS4, HKS5): one port per target. [`Gateway::address`] is our own.
    Listen(Gateway),
}

/// How many connections may stand at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// As many as are asked for: OCPP needs one per EVSE.
    Many,
    /// One for each target: a new one waits for the end of the old one.
    OnePerTarget,
}

/// Somebody behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name, for people and for other parts of the configuration.
    pub name: String,
    /// How the gateway is told whom we mean.
    pub place: Place,
}

/// How a target is named towards the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Host as the proxy resolves it, and port.
    Host(String, u16),
    /// The name in the TLS handshake.
    Sni(String),
    /// Our port where the gateway connects for it.
    Port(u16),
}

/// The Smart Meter Gateway on the HAN side.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Host name or IP address and port, as written; with [`Mode::Listen`] our own address.
    pub address: String,
    /// Network interface to bind to.
    pub interface: Option<String>,
    /// What we show.
    pub own: Own,
    /// How the gateway's certificate is judged.
    pub trust: Trust,
    /// What it is offered in the handshake.
    pub tls: GatewayTls,
}

/// What a gateway is offered beside TLS 1.2 with the GCM suites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayTls {
    /// TLS 1.3.
    pub tls13: bool,
    /// AES128-CBC-SHA256.
    pub cbc: bool,
    /// Whether the renegotiation SCSV is left out of the handshake; `None`: once the gateway has refused it.
    pub omit_scsv: Option<bool>,
}

/// Where our certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// In PEM files.
    Files {
        /// Our CLS certificate, leaf first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// In the device's own store, under this name until another one is selected.
    Stored(String),
}

/// How a peer's certificate is judged. Several ways may stand side by side: one of them suffices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// SHA-256 of whole certificates (DER).
    pub pins: Vec<[u8; 32]>,
    /// Anchors that a chain may end in.
    pub ca: Option<Anchors>,
    /// Whether an administrator's command may take on the certificate that is shown next.
    pub tofu: bool,
}

/// A bundle of trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchors {
    /// PEM file.
    pub file: PathBuf,
    /// The subject alternative name that the certificate must carry.
    pub name: Option<String>,
}

/// The supplier's OCPP backend (CSMS).
#[derive(Debug, Clone)]
pub struct Backend {
    /// Without TLS: the gateway's channel is the protection. With TLS: `wss`.
    pub tls: Option<BackendTls>,
    /// Host name or address as the gateway's proxy shall resolve it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of its [`Target`]; without it the one with this host and port, or an unnamed one.
    pub target: Option<String>,
    /// Path before the identity, with a slash at both ends.
    pub path: String,
    /// WebSocket ping interval: traffic within the gateway's idle time.
    pub ping_interval: Duration,
    /// Time for an answer to a CALL.
    pub call_timeout: Duration,
    /// How often a transaction message is sent that the backend answers with an error (OCPP 1.6
    /// `TransactionMessageAttempts`).
    pub attempts: u32,
    /// First wait between them (`TransactionMessageRetryInterval`).
    pub retry_interval: Duration,
    /// Shown there, with the identity as the user.
    pub password: Option<Secret>,
    /// The EVSE's identity there, if it is another one.
    pub identity: Option<Identity>,
    /// Whether permessage-deflate is asked for.
    pub compression: bool,
}

/// TLS inside the channel.
#[derive(Debug, Clone)]
pub struct BackendTls {
    /// PEM bundle of anchors.
    pub ca: PathBuf,
    /// Our certificate and key there, if the backend wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The side towards the EVSEs.
#[derive(Debug, Clone)]
pub struct Ocpp {
    /// Where EVSEs connect.
    pub listen: SocketAddr,
    /// WebSocket ping interval.
    pub ping_interval: Duration,
    /// Time for an EVSE's answer to our own CALL.
    pub call_timeout: Duration,
    /// What happens to a card that nothing is known about while the backend cannot be asked.
    pub accept_unknown_offline: bool,
    /// Identity of the site as one charge point; it is none without.
    pub site: Option<Identity>,
    /// Identity of the controller itself towards a backend of 2.x; it tells nothing there without.
    pub controller: Option<Identity>,
    /// Cards of the site's own users, in lower case: welcome while the backend cannot be asked.
    pub users: Arc<HashSet<String>>,
    /// Largest frame in bytes.
    pub max_frame: usize,
    /// TLS on the same port; without it there is none.
    pub tls: Option<OcppTls>,
    /// Whether an EVSE that offers permessage-deflate gets it.
    pub compression: bool,
    /// What happens to payloads that the official schemas do not allow.
    pub check: Check,
    /// Directory of the official schemas; there unless [`Check::Off`].
    pub schemas: Option<PathBuf>,
}

/// What we are towards the EVSEs over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcppTls {
    /// PEM file with our certificate, leaf first.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM bundle of the issuers of the EVSEs' certificates.
    pub ca: Option<PathBuf>,
}

/// What an EVSE must show (security profiles of the 1.6 Security White Paper and of 2.x Part 2 A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// Nothing.
    #[default]
    None,
    /// Profile 1: a password.
    Basic,
    /// Profile 2: a password inside TLS.
    TlsBasic,
    /// Profile 3: a certificate.
    MutualTls,
}

/// What happens to payloads that the official schemas do not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// They are not checked: the other side judges.
    #[default]
    Off,
    /// They pass, and are logged once per kind.
    Warn,
    /// CALLs are answered with the error that names what is wrong.
    Refuse,
}

/// How one EVSE is spoken with.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct EvseOcpp {
    /// The versions that it may speak; at least one.
    pub versions: Vec<Version>,
    /// What it must show.
    pub security: Security,
    /// Its password.
    pub password: Option<Secret>,
    /// It gets one profile with all limits.
    pub merged_profiles: bool,
    /// It can be told to charge on one phase.
    pub one_phase: bool,
    /// It is let go while the backend is away.
    pub strict: bool,
    /// It is pinged, and let go when it does not answer.
    pub pings: bool,
    /// It is on its own.
    pub pass_through: bool,
    /// A backend of its own.
    pub backend: Option<Backend>,
}

impl Default for EvseOcpp {
    fn default() -> Self {
        Self {
            versions: Version::ALL.to_vec(),
            security: Security::None,
            password: None,
            merged_profiles: false,
            one_phase: false,
            strict: false,
            pings: true,
            pass_through: false,
            backend: None,
        }
    }
}

/// How limits and leases move.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// How long a setpoint holds without renewal; renewed at half.
    pub lease: Duration,
    /// How long there must be room before a setpoint rises.
    pub raise_dwell: Duration,
    /// How long a car may take to follow a setpoint.
    pub settle: Duration,
    /// Least time a car charges before it may be paused for another.
    pub min_on: Duration,
    /// Least pause of a car that was paused for another.
    pub min_off: Duration,
    /// Most by which a setpoint rises at a time.
    pub ramp: Milliamps,
    /// How long a car draws less than offered until it leaves the rest to the others.
    pub follow_after: Duration,
    /// How long until it is offered a little more than it draws; longer each time that it did not take it.
    pub probe_every: Duration,
    /// How long a car that took nothing may be without its least current while the others need it; longer each time
    /// that it took nothing again.
    pub wake_every: Duration,
    /// Age at which a meter reading is stale.
    pub meter_stale: Duration,
    /// Age at which the meter counts as lost.
    pub meter_lost: Duration,
}

/// A serial line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bus {
    /// Name.
    pub id: String,
    /// Device file, speed, form and times.
    pub port: Port,
}

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// Host and port of a Modbus TCP server.
    Address(String),
    /// Index in [`Config::buses`].
    Bus(usize),
    /// The device file of an optical head.
    Port(PathBuf),
    /// Host and port of an HTTP server.
    Http(String),
    /// A topic of an MQTT broker.
    Topic {
        /// Index in [`Config::brokers`].
        broker: usize,
        /// The device's own topic, without a slash at its end.
        topic: String,
    },
}

/// An MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Name.
    pub id: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User and password.
    pub login: Option<(String, Secret)>,
}

/// A wallbox on a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvseDevice {
    /// Name of the device definition.
    pub definition: String,
    /// Where it is.
    pub at: Attachment,
    /// Modbus unit identifier; as the definition has it without.
    pub unit: Option<u8>,
    /// Time between two readings.
    pub interval: Duration,
    /// What the box falls to by itself, where that cannot be read.
    pub failsafe: Option<Milliamps>,
    /// Under which card whoever plugs in charges; without, the backend or a person must start.
    pub card: Option<String>,
}

/// A meter on a bus.
#[derive(Debug, Clone)]
pub struct Meter {
    /// Name.
    pub id: MeterId,
    /// Name of the device definition.
    pub device: String,
    /// Where it is.
    pub at: Attachment,
    /// Modbus unit identifier; as the definition has it without.
    pub unit: Option<u8>,
    /// Time between two readings.
    pub interval: Duration,
    /// Whether the meter counts the other way round.
    pub inverted: bool,
}

/// A charging point.
#[derive(Debug, Clone)]
pub struct Evse {
    /// Name on the site.
    pub id: EvseId,
    /// OCPP identity.
    pub identity: Identity,
    /// Index of its node in [`Config::nodes`].
    pub node: usize,
    /// Terminals → phases.
    pub wiring: Wiring,
    /// Most current per phase.
    pub max: Milliamps,
    /// Least current at which it charges (IEC 61851-1: 6 A).
    pub min: Milliamps,
    /// Smallest step of a setpoint.
    pub step: Milliamps,
    /// What it falls to when its lease ends.
    pub failsafe: Milliamps,
    /// How it is driven over a bus; it speaks OCPP without.
    pub device: Option<EvseDevice>,
    /// How it is spoken with.
    pub ocpp: EvseOcpp,
    /// Order of service when not all fit: 0 first.
    pub class: u8,
    /// Its share among those of its class.
    pub weight: u8,
    /// Open to everybody: no controllable device (EnWG §14a), so no grid limit binds it.
    pub public: bool,
}

impl Evse {
    /// The most it can draw, at nominal voltage.
    #[must_use]
    pub fn rated(&self) -> Watts {
        let terminals = i64::try_from(self.wiring.count()).unwrap_or(3);
        Millivolts::NOMINAL.power_ceil(Milliamps(self.max.0.saturating_mul(terminals)))
    }
}

/// A digital line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line of a GPIO chip, by offset or by name.
    Gpio {
        /// `/dev/gpiochipN`.
        chip: PathBuf,
        /// Offset on the chip.
        offset: u32,
    },
    /// A file that holds `0` or `1`: for simulated sites.
    File(PathBuf),
    /// A switch in the network: the output of a relay.
    Switch {
        /// The relay that it is.
        relay: RelayId,
        /// Name of the device definition.
        definition: String,
        /// Where it is.
        at: Attachment,
    },
}

/// A digital input that carries a limit.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Name.
    pub id: ContactId,
    /// Where it is.
    pub line: Line,
    /// The level that means "limited": `true` when closed.
    pub limited_when_closed: bool,
    /// How long a level must hold.
    pub debounce: Duration,
    /// What it means.
    pub meaning: ContactMeaning,
    /// Index of the limited node.
    pub node: usize,
}

/// What a contact means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContactMeaning {
    /// Limited to this power, or not.
    Limit(Watts),
    /// With a second line a code of two bits: the first line's bit counts 1, the second one's 2, each set where it
    /// limits. What each code is limited to.
    Code(Line, [Option<Watts>; 4]),
    /// Told, journaled, handed on by relays: feed-in is not ours to limit (FNN W3, S1, S2).
    Signal,
}

impl Contact {
    /// The limit of a code; 0 is "not limited" for a single line.
    #[must_use]
    pub fn limit(&self, code: u8) -> Option<Watts> {
        match &self.meaning {
            ContactMeaning::Limit(watts) => (code != 0).then_some(*watts),
            ContactMeaning::Code(_, limits) => limits.get(usize::from(code)).copied().flatten(),
            ContactMeaning::Signal => None,
        }
    }

    /// The strictest limit: what counts while it cannot be read.
    #[must_use]
    pub fn strictest(&self) -> Option<Watts> {
        (0..4).filter_map(|code| self.limit(code)).min()
    }
}

/// A digital output.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Name.
    pub id: RelayId,
    /// Where it is.
    pub line: Line,
    /// What it follows. De-energised is the safe state in every case.
    pub function: RelayFunction,
    /// What tells the state of its contactor's main contacts.
    pub mirror: Option<Mirror>,
    /// Least time that a contactor stays closed.
    pub min_on: Duration,
    /// Least time that it stays open.
    pub min_off: Duration,
}

/// A contact that is forced by a contactor's main contacts (IEC 60947-4-1 annex F).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where it is.
    pub line: Line,
    /// It is closed while the main contacts are open.
    pub closed_when_released: bool,
    /// Time for the main contacts to follow.
    pub follow: Duration,
}

impl Mirror {
    /// What the hardware side may filter away.
    #[must_use]
    pub fn bounce(&self) -> Duration {
        (self.follow / 4).min(Duration::from_millis(20))
    }
}

/// What a relay follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayFunction {
    /// Energised while the EVSE (index in [`Config::evses`]) may charge: for its release input.
    Release(usize),
    /// Energised while the EVSE (index) shall charge on one phase: for a contactor that takes the others away.
    OnePhase(usize),
    /// Energised while the device (index in [`Config::devices`]) may run.
    Device(usize),
    /// Energised while no grid limit is in force: for devices that only know on and off.
    Unlimited,
    /// The contactor before the EVSE (index in [`Config::evses`]): closed while it may charge, opened without load.
    Contactor(usize),
    /// Energised while the contact (index in [`Config::contacts`]) does not limit: hands a signal on.
    Contact(usize),
}
