//! `ladewartctl reverse-listen`: the operator's side of remote administration.
//!
//! Appliances sit behind gateways that let nobody in; they dial out, and serve the daemon's interface on the
//! connection that they opened. In: their connections, with TLS and both certificates. Out: a Unix socket for each
//! appliance, on which every client of the interface works as on the appliance itself. Invariants: nobody without a
//! certificate of the given CA gets as far as a socket; a socket is there exactly while its appliance is, and always
//! leads to the connection that was opened last.
//!
//! ```text
//! TCP → TLS ─→ HTTP/2, we are the client ─→ appliance ◀─ socket ◀─ HTTP/2, we are the server ◀─ ladewartctl
//!          └─→ refused, told at most once a second
//! ```

mod appliance;
mod forward;
mod roll;
mod tls;

use std::{
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use rustls::ServerConfig;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use self::{
    appliance::{Appliance, Arrived},
    roll::{Change, Roll},
};
use crate::{failure::Failure, session::Session, words};

/// Handshakes under way.
const HANDSHAKES: usize = 64;
/// Least time between two lines about refused connections.
const APART: Duration = Duration::from_secs(1);
/// Wait after a failed accept, e.g. without free file descriptors.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct ReverseListen {
    /// Where appliances connect.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// What is shown to them: PEM, leaf first.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its private key: PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Who issues the appliances' certificates: a PEM bundle.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Where each appliance gets its socket, named like its certificate. Only this user may use them.
    #[arg(long, value_name = "DIRECTORY", default_value = "appliances")]
    socket_dir: PathBuf,
}

impl ReverseListen {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let tls = tls::server(&self.certificate, &self.key, &self.ca).map_err(Failure::Wrong)?;
        prepare(&self.socket_dir)?;
        let cannot = |error: io::Error| {
            Failure::Wrong(format!("cannot listen for appliances on {}: {error}", self.listen))
        };
        let listener = TcpListener::bind(self.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let dir = self.socket_dir.display();
        let begin = json!({ "event": "listening", "address": address.to_string() });
        tell(session, begin, &format!("listening on {address}; sockets appear in {dir}")).await?;
        let signals = |error: io::Error| Failure::Wrong(format!("the program cannot take signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
        tokio::select! {
            ended = accept(&listener, tls, Roll::new(self.socket_dir.clone()), session) => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    }
}

/// The directory for the sockets, closed to others.
fn prepare(dir: &Path) -> Result<(), Failure> {
    let wrong = |error: io::Error| Failure::Wrong(format!("{} cannot be used: {error}", dir.display()));
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(dir).map_err(wrong)?.permissions().mode();
            if mode & 0o022 != 0 {
                return Err(Failure::Wrong(format!(
                    "{} may be written by others, who could put a socket of theirs there; choose another directory \
                     or take that right away (chmod go-w)",
                    dir.display()
                )));
            }
            Ok(())
        }
        Err(error) => Err(wrong(error)),
    }
}

/// Runs until the output is gone. What it has made ends with it.
async fn accept(
    listener: &TcpListener,
    tls: Arc<ServerConfig>,
    mut roll: Roll,
    session: &mut Session,
) -> Result<(), Failure> {
    let mut greetings: JoinSet<Result<Arrived, String>> = JoinSet::new();
    let mut order: std::collections::VecDeque<AbortHandle> = std::collections::VecDeque::new();
    let mut refused = Refused::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    order.retain(|greeting| !greeting.is_finished());
                    // The oldest makes room: who stalls keeps no appliance out.
                    if order.len() >= HANDSHAKES && let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    order.push_back(greetings.spawn(greet(tls.clone(), tcp, from)));
                }
                Err(error) => {
                    refused.tell(session, &format!("a connection could not be accepted: {error}")).await?;
                    tokio::time::sleep(RETRY).await;
                }
            },
            Some(greeting) = greetings.join_next() => match greeting {
                Ok(Ok(arrived)) => match roll.arrive(arrived) {
                    Ok(change) => change.tell(session).await?,
                    Err(problem) => refused.tell(session, &problem).await?,
                },
                Ok(Err(reason)) => refused.tell(session, &reason).await?,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            Some(change) = roll.next() => change.tell(session).await?,
        }
    }
}

async fn greet(tls: Arc<ServerConfig>, tcp: TcpStream, from: SocketAddr) -> Result<Arrived, String> {
    Appliance::greet(tls, tcp, from).await.map_err(|reason| format!("{from} was refused: {reason}"))
}

/// Keeps strangers from filling the screen.
#[derive(Debug, Default)]
struct Refused {
    last: Option<Instant>,
    left_out: u64,
}

impl Refused {
    async fn tell(&mut self, session: &mut Session, reason: &str) -> Result<(), Failure> {
        if self.last.is_some_and(|last| last.elapsed() < APART) {
            self.left_out += 1;
            return Ok(());
        }
        let left_out = std::mem::take(&mut self.left_out);
        self.last = Some(Instant::now());
        let more = if left_out == 0 { String::new() } else { format!(" (and {left_out} before)") };
        let event = json!({ "event": "refused", "reason": reason, "left_out": left_out });
        tell(session, event, &format!("refused  {}{more}", words::clean(reason))).await
    }
}

impl Change {
    async fn tell(&self, session: &mut Session) -> Result<(), Failure> {
        let (word, seen, socket) = match self {
            Self::Connected(seen, socket) => ("connected", seen, Some(socket)),
            Self::Renewed(seen, socket) => ("renewed", seen, Some(socket)),
            Self::Gone(seen) => ("gone", seen, None),
        };
        let event = json!({
            "event": word,
            "name": seen.name,
            "subject": seen.subject,
            "fingerprint": seen.fingerprint,
            "from": seen.from.to_string(),
            "socket": socket.map(|s| s.display().to_string()),
        });
        let mut line = format!("{word:9}  {}", seen.name);
        if let Some(socket) = socket {
            // Writing to a string cannot fail.
            let _ = write!(
                line,
                "  {}  {}  {}  from {}",
                socket.display(),
                words::clean(&seen.subject),
                seen.fingerprint,
                seen.from
            );
        }
        tell(session, event, &line).await
    }
}

/// One event, as a line.
async fn tell(session: &mut Session, mut event: serde_json::Value, words: &str) -> Result<(), Failure> {
    let style = session.style();
    let text = if session.json_or(false) {
        event["at"] = style.now.to_string().into();
        event.to_string()
    } else {
        format!("{}  {words}", style.now.to_zoned(style.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z"))
    };
    session.output.line(&text).await
}
