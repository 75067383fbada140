//! Contacts: digital inputs that carry a limit, such as the relay of the grid operator's control box.
//!
//! In: samples of a line. Out: [`Event::Contact`]: the state at the start at once, then each state that held for
//! its debounce time, with [`Event::Edges`] before it. Two lines make a code of two bits: it is debounced as one, so that
//! what is between two codes never shows. Invariant: a line that cannot be read is [`Level::Unreadable`], which counts as limited, and
//! is tried again until it can; coming back takes the debounce time, too.

mod debounce;

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::debounce::Debounce;
use crate::{
    clock::Clock,
    config::{self, ContactMeaning},
    control::Events,
    device::line::{Board, DigitalInput, LineError, Sample, System},
    site::{Event, event::Level},
    time::Mono,
};

/// Wait before an unreadable line is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// The most that the hardware side may filter by itself; the rest of the debounce time is ours, so that short
/// pulses stay visible in the log.
const BOUNCE_MAX: Duration = Duration::from_millis(20);

/// Watches a contact until `stop`.
pub async fn run(config: config::Contact, events: Events, clock: Clock, stop: CancellationToken) {
    let task = Task {
        debounce: Debounce::new(config.debounce),
        config,
        board: System::default(),
        events,
        clock,
        told: None,
        edges: None,
        retry: RETRY,
    };
    stop.run_until_cancelled(task.watch()).await;
}

struct Task<B> {
    config: config::Contact,
    board: B,
    events: Events,
    clock: Clock,
    debounce: Debounce<u8>,
    /// What the site knows.
    told: Option<Level>,
    /// The first edge since a level last held, and how many there were.
    edges: Option<(Mono, u32)>,
    retry: Duration,
}

impl<B: Board> Task<B> {
    /// Never ends.
    async fn watch(mut self) {
        loop {
            let Err(error) = self.follow().await;
            self.debounce.lost();
            self.edges = None;
            self.tell(Level::Unreadable(error.to_string())).await;
            sleep(self.retry).await;
        }
    }

    /// Follows the lines until one fails.
    async fn follow(&mut self) -> Result<std::convert::Infallible, LineError> {
        let bounce = BOUNCE_MAX.min(self.config.debounce / 4);
        let mut first = self.board.input(&self.config.line, bounce, self.clock)?;
        let mut second = match &self.config.meaning {
            ContactMeaning::Code(line, _) => Some(self.board.input(line, bounce, self.clock)?),
            ContactMeaning::Limit(_) | ContactMeaning::Signal => None,
        };
        // Nothing counts before every line was looked at.
        let mut sample = first.next().await?;
        let mut bits = self.bit(sample, 1);
        if let Some(second) = &mut second {
            sample = second.next().await?;
            bits |= self.bit(sample, 2);
        }
        let mut held = self.look(bits, sample);
        loop {
            if let Some(level) = held {
                self.tell_edges().await;
                self.tell(self.level(level)).await;
            }
            let left = self.debounce.deadline().map(|at| at.since(self.clock.now().mono));
            held = tokio::select! {
                // An edge that is waiting was before the deadline: look first.
                biased;
                sample = first.next() => {
                    let sample = sample?;
                    bits = bits & !1 | self.bit(sample, 1);
                    self.look(bits, sample)
                }
                sample = next(&mut second) => {
                    let sample = sample?;
                    bits = bits & !2 | self.bit(sample, 2);
                    self.look(bits, sample)
                }
                () = sleep(left.unwrap_or_default()), if left.is_some() => {
                    self.debounce.poll(self.clock.now().mono)
                }
            };
        }
    }

    /// A line's share of the state: as it is for one line, set where it limits for two.
    fn bit(&self, sample: Sample, bit: u8) -> u8 {
        let set = match self.config.meaning {
            ContactMeaning::Code(..) => sample.closed == self.config.limited_when_closed,
            ContactMeaning::Limit(_) | ContactMeaning::Signal => sample.closed,
        };
        if set { bit } else { 0 }
    }

    fn level(&self, bits: u8) -> Level {
        match (&self.config.meaning, bits) {
            (ContactMeaning::Code(..), code) => Level::Code(code),
            (_, 0) => Level::Open,
            _ => Level::Closed,
        }
    }

    fn look(&mut self, bits: u8, sample: Sample) -> Option<u8> {
        tracing::debug!(contact = %self.config.id, closed = sample.closed, at = ?sample.at, "looked");
        let held = self.debounce.sample(bits, sample.at);
        match &mut self.edges {
            _ if self.debounce.deadline().is_none() => {}
            Some((_, count)) => *count = count.saturating_add(1),
            edges @ None => *edges = Some((sample.at, 1)),
        }
        held
    }

    /// When the state that now holds began, by the kernel's time.
    async fn tell_edges(&mut self) {
        let Some((first, count)) = self.edges.take() else { return };
        let now = self.clock.now();
        let at = now.wall - now.mono.since(first);
        self.send(Event::Edges { id: self.config.id.clone(), at, count }).await;
    }

    async fn tell(&mut self, level: Level) {
        if self.told.as_ref() == Some(&level) {
            return;
        }
        match &level {
            Level::Unreadable(why) => tracing::warn!(contact = %self.config.id, why, "unreadable"),
            _ => tracing::info!(contact = %self.config.id, ?level, "changed"),
        }
        self.told = Some(level.clone());
        self.send(Event::Contact(self.config.id.clone(), level)).await;
    }

    async fn send(&mut self, event: Event) {
        if self.events.send(event).await.is_err() {
            // The site is gone: the daemon is going down, and `stop` follows.
            std::future::pending::<()>().await;
        }
    }
}

/// The second line's next sample; never, without one.
async fn next<I: DigitalInput>(line: &mut Option<I>) -> Result<Sample, LineError> {
    match line {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::{sync::mpsc, task::JoinSet, time::timeout};

    use super::*;
    use crate::{config::Line, device::line::chaos::ChaosBoard, ids::ContactId, units::Watts};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn config(line: Line, debounce: Duration) -> config::Contact {
        config::Contact {
            id: ContactId::new("w4"),
            line,
            limited_when_closed: true,
            debounce,
            meaning: ContactMeaning::Limit(Watts(4200)),
            node: 0,
        }
    }

    struct Contact {
        events: mpsc::Receiver<Event>,
        _tasks: JoinSet<()>,
    }

    impl Contact {
        fn start<B: Board + 'static>(board: B, line: &Line, debounce: Duration) -> Self
        where
            B::Input: 'static,
        {
            let (events_in, events) = mpsc::channel(64);
            let task = Task {
                config: config(line.clone(), debounce),
                board,
                events: events_in,
                clock: Clock::system(),
                debounce: Debounce::new(debounce),
                told: None,
                edges: None,
                retry: Duration::from_millis(5),
            };
            let mut tasks = JoinSet::new();
            tasks.spawn(task.watch());
            Self { events, _tasks: tasks }
        }

        async fn level(&mut self) -> Level {
            loop {
                match timeout(DEADLINE, self.events.recv()).await.expect("no event in time") {
                    Some(Event::Contact(id, level)) if id.as_str() == "w4" => return level,
                    Some(Event::Edges { count, .. }) => assert!(count > 0),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn line() -> Line {
        Line::Gpio { chip: PathBuf::from("/dev/gpiochip0"), offset: 4 }
    }

    #[tokio::test]
    async fn the_state_at_the_start_is_told_at_once_and_a_change_after_its_time() {
        let board = ChaosBoard::new();
        board.drive(&line(), true, None);
        let debounce = Duration::from_millis(50);
        let mut contact = Contact::start(board.clone(), &line(), debounce);
        assert_eq!(contact.level().await, Level::Closed);
        let clock = Clock::system();
        board.drive(&line(), false, None);
        assert_eq!(contact.level().await, Level::Open);
        assert!(clock.now().mono.0 >= debounce);
    }

    #[tokio::test]
    async fn bounces_never_show_and_the_change_after_them_does_once() {
        let board = ChaosBoard::new();
        let mut contact = Contact::start(board.clone(), &line(), Duration::from_millis(300));
        assert_eq!(contact.level().await, Level::Open);
        for _ in 0..20 {
            for closed in [true, false] {
                board.drive(&line(), closed, None);
                tokio::task::yield_now().await;
            }
        }
        board.drive(&line(), true, None);
        assert_eq!(contact.level().await, Level::Closed);
        // Had a bounce shown, an open state would come before this.
        let gone = LineError::Failed { what: "line 4".into(), why: "gone".into() };
        board.fail_use(&line(), Some(gone.clone()));
        assert_eq!(contact.level().await, Level::Unreadable(gone.to_string()));
    }

    #[tokio::test]
    async fn two_lines_make_a_code_and_what_is_between_two_codes_never_shows() {
        let board = ChaosBoard::new();
        let second = Line::Gpio { chip: PathBuf::from("/dev/gpiochip0"), offset: 5 };
        let meaning =
            ContactMeaning::Code(second.clone(), [None, Some(Watts(3)), Some(Watts(2)), Some(Watts(0))]);
        let (events_in, events) = mpsc::channel(64);
        let debounce = Duration::from_millis(200);
        let task = Task {
            // With rest-current wiring: open limits.
            config: config::Contact { meaning, limited_when_closed: false, ..config(line(), debounce) },
            board: board.clone(),
            events: events_in,
            clock: Clock::system(),
            debounce: Debounce::new(debounce),
            told: None,
            edges: None,
            retry: Duration::from_millis(5),
        };
        board.drive(&line(), true, None);
        board.drive(&second, true, None);
        let mut tasks = JoinSet::new();
        tasks.spawn(task.watch());
        let mut contact = Contact { events, _tasks: tasks };
        assert_eq!(contact.level().await, Level::Code(0));
        // One after the other, as contacts do.
        board.drive(&line(), false, None);
        sleep(Duration::from_millis(2)).await;
        board.drive(&second, false, None);
        assert_eq!(contact.level().await, Level::Code(3));
        board.drive(&second, true, None);
        assert_eq!(contact.level().await, Level::Code(1));
        let gone = LineError::Failed { what: "line 5".into(), why: "gone".into() };
        board.fail_use(&second, Some(gone.clone()));
        assert_eq!(contact.level().await, Level::Unreadable(gone.to_string()));
    }

    #[tokio::test]
    async fn an_unreadable_line_is_told_once_with_its_reason_and_followed_again_later() {
        let board = ChaosBoard::new();
        let busy =
            LineError::Busy { chip: PathBuf::from("/dev/gpiochip0"), offset: 4, by: "\"gpiomon\"".into() };
        board.fail_open(&line(), Some(busy.clone()));
        let mut contact = Contact::start(board.clone(), &line(), Duration::from_millis(20));
        assert_eq!(contact.level().await, Level::Unreadable(busy.to_string()));
        board.fail_open(&line(), None);
        assert_eq!(contact.level().await, Level::Open);

        let gone = LineError::Failed { what: "line 4".into(), why: "gone".into() };
        board.fail_use(&line(), Some(gone.clone()));
        assert_eq!(contact.level().await, Level::Unreadable(gone.to_string()));
        board.drive(&line(), true, None);
        board.fail_use(&line(), None);
        assert_eq!(contact.level().await, Level::Closed);
    }

    #[tokio::test]
    async fn a_file_serves_as_a_contact_and_the_task_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w4");
        let (events_in, mut events) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let config = config(Line::File(path.clone()), Duration::from_millis(30));
        tasks.spawn(run(config, events_in, Clock::system(), stop.clone()));
        let mut level = async || loop {
            match timeout(DEADLINE, events.recv()).await.expect("in time") {
                Some(Event::Contact(_, level)) => return level,
                Some(Event::Edges { .. }) => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(level().await, Level::Unreadable(why) if why.contains("w4 is not there: ")));
        std::fs::write(&path, "0\n").unwrap();
        assert_eq!(level().await, Level::Open);
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(level().await, Level::Closed);
        stop.cancel();
        timeout(DEADLINE, tasks.join_next()).await.expect("stops").unwrap().unwrap();
    }
}
