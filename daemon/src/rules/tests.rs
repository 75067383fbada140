use std::sync::Arc;

use super::*;
use crate::{
    config,
    grid::Book,
    ids::{ContactId, EvseId, MeterId},
    plan, policy,
    site::{
        Event,
        event::{ConnectorStatus, Draw, EvseEvent, Level as ContactLevel, Needs, Reading, Transaction},
    },
    time::Mono,
    units::{Millivolts, PerPhase, WattHours},
};

const SITE: &str = r#"
[site]
name = "rules"
[[meter]]
id = "grid"
device = "eastron-sdm630"
address = "127.0.0.1:1"
[[node]]
id = "main"
fuse = "100 A"
meter = "grid"
[[evse]]
id = "left"
max = "32 A"
[[evse]]
id = "right"
max = "16 A"
[[contact]]
id = "night"
line = { file = "x" }
limited_when = "closed"
limit = "1000 kW"
[[variable]]
name = "TARIF"
max = 1
[tariff]
otherwise = { level = "normal", price = "30 ct/kWh" }
[[tariff.zone]]
from = "01:00"
to = "04:00"
level = "low"
price = "10 ct/kWh"
[[tariff.zone]]
from = "17:00"
to = "19:00"
level = "high"
price = "50 ct/kWh"
[[user]]
name = "ada"
cards = ["ADA"]
"#;

struct Bench {
    site: Site,
    now: Now,
}

impl Bench {
    fn new(rules: &str, wall: &str) -> Self {
        let source = config::Source::new("site.toml".into(), format!("{SITE}{rules}"));
        let config = Arc::new(config::parse(&source).unwrap_or_else(|e| panic!("{e}")));
        let now = Now { mono: Mono(Duration::from_secs(1000)), wall: Wall::parse(wall).unwrap() };
        let mut bench = Self { site: Site::new(config, Book::default(), now), now };
        for name in ["left", "right"] {
            bench.evse(name, EvseEvent::Connected);
            bench.evse(name, EvseEvent::Status { status: ConnectorStatus::Charging, error: String::new() });
            let started = bench.now.wall;
            let transaction =
                Transaction { id: 1, name: "1".into(), backend_id: None, started, meter_start: WattHours(0) };
            bench.evse(name, EvseEvent::Transaction(transaction));
        }
        bench.grid(0, 0);
        bench
    }

    fn evse(&mut self, name: &str, event: EvseEvent) {
        self.site.apply(Event::Evse(EvseId::new(name), event), self.now);
    }

    fn contact(&mut self, level: ContactLevel) {
        self.site.apply(Event::Contact(ContactId::new("night"), level), self.now);
    }

    /// What the grid meter shows, and what `left` draws per terminal.
    fn grid(&mut self, watts: i64, amps: i64) {
        self.draw([amps; 3]);
        let reading = Reading {
            at: self.now,
            currents: PerPhase([Milliamps(watts * 1000 / 690); 3]),
            voltages: PerPhase([Millivolts::NOMINAL; 3]),
            power: Watts(watts),
            import: None,
            export: None,
        };
        self.site.apply(Event::Reading(MeterId::new("grid"), reading), self.now);
    }

    fn draw(&mut self, amps: [i64; 3]) {
        let at = self.now;
        let draw = |amps: [i64; 3]| {
            let currents = amps.map(Milliamps::amps);
            EvseEvent::Draw(Draw { at, currents: Some(currents), power: None, energy: None })
        };
        self.evse("left", draw(amps));
        self.evse("right", draw([0; 3]));
    }

    fn later(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self
    }

    /// The wish for `left`.
    fn wish(&mut self) -> (Option<i64>, String) {
        apply(&mut self.site, self.now);
        let wish = &self.site.wishes[0];
        (wish.cap.map(|cap| cap.0), wish.reason.clone())
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_when_the_site_is_configured() {
    let long = format!("[[rule]]\nid = \"r\"\nwhen = '''{}1 > 0'''\ncurrent = \"6 A\"\n", "1 + ".repeat(120));
    for (rules, says) in [
        (
            "[[rule]]\nid = \"r\"\nwhen = 'TARIFF == 1'\ncurrent = \"6 A\"\n",
            "rule[0].when: there is no \"TARIFF\" on this site; there are TARIF",
        ),
        (
            "[[rule]]\nid = \"r\"\nformula = 'meter.grid.power'\n",
            "rule[0].formula: units do not fit: the result is W, but A is wanted",
        ),
        (
            "[[limit]]\nid = \"l\"\nwatts = '1000 / (2 - 2)'\notherwise = \"1 kW\"\n",
            "limit[0].watts: divides by zero",
        ),
        (
            "[[limit]]\nid = \"l\"\nwatts = 'price'\notherwise = \"1 kW\"\n",
            "limit[0].watts: there is no \"price\"",
        ),
        (long.as_str(), "rule[0].when: costs too much"),
        ("[[rule]]\nid = \"r\"\nevse = \"attic\"\ncurrent = \"6 A\"\n", "rule[0].evse: there is no [[evse]]"),
        ("[[rule]]\nid = \"r\"\nuser = \"bob\"\ncurrent = \"6 A\"\n", "rule[0].user: there is no [[user]]"),
        ("[[rule]]\nid = \"r\"\n", "rule[0].current: is missing"),
        ("[[variable]]\nname = \"price\"\n", "variable[1].name: \"price\" has a meaning in formulas already"),
        ("[[variable]]\nname = \"TARIF\"\n", "variable[1].name: \"TARIF\" names another variable already"),
        (
            "[[tariff.zone]]\nfrom = \"18:00\"\nto = \"20:00\"\nlevel = \"low\"\n",
            "tariff.zone[2]: holds together with zone[1], which has the same priority 0",
        ),
        (
            "[[user]]\nname = \"eve\"\ncards = [\"ada\"]\n",
            "user[1].cards: one of them belongs to \"ada\" already",
        ),
    ] {
        let source = config::Source::new("site.toml".into(), format!("{SITE}{rules}"));
        let error = config::parse(&source).expect_err(rules).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_first_rule_that_holds_decides() {
    let rules = r#"
[[rule]]
id = "cheap"
level = ["low", "normal"]
price_below = "40 ct/kWh"
current = "20 A"
[[rule]]
id = "dear"
current = "0 A"
"#;
    let mut bench = Bench::new(rules, "2026-11-24T12:00:00+01:00");
    assert_eq!(
        bench.wish(),
        (Some(20_000), "rule \"cheap\" (tariff normal, 30 ct/kWh is below 40 ct/kWh)".into())
    );
    bench.now.wall = Wall::parse("2026-11-24T18:00:00+01:00").unwrap();
    assert_eq!(bench.wish(), (Some(0), "rule \"dear\"".into()));
    let trace = trace(&bench.site, 0, bench.now);
    assert_eq!(trace[0], ("cheap".into(), "does not hold", "the tariff is high, not low or normal".into()));
    // The plan obeys, and says why.
    let plan = plan::plan(&bench.site, &policy::budget(&bench.site, bench.now), bench.now);
    assert_eq!((plan.grants[0].limit, plan.grants[0].reason.as_str()), (Milliamps::ZERO, "rule \"dear\""));
}

#[test]
fn the_smaller_of_evse_and_user_wins() {
    let rules = r#"
[[rule]]
id = "box"
evse = "left"
current = "16 A"
class = 3
[[rule]]
id = "ada"
user = "ada"
current = "10 A"
[[rule]]
id = "other"
evse = "right"
current = "8 A"
"#;
    let mut bench = Bench::new(rules, "2026-11-24T12:00:00+01:00");
    assert_eq!(bench.wish(), (Some(16_000), "rule \"box\"".into()));
    assert_eq!(bench.site.wishes[0].class, 3);
    bench.evse("left", EvseEvent::Card("ada".into()));
    assert_eq!(bench.wish(), (Some(10_000), "user rule \"ada\"".into()));
    bench.evse("left", EvseEvent::TransactionEnded);
    assert_eq!(bench.wish().0, Some(16_000), "the card goes with its transaction");
    assert_eq!(bench.site.wishes[1].cap, Some(Milliamps::amps(8)));
}

#[test]
fn time_input_variable_and_expression_are_conditions() {
    let rules = r#"
[[rule]]
id = "window"
from = "22:00"
to = "06:00"
weekdays = "Mo-Fr"
current = "6 A"
[[rule]]
id = "input"
input = { contact = "night", is = "closed" }
current = "7 A"
[[rule]]
id = "free"
when = 'TARIF == 1 && meter.grid.power < 5000 && weekday in [1, 2]'
formula = "min(12, 8 + hour / 6)"
"#;
    // A Tuesday at noon.
    let mut bench = Bench::new(rules, "2026-11-24T12:00:00+01:00");
    bench.contact(ContactLevel::Open);
    let variable = |bench: &mut Bench, value| {
        let wish = crate::variable::Wish {
            name: "TARIF".into(),
            value: Some(value),
            issuer: "t".into(),
            role: config::Role::Admin,
            valid_until: None,
        };
        bench.site.variables.set(&wish, bench.now.wall).unwrap();
    };
    variable(&mut bench, 0.0);
    assert_eq!(bench.wish(), (None, String::new()));
    let lines = trace(&bench.site, 0, bench.now);
    assert!(lines[2].2.contains("does not hold, TARIF = 0, meter.grid.power = 0, weekday = 2"), "{lines:?}");
    variable(&mut bench, 1.0);
    let (cap, reason) = bench.wish();
    assert_eq!(cap, Some(10_000));
    assert!(reason.ends_with("min(12, 8 + hour / 6) = 10.0 A"), "{reason}");
    bench.contact(ContactLevel::Closed);
    assert_eq!(bench.wish(), (Some(7_000), "rule \"input\" (night is closed)".into()));
    bench.now.wall = Wall::parse("2026-11-24T23:00:00+01:00").unwrap();
    assert_eq!(bench.wish(), (Some(6_000), "rule \"window\" (22:00 to 06:00 on Mo Tu We Th Fr)".into()));
}

#[test]
fn what_cannot_be_judged_counts_both_ways_and_the_smaller_wins() {
    let rules = r#"
[[rule]]
id = "unknown"
when = "TARIF == 1"
current = "6 A"
[[rule]]
id = "rest"
current = "16 A"
"#;
    let mut bench = Bench::new(rules, "2026-11-24T12:00:00+01:00");
    let (cap, reason) = bench.wish();
    assert_eq!(cap, Some(6_000));
    assert!(
        reason.contains("cannot be judged, so the smaller counts: TARIF == 1: TARIF is not known now"),
        "{reason}"
    );
    let mut bench = Bench::new(&rules.replace("\"6 A\"", "\"32 A\""), "2026-11-24T12:00:00+01:00");
    assert_eq!(bench.wish(), (Some(16_000), "rule \"rest\"".into()));
}

#[test]
fn the_cheapest_hours_before_a_deadline_are_chosen_once() {
    let rules = r#"
[[rule]]
id = "cheapest"
cheapest = { lasting = "4 h", by = "07:00" }
current = "32 A"
[[rule]]
id = "wait"
current = "0 A"
"#;
    // Begins at 18:00: the three hours of the low zone, and the earliest of those at 30 ct, from 19:00 on.
    let mut bench = Bench::new(rules, "2026-11-24T18:00:00+01:00");
    let (cap, reason) = bench.wish();
    assert_eq!((cap, reason.as_str()), (Some(0), "rule \"wait\""));
    let lines = trace(&bench.site, 0, bench.now);
    assert_eq!(lines[0].2, "it is not within the cheapest 4 h before 07:00; the next begins at 19:00");
    let mut charged = 0;
    for minute in 0..13 * 60 {
        bench.now.wall = Wall(Wall::parse("2026-11-24T18:00:00+01:00").unwrap().0 + minute * 60_000);
        bench.grid(0, 0);
        charged += i64::from(bench.wish().0 == Some(32_000));
    }
    assert_eq!(charged, 4 * 60, "as much as was asked for, however often it is looked at");
}

#[test]
fn surplus_begins_and_ends_late_and_is_shared_in_order() {
    let rules = "[[rule]]\nid = \"sun\"\nsurplus = { start_after = \"60 s\", stop_after = \"120 s\" }\n";
    let mut bench = Bench::new(rules, "2026-06-24T12:00:00+02:00");
    bench.grid(-5000, 0);
    let (cap, reason) = bench.wish();
    assert_eq!((cap, reason.contains("must last 60 s")), (Some(0), true), "{reason}");
    bench.later(60).grid(-5000, 0);
    assert_eq!(bench.wish().0, Some(7_246), "5000 W at 690 V");
    // It draws 7 A now; the meter shows what is left.
    bench.later(30).grid(-170, 7);
    assert_eq!(bench.wish().0, Some(7_246));
    assert_eq!(
        bench.site.wishes[1].cap,
        Some(Milliamps::ZERO),
        "the other one gets what is left, and that is too little"
    );
    // A cloud: it goes on with the least current for two minutes.
    bench.later(10).grid(3000, 7);
    assert_eq!(bench.wish().0, Some(6_000));
    bench.later(119).grid(2500, 6);
    assert_eq!(bench.wish().0, Some(6_000));
    bench.later(1).grid(2500, 6);
    let (cap, reason) = bench.wish();
    assert_eq!((cap, reason.contains("is less than 4.14 kW")), (Some(0), true), "{reason}");
    // Without a meter there is no surplus.
    bench.later(60);
    let (cap, reason) = bench.wish();
    assert_eq!((cap, reason.contains("the meter is silent")), (Some(0), true), "{reason}");
}

#[test]
fn phases_are_switched_in_a_pause_that_is_measured() {
    let relays = ["left", "right"].map(|evse| {
        format!("[[relay]]\nid = \"{evse}\"\nline = {{ file = \"{evse}\" }}\nfunction = \"one-phase\"\nevse = \"{evse}\"\n")
    });
    let rules = "[[rule]]\nid = \"sun\"\nsurplus = { start_after = \"0 s\", stop_after = \"60 s\", switch_phases = true, switch_after = \"300 s\" }\n";
    let source = config::Source::new("site.toml".into(), format!("{SITE}{rules}"));
    let error = config::parse(&source).unwrap_err().to_string();
    assert!(error.contains("needs a [[relay]] with function = \"one-phase\" and evse = \"left\""), "{error}");
    let rules = format!("{rules}{}", relays.concat());
    let mut bench = Bench::new(&rules, "2026-06-24T12:00:00+02:00");
    bench.grid(-2000, 0);
    let (cap, reason) = bench.wish();
    assert_eq!(bench.site.rules[0].sun.phases, Phases::One, "2 kW suit one phase");
    assert_eq!((cap, reason.contains("on one phase")), (Some(8_695), true), "{reason}");
    // Much sun for five minutes: a pause begins.
    for step in 0..=30 {
        bench.later(10).draw([8, 0, 0]);
        bench.grid(-8000 + 5520, 8);
        bench.draw([8, 0, 0]);
        let (cap, reason) = bench.wish();
        if step < 30 {
            assert_ne!(cap, Some(0), "{step}: {reason}");
        } else {
            assert_eq!((cap, reason.as_str()), (Some(0), "rule \"sun\": pauses to switch to all phases"));
        }
    }
    // It still draws: nothing is switched.
    bench.later(2).grid(-3000, 4);
    assert_eq!(bench.wish().1, "rule \"sun\": pauses to switch to all phases");
    assert_eq!(bench.site.rules[0].sun.phases, Phases::One);
    // Nothing flows any more: three phases.
    bench.later(2).grid(-8000, 0);
    let (cap, reason) = bench.wish();
    assert_eq!(bench.site.rules[0].sun.phases, Phases::All);
    assert_eq!((cap, reason.contains("on all phases")), (Some(11_594), true), "{reason}");
    // And back, when there is too little for three for five minutes; it is not stopped before.
    bench.later(1).grid(5900, 11);
    for _ in 0..29 {
        bench.later(10).grid(4140 - 2000, 6);
        assert_eq!(bench.wish().0, Some(6_000));
    }
    bench.later(20).grid(4140 - 2000, 6);
    assert_eq!(bench.wish().1, "rule \"sun\": pauses to switch to one phase");
    bench.later(5).grid(-2000, 0);
    assert_eq!((bench.wish().0, bench.site.rules[0].sun.phases), (Some(8_695), Phases::One));
}

/// Much or little sun for a while: what the EVSE is told in the end, and why.
fn shine(bench: &mut Bench, seconds: u64, amps: [i64; 3], surplus: i64) -> (Option<i64>, String) {
    let mut wish = (None, String::new());
    for _ in 0..seconds / 5 {
        bench.later(5).grid(amps.iter().sum::<i64>() * 230 - surplus, 0);
        bench.draw(amps);
        wish = bench.wish();
    }
    wish
}

#[test]
fn an_evse_that_does_not_switch_goes_on_with_three_phases() {
    let rules = "[[rule]]\nid = \"sun\"\nevse = \"left\"\nsurplus = { start_after = \"0 s\", stop_after = \"60 s\", switch_phases = true, switch_after = \"300 s\" }\n";
    let one_phase = "[evse.ocpp]\none_phase = true\n[[evse]]\nid = \"right\"";
    let site = SITE.replacen("[[evse]]\nid = \"right\"", one_phase, 1);
    let start = || {
        let source = config::Source::new("site.toml".into(), format!("{site}{rules}"));
        let config = Arc::new(config::parse(&source).unwrap_or_else(|e| panic!("{e}")));
        let mut bench = Bench::new("", "2026-06-24T12:00:00+02:00");
        bench.site = Site::new(config, Book::default(), bench.now);
        for name in ["left", "right"] {
            bench.evse(name, EvseEvent::Connected);
            bench.evse(name, EvseEvent::Status { status: ConnectorStatus::Charging, error: String::new() });
        }
        shine(&mut bench, 10, [0; 3], 2000);
        bench
    };
    // One that does as it is told: it is told by its setpoint.
    let mut bench = start();
    let (cap, reason) = shine(&mut bench, 200, [8, 0, 0], 2000);
    assert_eq!((cap, reason.contains("on one phase")), (Some(8_695), true), "{reason}");
    let plan = plan::plan(&bench.site, &policy::budget(&bench.site, bench.now), bench.now);
    assert!(plan.grants[0].one_phase && !plan.grants[1].one_phase);
    // One that goes on with three.
    let mut bench = start();
    let (_, reason) = shine(&mut bench, 50, [8; 3], 2000);
    assert!(reason.contains("on one phase; currents still show more"), "{reason}");
    let (cap, reason) = shine(&mut bench, 200, [8; 3], 2000);
    assert_eq!((cap, reason.contains("is less than 4.14 kW")), (Some(0), true), "{reason}");
    let (cap, reason) = shine(&mut bench, 60, [0; 3], 5000);
    assert_eq!(cap, Some(7_246), "{reason}");
    assert!(reason.contains("on all phases; it does not switch to one phase"), "{reason}");
    let plan = plan::plan(&bench.site, &policy::budget(&bench.site, bench.now), bench.now);
    assert!(!plan.grants[0].one_phase);
    // Another car is another chance.
    bench.evse("left", EvseEvent::TransactionEnded);
    bench.evse("left", EvseEvent::Status { status: ConnectorStatus::Available, error: String::new() });
    bench.wish();
    bench.evse("left", EvseEvent::Status { status: ConnectorStatus::Charging, error: String::new() });
    let (_, reason) = shine(&mut bench, 10, [0; 3], 2000);
    assert!(reason.contains("on one phase"), "{reason}");
}

#[test]
fn what_is_missing_by_a_deadline_is_counted_from_the_beginning_of_the_charge() {
    let rules =
        "[[rule]]\nid = \"commuter\"\ncurrent = \"32 A\"\nready = { energy = \"20 kWh\", by = \"07:00\" }\n";
    let mut bench = Bench::new(rules, "2026-11-24T18:00:00+01:00");
    let register = |bench: &mut Bench, wh: i64| {
        let draw = Draw { at: bench.now, currents: None, power: Some(Watts(0)), energy: Some(WattHours(wh)) };
        bench.evse("left", EvseEvent::Draw(draw));
        bench.wish();
        bench.site.wishes[0].deadline.map(|deadline| (deadline.at, deadline.missing.0))
    };
    let by = Wall::parse("2026-11-25T07:00:00+01:00").unwrap();
    assert_eq!(register(&mut bench, 5_000), Some((by, 15_000)));
    // Later than that it is still this morning that was meant.
    bench.now.wall = Wall::parse("2026-11-25T08:00:00+01:00").unwrap();
    assert_eq!(register(&mut bench, 30_000), Some((by, 0)));
    bench.evse("left", EvseEvent::TransactionEnded);
    assert_eq!(register(&mut bench, 30_000), None);
}

#[test]
fn what_the_car_asks_for_is_a_deadline_where_no_rule_has_one() {
    for (rules, ruled) in [
        ("", None),
        ("[[rule]]\nid = \"all\"\ncurrent = \"32 A\"\n", None),
        (
            "[[rule]]\nid = \"all\"\ncurrent = \"32 A\"\nready = { energy = \"20 kWh\", by = \"07:00\" }\n",
            Some((Wall::parse("2026-11-25T07:00:00+01:00").unwrap(), 19_000)),
        ),
    ] {
        let mut bench = Bench::new(rules, "2026-11-24T18:00:00+01:00");
        let at = Wall::parse("2026-11-25T06:15:00+01:00").unwrap();
        let register = |bench: &mut Bench, wh: i64| {
            let draw =
                Draw { at: bench.now, currents: None, power: Some(Watts(0)), energy: Some(WattHours(wh)) };
            bench.evse("left", EvseEvent::Draw(draw));
            bench.wish();
            bench.site.wishes[0].deadline.map(|deadline| (deadline.at, deadline.missing.0))
        };
        let mut needs = Needs {
            departure: Some(at),
            energy: Some(WattHours(12_000)),
            most: Some(Milliamps::amps(10)),
            phases: Some(2),
        };
        bench.evse("left", EvseEvent::Needs(needs));
        assert_eq!(bench.site.evses[0].loads(&bench.site.config.evses[0]), 2);
        assert_eq!(bench.site.evses[0].able(&bench.site.config.evses[0]), Milliamps::amps(10));
        assert_eq!(register(&mut bench, 1_000), ruled.or(Some((at, 11_000))), "{rules}");
        assert_eq!(
            register(&mut bench, 5_000),
            ruled.map(|(at, _)| (at, 15_000)).or(Some((at, 7_000))),
            "{rules}"
        );
        // It asks again while it charges: what it wants from now on.
        needs.energy = Some(WattHours(9_000));
        bench.evse("left", EvseEvent::Needs(needs));
        assert_eq!(
            register(&mut bench, 5_500),
            ruled.map(|(at, _)| (at, 14_500)).or(Some((at, 8_500))),
            "{rules}"
        );
        needs.energy = None;
        bench.evse("left", EvseEvent::Needs(needs));
        assert_eq!(
            register(&mut bench, 6_000),
            ruled.map(|(at, _)| (at, 14_000)),
            "by when, but not how much"
        );
        bench.evse("left", EvseEvent::TransactionEnded);
        assert_eq!(register(&mut bench, 30_000), None);
        assert_eq!(bench.site.evses[0].needs, None, "of that charge only");
    }
}
