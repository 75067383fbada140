//! The hash of one entry; see the room's documentation for its byte form.

use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

/// What `hash(0)` is.
pub(super) const GENESIS: [u8; 32] = [0; 32];

/// Keeps these hashes apart from all others, and a later form apart from this one.
const DOMAIN: &[u8] = b"ladewart.journal.1\0";

/// What is hashed of an entry.
pub(super) struct Content<'a> {
    pub(super) sequence: i64,
    pub(super) at: i64,
    pub(super) kind: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) actor: &'a [u8],
    pub(super) body: &'a [u8],
}

impl Content<'_> {
    /// Binds the entry to the one before it.
    pub(super) fn hash(&self, previous: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(previous);
        hash.update(self.sequence.to_be_bytes());
        hash.update(self.at.to_be_bytes());
        for text in [self.kind, self.subject, self.actor, self.body] {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }
}

/// The bytes of a value, whatever its type is: a changed type must not stop the reading.
pub(super) fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
        ValueRef::Null => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed apart, with Python's `hashlib` and `struct`.
    #[test]
    fn the_byte_form_stays_as_documented() {
        let content = Content {
            sequence: 1,
            at: 1_795_000_000_123,
            kind: b"limit.accepted",
            subject: b"l1",
            actor: b"uid:0",
            body: br#"{"watts":10000}"#,
        };
        let hex = content.hash(&GENESIS).iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
        assert_eq!(hex, "d27b219b5aab28cc67c10df3496d06186b5d7c835ff23e868b98c1fe961c7319");
    }

    #[test]
    fn moving_a_byte_from_one_field_to_the_next_changes_the_hash() {
        let content = |kind, subject| Content { sequence: 1, at: 0, kind, subject, actor: b"", body: b"{}" };
        assert_ne!(content(b"ab", b"c").hash(&GENESIS), content(b"a", b"bc").hash(&GENESIS));
    }
}
