//! How long a session with a gateway may live.
//!
//! TR-03116-3 ends a session after 48 h; a gateway also cuts one that is idle for ten minutes. Invariant: no
//! stream of the uplink outlives its limit, and none outlives the separation of the HAN.
//!
//! ```text
//! begun ──renew_after, less some jitter──▶ due: who uses it replaces it ──limit──▶ ended by us
//! ```

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Renewal;
use crate::time::Mono;

/// A gateway may cut a session that is idle for this long. Whoever uses a stream sends something in good time
/// before: a WebSocket or HTTP/2 ping.
pub const IDLE_CUT: Duration = Duration::from_secs(600);

/// No session lives longer: four minutes before the gateway's own cut.
const LONGEST: Duration = Duration::from_secs(48 * 3600 - 240);

/// When the next stream is to be replaced: in the last twentieth of the planned time, so that streams that were
/// opened together are not replaced together.
pub(super) fn renewal(renew_after: Duration, overlap: bool) -> Renewal {
    Renewal { after: renew_after.mul_f64(0.95 + 0.05 * fastrand::f64()), overlap }
}

/// The times of one session.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) begun: Mono,
    /// Planned age of its replacement.
    pub(super) renew_after: Duration,
    /// Ends every session when the HAN is no longer separated.
    pub(super) fence: CancellationToken,
}

impl Life {
    /// What is left for who does not replace its stream by itself.
    fn limit(&self) -> Duration {
        (self.renew_after + self.renew_after / 50).min(LONGEST)
    }

    pub(super) fn end(self, now: Mono) -> End {
        let left = self.limit().saturating_sub(now.since(self.begun));
        End { limit: Box::pin(sleep(left)), fence: Box::pin(self.fence.cancelled_owned()) }
    }
}

/// The end of a session.
#[derive(Debug)]
pub(super) struct End {
    limit: Pin<Box<Sleep>>,
    fence: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl End {
    /// Ready with the reason once the session is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.fence.as_mut().poll(cx).is_ready() {
            let text = "the HAN is no longer separated from other networks";
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, text));
        }
        if self.limit.as_mut().poll(cx).is_ready() {
            let text = "the session reached its planned end";
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, text));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: Duration = Duration::from_secs(3600);

    #[test]
    fn renewals_spread_and_come_before_the_cut() {
        let all: Vec<_> = (0..100).map(|_| renewal(47 * H, true).after).collect();
        let (first, last) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(*first >= 44 * H && *last <= 47 * H, "{first:?} to {last:?}");
        assert!(*last > *first + H, "a hundred are spread over more than an hour: {first:?} to {last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_does_not_outlive_the_separation() {
        let begun = crate::clock::Clock::system().now().mono;
        let fence = CancellationToken::new();
        let mut end = Life { begun, renew_after: H, fence: fence.clone() }.end(begun);
        let ended = std::future::poll_fn(|cx| end.poll(cx));
        tokio::pin!(ended);
        assert!(tokio::time::timeout(H / 2, &mut ended).await.is_err(), "it lives");
        fence.cancel();
        let text = "the HAN is no longer separated from other networks";
        assert_eq!(ended.await.to_string(), text);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_nobody_replaces_ends_before_the_gateway_cuts_it() {
        let clock = crate::clock::Clock::system();
        for renew_after in [47 * H, 47 * H + H / 2, H] {
            let begun = clock.now().mono;
            let life = Life { begun, renew_after, fence: CancellationToken::new() };
            let mut end = life.end(begun);
            let error = std::future::poll_fn(|cx| end.poll(cx)).await;
            let age = clock.now().mono.since(begun);
            assert!(age >= renew_after && age + Duration::from_secs(239) <= 48 * H, "{age:?}");
            assert_eq!(error.to_string(), "the session reached its planned end");
        }
    }
}
