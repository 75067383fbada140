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

use ladewartd::{config, device::definition::Definition};

/// A target: name, and what is called with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: &[Target] = &[("config", config), ("definition", definition)];

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
