//! Every state, every input: a table.

use super::*;

const FAILSAFE: Watts = Watts(4_200);

/// One line of a story: at this second, this happens.
#[derive(Clone, Copy)]
enum Do {
    /// A heartbeat.
    Beat,
    /// Heartbeats every 30 s from here to the next line.
    Beats,
    /// A limit is written.
    Limit,
    /// The limit is ended.
    End,
    /// Its own duration is over.
    Lapse,
    /// Nothing.
    Look,
}
use Do::{Beat, Beats, End, Lapse, Limit, Look};
use State::{Failsafe, Init, Limited, UnlimitedAutonomous as Autonomous, UnlimitedControlled as Controlled};

struct Row {
    name: &'static str,
    autonomous: bool,
    story: &'static [(u64, Do)],
    state: State,
}

const fn row(name: &'static str, story: &'static [(u64, Do)], state: State) -> Row {
    Row { name, autonomous: false, story, state }
}

const fn free(name: &'static str, story: &'static [(u64, Do)], state: State) -> Row {
    Row { name, autonomous: true, story, state }
}

const H2: u64 = 7_200;

/// Where not said otherwise the site stays limited when a source stays away.
const TABLE: &[Row] = &[
    // Init.
    row("start", &[(0, Look)], Init),
    row("silent for less than 120 s", &[(119, Look)], Init),
    row("silent for 120 s, must stay limited", &[(120, Look)], Failsafe),
    free("silent for 120 s, may go its own way", &[(120, Look)], Autonomous),
    row("a heartbeat alone", &[(10, Beat), (11, Look)], Init),
    free("heartbeats without a write for 120 s", &[(10, Beats), (120, Look)], Autonomous),
    row("the same, must stay limited", &[(10, Beats), (120, Look)], Failsafe),
    row("a limit without a heartbeat", &[(10, Limit), (11, Look)], Init),
    row("no limit without a heartbeat", &[(10, End), (11, Look)], Init),
    row("heartbeat, then a limit", &[(10, Beat), (20, Limit)], Limited),
    row("heartbeat, then no limit", &[(10, Beat), (20, End)], Controlled),
    row("limit, then a heartbeat", &[(10, Limit), (20, Beat), (21, Look)], Init),
    row("limit, heartbeat, limit", &[(10, Limit), (20, Beat), (30, Limit)], Limited),
    // Unlimited/controlled.
    row("stays with heartbeats", &[(0, Beat), (1, End), (2, Beats), (5_000, Look)], Controlled),
    row("a limit", &[(0, Beat), (1, End), (30, Limit)], Limited),
    row("no limit again", &[(0, Beat), (1, End), (30, End)], Controlled),
    row("silent for less than the time", &[(0, Beat), (1, End), (119, Look)], Controlled),
    row("silent for the time", &[(0, Beat), (1, End), (120, Look)], Failsafe),
    // Limited.
    row("stays with heartbeats", &[(0, Beat), (1, Limit), (2, Beats), (5_000, Look)], Limited),
    row("another limit", &[(0, Beat), (1, Limit), (30, Limit)], Limited),
    row("ended", &[(0, Beat), (1, Limit), (30, End)], Controlled),
    row("lapsed by its duration", &[(0, Beat), (1, Limit), (30, Lapse)], Controlled),
    row("silent for less than the time", &[(0, Beat), (1, Limit), (119, Look)], Limited),
    row("silent for the time", &[(0, Beat), (1, Limit), (120, Look)], Failsafe),
    row("lapsed and silent at once", &[(0, Beat), (1, Limit), (120, Lapse)], Failsafe),
    row(
        "a late heartbeat before anybody looked",
        &[(0, Beat), (1, Limit), (119, Beat), (200, Look)],
        Limited,
    ),
    // Failsafe.
    row("a heartbeat alone", &[(0, Beat), (1, Limit), (120, Look), (130, Beat), (131, Look)], Failsafe),
    row("a limit alone", &[(0, Beat), (1, Limit), (120, Look), (130, Limit), (131, Look)], Failsafe),
    row("no limit alone", &[(0, Beat), (1, Limit), (120, Look), (130, End), (131, Look)], Failsafe),
    row("heartbeat, then a limit", &[(0, Beat), (1, Limit), (120, Look), (130, Beat), (140, Limit)], Limited),
    row(
        "heartbeat, then no limit",
        &[(0, Beat), (1, Limit), (120, Look), (130, Beat), (140, End)],
        Controlled,
    ),
    row(
        "heartbeats for less than 120 s",
        &[(0, Beat), (1, Limit), (120, Look), (130, Beats), (249, Look)],
        Failsafe,
    ),
    row(
        "heartbeats for 120 s without a write",
        &[(0, Beat), (1, Limit), (120, Look), (130, Beats), (250, Look)],
        Autonomous,
    ),
    row(
        "one heartbeat, then silent again",
        &[(0, Beat), (1, Limit), (120, Look), (130, Beat), (260, Look)],
        Failsafe,
    ),
    row(
        "back twice: the second return counts",
        &[(0, Beat), (1, Limit), (120, Look), (130, Beat), (300, Beats), (419, Look)],
        Failsafe,
    ),
    row(
        "the least time over, must stay limited",
        &[(0, Beat), (1, Limit), (120, Look), (120 + H2, Look)],
        Failsafe,
    ),
    free(
        "just before the least time is over",
        &[(0, Beat), (1, Limit), (120, Look), (119 + H2, Look)],
        Failsafe,
    ),
    free(
        "the least time over, may go its own way",
        &[(0, Beat), (1, Limit), (120, Look), (120 + H2, Look)],
        Autonomous,
    ),
    // Unlimited/autonomous.
    free("a heartbeat alone", &[(120, Look), (200, Beat), (201, Look)], Autonomous),
    free("a limit alone", &[(120, Look), (200, Limit), (201, Look)], Autonomous),
    free("heartbeat, then a limit", &[(120, Look), (200, Beat), (210, Limit)], Limited),
    free("heartbeat, then no limit", &[(120, Look), (200, Beat), (210, End)], Controlled),
    free("and silent again after it", &[(120, Look), (200, Beat), (210, Limit), (320, Look)], Failsafe),
    free("stays without anything", &[(120, Look), (90_000, Look)], Autonomous),
];

fn play(row: &Row) -> Guard {
    let config = GridSource {
        issuer: "cert:dso".into(),
        node: 0,
        timeout: Duration::from_secs(120),
        failsafe: FAILSAFE,
        failsafe_for: Duration::from_secs(H2),
        autonomous: row.autonomous,
    };
    let at = |s: u64| Mono(Duration::from_secs(s));
    let mut guard = Guard::new(&config, at(0));
    let mut limits = false;
    for (i, (s, act)) in row.story.iter().enumerate() {
        match act {
            Beat => {
                guard.hear(Heard::Heartbeat, at(*s));
            }
            Beats => {
                let until = row.story.get(i + 1).map_or(*s, |(next, _)| *next);
                for s in (*s..until).step_by(30) {
                    guard.hear(Heard::Heartbeat, at(s));
                    guard.tick(limits, at(s));
                }
            }
            Limit => {
                limits = true;
                guard.hear(Heard::Limit, at(*s));
            }
            End => {
                limits = false;
                guard.hear(Heard::NoLimit, at(*s));
            }
            Lapse => limits = false,
            Look => {}
        }
        guard.tick(limits, at(*s));
    }
    guard
}

#[test]
fn every_row_of_the_table() {
    assert!(TABLE.len() >= 41, "{} rows", TABLE.len());
    for row in TABLE {
        let guard = play(row);
        assert_eq!(guard.state(), row.state, "{}", row.name);
        let capped = matches!(row.state, Init | Failsafe);
        assert_eq!(guard.cap(), capped.then_some(FAILSAFE), "{}", row.name);
    }
    for state in [Init, Controlled, Limited, Failsafe, Autonomous] {
        assert!(TABLE.iter().any(|row| row.state == state), "no row ends in {}", state.name());
    }
    count(TABLE.len());
}

#[allow(clippy::print_stdout, reason = "the count is what the table shows")]
fn count(rows: usize) {
    println!("{rows} rows of states and inputs");
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/report");
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!("{{\"name\": \"source-states\", \"unit\": \"rows\", \"value\": {rows}}}\n");
    std::fs::write(directory.join("source-states.json"), text).unwrap();
}

#[test]
fn the_time_that_is_told_is_the_time_that_counts() {
    for row in TABLE {
        let guard = play(row);
        let Some(due) = guard.due() else { continue };
        let mut early = guard.clone();
        let limits = guard.state() == Limited;
        let before = Mono(due.0.saturating_sub(Duration::from_millis(1)));
        if before > guard.since() && guard.state() != Failsafe {
            assert!(!early.tick(limits, before), "{}: changed before {due:?}", row.name);
        }
    }
}
