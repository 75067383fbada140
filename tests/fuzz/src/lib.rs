//! Everything that reads bytes from outside, as functions of any bytes.
//!
//! In: bytes. Out: nothing; a target fails by panicking. What holds for every target: no panic, no hang (a corpus entry
//! takes less than a second in a debug build), and what the target itself asserts.
//!
//! A target is a line in [`TARGETS`] and a directory `corpus/<name>/` with at least one entry. The test `corpus` calls
//! each target with its entries; `tests/run fuzz [seconds [target…]]` searches for new ones with libFuzzer. An input
//! that once failed is kept in the corpus under a name that says what it showed.

#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use ladewartd::{
    clock::Clock,
    config,
    device::{
        bus::{
            Request,
            frame::{Mode, Verdict},
        },
        definition::{Definition, Function},
    },
    identity::{self, PinBook},
    meter::push::{iec::Iec, sml::Sml, telegram::Teller},
    ocpp,
    smgw::{self, Connect, ConnectStep, SocksError},
    tls::{self, Judge, Profile, cbc, scsv},
};
use rustls::{
    client::danger::ServerCertVerifier as _,
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier as _,
};

/// A target: name, and what is called with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: &[Target] = &[
    ("certificate-chain", certificate_chain),
    ("config", config),
    ("definition", definition),
    ("iec62056", iec62056),
    ("mdns", mdns),
    ("modbus_ascii", modbus_ascii),
    ("modbus_rtu", modbus_rtu),
    ("ocpp-frame", ocpp::fuzz::frame),
    ("ocpp-route", ocpp::fuzz::route),
    ("scsv", scsv),
    ("sml", sml),
    ("socks", socks),
    ("tls-cbc-record", tls_cbc_record),
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

/// An answer on a serial line: the first five bytes are unit, function, register and count of the request.
fn answer(mode: Mode, bytes: &[u8]) {
    let [unit, function, high, low, count, ref answer @ ..] = *bytes else { return };
    let start = u16::from_be_bytes([high, low]);
    let request = match function % 4 {
        0 => Request::Read { function: Function::Holding, start, count: u16::from(count % 125) + 1 },
        1 => Request::Read { function: Function::Input, start, count: u16::from(count % 125) + 1 },
        2 => Request::WriteOne { register: start, value: u16::from(count) },
        _ => Request::WriteMany { start, values: vec![start; usize::from(count % 123) + 1] },
    };
    if let Verdict::Answer(registers) = mode.judge(unit, &request, answer) {
        match request {
            Request::Read { count, .. } => assert_eq!(registers.len(), usize::from(count)),
            Request::WriteOne { .. } | Request::WriteMany { .. } => assert!(registers.is_empty()),
        }
        // What counts as whole does not count any more with something behind it.
        let longer = [answer, &[0]].concat();
        assert!(!matches!(mode.judge(unit, &request, &longer), Verdict::Answer(_)));
    }
}

/// An RTU answer fits its request or is refused.
fn modbus_rtu(bytes: &[u8]) {
    answer(Mode::Rtu, bytes);
}

/// The same in ASCII.
fn modbus_ascii(bytes: &[u8]) {
    answer(Mode::Ascii, bytes);
}

/// SML from an optical head; the first byte says in which pieces.
fn sml(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let (mut sml, mut teller) = (Sml::default(), Teller::default());
    for piece in stream.chunks(usize::from(*piece).max(1)) {
        for telegram in sml.push(piece) {
            // A reading or a sentence.
            if let Err(why) = teller.values(&telegram) {
                assert!(!why.to_string().is_empty());
            }
        }
    }
}

/// IEC 62056-21 from an optical head; the first byte says in which pieces.
fn iec62056(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let (mut iec, mut teller) = (Iec::default(), Teller::default());
    for piece in stream.chunks(usize::from(*piece).max(1)) {
        for telegram in iec.push(piece) {
            if let Err(why) = teller.values(&telegram) {
                assert!(!why.to_string().is_empty());
            }
        }
    }
}

/// Trusts `anchor.pem`, the root of the chain in the corpus.
static JUDGE: LazyLock<Arc<Judge>> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("anchor.pem");
    let ca = config::Anchors { file, name: Some("localhost".to_owned()) };
    let trust = config::Trust { pins: Vec::new(), ca: Some(ca), tofu: false };
    let provider = Arc::new(tls::provider(Profile::HAN));
    match Judge::new(&trust, PinBook::default(), &provider, Clock::system()) {
        Ok(judge) => judge,
        Err(problem) => panic!("{problem}"),
    }
});

/// A peer's chain, each certificate behind its length in two bytes, is refused or taken, from either end.
fn certificate_chain(bytes: &[u8]) {
    let mut chain = Vec::new();
    let mut rest = bytes;
    while let [a, b, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*a, *b])).min(more.len());
        let (certificate, behind) = more.split_at(length);
        chain.push(CertificateDer::from(certificate));
        rest = behind;
    }
    let Some((leaf, issuers)) = chain.split_first() else { return };
    let name = match tls::server_name("localhost") {
        Ok(name) => name,
        Err(problem) => panic!("{problem}"),
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_hours(500_000));
    let as_server = JUDGE.verify_server_cert(leaf, issuers, &name, &[], now).is_ok();
    let as_client = JUDGE.verify_client_cert(leaf, issuers, now).is_ok();
    // What is taken can be shown, and has a key that may sign.
    if as_server || as_client {
        assert!(identity::describe(leaf).is_some() && identity::may_sign(leaf));
    }
}

/// A record of the CBC suite that the peer did not make is refused; one of ours comes back, and not when it is damaged.
fn tls_cbc_record(bytes: &[u8]) {
    assert_eq!(cbc::open_any(bytes), None);
    let content = &bytes[..bytes.len().min(1 << 14)];
    let bit = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    assert!(cbc::there_and_back(content, bit));
}

/// The SCSV and nothing else is left out, however the first record is cut.
fn scsv(bytes: &[u8]) {
    if let Some(shorter) = scsv::without(bytes) {
        assert_eq!(shorter.len() + 2, bytes.len());
        assert_eq!((shorter[0], &shorter[4..38]), (bytes[0], &bytes[4..38]));
    }
    let Some((cut, sent)) = bytes.split_first() else { return };
    let pieces: Vec<_> = sent.chunks(usize::from(*cut).max(1)).collect();
    let out = scsv::written(&pieces);
    assert_eq!(out, scsv::written(&[sent]));
    // Either the first record is not whole yet, or it is there as it was, or shorter by the two bytes.
    assert!(out.is_empty() || out.len() == sent.len() || out.len() + 2 == sent.len());
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
