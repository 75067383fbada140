//! Random schedules against a small reference site that was written apart: another way to count, floating numbers,
//! no shared code with the core but the configuration's names.
//!
//! Each schedule runs 200 steps of random acts, time compressed. After every step invariant S is looked at on what the
//! EVSEs really obey and the cars really draw; some schedules end with a calm time, after which every car must draw
//! what the reference gives it. `LADEWART_MODEL_SCHEDULES` says how many, `LADEWART_MODEL_FIRST`
//! from which on; the count is printed.

mod world;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use ladewartd::{
    config::Config,
    site::event::Level,
    units::{Milliamps, PerPhase, Watts},
};
use world::{STEP, World};

const SITE: &str = r#"
[site]
name = "reference"
[control]
lease = "20 s"
raise_dwell = "5 s"
settle = "4 s"
min_on = "60 s"
min_off = "5 s"
follow_after = "5 s"
[grid]
return_over = "20 s"
[[meter]]
id = "grid"
device = "eastron-sdm630"
address = "127.0.0.1:502"
[[node]]
id = "main"
fuse = ["63 A", "63 A", "50 A"]
meter = "grid"
[[node]]
id = "garage"
parent = "main"
fuse = "25 A"
[[evse]]
id = "e0"
max = "32 A"
failsafe = "0 A"
[[evse]]
id = "e1"
max = "32 A"
phases = "L2 L3 L1"
failsafe = "0 A"
[[evse]]
id = "e2"
node = "garage"
max = "32 A"
phases = "L3"
failsafe = "0 A"
[[evse]]
id = "e3"
node = "garage"
max = "32 A"
phases = "L3 L1 L2"
failsafe = "0 A"
[[evse]]
id = "e4"
max = "32 A"
phases = "L1"
failsafe = "0 A"
[[device]]
id = "pump"
kind = "heat-pump"
power = "6 kW"
min_on = "20 s"
min_off = "10 s"
[[relay]]
id = "k1"
line = { file = "k1" }
function = "release"
device = "pump"
[[contact]]
id = "w4"
line = { file = "w4" }
limited_when = "closed"
limit = "4.2 kW"
[[grid.source]]
issuer = "cert:dso"
timeout = "20 s"
failsafe = "8 kW"
"#;

/// How each EVSE is wired, and whether it stands in the garage; written down again, not read from the configuration.
const WIRED: [(&[usize], bool); 5] =
    [(&[0, 1, 2], false), (&[1, 2, 0], false), (&[2], true), (&[2, 0, 1], true), (&[0], false)];
const FUSE: [f64; 3] = [63.0, 63.0, 50.0];
const GARAGE: f64 = 25.0;
const VOLTS: f64 = 231.0;

/// The reference: what may be drawn, kept by hand.
#[derive(Default)]
struct Reference {
    now: f64,
    /// Issuer → (watts, end).
    limits: BTreeMap<String, (f64, f64)>,
    heard: f64,
    /// Whether it wrote since it was heard again, so that silence counts.
    known: bool,
    failsafe: bool,
    /// Since when the smallest limit has been what it is or lower.
    lowered: f64,
    before: f64,
    /// When the house last fed in; 0 before.
    fed: f64,
    /// Whose car has changed what it takes; one that takes more is found out only when it is asked again.
    turned: [bool; 5],
}

/// How long a house that takes up again what it fed in may stay unanswered, in seconds. While a car follows its setpoint
/// it cannot be told from the house, and it may be set once more in between: twice the time to settle. And one that told
/// that it draws nothing may begin at any moment: until it tells again, every ten seconds here. Then a step.
const ANSWERED: f64 = 10.5;

impl Reference {
    /// The smallest limit that holds now.
    fn cap(&self) -> f64 {
        let limits = self.limits.values().filter(|(_, end)| self.now < *end).map(|(watts, _)| *watts);
        let failsafe = if self.failsafe || !self.known { 8_000.0 } else { f64::INFINITY };
        limits.fold(f64::INFINITY, f64::min).min(failsafe)
    }

    fn pass(&mut self, seconds: f64, alive: bool) {
        self.now += seconds;
        if alive {
            self.heard = self.now;
        }
        if self.known && !self.failsafe && self.now - self.heard >= 20.0 {
            self.failsafe = true;
        }
        self.look();
    }

    fn look(&mut self) {
        let cap = self.cap();
        if cap < self.before {
            self.lowered = self.now;
        }
        self.before = cap;
    }

    /// The source wrote while it was alive.
    fn wrote(&mut self) {
        if self.now - self.heard < 20.0 {
            (self.known, self.failsafe) = (true, false);
        }
    }

    /// What every car should draw at rest: everybody rises by a tenth of an ampere while there is room.
    fn fair(&self, world: &World) -> Option<Vec<f64>> {
        let cap = self.cap();
        let own: f64 =
            world.house.0.iter().map(|ma| ma.0 as f64 / 1000.0 * VOLTS).sum::<f64>().min(0.0).abs();
        let pump = if world.plan.devices[0].power > Watts::ZERO { 6_000.0 } else { 0.0 };
        let fits = |draw: &[f64]| {
            let (mut main, mut garage, mut more, mut watts) = ([0.0; 3], [0.0; 3], [[0.0; 3]; 3], pump);
            for (e, amps) in draw.iter().enumerate() {
                let used = phases(world, e);
                for p in &used {
                    main[*p] += amps;
                    watts += amps * VOLTS;
                    if WIRED[e].1 {
                        garage[*p] += amps;
                    }
                    (0..3).filter(|other| !used.contains(other)).for_each(|other| more[*p][other] += amps);
                }
            }
            let house = |p: usize| (world.house.0[p].0 as f64 / 1000.0).max(0.0) + pump / VOLTS / 3.0;
            watts <= cap + own + 1.0
                && (0..3).all(|p| main[p] + house(p) <= FUSE[p] && garage[p] <= GARAGE)
                && more.iter().flatten().all(|more| *more <= 20.0)
        };
        let wants: Vec<f64> = world
            .boxes
            .iter()
            .map(|b| if b.plugged { (b.appetite.0 as f64 / 1000.0).min(32.0) } else { 0.0 })
            .collect();
        let mut draw: Vec<f64> = wants.iter().map(|w| if *w > 0.0 { 6.0 } else { 0.0 }).collect();
        if !fits(&draw) {
            // Somebody must wait: who, is a matter of turns.
            return None;
        }
        let mut rising: Vec<usize> = (0..draw.len()).filter(|e| wants[*e] > 6.0).collect();
        while !rising.is_empty() {
            rising.retain(|e| {
                draw[*e] += 0.1;
                let stays = draw[*e] <= wants[*e] && fits(&draw);
                if !stays {
                    draw[*e] -= 0.1;
                }
                stays
            });
        }
        Some(draw)
    }
}

/// The phases that a car loads; of one that was never seen to draw nobody can know that it takes fewer than there are.
fn phases(world: &World, e: usize) -> Vec<usize> {
    let seen = world.boxes[e].drawing > Milliamps::ZERO;
    WIRED[e].0.iter().take(if seen { world.boxes[e].terminals } else { 3 }).copied().collect()
}

#[derive(Default)]
struct Count {
    steps: u64,
    decisions: u64,
    compared: u64,
    doubted: u64,
    turns: u64,
}

/// For how long each kind of excess has lasted.
#[derive(Default)]
struct Excess {
    obeyed: f64,
    drawn: f64,
    fuse: f64,
    garage: f64,
}

fn act(world: &mut World, reference: &mut Reference, dice: &mut fastrand::Rng) {
    let e = dice.usize(..5);
    match dice.u64(..22) {
        0 | 1 => {
            let phase = dice.usize(..3);
            world.house.0[phase] = Milliamps(dice.i64(-20_000..66_000));
        }
        2..=5 => {
            let plugged = dice.u64(..3) > 0;
            if plugged && !world.boxes[e].plugged {
                world.boxes[e].appetite = Milliamps::amps(dice.i64(6..33));
                world.boxes[e].terminals = dice.usize(1..=WIRED[e].0.len());
            }
            world.plug(e, plugged);
        }
        6 | 7 => {
            let watts = dice.i64(0..40_000);
            let lasting = dice.i64(2..60);
            let end = (dice.u64(..2) > 0).then(|| Duration::from_secs(u64::try_from(lasting).unwrap()));
            world.limit_by("uid:1", Some(watts), end.map(|end| world.now.wall + end));
            let until = end.map_or(f64::INFINITY, |_| reference.now + lasting as f64);
            reference.limits.insert("uid:1".into(), (watts as f64, until));
        }
        8 => {
            world.limit_by("uid:1", None, None);
            reference.limits.remove("uid:1");
        }
        9 => {
            let watts = dice.i64(0..40_000);
            world.limit_by("cert:dso", Some(watts), None);
            reference.limits.insert("cert:dso".into(), (watts as f64, f64::INFINITY));
            reference.wrote();
        }
        10 | 11 => {
            world.limit_by("cert:dso", None, None);
            reference.limits.remove("cert:dso");
            reference.wrote();
        }
        12 => world.alive = dice.u64(..3) > 0,
        13 => {
            let level = match dice.u64(..4) {
                0 => Level::Closed,
                1 => Level::Unreadable("cut".into()),
                _ => Level::Open,
            };
            let limited = level != Level::Open;
            world.contact(level);
            if limited {
                reference.limits.insert("contact".into(), (4_200.0, f64::INFINITY));
            } else {
                reference.limits.remove("contact");
            }
        }
        14 => world.boxes[e].answers_after = Duration::from_millis(dice.u64(..500)),
        // A car takes less or more by itself.
        16 | 17 => {
            world.boxes[e].appetite = Milliamps::amps(if dice.bool() { 0 } else { dice.i64(6..33) });
            reference.turned[e] = true;
        }
        15 => world.devices[0] = Watts(dice.i64(0..6_001)),
        _ => {}
    }
    reference.look();
}

/// One step of time, and invariant S after it.
fn pass(world: &mut World, reference: &mut Reference, excess: &mut Excess, count: &mut Count) {
    world.step();
    reference.pass(STEP.as_secs_f64(), world.alive);
    count.steps += 1;
    count.decisions += 1;
    let step = STEP.as_secs_f64();
    let (now, at) = (reference.now, |text: &str| format!("{text} at {:.1} s", reference.now));

    // What the EVSEs obey: a second after the cap was accepted. Own generation may be drawn beside it; while it changes,
    // cars have the time that they need to follow.
    let own: f64 = world.house.0.iter().map(|ma| ma.0 as f64 / 1000.0 * VOLTS).sum::<f64>();
    let cap = reference.cap() + if own < 0.0 { -own } else { 0.0 };
    let slack = 12.0 + world.config.evses.len() as f64;
    let since = now - reference.lowered;
    let track = |over: bool, time: &mut f64| {
        *time = if over { *time + step } else { 0.0 };
        *time
    };
    let obeyed = world.obeyed().0 as f64;
    let time = track(obeyed > cap + slack && since > 1.0, &mut excess.obeyed);
    // A house that takes up again what it fed in must be seen and answered.
    if own < 0.0 {
        reference.fed = now;
    }
    let changes = own > 0.0 || (reference.fed > 0.0 && now - reference.fed <= ANSWERED);
    assert!(
        time <= 1.0 || (changes && time <= ANSWERED),
        "{}",
        at(&format!("{obeyed} W obeyed under {cap} W"))
    );
    let drawn = world.drawn().0 as f64;
    let time = track(drawn > cap + slack, &mut excess.drawn);
    assert!(time <= 12.0, "{}", at(&format!("{drawn} W drawn under {cap} W for {time} s")));

    let total = world.total();
    let cars: Vec<PerPhase<Milliamps>> =
        world.boxes.iter().zip(&world.config.evses).map(|(b, c)| b.phases(c)).collect();
    let over = (0..3).any(|p| {
        let here = cars.iter().any(|c| c.0[p] > Milliamps::ZERO);
        total.0[p].0 as f64 > FUSE[p] * 1000.0 + 1.0 && here
    });
    let time = track(over, &mut excess.fuse);
    assert!(time <= 12.0, "{}", at(&format!("a fuse is exceeded for {time} s: {total:?}")));
    let over = (0..3).any(|p| {
        let here: i64 = (0..5).filter(|e| WIRED[*e].1).map(|e| cars[e].0[p].0).sum();
        here as f64 > GARAGE * 1000.0 + 1.0
    });
    let time = track(over, &mut excess.garage);
    assert!(time <= 1.0, "{}", at(&format!("the garage's fuse is exceeded for {time} s")));
}

fn schedule(config: &Arc<Config>, number: u64, count: &mut Count) {
    let mut dice = fastrand::Rng::with_seed(number);
    let mut world = World::of(Arc::clone(config));
    let mut reference = Reference { before: f64::INFINITY, ..Reference::default() };
    let mut excess = Excess::default();
    world.alive = true;
    world.contacts();
    reference.limits.insert("contact".into(), (4_200.0, f64::INFINITY));
    reference.look();
    for _ in 0..200 {
        act(&mut world, &mut reference, &mut dice);
        pass(&mut world, &mut reference, &mut excess, count);
    }
    if number.is_multiple_of(10) {
        rest(&mut world, &mut reference, &mut excess, count);
    }
}

/// Nothing happens any more: then every car draws its fair share, within rounding.
fn rest(world: &mut World, reference: &mut Reference, excess: &mut Excess, count: &mut Count) {
    world.alive = true;
    pass(world, reference, excess, count);
    world.limit_by("cert:dso", None, None);
    reference.limits.remove("cert:dso");
    reference.wrote();
    reference.look();
    world.contact(Level::Open);
    reference.limits.remove("contact");
    reference.look();
    let turned: Vec<usize> = (0..5).filter(|e| reference.turned[*e] && world.boxes[*e].plugged).collect();
    for e in &turned {
        world.plug(*e, false);
    }
    pass(world, reference, excess, count);
    for e in &turned {
        world.plug(*e, true);
    }
    for e in 0..5 {
        world.boxes[e].answers_after = Duration::from_millis(100);
    }
    world.house = PerPhase(world.house.0.map(|ma| Milliamps(ma.0.clamp(0, 30_000))));
    world.devices[0] = world.config.devices[0].power;
    for _ in 0..400 {
        pass(world, reference, excess, count);
    }
    let Some(mut fair) = reference.fair(world) else {
        count.turns += 1;
        return;
    };
    count.compared += 1;
    // A pump and a house that changed together cannot be told apart: then the pump counts twice, which is safe.
    let doubts = doubted(world);
    if doubts.0.iter().any(|ma| *ma > Milliamps(200)) {
        let house = world.house;
        world.house = PerPhase::from_fn(|p| house[p] + doubts[p]);
        let careful = reference.fair(world);
        world.house = house;
        let Some(careful) = careful else {
            count.turns += 1;
            return;
        };
        count.doubted += 1;
        fair.iter_mut().zip(careful).for_each(|(fair, careful)| *fair = fair.min(careful));
    }
    // Whole amperes, and the margin above what others use that shows when they want more; of three phases it is worth
    // three times as much to one.
    let modest = |e: &usize| {
        let (share, car) = (fair[*e], &world.boxes[*e]);
        car.plugged && car.appetite.0 as f64 / 1000.0 <= share + 0.2
    };
    let margins: Vec<f64> = (0..5).filter(modest).map(|e| 2.0 * phases(world, e).len() as f64).collect();
    for (e, share) in fair.iter().enumerate() {
        let here = phases(world, e).len() as f64;
        let tolerance = 1.2 + margins.iter().map(|margin| (margin / here).max(2.0)).sum::<f64>();
        let draws = world.boxes[e].drawing.0 as f64 / 1000.0;
        assert!(
            draws >= share - tolerance,
            "e{e} draws {draws} A, the reference gives it {share:.1} A: {fair:?}; {}",
            world.plan.grants[e].reason
        );
    }
}

/// How much of the pump is taken for the house.
fn doubted(world: &World) -> PerPhase<Milliamps> {
    let pump = Milliamps(world.device_draw(0).0 * 1_000_000 / world::VOLTS.0 / 3 + 1);
    let taken = world.site.loads[0].map_or(world.house, |load| load.other);
    PerPhase::from_fn(|p| (taken[p] - world.house[p]).max(Milliamps::ZERO).min(pump))
}

#[test]
fn random_schedules_keep_to_the_reference() {
    let schedules =
        std::env::var("LADEWART_MODEL_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(60_u64);
    let first = std::env::var("LADEWART_MODEL_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(0_u64);
    let config = Arc::new(world::config(SITE));
    let mut count = Count::default();
    for number in first..first + schedules {
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            schedule(&config, number, &mut count);
        }));
        if let Err(why) = played {
            let text = why.downcast_ref::<String>().map_or("an assertion", String::as_str);
            panic!("schedule {number}: {text}");
        }
    }
    let line = format!(
        "{schedules} schedules of 200 steps, {} steps in all, S held in each; {} compared with the reference at rest \
         ({} of them with a pump that may be the house), {} with cars that take turns",
        count.steps, count.compared, count.doubted, count.turns
    );
    println(&line);
    assert!(count.compared > 0 || schedules < 10, "{line}");
    report(schedules, &count);
}

#[allow(clippy::print_stdout, reason = "the count is what the test shows")]
fn println(line: &str) {
    println!("{line}");
}

fn report(schedules: u64, count: &Count) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/report");
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!(
        "{{\"name\": \"model\", \"unit\": \"schedules\", \"rows\": [{{\"schedules\": {schedules}, \"steps\": {}, \
         \"compared\": {}, \"violations\": 0}}], \"peer\": \"reference site\"}}\n",
        count.steps, count.compared
    );
    std::fs::write(directory.join("model.json"), text).unwrap();
}
