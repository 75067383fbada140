//! One attempt and the status that all attempts of an uplink keep.
//!
//! ```text
//! Idle ──first byte──▶ Up ──failed, nothing stands──▶ Down ──first byte──▶ Up
//!   └──failed──▶ Down
//! ```

use std::{io, sync::Arc};

use tokio::sync::watch;

use super::{
    CertificateStatus, DialError, State, Status,
    gate::{Gate, Pass},
    socks::Reply,
};
use crate::{
    clock::Clock,
    time::Wall,
    tls::{Alert, Fault},
};

/// What an attempt failed of.
#[derive(Debug)]
pub(super) struct Failure {
    /// The step and the reason.
    pub(super) text: String,
    pub(super) alert: Option<Alert>,
    pub(super) reply: Option<Reply>,
}

impl Failure {
    pub(super) fn new(text: String) -> Self {
        Self { text, alert: None, reply: None }
    }
}

/// The status and its only writer.
#[derive(Debug)]
pub(super) struct Ledger {
    clock: Clock,
    status: watch::Sender<Status>,
}

impl Ledger {
    pub(super) fn new(first: Status, clock: Clock) -> Arc<Self> {
        let since = clock.now().wall;
        Arc::new(Self { clock, status: watch::Sender::new(Status { since, ..first }) })
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
    }

    /// What the proxy said.
    pub(super) fn reply(&self, reply: Reply) {
        self.edit(|status, _| status.last_reply = reply.to_string());
    }
}

/// One attempt. Dropped undecided it counts as neither success nor failure.
#[derive(Debug)]
pub(super) struct Attempt {
    pass: Pass,
    ledger: Arc<Ledger>,
    reached: String,
}

impl Attempt {
    /// Waits for a turn. `reached` says how far it came when its connection stands.
    pub(super) async fn begin(
        gate: &Arc<Gate>,
        ledger: &Arc<Ledger>,
        reached: String,
    ) -> Result<Self, DialError> {
        let pass = gate.enter().await?;
        ledger.edit(|status, _| status.attempts += 1);
        Ok(Self { pass, ledger: ledger.clone(), reached })
    }

    pub(super) fn reached(&self) -> &str {
        &self.reached
    }

    pub(super) fn connected(&mut self) {
        self.pass.connected();
    }

    /// The first byte came.
    pub(super) fn succeed(self) -> Open {
        self.ledger.edit(|status, _| {
            status.open += 1;
            status.state = State::Up;
            status.next_attempt = None;
        });
        self.pass.succeed();
        Open { ledger: self.ledger }
    }

    /// It came to nothing.
    pub(super) fn fail(self, failure: Failure) -> DialError {
        let error = DialError::Failed(failure.text.clone());
        let wait = self.pass.fail(error.clone());
        tracing::debug!("uplink attempt failed: {}", failure.text);
        self.ledger.edit(|status, now| {
            status.failures += 1;
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
    ledger: Arc<Ledger>,
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
        self.ledger.edit(|status, _| {
            status.open = status.open.saturating_sub(1);
            if status.open == 0 && status.next_attempt.is_some() {
                status.state = State::Down;
            }
        });
    }
}
