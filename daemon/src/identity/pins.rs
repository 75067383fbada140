//! Gateways that were taken on by an administrator's command (trust on first use).
//!
//! In: a command that arms it for a while, a certificate that was shown meanwhile. Out: pins, kept on disk.
//! Invariant: without a command of the last [`LONGEST`] nothing is added; one command adds one pin at most.
//!
//! ```text
//! closed ──arm──▶ armed ──first certificate with a proven key──▶ closed, one pin more
//!                   └──its time is over──▶ closed
//! ```

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{file, hex, parse_fingerprint};
use crate::time::Mono;

/// Longest time that one command may arm it for.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// Pins that are kept: the gateway's and its predecessor's, while one replaces the other.
const MOST: usize = 2;

/// See the module. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct PinBook(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    pins: Vec<[u8; 32]>,
    armed_until: Option<Mono>,
}

impl PinBook {
    /// Reads what is kept in a file; a missing file holds nothing.
    pub(super) fn open(file: &Path) -> Result<Self, String> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(format!("{} cannot be read: {e}", file.display())),
        };
        let mut pins = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match parse_fingerprint(line.trim()) {
                Some(pin) => pins.push(pin),
                None => {
                    return Err(format!("{}: {line:?} is not a SHA-256 fingerprint", file.display()));
                }
            }
        }
        let state = Mutex::new(State { pins, armed_until: None });
        Ok(Self(Arc::new(Inner { file: Some(file.to_owned()), state })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next unknown certificate is taken on, if it comes within this time; at most [`LONGEST`].
    pub fn arm(&self, now: Mono, time: Duration) {
        self.state().armed_until = Some(now + time.min(LONGEST));
    }

    /// Whether a certificate would be taken on now.
    #[must_use]
    pub fn armed(&self, now: Mono) -> bool {
        self.state().armed_until.is_some_and(|until| now < until)
    }

    /// What is pinned, oldest first.
    #[must_use]
    pub fn pins(&self) -> Vec<[u8; 32]> {
        self.state().pins.clone()
    }

    /// Whether it is pinned.
    #[must_use]
    pub fn holds(&self, pin: &[u8; 32]) -> bool {
        self.state().pins.contains(pin)
    }

    /// Takes it on and disarms. What cannot be written down holds until the daemon ends.
    pub(crate) fn take(&self, pin: [u8; 32]) {
        let mut state = self.state();
        state.armed_until = None;
        if !state.pins.contains(&pin) {
            state.pins.push(pin);
            let surplus = state.pins.len().saturating_sub(MOST);
            state.pins.drain(..surplus);
        }
        tracing::info!(fingerprint = hex(&pin), "the gateway's certificate is trusted from now on");
        if let Some(path) = &self.0.file {
            let text: String = state.pins.iter().map(|pin| hex(pin) + "\n").collect();
            if let Err(error) = file::write(path, text.as_bytes()) {
                tracing::error!("{} cannot be written: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_takes_on_one_gateway_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateways");
        let book = PinBook::open(&path).unwrap();
        let at = |s| Mono(Duration::from_secs(s));
        assert!(!book.armed(at(0)), "not by itself");
        book.arm(at(0), Duration::from_secs(60));
        assert!(book.armed(at(59)) && !book.armed(at(60)), "for a while");
        book.arm(at(0), Duration::from_secs(1_000_000));
        assert!(!book.armed(at(3600)), "an hour is the longest");
        book.arm(at(0), Duration::from_secs(60));
        book.take([1; 32]);
        assert!(!book.armed(at(1)), "one command, one gateway");
        book.take([2; 32]);
        book.take([3; 32]);
        assert_eq!(PinBook::open(&path).unwrap().pins(), [[2; 32], [3; 32]], "kept, with the one before");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateways");
        std::fs::write(&path, "00ff\n").unwrap();
        let error = PinBook::open(&path).unwrap_err();
        assert!(error.contains("gateways: \"00ff\" is not a SHA-256 fingerprint"), "{error}");
    }
}
