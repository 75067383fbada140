//! What the installer cannot help with: the bytes on their way in. RAUC itself is met in `tests/update`.

use std::{fs, path::Path};

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    journal::MIGRATIONS,
    store::{Store, Writer},
};

struct Device {
    updates: Updates,
    _installing: Installing,
    dir: tempfile::TempDir,
    _writer: Writer,
}

fn device(most: u64, on_trial: bool) -> Device {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = Store::open(dir.path(), MIGRATIONS).unwrap();
    let confirmed = dir.path().join("confirmed");
    if !on_trial {
        fs::write(&confirmed, "").unwrap();
    }
    let config = config::Update {
        spool: dir.path().join("spool"),
        most,
        confirmed: Some(confirmed),
        restart: Some(dir.path().join("restart")),
        reason: None,
    };
    let (updates, installing) = updates(config, Journal::new(store), Clock::system());
    Device { updates, _installing: installing, dir, _writer: writer }
}

impl Device {
    fn files(&self) -> usize {
        fs::read_dir(self.dir.path().join("spool")).map_or(0, Iterator::count)
    }
}

fn announced(bytes: &[u8]) -> Announced {
    Announced { size: bytes.len() as u64, sha256: Sha256::digest(bytes).into() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn only_the_announced_bytes_become_a_bundle(
        bytes in prop::collection::vec(any::<u8>(), 1..4000),
        cuts in prop::collection::vec(1usize..700, 0..8),
        fault in 0..4,
    ) {
        let device = device(1 << 20, false);
        let promise = announced(&bytes);
        let mut sent = bytes.clone();
        match fault {
            1 => { sent.pop(); }
            2 => sent.push(7),
            3 => sent[0] ^= 1,
            _ => {}
        }
        let mut upload = device.updates.upload(promise).unwrap();
        let (mut rest, mut failed) = (&sent[..], false);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            failed |= upload.write(now).is_err();
            rest = later;
        }
        let bundle = if failed {
            drop(upload);
            None
        } else {
            upload.finish().ok()
        };
        prop_assert_eq!(bundle.is_some(), fault == 0);
        if let Some(bundle) = bundle {
            prop_assert_eq!(fs::read(bundle.path()).unwrap(), bytes);
            prop_assert!(matches!(device.updates.upload(promise), Err(UpdateError::Busy)));
            drop(bundle);
        }
        // Whatever happened, nothing is left and the next may come.
        prop_assert_eq!(device.files(), 0);
        prop_assert!(device.updates.upload(promise).is_ok());
    }
}

#[test]
fn a_bundle_that_no_slot_could_hold_is_refused_at_once() {
    let device = device(1000, false);
    for size in [0, 1001, u64::MAX] {
        let refused = device.updates.upload(Announced { size, sha256: [0; 32] }).unwrap_err();
        assert!(matches!(refused, UpdateError::Size { .. }), "{refused}");
    }
    let endless = self::device(u64::MAX, false);
    let refused = endless.updates.upload(Announced { size: 1 << 60, sha256: [0; 32] }).unwrap_err();
    assert!(matches!(refused, UpdateError::NoRoom { .. }), "{refused}");
}

#[test]
fn nothing_is_taken_while_the_running_system_is_on_trial() {
    let refused = device(1000, true).updates.upload(announced(b"x")).unwrap_err();
    assert!(matches!(refused, UpdateError::OnTrial), "{refused}");
}

#[test]
fn the_rest_of_a_power_cut_is_no_obstacle() {
    let device = device(1000, false);
    let spool = device.dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    fs::write(spool.join("bundle.raucb"), "half").unwrap();
    let mut upload = device.updates.upload(announced(b"whole")).unwrap();
    upload.write(b"whole").unwrap();
    assert_eq!(fs::read(upload.finish().unwrap().path()).unwrap(), b"whole");
}

#[test]
fn a_spool_that_is_a_file_is_named() {
    let device = device(1000, false);
    fs::write(device.dir.path().join("spool"), "").unwrap();
    let refused = device.updates.upload(announced(b"x")).unwrap_err();
    assert!(
        refused.to_string().starts_with(&*device.dir.path().join("spool").to_string_lossy()),
        "{refused}"
    );
    assert!(Path::new(&device.dir.path().join("spool")).is_file());
}
