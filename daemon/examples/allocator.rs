//! The plan under load, for tests that compare and measure.
//!
//! `allocator bench` prints how long one decision takes for 10 to 10 000 EVSEs. `allocator days` reads generated days
//! as JSON, one per line, plays each against the real core (site, policy, plan) with cars that take what they are
//! offered, and prints what was delivered and how often a cap was exceeded.

#![allow(clippy::cast_possible_truncation, reason = "a day's energies and times are small")]

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, Write as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ladewartd::{
    config::{self, Config, Role},
    evse,
    grid::{Book, Wish},
    ids::{EvseId, LimitId, MeterId},
    plan::{
        self,
        allocate::{Constraints, Demand, Turn, Use, allocate},
    },
    policy::{self, Deadline},
    site::{
        Event, Site,
        event::{ConnectorStatus, Draw, EvseEvent, Reading, Transaction},
    },
    time::{Mono, Now, Wall},
    units::{Milliamps, Millivolts, PerPhase, Phase, WattHours, Watts},
};
use serde::Deserialize;
use serde_json::json;

/// Between two looks at the site, which the daemon takes every second.
const STEP: Duration = Duration::from_secs(5);
/// Without the control's own times: so often the site is looked at before time passes for the cars, if it has not come
/// to rest before.
const LOOKS: u32 = 40;
/// And so much of its time passes in between.
const BETWEEN: Duration = Duration::from_secs(20);
const VOLTS: Millivolts = Millivolts::NOMINAL;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("bench") => bench(),
        Some("days") => days(),
        _ => anyhow::bail!("usage: allocator bench | allocator days <days.jsonl"),
    }
}

fn load(text: &str) -> anyhow::Result<Config> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("site.toml");
    std::fs::write(&path, text)?;
    Ok(config::load(Path::new(&path))?.0)
}

fn start() -> Now {
    Now { mono: Mono(Duration::from_secs(1000)), wall: Wall(1_800_000_000_000) }
}

fn tell(site: &mut Site, e: usize, event: EvseEvent, now: Now) {
    site.apply(Event::Evse(EvseId::new(&format!("e{e}")), event), now);
}

// Growth

/// A car park: feeders of 20 EVSEs at 160 A behind a transformer for a third of their sum.
fn park(evses: usize) -> anyhow::Result<Config> {
    let feeders = evses.div_ceil(20);
    let mut text = format!(
        "[site]\nname = \"park\"\n[[node]]\nid = \"main\"\nfuse = \"{} A\"\ncontract = \"{} kW\"\n",
        (evses * 6).clamp(63, 3000),
        (evses * 4).max(40),
    );
    for f in 0..feeders {
        let _ = write!(text, "[[node]]\nid = \"f{f}\"\nparent = \"main\"\nfuse = \"160 A\"\n");
    }
    let wirings = ["L1 L2 L3", "L2 L3 L1", "L3 L1 L2", "L2"];
    for e in 0..evses {
        let _ = write!(
            text,
            "[[evse]]\nid = \"e{e}\"\nnode = \"f{}\"\nmax = \"32 A\"\nphases = \"{}\"\nfailsafe = \"0 A\"\n",
            e / 20,
            wirings[e % 4]
        );
    }
    load(&text)
}

fn bench() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:>8} {:>8} {:>14} {:>14}", "EVSEs", "nodes", "allocate ms", "whole plan ms")?;
    let mut rows = Vec::new();
    for evses in [10, 30, 100, 300, 1000, 3000, 10_000] {
        let config = Arc::new(park(evses)?);
        let now = start();
        let mut site = Site::new(Arc::clone(&config), Book::default(), now);
        for e in 0..evses {
            tell(&mut site, e, EvseEvent::Connected, now);
            let transaction = Transaction {
                id: 1,
                name: "1".into(),
                backend_id: None,
                started: now.wall,
                meter_start: WattHours(0),
            };
            tell(&mut site, e, EvseEvent::Transaction(transaction), now);
            let status = ConnectorStatus::Charging;
            tell(&mut site, e, EvseEvent::Status { status, error: String::new() }, now);
        }
        let whole = best(|| {
            let budget = policy::budget(&site, now);
            plan::plan(&site, &budget, now).grants.len()
        });
        let (demands, constraints) = bare(&config);
        let taken = vec![0; demands.len()];
        let alone = best(|| allocate(&demands, &constraints, &taken).len());
        writeln!(out, "{evses:>8} {:>8} {alone:>14.3} {whole:>14.3}", config.nodes.len())?;
        rows.push(json!({ "evses": evses, "nodes": config.nodes.len(), "allocate": alone, "plan": whole }));
    }
    let report = json!({ "name": "allocator-growth", "unit": "ms", "rows": rows, "peer": null });
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/report");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("allocator-growth.json"), format!("{report:#}\n"))?;
    Ok(())
}

/// The demands and constraints of the same site, without the facts around them.
fn bare(config: &Config) -> (Vec<Demand>, Constraints) {
    let mut rooms = Vec::new();
    for node in &config.nodes {
        rooms.extend(node.fuse.0.map(|ma| i128::from(ma.0)));
    }
    let mut constraints = Constraints::new(rooms);
    for evse in &config.evses {
        let way = std::iter::successors(Some(evse.node), |n| config.nodes[*n].parent);
        constraints.concern(way.flat_map(|n| {
            let used = move |(p, phase): (usize, Phase)| evse.wiring.uses(phase).then_some(3 * n + p);
            Phase::ALL
                .into_iter()
                .enumerate()
                .filter_map(used)
                .map(|constraint| Use { constraint, weight: 1 })
        }));
    }
    let demand = |e: usize| Demand {
        least: 6000,
        most: 16_000 + 1000 * i64::try_from(e % 17).unwrap_or(0),
        used: 32_000,
        step: 1000,
        rate: 1000,
        rank: (100, u64::try_from(e).unwrap_or(0)),
        turn: Turn::Usual,
    };
    ((0..config.evses.len()).map(demand).collect(), constraints)
}

/// Milliseconds of the fastest of many runs: what the machine does besides only adds.
fn best(mut run: impl FnMut() -> usize) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..60 {
        #[allow(clippy::disallowed_methods, reason = "a stopwatch")]
        let from = Instant::now();
        let done = std::hint::black_box(run());
        assert!(done > 0);
        best = best.min(from.elapsed().as_secs_f64() * 1000.0);
    }
    best
}

// Days

#[derive(Deserialize)]
struct Day {
    /// Of the main node and of its feeders, A.
    fuses: Vec<i64>,
    /// The rest of the site per phase, A, per 5 minutes.
    house: Vec<i64>,
    /// (from s, to s, watts)
    limits: Vec<(u64, u64, i64)>,
    evses: Vec<Point>,
    sessions: Vec<Session>,
    /// Whether the core is told when cars leave and what they need.
    deadlines: bool,
    /// Smallest step of a setpoint.
    #[serde(default = "whole")]
    step: String,
    /// To find out what costs energy: `"leave"` cars go when they are full, `"known"` the core knows what each can draw.
    #[serde(default)]
    ease: Vec<String>,
    /// Whether the control's own times (dwell, ramp, settling, least times) pass in no time, so that only what it
    /// decides is measured.
    #[serde(default)]
    timeless: bool,
}

fn whole() -> String {
    "1 A".to_owned()
}

#[derive(Deserialize)]
struct Point {
    node: usize,
    phases: String,
}

#[derive(Deserialize, Clone)]
struct Session {
    evse: usize,
    from: u64,
    to: u64,
    watt_hours: f64,
    amps: i64,
    terminals: usize,
}

struct Car {
    session: Session,
    got: f64,
    drawing: Milliamps,
}

fn days() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let day: Day = serde_json::from_str(&line?)?;
        let Played { delivered, violations, idle } = play(&day)?;
        writeln!(
            out,
            "{}",
            json!({ "delivered": delivered, "violations": violations, "waits": idle.waits, "untaken": idle.untaken })
        )?;
    }
    Ok(())
}

fn site_of(day: &Day) -> anyhow::Result<Config> {
    let mut text = String::from(
        "[site]\nname = \"day\"\n[grid]\nreturn_over = \"0 s\"\n[control]\nramp = \"32 A\"\n\
         meter_stale = \"40 s\"\nmeter_lost = \"90 s\"\nlease = \"120 s\"\n\
         [[meter]]\nid = \"grid\"\ndevice = \"eastron-sdm630\"\naddress = \"127.0.0.1:502\"\n",
    );
    for (n, fuse) in day.fuses.iter().enumerate() {
        let rest = if n == 0 {
            format!("meter = \"grid\"\nunbalance = \"{fuse} A\"")
        } else {
            "parent = \"n0\"".into()
        };
        let _ = write!(text, "[[node]]\nid = \"n{n}\"\nfuse = \"{fuse} A\"\n{rest}\n");
    }
    for (e, point) in day.evses.iter().enumerate() {
        let _ = write!(
            text,
            "[[evse]]\nid = \"e{e}\"\nnode = \"n{}\"\nphases = \"{}\"\nmax = \"32 A\"\nstep = \"{}\"\nfailsafe = \"0 A\"\n",
            point.node, point.phases, day.step
        );
    }
    load(&text)
}

/// How a day went.
struct Played {
    /// Watt-hours per session.
    delivered: Vec<f64>,
    /// How many steps exceeded a cap.
    violations: u32,
    idle: Idle,
}

/// Room that was there while cars wanted it, in Wh. Some of it is made up for later in the day.
#[derive(Default)]
struct Idle {
    /// A setpoint was on its way up.
    waits: f64,
    /// It was offered to cars that did not take it, or is less than a car can run with.
    untaken: f64,
}

fn play(day: &Day) -> anyhow::Result<Played> {
    let config = Arc::new(site_of(day)?);
    let mut now = start();
    let mut site = Site::new(Arc::clone(&config), Book::default(), now);
    let mut cars: Vec<Option<(usize, Car)>> = day.evses.iter().map(|_| None).collect();
    let mut delivered = vec![0.0; day.sessions.len()];
    let mut sequences = vec![0; day.evses.len()];
    let (mut violations, mut idle) = (0, Idle::default());
    for e in 0..day.evses.len() {
        tell(&mut site, e, EvseEvent::Connected, now);
        let status = ConnectorStatus::Available;
        tell(&mut site, e, EvseEvent::Status { status, error: String::new() }, now);
    }
    for second in (0..86_400).step_by(usize::try_from(STEP.as_secs())?) {
        let house = day.house[usize::try_from(second / 300)?];
        for (k, session) in day.sessions.iter().enumerate() {
            if session.to == second && cars[session.evse].as_ref().is_some_and(|(s, _)| *s == k) {
                leave(&mut site, session.evse, &mut cars, now);
            }
        }
        for (k, session) in day.sessions.iter().enumerate().filter(|(_, s)| s.from == second) {
            cars[session.evse] =
                Some((k, Car { session: session.clone(), got: 0.0, drawing: Milliamps::ZERO }));
            let transaction = Transaction {
                id: 1,
                name: "1".into(),
                backend_id: None,
                started: now.wall,
                meter_start: WattHours(0),
            };
            tell(&mut site, session.evse, EvseEvent::Transaction(transaction), now);
            let status = ConnectorStatus::Charging;
            tell(&mut site, session.evse, EvseEvent::Status { status, error: String::new() }, now);
        }
        if day.ease.iter().any(|e| e == "leave") {
            for e in 0..cars.len() {
                if cars[e].as_ref().is_some_and(|(_, car)| car.got >= car.session.watt_hours) {
                    leave(&mut site, e, &mut cars, now);
                }
            }
        }
        if day.ease.iter().any(|e| e == "known") {
            for (e, slot) in cars.iter().enumerate() {
                let most = slot.as_ref().map(|(_, car)| Milliamps::amps(car.session.amps));
                tell(&mut site, e, EvseEvent::BackendLimit(most), now);
            }
        }
        limits(&mut site, day, second, now)?;
        wishes(&mut site, day, second, &cars, now);
        for look in 0..if day.timeless { LOOKS } else { 1 } {
            measure(&mut site, &config, house, &cars, now);
            let told = decide(&mut site, &config, &mut sequences, now);
            for (e, slot) in cars.iter_mut().enumerate() {
                let Some((_, car)) = slot else { continue };
                let limit = site.evses[e].leash.newest().map_or(0, |s| s.limit.0);
                let full = car.got >= car.session.watt_hours;
                car.drawing = Milliamps(if full { 0 } else { limit.min(car.session.amps * 1000) });
            }
            let waits = site.evses.iter().any(|facts| facts.room_since.is_some());
            if day.timeless {
                now.mono = now.mono + BETWEEN;
            }
            if look >= 3 && !told && !waits {
                break;
            }
        }

        // Until the next step the cars draw what they may.
        let hours = STEP.as_secs_f64() / 3600.0;
        for (e, slot) in cars.iter_mut().enumerate() {
            let Some((k, car)) = slot else { continue };
            let missing = car.session.watt_hours - car.got;
            let terminals = car.session.terminals.min(config.evses[e].wiring.count());
            let energy = VOLTS.0 as f64 * car.drawing.0 as f64 * terminals as f64 / 1e6 * hours;
            car.got += energy.min(missing.max(0.0));
            delivered[*k] = car.got;
        }
        idle_room(&site, &config, day, second, house, &cars, &mut idle);
        violations += u32::from(exceeded(&site, &config, day, second, house, &cars));
        now = now.plus(STEP);
    }
    Ok(Played { delivered, violations, idle })
}

/// What hungry cars could have drawn beside what all draw now.
fn idle_room(
    site: &Site,
    config: &Config,
    day: &Day,
    second: u64,
    house: i64,
    cars: &[Option<(usize, Car)>],
    idle: &mut Idle,
) {
    let way =
        |e: usize| std::iter::successors(Some(config.evses[e].node), |n: &usize| config.nodes[*n].parent);
    let mut rooms: Vec<PerPhase<Milliamps>> = config.nodes.iter().map(|n| n.fuse).collect();
    rooms[0] = PerPhase(rooms[0].0.map(|room| room - Milliamps::amps(house)));
    let limit = day.limits.iter().filter(|(from, to, _)| (*from..*to).contains(&second)).map(|l| l.2).min();
    let mut watts = limit.map_or(f64::INFINITY, |watts| watts as f64);
    let volts = VOLTS.0 as f64 / 1e6;
    for (e, slot) in cars.iter().enumerate() {
        for (p, draws) in phases(config, e, slot.as_ref()).iter() {
            way(e).for_each(|n| rooms[n][p] -= *draws);
            watts -= draws.0 as f64 * volts;
        }
    }
    let on_the_way = site.evses.iter().any(|facts| facts.room_since.is_some());
    for (e, slot) in cars.iter().enumerate() {
        let Some((_, car)) = slot.as_ref().filter(|(_, car)| car.got < car.session.watt_hours) else {
            continue;
        };
        let wired: Vec<Phase> =
            (0..car.session.terminals).filter_map(|t| config.evses[e].wiring.phase(t)).collect();
        let room = way(e).flat_map(|n| wired.iter().map(|p| rooms[n][*p].0).collect::<Vec<_>>()).min();
        let free = (watts / volts / wired.len().max(1) as f64).min(room.unwrap_or(0) as f64);
        let more = (car.session.amps.min(32) * 1000 - car.drawing.0).min(free as i64 / 1000 * 1000);
        if more <= 0 || car.drawing.0 + more < 6000 {
            continue;
        }
        for p in &wired {
            way(e).for_each(|n| rooms[n][*p] -= Milliamps(more));
        }
        let power = more as f64 * volts * wired.len() as f64;
        watts -= power;
        let energy = power * STEP.as_secs_f64() / 3600.0;
        if on_the_way { idle.waits += energy } else { idle.untaken += energy }
    }
}

fn leave(site: &mut Site, e: usize, cars: &mut [Option<(usize, Car)>], now: Now) {
    cars[e] = None;
    tell(site, e, EvseEvent::TransactionEnded, now);
    let status = ConnectorStatus::Available;
    tell(site, e, EvseEvent::Status { status, error: String::new() }, now);
}

fn limits(site: &mut Site, day: &Day, second: u64, now: Now) -> anyhow::Result<()> {
    for (i, (from, to, watts)) in day.limits.iter().enumerate() {
        let id = LimitId::new(&format!("l{i}"));
        if *from == second {
            let wish = Wish { id: Some(id), ..Wish::new("uid:1", Role::Grid, Watts(*watts)) };
            site.set_limit(wish, now, || LimitId::new("x")).map_err(|e| anyhow::anyhow!("{e}"))?;
        } else if *to == second {
            site.limits.clear(&id, "uid:1", Role::Grid, now.wall).map_err(|e| anyhow::anyhow!("{e}"))?;
        }
    }
    Ok(())
}

fn wishes(site: &mut Site, day: &Day, second: u64, cars: &[Option<(usize, Car)>], now: Now) {
    for (wish, slot) in site.wishes.iter_mut().zip(cars) {
        wish.deadline = slot.as_ref().filter(|_| day.deadlines).map(|(_, car)| Deadline {
            at: now.wall + Duration::from_secs(car.session.to.saturating_sub(second)),
            missing: WattHours((car.session.watt_hours - car.got).max(0.0) as i64),
        });
    }
}

/// Currents of a car on the phases of the connection.
fn phases(config: &Config, e: usize, slot: Option<&(usize, Car)>) -> PerPhase<Milliamps> {
    let mut phases = PerPhase::default();
    let Some((_, car)) = slot else { return phases };
    for terminal in 0..car.session.terminals {
        if let Some(phase) = config.evses[e].wiring.phase(terminal) {
            phases[phase] = car.drawing;
        }
    }
    phases
}

fn measure(site: &mut Site, config: &Config, house: i64, cars: &[Option<(usize, Car)>], now: Now) {
    let mut total = PerPhase([Milliamps::amps(house); 3]);
    for (e, slot) in cars.iter().enumerate() {
        for (p, draws) in phases(config, e, slot.as_ref()).iter() {
            total[p] += *draws;
        }
        if let Some((_, car)) = slot {
            let mut currents = [Milliamps::ZERO; 3];
            currents[..car.session.terminals.min(3)].fill(car.drawing);
            let draw = Draw { at: now, currents: Some(currents), power: None, energy: None };
            tell(site, e, EvseEvent::Draw(draw), now);
            if car.got >= car.session.watt_hours {
                let status = ConnectorStatus::SuspendedEv;
                tell(site, e, EvseEvent::Status { status, error: String::new() }, now);
            }
        }
    }
    let power = Watts(total.0.iter().map(|i| i.0 * VOLTS.0 / 1_000_000).sum());
    let reading = Reading {
        at: now,
        currents: total,
        voltages: PerPhase([VOLTS; 3]),
        power,
        import: None,
        export: None,
    };
    site.apply(Event::Reading(MeterId::new("grid"), reading), now);
    site.tick(now);
}

/// One decision; gives whether a setpoint changed.
fn decide(site: &mut Site, config: &Config, sequences: &mut [u64], now: Now) -> bool {
    let mut changed = false;
    let plan = plan::plan(site, &policy::budget(site, now), now);
    site.granted(&plan, now);
    for (e, grant) in plan.grants.iter().enumerate() {
        let facts = &mut site.evses[e];
        if let Some(s) = evse::due(facts, grant, config.control.lease, sequences[e], now.mono) {
            sequences[e] = s.sequence;
            let (sequence, limit, lease_until) = (s.sequence, s.limit, now.mono + s.lease);
            changed |= facts.leash.newest().is_none_or(|before| before.limit != limit);
            facts.leash.sent(s, now.mono, config.evses[e].max);
            tell(site, e, EvseEvent::Confirmed { sequence, limit, lease_until }, now);
        }
    }
    changed
}

/// Whether what the cars draw is above a fuse or a limit.
fn exceeded(
    site: &Site,
    config: &Config,
    day: &Day,
    second: u64,
    house: i64,
    cars: &[Option<(usize, Car)>],
) -> bool {
    let mut watts = 0;
    let mut nodes = vec![PerPhase::<Milliamps>::default(); config.nodes.len()];
    for (e, slot) in cars.iter().enumerate() {
        for (p, draws) in phases(config, e, slot.as_ref()).iter() {
            let way = std::iter::successors(Some(config.evses[e].node), |n| config.nodes[*n].parent);
            way.for_each(|n| nodes[n][p] += *draws);
            watts += draws.0 * VOLTS.0 / 1_000_000;
        }
    }
    // A house that rises takes room that the cars give back at the next reading: not counted within the step.
    let before = usize::try_from(second.saturating_sub(STEP.as_secs()) / 300).unwrap_or(0);
    let house = house.min(day.house[before]);
    let over = (0..config.nodes.len()).any(|n| {
        let house = if n == 0 { Milliamps::amps(house) } else { Milliamps::ZERO };
        let fuse = config.nodes[n].fuse;
        nodes[n].iter().any(|(p, draws)| *draws + house > fuse[p] && *draws > Milliamps::ZERO)
    });
    let now = site.limits.records().iter().filter(|r| r.ended.is_none()).map(|r| r.limit.watts.0).min();
    over || now.is_some_and(|limit| watts > limit)
}
