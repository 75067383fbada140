//! The backend's connection is replaced before the gateway ends it (BSI TR-03116-3: 48 h).
//!
//! In: what [`Dial::renewal`](crate::smgw::Dial::renewal) says of the connection that stands. Out: another one in its
//! place. Invariants: no CALL of either side is cut off by it unless it stays unanswered for [`QUIET`]; where the new
//! connection can stand beside the old one, the backend is never without one.
//!
//! ```text
//!   overlap:     waiting ─due─→ dialing ─→ quieting ─→ upgrading ─→ ready ─quiet─→ the new one takes over
//!                   ↑              └ failed ┘ for TOGETHER, then ┐      └ refused: ┐
//!   no overlap:  waiting ─due────────────────────────────────────┴→ leaving ─quiet─┴→ the old one is closed, dial
//! ```
//!
//! From `quieting` and `leaving` on no CALL goes north any more; what comes waits. Some backends close the older
//! connection of an identity as soon as they see a newer one, so the upgrade waits for silence, too.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    super::{
        Version,
        handshake::Socket,
        uplink::{self, Backoff, Failure},
    },
    Dialed, Dialing, North, Running,
};
use crate::{smgw::BoxedIo, time::Mono};

/// How long answers are waited for.
const QUIET: Duration = Duration::from_secs(10);
/// How long a second connection is tried while the first one stands.
const TOGETHER: Duration = Duration::from_secs(600);

const RENEWED: &str = "the connection is renewed";

type Reaching = Pin<Box<dyn Future<Output = Result<BoxedIo, Failure>> + Send>>;

/// The replacement of the connection that stands.
pub(super) struct Next {
    due: Mono,
    overlap: bool,
    /// Second connections are tried until then.
    give_up: Option<Mono>,
    backoff: Backoff,
    /// What is spoken with the backend stays.
    version: Version,
    stage: Stage,
}

enum Stage {
    Waiting,
    Dialing(Reaching),
    Quieting(BoxedIo, Mono),
    Upgrading(Dialing),
    Ready(Box<Socket>, Mono),
    Leaving(Mono),
}

/// What came of a step.
pub(super) enum Progress {
    Dialed(Result<BoxedIo, Failure>),
    Upgraded(Box<Dialed>),
}

/// The outcome of the step that runs; never, if none does.
pub(super) async fn progress(next: &mut Option<Next>) -> Progress {
    match next.as_mut().map(|next| &mut next.stage) {
        Some(Stage::Dialing(reaching)) => Progress::Dialed(reaching.await),
        Some(Stage::Upgrading(upgrade)) => Progress::Upgraded(Box::new(upgrade.await)),
        _ => std::future::pending().await,
    }
}

impl Next {
    /// When to look again without any other reason.
    pub(super) fn wake(&self) -> Option<Mono> {
        match &self.stage {
            Stage::Waiting => Some(self.due),
            Stage::Quieting(_, until) | Stage::Ready(_, until) | Stage::Leaving(until) => Some(*until),
            Stage::Dialing(_) | Stage::Upgrading(_) => None,
        }
    }

    /// A second connection came to nothing: when to try again, or the end of trying.
    fn failed(&mut self, now: Mono, failure: &Failure) {
        let refused = matches!(failure, Failure::Refused(_));
        if refused || self.give_up.is_some_and(|at| at <= now) {
            self.overlap = false;
            self.due = now;
        } else {
            self.due = now + self.backoff.after(failure);
        }
        self.stage = Stage::Waiting;
    }
}

impl Running {
    /// The connection stands since now.
    pub(super) fn plan_renewal(&mut self, now: Mono, version: Version) {
        let renewal = self.station.backend.as_ref().and_then(|(_, dial)| dial.renewal());
        self.next = renewal.map(|renewal| Next {
            due: now + renewal.after,
            overlap: renewal.overlap,
            give_up: None,
            backoff: Backoff::default(),
            version,
            stage: Stage::Waiting,
        });
    }

    /// Goes as far with the replacement as can be gone now.
    pub(super) async fn renew(&mut self) {
        let now = self.station.clock.now();
        let Some(mut next) = self.next.take() else {
            return;
        };
        if matches!(next.stage, Stage::Waiting) && next.due <= now.mono && !next.overlap {
            self.route.hold_north(now, true);
            next.stage = Stage::Leaving(now.mono + QUIET);
        }
        if !matches!(self.north, North::Up { .. }) {
            return self.stand_in(next.stage, next.version).await;
        }
        next.stage = match next.stage {
            Stage::Waiting if next.due <= now.mono && next.overlap => {
                next.give_up.get_or_insert(now.mono + TOGETHER);
                match self.reach() {
                    Some(reaching) => Stage::Dialing(reaching),
                    None => return,
                }
            }
            Stage::Quieting(io, until) if self.route.north_is_quiet() || until <= now.mono => {
                match self.upgrade(io, next.version) {
                    Some(upgrade) => Stage::Upgrading(upgrade),
                    None => return,
                }
            }
            Stage::Ready(socket, until) if self.route.north_is_quiet() || until <= now.mono => {
                return self.take_over(*socket, next.version);
            }
            Stage::Leaving(until) if self.route.north_is_quiet() || until <= now.mono => {
                return self.make_room();
            }
            stage => stage,
        };
        self.next = Some(next);
    }

    /// A step of the replacement has ended.
    pub(super) fn renewing(&mut self, progress: Progress) {
        let now = self.station.clock.now();
        let Some(next) = &mut self.next else { return };
        let outcome = match progress {
            Progress::Dialed(Ok(io)) => {
                next.stage = Stage::Quieting(io, now.mono + QUIET);
                return self.route.hold_north(now, true);
            }
            Progress::Dialed(Err(failure)) => Err(failure),
            Progress::Upgraded(outcome) => *outcome,
        };
        let failure = match outcome {
            Ok((socket, _)) => {
                next.stage = Stage::Ready(Box::new(socket), now.mono + QUIET);
                return;
            }
            Err(failure) => failure,
        };
        tracing::debug!(%failure, "no second connection to the backend");
        next.failed(now.mono, &failure);
        self.route.hold_north(now, false);
    }

    fn reach(&self) -> Option<Reaching> {
        let dial = Arc::clone(&self.station.backend.as_ref()?.1);
        Some(Box::pin(async move { dial.dial().await.map_err(Failure::Way) }))
    }

    fn upgrade(&self, io: BoxedIo, version: Version) -> Option<Dialing> {
        let backend = self.station.backend.as_ref()?.0.clone();
        let (identity, max_frame) = (self.station.identity.clone(), self.station.config.max_frame);
        let password = self.password.clone();
        Some(Box::pin(uplink::upgrade(io, backend, identity, vec![version], password, max_frame)))
    }

    /// The old connection ended by itself: what stands of the new one takes its place.
    async fn stand_in(&mut self, stage: Stage, version: Version) {
        if !matches!(self.north, North::Off | North::Resting(_)) {
            return;
        }
        match stage {
            Stage::Quieting(io, _) => {
                if let Some(upgrade) = self.upgrade(io, version) {
                    self.north = North::Dialing(vec![version], upgrade);
                }
            }
            Stage::Upgrading(upgrade) => self.north = North::Dialing(vec![version], upgrade),
            Stage::Ready(socket, _) => self.dialed(Ok((*socket, version))).await,
            Stage::Waiting | Stage::Dialing(_) | Stage::Leaving(_) => {}
        }
    }

    fn take_over(&mut self, socket: Socket, version: Version) {
        let now = self.station.clock.now();
        let ping = self.station.backend.as_ref().map_or(QUIET, |(backend, _)| backend.ping_interval);
        let link = self.start(socket, Some(ping));
        if let North::Up { link: old, .. } =
            std::mem::replace(&mut self.north, North::Up { link, since: now.mono, version })
        {
            old.close(CloseCode::Away, RENEWED);
        }
        tracing::info!("the backend's connection is renewed");
        self.route.north_replaced(now);
        self.plan_renewal(now.mono, version);
    }

    fn make_room(&mut self) {
        if let North::Up { link, .. } = std::mem::replace(&mut self.north, North::Off) {
            link.close(CloseCode::Away, RENEWED);
            tracing::info!("the backend's connection is ended to be made anew");
            self.route.north_down(self.station.clock.now());
        }
    }
}
