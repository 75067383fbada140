use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Wall {
    Wall::parse(text).unwrap()
}

fn evse(name: &str) -> EvseId {
    EvseId::new(name)
}

fn zone(from: &str, to: &str, level: Level) -> Zone {
    Zone {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        weekdays: Days::default(),
        months: Months::default(),
        valid_from: None,
        valid_to: None,
        priority: 0,
        price: None,
        level: Some(level),
    }
}

/// EWW 2025, §14a Modul 3: NT 01–04 h, HT 17–19 h, in the first and the last quarter.
fn modul3() -> Schedule {
    let months = Months::of(&[1, 2, 3, 10, 11, 12]).unwrap();
    let price = |ct: &str, zone: Zone| Zone { months, price: Some(ct.parse().unwrap()), ..zone };
    Schedule {
        zones: vec![
            price("3.45 ct/kWh", zone("01:00", "04:00", Level::Low)),
            price("10.84 ct/kWh", zone("17:00", "19:00", Level::High)),
        ],
        otherwise: Offer { price: Some("8.62 ct/kWh".parse().unwrap()), level: Some(Level::Normal) },
        ..Schedule::default()
    }
}

fn announcement(id: &str, from: &str, until: &str) -> Announcement {
    let (valid_from, valid_until) = (at(from), at(until));
    Announcement {
        id: id.into(),
        issuer: "cert:supplier".into(),
        sequence: 1,
        valid_from,
        valid_until,
        priority: usual(),
        evses: Vec::new(),
        slots: vec![Slot { from: valid_from, until: valid_until, price: Some(Price(200_000)), level: None }],
        zones: Vec::new(),
        otherwise: Offer::default(),
    }
}

/// Sums of whole minutes are exact.
fn same(a: &[f64], b: &[f64]) -> bool {
    a == b
}

fn hours(schedule: &Schedule, from: &str, until: &str, level: Level) -> f64 {
    let book = Book::default();
    let tariffs = Tariffs { schedule, book: &book, variable: None };
    let all = tariffs.rates(&evse("e"), at(from), at(until));
    assert!(all.windows(2).all(|pair| pair[0].until == pair[1].from), "{all:?}");
    assert_eq!((all.first().unwrap().from, all.last().unwrap().until), (at(from), at(until)));
    let ms: i64 = all.iter().filter(|s| s.rate.level == Some(level)).map(|s| s.until.0 - s.from.0).sum();
    ms as f64 / 3_600_000.0
}

/// Local midnight to local midnight: 23, 24 and 25 hours.
const DAYS: [(&str, &str, f64); 3] = [
    ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", 23.0),
    ("2026-11-24T00:00:00+01:00", "2026-11-25T00:00:00+01:00", 24.0),
    ("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", 25.0),
];

#[test]
fn both_days_on_which_the_clocks_change_have_the_right_hours() {
    let schedule = modul3();
    for ((from, until, all), low) in DAYS.into_iter().zip([2.0, 3.0, 4.0]) {
        let got = [Level::Low, Level::Normal, Level::High].map(|level| hours(&schedule, from, until, level));
        assert!(same(&got, &[low, all - low - 2.0, 2.0]), "{from}: {got:?}");
    }
    // A window within the hour that is not there, and within the one that is there twice.
    let odd = Schedule { zones: vec![zone("02:15", "02:45", Level::Low)], ..Schedule::default() };
    for ((from, until, _), low) in DAYS.into_iter().zip([0.0, 0.5, 1.0]) {
        assert!(same(&[hours(&odd, from, until, Level::Low)], &[low]), "{from}");
    }
}

#[test]
fn the_rule_without_a_database_is_the_one_of_berlin() {
    let posix = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    for hour in 0..(24 * 366 * 3) {
        let instant = Wall(at("2026-01-01T00:00:00Z").0 + hour * 3_600_000);
        assert_eq!(Local::of(instant, &posix), Local::of(instant, &berlin()), "{instant}");
    }
}

#[test]
fn outside_its_quarters_a_schedule_leaves_what_holds_otherwise() {
    let schedule = modul3();
    let book = Book::default();
    let tariffs = Tariffs { schedule: &schedule, book: &book, variable: None };
    let rate = |text| tariffs.at(&evse("e"), at(text));
    assert_eq!(rate("2026-11-24T18:00:00+01:00").level, Some(Level::High));
    assert_eq!(rate("2026-11-24T19:00:00+01:00").level, Some(Level::Normal));
    assert_eq!(rate("2026-06-24T18:00:00+02:00").price, Some("8.62 ct/kWh".parse().unwrap()));
    assert_eq!(&*rate("2026-06-24T18:00:00+02:00").source, "what holds otherwise");
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_began() {
    let night = Zone { weekdays: "Fr".parse().unwrap(), ..zone("22:00", "06:00", Level::Low) };
    let schedule = Schedule { zones: vec![night], ..Schedule::default() };
    let book = Book::default();
    let level =
        |text| Tariffs { schedule: &schedule, book: &book, variable: None }.at(&evse("e"), at(text)).level;
    assert_eq!(level("2026-11-27T23:00:00+01:00"), Some(Level::Low), "Friday evening");
    assert_eq!(level("2026-11-28T05:59:00+01:00"), Some(Level::Low), "Saturday morning");
    assert_eq!(level("2026-11-28T23:00:00+01:00"), None, "Saturday evening");
    assert_eq!(level("2026-11-27T05:00:00+01:00"), None, "Friday morning");
}

#[test]
fn an_announcement_goes_before_the_schedule_and_the_schedule_holds_after_the_horizon() {
    let schedule = modul3();
    let mut book = Book::default();
    let now = at("2026-11-24T12:00:00Z");
    let new = announcement("day", "2026-11-24T16:00:00Z", "2026-11-24T17:00:00Z");
    assert_eq!(book.announce(new, &[], now), Ok(Change::Created));
    let tariffs = Tariffs { schedule: &schedule, book: &book, variable: None };
    let rate = tariffs.at(&evse("e"), at("2026-11-24T16:30:00Z"));
    assert_eq!(
        (rate.price, rate.level),
        (Some(Price(200_000)), Some(Level::High)),
        "the level is the schedule's"
    );
    assert!(rate.source.starts_with("price: tariff \"day\" of cert:supplier, version 1; level: schedule"));
    let rate = tariffs.at(&evse("e"), at("2026-11-24T17:00:00Z"));
    assert_eq!(rate.price, Some("10.84 ct/kWh".parse().unwrap()));
    assert_eq!(book.expire(at("2026-11-24T17:00:00Z")).len(), 1);
    assert_eq!(book.by_priority().count(), 0);
}

#[test]
fn an_announcement_counts_once_and_only_forward() {
    let mut book = Book::default();
    let now = at("2026-11-24T12:00:00Z");
    let first = announcement("day", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z");
    assert_eq!(book.announce(first.clone(), &[], now), Ok(Change::Created));
    assert_eq!(book.announce(first.clone(), &[], now), Ok(Change::None));
    let mut other = first.clone();
    other.slots[0].price = Some(Price(1));
    assert!(matches!(book.announce(other.clone(), &[], now), Err(Refusal::Changed { sequence: 1, .. })));
    other.sequence = 3;
    assert_eq!(book.announce(other.clone(), &[], now), Ok(Change::Replaced));
    assert_eq!(book.announce(first.clone(), &[], now), Err(Refusal::Stale { id: "day".into(), known: 3 }));
    assert_eq!(book.withdraw("cert:other", "day"), None, "only its issuer");
    assert_eq!(book.withdraw("cert:supplier", "day"), Some(other.clone()));
    assert_eq!(book.withdraw("cert:supplier", "day"), None);
    assert_eq!(
        book.announce(other.clone(), &[], now),
        Err(Refusal::Stale { id: "day".into(), known: 3 }),
        "a late repetition does not bring it back"
    );
    other.sequence = 4;
    assert_eq!(book.announce(other, &[], now), Ok(Change::Created));
}

#[test]
fn overlapping_tariffs_of_equal_priority_are_refused() {
    let now = at("2026-11-24T12:00:00Z");
    let evses = [evse("a"), evse("b")];
    let first = announcement("one", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z");
    let mut book = Book::default();
    book.announce(first, &evses, now).unwrap();
    let second = announcement("two", "2026-11-25T12:00:00Z", "2026-11-27T00:00:00Z");
    let refused = book.announce(second.clone(), &evses, now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "\"two\" would hold together with \"one\" of cert:supplier, which has the same priority 10: withdraw that, \
         choose another priority, or keep their times or EVSEs apart"
    );
    let higher = Announcement { priority: 11, ..second.clone() };
    assert_eq!(book.clone().announce(higher, &evses, now), Ok(Change::Created));
    let after = announcement("two", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z");
    assert_eq!(book.clone().announce(after, &evses, now), Ok(Change::Created));
    let mut level = second.clone();
    level.slots[0].price = None;
    level.slots[0].level = Some(Level::Low);
    assert_eq!(book.clone().announce(level, &evses, now), Ok(Change::Created), "a level beside a price");
    let mut scoped = Book::default();
    scoped.announce(Announcement { evses: vec![evse("a")], ..second.clone() }, &evses, now).unwrap();
    let b = Announcement { id: "three".into(), evses: vec![evse("b")], ..second };
    assert_eq!(scoped.announce(b, &evses, now), Ok(Change::Created), "other EVSEs");
}

#[test]
fn what_cannot_be_announced_names_its_field() {
    let now = at("2026-11-24T12:00:00Z");
    let good = || announcement("day", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z");
    let refused = |change: &dyn Fn(&mut Announcement)| {
        let mut new = good();
        change(&mut new);
        Book::default().announce(new, &[evse("a")], now).unwrap_err().to_string()
    };
    for (says, text) in [
        ("id: is not a name", refused(&|a| a.id = "a b".into())),
        ("valid_until: 2026-11-25", refused(&|a| a.valid_until = a.valid_from)),
        ("is over; it is", refused(&|a| (a.valid_from, a.valid_until) = (Wall(0), Wall(1)))),
        ("evses: there is no EVSE \"x\"; there are a", refused(&|a| a.evses = vec![evse("x")])),
        ("slots: are missing", refused(&|a| a.slots.clear())),
        ("zones: stand beside slots", refused(&|a| a.zones.push(zone("01:00", "02:00", Level::Low)))),
        ("slots[0]: says neither", refused(&|a| a.slots[0].price = None)),
        (
            "slots[0].price: 1000000 ct/kWh is not believed",
            refused(&|a| a.slots[0].price = Some(Price(10_000_000_000))),
        ),
        (
            "slots[0].from: 2026-11-24T23:59:59",
            refused(&|a| a.slots[0].from = Wall(a.slots[0].from.0 - 1000)),
        ),
        (
            "slots[1].from: 2026-11-25T00:00:00.000Z lies before the end",
            refused(&|a| a.slots.push(a.slots[0])),
        ),
        (
            "zones[1]: holds together with zones[0]",
            refused(&|a| {
                a.slots.clear();
                a.zones = vec![zone("22:00", "06:00", Level::Low), zone("05:00", "07:00", Level::High)];
            }),
        ),
    ] {
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn the_table_gives_back_what_it_was_given() {
    let db = rusqlite::Connection::open_in_memory().unwrap();
    db.execute_batch(keep::MIGRATIONS[0].sql).unwrap();
    let now = at("2026-11-24T12:00:00Z");
    let mut book = Book::default();
    let mut one = announcement("one", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z");
    one.slots.clear();
    one.zones = vec![Zone { weekdays: "Sa Su".parse().unwrap(), ..zone("22:00", "06:00", Level::Low) }];
    let two = announcement("two", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z");
    for new in [&one, &two] {
        book.announce(new.clone(), &[], now).unwrap();
        keep::remember(&db, new).unwrap();
    }
    assert_eq!(keep::kept(&db).unwrap(), book);
    let gone = book.withdraw("cert:supplier", "two").unwrap();
    keep::withdrawn(&db, &gone).unwrap();
    assert_eq!(keep::kept(&db).unwrap(), book);
    keep::forget(&db, &one).unwrap();
    assert_eq!(keep::kept(&db).unwrap().by_priority().count(), 0);
}

#[test]
fn a_backend_may_send_a_tariff() {
    let now = at("2026-11-24T12:00:00Z");
    let payload = r#"{"evseId": 0, "tariff": {"tariffId": "T1", "currency": "EUR", "energy": {"prices": [
        {"priceKwh": 0.2, "conditions": {"startTimeOfDay": "22:00", "endTimeOfDay": "06:00",
         "dayOfWeek": ["Monday", "Friday"]}},
        {"priceKwh": 0.35}]}}}"#;
    let new = ocpp::set_tariff("backend", payload, None, now).unwrap();
    assert_eq!((new.zones.len(), new.otherwise.price), (1, Some(Price(350_000))));
    assert_eq!(
        (new.zones[0].price, new.zones[0].weekdays.to_string()),
        (Some(Price(200_000)), "Mo Fr".into())
    );
    assert_eq!(Book::default().announce(new, &[], now), Ok(Change::Created));
    for (change, says) in [
        ((r#""EUR""#, r#""USD""#), "tariff.currency"),
        ((r#""currency""#, r#""chargingTime": {}, "currency""#), "tariff.chargingTime is not supported"),
        ((r#""dayOfWeek""#, r#""minPower": 11, "dayOfWeek""#), "conditions.minPower is not supported"),
        (("Friday", "Freitag"), "\"Freitag\" is no day of the week"),
        (("22:00", "22:60"), "is not a time of day"),
        (("0.35", "0.1234567"), "more than six decimals"),
        (("0.35", "1e9"), "more than six decimals or is too large"),
        (("prices", "preise"), "is not a tariff"),
    ] {
        let error = ocpp::set_tariff("b", &payload.replacen(change.0, change.1, 1), None, now).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let data = r#"{"id": "d", "sequence": 4, "valid_from": "2026-11-25T00:00:00+01:00", "issuer": "me",
        "valid_until": "2026-11-26T00:00:00+01:00", "otherwise": {"level": "NT"}}"#;
    let new = ocpp::data_transfer("backend", data).unwrap();
    assert_eq!(
        (new.issuer.as_str(), new.otherwise.level),
        ("backend", Some(Level::Low)),
        "nobody names himself"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn overlap_is_what_the_calendar_shows(
        a in (0..48_u16, 0..48_u16, 1..128_u8, 1..4096_u16),
        b in (0..48_u16, 0..48_u16, 1..128_u8, 1..4096_u16),
    ) {
        let make = |(from, to, days, months)| Zone {
            from: TimeOfDay(from * 30), to: TimeOfDay(to * 30), weekdays: Days(days), months: Months(months),
            ..zone("00:00", "00:00", Level::Low)
        };
        let (a, b) = (make(a), make(b));
        let start = at("2026-01-01T00:00:00Z").0;
        // Seven years have every weekday on every first of a month.
        let both = (0..7 * 366 * 24 * 2).any(|half| {
            let local = Local::of(Wall(start + half * 1_800_000), &TimeZone::UTC);
            a.covers(local) && b.covers(local)
        });
        prop_assert!(!both || overlap(&a, &b), "{a:?} {b:?}");
    }
}

proptest! {
    #[test]
    fn rates_are_what_holds_at_each_instant(minute in 0..60 * 24 * 400_i64) {
        let schedule = modul3();
        let book = Book::default();
        let tariffs = Tariffs { schedule: &schedule, book: &book, variable: None };
        let from = Wall(at("2026-01-01T00:00:00Z").0 + minute * 60_000);
        let all = tariffs.rates(&evse("e"), from, Wall(from.0 + 86_400_000 * 3 / 2));
        for stretch in &all {
            for probe in [stretch.from, Wall(i64::midpoint(stretch.from.0, stretch.until.0)), Wall(stretch.until.0 - 1)] {
                prop_assert_eq!(&tariffs.at(&evse("e"), probe), &stretch.rate);
            }
        }
    }

    #[test]
    fn no_text_of_a_backend_panics(text in ".{0,200}") {
        let _ = ocpp::set_tariff("b", &text, None, Wall(0));
        let _ = ocpp::data_transfer("b", &text);
    }
}
