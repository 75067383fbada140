//! Everything that reads bytes from outside, as functions of any bytes.
//!
//! In: bytes. Out: nothing; a target fails by panicking. What holds for every target: no panic, no hang (a corpus entry
//! takes less than a second in a debug build), and what the target itself asserts.
//!
//! A target is a line in [`TARGETS`] and a directory `corpus/<name>/` with at least one entry. The test `corpus` calls
//! each target with its entries; `tests/run fuzz [seconds [target…]]` searches for new ones with libFuzzer. An input
//! that once failed is kept in the corpus under a name that says what it showed.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use ladewartd::{
    config,
    device::definition::Definition,
    formula::{Formula, MeterField, NODES, Name, Scope, Unit, Value},
    ids::EvseId,
    smgw::{self, Connect, ConnectStep, SocksError},
    tariff::{self, Book, Schedule, Tariffs},
    time::Wall,
};

/// A target: name, and what is called with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: &[Target] = &[
    ("config", config),
    ("definition", definition),
    ("mdns", mdns),
    ("socks", socks),
    ("formula", formula),
    ("tariff", tariff),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, call)| *call)
}

/// A site configuration is refused with a sentence or read.
fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = config::Source::new(PathBuf::from("site.toml"), text.to_owned());
    if let Err(error) = config::parse(&source) {
        assert!(!error.to_string().is_empty());
    }
}

/// A device definition is refused with a sentence or read.
fn definition(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = config::Source::new(PathBuf::from("device.toml"), text.to_owned());
    if let Err(error) = Definition::parse(&source) {
        assert!(!error.to_string().is_empty());
    }
}

/// An answer to the question for a gateway's address: addresses or nothing.
fn mdns(bytes: &[u8]) {
    let found = smgw::mdns_addresses(bytes, "smgw.local");
    // Each takes fifteen bytes at the least.
    assert!(found.len() <= bytes.len() / 15 + 1);
}

/// What a proxy answers, cut at every place and in pieces of the length that the first byte says: the outcome is the
/// same, and what follows the reply is left.
fn socks(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let whole = connect(bytes, bytes.len().max(1));
    assert_eq!(connect(bytes, usize::from(*cut % 16) + 1), whole);
    assert_eq!(connect(bytes, 1), whole);
}

/// The bytes behind the reply, once the way is open.
fn connect(bytes: &[u8], piece: usize) -> Result<Option<Vec<u8>>, SocksError> {
    let Ok(mut connect) = Connect::new("emt.example", 9000) else { return Ok(None) };
    let mut open = false;
    let mut rest = Vec::new();
    for mut piece in bytes.chunks(piece) {
        while !open && !piece.is_empty() {
            let (used, step) = connect.feed(piece)?;
            piece = &piece[used..];
            open = step == ConnectStep::Open;
        }
        rest.extend(piece);
    }
    Ok(open.then_some(rest))
}

/// An expression is refused with a sentence, or costs what it may and gives a value or a sentence.
fn formula(bytes: &[u8]) {
    struct Names;
    impl Scope for Names {
        fn resolve(&self, path: &[String]) -> Option<(Name, Unit)> {
            match path {
                [name] if name == "AVAIL" => Some((Name::Variable(0), Unit::Percent)),
                [name] if name == "level" => Some((Name::Level, Unit::Text)),
                [meter, _, field] if meter == "meter" && field == "power" => {
                    Some((Name::Meter(0, MeterField::Power), Unit::Watts))
                }
                _ => None,
            }
        }

        fn known(&self) -> Vec<String> {
            vec!["AVAIL".to_owned()]
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for unit in [Unit::Watts, Unit::Truth] {
        match Formula::compile(text, &Names, unit) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(formula) => {
                assert!(formula.cost() <= NODES);
                let zero = formula.evaluate(&|name| {
                    Some(if name == Name::Level { Value::Text("low".into()) } else { Value::Number(0.0) })
                });
                assert!(!matches!(zero, Ok(Value::Number(number)) if !number.is_finite()));
                let _ = formula.evaluate(&|_| None);
            }
        }
    }
}

/// A tariff from a backend is refused with a sentence, or read and then taken in or refused.
fn tariff(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = Wall(1_795_000_000_000);
    for read in
        [tariff::ocpp::set_tariff("backend", text, None, now), tariff::ocpp::data_transfer("backend", text)]
    {
        match read {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(new) => {
                let mut book = Book::default();
                if book.announce(new.clone(), &[], now).is_ok() {
                    assert_eq!(book.announce(new, &[], now), Ok(tariff::Change::None));
                    let schedule = Schedule::default();
                    let tariffs = Tariffs { schedule: &schedule, book: &book, variable: None };
                    let rates = tariffs.rates(&EvseId::new("e"), now, Wall(now.0 + 86_400_000));
                    assert!(rates.windows(2).all(|pair| pair[0].until == pair[1].from));
                }
            }
        }
    }
}
