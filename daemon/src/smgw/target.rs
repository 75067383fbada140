//! Somebody behind the gateway, and the streams to them.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use rustls::pki_types::DnsName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Accepted, BoxedIo, Channel, Dial, DialError, Renewal, Uplink,
    attempt::{Attempt, Purpose},
    gate::Gate,
    gateway::deaf,
    life,
    link::Way,
    listen::Queue,
    step::{Cause, Failure, Step},
    tcp,
};
use crate::config::{Connections, Place};

/// How the gateway is told whom we mean.
#[derive(Debug, Clone)]
pub(super) enum Door {
    Host(String, u16),
    Name(DnsName<'static>),
    Port(u16),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) => f.write_str(&tcp::authority(host, *port)),
            Self::Name(name) => f.write_str(name.as_ref()),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

/// What the uplink keeps of a target.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    pub(super) door: Door,
    pub(super) gate: Arc<Gate>,
    /// Where there may be but one connection.
    pub(super) slots: Option<Arc<Semaphore>>,
    /// Connections that the gateway opened and nobody has taken yet.
    pub(super) queue: Queue,
}

/// A stream whose fate is still open.
pub(super) enum Opened {
    /// We opened it.
    Ours(BoxedIo, Attempt),
    /// The gateway opened it.
    Theirs(Box<Accepted>),
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) uplink: Uplink,
    pub(super) known: Arc<Known>,
}

impl Target {
    /// As configured, or host and port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.known.name
    }

    /// Waits for a turn, makes one attempt, returns its outcome. In mode `listen`: takes a connection that the
    /// gateway opened, or waits one step's time for it. Cancel safe.
    pub async fn connect(&self) -> Result<Channel, DialError> {
        Ok(match self.open().await? {
            Opened::Ours(io, attempt) => Channel::new(io, attempt, self.uplink.clock().now().mono),
            Opened::Theirs(accepted) => accepted.channel,
        })
    }

    /// Mode `listen`: the next connection that the gateway opened for this target, its certificate checked. In the
    /// other modes there is none, ever. Cancel safe.
    pub async fn accept(&self) -> Result<Accepted, DialError> {
        match &self.uplink.0.way {
            Way::Listen(_) => Ok(self.known.queue.take().await),
            _ => {
                Err(DialError::Hopeless("only in mode \"listen\" does the gateway connect to us".to_owned()))
            }
        }
    }

    /// Somebody whom the gateway let in for this target was not who they should be: counted, and told in the status.
    pub fn turned_away(&self, reason: &str) {
        self.uplink.0.ledger.refused(&Failure::new(Step::Target, Cause::Stranger, reason.to_owned()));
    }

    /// Where the gateway connects for this target, in mode `listen` while it can.
    #[must_use]
    pub fn listening(&self) -> tokio::sync::watch::Receiver<Option<std::net::SocketAddr>> {
        self.known.queue.listening()
    }

    pub(super) async fn open(&self) -> Result<Opened, DialError> {
        let shared = &self.uplink.0;
        if let Way::Listen(_) = &shared.way {
            let time = shared.step_timeout;
            return match timeout(time, self.known.queue.take()).await {
                Ok(accepted) => Ok(Opened::Theirs(Box::new(accepted))),
                Err(_) => {
                    let text = format!("the gateway has not connected for {} within {time:?}", self.name());
                    let failure = Failure::new(Step::Tcp, Cause::Silent, text);
                    Err(shared.ledger.missed(&self.known.name, failure))
                }
            };
        }
        let slot = self.slot().await?;
        let reached = match &shared.way {
            Way::Socks5(_) => format!("proxy reply 00 succeeded for {}", self.known.door),
            Way::Sni(_) => format!("TLS with the gateway for {} stands", self.known.door),
            _ => format!("TCP reached {}", self.known.door),
        };
        let gateway = match &shared.way {
            Way::Direct => None,
            _ => Some(&shared.gate),
        };
        let purpose = Purpose {
            target: self.known.name.clone(),
            reached,
            life: shared.life(CancellationToken::new()),
            slot,
        };
        let mut attempt = Attempt::begin(&self.known.gate, gateway, &shared.ledger, purpose).await?;
        match shared.ground() {
            Ok(fence) => attempt.life = shared.life(fence),
            Err(failure) => return Err(attempt.fail(failure)),
        }
        match shared.reach(&self.known.door, || attempt.gateway_works(), &mut deaf).await {
            Ok(io) => Ok(Opened::Ours(io, attempt)),
            Err(failure) => Err(attempt.fail(failure)),
        }
    }

    /// The right to the one connection, where there may be but one.
    async fn slot(&self) -> Result<Option<OwnedSemaphorePermit>, DialError> {
        let Some(slots) = &self.known.slots else {
            return Ok(None);
        };
        match timeout(self.uplink.step_timeout(), slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Some(slot)),
            _ => Err(DialError::Failed(format!(
                "one connection per target is configured, and the one to {} stands already",
                self.name()
            ))),
        }
    }
}

impl Dial for Target {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + '_>> {
        Box::pin(async { Ok(Box::new(self.connect().await?) as BoxedIo) })
    }

    fn ready(&self) -> bool {
        let shared = &self.uplink.0;
        match &shared.way {
            Way::Direct => self.known.gate.ready(),
            Way::Listen(_) => self.known.queue.has_some(),
            _ => self.known.gate.ready() && shared.gate.ready(),
        }
    }

    fn renewal(&self) -> Option<Renewal> {
        let shared = &self.uplink.0;
        match &shared.way {
            Way::Direct => None,
            // The gateway opens the next one when it likes.
            Way::Listen(_) => Some(life::renewal(shared.renew_after, false)),
            _ => Some(life::renewal(shared.renew_after, shared.connections == Connections::Many)),
        }
    }
}
