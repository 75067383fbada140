//! A Smart Meter Gateway: TLS 1.2 with mutual certificates on HAN, SOCKS5 inside (RFC 1928, method 0x00, CONNECT
//! only, a list of allowed targets), and a second mutual TLS leg on WAN to the target.
//!
//! In: connections on HAN. Out: bytes to and from the targets of the profile, nothing else. Invariant: after
//! [`Gateway::cut`] no connection stands and none comes up until [`Gateway::restore`].
//!
//! ```text
//! TCP → HAN TLS → greeting → request ─→ refused (REP ≠ 00)
//!                               └────→ WAN TCP → WAN TLS → relay → closed | cut
//! ```

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail};
use fast_socks5::{ReplyError, Socks5Command, server::Socks5ServerProtocol, util::target_addr::TargetAddr};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::log::{Log, lock};

/// Time for each step of a connection.
const STEP: Duration = Duration::from_secs(10);

/// Where an allowed target really is.
#[derive(Debug, Clone)]
pub struct Route {
    /// Address on WAN.
    pub address: SocketAddr,
    /// The name that its certificate must carry; `None` for a target without a TLS leg.
    pub tls_name: Option<String>,
}

/// What the gateway administrator has put into the profile.
pub struct Profile {
    /// The HAN side.
    pub han: TlsAcceptor,
    /// The WAN side.
    pub wan: TlsConnector,
    /// Target as the client names it, `host:port` → place.
    pub routes: HashMap<String, Route>,
}

/// What can go wrong on purpose.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Accept TCP, then say nothing.
    pub stall_tls: bool,
    /// Finish TLS, then say nothing.
    pub stall_proxy: bool,
    /// Answer every CONNECT with this.
    pub reply: Option<Refusal>,
    /// Say "succeeded", then close.
    pub close_after_success: bool,
    /// Hand bytes to the client one by one.
    pub trickle: bool,
    /// Keep connections, move nothing: a dead cable behind the gateway.
    pub freeze: bool,
}

/// RFC 1928 §6 reply codes that real gateways give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 01
    General,
    /// 02
    NotAllowed,
    /// 04
    HostUnreachable,
    /// 05
    Refused,
}

impl Refusal {
    const fn code(self) -> ReplyError {
        match self {
            Self::General => ReplyError::GeneralFailure,
            Self::NotAllowed => ReplyError::ConnectionNotAllowed,
            Self::HostUnreachable => ReplyError::HostUnreachable,
            Self::Refused => ReplyError::ConnectionRefused,
        }
    }
}

/// What the gateway saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client passed the HAN handshake.
    Han,
    /// A client did not, or spoke no SOCKS5.
    Failed(String),
    /// A target was asked for and refused.
    Refused(String),
    /// A connection stands through both legs.
    Through(String),
    /// It ended.
    Ended,
    /// All connections were cut.
    Cut,
    /// Connections are possible again.
    Restored,
}

struct Shared {
    profile: Profile,
    han: Mutex<TlsAcceptor>,
    routes: Mutex<HashMap<String, Route>>,
    log: Log<Event>,
    faults: Mutex<Faults>,
    cut: watch::Sender<bool>,
}

/// A running gateway; ends when dropped.
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Gateway {
    /// Binds a free port of the loopback interface and starts.
    pub async fn start(mut profile: Profile) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            routes: Mutex::new(std::mem::take(&mut profile.routes)),
            han: Mutex::new(profile.han.clone()),
            profile,
            log: Log::default(),
            faults: Mutex::default(),
            cut: watch::Sender::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// The HAN address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened.
    #[must_use]
    pub fn log(&self) -> &Log<Event> {
        &self.shared.log
    }

    /// Ends every connection and refuses new ones.
    pub fn cut(&self) {
        self.shared.cut.send_replace(true);
        self.shared.log.push(Event::Cut);
    }

    /// Lets connections through again.
    pub fn restore(&self) {
        self.shared.cut.send_replace(false);
        self.shared.log.push(Event::Restored);
    }

    /// Allows one more target, as the gateway administrator does with a new profile.
    pub fn allow(&self, target: &str, route: Route) {
        lock(&self.shared.routes).insert(target.to_owned(), route);
    }

    /// Shows another certificate on HAN from now on; connections that stand stay.
    pub fn show(&self, han: TlsAcceptor) {
        *lock(&self.shared.han) = han;
    }

    /// Sets what goes wrong from now on.
    pub fn faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// Connections that stand through both legs.
    #[must_use]
    pub fn open(&self) -> usize {
        let through = self.shared.log.count(|e| matches!(e, Event::Through(_)));
        through.saturating_sub(self.shared.log.count(|e| *e == Event::Ended))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if *shared.cut.borrow() {
                    // A reset, not an orderly end: nobody answers there.
                    let _ = stream.set_zero_linger();
                    continue;
                }
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let mut cut = shared.cut.subscribe();
                    tokio::select! {
                        result = serve(stream, &shared) => if let Err(error) = result {
                            shared.log.push(Event::Failed(format!("{error:#}")));
                        },
                        _ = cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        }
    }
}

/// Counts a connection as ended however it ends.
struct Standing<'a>(&'a Log<Event>);

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.push(Event::Ended);
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let faults = *lock(&shared.faults);
    stream.set_nodelay(true)?;
    if faults.stall_tls {
        std::future::pending::<()>().await;
    }
    let han = lock(&shared.han).clone();
    let tls = tokio::time::timeout(STEP, han.accept(stream)).await.context("HAN handshake")??;
    shared.log.push(Event::Han);
    if faults.stall_proxy {
        std::future::pending::<()>().await;
    }
    let request = async { Socks5ServerProtocol::accept_no_auth(tls).await?.read_command().await };
    let (proxy, command, target) = tokio::time::timeout(STEP, request).await.context("SOCKS5 request")??;
    let target = match target {
        TargetAddr::Domain(host, port) => format!("{host}:{port}"),
        TargetAddr::Ip(address) => address.to_string(),
    };
    let refusal = match (faults.reply, command) {
        (Some(refusal), _) => Some(refusal.code()),
        (None, Socks5Command::TCPConnect) => None,
        (None, _) => Some(ReplyError::CommandNotSupported),
    };
    let route = lock(&shared.routes).get(&target).cloned();
    let Some(route) = route.filter(|_| refusal.is_none()) else {
        shared.log.push(Event::Refused(target));
        proxy.reply_error(&refusal.unwrap_or(ReplyError::ConnectionNotAllowed)).await?;
        return Ok(());
    };
    let far: Box<dyn Stream> = match wan(&shared.profile.wan, &route).await {
        Ok(far) => far,
        Err(error) => {
            shared.log.push(Event::Failed(format!("WAN leg to {target}: {error:#}")));
            proxy.reply_error(&ReplyError::ConnectionRefused).await?;
            return Ok(());
        }
    };
    let near = proxy.reply_success(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await?;
    if faults.close_after_success {
        bail!("closed after success, as told");
    }
    shared.log.push(Event::Through(target));
    let _standing = Standing(&shared.log);
    relay(near, far, shared).await
}

/// Anything that carries bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn wan(connector: &TlsConnector, route: &Route) -> anyhow::Result<Box<dyn Stream>> {
    let tcp = tokio::time::timeout(STEP, TcpStream::connect(route.address)).await??;
    tcp.set_nodelay(true)?;
    match &route.tls_name {
        None => Ok(Box::new(tcp)),
        Some(name) => {
            let name = ServerName::try_from(name.clone())?;
            Ok(Box::new(tokio::time::timeout(STEP, connector.connect(name, tcp)).await??))
        }
    }
}

/// Either direction's end ends both, as a TLS relay does.
async fn relay(near: impl Stream, far: impl Stream, shared: &Shared) -> anyhow::Result<()> {
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    tokio::select! {
        up = copy(&mut near_read, &mut far_write, shared, false) => up,
        down = copy(&mut far_read, &mut near_write, shared, true) => down,
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    towards_client: bool,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        while lock(&shared.faults).freeze {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let piece = if towards_client && lock(&shared.faults).trickle { 1 } else { n };
        for bytes in buffer[..n].chunks(piece) {
            to.write_all(bytes).await?;
            to.flush().await?;
        }
    }
}
