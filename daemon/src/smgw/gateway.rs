//! The way to the gateway and through its proxy, step by step.
//!
//! In: a gateway and a target. Out: a stream to the target, or the step that failed. Each step has its time; what a
//! step found is told to who watches. Nothing here knows of turns and retries.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::{DnsName, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    attempt::Ledger,
    channel::Preceded,
    dial::BoxedIo,
    line::Line,
    link::SetupError,
    socks::{Connect, GREETING, Reply, SocksError, Step as Socks},
    step::{Cause, Failure, Step},
    tcp,
};
use crate::{
    clock::Clock,
    config,
    identity::{self, Identity, IdentityError, PinBook, Store},
    smgw::CertificateStatus,
    tls::{self, Fault, HanClient, HanStream, Judge, Profile, Shown},
};

/// Hears what each step found.
pub(super) type Seen<'a> = &'a mut (dyn FnMut(Step, String) + Send);

/// For who does not want to hear.
pub(super) fn deaf(_: Step, _: String) {}

/// What we show to the gateway.
#[derive(Debug, Clone)]
pub(super) enum Own {
    /// From files; does not change.
    Fixed(Shown, CertificateStatus),
    /// From the device's store; follows its selection.
    Stored(Store),
}

impl Own {
    pub(super) fn new(config: &config::Own, store: Option<&Store>) -> Result<Self, SetupError> {
        let wrong = |field, problem| SetupError { field, problem };
        match (config, store) {
            (config::Own::Files { certificate, key }, _) => {
                let identity =
                    Identity::load(certificate, key, Profile::HAN).map_err(|error| match error {
                        IdentityError::Certificate(problem) => wrong("uplink.certificate", problem),
                        IdentityError::Key(problem) => wrong("uplink.key", problem),
                    })?;
                let shown = Shown::default();
                shown.set(Some(identity.certified_key()));
                Ok(Self::Fixed(shown, identity.status().clone()))
            }
            (config::Own::Stored(name), Some(store)) => {
                store.default_to(name);
                Ok(Self::Stored(store.clone()))
            }
            (config::Own::Stored(_), None) => {
                Err(wrong("uplink.identity", "needs the device's own store of identities".to_owned()))
            }
        }
    }

    pub(super) fn shown(&self) -> Shown {
        match self {
            Self::Fixed(shown, _) => shown.clone(),
            Self::Stored(store) => store.shown(),
        }
    }

    /// What can be shown of it, or why there is nothing to show.
    pub(super) fn status(&self) -> Result<CertificateStatus, String> {
        match self {
            Self::Fixed(_, status) => Ok(status.clone()),
            Self::Stored(store) => match &*store.selected().borrow() {
                Ok(identity) => Ok(identity.status().clone()),
                Err(problem) => Err(problem.clone()),
            },
        }
    }
}

/// What judges the gateway's certificate.
pub(super) fn judge(trust: &config::Trust, pins: PinBook, clock: Clock) -> Result<Arc<Judge>, SetupError> {
    let wrong = |field, problem| SetupError { field, problem };
    if let Some(name) = trust.ca.as_ref().and_then(|ca| ca.name.as_ref()) {
        tls::server_name(name).map_err(|problem| wrong("uplink.trust.name", problem))?;
    }
    let provider = Arc::new(tls::provider(Profile::HAN));
    Judge::new(trust, pins, &provider, clock).map_err(|problem| wrong("uplink.trust.ca", problem))
}

/// A gateway that we connect to.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) host: String,
    pub(super) port: u16,
    interface: Option<String>,
    name: ServerName<'static>,
    tls: HanClient,
    time: Duration,
}

impl Gateway {
    pub(super) fn new(
        config: &config::Gateway,
        own: &Own,
        judge: Arc<Judge>,
        time: Duration,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let wrong = |field, problem| SetupError { field, problem };
        let (host, port) = tcp::split(&config.address).ok_or_else(|| {
            wrong(
                "uplink.gateway",
                format!("{:?} is not host:port; write it like \"192.0.2.1:8443\"", config.address),
            )
        })?;
        // Only a DNS name goes into the handshake (SNI); an address is never sent.
        let name =
            tls::server_name(tcp::without_zone(host)).map_err(|problem| wrong("uplink.gateway", problem))?;
        let tls = HanClient::new(&own.shown(), judge, config.tls, clock)
            .map_err(|problem| wrong("uplink.certificate", problem))?;
        let (host, interface) = (host.to_owned(), config.interface.clone());
        Ok(Self { host, port, interface, name, tls, time })
    }

    /// SOCKS5 inside a session with the gateway.
    pub(super) async fn by_proxy(
        &self,
        ledger: &Ledger,
        connect: Connect,
        works: impl FnOnce(),
        seen: Seen<'_>,
    ) -> Result<BoxedIo, Failure> {
        let mut tls = self.session(ledger, self.name.clone(), seen).await?;
        works();
        let rest = match timeout(self.time, socks(&mut tls, connect)).await {
            Ok(result) => result?,
            Err(_) => {
                let text = format!("proxy: no reply within {:?}", self.time);
                return Err(Failure::new(Step::Proxy, Cause::Silent, text));
            }
        };
        ledger.reply(Reply(0));
        seen(Step::Proxy, format!("SOCKS5 reply {}", Reply(0)));
        Ok(if rest.is_empty() { Box::new(tls) } else { Box::new(Preceded::new(rest, tls)) })
    }

    /// A session whose name in the handshake leads to the target.
    pub(super) async fn by_name(
        &self,
        ledger: &Ledger,
        name: DnsName<'static>,
        works: impl FnOnce(),
        seen: Seen<'_>,
    ) -> Result<BoxedIo, Failure> {
        let text = format!("asked for {} in the handshake", name.as_ref());
        let tls = self.session(ledger, ServerName::DnsName(name), seen).await?;
        works();
        seen(Step::Proxy, text);
        Ok(Box::new(tls))
    }

    async fn session(
        &self,
        ledger: &Ledger,
        name: ServerName<'static>,
        seen: Seen<'_>,
    ) -> Result<HanStream<Line>, Failure> {
        let interface = self.interface.as_deref();
        let addresses = tcp::resolve(&self.host, self.port, interface, self.time).await?;
        let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        seen(Step::Address, format!("{} is {}", self.host, list.join(", ")));
        let tcp = tcp::connect(&addresses, interface, self.time).await?;
        if let Ok((near, far)) = tcp.ends() {
            seen(Step::Tcp, format!("connected from {near} to {far}"));
        }
        let refused = match self.handshake(ledger, name.clone(), tcp, seen).await {
            Ok(stream) => return Ok(stream),
            Err(Ended::Failed(failure)) => return Err(failure),
            Err(Ended::WithoutScsv(failure)) => failure,
        };
        tracing::info!("{}; trying once without the renegotiation SCSV", refused.text);
        sleep(BETWEEN).await;
        let again = match tcp::connect(&addresses, interface, self.time).await {
            Ok(tcp) => self.handshake(ledger, name, tcp, seen).await.ok(),
            Err(_) => None,
        };
        self.tls.tried_without_scsv(again.is_some());
        // If it was not that, the first answer is the one to go by.
        let stream = again.ok_or(refused)?;
        tracing::warn!("the gateway refuses the renegotiation SCSV; from now on it is left out");
        Ok(stream)
    }

    async fn handshake(
        &self,
        ledger: &Ledger,
        name: ServerName<'static>,
        tcp: Line,
        seen: Seen<'_>,
    ) -> Result<HanStream<Line>, Ended> {
        let result = timeout(self.time, self.tls.connect(name, tcp)).await;
        let session = match &result {
            Ok(Ok(stream)) => Some(tls::session(stream.get_ref().1)),
            _ => None,
        };
        let peer = self.tls.judge().seen().and_then(|seen| identity::describe(&seen));
        ledger.tls(peer.clone(), session.clone());
        match result {
            Ok(Ok(stream)) => {
                if let Some([leaf, ..]) = stream.get_ref().1.peer_certificates() {
                    self.tls.judge().confirm(leaf);
                }
                seen(Step::Tls, told(session.as_deref(), peer.as_ref()));
                Ok(stream)
            }
            Ok(Err(error)) => {
                let failure = Failure::of_stream(Step::Tls, "TLS with the gateway", &error);
                if self.tls.try_without_scsv(&Fault::new(&error)) {
                    Err(Ended::WithoutScsv(failure))
                } else {
                    Err(Ended::Failed(failure))
                }
            }
            Err(_) => {
                let text = format!("TLS with the gateway: no handshake within {:?}", self.time);
                Err(Ended::Failed(Failure::new(Step::Tls, Cause::Silent, text)))
            }
        }
    }
}

/// A gateway sees at most one connection of ours per second.
const BETWEEN: Duration = Duration::from_secs(1);

/// How a handshake ended that came to nothing.
enum Ended {
    Failed(Failure),
    /// Another one without the SCSV may come about.
    WithoutScsv(Failure),
}

/// A session and its peer in words.
pub(super) fn told(session: Option<&str>, peer: Option<&CertificateStatus>) -> String {
    let session = session.unwrap_or("a session");
    match peer {
        Some(peer) => format!(
            "{session}; the peer shows {}, SHA-256 {}, valid until {}",
            peer.subject,
            identity::hex(&peer.fingerprint),
            peer.not_after
        ),
        None => session.to_owned(),
    }
}

/// Asks the proxy for the way; what it sent behind its reply belongs to the application.
async fn socks(tls: &mut HanStream<Line>, mut connect: Connect) -> Result<Vec<u8>, Failure> {
    let io = |error: std::io::Error| Failure::of_stream(Step::Proxy, "proxy", &error);
    let refused = |error: SocksError| match error {
        SocksError::Refused(reply) => Failure {
            reply: Some(reply),
            ..Failure::new(Step::Proxy, Cause::Refused, format!("proxy {error}"))
        },
        other => Failure::new(Step::Proxy, Cause::Language, format!("proxy: {other}")),
    };
    tls.write_all(&GREETING).await.map_err(io)?;
    tls.flush().await.map_err(io)?;
    let mut piece = [0; 512];
    loop {
        let n = tls.read(&mut piece).await.map_err(io)?;
        if n == 0 {
            let text = "proxy: closed the connection before its reply".to_owned();
            return Err(Failure::new(Step::Proxy, Cause::Closed, text));
        }
        let (used, step) = connect.feed(&piece[..n]).map_err(refused)?;
        match step {
            Socks::More => {}
            Socks::Send(_) if used < n => return Err(refused(SocksError::Early(n - used))),
            Socks::Send(request) => {
                tls.write_all(&request).await.map_err(io)?;
                tls.flush().await.map_err(io)?;
            }
            Socks::Open => return Ok(piece[used..n].to_vec()),
        }
    }
}
