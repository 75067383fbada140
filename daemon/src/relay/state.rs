//! What outlives a restart: how often a relay switched, and that its contactor is welded.
//!
//! In: switchings, faults, an operator's word. Out: the state as it was. Invariant: a welded contactor is on the disk
//! before anybody is told; only an operator's word clears it. A file that cannot be read counts as welded: what it said
//! is not known.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A relay's file.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    kept: Kept,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    switched: u64,
    welded: Option<String>,
}

impl State {
    pub(super) fn open(directory: &Path, relay: &str) -> Self {
        // Names of relays may hold what names of files may not.
        let mut name = String::with_capacity(relay.len() * 2);
        for byte in relay.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        let path = directory.join(format!("relay-{name}.json"));
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| Kept {
                welded: Some(format!("{} cannot be read: {error}", path.display())),
                ..Kept::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                let why = format!("{} cannot be read: {error}", path.display());
                Kept { welded: Some(why), ..Kept::default() }
            }
        };
        Self { path, kept }
    }

    /// Why it is locked out, if it is.
    pub(super) fn welded(&self) -> Option<&str> {
        self.kept.welded.as_deref()
    }

    /// How often it was energised.
    pub(super) const fn switched(&self) -> u64 {
        self.kept.switched
    }

    pub(super) fn count(&mut self) -> io::Result<()> {
        self.kept.switched += 1;
        self.keep()
    }

    pub(super) fn weld(&mut self, why: String) -> io::Result<()> {
        self.kept.welded = Some(why);
        self.keep()
    }

    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.kept.welded = None;
        self.keep()
    }

    /// Beside, synced, then in its place: after a power cut the old or the new one is there.
    fn keep(&self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&self.kept).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_outlives_a_restart_and_what_cannot_be_read_is_locked_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), "k/1");
        assert_eq!((state.switched(), state.welded()), (0, None));
        state.count().unwrap();
        state.weld("stays closed".into()).unwrap();
        let mut state = State::open(dir.path(), "k/1");
        assert_eq!((state.switched(), state.welded()), (1, Some("stays closed")));
        state.clear().unwrap();
        assert_eq!(State::open(dir.path(), "k/1").welded(), None);
        fs::write(&state.path, "{").unwrap();
        assert!(State::open(dir.path(), "k/1").welded().unwrap().contains("cannot be read"));
    }
}
