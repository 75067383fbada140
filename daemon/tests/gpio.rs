//! Contacts and relays on a kernel's own GPIO interface: gpio-sim in a user-mode Linux, which `tests/run gpio` builds and boots.
//!
//! A bank of simulated lines is made through configfs; `pull` is what hangs on an input, `value` what an output drives. A thread
//! plays the contactor.

#![expect(clippy::print_stdout, reason = "figures are for people")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use gpiocdev::Request;
use ladewartd::{
    clock::Clock,
    config::{self, ContactMeaning, Line, Mirror, RelayFunction},
    contact,
    device::line::System,
    ids::{ContactId, RelayId},
    relay,
    site::{Event, event::Level},
    units::Watts,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

/// A chip of simulated lines.
struct Bank {
    chip: PathBuf,
    lines: PathBuf,
}

impl Bank {
    /// The one of this process; the kernel keeps it.
    fn get() -> &'static Self {
        static BANK: OnceLock<Bank> = OnceLock::new();
        BANK.get_or_init(|| {
            let config = Path::new("/sys/kernel/config/gpio-sim/ladewart");
            if !config.exists() {
                fs::create_dir(config).expect("a kernel with gpio-sim, and configfs mounted");
                fs::create_dir(config.join("bank")).unwrap();
                fs::write(config.join("bank/num_lines"), "16").unwrap();
                fs::write(config.join("live"), "1").unwrap();
            }
            let read = |file: &str| fs::read_to_string(config.join(file)).unwrap().trim().to_owned();
            let (device, chip) = (read("dev_name"), read("bank/chip_name"));
            let bank = Self {
                lines: Path::new("/sys/devices/platform").join(device).join(&chip),
                chip: Path::new("/dev").join(chip),
            };
            assert!(bank.chip.exists(), "{}", bank.chip.display());
            bank
        })
    }

    fn line(&self, offset: u32) -> Line {
        Line::Gpio { chip: self.chip.clone(), offset }
    }

    /// What hangs on an input.
    fn pull(&self, offset: u32, up: bool) {
        let word = if up { "pull-up" } else { "pull-down" };
        fs::write(self.lines.join(format!("sim_gpio{offset}/pull")), word).unwrap();
    }

    /// What a line carries.
    fn value(&self, offset: u32) -> bool {
        fs::read_to_string(self.lines.join(format!("sim_gpio{offset}/value"))).unwrap().trim() == "1"
    }

    fn wait(&self, offset: u32, value: bool) {
        let begun = Instant::now();
        while self.value(offset) != value {
            assert!(begun.elapsed() < DEADLINE, "line {offset} never becomes {value}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

struct Contact {
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

impl Contact {
    fn start(line: Line, debounce: Duration) -> Self {
        let config = config::Contact {
            id: ContactId::new("w4"),
            line,
            limited_when_closed: true,
            debounce,
            meaning: ContactMeaning::Limit(Watts(4200)),
            node: 0,
        };
        let (events_in, events) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(contact::run(config, events_in, Clock::system(), CancellationToken::new()));
        Self { events, _tasks: tasks }
    }

    /// The next level, and how many edges the kernel told before it.
    async fn level(&mut self) -> (Level, u32) {
        let mut edges = 0;
        loop {
            match timeout(DEADLINE, self.events.recv()).await.expect("nothing is heard").expect("ended") {
                Event::Contact(_, level) => return (level, edges),
                Event::Edges { count, .. } => edges = count,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs gpio-sim; tests/run gpio runs it"]
async fn a_contact_that_bounces_for_200_ms_changes_once() {
    let bank = Bank::get();
    bank.pull(0, false);
    let debounce = Duration::from_millis(300);
    let mut contact = Contact::start(bank.line(0), debounce);
    assert_eq!(contact.level().await.0, Level::Open);
    let begun = Instant::now();
    let mut changes = 0;
    while begun.elapsed() < Duration::from_millis(200) {
        bank.pull(0, changes % 2 == 0);
        changes += 1;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    bank.pull(0, true);
    let (level, edges) = contact.level().await;
    assert_eq!(level, Level::Closed);
    assert!(begun.elapsed() >= debounce, "it did not hold for its time");
    println!(
        "   200 ms of bouncing, {changes} changes: {edges} edges past the kernel's filter, 1 change told"
    );

    // A pulse that is shorter than the debounce time, then one that is not.
    bank.pull(0, false);
    tokio::time::sleep(Duration::from_millis(60)).await;
    bank.pull(0, true);
    tokio::time::sleep(debounce * 2).await;
    bank.pull(0, false);
    assert_eq!(contact.level().await.0, Level::Open, "the pulse did not show");
}

#[tokio::test]
#[ignore = "needs gpio-sim; tests/run gpio runs it"]
async fn the_kernel_s_filter_takes_bounces_away() {
    let bank = Bank::get();
    bank.pull(6, false);
    let mut request = Request::builder();
    request.on_chip(&bank.chip).with_consumer("test").with_line(6).as_input();
    request.with_edge_detection(gpiocdev::line::EdgeDetection::BothEdges);
    request.with_debounce_period(Duration::from_millis(20));
    let request = request.request().unwrap();
    for change in 0..7 {
        bank.pull(6, change % 2 == 0);
        thread::sleep(Duration::from_millis(4));
    }
    thread::sleep(Duration::from_millis(100));
    let mut edges = 0;
    while request.has_edge_event().unwrap() {
        request.read_edge_event().unwrap();
        edges += 1;
    }
    println!("   7 changes 4 ms apart, 20 ms of kernel debounce: {edges} edge");
    assert_eq!(edges, 1);
}

#[tokio::test]
#[ignore = "needs gpio-sim; tests/run gpio runs it"]
async fn a_line_that_somebody_else_holds_says_who() {
    let bank = Bank::get();
    let other = |offset| {
        Request::builder()
            .on_chip(&bank.chip)
            .with_consumer("gpiomon-7")
            .with_line(offset)
            .as_input()
            .request()
            .unwrap()
    };
    let held = other(1);
    let mut contact = Contact::start(bank.line(1), Duration::from_millis(50));
    let (level, _) = contact.level().await;
    let Level::Unreadable(why) = &level else { panic!("{level:?}") };
    println!("   {why}");
    assert!(why.contains("is in use by") && why.contains("gpiomon-7"), "{why}");
    drop(held);
    assert_eq!(contact.level().await.0, Level::Open, "it is read when it is free");

    let held = other(2);
    let mut relay = Relay::start(bank.line(2), None, false);
    let why = relay.state().await.unwrap_err();
    assert!(why.contains("is in use by") && why.contains("gpiomon-7"), "{why}");
    drop(held);
    assert_eq!(relay.state().await, Ok(false));
}

struct Relay {
    events: mpsc::Receiver<Event>,
    wanted: watch::Sender<bool>,
    cleared: watch::Sender<u64>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    keep: tempfile::TempDir,
}

impl Relay {
    fn start(line: Line, mirror: Option<Line>, wanted: bool) -> Self {
        Self::with(line, mirror, wanted, tempfile::tempdir().unwrap())
    }

    fn with(line: Line, mirror: Option<Line>, wanted: bool, keep: tempfile::TempDir) -> Self {
        let config = config::Relay {
            id: RelayId::new("k1"),
            line,
            function: RelayFunction::Unlimited,
            mirror: mirror.map(|line| Mirror {
                line,
                closed_when_released: true,
                follow: Duration::from_millis(300),
            }),
            min_on: Duration::ZERO,
            min_off: Duration::ZERO,
        };
        let (wanted, wishes) = watch::channel(wanted);
        let (cleared, words) = watch::channel(0);
        let (events_in, events) = mpsc::channel(64);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let path = keep.path().to_owned();
        let board = System::default();
        tasks.spawn(relay::run(
            config,
            board,
            relay::Told { wanted: wishes, cleared: words },
            path,
            events_in,
            Clock::system(),
            stop.clone(),
        ));
        Self { events, wanted, cleared, stop, tasks, keep }
    }

    async fn state(&mut self) -> Result<bool, String> {
        loop {
            match timeout(DEADLINE, self.events.recv()).await.expect("nothing is heard").expect("ended") {
                Event::Relay(_, state) => return state,
                Event::Welded(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn stop(mut self) -> tempfile::TempDir {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.keep
    }
}

/// Follows its coil, and its mirror contact its main contacts, as long as it can.
struct Contactor {
    welded: Arc<AtomicBool>,
    dead: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Contactor {
    fn on(coil: u32, mirror: u32) -> Self {
        let flag = || Arc::new(AtomicBool::new(false));
        let (welded, dead, end) = (flag(), flag(), flag());
        let (is_welded, is_dead, ended) = (Arc::clone(&welded), Arc::clone(&dead), Arc::clone(&end));
        Bank::get().pull(mirror, true);
        let thread = thread::spawn(move || {
            let bank = Bank::get();
            let mut closed = false;
            while !ended.load(Ordering::Relaxed) {
                let coil = bank.value(coil) && !is_dead.load(Ordering::Relaxed);
                let next = coil || (closed && is_welded.load(Ordering::Relaxed));
                if next != closed {
                    thread::sleep(Duration::from_millis(15));
                    closed = next;
                    bank.pull(mirror, !closed);
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { welded, dead, end, thread: Some(thread) }
    }
}

impl Drop for Contactor {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs gpio-sim; tests/run gpio runs it"]
async fn a_welded_contactor_is_locked_out_until_it_is_cleared_and_a_dead_coil_is_told() {
    let bank = Bank::get();
    let contactor = Contactor::on(3, 4);
    let mut relay = Relay::start(bank.line(3), Some(bank.line(4)), false);
    assert_eq!(relay.state().await, Ok(false));
    relay.wanted.send_replace(true);
    assert_eq!(relay.state().await, Ok(true));
    assert!(bank.value(3));

    contactor.welded.store(true, Ordering::Relaxed);
    relay.wanted.send_replace(false);
    let why = relay.state().await.unwrap_err();
    println!("   {why}");
    assert!(why.starts_with("welded: ") && !bank.value(3), "{why}");
    // It outlives a restart, and nothing closes it meanwhile.
    let keep = relay.stop().await;
    let mut relay = Relay::with(bank.line(3), Some(bank.line(4)), true, keep);
    let why = relay.state().await.unwrap_err();
    assert!(why.starts_with("welded"), "{why}");
    assert!(!bank.value(3), "a welded contactor is not driven");
    contactor.welded.store(false, Ordering::Relaxed);
    relay.cleared.send_modify(|n| *n += 1);
    loop {
        if relay.state().await == Ok(true) {
            break;
        }
    }
    assert!(bank.value(3));

    relay.wanted.send_replace(false);
    assert_eq!(relay.state().await, Ok(false));
    contactor.dead.store(true, Ordering::Relaxed);
    relay.wanted.send_replace(true);
    let why = relay.state().await.unwrap_err();
    println!("   {why}");
    assert!(why.starts_with("does not close: "), "{why}");
    relay.stop().await;
    bank.wait(3, false);
}

/// What the next test kills.
#[tokio::test]
#[ignore = "run by the test of death alone"]
async fn hold_a_relay_until_death() {
    if std::env::var_os("LADEWART_GPIO_HOLD").is_none() {
        return;
    }
    let mut relay = Relay::start(Bank::get().line(5), None, true);
    assert_eq!(relay.state().await, Ok(true));
    std::future::pending::<()>().await;
}

#[test]
#[ignore = "needs gpio-sim; tests/run gpio runs it"]
fn a_relay_is_released_when_its_process_is_killed() {
    let bank = Bank::get();
    bank.pull(5, false);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", "hold_a_relay_until_death"])
        .env("LADEWART_GPIO_HOLD", "1")
        .spawn()
        .unwrap();
    bank.wait(5, true);
    holder.kill().unwrap();
    let begun = Instant::now();
    bank.wait(5, false);
    println!("   released {:?} after SIGKILL", begun.elapsed());
    holder.wait().unwrap();
}
