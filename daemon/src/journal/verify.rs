//! Recomputes the chain, page by page.
//!
//! In: pages, each read in one snapshot together with the head. Out: the first number that does not fit.
//! Invariant: entries that are appended meanwhile never make an intact chain look broken, because the head is
//! judged only against the page that reaches the end, from the same snapshot.

use rusqlite::{Connection, OptionalExtension};

use super::{
    chain::{self, Content, GENESIS},
    sign::{self, ROTATED, SIGNED},
};
use crate::identity::hex;

/// What the chain is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Every entry fits, and none is missing at the end.
    pub intact: bool,
    /// How many entries fit, from the first on.
    pub entries: u64,
    /// Hash of the last entry that was recomputed without fault.
    pub head: [u8; 32],
    /// The first number that does not fit; 0 when intact.
    pub broken_at: u64,
    /// What is wrong there, in words; empty when intact.
    pub problem: String,
    /// The first entry that is there; those before were taken off after their time.
    pub from: u64,
    /// The last entry that a signature covers; 0 without any.
    pub signed: u64,
    /// SHA-256 of every public key that signed, in order of appearance.
    pub keys: Vec<String>,
}

/// Entries of one page: what [`page`] reads at once, some milliseconds.
const PAGE: usize = 1024;

pub(super) struct Page {
    /// Number and hash of the last entry that was taken off the beginning.
    start: (i64, Vec<u8>),
    rows: Vec<Row>,
    /// The storage failed after `rows`.
    unreadable: Option<String>,
    /// Number and hash of the last entry as kept apart.
    head: Option<(i64, Vec<u8>)>,
}

struct Row {
    sequence: i64,
    /// Absent if somebody wrote something else than an integer.
    at: Option<i64>,
    kind: Vec<u8>,
    subject: Vec<u8>,
    actor: Vec<u8>,
    body: Vec<u8>,
    hash: Vec<u8>,
}

/// Reads the entries from `from` on and the head, in one snapshot.
pub(super) fn page(db: &Connection, from: i64) -> rusqlite::Result<Page> {
    let snapshot = db.unchecked_transaction()?;
    let head = snapshot
        .query_row("SELECT sequence, hash FROM journal_head", [], |row| {
            Ok((row.get_ref(0)?.as_i64().unwrap_or(-1), chain::bytes(row.get_ref(1)?)))
        })
        .optional()?;
    let start = snapshot
        .query_row("SELECT sequence, hash FROM journal_start", [], |row| {
            Ok((row.get_ref(0)?.as_i64().unwrap_or(0), chain::bytes(row.get_ref(1)?)))
        })
        .optional()?
        .unwrap_or((0, GENESIS.to_vec()));
    let mut page = Page { start, rows: Vec::new(), unreadable: None, head };
    let mut query = snapshot.prepare_cached(
        "SELECT sequence, at, kind, subject, actor, body, hash FROM journal
         WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2",
    )?;
    let mut rows = query.query([from, i64::try_from(PAGE).unwrap_or(i64::MAX)])?;
    loop {
        match rows.next() {
            Ok(Some(row)) => page.rows.push(Row {
                sequence: row.get(0)?,
                at: row.get_ref(1)?.as_i64().ok(),
                kind: chain::bytes(row.get_ref(2)?),
                subject: chain::bytes(row.get_ref(3)?),
                actor: chain::bytes(row.get_ref(4)?),
                body: chain::bytes(row.get_ref(5)?),
                hash: chain::bytes(row.get_ref(6)?),
            }),
            Ok(None) => return Ok(page),
            // A damaged file is a finding about the evidence; what else fails is no finding.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                page.unreadable = Some(error.to_string());
                return Ok(page);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Where the recomputation stands.
pub(super) struct Walk {
    begun: bool,
    last: i64,
    hash: [u8; 32],
    /// What was taken off the beginning, and whether an entry says so.
    start: (i64, [u8; 32]),
    rotated: bool,
    signed: i64,
    keys: Vec<String>,
}

impl Walk {
    pub(super) const fn new() -> Self {
        Self {
            begun: false,
            last: 0,
            hash: GENESIS,
            start: (0, GENESIS),
            rotated: true,
            signed: 0,
            keys: Vec::new(),
        }
    }

    /// The first number of the next page. The first page begins below 1, so that entries before the first are
    /// found as well.
    pub(super) const fn next(&self) -> i64 {
        if self.begun { self.last + 1 } else { i64::MIN }
    }

    /// Takes a page; says the verdict once there is one.
    pub(super) fn take(&mut self, page: Page) -> Option<Verdict> {
        if !self.begun {
            self.begun = true;
            let (sequence, hash) = page.start;
            // A hash of another length fits nothing, which the first entry will show.
            let hash = hash.try_into().unwrap_or([0xff; 32]);
            if sequence > 0 {
                (self.last, self.hash, self.start, self.rotated) = (sequence, hash, (sequence, hash), false);
            }
        }
        let reached_end = page.rows.len() < PAGE;
        for row in page.rows {
            if let Some(problem) = self.step(&row) {
                return Some(self.broken(problem));
            }
        }
        let next = self.last + 1;
        if let Some(error) = page.unreadable {
            return Some(self.broken(format!("the storage cannot be read from entry {next} on: {error}")));
        }
        if !reached_end {
            return None;
        }
        Some(match page.head {
            None => self
                .broken(format!("the head that names the last entry is gone; entry {} was found", self.last)),
            Some((head, _)) if head > self.last => {
                self.broken(format!("entries {next} to {head} are missing: the journal was cut off"))
            }
            Some((head, _)) if head < self.last => {
                self.last = head.max(0);
                self.broken(format!(
                    "the journal should end with entry {head}; what follows was not written here"
                ))
            }
            Some((_, hash)) if hash != self.hash => {
                self.last -= 1;
                let last = self.last + 1;
                self.broken(format!("entry {last} is not the one that the head names"))
            }
            Some(_) if !self.rotated => {
                let gone = self.start.0;
                self.verdict(
                    1,
                    format!("entries 1 to {gone} are missing, and no entry says that they were taken off"),
                )
            }
            Some(_) => self.verdict(0, String::new()),
        })
    }

    /// Says what is wrong with a row; moves on otherwise.
    fn step(&mut self, row: &Row) -> Option<String> {
        let expected = self.last + 1;
        if row.sequence < expected {
            return Some(format!("there is an entry with the number {}, before the first", row.sequence));
        }
        if row.sequence > expected {
            let until = row.sequence - 1;
            return Some(if until == expected {
                format!("entry {expected} is missing")
            } else {
                format!("entries {expected} to {until} are missing")
            });
        }
        let hash = row.at.map(|at| {
            let (kind, subject, actor, body) = (&row.kind, &row.subject, &row.actor, &row.body);
            Content { sequence: expected, at, kind, subject, actor, body }.hash(&self.hash)
        });
        match hash {
            Some(hash) if row.hash == hash => {
                if row.kind == SIGNED.as_bytes() {
                    match sign::check(&row.body, u64::try_from(self.last).unwrap_or(0), &self.hash) {
                        Ok(key) => {
                            self.signed = self.last;
                            if !self.keys.contains(&key) {
                                self.keys.push(key);
                            }
                        }
                        Err(problem) => return Some(format!("entry {expected}: {problem}")),
                    }
                }
                self.rotated |= row.kind == ROTATED.as_bytes() && self.says_start(&row.body);
                self.last = expected;
                self.hash = hash;
                None
            }
            _ => Some(format!(
                "entry {expected} was changed: its hash does not fit its content and the entry before"
            )),
        }
    }

    /// Whether an entry says that what is missing at the beginning was taken off.
    fn says_start(&self, body: &[u8]) -> bool {
        serde_json::from_slice::<serde_json::Value>(body)
            .is_ok_and(|body| body["through"] == self.start.0 && body["hash"] == hex(&self.start.1))
    }

    fn broken(&self, problem: String) -> Verdict {
        self.verdict(u64::try_from(self.last + 1).unwrap_or(1).max(1), problem)
    }

    fn verdict(&self, broken_at: u64, problem: String) -> Verdict {
        Verdict {
            intact: broken_at == 0,
            entries: u64::try_from(self.last - self.start.0).unwrap_or(0),
            head: self.hash,
            broken_at,
            problem,
            from: u64::try_from(self.start.0 + 1).unwrap_or(1),
            signed: u64::try_from(self.signed).unwrap_or(0),
            keys: self.keys.clone(),
        }
    }
}
