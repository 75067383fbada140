//! The demo as README command 1 runs it, on a pipe.

use std::{process::Command, time::Duration};

#[test]
fn the_story_comes_true_and_ends_with_a_verified_journal() {
    let started = tokio::time::Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_ladewart-lab")).args(["demo", "--fast"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().last(), Some("journal verified"), "{text}");
    assert!(!text.contains('\x1b'), "a pipe gets plain lines");
    assert!(started.elapsed() < Duration::from_secs(120));
}
