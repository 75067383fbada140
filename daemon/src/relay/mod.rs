//! Relays: digital outputs that follow the plan. De-energised is the safe state.
//!
//! In: whether the relay shall be energised, and the mirror contact where there is one. Out: [`Event::Relay`] with the
//! state after each change, or why it does not follow, once per reason; [`Event::Welded`]. Invariant: a relay is energised
//! only while this task runs, the line works, the plan wants it and its contactor is not welded; it starts de-energised
//! and ends de-energised. A contactor that stays closed is locked out until an operator says otherwise.
//!
//! ```text
//!  start: de-energise ──→ (follows) ── wanted changes: switch, read back ──→ Relay(Ok)
//!     ↑                       │ ↑ every second: read back, switch again if it differs
//!     │ wait 1 s              │
//!     └── (line fails) ←──────┘ → Relay(Err)          stop, or nobody wants any more: de-energise
//! ```

mod state;

use std::{path::PathBuf, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use self::state::State;
use crate::{
    clock::Clock,
    config,
    control::Events,
    device::line::{Board, DigitalInput, DigitalOutput, LineError, Sample, System},
    site::Event,
    time::Mono,
};

/// Time between two looks at what the relay really is, and before a failed line is opened again.
const LOOK: Duration = Duration::from_secs(1);

/// Time between two looks at an output whose order travels.
const TRAVEL: Duration = Duration::from_millis(50);

/// What a relay is told.
#[derive(Debug)]
pub struct Told {
    /// Whether it shall be energised.
    pub wanted: watch::Receiver<bool>,
    /// Counts an operator's words that the contactor was seen to.
    pub cleared: watch::Receiver<u64>,
}

/// Drives a relay until `stop`.
pub async fn run(
    config: config::Relay,
    board: System,
    Told { wanted, cleared }: Told,
    keep: PathBuf,
    events: Events,
    clock: Clock,
    stop: CancellationToken,
) {
    let state = State::open(&keep, config.id.as_str());
    let task = Task {
        config,
        board,
        wanted,
        cleared,
        state,
        events,
        clock,
        told: None,
        welded: None,
        switched: None,
        look: LOOK,
    };
    stop.run_until_cancelled(task.drive()).await;
}

struct Task<B> {
    config: config::Relay,
    board: B,
    wanted: watch::Receiver<bool>,
    /// Counts an operator's words that the contactor was seen to.
    cleared: watch::Receiver<u64>,
    state: State,
    events: Events,
    clock: Clock,
    /// What the site knows.
    told: Option<Result<bool, String>>,
    /// What the site knows of a weld.
    welded: Option<bool>,
    /// The last change of what was ordered.
    switched: Option<(bool, Mono)>,
    look: Duration,
}

impl<B: Board> Task<B> {
    /// Never ends. Dropping it drops the output, which de-energises it.
    async fn drive(mut self) {
        loop {
            let Err(error) = self.follow().await;
            self.tell(Err(error.to_string()));
            sleep(self.look).await;
        }
    }

    /// Follows the plan until the line fails.
    async fn follow(&mut self) -> Result<std::convert::Infallible, LineError> {
        // What the contactor does is read before anything is driven.
        let mut mirror = match &self.config.mirror {
            Some(mirror) => Some(self.board.input(&mirror.line, mirror.bounce(), self.clock)?),
            None => None,
        };
        let mut closed = match &mut mirror {
            Some(input) => Some(self.main(input.next().await?.closed)),
            None => None,
        };
        let mut output = self.board.output(&self.config.line)?;
        self.switched = None;
        loop {
            self.tell_weld();
            let wanted = self.order();
            output.set(wanted)?;
            let now = self.clock.now().mono;
            let since = match self.switched {
                Some((order, since)) if order == wanted => since,
                _ => {
                    if wanted && let Err(error) = self.state.count() {
                        tracing::warn!(relay = %self.config.id, %error, "its switchings are not counted");
                    }
                    self.switched = Some((wanted, now));
                    now
                }
            };
            let real = output.read_back()?;
            let settled = output.settled();
            if settled {
                self.judge(wanted, real, closed, now.since(since));
            }
            let wait = match &self.config.mirror {
                _ if !settled => TRAVEL.min(self.look),
                // Look again when the contactor must have followed.
                Some(m) if closed.is_some_and(|c| c != wanted) && now.since(since) < m.follow => {
                    m.follow.saturating_sub(now.since(since)).min(self.look)
                }
                _ => self.look,
            };
            // A channel whose sender is gone says nothing more.
            tokio::select! {
                Ok(()) = self.wanted.changed() => {}
                Ok(()) = self.cleared.changed() => self.clear(),
                sample = next(&mut mirror) => closed = Some(self.main(sample?.closed)),
                () = sleep(wait) => {}
            }
        }
    }

    /// What is ordered now: what the plan wants, but nothing of a welded contactor, and not before its rest is over.
    fn order(&mut self) -> bool {
        // Without anybody who wants, nobody would release it either.
        let wanted = *self.wanted.borrow_and_update() && self.wanted.has_changed().is_ok();
        let now = self.clock.now().mono;
        match self.switched {
            _ if self.state.welded().is_some() => false,
            Some((false, since)) if wanted && now.since(since) < self.config.min_off => false,
            // Only a contactor whose EVSE is at 0 A anyway waits here: a limit never does.
            Some((true, since)) if !wanted && now.since(since) < self.config.min_on => true,
            _ => wanted,
        }
    }

    /// Whether the main contacts are closed, by the mirror contact.
    fn main(&self, mirror_closed: bool) -> bool {
        let inverse = self.config.mirror.as_ref().is_none_or(|m| m.closed_when_released);
        mirror_closed != inverse
    }

    /// Compares what was ordered with what is.
    fn judge(&mut self, wanted: bool, real: Option<bool>, closed: Option<bool>, since: Duration) {
        let word = |energised| if energised { "energised" } else { "de-energised" };
        if let Some(real) = real.filter(|real| *real != wanted) {
            return self.tell(Err(format!("does not follow: ordered {}, is {}", word(wanted), word(real))));
        }
        let late = self.config.mirror.as_ref().is_some_and(|m| since >= m.follow);
        match (wanted, closed) {
            (false, Some(true)) if late => {
                let why = "the mirror contact says that it stays closed without current in its coil";
                if self.state.welded().is_none()
                    && let Err(error) = self.state.weld(why.to_owned())
                {
                    tracing::error!(relay = %self.config.id, %error, "the weld is not on the disk");
                }
                self.tell_weld();
                self.tell(Err(format!("welded: {why}; replace the contactor, then clear it")));
            }
            (true, Some(false)) if late => {
                self.tell(Err("does not close: coil, its fuse or its wire is broken".to_owned()));
            }
            // It may still be on its way.
            (_, Some(is)) if is != wanted => {}
            _ => match self.state.welded() {
                Some(why) => {
                    self.tell(Err(format!("welded before: {why}; replace the contactor, then clear it")));
                }
                None => self.tell(Ok(wanted)),
            },
        }
    }

    /// The operator has seen to it.
    fn clear(&mut self) {
        self.cleared.borrow_and_update();
        match self.state.clear() {
            Ok(()) => tracing::info!(relay = %self.config.id, switched = self.state.switched(), "cleared"),
            Err(error) => tracing::error!(relay = %self.config.id, %error, "cannot be cleared"),
        }
    }

    fn tell_weld(&mut self) {
        let welded = self.state.welded().is_some();
        if self.welded == Some(welded) || (self.welded.is_none() && !welded) {
            return;
        }
        if self.events.try_send(Event::Welded(self.config.id.clone(), welded)).is_ok() {
            self.welded = Some(welded);
        }
    }

    /// Does not wait: a relay must be released also while the site is busy. What finds the queue full is told at
    /// the next look.
    fn tell(&mut self, state: Result<bool, String>) {
        if self.told.as_ref() == Some(&state) {
            return;
        }
        if self.events.try_send(Event::Relay(self.config.id.clone(), state.clone())).is_err() {
            return;
        }
        match &state {
            Ok(energised) => tracing::info!(relay = %self.config.id, energised, "switched"),
            Err(why) => tracing::error!(relay = %self.config.id, why, "does not do as ordered"),
        }
        self.told = Some(state);
    }
}

/// The mirror contact's next state; never, without one.
async fn next<I: DigitalInput>(mirror: &mut Option<I>) -> Result<Sample, LineError> {
    match mirror {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::{sync::mpsc, task::JoinSet, time::timeout};

    use super::*;
    use crate::{
        config::{Line, RelayFunction},
        device::line::chaos::ChaosBoard,
        ids::RelayId,
    };

    const DEADLINE: Duration = Duration::from_secs(20);

    fn line() -> Line {
        Line::Gpio { chip: PathBuf::from("/dev/gpiochip0"), offset: 17 }
    }

    fn config(line: Line) -> config::Relay {
        config::Relay {
            id: RelayId::new("k1"),
            line,
            function: RelayFunction::Unlimited,
            mirror: None,
            min_on: Duration::ZERO,
            min_off: Duration::ZERO,
        }
    }

    struct Relay {
        events: mpsc::Receiver<Event>,
        cleared: watch::Sender<u64>,
        tasks: JoinSet<()>,
        keep: Option<tempfile::TempDir>,
    }

    impl Relay {
        fn start(board: &ChaosBoard, wanted: &watch::Sender<bool>, room: usize) -> Self {
            let keep = tempfile::tempdir().unwrap();
            let mut relay = Self::with(config(line()), board, wanted, room, keep.path());
            relay.keep = Some(keep);
            relay
        }

        fn with(
            config: config::Relay,
            board: &ChaosBoard,
            wanted: &watch::Sender<bool>,
            room: usize,
            keep: &std::path::Path,
        ) -> Self {
            let (events_in, events) = mpsc::channel(room);
            let (cleared, words) = watch::channel(0);
            let task = Task {
                state: State::open(keep, "k1"),
                config,
                board: board.clone(),
                wanted: wanted.subscribe(),
                cleared: words,
                events: events_in,
                clock: Clock::system(),
                told: None,
                welded: None,
                switched: None,
                look: Duration::from_millis(5),
            };
            let mut tasks = JoinSet::new();
            tasks.spawn(task.drive());
            Self { events, cleared, tasks, keep: None }
        }

        async fn state(&mut self) -> Result<bool, String> {
            match timeout(DEADLINE, self.events.recv()).await.expect("no event in time") {
                Some(Event::Relay(id, state)) if id.as_str() == "k1" => state,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn until(what: impl Fn() -> bool) {
        timeout(DEADLINE, async {
            while !what() {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect("in time");
    }

    #[tokio::test]
    async fn it_starts_released_follows_and_is_released_at_the_end() {
        let (board, wanted) = (ChaosBoard::new(), watch::Sender::new(false));
        board.drive(&line(), true, None);
        let mut relay = Relay::start(&board, &wanted, 8);
        assert_eq!(relay.state().await, Ok(false));
        wanted.send_replace(true);
        assert_eq!(relay.state().await, Ok(true));
        assert!(board.level(&line()));
        wanted.send_replace(false);
        assert_eq!(relay.state().await, Ok(false));
        wanted.send_replace(true);
        assert_eq!(relay.state().await, Ok(true));
        assert!(!board.orders(&line())[0], "the first order releases");

        relay.tasks.shutdown().await;
        assert!(!board.level(&line()));
    }

    #[tokio::test]
    async fn it_is_released_when_nobody_wants_any_more_and_while_the_site_is_busy() {
        let (board, wanted) = (ChaosBoard::new(), watch::Sender::new(false));
        let relay = Relay::start(&board, &wanted, 1);
        // Nobody takes the events: the queue is full after the first.
        wanted.send_replace(true);
        until(|| board.level(&line())).await;
        wanted.send_replace(false);
        until(|| !board.level(&line())).await;
        wanted.send_replace(true);
        until(|| board.level(&line())).await;
        drop(wanted);
        until(|| !board.level(&line())).await;
        drop(relay);
    }

    #[tokio::test]
    async fn a_relay_that_does_not_follow_is_told_once_and_ordered_again() {
        let (board, wanted) = (ChaosBoard::new(), watch::Sender::new(false));
        let mut relay = Relay::start(&board, &wanted, 8);
        assert_eq!(relay.state().await, Ok(false));
        board.stick(&line(), true);
        wanted.send_replace(true);
        assert_eq!(relay.state().await, Err("does not follow: ordered energised, is de-energised".into()));
        let orders = board.orders(&line()).len();
        until(|| board.orders(&line()).len() > orders + 2).await;
        board.stick(&line(), false);
        assert_eq!(relay.state().await, Ok(true));
        // Welded: stays closed when released.
        board.stick(&line(), true);
        wanted.send_replace(false);
        assert_eq!(relay.state().await, Err("does not follow: ordered de-energised, is energised".into()));
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_had_is_told_in_words_and_tried_again() {
        let (board, wanted) = (ChaosBoard::new(), watch::Sender::new(true));
        let busy =
            LineError::Busy { chip: PathBuf::from("/dev/gpiochip0"), offset: 17, by: "\"gpioset\"".into() };
        board.fail_open(&line(), Some(busy.clone()));
        let mut relay = Relay::start(&board, &wanted, 8);
        assert_eq!(relay.state().await, Err(busy.to_string()));
        board.fail_open(&line(), None);
        assert_eq!(relay.state().await, Ok(true));
        let gone = LineError::Failed { what: "line 17".into(), why: "gone".into() };
        board.fail_use(&line(), Some(gone.clone()));
        assert_eq!(relay.state().await, Err(gone.to_string()));
        board.fail_use(&line(), None);
        assert_eq!(relay.state().await, Ok(true));
    }

    #[tokio::test]
    async fn a_file_serves_as_a_relay_and_reads_0_after_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k1");
        let (wanted, following) = watch::channel(true);
        let (events_in, mut events) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (_cleared, words) = watch::channel(0);
        tasks.spawn(run(
            config(Line::File(path.clone())),
            System::default(),
            Told { wanted: following, cleared: words },
            dir.path().to_owned(),
            events_in,
            Clock::system(),
            stop.clone(),
        ));
        let told = timeout(DEADLINE, events.recv()).await.expect("in time");
        assert_eq!(told, Some(Event::Relay(RelayId::new("k1"), Ok(true))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        stop.cancel();
        timeout(DEADLINE, tasks.join_next()).await.expect("stops").unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n");
        drop(wanted);
    }

    fn mirror_line() -> Line {
        Line::Gpio { chip: PathBuf::from("/dev/gpiochip0"), offset: 18 }
    }

    /// A contactor with a mirror contact: closed while the main contacts are open.
    fn contactor() -> config::Relay {
        let mirror = config::Mirror {
            line: mirror_line(),
            closed_when_released: true,
            follow: Duration::from_millis(60),
        };
        config::Relay { mirror: Some(mirror), ..config(line()) }
    }

    #[tokio::test]
    async fn a_welded_contactor_is_locked_out_also_after_a_restart_until_an_operator_clears_it() {
        let (board, wanted) = (ChaosBoard::new(), watch::Sender::new(false));
        let keep = tempfile::tempdir().unwrap();
        board.drive(&mirror_line(), true, None);
        let mut relay = Relay::with(contactor(), &board, &wanted, 8, keep.path());
        assert_eq!(relay.state().await, Ok(false));
        wanted.send_replace(true);
        until(|| board.level(&line())).await;
        board.drive(&mirror_line(), false, None);
        assert_eq!(relay.state().await, Ok(true));
        // Released, and the main contacts stay closed.
        wanted.send_replace(false);
        let welded = timeout(DEADLINE, relay.events.recv()).await.unwrap().unwrap();
        assert_eq!(welded, Event::Welded(RelayId::new("k1"), true));
        assert!(relay.state().await.unwrap_err().starts_with("welded: the mirror contact says"));
        wanted.send_replace(true);
        relay.tasks.shutdown().await;

        let mut relay = Relay::with(contactor(), &board, &wanted, 8, keep.path());
        let welded = timeout(DEADLINE, relay.events.recv()).await.unwrap().unwrap();
        assert_eq!(welded, Event::Welded(RelayId::new("k1"), true));
        let orders = board.orders(&line()).len();
        assert!(relay.state().await.unwrap_err().starts_with("welded"));
        until(|| board.orders(&line()).len() > orders + 3).await;
        assert!(board.orders(&line())[orders..].iter().all(|energised| !energised), "closed although welded");

        // Replaced.
        board.drive(&mirror_line(), true, None);
        relay.cleared.send_replace(1);
        until(|| board.level(&line())).await;
    }

    #[tokio::test]
    async fn a_contactor_that_does_not_close_is_told_and_not_locked_out() {
        let (board, wanted) = (ChaosBoard::new(), watch::Sender::new(true));
        let keep = tempfile::tempdir().unwrap();
        board.drive(&mirror_line(), true, None);
        let mut relay = Relay::with(contactor(), &board, &wanted, 8, keep.path());
        assert_eq!(
            relay.state().await,
            Err("does not close: coil, its fuse or its wire is broken".to_owned())
        );
        board.drive(&mirror_line(), false, None);
        assert_eq!(relay.state().await, Ok(true));
    }

    #[tokio::test]
    async fn a_contactor_rests_before_it_closes_again() {
        let (board, wanted) = (ChaosBoard::new(), watch::Sender::new(true));
        let keep = tempfile::tempdir().unwrap();
        let rest = Duration::from_millis(300);
        let relay = config::Relay { min_off: rest, ..config(line()) };
        let mut relay = Relay::with(relay, &board, &wanted, 8, keep.path());
        assert_eq!(relay.state().await, Ok(true));
        wanted.send_replace(false);
        assert_eq!(relay.state().await, Ok(false));
        let clock = Clock::system();
        wanted.send_replace(true);
        assert_eq!(relay.state().await, Ok(true));
        assert!(clock.now().mono.0 + Duration::from_millis(50) >= rest);
    }
}
