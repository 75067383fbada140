//! Walks the way once, step by step, and says what to do at the first step that fails.
//!
//! A test stands beside the attempts of the others: it neither waits for their backoff nor changes it. One runs at
//! a time and two begin at least one second apart, so that nobody tests a gateway into locking us out.

use std::time::Duration;

use base64::Engine as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    BackendDialer, BoxedIo, Dial, Target, Uplink, gateway,
    link::Way,
    step::{Cause, Failure, Step, advice},
    tcp,
};

/// Least time between two tests.
const APART: Duration = Duration::from_secs(1);

/// How long a connection must stand before it counts as reached, where nothing can be asked.
const STANDS: Duration = Duration::from_secs(1);

/// Longest head of an answer that is read.
const HEAD: usize = 4096;

/// Reports of one test; more than there are steps.
pub(super) const REPORTS: usize = 32;

/// What one step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub step: Step,
    /// Whether it went well; after one that did not, nothing follows.
    pub ok: bool,
    /// What was found, or what went wrong.
    pub detail: String,
    /// What to do next; empty if all is well.
    pub advice: String,
}

struct Walk<'a> {
    uplink: &'a Uplink,
    target: &'a Target,
    backend: Option<&'a BackendDialer>,
    reports: &'a mpsc::Sender<Report>,
}

impl Uplink {
    /// Tests the way to a target, and behind it the backend if it is that target's. The reports come while it
    /// runs; dropping the future ends the test.
    pub async fn test(
        &self,
        target: &Target,
        backend: Option<&BackendDialer>,
        reports: mpsc::Sender<Report>,
    ) {
        let mut tested = self.0.tested.lock().await;
        if let Some(before) = *tested {
            sleep(APART.saturating_sub(self.clock().now().mono.since(before))).await;
        }
        *tested = Some(self.clock().now().mono);
        let backend = backend.filter(|backend| backend.target.name() == target.name());
        let walk = Walk { uplink: self, target, backend, reports: &reports };
        if let Err(failure) = walk.walk().await {
            let advice = advice(failure.step, failure.cause, failure.reply).to_owned();
            walk.tell(Report { step: failure.step, ok: false, detail: failure.text, advice });
        }
    }

    /// A channel for [`Uplink::test`] that never fills.
    #[must_use]
    pub fn reports() -> (mpsc::Sender<Report>, mpsc::Receiver<Report>) {
        mpsc::channel(REPORTS)
    }
}

impl Walk<'_> {
    fn tell(&self, report: Report) {
        // Who has stopped listening need not hear.
        let _ = self.reports.try_send(report);
    }

    fn found(&self, step: Step, detail: String) {
        self.tell(Report { step, ok: true, detail, advice: String::new() });
    }

    async fn walk(&self) -> Result<(), Failure> {
        self.link()?;
        let shared = &self.uplink.0;
        let io = match &shared.way {
            Way::Listen(_) => match self.listening().await? {
                Some(io) => io,
                None => return Ok(()),
            },
            _ => {
                let mut seen = |step, detail| self.found(step, detail);
                shared.reach(&self.target.known.door, || (), &mut seen).await?
            }
        };
        let Some(backend) = self.backend else {
            self.stands(io).await?;
            self.found(Step::Target, format!("{} is reached; it is not asked anything", self.target.name()));
            return Ok(());
        };
        let (mut io, session) = backend.inner(io).await?;
        let answer = self.upgrade(backend, &mut io).await?;
        self.found(
            Step::Target,
            match session {
                Some(session) => format!("{} is reached; inside, {session}", self.target.name()),
                None => format!("{} is reached", self.target.name()),
            },
        );
        let (ok, detail) = answer?;
        if !ok {
            return Err(Failure::new(Step::Application, Cause::Refused, detail));
        }
        self.found(Step::Application, detail);
        Ok(())
    }

    fn link(&self) -> Result<(), Failure> {
        let shared = &self.uplink.0;
        shared.ground()?;
        let detail = match (&shared.han, &shared.way) {
            (Some(han), _) => {
                let facts = han.facts().unwrap_or_default();
                if facts.operstate == "down" || facts.operstate == "lowerlayerdown" {
                    let text = format!("the interface {} is down: no cable, or not switched on", han.name());
                    return Err(Failure::new(Step::Link, Cause::Ground, text));
                }
                if let Some(text) = han.lacks_address(shared.far()) {
                    return Err(Failure::new(Step::Link, Cause::Ground, text));
                }
                format!("{} is {}, and separated from other networks", han.name(), facts.operstate)
            }
            (None, Way::Direct) => "no gateway is configured".to_owned(),
            (None, _) => {
                "no interface is configured: the system chooses, and separation is not checked".to_owned()
            }
        };
        self.found(Step::Link, detail);
        Ok(())
    }

    /// Mode `listen`: what the gateway did. A connection that waits is taken for the rest of the test.
    async fn listening(&self) -> Result<Option<BoxedIo>, Failure> {
        let time = self.uplink.step_timeout();
        let Some(address) = *self.target.listening().borrow() else {
            let text = format!("nothing listens for {} yet", self.target.name());
            return Err(Failure::new(Step::Address, Cause::Silent, text));
        };
        self.found(Step::Address, format!("listening on {address}"));
        let status = self.uplink.status().borrow().clone();
        let open = status.targets.iter().find(|target| target.name == self.target.name());
        let open = open.map_or(0, |target| target.open);
        if open > 0 && !self.target.ready() {
            self.found(Step::Tcp, format!("{open} connections of the gateway stand, all in use"));
            self.found(Step::Tls, gateway::told(Some(&status.session), status.peer.as_ref()));
            return Ok(None);
        }
        match timeout(time, self.target.accept()).await {
            Ok(Ok(accepted)) => {
                self.found(Step::Tcp, format!("the gateway connected from {}", accepted.from));
                let session = self.uplink.status().borrow().session.clone();
                self.found(Step::Tls, gateway::told(Some(&session), Some(&accepted.peer)));
                Ok(Some(Box::new(accepted.channel)))
            }
            _ => {
                let refused = status.last_refusal.map(|(text, at)| format!("; last refused: {text} ({at})"));
                let cause = if refused.is_some() { Cause::Stranger } else { Cause::Absent };
                let refused = refused.unwrap_or_default();
                let text = format!("the gateway did not connect within {time:?}{refused}");
                Err(Failure::new(Step::Tcp, cause, text))
            }
        }
    }

    /// Where nobody knows what to ask: it stands if it is not closed at once.
    async fn stands(&self, mut io: BoxedIo) -> Result<(), Failure> {
        let mut piece = [0; 1];
        match timeout(STANDS, io.read(&mut piece)).await {
            Err(_) | Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0)) => Err(self.closed()),
            Ok(Err(error)) => Err(Failure::of_stream(Step::Target, self.target.name(), &error)),
        }
    }

    fn closed(&self) -> Failure {
        let text = format!("{} closed the connection before its first byte", self.target.name());
        Failure::new(Step::Target, Cause::Closed, text)
    }

    /// Asks for a WebSocket as an EVSE that nobody knows. The outer result is the target's, the inner one the
    /// application's: whether it serves anything, and what it said.
    async fn upgrade(
        &self,
        backend: &BackendDialer,
        io: &mut BoxedIo,
    ) -> Result<Result<(bool, String), Failure>, Failure> {
        let name = self.target.name();
        let key = base64::engine::general_purpose::STANDARD.encode([(); 16].map(|()| fastrand::u8(..)));
        let request = format!(
            "GET {}ladewart-test HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n",
            backend.path,
            tcp::authority(&backend.host, backend.port),
        );
        let of_target = |error: std::io::Error| Failure::of_stream(Step::Target, name, &error);
        let of_application = |cause, text: String| Failure::new(Step::Application, cause, text);
        io.write_all(request.as_bytes()).await.map_err(of_target)?;
        io.flush().await.map_err(of_target)?;
        let time = self.uplink.step_timeout();
        let mut head = Vec::new();
        loop {
            let mut piece = [0; 512];
            let n = match timeout(time, io.read(&mut piece)).await {
                Err(_) => {
                    let text = format!("{name} says nothing within {time:?}");
                    return Ok(Err(of_application(Cause::Silent, text)));
                }
                Ok(Ok(0)) if head.is_empty() => return Err(self.closed()),
                Ok(Ok(n)) => n,
                Ok(Err(error)) if head.is_empty() => return Err(of_target(error)),
                Ok(Err(_)) => 0,
            };
            head.extend(&piece[..n]);
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&head);
            if parsed.is_ok()
                && let (Some(code), Some(reason)) = (response.code, response.reason)
            {
                let detail = match code {
                    101 => format!("{name} takes WebSockets"),
                    _ => format!("{name} answers with HTTP {code} {reason} to an EVSE that it does not know"),
                };
                return Ok(Ok((code < 500, detail)));
            }
            if parsed.is_err() || n == 0 || head.len() > HEAD {
                let text = format!("{name} answers, but not in HTTP");
                return Ok(Err(of_application(Cause::Language, text)));
            }
        }
    }
}
