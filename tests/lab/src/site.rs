//! A whole simulated site: everything around the daemon, its configuration and key files, and the daemon itself.
//!
//! In: a [`Plan`]. Out: a [`Lab`] with a handle on each part. Invariant: nothing outlives the [`Lab`]; its files are
//! in a directory of its own.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use ladewart_proto::v1::Limit;
use tokio::net::TcpSocket;

use crate::{
    backend::Backend,
    connection::{Connection, L123, Wiring},
    evse::{Evse, Settings, car::Car},
    gateway::{Gateway, Profile, Route},
    log::Log,
    meter::Meter,
    observer::Observer,
    operator::Operator,
    pki::{Authority, Identity},
    process::Daemon,
};

/// How the gateway names the backend.
pub const EMT: &str = "emt.example";
/// The backend's port as the gateway's profile has it.
pub const EMT_PORT: u16 = 9000;

/// Time for anything that should happen at once, on a loaded machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A car as most are: three phases, 16 A, half empty.
pub const CAR: Car = Car { phases: 3, max_amps: 16.0, room_wh: 500_000.0 };

/// A charge point of the site.
#[derive(Debug, Clone)]
pub struct EvsePlan {
    /// Name and OCPP identity.
    pub id: String,
    /// Terminals → phases.
    pub wiring: Wiring,
    /// How many terminals.
    pub phases: usize,
    /// Most current per phase, A.
    pub max: u32,
}

impl EvsePlan {
    /// A three-phase EVSE.
    #[must_use]
    pub fn new(id: &str, wiring: Wiring, max: u32) -> Self {
        Self { id: id.to_owned(), wiring, phases: 3, max }
    }
}

/// What the site is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Fuse of the grid connection per phase, A.
    pub fuse: u32,
    /// Charge points.
    pub evses: Vec<EvsePlan>,
    /// Lease of a setpoint, s.
    pub lease: u32,
    /// Dwell before a setpoint rises, ms.
    pub raise_dwell: u32,
    /// Gradual return after a limit, ms.
    pub return_over: u32,
    /// More configuration, TOML.
    pub extra: String,
    /// How many times faster than real ones cars ramp and batteries fill.
    pub pace: f64,
    /// Time between MeterValues of the charge points.
    pub meter_interval: Duration,
    /// Time that charge points wait for an answer.
    pub call_timeout: Duration,
    /// What the house draws at first, A per phase.
    pub house: [f64; 3],
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            fuse: 63,
            evses: vec![EvsePlan::new("carport", L123, 32)],
            lease: 10,
            raise_dwell: 500,
            return_over: 0,
            extra: String::new(),
            pace: 5.0,
            meter_interval: Duration::from_secs(1),
            call_timeout: Duration::from_secs(10),
            house: [2.0; 3],
        }
    }
}

/// Keys and certificates of one lab.
pub struct Keys {
    /// Signs the certificates that gateway and CLS know each other by.
    pub han: Authority,
    /// Signs those of the WAN leg.
    pub wan: Authority,
    /// The gateway on HAN.
    pub gateway: Identity,
    /// The site.
    pub cls: Identity,
}

/// A running lab.
pub struct Lab {
    /// What it was made from.
    pub plan: Plan,
    /// The gateway.
    pub gateway: Gateway,
    /// The backend behind it.
    pub backend: Backend,
    /// The meter of the grid connection.
    pub meter: Meter,
    /// The grid connection.
    pub connection: Connection,
    /// The charge points, in the order of the plan.
    pub evses: Vec<Evse>,
    /// A caller on the daemon's socket.
    pub operator: Operator,
    /// Looks whether the site is safe.
    pub observer: Observer,
    /// The daemon's log over all its lives.
    pub log: Log<String>,
    /// Keys and certificates.
    pub keys: Keys,
    daemon: Option<Daemon>,
    reserved: (SocketAddr, TcpSocket),
    directory: tempfile::TempDir,
}

impl Lab {
    /// Starts everything but the daemon and writes its configuration.
    pub async fn prepare(plan: Plan) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("ladewart-lab-").tempdir()?;
        let han = Authority::new("Lab HAN")?;
        let wan = Authority::new("Lab WAN")?;
        let keys = Keys { gateway: han.issue("smgw.local")?, cls: han.issue("cls.lab")?, han, wan };
        let backend = Backend::start(vec![keys.wan.acceptor(&keys.wan.issue(EMT)?)?]).await?;
        let route = Route { address: backend.address(), tls_name: Some(EMT.to_owned()) };
        let gateway = Gateway::start(Profile {
            han: keys.han.acceptor(&keys.gateway)?,
            wan: keys.wan.connector(&keys.wan.issue("gateway.wan")?)?,
            routes: HashMap::from([(format!("{EMT}:{EMT_PORT}"), route)]),
        })
        .await?;
        let reserved = reserve_port()?;
        let connection = Connection::default();
        connection.house(plan.house);
        let mut evses = Vec::new();
        for (i, e) in plan.evses.iter().enumerate() {
            let evse = Evse::start(Settings {
                max_amps: f64::from(e.max),
                phases: e.phases,
                register_wh: 100_000.0 * (i + 1) as f64,
                meter_interval: plan.meter_interval,
                call_timeout: plan.call_timeout,
                pace: plan.pace,
                ..Settings::new(&e.id, &reserved.0.to_string())
            });
            connection.wire(e.wiring, evse.watch());
            evses.push(evse);
        }
        let metered = connection.clone();
        let meter = Meter::start(Arc::new(move || metered.currents())).await?;
        let observer = Observer::start(connection.clone(), f64::from(plan.fuse));
        let operator = Operator::new(&directory.path().join("ladewartd.sock"))?;
        let lab = Self {
            plan,
            gateway,
            backend,
            meter,
            connection,
            evses,
            operator,
            observer,
            log: Log::default(),
            keys,
            daemon: None,
            reserved,
            directory,
        };
        lab.write("cls.pem", &lab.keys.cls.certificate_pem)?;
        lab.write("cls.key", &lab.keys.cls.key_pem)?;
        lab.write("ladewartd.toml", &lab.configuration())?;
        Ok(lab)
    }

    /// Starts everything and waits until the daemon is READY.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let mut lab = Self::prepare(plan).await?;
        lab.start_daemon().await?;
        Ok(lab)
    }

    /// The daemon's configuration for this site.
    #[must_use]
    pub fn configuration(&self) -> String {
        let mut text = format!(
            r#"[site]
name = "Lab"
data = "data"

[api]
socket = "ladewartd.sock"

[uplink]
mode = "socks5"
gateway = "{gateway}"
certificate = "cls.pem"
key = "cls.key"
trust = {{ pin = "{pin}" }}
backoff_min = "1 s"
backoff_max = "2 s"
step_timeout = "5 s"

[backend]
url = "ws://{EMT}:{EMT_PORT}/ocpp"
call_timeout = "3 s"
retry_interval = "1 s"
attempts = 3

[ocpp]
listen = "{listen}"
accept_unknown_offline = true

[control]
lease = "{lease} s"
raise_dwell = "{dwell} ms"
settle = "2 s"
min_on = "60 s"
min_off = "1 s"
ramp = "32 A"
meter_stale = "3 s"
meter_lost = "6 s"

[grid]
return_over = "{back} ms"

[[meter]]
id = "grid"
device = "eastron-sdm630"
address = "{meter}"
interval = "500 ms"

[[node]]
id = "house"
fuse = "{fuse} A"
meter = "grid"
"#,
            gateway = self.gateway.address(),
            pin = self.keys.gateway.fingerprint(),
            listen = self.reserved.0,
            lease = self.plan.lease,
            dwell = self.plan.raise_dwell,
            back = self.plan.return_over,
            meter = self.meter.address(),
            fuse = self.plan.fuse,
        );
        for e in &self.plan.evses {
            let phases: Vec<_> = e.wiring[..e.phases].iter().map(|p| format!("L{}", p + 1)).collect();
            let _ = write!(
                text,
                "\n[[evse]]\nid = \"{}\"\nmax = \"{} A\"\nphases = \"{}\"\n",
                e.id,
                e.max,
                phases.join(" ")
            );
        }
        text + "\n" + &self.plan.extra
    }

    /// Writes a file beside the configuration, readable by its owner only.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Path of a file beside the configuration.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The daemon's Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("ladewartd.sock")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path("ladewartd.toml")
    }

    /// Directory of everything.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where charge points connect.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.reserved.0
    }

    /// Starts the daemon and waits until it is READY.
    pub async fn start_daemon(&mut self) -> anyhow::Result<()> {
        ensure!(self.daemon.is_none(), "the daemon runs already");
        self.daemon = Some(Daemon::start(&self.config_file(), &self.log).await?);
        Ok(())
    }

    /// The running daemon.
    pub fn daemon(&mut self) -> anyhow::Result<&mut Daemon> {
        self.daemon.as_mut().context("the daemon does not run")
    }

    /// As a power cut.
    pub async fn kill_daemon(&mut self) -> anyhow::Result<()> {
        self.daemon.take().context("the daemon does not run")?.kill().await
    }

    /// As systemd stops it. Errors: an exit code other than 0.
    pub async fn stop_daemon(&mut self) -> anyhow::Result<()> {
        let status = self.daemon.take().context("the daemon does not run")?.stop().await?;
        ensure!(status.success(), "the daemon ended with {status}\n{}", crate::process::tail(&self.log));
        Ok(())
    }

    /// A charge point by name.
    #[must_use]
    pub fn evse(&self, id: &str) -> Option<&Evse> {
        self.evses.iter().find(|e| e.identity() == id)
    }

    /// Limits the site until cleared, and tells the observer.
    pub async fn limit(&self, id: &str, watts: i64) -> anyhow::Result<Limit> {
        let limit = self.operator.limit(id, watts).await?;
        self.observer.limit(Some(watts));
        Ok(limit)
    }

    /// Ends a limit, and tells the observer.
    pub async fn clear(&self, id: &str) -> anyhow::Result<()> {
        self.observer.limit(None);
        self.operator.clear(id).await
    }
}

/// A port that stays ours without being listened on: the socket is bound, so the system gives the port to nobody
/// else; with SO_REUSEADDR the daemon may listen on it, again after each restart.
fn reserve_port() -> anyhow::Result<(SocketAddr, TcpSocket)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok((socket.local_addr()?, socket))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_reserved_port_refuses_until_somebody_listens_again_and_again() -> anyhow::Result<()> {
        let (address, _held) = reserve_port()?;
        for _ in 0..3 {
            assert!(TcpStream::connect(address).await.is_err());
            let listener = TcpListener::bind(address).await?;
            let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
            drop((client?, server?));
        }
        Ok(())
    }
}
