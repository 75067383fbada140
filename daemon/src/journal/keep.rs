//! What the journal needs over the years: signatures, and an end.
//!
//! In: the time. Out: entries that sign, and entries that say what was taken off. Invariant: nothing is taken off before
//! its two years are over (BNetzA BK6-22-300 Anlage 1 no. 7.3), and nothing while the clock cannot be right.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Journal, SPAN, Signer};
use crate::clock::{self, Clock};

/// Two years, and a fortnight for whoever asks late.
const KEEP: Duration = Duration::from_secs(745 * 86_400);
/// A forger of the last hour needs no key.
const EVERY: Duration = Duration::from_secs(3600);
/// The first signature after a start.
const FIRST: Duration = Duration::from_secs(60);
/// A database of this size is said to be large, once a day: two years of a busy site need less.
const LARGE: u64 = 2 << 30;

/// Keeps the journal until the stop.
pub async fn keep(journal: Journal, signer: Signer, clock: Clock, stop: CancellationToken) {
    let (mut wait, mut hour) = (FIRST, 0_u64);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = EVERY;
        let now = clock.now().wall;
        // A storage that fails says so itself; the next hour tries again.
        if let Err(error) = journal.sign(&signer, now).await {
            tracing::warn!(%error, "the journal is not signed");
        }
        if hour.is_multiple_of(24) {
            if clock::plausible(now) {
                while journal.rotate(now - KEEP, now).await.is_ok_and(|gone| gone >= SPAN.unsigned_abs()) {
                    if stop.is_cancelled() {
                        return;
                    }
                }
            }
            if let Ok(size) = journal.size().await
                && size > LARGE
            {
                tracing::warn!(
                    mebibytes = size >> 20,
                    "the journal is large; nothing younger than two years is taken off"
                );
            }
        }
        hour += 1;
    }
}
