//! One WebSocket: frames in, frames out, pings.
//!
//! In: [`Say`]. Out: [`Heard`], tagged with the connection's number; the last one is always [`Heard::End`]. Invariant:
//! a peer that neither reads nor answers is given up within two ping intervals or [`WRITE`], whichever is first. Any frame
//! counts as an answer. Without pings (a box that does not know them) silence ends nothing but the TCP connection can.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::handshake::Socket;

/// For the peer to take a frame.
const WRITE: Duration = Duration::from_secs(10);
/// For the peer to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// The interval of a tick that nobody waits for.
const NEVER: Duration = Duration::from_secs(3600);
/// Frames that wait for the peer to take them.
const BACKLOG: usize = 256;

/// What to do with the peer.
#[derive(Debug)]
pub(super) enum Say {
    Text(String),
    Close(CloseCode, &'static str),
}

/// What came from the peer.
#[derive(Debug)]
pub(super) enum Heard {
    Text(String),
    End(End),
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct End {
    /// In words.
    pub(super) why: String,
    /// The peer broke a rule that a person should know of.
    pub(super) broke_rules: bool,
    pub(super) close: Option<(CloseCode, &'static str)>,
}

impl End {
    fn peer(why: impl Into<String>) -> Self {
        Self { why: why.into(), broke_rules: false, close: None }
    }

    fn broke(why: String, code: CloseCode, reason: &'static str) -> Self {
        Self { why, broke_rules: true, close: Some((code, reason)) }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(e) => {
                Self::broke(format!("it sent too much: {e}"), CloseCode::Size, "frame too large")
            }
            Error::Utf8(_) => {
                Self::broke("it sent invalid UTF-8".into(), CloseCode::Invalid, "invalid UTF-8")
            }
            Error::Protocol(e) => {
                let torn = matches!(
                    e,
                    tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
                );
                if torn {
                    Self::peer("the connection was cut")
                } else {
                    Self::broke(
                        format!("it broke the WebSocket protocol: {e}"),
                        CloseCode::Protocol,
                        "protocol error",
                    )
                }
            }
            other => Self::peer(other.to_string()),
        }
    }
}

/// A running connection. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Its number.
    pub(super) id: u64,
    say: mpsc::Sender<Say>,
}

impl Link {
    /// A connection with this number, and what [`run`] needs of it.
    pub(super) fn new(id: u64) -> (Self, mpsc::Receiver<Say>) {
        let (say, told) = mpsc::channel(BACKLOG);
        (Self { id, say }, told)
    }

    /// Hands a frame to the connection; `false` if the peer does not take any more.
    #[must_use]
    pub(super) fn send(&self, text: String) -> bool {
        self.say.try_send(Say::Text(text)).is_ok()
    }

    /// Closes the connection after what was sent before.
    pub(super) fn close(self, code: CloseCode, reason: &'static str) {
        // If there is no room the connection ends by its write timeout.
        let _ = self.say.try_send(Say::Close(code, reason));
    }
}

/// Runs a connection to its end.
pub(super) async fn run(
    mut socket: Socket,
    id: u64,
    mut say: mpsc::Receiver<Say>,
    heard: mpsc::Sender<(u64, Heard)>,
    ping: Option<Duration>,
) {
    let end = converse(&mut socket, id, &mut say, &heard, ping).await;
    let close = end.close;
    // The station may be gone.
    let _ = heard.send((id, Heard::End(end))).await;
    let _ = timeout(LINGER, leave(socket, close)).await;
}

async fn converse(
    socket: &mut Socket,
    id: u64,
    say: &mut mpsc::Receiver<Say>,
    heard: &mpsc::Sender<(u64, Heard)>,
    ping: Option<Duration>,
) -> End {
    let every = ping.unwrap_or(NEVER);
    let mut tick = interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut alive, mut pinged) = (true, false);
    loop {
        let message = tokio::select! {
            message = socket.next() => {
                alive = true;
                match message {
                    Some(Ok(Message::Text(text))) => {
                        if heard.send((id, Heard::Text(text.as_str().to_owned()))).await.is_err() {
                            return going_away();
                        }
                    }
                    // Some boxes send their text as binary frames.
                    Some(Ok(Message::Binary(bytes))) => match String::from_utf8(bytes.into()) {
                        Ok(text) => {
                            if heard.send((id, Heard::Text(text))).await.is_err() {
                                return going_away();
                            }
                        }
                        Err(_) => {
                            let why = "it sent a binary frame".into();
                            return End::broke(why, CloseCode::Unsupported, "text frames only");
                        }
                    },
                    Some(Ok(Message::Close(frame))) => {
                        return End::peer(frame.map_or_else(
                            || "it closed the connection".to_owned(),
                            |f| format!("it closed the connection with {} {:?}", u16::from(f.code), f.reason.as_str()),
                        ));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error.into(),
                    None => return End::peer("the connection was cut"),
                }
                continue;
            }
            said = say.recv() => match said {
                Some(Say::Text(text)) => Message::text(text),
                Some(Say::Close(code, reason)) => {
                    return End { why: reason.into(), broke_rules: false, close: Some((code, reason)) };
                }
                None => return going_away(),
            },
            _ = tick.tick(), if ping.is_some() => {
                if pinged && !alive {
                    return End::peer("it does not answer pings");
                }
                (alive, pinged) = (false, true);
                Message::Ping(Vec::new().into())
            }
        };
        match timeout(WRITE, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return End::peer("it takes no more data"),
        }
    }
}

fn going_away() -> End {
    End { why: "we are going away".into(), broke_rules: false, close: Some((CloseCode::Away, "going away")) }
}

/// Says goodbye, then waits for the peer to go: closing with unread data would destroy the goodbye on its way.
async fn leave(mut socket: Socket, close: Option<(CloseCode, &'static str)>) {
    let frame = close.map(|(code, reason)| CloseFrame { code, reason: reason.into() });
    let _ = socket.send(Message::Close(frame)).await;
    let _ = socket.flush().await;
    let io = socket.get_mut();
    let mut scratch = [0; 4096];
    while io.read(&mut scratch).await.is_ok_and(|n| n > 0) {}
}
