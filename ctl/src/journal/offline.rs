//! An exported journal, verified without a daemon.
//!
//! In: lines of JSON as `journal export` writes them. Out: what the chain in them is worth. Invariant: nothing of the
//! file is believed: every hash is recomputed, every link and every signature checked; the first entry that does not
//! fit is named. The byte form is that of the daemon's `journal` room.

use std::io::BufRead;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use rustls::pki_types::{SignatureVerificationAlgorithm, alg_id};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// What is read of a line.
#[derive(Debug, Deserialize)]
struct Entry {
    sequence: u64,
    at: Timestamp,
    kind: String,
    subject: String,
    actor: String,
    body: String,
    hash: String,
    previous: String,
}

/// What the file is worth.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Entries that fit.
    pub(super) entries: u64,
    /// The first.
    pub(super) from: u64,
    /// The last.
    pub(super) to: u64,
    /// Hash of the last.
    pub(super) head: String,
    /// The last entry that a signature covers; 0 without any.
    pub(super) signed: u64,
    /// Fingerprints of the keys that signed.
    pub(super) keys: Vec<String>,
}

/// A public key on P-256 as SubjectPublicKeyInfo is this, and the point in 65 bytes (RFC 5480 §2).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Longest line that is read, in bytes.
const LONGEST: usize = 8 << 20;

/// Recomputes what is in the file. The error names the entry, or the line.
pub(super) fn verify(mut file: impl BufRead) -> Result<Verdict, String> {
    let mut verdict = Verdict::default();
    let mut line = String::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        number += 1;
        if file.read_line(&mut line).map_err(|error| format!("line {number} cannot be read: {error}"))? == 0 {
            return Ok(verdict);
        }
        if line.len() > LONGEST {
            return Err(format!("line {number} is no entry: it is too long"));
        }
        if line.trim().is_empty() {
            continue;
        }
        let entry: Entry = serde_json::from_str(&line).map_err(|error| {
            format!(
                "line {number} is no entry of a journal ({error}); give what `journal export -o json` wrote"
            )
        })?;
        step(&mut verdict, &entry)?;
    }
}

fn step(verdict: &mut Verdict, entry: &Entry) -> Result<(), String> {
    let sequence = entry.sequence;
    if verdict.entries == 0 {
        verdict.from = sequence;
    } else if sequence != verdict.to.saturating_add(1) {
        let next = verdict.to.saturating_add(1);
        return Err(match sequence {
            _ if sequence < next => format!("entry {sequence} stands after entry {}", verdict.to),
            _ if sequence - 1 == next => format!("entry {next} is missing"),
            _ => format!("entries {next} to {} are missing", sequence - 1),
        });
    } else if entry.previous != verdict.head {
        return Err(format!("entry {sequence} does not follow entry {}", verdict.to));
    }
    let changed =
        || format!("entry {sequence} was changed: its hash does not fit its content and the entry before");
    let previous = bytes(&entry.previous).filter(|hash| hash.len() == 32).ok_or_else(changed)?;
    let mut hash = Sha256::new();
    hash.update(b"ladewart.journal.1\0");
    hash.update(&previous);
    hash.update(sequence.to_be_bytes());
    hash.update(entry.at.as_millisecond().to_be_bytes());
    for text in [&entry.kind, &entry.subject, &entry.actor, &entry.body] {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text);
    }
    let hash = crate::words::hex(&hash.finalize());
    // The chain counts milliseconds: what is finer would be outside of it.
    let exact = entry.at.subsec_nanosecond() % 1_000_000 == 0;
    if !exact || hash != entry.hash || (sequence == 1 && previous != [0; 32]) {
        return Err(changed());
    }
    if entry.kind == "journal.signed" {
        let key = signature(&entry.body, sequence.wrapping_sub(1), &previous)
            .map_err(|problem| format!("entry {sequence}: {problem}"))?;
        verdict.signed = sequence - 1;
        if !verdict.keys.contains(&key) {
            verdict.keys.push(key);
        }
    }
    verdict.entries += 1;
    verdict.to = sequence;
    verdict.head = hash;
    Ok(())
}

fn signature(body: &str, sequence: u64, hash: &[u8]) -> Result<String, &'static str> {
    const UNREADABLE: &str = "its signature cannot be read";
    let body: serde_json::Value = serde_json::from_str(body).map_err(|_| UNREADABLE)?;
    if body["sequence"] != sequence || body["hash"] != crate::words::hex(hash) {
        return Err("its signature is over another entry than the one before it");
    }
    let part = |name: &str| body[name].as_str().and_then(|text| BASE64.decode(text).ok()).ok_or(UNREADABLE);
    let (public, signature) = (part("public_key")?, part("signature")?);
    let point = public.strip_prefix(&SPKI[..]).ok_or("its key is not on P-256")?;
    let all = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.public_key_alg_id() == alg_id::ECDSA_P256
            && algorithm.signature_alg_id() == alg_id::ECDSA_SHA256
    };
    let algorithm = all.iter().find(fits).ok_or("this program cannot check signatures")?;
    let message = [&b"ladewart.journal.signature.1\0"[..], &sequence.to_be_bytes(), hash].concat();
    algorithm
        .verify_signature(point, &message, &signature)
        .map_err(|_| "its signature does not fit the entry before it")?;
    Ok(crate::words::hex(&Sha256::digest(&public)))
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by a daemon: two entries, a signature, one more.
    const EXPORT: &str = include_str!("../../tests/data/journal.jsonl");

    fn check(text: &str) -> Result<Verdict, String> {
        verify(text.as_bytes())
    }

    #[test]
    fn what_a_daemon_exported_fits() {
        let verdict = check(EXPORT).unwrap();
        assert_eq!(
            (verdict.from, verdict.entries, verdict.keys.len()),
            (1, EXPORT.lines().count() as u64, 1)
        );
        assert!(verdict.signed > 0 && verdict.signed < verdict.to, "{verdict:?}");
        let part: Vec<_> = EXPORT.lines().skip(2).collect();
        assert_eq!(check(&part.join("\n")).unwrap().from, 3, "a part is verified by itself");
        assert_eq!(check("").unwrap(), Verdict::default());
    }

    #[test]
    fn every_change_is_located() {
        let lines: Vec<_> = EXPORT.lines().map(str::to_owned).collect();
        let with = |at: usize, from: &str, to: &str| {
            let mut lines = lines.clone();
            assert!(lines[at].contains(from), "{}", lines[at]);
            lines[at] = lines[at].replacen(from, to, 1);
            check(&lines.join("\n")).unwrap_err()
        };
        assert!(with(1, "\"actor\":\"", "\"actor\":\"x").starts_with("entry 2 was changed"));
        assert!(with(1, "Z\"", "1Z\"").starts_with("entry 2 was changed"));
        assert!(with(2, "\"previous\":\"", "\"previous\":\"0").contains("entry 3 does not follow entry 2"));
        let mut cut = lines.clone();
        cut.remove(1);
        assert_eq!(check(&cut.join("\n")).unwrap_err(), "entry 2 is missing");
        cut.remove(1);
        assert_eq!(check(&cut.join("\n")).unwrap_err(), "entries 2 to 3 are missing");
        let mut swapped = lines.clone();
        swapped.swap(0, 1);
        assert_eq!(check(&swapped.join("\n")).unwrap_err(), "entry 1 stands after entry 2");
        assert!(check("{}").unwrap_err().starts_with("line 1 is no entry of a journal"));
        assert!(check(&EXPORT[..EXPORT.len() - 20]).unwrap_err().contains("is no entry"));
    }

    #[test]
    fn a_forged_signature_is_located() {
        let signed = EXPORT.lines().position(|line| line.contains("journal.signed")).unwrap();
        let line = EXPORT.lines().nth(signed).unwrap();
        let entry: Entry = serde_json::from_str(line).unwrap();
        let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap();
        let hash = bytes(&entry.previous).unwrap();
        let check = |body: &serde_json::Value| signature(&body.to_string(), entry.sequence - 1, &hash);
        assert!(check(&body).is_ok());
        for (name, value, says) in [
            ("sequence", serde_json::json!(7777), "another entry"),
            ("hash", serde_json::json!("00"), "another entry"),
            ("signature", serde_json::json!("AAAA"), "does not fit"),
            ("signature", serde_json::json!("?"), "cannot be read"),
            ("public_key", serde_json::json!("AAAA"), "not on P-256"),
        ] {
            let mut changed = body.clone();
            changed[name] = value;
            assert!(check(&changed).unwrap_err().contains(says), "{name}");
        }
    }
}
