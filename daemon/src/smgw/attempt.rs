//! One attempt and the status that all attempts of an uplink keep.
//!
//! ```text
//! Idle ──first byte──▶ Up ──failed, nothing stands──▶ Down ──first byte──▶ Up
//!   └──failed──▶ Down
//! ```

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    CertificateStatus, DialError, State, Status, TargetStatus,
    gate::{Gate, Pass},
    life::Life,
    socks::Reply,
    status,
    step::Failure,
};
use crate::{clock::Clock, time::Wall, tls::Fault};

/// The status and its only writer.
#[derive(Debug)]
pub(super) struct Ledger {
    clock: Clock,
    status: watch::Sender<Status>,
    sessions: Mutex<BTreeMap<u64, Session>>,
    next: AtomicU64,
}

/// A connection that stands.
#[derive(Debug)]
struct Session {
    begun: Wall,
    renew: Wall,
}

impl Ledger {
    pub(super) fn new(first: Status, clock: Clock) -> Arc<Self> {
        let since = clock.now().wall;
        let ledger = Arc::new(Self {
            clock,
            status: watch::Sender::new(Status { since, ..first }),
            sessions: Mutex::default(),
            next: AtomicU64::new(0),
        });
        ledger.review();
        ledger
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn edit(&self, change: impl FnOnce(&mut Status, Wall)) {
        let now = self.clock.now().wall;
        self.status.send_modify(|status| {
            let before = status.state;
            change(status, now);
            if status.state == before {
                return;
            }
            status.since = now;
            match status.state {
                State::Up if status.session.is_empty() => tracing::info!("uplink is up"),
                State::Up => tracing::info!("uplink is up: {}", status.session),
                State::Down => {
                    let reason = status.last_error.as_ref().map_or("", |(text, _)| text.as_str());
                    tracing::warn!("uplink is down: {reason}");
                }
                State::Idle => {}
            }
        });
    }

    /// Looks at the dates: what runs out soon is a warning.
    pub(super) fn review(&self) {
        let now = self.clock.now().wall;
        self.status.send_if_modified(|status| {
            let warnings = status::warnings(status, now);
            if status.warnings == warnings {
                return false;
            }
            for warning in warnings.iter().filter(|warning| !status.warnings.contains(warning)) {
                tracing::warn!("uplink: {warning}");
            }
            status.warnings = warnings;
            true
        });
    }

    /// What TLS showed, whether the handshake ended well or not.
    pub(super) fn tls(&self, peer: Option<CertificateStatus>, session: Option<String>) {
        self.edit(|status, _| {
            if peer.is_some() {
                status.peer = peer;
            }
            if let Some(session) = session {
                status.session = session;
            }
        });
        self.review();
    }

    /// Our certificate is another one, or there is none.
    pub(super) fn own(&self, own: Option<CertificateStatus>) {
        self.edit(|status, _| status.own = own);
        self.review();
    }

    /// What the proxy said.
    pub(super) fn reply(&self, reply: Reply) {
        self.edit(|status, _| status.last_reply = reply.to_string());
    }

    /// The ground is gone: no attempt can work.
    pub(super) fn ground(&self, reason: &str) {
        let known = |status: &Status| {
            status.state == State::Down && status.last_error.as_ref().is_some_and(|(text, _)| text == reason)
        };
        // Who looks again and again need not tell it each time.
        if known(&self.status.borrow()) {
            return;
        }
        self.edit(|status, now| {
            status.state = State::Down;
            status.last_error = Some((reason.to_owned(), now));
        });
    }

    /// Nobody came, or what came could not be used, in mode `listen`.
    pub(super) fn missed(&self, target: &str, failure: Failure) -> DialError {
        let error = DialError::Failed(failure.text.clone());
        self.edit(|status, now| {
            status.failures += 1;
            let target = status.target(target);
            target.last_error = Some((failure.text.clone(), now));
            if target.open == 0 {
                target.state = State::Down;
            }
            if let Some(alert) = failure.alert {
                alert.name.clone_into(&mut status.last_alert);
            }
            status.last_error = Some((failure.text, now));
            if status.open == 0 {
                status.state = State::Down;
            }
        });
        error
    }

    /// Somebody who connected to us was turned away.
    pub(super) fn refused(&self, failure: &Failure) {
        tracing::debug!("a connection was refused: {}", failure.text);
        self.edit(|status, now| {
            status.refused += 1;
            status.last_refusal = Some((failure.text.clone(), now));
            if let Some(alert) = failure.alert {
                alert.name.clone_into(&mut status.last_alert);
            }
        });
    }

    /// A connection carries data.
    pub(super) fn open(self: &Arc<Self>, target: &Arc<str>, life: &Life) -> Open {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let begun = now.wall - now.mono.since(life.begun);
        let session = Session { begun, renew: begun + life.renew_after };
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(id, session);
        self.edit(|status, _| {
            status.open += 1;
            status.state = State::Up;
            status.next_attempt = None;
            let target = status.target(target);
            target.open += 1;
            target.state = State::Up;
            self.ages(status);
        });
        Open { id, ledger: Arc::clone(self), target: Arc::clone(target) }
    }

    /// The oldest connection and the first renewal.
    fn ages(&self, status: &mut Status) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        status.oldest_session = sessions.values().map(|session| session.begun).min();
        status.next_renewal = sessions.values().map(|session| session.renew).min();
    }
}

impl Status {
    fn target(&mut self, name: &str) -> &mut TargetStatus {
        let at = self.targets.iter().position(|target| target.name == name).unwrap_or_else(|| {
            self.targets.push(TargetStatus { name: name.to_owned(), ..TargetStatus::default() });
            self.targets.len() - 1
        });
        &mut self.targets[at]
    }
}

/// One attempt. Dropped undecided it counts as neither success nor failure.
#[derive(Debug)]
pub(super) struct Attempt {
    pass: Pass,
    /// The turn at the gateway, until it is known to work.
    gateway: Option<Pass>,
    ledger: Arc<Ledger>,
    target: Arc<str>,
    reached: String,
    pub(super) life: Life,
    slot: Option<OwnedSemaphorePermit>,
}

/// What an attempt is made for.
#[derive(Debug)]
pub(super) struct Purpose {
    pub(super) target: Arc<str>,
    /// How far it came when its connection stands.
    pub(super) reached: String,
    pub(super) life: Life,
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Attempt {
    /// Waits for a turn.
    pub(super) async fn begin(
        gate: &Arc<Gate>,
        gateway: Option<&Arc<Gate>>,
        ledger: &Arc<Ledger>,
        purpose: Purpose,
    ) -> Result<Self, DialError> {
        let pass = gate.enter().await?;
        let gateway = match gateway {
            None => None,
            Some(gateway) => match gateway.enter().await {
                Ok(pass) => Some(pass),
                Err(error) => {
                    pass.pass_on(error.clone());
                    return Err(error);
                }
            },
        };
        ledger.edit(|status, _| status.attempts += 1);
        let Purpose { target, reached, life, slot } = purpose;
        Ok(Self { pass, gateway, ledger: ledger.clone(), target, reached, life, slot })
    }

    pub(super) fn reached(&self) -> &str {
        &self.reached
    }

    /// The session with the gateway stands: what fails now is the target's.
    pub(super) fn gateway_works(&mut self) {
        if let Some(pass) = self.gateway.take() {
            pass.succeed();
        }
    }

    pub(super) fn connected(&mut self) {
        self.pass.connected();
    }

    /// The first byte came.
    pub(super) fn succeed(self) -> (Open, Option<OwnedSemaphorePermit>) {
        let open = self.ledger.open(&self.target, &self.life);
        self.pass.succeed();
        (open, self.slot)
    }

    /// It came to nothing.
    pub(super) fn fail(self, failure: Failure) -> DialError {
        let error = DialError::Failed(failure.text.clone());
        let wait = match self.gateway {
            Some(gateway) if failure.is_shared() => {
                let wait = gateway.fail(error.clone());
                self.pass.pass_on(error.clone());
                wait
            }
            _ => self.pass.fail(error.clone()),
        };
        tracing::debug!("uplink attempt failed: {}", failure.text);
        self.ledger.edit(|status, now| {
            status.failures += 1;
            let target = status.target(&self.target);
            target.last_error = Some((failure.text.clone(), now));
            if target.open == 0 {
                target.state = State::Down;
            }
            status.last_error = Some((failure.text, now));
            if let Some(alert) = failure.alert {
                alert.name.clone_into(&mut status.last_alert);
            }
            if let Some(reply) = failure.reply {
                status.last_reply = reply.to_string();
            }
            status.next_attempt = Some(now + wait);
            if status.open == 0 {
                status.state = State::Down;
            }
        });
        error
    }
}

/// A connection that carries data; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    id: u64,
    ledger: Arc<Ledger>,
    target: Arc<str>,
}

impl Open {
    /// The connection's end in words; an alert is kept for the status.
    pub(super) fn broken(&self, error: &io::Error) -> io::Error {
        let fault = Fault::new(error);
        if let Some(alert) = fault.alert {
            self.ledger.edit(|status, _| alert.name.clone_into(&mut status.last_alert));
        }
        io::Error::new(error.kind(), fault.to_string())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ledger.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.ledger.edit(|status, _| {
            let failing = status.next_attempt.is_some();
            let target = status.target(&self.target);
            target.open = target.open.saturating_sub(1);
            if target.open == 0 && failing && target.last_error.is_some() {
                target.state = State::Down;
            }
            status.open = status.open.saturating_sub(1);
            if status.open == 0 && failing {
                status.state = State::Down;
            }
            self.ledger.ages(status);
        });
    }
}
