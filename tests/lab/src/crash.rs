//! The crash table: the daemon is killed and the uplink is cut at random points while charge points charge; what they
//! told must be at the backend afterwards: all of it, in order, nothing twice.
//!
//! In: how often, how many, a seed. Out: a table, `target/report/crash.json`, or the first difference. The points are
//! drawn from the seed, so that a run can be repeated as far as the machine allows.
//!
//! Nobody can know whether the peer had a message whose answer is lost. Such a message comes again under its own id
//! and with its own content, by which the backend tells (`queue`); the table counts these apart from the messages that
//! would be billed twice, and none of those is tolerated.

use std::{
    collections::{HashMap, HashSet, hash_map},
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use ladewart_lab::{
    backend,
    connection::L123,
    evse::{Event, car::Car},
    frame::Frame,
    process::tail,
    site::{EvsePlan, Lab, Plan},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// For everything to come to rest on a loaded machine.
const REST: Duration = Duration::from_secs(300);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
const CAR: Car = Car { phases: 3, max_amps: 16.0, room_wh: 1e9 };

/// How hard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hardship {
    pub(crate) kills: u32,
    pub(crate) cuts: u32,
    pub(crate) evses: u32,
    /// Messages per second, of all charge points together.
    pub(crate) rate: u32,
    pub(crate) seed: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    Cut,
}

impl Blow {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of the daemon",
            Self::Cut => "cut of the uplink",
        }
    }
}

/// What one part of the run did.
#[derive(Debug, Default)]
struct Row {
    what: &'static str,
    times: u32,
    seconds: f64,
    /// By kind: StartTransaction, StopTransaction, MeterValues.
    told: [usize; 3],
    again: usize,
    /// Messages that were asked and not answered when it happened, over all times.
    open: usize,
    slowest_ready: Duration,
}

/// Runs all.
pub(crate) async fn run(hard: Hardship) -> anyhow::Result<()> {
    ensure!((1..=100).contains(&hard.evses), "use 1 to 100 EVSEs");
    ensure!(hard.rate > 0, "at least one message per second");
    writeln!(io::stdout().lock(), "seed {}", hard.seed)?;
    let mut rng = fastrand::Rng::with_seed(hard.seed);
    let mut rows = Vec::new();
    for (blow, times) in [(Blow::Kill, hard.kills), (Blow::Cut, hard.cuts)] {
        if times > 0 {
            let row = part(blow, times, hard, &mut rng).await.with_context(|| {
                let (seed, kills, cuts) = (hard.seed, hard.kills, hard.cuts);
                format!("{}: run it again with --seed {seed} --kills {kills} --cuts {cuts}", blow.name())
            })?;
            writeln!(io::stderr(), "{}: {row:?}", blow.name())?;
            rows.push(row);
        }
    }
    show(&rows, hard)
}

async fn part(blow: Blow, times: u32, hard: Hardship, rng: &mut fastrand::Rng) -> anyhow::Result<Row> {
    // At any time a third of them is between two charges.
    let interval = Duration::from_secs_f64(f64::from(hard.evses) * 0.7 / f64::from(hard.rate));
    let mut lab = Lab::start(Plan {
        fuse: 40 * hard.evses,
        evses: (1..=hard.evses).map(|i| EvsePlan::new(&format!("evse-{i}"), L123, 32)).collect(),
        lease: 60,
        raise_dwell: 0,
        pace: 20.0,
        meter_interval: interval,
        call_timeout: Duration::from_secs(10),
        ..Plan::default()
    })
    .await?;
    until("every charge point is accepted", &lab, || lab.evses.iter().all(|e| e.state().booted)).await?;
    for evse in &lab.evses {
        evse.plug(CAR);
    }
    until("every charge point sees its car", &lab, || lab.evses.iter().all(|e| e.state().plugged)).await?;
    let mut cards = 0;
    let mut row = Row { what: blow.name(), times, ..Row::default() };
    let begun = Instant::now();
    for n in 0..times {
        // Into the middle of the work, not of the way back to it.
        let before = Instant::now();
        stir(&lab, rng, &mut cards);
        let mut looks = 0_u32;
        until("the backend hears the charge points again", &lab, || {
            looks += 1;
            // It may be that nobody charges.
            if looks.is_multiple_of(30) {
                stir(&lab, rng, &mut cards);
            }
            heard_since(&lab, before)
        })
        .await?;
        sleep(Duration::from_millis(rng.u64(0..1000))).await;
        row.open += lab.evses.iter().filter(|e| e.state().waiting > 0).count();
        match blow {
            Blow::Kill => {
                lab.kill_daemon().await?;
                stir(&lab, rng, &mut cards);
                let before = Instant::now();
                lab.start_daemon().await?;
                row.slowest_ready = row.slowest_ready.max(before.elapsed());
            }
            Blow::Cut => {
                lab.gateway.cut();
                stir(&lab, rng, &mut cards);
                sleep(Duration::from_millis(rng.u64(1..500))).await;
                lab.gateway.restore();
            }
        }
        if (n + 1) % 10 == 0 {
            writeln!(io::stderr(), "{} {} of {times}", blow.name(), n + 1)?;
        }
    }
    row.seconds = begun.elapsed().as_secs_f64();
    for evse in &lab.evses {
        evse.unplug();
    }
    let rest = until("everything is delivered", &lab, || {
        let idle = |e: &ladewart_lab::evse::Evse| {
            let state = e.state();
            state.transaction.is_none() && state.waiting == 0
        };
        lab.evses.iter().all(idle) && missing(&lab) == 0
    });
    if let Err(error) = rest.await {
        bail!("{error:#}; {} messages are missing", missing(&lab));
    }
    compare(&lab, &mut row)?;
    lab.finish().await?;
    Ok(row)
}

/// Looks until it is so; the logs are long, so not too often.
async fn until(what: &str, lab: &Lab, mut so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let mut pause = LOOK;
    let end = Instant::now() + REST;
    while !so() {
        ensure!(Instant::now() < end, "{what}: not within {} s\n{}", REST.as_secs(), tail(&lab.log));
        sleep(pause).await;
        pause = (pause * 11 / 10).min(LOOK * 10);
    }
    Ok(())
}

/// Whether the backend was told something that is billed.
fn heard_since(lab: &Lab, at: Instant) -> bool {
    lab.backend.log().since(at).iter().any(|entry| match &entry.what.1 {
        backend::Event::Received(Frame::Call { action, payload, .. }) => kind(action, payload).is_some(),
        _ => false,
    })
}

/// Some charges begin, some end.
fn stir(lab: &Lab, rng: &mut fastrand::Rng, cards: &mut u32) {
    for evse in &lab.evses {
        let state = evse.state();
        match rng.u32(0..8) {
            0 if state.transaction.is_some() => evse.unplug(),
            1..=5 if state.plugged && state.transaction.is_none() => {
                *cards += 1;
                evse.present(&format!("CARD-{cards}"));
            }
            _ if !state.plugged => evse.plug(CAR),
            _ => {}
        }
    }
}

/// Which row of the bill a CALL is, if any.
fn kind(action: &str, payload: &Value) -> Option<usize> {
    match action {
        "StartTransaction" => Some(0),
        "StopTransaction" => Some(1),
        "MeterValues" if payload.get("transactionId").is_some() => Some(2),
        _ => None,
    }
}

/// What a message says, without the transaction id: the EVSE may have been given a provisional one.
fn content(payload: &Value) -> Value {
    let mut content = payload.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("transactionId");
    }
    content
}

#[derive(Debug, Clone, PartialEq)]
struct Told {
    id: String,
    action: String,
    payload: Value,
}

/// The messages of one charge point in their order, each once.
fn told(lab: &Lab, at: usize) -> Vec<Told> {
    let mut seen = HashSet::new();
    let entries = lab.evses[at].log().entries().into_iter();
    let billed = entries.filter_map(|entry| match entry.what {
        Event::Sent(Frame::Call { id, action, payload }) if kind(&action, &payload).is_some() => {
            Some(Told { id, action, payload })
        }
        _ => None,
    });
    billed.filter(|t| seen.insert(t.id.clone())).collect()
}

/// By identity, in order, with repetitions.
type Got = HashMap<String, Vec<Told>>;
/// Transaction ids, by identity and message id of the StartTransaction.
type Given = HashMap<(String, String), Value>;

/// What the backend has of each charge point, and the ids that it gave.
fn got(lab: &Lab) -> (Got, Given) {
    let (mut all, mut given) = (Got::new(), Given::new());
    for entry in lab.backend.log().entries() {
        let (identity, event) = entry.what;
        match event {
            backend::Event::Received(Frame::Call { id, action, payload })
                if kind(&action, &payload).is_some() =>
            {
                all.entry(identity).or_default().push(Told { id, action, payload });
            }
            backend::Event::Sent(Frame::Result { id, payload }) => {
                if let Some(transaction) = payload.get("transactionId") {
                    given.insert((identity, id), transaction.clone());
                }
            }
            _ => {}
        }
    }
    (all, given)
}

fn missing(lab: &Lab) -> usize {
    let (got, _) = got(lab);
    let of = |at: usize| {
        let there: HashSet<_> =
            got.get(lab.evses[at].identity()).into_iter().flatten().map(|t| t.id.as_str()).collect();
        told(lab, at).iter().filter(|t| !there.contains(t.id.as_str())).count()
    };
    (0..lab.evses.len()).map(of).sum()
}

fn compare(lab: &Lab, row: &mut Row) -> anyhow::Result<()> {
    let (mut got, given) = got(lab);
    for at in 0..lab.evses.len() {
        let identity = lab.evses[at].identity();
        let told = told(lab, at);
        let mut first: HashMap<String, Told> = HashMap::new();
        let mut arrived = Vec::new();
        for message in got.remove(identity).unwrap_or_default() {
            match first.entry(message.id.clone()) {
                hash_map::Entry::Occupied(before) if *before.get() == message => row.again += 1,
                hash_map::Entry::Occupied(before) => {
                    bail!("{identity}: came again, changed: {:?}, then {message:?}", before.get())
                }
                hash_map::Entry::Vacant(free) => {
                    free.insert(message.clone());
                    arrived.push(message);
                }
            }
        }
        ensure!(
            arrived.len() == told.len(),
            "{identity} told {} messages, the backend has {}",
            told.len(),
            arrived.len()
        );
        let sessions = lab.evses[at].state().sessions;
        let starts = arrived.iter().filter(|m| m.action == "StartTransaction").count();
        ensure!(
            starts == sessions.len(),
            "{identity} has had {} charges, {starts} are billed",
            sessions.len()
        );
        let mut running = None;
        for (wanted, found) in told.iter().zip(&arrived) {
            ensure!(
                (&wanted.id, &wanted.action, content(&wanted.payload))
                    == (&found.id, &found.action, content(&found.payload)),
                "{identity}: out of order or changed: {wanted:?} was told, there is {found:?}"
            );
            if found.action == "StartTransaction" {
                running = given.get(&(identity.to_owned(), found.id.clone()));
            } else {
                ensure!(
                    running == found.payload.get("transactionId"),
                    "{identity}: belongs to transaction {running:?}: {found:?}"
                );
            }
            if let Some(kind) = kind(&found.action, &found.payload) {
                row.told[kind] += 1;
            }
        }
    }
    Ok(())
}

fn show(rows: &[Row], hard: Hardship) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header([
        "what",
        "times",
        "calls open then",
        "StartTransaction",
        "StopTransaction",
        "MeterValues",
        "messages/s",
        "lost",
        "out of order",
        "twice",
        "sent again under their id",
        "slowest READY ms",
    ]);
    let mut report = Vec::new();
    for row in rows {
        let sum: usize = row.told.iter().sum();
        let rate = sum as f64 / row.seconds;
        let ready = u64::try_from(row.slowest_ready.as_millis()).unwrap_or(u64::MAX);
        let mut cells = vec![row.what.to_owned(), row.times.to_string(), row.open.to_string()];
        cells.extend(row.told.iter().map(ToString::to_string));
        // A difference ends the run before it comes to the table.
        cells.extend([format!("{rate:.0}"), "0".to_owned(), "0".to_owned(), "0".to_owned()]);
        cells.push(row.again.to_string());
        cells.push(if ready == 0 { "-".to_owned() } else { ready.to_string() });
        table.add_row(cells);
        report.push(json!({
            "what": row.what, "times": row.times, "calls_open": row.open, "starts": row.told[0],
            "stops": row.told[1], "meter_values": row.told[2], "per_second": rate, "lost": 0,
            "out_of_order": 0, "twice": 0, "sent_again_under_their_id": row.again, "slowest_ready_ms": ready,
        }));
    }
    writeln!(
        io::stdout().lock(),
        "{} EVSEs, {} MeterValues/s asked for, seed {}; as the charge points told it and as the backend has it\n{table}",
        hard.evses,
        hard.rate,
        hard.seed
    )?;
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/report");
    std::fs::create_dir_all(&directory)?;
    let content =
        json!({ "name": "crash", "unit": "messages", "seed": hard.seed, "rows": report, "peer": null });
    std::fs::write(directory.join("crash.json"), format!("{content:#}\n"))?;
    Ok(())
}
