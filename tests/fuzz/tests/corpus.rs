//! Calls every target with its corpus, and with each entry cut and disturbed at some places.

use std::{fs, path::Path};

use ladewart_fuzz::TARGETS;

fn entries(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut entries: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|e| panic!("the target {target} has no corpus in {}: {e}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    entries.sort();
    entries
}

#[test]
fn every_target_takes_its_corpus() {
    for (name, target) in TARGETS {
        let entries = entries(name);
        assert!(!entries.is_empty(), "the corpus of {name} is empty");
        for (path, bytes) in entries {
            // What is printed names the entry if the target panics.
            println!("{path}");
            target(&bytes);
        }
    }
}

#[test]
fn every_target_takes_what_is_left_of_its_corpus() {
    for (name, target) in TARGETS {
        for (path, bytes) in entries(name) {
            println!("{path}");
            for part in 0..16 {
                target(&bytes[..bytes.len() * part / 16]);
                let mut disturbed = bytes.clone();
                if let Some(byte) = disturbed.get_mut(bytes.len() * part / 16) {
                    *byte ^= 1 << (part % 8);
                }
                target(&disturbed);
            }
        }
    }
}

#[test]
fn the_corpus_has_no_target_that_is_gone() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(known, _)| *known == name), "corpus/{name} belongs to no target");
    }
}
