//! The uplink: its way, its targets, and what watches over both.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::pki_types::DnsName;
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Channel, DialError, Status, Target,
    attempt::Ledger,
    dial::BoxedIo,
    gate::{Backoff, Gate},
    gateway::{self, Gateway, Own, Seen},
    han::Han,
    life::Life,
    listen::Listener,
    netlink::Changes,
    socks::Connect,
    step::{Cause, Failure, Step},
    target::{Door, Known},
    tcp,
};
use crate::{
    clock::Clock,
    config::{self, Connections, Place},
    identity::{PinBook, Store},
    time::Mono,
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

/// The way through the gateway, or around where there is none. Clones share their gates and their status.
#[derive(Debug, Clone)]
pub struct Uplink(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) way: Way,
    pub(super) step_timeout: Duration,
    pub(super) renew_after: Duration,
    pub(super) connections: Connections,
    pub(super) clock: Clock,
    /// Attempts at the gateway, whoever they are for.
    pub(super) gate: Arc<Gate>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) han: Option<Arc<Han>>,
    own: Option<Own>,
    /// Gateways that were taken on; `None` where the configuration allows none.
    tofu: Option<PinBook>,
    waits: (Duration, Duration),
    targets: Mutex<Vec<Arc<Known>>>,
    /// When the last test of the way began.
    pub(super) tested: tokio::sync::Mutex<Option<Mono>>,
}

#[derive(Debug)]
pub(super) enum Way {
    Direct,
    Socks5(Box<Gateway>),
    Sni(Box<Gateway>),
    Listen(Box<Listener>),
}

/// How often the ground and the dates are looked at without a reason.
const REVIEW: Duration = Duration::from_secs(10);

impl Uplink {
    /// Reads the files that the configuration names. Opens no connection.
    pub fn new(config: &config::Uplink, clock: Clock) -> Result<Self, SetupError> {
        Self::build(config, None, clock)
    }

    /// With the device's own identities, for a configuration that names one, and its memory of gateways.
    pub fn with_store(config: &config::Uplink, store: &Store, clock: Clock) -> Result<Self, SetupError> {
        Self::build(config, Some(store), clock)
    }

    fn build(config: &config::Uplink, store: Option<&Store>, clock: Clock) -> Result<Self, SetupError> {
        let mut status = Status { mode: "direct", ..Status::default() };
        let (mut han, mut own, mut tofu) = (None, None, None);
        let mut side = |gateway: &config::Gateway| {
            let shown = Own::new(&gateway.own, store)?;
            let pins = store.map(Store::pins).unwrap_or_default();
            let judge = gateway::judge(&gateway.trust, pins.clone(), clock)?;
            tofu = gateway.trust.tofu.then_some(pins);
            han = gateway.interface.as_deref().map(Han::new);
            own = Some(shown.clone());
            Ok::<_, SetupError>((shown, judge))
        };
        let time = config.step_timeout;
        let way = match &config.mode {
            config::Mode::Direct => Way::Direct,
            config::Mode::Socks5(gateway) | config::Mode::Sni(gateway) => {
                let (shown, judge) = side(gateway)?;
                let gateway = Box::new(Gateway::new(gateway, &shown, judge, time, clock)?);
                status.gateway = tcp::authority(&gateway.host, gateway.port);
                if matches!(config.mode, config::Mode::Sni(_)) {
                    status.mode = "sni";
                    Way::Sni(gateway)
                } else {
                    status.mode = "socks5";
                    Way::Socks5(gateway)
                }
            }
            config::Mode::Listen(gateway) => {
                let (shown, judge) = side(gateway)?;
                status.mode = "listen";
                Way::Listen(Box::new(Listener::new(gateway, &shown, judge, time, clock)?))
            }
        };
        status.own = own.as_ref().and_then(|own| own.status().ok());
        let waits = (config.backoff_min, config.backoff_max);
        let uplink = Self(Arc::new(Shared {
            way,
            step_timeout: time,
            renew_after: config.renew_after,
            connections: config.connections,
            clock,
            gate: gate(waits, time, clock),
            ledger: Ledger::new(status, clock),
            han,
            own,
            tofu,
            waits,
            targets: Mutex::default(),
            tested: tokio::sync::Mutex::new(None),
        }));
        for target in &config.targets {
            uplink
                .0
                .know(Some(&target.name), &target.place)
                .map_err(|e| SetupError { field: "uplink.target", problem: e.to_string() })?;
        }
        Ok(uplink)
    }

    /// The uplink as it is, and each change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.ledger.subscribe()
    }

    /// A target of the configuration.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<Target> {
        let found = self.0.targets().iter().find(|known| *known.name == *name).cloned();
        found.map(|known| Target { uplink: self.clone(), known })
    }

    /// All that were asked for so far; those of the configuration first.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        let all = self.0.targets();
        all.iter().map(|known| Target { uplink: self.clone(), known: known.clone() }).collect()
    }

    /// The target with this host and port, in the configuration or not. In mode `sni` the host is the name in the
    /// handshake; in mode `listen` it is the only target there is.
    pub fn target_at(&self, host: &str, port: u16) -> Result<Target, DialError> {
        let known = match &self.0.way {
            Way::Listen(_) => match &self.0.targets()[..] {
                [only] => Ok(only.clone()),
                _ => Err(DialError::Hopeless(format!(
                    "{}: in mode \"listen\" a target is named by its name",
                    tcp::authority(host, port)
                ))),
            },
            Way::Sni(_) => self.0.know(None, &Place::Sni(host.to_owned())),
            Way::Direct | Way::Socks5(_) => self.0.know(None, &Place::Host(host.to_owned(), port)),
        }?;
        Ok(Target { uplink: self.clone(), known })
    }

    /// Waits for a turn, makes one attempt, returns its outcome. Cancel safe. While the way does not work, most
    /// callers get the outcome of an attempt that another one made.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Channel, DialError> {
        self.target_at(host, port)?.connect().await
    }

    /// Whether no backoff runs, at the gateway or at any target.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.gate.ready() && self.0.targets().iter().all(|known| known.gate.ready())
    }

    /// Takes on the certificate that the gateway shows next, within this time; returns the time that it got. The
    /// error says why this is not possible.
    pub fn trust_next(&self, time: Duration) -> Result<Duration, String> {
        let Some(pins) = &self.0.tofu else {
            return Err(
                "the configuration does not allow it; write tofu = true under uplink.trust".to_owned()
            );
        };
        let time = time.min(crate::identity::LONGEST_TOFU);
        pins.arm(self.0.clock.now().mono, time);
        self.0.gate.hurry();
        Ok(time)
    }

    /// Watches over the ground and the dates, and in mode `listen` serves the gateway, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let shared = &self.0;
        let listen = async {
            match &shared.way {
                Way::Listen(listener) => listener.run(shared).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = shared.watch_ground() => {}
            () = shared.watch_own() => {}
            () = listen => {}
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.0.clock
    }

    pub(super) fn step_timeout(&self) -> Duration {
        self.0.step_timeout
    }
}

fn gate((min, max): (Duration, Duration), patience: Duration, clock: Clock) -> Arc<Gate> {
    Gate::new(Backoff::new(min, max, fastrand::Rng::new()), patience, clock)
}

impl Shared {
    fn targets(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Known>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All targets so far.
    pub(super) fn known(&self) -> Vec<Arc<Known>> {
        self.targets().clone()
    }

    /// Finds a target or makes it known. Who asks is configuration, so there are few.
    fn know(&self, name: Option<&str>, place: &Place) -> Result<Arc<Known>, DialError> {
        let mut all = self.targets();
        if let Some(known) = all.iter().find(|known| name.is_none() && known.place == *place) {
            return Ok(known.clone());
        }
        let door = match place {
            Place::Host(host, port) => {
                let target = tcp::authority(host, *port);
                Connect::new(host, *port).map_err(|e| DialError::Hopeless(format!("{target}: {e}")))?;
                Door::Host(host.clone(), *port)
            }
            Place::Sni(name) => match DnsName::try_from(name.clone()) {
                Ok(name) => Door::Name(name),
                Err(_) => return Err(DialError::Hopeless(format!("{name:?} is not a DNS name"))),
            },
            Place::Port(port) => Door::Port(*port),
        };
        let known = Arc::new(Known {
            name: name.map_or_else(|| door.to_string(), str::to_owned).into(),
            place: place.clone(),
            door,
            gate: gate(self.waits, self.step_timeout, self.clock),
            slots: (self.connections == Connections::OnePerTarget).then(|| Arc::new(Semaphore::new(1))),
            queue: super::listen::Queue::default(),
        });
        all.push(known.clone());
        Ok(known)
    }

    /// The gateway's address, where the configuration gives one and not a name.
    pub(super) fn far(&self) -> Option<IpAddr> {
        match &self.way {
            Way::Socks5(gateway) | Way::Sni(gateway) => tcp::without_zone(&gateway.host).parse().ok(),
            Way::Direct | Way::Listen(_) => None,
        }
    }

    /// Whether an attempt can be made at all: what ends its session when that is over, or why not.
    pub(super) fn ground(&self) -> Result<CancellationToken, Failure> {
        let failure = |reason| Failure::new(Step::Link, Cause::Ground, reason);
        if let Some(own) = &self.own {
            own.status().map_err(failure)?;
        }
        match &self.han {
            Some(han) => han.check().map_err(failure),
            None => Ok(CancellationToken::new()),
        }
    }

    pub(super) fn life(&self, fence: CancellationToken) -> Life {
        Life { begun: self.clock.now().mono, renew_after: self.renew_after, fence }
    }

    /// One try, whatever the gates say.
    pub(super) async fn reach(
        &self,
        door: &Door,
        works: impl FnOnce(),
        seen: Seen<'_>,
    ) -> Result<BoxedIo, Failure> {
        let wrong = |text: String| Failure::new(Step::Target, Cause::Other, text);
        match (&self.way, door) {
            (Way::Direct, Door::Host(host, port)) => {
                let addresses = tcp::resolve(host, *port, None, self.step_timeout).await?;
                seen(Step::Address, format!("{host} is {}", addresses[0]));
                let stream = tcp::connect(&addresses, None, self.step_timeout).await?;
                seen(Step::Tcp, format!("connected to {}", tcp::authority(host, *port)));
                Ok(Box::new(stream))
            }
            (Way::Socks5(gateway), Door::Host(host, port)) => {
                let connect = Connect::new(host, *port).map_err(|e| wrong(e.to_string()))?;
                gateway.by_proxy(&self.ledger, connect, works, seen).await
            }
            (Way::Sni(gateway), Door::Name(name)) => {
                gateway.by_name(&self.ledger, name.clone(), works, seen).await
            }
            (_, door) => Err(wrong(format!("{door} cannot be reached in this mode"))),
        }
    }

    /// Looks at the ground on each change of the network, and now and then without one.
    async fn watch_ground(&self) {
        let changes = match self.han.as_ref().map(|_| Changes::open()) {
            Some(Ok(changes)) => Some(changes),
            Some(Err(error)) => {
                tracing::warn!("changes of the network are not heard of, they are looked for: {error}");
                None
            }
            None => None,
        };
        let mut before = None;
        loop {
            let reason = self.han.as_ref().and_then(|han| han.check().err());
            if before != reason {
                match &reason {
                    Some(reason) => self.ledger.ground(reason),
                    None => {
                        tracing::info!("the HAN is separated again");
                        self.gate.hurry();
                    }
                }
                before = reason;
            }
            self.ledger.review();
            let news = async {
                match &changes {
                    Some(changes) => changes.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = news => if let Err(error) = result {
                    tracing::debug!("rtnetlink: {error}");
                    sleep(REVIEW).await;
                },
                () = sleep(REVIEW) => {}
            }
        }
    }

    /// A new certificate is shown from now on; what waits for one tries at once.
    async fn watch_own(&self) {
        let Some(Own::Stored(store)) = &self.own else {
            return std::future::pending().await;
        };
        let mut selected = store.selected();
        loop {
            let now = selected.borrow_and_update().clone();
            match now {
                Ok(identity) => {
                    self.ledger.own(Some(identity.status().clone()));
                    self.gate.hurry();
                }
                Err(problem) => {
                    self.ledger.own(None);
                    self.ledger.ground(&problem);
                }
            }
            if selected.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
