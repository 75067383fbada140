//! Relays: digital outputs that follow the plan. De-energised is the safe state.
//!
//! In: whether the relay shall be energised. Out: [`Event::Relay`] with the state after each change, or why it does
//! not follow, once per reason. Invariant: a relay is energised only while this task runs, the line works and the
//! plan wants it; it starts de-energised and ends de-energised.
//!
//! ```text
//!  start: de-energise ──→ (follows) ── wanted changes: switch, read back ──→ Relay(Ok)
//!     ↑                       │ ↑ every second: read back, switch again if it differs
//!     │ wait 1 s              │
//!     └── (line fails) ←──────┘ → Relay(Err)          stop, or nobody wants any more: de-energise
//! ```

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config,
    control::Events,
    device::line::{Board, DigitalOutput, LineError, System},
    site::Event,
};

/// Time between two looks at what the relay really is, and before a failed line is opened again.
const LOOK: Duration = Duration::from_secs(1);

/// Drives a relay until `stop`.
pub async fn run(
    config: config::Relay,
    wanted: watch::Receiver<bool>,
    events: Events,
    _clock: Clock,
    stop: CancellationToken,
) {
    let task = Task { config, board: System, wanted, events, told: None, look: LOOK };
    stop.run_until_cancelled(task.drive()).await;
}

struct Task<B> {
    config: config::Relay,
    board: B,
    wanted: watch::Receiver<bool>,
    events: Events,
    /// What the site knows.
    told: Option<Result<bool, String>>,
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
        let mut output = self.board.output(&self.config.line)?;
        loop {
            // Without anybody who wants, nobody would release it either.
            let wanted = *self.wanted.borrow_and_update() && self.wanted.has_changed().is_ok();
            output.set(wanted)?;
            match output.read_back()? {
                Some(real) if real != wanted => {
                    let word = |energised| if energised { "energised" } else { "de-energised" };
                    let problem = format!("does not follow: ordered {}, is {}", word(wanted), word(real));
                    self.tell(Err(problem));
                }
                _ => self.tell(Ok(wanted)),
            }
            match timeout(self.look, self.wanted.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => sleep(self.look).await,
            }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::{sync::mpsc, task::JoinSet};

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
        config::Relay { id: RelayId::new("k1"), line, function: RelayFunction::Unlimited }
    }

    struct Relay {
        events: mpsc::Receiver<Event>,
        tasks: JoinSet<()>,
    }

    impl Relay {
        fn start(board: &ChaosBoard, wanted: &watch::Sender<bool>, room: usize) -> Self {
            let (events_in, events) = mpsc::channel(room);
            let task = Task {
                config: config(line()),
                board: board.clone(),
                wanted: wanted.subscribe(),
                events: events_in,
                told: None,
                look: Duration::from_millis(5),
            };
            let mut tasks = JoinSet::new();
            tasks.spawn(task.drive());
            Self { events, tasks }
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
        tasks.spawn(run(
            config(Line::File(path.clone())),
            following,
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
}
