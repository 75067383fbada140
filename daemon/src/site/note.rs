//! What a change of the facts leaves for the evidence.

use std::fmt::Display;

use serde_json::{Value, json};

/// One thing worth keeping; `control` adds the time and hands it to the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// `"evse.connected"`.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// Who caused it; empty for the site itself.
    pub actor: String,
    /// Particulars, an object.
    pub body: Value,
}

impl Note {
    /// A note by the site itself.
    #[must_use]
    pub fn new(kind: &str, subject: &impl Display, body: Value) -> Self {
        Self { kind: kind.to_owned(), subject: subject.to_string(), actor: String::new(), body }
    }

    /// A note without particulars.
    #[must_use]
    pub fn bare(kind: &str, subject: &impl Display) -> Self {
        Self::new(kind, subject, json!({}))
    }
}
