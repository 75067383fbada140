//! The way to a target: TCP, TLS to the gateway, SOCKS5, each step within its time.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Channel, DialError, Status,
    attempt::{Attempt, Failure, Ledger},
    channel::Preceded,
    dial::BoxedIo,
    gate::{Backoff, Gate},
    socks::{Connect, GREETING, Reply, SocksError, Step},
    tcp::{self, Line},
};
use crate::{
    clock::Clock,
    config,
    identity::{self, Identity, IdentityError},
    tls::{self, Fault, HanClient, Profile},
};

/// A configuration that reads well and cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SetupError {
    /// The configuration field to change: `uplink.key`.
    pub field: &'static str,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

/// The way through the gateway, or around where there is none. Clones share their gate and their status.
#[derive(Debug, Clone)]
pub struct Uplink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    way: Way,
    step_timeout: Duration,
    clock: Clock,
    gate: Arc<Gate>,
    ledger: Arc<Ledger>,
}

#[derive(Debug)]
enum Way {
    Direct,
    Socks5(Box<Gateway>),
}

#[derive(Debug)]
struct Gateway {
    host: String,
    port: u16,
    interface: Option<String>,
    name: ServerName<'static>,
    tls: HanClient,
}

impl Uplink {
    /// Reads the files that the configuration names. Opens no connection.
    pub fn new(config: &config::Uplink, clock: Clock) -> Result<Self, SetupError> {
        let mut status = Status { mode: "direct", ..Status::default() };
        let way = match &config.mode {
            config::Mode::Direct => Way::Direct,
            config::Mode::Socks5(gateway) => {
                let (gateway, identity) = Gateway::new(gateway, clock)?;
                status.mode = "socks5";
                status.gateway = tcp::authority(&gateway.host, gateway.port);
                status.own = Some(identity.status().clone());
                Way::Socks5(Box::new(gateway))
            }
        };
        let backoff = Backoff::new(config.backoff_min, config.backoff_max, fastrand::Rng::new());
        Ok(Self(Arc::new(Shared {
            way,
            step_timeout: config.step_timeout,
            clock,
            gate: Gate::new(backoff, config.step_timeout, clock),
            ledger: Ledger::new(status, clock),
        })))
    }

    /// The uplink as it is, and each change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.ledger.subscribe()
    }

    /// Waits for a turn, makes one attempt, returns its outcome. Cancel safe. While the way does not work, most
    /// callers get the outcome of an attempt that another one made.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Channel, DialError> {
        let (io, attempt) = self.open(host, port).await?;
        Ok(Channel::new(io, attempt))
    }

    /// Whether no backoff runs.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.gate.ready()
    }

    pub(super) fn clock(&self) -> Clock {
        self.0.clock
    }

    pub(super) fn step_timeout(&self) -> Duration {
        self.0.step_timeout
    }

    /// The stream to the target and its attempt, still undecided.
    pub(super) async fn open(&self, host: &str, port: u16) -> Result<(BoxedIo, Attempt), DialError> {
        let target = tcp::authority(host, port);
        let connect = Connect::new(host, port).map_err(|e| DialError::Hopeless(format!("{target}: {e}")))?;
        let reached = match &self.0.way {
            Way::Direct => format!("TCP reached {target}"),
            Way::Socks5(_) => format!("proxy reply 00 succeeded for {target}"),
        };
        let attempt = Attempt::begin(&self.0.gate, &self.0.ledger, reached).await?;
        let io = match &self.0.way {
            Way::Direct => tcp::connect(host, port, None, self.0.step_timeout)
                .await
                .map(|stream| Box::new(stream) as BoxedIo),
            Way::Socks5(gateway) => self.0.through(gateway, connect).await,
        };
        match io {
            Ok(io) => Ok((io, attempt)),
            Err(failure) => Err(attempt.fail(failure)),
        }
    }
}

impl Gateway {
    fn new(config: &config::Gateway, clock: Clock) -> Result<(Self, Identity), SetupError> {
        let wrong = |field, problem| SetupError { field, problem };
        let identity =
            Identity::load(&config.certificate, &config.key, Profile::Han).map_err(|error| match error {
                IdentityError::Certificate(problem) => wrong("uplink.certificate", problem),
                IdentityError::Key(problem) => wrong("uplink.key", problem),
            })?;
        let (host, port) = tcp::split(&config.address).ok_or_else(|| {
            wrong(
                "uplink.gateway",
                format!("{:?} is not host:port; write it like \"192.0.2.1:8443\"", config.address),
            )
        })?;
        // Only a DNS name goes into the handshake (SNI); an address is never sent.
        let name = tls::server_name(host).map_err(|problem| wrong("uplink.gateway", problem))?;
        if let config::Trust::Ca { name: Some(name), .. } = &config.trust {
            tls::server_name(name).map_err(|problem| wrong("uplink.trust.name", problem))?;
        }
        let tls = HanClient::new(&identity, &config.trust, clock)
            .map_err(|problem| wrong("uplink.trust.ca", problem))?;
        let gateway = Self { host: host.to_owned(), port, interface: config.interface.clone(), name, tls };
        Ok((gateway, identity))
    }
}

impl Shared {
    async fn through(&self, gateway: &Gateway, connect: Connect) -> Result<BoxedIo, Failure> {
        let tcp = tcp::connect(&gateway.host, gateway.port, gateway.interface.as_deref(), self.step_timeout)
            .await?;
        let mut tls = self.tls(gateway, tcp).await?;
        let rest = match timeout(self.step_timeout, socks(&mut tls, connect)).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(Failure::new(format!("proxy: no reply within {:?}", self.step_timeout)));
            }
        };
        self.ledger.reply(Reply(0));
        Ok(if rest.is_empty() { Box::new(tls) } else { Box::new(Preceded::new(rest, tls)) })
    }

    async fn tls(&self, gateway: &Gateway, tcp: Line) -> Result<TlsStream<Line>, Failure> {
        let connector = TlsConnector::from(gateway.tls.config());
        let result = timeout(self.step_timeout, connector.connect(gateway.name.clone(), tcp)).await;
        let session = match &result {
            Ok(Ok(stream)) => Some(tls::session(stream.get_ref().1)),
            _ => None,
        };
        self.ledger.tls(gateway.tls.seen().and_then(|seen| identity::describe(&seen)), session);
        match result {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let fault = Fault::new(&error);
                Err(Failure {
                    text: format!("TLS with the gateway: {fault}"),
                    alert: fault.alert,
                    reply: None,
                })
            }
            Err(_) => Err(Failure::new(format!(
                "TLS with the gateway: no handshake within {:?}",
                self.step_timeout
            ))),
        }
    }
}

/// Asks the proxy for the way; what it sent behind its reply belongs to the application.
async fn socks(tls: &mut TlsStream<Line>, mut connect: Connect) -> Result<Vec<u8>, Failure> {
    let io = |error: std::io::Error| {
        let fault = Fault::new(&error);
        Failure { text: format!("proxy: {fault}"), alert: fault.alert, reply: None }
    };
    let refused = |error: SocksError| match error {
        SocksError::Refused(reply) => {
            Failure { text: format!("proxy {error}"), alert: None, reply: Some(reply) }
        }
        other => Failure::new(format!("proxy: {other}")),
    };
    tls.write_all(&GREETING).await.map_err(io)?;
    tls.flush().await.map_err(io)?;
    let mut piece = [0; 512];
    loop {
        let n = tls.read(&mut piece).await.map_err(io)?;
        if n == 0 {
            return Err(Failure::new("proxy: closed the connection before its reply".to_owned()));
        }
        let (used, step) = connect.feed(&piece[..n]).map_err(refused)?;
        match step {
            Step::More => {}
            Step::Send(_) if used < n => return Err(refused(SocksError::Early(n - used))),
            Step::Send(request) => {
                tls.write_all(&request).await.map_err(io)?;
                tls.flush().await.map_err(io)?;
            }
            Step::Open => return Ok(piece[used..n].to_vec()),
        }
    }
}
