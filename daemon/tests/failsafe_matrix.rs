//! What the site does without what it hears: the table in `src/site/failsafe.md`, each row proved here. The document is
//! written from these rows; with `LADEWART_WRITE_DOCS=1` the test writes it anew.

mod world;

use std::{fmt::Write as _, path::Path, time::Duration};

use ladewartd::{
    config::Role,
    grid::{
        Stage, Wish,
        guard::{Heard, State},
    },
    ids::LimitId,
    plan::{self, kept},
    site::{
        event::{EvseEvent, Level},
        jump,
        view::Quality,
    },
    time::Wall,
    units::{Milliamps, PerPhase, Watts},
};
use world::{Meter, World};

struct Row {
    lost: &'static str,
    state: &'static str,
    does: &'static str,
    after: &'static str,
    back: &'static str,
    prove: fn(),
}

/// A site with the times that stand in the table: they are the defaults.
const SITE: &str = r#"
[site]
name = "matrix"
[[meter]]
id = "grid"
device = "eastron-sdm630"
address = "127.0.0.1:502"
[[node]]
id = "main"
fuse = "63 A"
meter = "grid"
[[evse]]
id = "a"
max = "16 A"
failsafe = "6 A"
[[evse]]
id = "b"
max = "16 A"
failsafe = "6 A"
"#;

const CONTACT: &str = r#"
[[contact]]
id = "w4"
line = { file = "w4" }
limited_when = "closed"
limit = "4.2 kW"
"#;

const SOURCE: &str = r#"
[[grid.source]]
issuer = "cert:dso"
failsafe = "9 kW"
"#;

const DEVICE: &str = r#"
[[device]]
id = "pump"
kind = "heat-pump"
power = "6 kW"
[[relay]]
id = "k1"
line = { file = "k1" }
function = "release"
device = "pump"
"#;

/// Two cars that charge, all at rest.
fn charging(more: &str) -> World {
    let mut world = World::new(&[SITE, more].concat());
    world.alive = true;
    world.house = PerPhase([Milliamps::amps(3); 3]);
    if !world.config.contacts.is_empty() {
        world.contact(Level::Open);
    }
    world.run(2);
    if !world.config.grid.sources.is_empty() {
        world.hear("cert:dso", Heard::NoLimit);
    }
    // The gradual return after the start is over as well.
    world.run(330);
    for e in 0..2 {
        world.plug(e, true);
    }
    world.run(40);
    assert_eq!(limits(&world), [16, 16], "{:?}", reasons(&world));
    world
}

/// The same under 10 kW.
fn limited(more: &str) -> World {
    let mut world = charging(more);
    world.limit(Some(10_000));
    world.run(20);
    assert_eq!(limits(&world), [7, 7], "{:?}", reasons(&world));
    world
}

fn limits(world: &World) -> Vec<i64> {
    world.plan.grants.iter().map(|g| g.limit.0 / 1000).collect()
}

fn reasons(world: &World) -> Vec<&str> {
    world.plan.grants.iter().map(|g| g.reason.as_str()).collect()
}

fn quality(world: &World) -> Quality {
    world.site.meters[0].quality(&world.config.control, world.now.mono)
}

const TABLE: &[Row] = &[
    Row {
        lost: "meter",
        state: "charging",
        does: "no setpoint rises",
        after: "5 s without an answer",
        back: "with the next answer",
        prove: || {
            let mut world = charging("");
            world.boxes[0].appetite = Milliamps::amps(16);
            world.plug(1, false);
            world.run(10);
            world.meter = Meter::Silent;
            world.run(6);
            assert_eq!(quality(&world), Quality::Stale);
            world.plug(1, true);
            world.run(10);
            assert_eq!(limits(&world), [16, 6], "a new car gets its failsafe value, no more");
            world.meter = Meter::Right;
            world.run(30);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "meter",
        state: "charging",
        does: "EVSEs behind it at their failsafe values",
        after: "30 s without an answer",
        back: "with the next answer; setpoints rise after the dwell, by the ramp",
        prove: || {
            let mut world = charging("");
            world.meter = Meter::Silent;
            world.run(29);
            assert_eq!(limits(&world), [16, 16]);
            world.run(2);
            assert_eq!(limits(&world), [6, 6]);
            assert!(reasons(&world)[0].contains("meter grid is lost"));
            world.meter = Meter::Right;
            world.run(5);
            assert_eq!(limits(&world), [6, 6], "not before the dwell");
            world.run(30);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "meter",
        state: "limited",
        does: "the limit is kept at the highest lawful voltage, 253 V",
        after: "5 s without an answer",
        back: "with the next answer",
        prove: || {
            let mut world = charging("");
            world.limit(Some(9_000));
            world.run(20);
            assert_eq!(limits(&world), [6, 6], "9 kW at 231 V");
            world.meter = Meter::Silent;
            world.run(6);
            // 6 A on three phases twice are 9.1 kW at 253 V.
            let mut at_253: Vec<i64> = limits(&world);
            at_253.sort_unstable();
            assert_eq!(at_253, [0, 6]);
            world.meter = Meter::Right;
            world.run(60);
            assert_eq!(limits(&world), [6, 6]);
        },
    },
    Row {
        lost: "meter",
        state: "limited, own generation adds to the limit",
        does: "the addition ends",
        after: "5 s without an answer",
        back: "with the next answer",
        prove: || {
            let mut world = charging("");
            world.house = PerPhase([Milliamps::amps(-10); 3]);
            world.run(30);
            world.limit(Some(4_200));
            world.run(30);
            // 6.9 kW of its own beside 4.2 kW.
            assert_eq!(limits(&world), [8, 8], "{:?}", reasons(&world));
            world.meter = Meter::Silent;
            world.run(6);
            assert!(limits(&world).iter().sum::<i64>() <= 6, "{:?}", limits(&world));
        },
    },
    Row {
        lost: "meter",
        state: "start",
        does: "EVSEs behind it at their failsafe values",
        after: "at once",
        back: "with the first answer",
        prove: || {
            let mut world = World::new(SITE);
            world.meter = Meter::Silent;
            world.plug(0, true);
            world.run(3);
            assert_eq!(limits(&world)[0], 6);
            world.meter = Meter::Right;
            world.run(30);
            assert_eq!(limits(&world)[0], 16);
        },
    },
    Row {
        lost: "meter: answers that cannot be",
        state: "charging",
        does: "as without an answer",
        after: "5 s, 30 s",
        back: "with the next answer that can be",
        prove: || {
            for wrong in [Meter::Wild, Meter::Turned] {
                let mut world = charging("");
                world.meter = wrong;
                world.run(6);
                assert_eq!(quality(&world), Quality::Implausible);
                assert_eq!(limits(&world), [16, 16]);
                world.run(26);
                assert_eq!(limits(&world), [6, 6]);
                world.meter = Meter::Right;
                world.run(40);
                assert_eq!((quality(&world), limits(&world)), (Quality::Good, vec![16, 16]));
            }
        },
    },
    Row {
        lost: "contact",
        state: "start",
        does: "counts as limited",
        after: "at once",
        back: "when it is read and says otherwise",
        prove: || {
            let mut world = World::new(&[SITE, CONTACT].concat());
            world.contacts();
            world.plug(0, true);
            world.run(5);
            assert_eq!(world.plan.nodes[0].power_limit, Some(Watts(4_200)));
            world.contact(Level::Open);
            world.run(330);
            assert_eq!(world.plan.nodes[0].power_limit, None);
        },
    },
    Row {
        lost: "contact",
        state: "charging",
        does: "counts as limited",
        after: "at once",
        back: "when it is read and says otherwise; gradually, over 5 min",
        prove: || {
            let mut world = charging(CONTACT);
            world.contact(Level::Unreadable("broken wire".into()));
            assert!(world.plan.grants.iter().map(|g| g.limit.0).sum::<i64>() <= 6_000);
            world.contact(Level::Open);
            world.run(60);
            assert!(limits(&world).iter().sum::<i64>() < 24, "{:?}", limits(&world));
            world.run(300);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "contact",
        state: "limited by it",
        does: "stays limited",
        after: "at once",
        back: "when it is read and says otherwise",
        prove: || {
            let mut world = charging(CONTACT);
            world.contact(Level::Closed);
            world.run(10);
            world.contact(Level::Unreadable("broken wire".into()));
            world.run(600);
            assert!(limits(&world).iter().sum::<i64>() <= 6, "{:?}", limits(&world));
        },
    },
    Row {
        lost: "EVSE",
        state: "charging",
        does: "it counts with its last setpoint until its lease is over, then with its failsafe value, to which it falls by itself",
        after: "60 s, the lease",
        back: "when it connects and confirms a setpoint",
        prove: || {
            let mut world = charging("");
            world.connect(0, false);
            world.run(25);
            assert_eq!(plan::reserve(&world.site, 0, world.now.mono), Milliamps::amps(16));
            world.run(36);
            assert_eq!(plan::reserve(&world.site, 0, world.now.mono), Milliamps::amps(6));
            assert_eq!(world.boxes[0].drawing, Milliamps::amps(6));
            world.connect(0, true);
            world.run(40);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "EVSE",
        state: "a limit comes",
        does: "the others give way for what it may still draw",
        after: "at once",
        back: "when it confirms a setpoint",
        prove: || {
            let mut world = charging("");
            world.connect(0, false);
            world.limit(Some(12_000));
            world.run(2);
            assert_eq!(world.boxes[1].obeys.as_ref().unwrap().0.limit, Milliamps::ZERO);
            world.connect(0, true);
            world.run(60);
            assert_eq!(limits(&world).iter().sum::<i64>(), 17, "{:?}", reasons(&world));
        },
    },
    Row {
        lost: "EVSE: refuses setpoints",
        state: "a limit comes",
        does: "it counts with what it last took; the others give way; it is told again every 10 s",
        after: "at once",
        back: "when it takes one",
        prove: || {
            let mut world = charging("");
            world.boxes[0].refuses = true;
            world.limit(Some(12_000));
            world.run(3);
            assert!(
                reasons(&world)[0].contains("does not follow, counts with 16.0 A"),
                "{:?}",
                reasons(&world)
            );
            assert_eq!(limits(&world)[1], 0);
            world.boxes[0].refuses = false;
            world.run(60);
            assert_eq!(limits(&world).iter().sum::<i64>(), 17, "{:?}", reasons(&world));
        },
    },
    Row {
        lost: "EVSE: does not answer",
        state: "charging",
        does: "it counts with the larger of the old and the new setpoint",
        after: "at once; as not following after 15 s",
        back: "when it confirms one",
        prove: || {
            let mut world = charging("");
            world.boxes[0].answers_after = Duration::from_secs(100_000);
            world.limit(Some(12_000));
            world.run(2);
            assert_eq!(plan::reserve(&world.site, 0, world.now.mono), Milliamps::amps(16));
            assert!(!reasons(&world)[0].contains("does not follow"));
            world.run(15);
            assert!(reasons(&world)[0].contains("does not follow"), "{:?}", reasons(&world));
        },
    },
    Row {
        lost: "EVSE: restarted",
        state: "limited",
        does: "it counts with its rated current; it is told its setpoint again",
        after: "at once",
        back: "when it confirms it",
        prove: || {
            let mut world = limited("");
            world.tell(0, EvseEvent::Boot { vendor: "v".into(), model: "m".into() });
            assert_eq!(plan::reserve(&world.site, 0, world.now.mono), Milliamps::amps(16));
            world.run(3);
            assert_eq!(plan::reserve(&world.site, 0, world.now.mono), Milliamps::amps(7));
        },
    },
    Row {
        lost: "EVSE",
        state: "start",
        does: "one that was never heard of counts with its failsafe value",
        after: "at once",
        back: "when it connects and confirms a setpoint",
        prove: || {
            let world = World::new(SITE);
            let site = ladewartd::site::Site::new(
                std::sync::Arc::clone(&world.config),
                ladewartd::grid::Book::default(),
                world.now,
            );
            assert_eq!(plan::reserve(&site, 0, world.now.mono), Milliamps::amps(6));
        },
    },
    Row {
        lost: "relay of a device",
        state: "a limit comes",
        does: "the device counts with its full power; the EVSEs give way",
        after: "at once",
        back: "when the relay follows",
        prove: || {
            let mut world = charging(DEVICE);
            world.welded = true;
            world.limit(Some(5_000));
            world.run(12);
            assert_eq!(limits(&world), [0, 0]);
            assert!(world.plan.devices[0].reason.contains("does not obey"));
        },
    },
    Row {
        lost: "backend",
        state: "charging",
        does: "charging goes on by the site's own rules; what is billed waits on the disk",
        after: "at once",
        back: "what waits is delivered in order",
        prove: || {
            let mut world = charging("");
            for e in 0..2 {
                world.tell(e, EvseEvent::Backend(true));
                world.tell(e, EvseEvent::Backend(false));
            }
            world.run(600);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "backend",
        state: "limited",
        does: "the limit holds",
        after: "at once",
        back: "–",
        prove: || {
            let mut world = limited("");
            world.tell(0, EvseEvent::Backend(false));
            world.run(600);
            assert_eq!(limits(&world), [7, 7]);
        },
    },
    Row {
        lost: "uplink",
        state: "limited until a time",
        does: "the limit holds until its own end",
        after: "its end",
        back: "gradually, over 5 min",
        prove: || {
            let mut world = charging("");
            let until = world.now.wall + Duration::from_secs(900);
            world.limit_by("uid:1", Some(10_000), Some(until));
            world.run(898);
            assert_eq!(limits(&world), [7, 7]);
            world.run(60);
            assert!((7..16).contains(&limits(&world)[0]), "{:?}", limits(&world));
            world.run(300);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "uplink",
        state: "limited without an end",
        does: "the limit holds",
        after: "–",
        back: "when its issuer ends it",
        prove: || {
            let mut world = limited("");
            world.run(3_600);
            assert_eq!(limits(&world), [7, 7]);
        },
    },
    Row {
        lost: "operator's heartbeat",
        state: "charging",
        does: "the failsafe value of that operator holds",
        after: "120 s",
        back: "with a heartbeat and a limit, or the word that there is none",
        prove: || {
            let mut world = charging(SOURCE);
            world.alive = false;
            world.run(119);
            assert_eq!(limits(&world), [16, 16]);
            world.run(2);
            assert_eq!(world.site.guards[0].state(), State::Failsafe);
            assert_eq!(limits(&world), [6, 6]);
            world.alive = true;
            world.run(10);
            assert_eq!(limits(&world), [6, 6], "a heartbeat alone does not end it");
            world.hear("cert:dso", Heard::NoLimit);
            world.run(340);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "operator's heartbeat",
        state: "limited by it",
        does: "the smaller of its limit and its failsafe value holds",
        after: "120 s",
        back: "with a heartbeat and another limit",
        prove: || {
            let mut world = charging(SOURCE);
            world.limit_by("cert:dso", Some(10_000), None);
            world.run(20);
            assert_eq!(limits(&world), [7, 7]);
            world.alive = false;
            world.run(121);
            assert_eq!(limits(&world), [6, 6]);
            world.alive = true;
            world.run(1);
            world.limit_by("cert:dso", Some(10_000), None);
            world.run(300);
            assert_eq!((world.site.guards[0].state(), limits(&world)), (State::Limited, vec![7, 7]));
        },
    },
    Row {
        lost: "operator's heartbeat",
        state: "start",
        does: "the failsafe value of that operator holds",
        after: "at once",
        back: "with a heartbeat and a limit, or the word that there is none",
        prove: || {
            let mut world = World::new(&[SITE, SOURCE].concat());
            world.plug(0, true);
            world.plug(1, true);
            world.run(30);
            assert_eq!((world.site.guards[0].state(), limits(&world)), (State::Init, vec![6, 6]));
        },
    },
    Row {
        lost: "operator's heartbeat",
        state: "failsafe for the least time (2 h)",
        does: "stays at the failsafe value; with `afterwards = \"autonomous\"` it returns, gradually, and that operator's limits end",
        after: "2 h",
        back: "with a heartbeat and a limit",
        prove: || {
            let mut stays = charging(SOURCE);
            stays.alive = false;
            stays.run(121 + 7_300);
            assert_eq!((stays.site.guards[0].state(), limits(&stays)), (State::Failsafe, vec![6, 6]));
            let mut leaves = charging(&[SOURCE, "afterwards = \"autonomous\"\n"].concat());
            leaves.alive = false;
            leaves.run(121 + 7_100);
            assert_eq!(limits(&leaves), [6, 6]);
            leaves.run(500);
            assert_eq!(
                (leaves.site.guards[0].state(), limits(&leaves)),
                (State::UnlimitedAutonomous, vec![16, 16])
            );
        },
    },
    Row {
        lost: "clock: jumps ahead",
        state: "limited until a time that is over by the new clock",
        does: "the limit holds until the new time has run on evenly",
        after: "5 min",
        back: "gradually, over 5 min",
        prove: || {
            let mut world = charging("");
            let until = world.now.wall + Duration::from_secs(3_600);
            world.limit_by("uid:1", Some(10_000), Some(until));
            world.run(20);
            world.now.wall = world.now.wall + Duration::from_secs(86_400);
            world.run(jump::BELIEVE.as_secs() - 5);
            assert_eq!(limits(&world), [7, 7]);
            world.run(340);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "clock: jumps back",
        state: "limited until a time",
        does: "the limit holds until the later of the two times",
        after: "its end by the clock",
        back: "gradually, over 5 min",
        prove: || {
            let mut world = charging("");
            let until = world.now.wall + Duration::from_secs(600);
            world.limit_by("uid:1", Some(10_000), Some(until));
            world.run(20);
            world.now.wall = Wall(world.now.wall.0 - 600_000);
            world.run(1_100);
            assert_eq!(limits(&world), [7, 7]);
            world.run(500);
            assert_eq!(limits(&world), [16, 16]);
        },
    },
    Row {
        lost: "clock: jumps ahead",
        state: "charging, a limit begins later",
        does: "the limit begins as soon as it may have begun",
        after: "at once",
        back: "when the clock comes back",
        prove: || {
            let mut world = charging("");
            let from = world.now.wall + Duration::from_secs(3_600);
            let id = LimitId::new("later");
            let wish = Wish {
                id: Some(id.clone()),
                valid_from: Some(from),
                ..Wish::new("uid:1", Role::Grid, Watts(10_000))
            };
            world.site.set_limit(wish, world.now, || id).unwrap();
            world.run(10);
            assert_eq!(limits(&world), [16, 16]);
            world.now.wall = world.now.wall + Duration::from_secs(7_200);
            world.run(10);
            assert_eq!(limits(&world), [7, 7]);
        },
    },
    Row {
        lost: "clock: jumps either way",
        state: "charging",
        does: "nothing: leases, ages and dwells run on the monotonic clock",
        after: "–",
        back: "–",
        prove: || {
            for by in [-400_000_000_i64, -86_400_000, 86_400_000, 378_691_200_000] {
                let mut world = charging("");
                world.now.wall = Wall(world.now.wall.0 + by);
                world.run(120);
                assert_eq!((limits(&world), quality(&world)), (vec![16, 16], Quality::Good));
            }
        },
    },
    Row {
        lost: "storage",
        state: "a limit comes",
        does: "it holds, and is not acknowledged",
        after: "at once",
        back: "stored again every 10 s; acknowledged when that succeeds",
        prove: || {
            let mut world = charging("");
            world.limit(Some(10_000));
            // Nobody says that it is stored: no stage beyond the receipt is reached.
            world.run(60);
            assert_eq!(limits(&world), [7, 7]);
            assert_eq!(world.site.limits.records()[0].stage, Stage::Received);
            assert!(kept::reached(&world.site, world.now).is_empty());
            let (id, received) = (LimitId::new("uid:1"), world.site.limits.records()[0].received);
            world.site.limits.advance(&id, received, Stage::Accepted, None, world.now.wall).unwrap();
            let stages: Vec<_> = kept::reached(&world.site, world.now).iter().map(|r| r.stage).collect();
            assert_eq!(stages, [Stage::Applied]);
        },
    },
    Row {
        lost: "daemon",
        state: "charging",
        does: "leases run out: the EVSEs fall to their failsafe values by themselves; relays are released",
        after: "60 s, the lease",
        back: "limits in force before are in force again at once; setpoints rise after the dwell",
        prove: || {
            let mut world = charging("");
            let last = world.boxes[0].obeys.clone().unwrap();
            assert!(last.1.since(world.now.mono) <= Duration::from_secs(60));
            // Nobody decides any more.
            world.now = world.now.plus(Duration::from_secs(61));
            assert_eq!(world.boxes[0].allowed(world.now.mono), Milliamps::amps(6));
        },
    },
];

fn document() -> String {
    let mut text = String::from(
        "# What the site does without what it hears\n\n\
         Written from `daemon/tests/failsafe_matrix.rs`, where each row is a test; do not edit it here. Times are the\n\
         defaults of `[control]` and `[grid]`.\n\n\
         | lost | state of the site | what it does | after | how it returns |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let _ =
            writeln!(text, "| {} | {} | {} | {} | {} |", row.lost, row.state, row.does, row.after, row.back);
    }
    text
}

#[test]
fn every_row_is_true() {
    let mut wrong = Vec::new();
    for row in TABLE {
        if std::panic::catch_unwind(row.prove).is_err() {
            wrong.push(format!("{}, {}: {}", row.lost, row.state, row.does));
        }
    }
    assert!(wrong.is_empty(), "not true:\n{}", wrong.join("\n"));
}

#[test]
fn the_document_says_what_is_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/site/failsafe.md");
    if std::env::var_os("LADEWART_WRITE_DOCS").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, document(), "write it anew with LADEWART_WRITE_DOCS=1");
    for input in ["meter", "contact", "EVSE", "backend", "uplink", "operator's heartbeat", "clock", "storage"]
    {
        assert!(TABLE.iter().any(|row| row.lost.starts_with(input)), "no row for {input}");
    }
}
