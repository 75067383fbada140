//! The journal's chain, recomputed from an export: written from its documented byte form, not with the daemon's code.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use ladewart_proto::v1::JournalEntry;
use sha2::{Digest as _, Sha256};

/// Recomputes every hash from the first entry on. Gives the last. Errors: the first entry that does not fit.
pub fn verify(entries: &[JournalEntry]) -> anyhow::Result<String> {
    let mut head = [0_u8; 32];
    for (i, entry) in entries.iter().enumerate() {
        let expected = u64::try_from(i)? + 1;
        ensure!(entry.sequence == expected, "entry {} stands where {expected} belongs", entry.sequence);
        let at = entry.at.as_ref().context("an entry has no time")?;
        let milliseconds = at.seconds * 1000 + i64::from(at.nanos / 1_000_000);
        let mut hash = Sha256::new();
        hash.update(b"ladewart.journal.1\0");
        hash.update(head);
        hash.update(entry.sequence.to_be_bytes());
        hash.update(milliseconds.to_be_bytes());
        for text in [&entry.kind, &entry.subject, &entry.actor, &entry.body] {
            hash.update(u64::try_from(text.len())?.to_be_bytes());
            hash.update(text);
        }
        head = hash.finalize().into();
        ensure!(hex(&head) == entry.hash, "entry {} was changed", entry.sequence);
    }
    Ok(hex(&head))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> JournalEntry {
        JournalEntry {
            sequence: 1,
            at: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 123_000_000 }),
            kind: "limit.accepted".into(),
            subject: "l1".into(),
            actor: "uid:0".into(),
            body: r#"{"watts":10000}"#.into(),
            hash: "d27b219b5aab28cc67c10df3496d06186b5d7c835ff23e868b98c1fe961c7319".into(),
            previous: "00".repeat(32),
        }
    }

    #[test]
    fn a_true_entry_fits_and_a_changed_one_does_not() {
        assert_eq!(verify(&[entry()]).unwrap(), entry().hash);
        let changed = JournalEntry { body: r#"{"watts":90000}"#.into(), ..entry() };
        assert_eq!(verify(&[changed]).unwrap_err().to_string(), "entry 1 was changed");
        let missing = JournalEntry { sequence: 2, ..entry() };
        assert!(verify(&[missing]).is_err());
    }
}
