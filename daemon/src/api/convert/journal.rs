//! The evidence.

use std::fmt::Write;

use ladewart_proto::v1;
use tonic::Status;

use super::{invalid, timestamp};
use crate::journal::Stored;

/// Lower-case hexadecimal.
pub(in crate::api) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One entry.
pub(in crate::api) fn entry(stored: Stored) -> v1::JournalEntry {
    v1::JournalEntry {
        sequence: stored.sequence,
        at: Some(timestamp(stored.at)),
        kind: stored.kind,
        subject: stored.subject,
        actor: stored.actor,
        body: stored.body,
        hash: hex(&stored.hash),
        previous: hex(&stored.previous),
    }
}

/// A kind or the beginning of kinds.
pub(in crate::api) fn kind(text: String) -> Result<String, Status> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.len() > 64 || !text.bytes().all(fits) {
        return Err(invalid("kind", r#"is not a kind of entry; write it like "limit.accepted" or "limit.""#));
    }
    Ok(text)
}
