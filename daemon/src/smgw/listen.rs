//! The other direction: the gateway connects to us (HKS4, HKS5), one port per target.
//!
//! In: connections from the HAN. Out: those whose certificate is the gateway's, per target, for whoever dials or
//! accepts there. Invariants: at most [`HANDSHAKES`] unfinished and [`WAITING`] finished connections are held per
//! target, whatever comes in; each target has its own port, its own limits and its own loop, so none waits for
//! another.
//!
//! ```text
//! not separated, or no port ──mended──▶ listening ──connection──▶ handshake ──right certificate──▶ waiting ──▶ taken
//!      ▲                                    │                        └──wrong, or too slow──▶ refused, counted
//!      └──────── separation over ───────────┘
//! ```
//!
//! When all places for handshakes are taken, the oldest makes room: a stranger who stalls cannot keep the gateway
//! out, whose handshake takes milliseconds.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    CertificateStatus, Channel,
    gateway::Own,
    line::Line,
    link::{SetupError, Shared},
    step::{Cause, Failure, Step},
    target::{Door, Known},
    tcp,
};
use crate::{
    clock::Clock,
    config, identity,
    tls::{self, Judge},
};

/// Handshakes under way per target.
const HANDSHAKES: usize = 32;

/// Connections per target that wait to be taken.
const WAITING: usize = 64;

/// Connections that the kernel holds for us.
const BACKLOG: u32 = 64;

/// Before a port is tried again that could not be bound.
const AGAIN: Duration = Duration::from_secs(2);

/// A connection that the gateway opened.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub channel: Channel,
    /// The certificate that the gateway showed.
    pub peer: CertificateStatus,
    /// Where it came from.
    pub from: SocketAddr,
}

/// Connections of one target that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Accepted>>,
    come: Notify,
    listening: watch::Sender<Option<SocketAddr>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), come: Notify::new(), listening: watch::Sender::new(None) }
    }
}

impl Queue {
    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<Accepted>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are over make room, then the oldest: it is the likeliest to be given up by the other side.
    fn put(&self, accepted: Accepted) {
        let gone: Vec<_> = {
            let mut waiting = self.waiting();
            let mut over = Vec::new();
            for mut waited in std::mem::take(&mut *waiting) {
                if waited.channel.still_stands() {
                    waiting.push_back(waited);
                } else {
                    over.push(waited);
                }
            }
            waiting.push_back(accepted);
            let surplus = if waiting.len() > WAITING { waiting.pop_front() } else { None };
            over.into_iter().chain(surplus).collect()
        };
        drop(gone);
        self.come.notify_one();
    }

    pub(super) async fn take(&self) -> Accepted {
        loop {
            // Bound first: a guard must not live across the wait.
            let next = self.waiting().pop_front();
            let Some(mut accepted) = next else {
                self.come.notified().await;
                continue;
            };
            if self.has_some() {
                self.come.notify_one();
            }
            // The gateway may have given it up while it waited here.
            if accepted.channel.still_stands() {
                return accepted;
            }
        }
    }

    pub(super) fn has_some(&self) -> bool {
        !self.waiting().is_empty()
    }

    pub(super) fn listening(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.listening.subscribe()
    }

    fn clear(&self) {
        let gone = std::mem::take(&mut *self.waiting());
        drop(gone);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Listener {
    address: IpAddr,
    interface: Option<String>,
    config: Arc<ServerConfig>,
    judge: Arc<Judge>,
    time: Duration,
}

impl Listener {
    pub(super) fn new(
        config: &config::Gateway,
        own: &Own,
        judge: Arc<Judge>,
        time: Duration,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let wrong = |field, problem| SetupError { field, problem };
        let address = config.address.parse().map_err(|_| {
            wrong("uplink.listen", format!("{:?} is no address; write it like \"192.0.2.7\"", config.address))
        })?;
        let server = tls::han_server(&own.shown(), judge.clone(), config.tls.into(), clock)
            .map_err(|problem| wrong("uplink.certificate", problem))?;
        Ok(Self { address, interface: config.interface.clone(), config: server, judge, time })
    }

    /// Serves every target until dropped.
    pub(super) async fn run(&self, shared: &Shared) {
        let targets = shared.known();
        join_all(targets.iter().map(|known| self.serve(known, shared))).await;
    }

    async fn serve(&self, known: &Known, shared: &Shared) {
        let Door::Port(port) = known.door else {
            return;
        };
        loop {
            let fence = match shared.ground() {
                Ok(fence) => fence,
                Err(failure) => {
                    shared.ledger.ground(&failure.text);
                    sleep(AGAIN).await;
                    continue;
                }
            };
            let address = SocketAddr::new(self.address, port);
            match self.bind(address) {
                Ok((listener, bound)) => {
                    tracing::info!(address = %bound, target = &*known.name, "the gateway may connect");
                    known.queue.listening.send_replace(Some(bound));
                    tokio::select! {
                        () = self.accept(&listener, known, shared, &fence) => {}
                        () = fence.cancelled() => {}
                    }
                    known.queue.listening.send_replace(None);
                    known.queue.clear();
                }
                Err(error) => {
                    let reason = tcp::io_reason(&error);
                    shared.ledger.ground(&format!("cannot listen on {address}: {reason}"));
                    sleep(AGAIN).await;
                }
            }
        }
    }

    fn bind(&self, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        known: &Known,
        shared: &Shared,
        fence: &CancellationToken,
    ) {
        let mut handshakes = JoinSet::new();
        let mut order: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, from)) => {
                        order.retain(|handshake| !handshake.is_finished());
                        if order.len() >= HANDSHAKES && let Some(oldest) = order.pop_front() {
                            oldest.abort();
                            let text = format!("TLS with {from}: too many others began, too");
                            shared.ledger.refused(&Failure::new(Step::Tls, Cause::Silent, text));
                        }
                        let acceptor = TlsAcceptor::from(self.config.clone());
                        order.push_back(handshakes.spawn(handshake(acceptor, tcp, from, self.time)));
                    }
                    Err(error) => {
                        // Out of files, or the peer was faster: others wait their turn meanwhile.
                        tracing::debug!("accept: {error}");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = handshakes.join_next() => match ended {
                    Ok(Ok((stream, from))) => self.welcome(stream, from, known, shared, fence),
                    Ok(Err(failure)) => shared.ledger.refused(&failure),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
            }
        }
    }

    fn welcome(
        &self,
        stream: TlsStream<Line>,
        from: SocketAddr,
        known: &Known,
        shared: &Shared,
        fence: &CancellationToken,
    ) {
        let connection = stream.get_ref().1;
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let Some((leaf, peer)) = leaf.and_then(|leaf| Some((leaf, identity::describe(leaf)?))) else {
            let text = format!("TLS with {from}: its certificate cannot be read");
            return shared.ledger.refused(&Failure::new(Step::Tls, Cause::Stranger, text));
        };
        self.judge.confirm(leaf);
        shared.ledger.tls(Some(peer.clone()), Some(tls::session(connection)));
        let life = shared.life(fence.clone());
        let open = shared.ledger.open(&known.name, &life);
        let channel = Channel::accepted(stream, open, life.end(shared.clock.now().mono));
        known.queue.put(Accepted { channel, peer, from });
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    from: SocketAddr,
    time: Duration,
) -> Result<(TlsStream<Line>, SocketAddr), Failure> {
    let before = format!("TLS with {from}");
    if let Err(error) = tcp::prepare(&tcp) {
        return Err(Failure::of_stream(Step::Tls, &before, &error));
    }
    match timeout(time, acceptor.accept(Line::new(tcp))).await {
        Ok(Ok(stream)) => Ok((stream, from)),
        Ok(Err(error)) => Err(Failure::of_stream(Step::Tls, &before, &error)),
        Err(_) => {
            Err(Failure::new(Step::Tls, Cause::Silent, format!("{before}: no handshake within {time:?}")))
        }
    }
}
