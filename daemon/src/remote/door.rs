//! Those who come in: handshakes that are under way, and the connections that are served.
//!
//! Invariants: at most [`HANDSHAKES`] unfinished and [`SESSIONS`] finished connections are held. When all places for
//! handshakes are taken, the oldest makes room: who stalls keeps nobody out.

use std::{collections::VecDeque, future::Future};

use tokio::task::{AbortHandle, JoinError, JoinSet};

/// Handshakes under way.
const HANDSHAKES: usize = 32;
/// Connections that are served.
const SESSIONS: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Door<T> {
    greetings: JoinSet<Option<T>>,
    order: VecDeque<AbortHandle>,
    sessions: JoinSet<()>,
}

impl<T> Default for Door<T> {
    fn default() -> Self {
        Self { greetings: JoinSet::new(), order: VecDeque::new(), sessions: JoinSet::new() }
    }
}

impl<T: Send + 'static> Door<T> {
    /// Begins with somebody; `None` turns them away.
    pub(super) fn greet(&mut self, greeting: impl Future<Output = Option<T>> + Send + 'static) {
        self.order.retain(|greeting| !greeting.is_finished());
        if self.order.len() >= HANDSHAKES
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back(self.greetings.spawn(greeting));
    }

    /// The next one who may come in; waits for ever if nobody was greeted. Cancel safe.
    pub(super) async fn passed(&mut self) -> T {
        loop {
            tokio::select! {
                Some(ended) = self.greetings.join_next() => match ended {
                    Ok(Some(passed)) => return passed,
                    Ok(None) => {}
                    Err(error) => broken(error),
                },
                Some(ended) = self.sessions.join_next() => ended.unwrap_or_else(broken),
                else => return std::future::pending().await,
            }
        }
    }

    /// Serves one more; `false` if there are too many.
    pub(super) fn serve(&mut self, session: impl Future<Output = ()> + Send + 'static) -> bool {
        let room = self.sessions.len() < SESSIONS;
        if room {
            self.sessions.spawn(session);
        } else {
            tracing::warn!(most = SESSIONS, "too many connections are served; one more is closed");
        }
        room
    }

    /// Waits for the end of all that is served.
    pub(super) async fn drain(mut self) {
        while self.sessions.join_next().await.is_some() {}
    }
}

/// A fault of ours ends the daemon; one that made room ends alone.
fn broken(error: JoinError) {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
}
