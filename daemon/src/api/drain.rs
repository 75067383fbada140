//! Ends what streams when the daemon stops or a connection is given up.
//!
//! In: responses. Out: the same responses, whose bodies end with UNAVAILABLE once that is so and nothing more is
//! ready. Invariant: an answer that is ready is delivered, also while stopping; a stream that waits for
//! news does not keep the daemon alive.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};
use tower::util::MapResponseLayer;

/// The layer around all services.
pub(super) fn layer(
    stop: CancellationToken,
    why: &'static str,
) -> MapResponseLayer<impl Fn(http::Response<Body>) -> http::Response<Body> + Clone> {
    MapResponseLayer::new(move |response: http::Response<Body>| {
        let stop = Box::pin(stop.clone().cancelled_owned());
        response.map(|inner| Body::new(UntilStopped { inner, stop, why, ended: false }))
    })
}

struct UntilStopped {
    inner: Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    why: &'static str,
    ended: bool,
}

impl http_body::Body for UntilStopped {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.stop.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        Status::unavailable(self.why).add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
