use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    config,
    grid::{Book, Limit, Stage, Wish},
    ids::{EvseId, MeterId},
    site::{
        Event,
        event::{ConnectorStatus, Draw, EvseEvent, Reading},
    },
    time::Mono,
    units::{Milliamps, Millivolts, PerPhase},
};

const SITE: &str = "[site]\nname = \"e\"\n[[meter]]\nid = \"grid\"\ndevice = \"x\"\naddress = \"127.0.0.1:1\"\n\
    [[node]]\nid = \"main\"\nfuse = \"63 A\"\nmeter = \"grid\"\n[[evse]]\nid = \"left\"\nmax = \"32 A\"\n";

fn site(now: Now) -> Site {
    let source = config::Source::new("site.toml".into(), SITE.to_owned());
    Site::new(Arc::new(config::parse(&source).unwrap()), Book::default(), now)
}

/// The EVSE draws so much, the grid connection so much.
fn draws(site: &mut Site, evse: i64, grid: i64, now: Now) {
    let id = EvseId::new("left");
    site.apply(Event::Evse(id.clone(), EvseEvent::Connected), now);
    let status = EvseEvent::Status { status: ConnectorStatus::Charging, error: String::new() };
    site.apply(Event::Evse(id.clone(), status), now);
    let draw = Draw { at: now, currents: None, power: Some(Watts(evse)), energy: None };
    site.apply(Event::Evse(id, EvseEvent::Draw(draw)), now);
    let reading = Reading {
        at: now,
        currents: PerPhase([Milliamps(grid * 1000 / 690); 3]),
        voltages: PerPhase([Millivolts::NOMINAL; 3]),
        power: Watts(grid),
        import: None,
        export: None,
    };
    site.apply(Event::Reading(MeterId::new("grid"), reading), now);
}

fn limit(site: &mut Site, role: Role, now: Now) -> Limit {
    let wish = Wish {
        id: Some(LimitId::new("l1")),
        issuer: "cert:dso".into(),
        role,
        node: None,
        watts: Watts(4200),
        percent: None,
        steps: Vec::new(),
        valid_from: None,
        valid_until: None,
        reason: "feeder".into(),
    };
    let (record, ..) = site.set_limit(wish, now, || LimitId::new("x")).unwrap();
    site.limits.advance(&record.limit.id, record.received, Stage::Accepted, None, now.wall).unwrap();
    record.limit
}

fn start() -> Now {
    // Ten seconds before a full minute.
    Now { mono: Mono(Duration::from_secs(50)), wall: Wall(1_795_000_000_000 / 60_000 * 60_000 + 50_000) }
}

#[test]
fn an_event_is_kept_from_its_beginning_to_its_end() {
    let mut now = start();
    let mut site = site(now);
    let mut recorder = Recorder::default();
    draws(&mut site, 11_000, 12_000, now);
    assert!(recorder.look(&site, now).is_empty());
    let limit = limit(&mut site, Role::Grid, now);
    let notes = recorder.look(&site, now);
    assert_eq!((notes.len(), notes[0].kind.as_str(), notes[0].subject.as_str()), (1, "event.began", "l1"));
    assert_eq!(notes[0].body["before_watts"], 11_000);
    assert_eq!(notes[0].body["devices"][0]["watts"], 11_000);
    let mut all = Vec::new();
    for second in 1..=130 {
        now = now.plus(Duration::from_secs(1));
        draws(&mut site, if second < 5 { 11_000 } else { 4_000 }, 5_000, now);
        if second == 6 {
            site.limits.advance(&limit.id, start().wall, Stage::Applied, None, now.wall);
            site.limits.advance(&limit.id, start().wall, Stage::Effective, Some(Watts(4000)), now.wall);
        }
        all.extend(recorder.look(&site, now));
    }
    let kinds: Vec<_> = all.iter().map(|n| n.kind.as_str()).collect();
    assert_eq!(kinds, ["event.effect", "event.sample", "event.sample", "event.sample"]);
    assert_eq!((&all[0].body["how"], &all[0].body["after_ms"]), (&json!("commanded"), &json!(6000)));
    // The first minute is cut; the second is whole: 60 times 4 kW.
    assert_eq!((&all[2].body["mean_watts"], &all[2].body["measurements"]), (&json!(4000), &json!(60)));
    // When it began, 11 of 12 kW were charging.
    assert_eq!(all[1].body["highest_watts"], 11_000);
    site.limits.clear(&limit.id, "cert:dso", Role::Grid, now.wall).unwrap();
    let end = recorder.look(&site, now);
    assert_eq!((end.len(), end[0].kind.as_str(), &end[0].body["how"]), (1, "event.ended", &json!("cleared")));
    assert_eq!((&end[0].body["minutes"], &end[0].body["effective"]), (&json!(3), &json!(true)));
    assert!(recorder.look(&site, now).is_empty());
}

#[test]
fn what_was_below_already_is_said_so_and_what_the_site_gave_itself_is_no_event() {
    let now = start();
    let mut site = site(now);
    let mut recorder = Recorder::default();
    draws(&mut site, 3_000, 4_000, now);
    let limit = limit(&mut site, Role::Installer, now);
    assert_eq!(recorder.look(&site, now)[0].kind, "restriction.began");
    site.limits.advance(&limit.id, now.wall, Stage::Applied, None, now.wall);
    site.limits.advance(&limit.id, now.wall, Stage::Effective, Some(Watts(3000)), now.wall);
    let notes = recorder.look(&site, now);
    assert_eq!(
        (notes[0].kind.as_str(), &notes[0].body["how"]),
        ("restriction.effect", &json!("already below"))
    );
}

#[test]
fn own_generation_takes_from_what_is_caused() {
    assert_eq!(caused(Watts(11_000), None), Watts(11_000));
    assert_eq!(caused(Watts(11_000), Some(Watts(20_000))), Watts(11_000), "the house does not count");
    assert_eq!(caused(Watts(11_000), Some(Watts(4_000))), Watts(4_000), "7 kW come from the roof");
    assert_eq!(caused(Watts(11_000), Some(Watts(-1_000))), Watts::ZERO);
}
