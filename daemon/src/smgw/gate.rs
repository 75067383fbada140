//! When an attempt may be made: one gate for the gateway and one per target, each for all its callers.
//!
//! In: callers, the outcome of each attempt. Out: a [`Pass`] per attempt, or the outcome of another one's attempt.
//! Invariants: while it is not known that the way works, one attempt is under way at a time and two begin at least
//! one second apart; while it works, at most [`AT_ONCE`] are under way.
//!
//! ```text
//!            ┌────────────────── failed: wait, twice as long each time ───────────┐
//!            ▼                                                                    │
//!  start ─▶ Closed ──first caller, when its time has come──▶ Closed, one probes ──┤
//!            ▲        (the others wait for its outcome)                           │
//!            └─────────failed────────── Open ◀───────────succeeded────────────────┘
//! ```
//!
//! An attempt is decided when the first byte of the application comes (or the connection ends before), not when
//! the proxy says that it succeeded: a proxy may say so and close. A pass that is dropped undecided counts as
//! nothing.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use super::DialError;
use crate::{clock::Clock, time::Mono};

/// Attempts under way at a time while the way works.
const AT_ONCE: usize = 4;

/// Least time between two attempts while it does not.
const APART: Duration = Duration::from_secs(1);

/// Waits between attempts that fail in a row: doubled from `min` to `max`, with jitter over the upper half so that
/// sites do not come back in step.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    in_row: u32,
    random: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration, random: fastrand::Rng) -> Self {
        Self { min, max, in_row: 0, random }
    }

    /// One more failure: how long to wait.
    fn fail(&mut self) -> Duration {
        let doubled = self.min.saturating_mul(1_u32.checked_shl(self.in_row).unwrap_or(u32::MAX));
        self.in_row = self.in_row.saturating_add(1);
        let full = doubled.min(self.max);
        full.mul_f64(0.5 + 0.5 * self.random.f64()).max(APART)
    }

    fn reset(&mut self) {
        self.in_row = 0;
    }
}

#[derive(Debug)]
struct Core {
    /// The last decided attempt succeeded.
    open: bool,
    /// Somebody waits for its time or tries, while not `open`.
    probing: bool,
    /// The probe's connection stands and awaits its first byte since then.
    quiet_since: Option<Mono>,
    /// No attempt before, while not `open`.
    earliest: Mono,
    /// When the last attempt began.
    begun: Option<Mono>,
    /// Counts the changes of `open`: an attempt of an earlier one tells nothing about now.
    era: u64,
    backoff: Backoff,
}

/// How the last attempt ended, for those who wait.
#[derive(Debug, Clone)]
enum Outcome {
    None,
    Undecided,
    Succeeded,
    Failed(DialError),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    clock: Clock,
    core: Mutex<Core>,
    outcome: watch::Sender<Outcome>,
    slots: Arc<Semaphore>,
    /// How long a probe may stay quiet before others stop waiting for its first byte.
    patience: Duration,
}

impl Gate {
    pub(super) fn new(backoff: Backoff, patience: Duration, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            core: Mutex::new(Core {
                open: false,
                probing: false,
                quiet_since: None,
                earliest: Mono::default(),
                begun: None,
                era: 0,
                backoff,
            }),
            outcome: watch::Sender::new(Outcome::None),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            patience,
        })
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Mono {
        self.clock.now().mono
    }

    /// Whether no backoff runs.
    pub(super) fn ready(&self) -> bool {
        let now = self.now();
        let core = self.core();
        core.open || now >= core.earliest
    }

    /// Something changed that may mend the way: the wait that runs ends now, though not within a second of the
    /// last attempt.
    pub(super) fn hurry(&self) {
        let now = self.now();
        {
            let mut core = self.core();
            core.backoff.reset();
            let soonest = core.begun.map_or(now, |begun| begun + APART);
            core.earliest = core.earliest.min(soonest.max(now));
        }
        // Whoever sleeps until its turn looks again; whoever waits for an outcome goes on waiting.
        self.outcome.send_replace(Outcome::Undecided);
    }

    /// Waits for a turn. An error is the outcome of the attempt that this caller waited for.
    pub(super) async fn enter(self: &Arc<Self>) -> Result<Pass, DialError> {
        let mut outcome = self.outcome.subscribe();
        loop {
            outcome.borrow_and_update();
            if self.core().open {
                let Ok(slot) = self.slots.clone().acquire_owned().await else {
                    return Err(DialError::Hopeless("the uplink is closed".to_owned()));
                };
                let now = self.now();
                let mut core = self.core();
                if core.open {
                    core.begun = Some(now);
                    return Ok(self.pass(core.era, false, Some(slot)));
                }
                continue;
            }
            if let Some(probe) = self.claim() {
                if self.turn(&mut outcome).await {
                    return Ok(probe);
                }
                continue;
            }
            match timeout(self.patience, outcome.changed()).await {
                Ok(_) => {
                    if let Outcome::Failed(error) = &*outcome.borrow() {
                        return Err(error.clone());
                    }
                }
                Err(_) => self.accept_quiet(),
            }
        }
    }

    /// Takes the role of the one who probes, if nobody has it.
    fn claim(self: &Arc<Self>) -> Option<Pass> {
        let mut core = self.core();
        if core.open || core.probing {
            return None;
        }
        core.probing = true;
        core.quiet_since = None;
        Some(self.pass(core.era, true, None))
    }

    fn pass(self: &Arc<Self>, era: u64, probe: bool, slot: Option<OwnedSemaphorePermit>) -> Pass {
        Pass { gate: self.clone(), era, probe, slot, decided: false }
    }

    /// Sleeps until an attempt may begin; `false` if the gate opened meanwhile.
    async fn turn(&self, outcome: &mut watch::Receiver<Outcome>) -> bool {
        loop {
            let left = {
                let now = self.now();
                let mut core = self.core();
                if core.open {
                    return false;
                }
                if now >= core.earliest {
                    core.begun = Some(now);
                    return true;
                }
                core.earliest.since(now)
            };
            tokio::select! {
                () = sleep(left) => {}
                _ = outcome.changed() => {}
            }
        }
    }

    /// A connection that stands and waits for its peer to speak is not a failure: lets the others try.
    fn accept_quiet(&self) {
        let now = self.now();
        let mut core = self.core();
        if !core.open && core.quiet_since.is_some_and(|since| now.since(since) >= self.patience) {
            core.open = true;
            core.era += 1;
            drop(core);
            self.outcome.send_replace(Outcome::Succeeded);
        }
    }
}

/// The right to one attempt.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    era: u64,
    probe: bool,
    slot: Option<OwnedSemaphorePermit>,
    decided: bool,
}

impl Pass {
    /// The connection stands; whether it works is still open.
    pub(super) fn connected(&mut self) {
        self.slot = None;
        if self.probe {
            let now = self.gate.now();
            self.gate.core().quiet_since = Some(now);
        }
    }

    /// It works.
    pub(super) fn succeed(mut self) {
        self.decided = true;
        {
            let mut core = self.gate.core();
            if !core.open {
                core.open = true;
                core.era += 1;
            }
            core.backoff.reset();
            if self.probe {
                core.probing = false;
            }
        }
        self.gate.outcome.send_replace(Outcome::Succeeded);
    }

    /// It failed of what another gate holds back: those who wait hear of it, this gate stays as it is.
    pub(super) fn pass_on(mut self, error: DialError) {
        self.decided = true;
        if self.probe {
            self.gate.core().probing = false;
        }
        self.gate.outcome.send_replace(Outcome::Failed(error));
    }

    /// It does not: the time until the next attempt.
    pub(super) fn fail(mut self, error: DialError) -> Duration {
        self.decided = true;
        let now = self.gate.now();
        let left = {
            let mut core = self.gate.core();
            if self.era == core.era {
                if core.open {
                    core.open = false;
                    core.era += 1;
                }
                let wait = core.backoff.fail();
                core.earliest = now + wait;
            }
            if self.probe {
                core.probing = false;
            }
            core.earliest.since(now)
        };
        self.gate.outcome.send_replace(Outcome::Failed(error));
        left
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.decided || !self.probe {
            return;
        }
        {
            let mut core = self.gate.core();
            core.probing = false;
            if let Some(begun) = core.begun {
                core.earliest = core.earliest.max(begun + APART);
            }
        }
        self.gate.outcome.send_replace(Outcome::Undecided);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn gate() -> Arc<Gate> {
        Gate::new(Backoff::new(S, 300 * S, fastrand::Rng::with_seed(7)), 10 * S, Clock::system())
    }

    fn error() -> DialError {
        DialError::Failed("connection refused".to_owned())
    }

    #[test]
    fn waits_double_with_jitter_up_to_the_longest() {
        let mut backoff = Backoff::new(S, 300 * S, fastrand::Rng::with_seed(1));
        let mut longest = S;
        for _ in 0..40 {
            let wait = backoff.fail();
            assert!(wait >= S && wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
            longest = (2 * longest).min(300 * S);
        }
        backoff.reset();
        assert_eq!(backoff.fail(), S);
    }

    #[test]
    fn two_sites_do_not_come_back_in_step() {
        let waits = |seed| {
            let mut backoff = Backoff::new(S, 300 * S, fastrand::Rng::with_seed(seed));
            (0..9).map(|_| backoff.fail()).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_grow_the_wait_and_a_success_resets_it() {
        let gate = gate();
        let mut begun = Vec::new();
        for _ in 0..6 {
            let pass = gate.enter().await.unwrap();
            begun.push(gate.now());
            pass.fail(error());
            assert!(!gate.ready());
        }
        let waits: Vec<_> = begun.windows(2).map(|w| w[1].since(w[0])).collect();
        assert!(waits.iter().all(|w| *w >= S), "{waits:?}");
        assert!(waits[4] >= 8 * S && waits[4] <= 17 * S, "the fifth wait is half to all of 16 s: {waits:?}");
        gate.enter().await.unwrap().succeed();
        assert!(gate.ready());
        gate.enter().await.unwrap().fail(error());
        let failed = gate.now();
        gate.enter().await.unwrap().succeed();
        assert!(
            gate.now().since(failed) <= S + S / 10,
            "the first wait after a success is the shortest again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_callers_make_at_most_one_attempt_per_second() {
        let gate = gate();
        let begun = Arc::new(Mutex::new(Vec::new()));
        let refused = Arc::new(AtomicU32::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            let (gate, begun, refused) = (gate.clone(), begun.clone(), refused.clone());
            callers.spawn(async move {
                loop {
                    match gate.enter().await {
                        Ok(pass) => {
                            begun.lock().unwrap().push(gate.now());
                            pass.fail(error());
                        }
                        Err(_) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        sleep(120 * S).await;
        callers.abort_all();
        let begun = begun.lock().unwrap();
        assert!((6..=12).contains(&begun.len()), "{begun:?}");
        assert!(begun.windows(2).all(|w| w[1].since(w[0]) >= S), "{begun:?}");
        assert!(refused.load(Ordering::Relaxed) >= 19 * 5, "the others hear the outcome");
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_lets_all_in_a_few_at_a_time() {
        let gate = gate();
        let probe = gate.enter().await.unwrap();
        let (most, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let current = Arc::new(AtomicU32::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            let (gate, current, most, done) = (gate.clone(), current.clone(), most.clone(), done.clone());
            callers.spawn(async move {
                let pass = gate.enter().await.unwrap();
                most.fetch_max(current.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                sleep(S / 10).await;
                current.fetch_sub(1, Ordering::Relaxed);
                pass.succeed();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        sleep(S).await;
        assert_eq!(done.load(Ordering::Relaxed), 0, "nobody passes before the probe is decided");
        probe.succeed();
        while let Some(end) = callers.join_next().await {
            end.unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), 20);
        assert_eq!(most.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_attempts_made_together_count_once() {
        let gate = gate();
        gate.enter().await.unwrap().succeed();
        let mut together = Vec::new();
        for _ in 0..4 {
            together.push(gate.enter().await.unwrap());
        }
        let waits: Vec<_> = together.into_iter().map(|pass| pass.fail(error())).collect();
        assert!(waits.iter().all(|w| *w <= S), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_gives_up_hands_the_turn_on() {
        let gate = gate();
        gate.enter().await.unwrap().fail(error());
        let failed = gate.now();
        for _ in 0..5 {
            assert!(timeout(S / 10, gate.enter()).await.is_err(), "its time has not come");
        }
        drop(gate.enter().await.unwrap());
        let first = gate.now();
        assert!(first.since(failed) >= S);
        drop(gate.enter().await.unwrap());
        assert!(gate.now().since(first) >= S, "even an undecided attempt counts for the rate");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_the_wait_but_not_the_rate() {
        let gate = gate();
        for _ in 0..9 {
            gate.enter().await.unwrap().fail(error());
        }
        let failed = gate.now();
        let waits = gate.enter();
        tokio::pin!(waits);
        assert!(timeout(S / 10, &mut waits).await.is_err(), "its wait is minutes long");
        gate.hurry();
        drop(waits.await.unwrap());
        assert_eq!(gate.now().since(failed), S);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_elsewhere_reaches_those_who_wait_and_costs_no_backoff() {
        let gate = gate();
        let probe = gate.enter().await.unwrap();
        let (heard, ()) = tokio::join!(gate.enter(), async { probe.pass_on(error()) });
        assert!(heard.is_err());
        assert!(gate.ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_connection_does_not_lock_the_others_out() {
        let gate = gate();
        let mut quiet = gate.enter().await.unwrap();
        quiet.connected();
        let begun = gate.now();
        gate.enter().await.unwrap().succeed();
        let waited = gate.now().since(begun);
        assert!((10 * S..=21 * S).contains(&waited), "{waited:?}");
        drop(quiet);
        assert!(gate.ready());
    }
}
