//! The evidence: an append-only record in which every entry is bound to the one before it.
//!
//! In: [`Entry`]s from the loop. Out: pages of [`Stored`] entries, and a [`Verdict`] on the whole chain.
//!
//! Invariant: entries are numbered 1, 2, 3, … in the order in which they were handed in. The number gives the
//! order, not the time: `at` is the wall clock as it was, and the wall clock may jump. An entry whose receiver
//! said `Ok` survives a power cut.
//!
//! # The chain
//!
//! ```text
//! hash(0) = 32 zero bytes
//! hash(n) = SHA-256( "ladewart.journal.1" ‖ 0x00 ‖ hash(n-1) ‖ u64(n) ‖ i64(at)
//!                    ‖ text(kind) ‖ text(subject) ‖ text(actor) ‖ text(body) )
//! text(x) = u64(number of bytes of x) ‖ x in UTF-8
//! ```
//!
//! Integers are big-endian; `at` counts milliseconds since 1970-01-01T00:00Z; the body is the stored JSON text,
//! byte for byte. The lengths keep two different entries from giving the same bytes.
//!
//! The number and hash of the last entry are kept once more as the *head*, written in the same transaction, so
//! that a tail that was cut off is noticed. From time to time an entry signs the one before it with the device's key
//! ([`Signer`]); after their time entries are taken off the beginning, and an entry says so. Whoever can write the
//! database and has the key can forge the whole chain; against that helps only a head or a signature that was kept
//! elsewhere, e.g. from an earlier `journal verify`.

mod chain;
mod keep;
mod sign;
mod verify;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

pub use self::{keep::keep, sign::Signer, verify::Verdict};
use crate::{
    store::{Migration, Store, StoreError},
    time::Wall,
};

/// The tables of this room.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "journal-1",
        sql: "CREATE TABLE journal (
              sequence INTEGER PRIMARY KEY,
              at INTEGER NOT NULL,
              kind TEXT NOT NULL,
              subject TEXT NOT NULL,
              actor TEXT NOT NULL,
              body TEXT NOT NULL,
              hash BLOB NOT NULL
          ) STRICT;
          CREATE TABLE journal_head (
              one INTEGER PRIMARY KEY CHECK (one = 1),
              sequence INTEGER NOT NULL,
              hash BLOB NOT NULL
          ) STRICT;
          INSERT INTO journal_head (one, sequence, hash) VALUES (1, 0, zeroblob(32));",
    },
    Migration {
        name: "journal-2",
        sql: "CREATE TABLE journal_start (
              one INTEGER PRIMARY KEY CHECK (one = 1),
              sequence INTEGER NOT NULL,
              hash BLOB NOT NULL
          ) STRICT;
          INSERT INTO journal_start (one, sequence, hash) VALUES (1, 0, zeroblob(32));
          CREATE INDEX journal_subject ON journal (subject);",
    },
];

/// Something to record.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it happened, by the wall clock.
    pub at: Wall,
    /// What happened: words joined by dots, e.g. `"limit.accepted"`.
    pub kind: String,
    /// What it is about: an EVSE, a limit, a meter.
    pub subject: String,
    /// Who caused it.
    pub actor: String,
    /// The particulars, a JSON object. Anything else is stored as the member `value` of one.
    pub body: serde_json::Value,
}

/// A recorded entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number, from 1.
    pub sequence: u64,
    /// [`Entry::at`].
    pub at: Wall,
    /// [`Entry::kind`].
    pub kind: String,
    /// [`Entry::subject`].
    pub subject: String,
    /// [`Entry::actor`].
    pub actor: String,
    /// The JSON text, exactly as hashed.
    pub body: String,
    /// Its hash; 32 bytes unless somebody changed it.
    pub hash: Vec<u8>,
    /// The hash of the entry before it; empty if that is missing.
    pub previous: Vec<u8>,
}

/// The record. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    store: Store,
}

/// How many numbers one read of [`Journal::page`] covers at most: bounds how long it holds the reader.
const SPAN: i64 = 4096;

impl Journal {
    /// The record in this store, which was opened with [`MIGRATIONS`].
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Hands in entries, all or none; their order is kept. Does not wait: the receiver gets the result after the
    /// sync. A receiver whose sender is gone means that nothing was stored.
    #[expect(
        clippy::must_use_candidate,
        reason = "the entries are handed in, whether the result is awaited or not"
    )]
    pub fn append(&self, entries: Vec<Entry>) -> oneshot::Receiver<Result<(), StoreError>> {
        self.store.submit(move |db| append(db, &entries))
    }

    /// At most `limit` entries from number `from` to number `to`, in order. `to` 0 means the last there is. An
    /// empty `kind` takes every kind, one with a dot at its end all that begin so.
    pub async fn page(
        &self,
        from: u64,
        to: u64,
        kind: &str,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        self.page_of(from, to, kind, "", limit).await
    }

    /// The same of one subject only; an empty `subject` takes every one.
    pub async fn page_of(
        &self,
        from: u64,
        to: u64,
        kind: &str,
        subject: &str,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut next = i64::try_from(from).unwrap_or(i64::MAX);
        let last = if to == 0 { i64::MAX } else { i64::try_from(to).unwrap_or(i64::MAX) };
        let mut found = Vec::new();
        while found.len() < limit {
            let (kind, subject, wanted) = (kind.to_owned(), subject.to_owned(), limit - found.len());
            match self.store.read(move |db| span(db, next, last, &kind, &subject, wanted)).await? {
                Span { rows, resume: Some(resume) } => {
                    found.extend(rows);
                    next = resume;
                }
                Span { rows, resume: None } => {
                    found.extend(rows);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Signs the last entry, unless that is a signature itself. Says whether it did.
    pub async fn sign(&self, signer: &Signer, at: Wall) -> Result<bool, StoreError> {
        let signer = signer.clone();
        self.store.write(move |db| sign(db, &signer, at)).await
    }

    /// Takes off what is older, some thousand entries at a time; an entry says so. Gives how many. An entry that is not
    /// older keeps all that follow it.
    pub async fn rotate(&self, before: Wall, at: Wall) -> Result<u64, StoreError> {
        self.store.write(move |db| rotate(db, before, at)).await
    }

    /// Size of the database in bytes.
    pub async fn size(&self) -> Result<u64, StoreError> {
        let pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let size = self.store.read(|db| db.query_row(pages, [], |row| row.get::<_, i64>(0))).await?;
        Ok(u64::try_from(size).unwrap_or(0))
    }

    /// Recomputes the chain. Reads in pages, so that nobody else waits for long.
    pub async fn verify(&self) -> Result<Verdict, StoreError> {
        let mut walk = verify::Walk::new();
        loop {
            let from = walk.next();
            let page = self.store.read(move |db| verify::page(db, from)).await?;
            if let Some(verdict) = walk.take(page) {
                return Ok(verdict);
            }
        }
    }
}

fn append(db: &Connection, entries: &[Entry]) -> rusqlite::Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let head: Option<(i64, Vec<u8>)> = db
        .query_row("SELECT sequence, hash FROM journal_head", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    // Going on from whatever is there would hide what was taken away.
    let (mut sequence, mut hash) = head.ok_or_else(|| damaged("the head of the journal is gone"))?;
    let mut insert = db.prepare_cached(
        "INSERT INTO journal (sequence, at, kind, subject, actor, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for entry in entries {
        sequence = sequence.checked_add(1).ok_or_else(|| damaged("the journal's numbers are used up"))?;
        let body = match &entry.body {
            serde_json::Value::Object(_) => entry.body.to_string(),
            other => serde_json::json!({ "value": other }).to_string(),
        };
        let content = chain::Content {
            sequence,
            at: entry.at.0,
            kind: entry.kind.as_bytes(),
            subject: entry.subject.as_bytes(),
            actor: entry.actor.as_bytes(),
            body: body.as_bytes(),
        };
        hash = content.hash(&hash).to_vec();
        insert.execute(params![sequence, entry.at.0, entry.kind, entry.subject, entry.actor, body, hash])?;
    }
    db.execute("UPDATE journal_head SET sequence = ?1, hash = ?2", params![sequence, hash])?;
    Ok(())
}

fn sign(db: &Connection, signer: &Signer, at: Wall) -> rusqlite::Result<bool> {
    let (sequence, hash): (i64, Vec<u8>) =
        db.query_row("SELECT sequence, hash FROM journal_head", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let last: Option<String> = db
        .query_row("SELECT kind FROM journal WHERE sequence = ?1", [sequence], |row| row.get(0))
        .optional()?;
    if last.is_none_or(|kind| kind == sign::SIGNED) {
        return Ok(false);
    }
    let body = signer.body(u64::try_from(sequence).unwrap_or(0), &hash).map_err(|why| damaged(&why))?;
    let entry = Entry {
        at,
        kind: sign::SIGNED.to_owned(),
        subject: "journal".to_owned(),
        actor: String::new(),
        body,
    };
    append(db, &[entry])?;
    Ok(true)
}

/// Takes off at most [`SPAN`] entries from the beginning, up to the first that is not older.
fn rotate(db: &Connection, before: Wall, at: Wall) -> rusqlite::Result<u64> {
    let start: i64 = db.query_row("SELECT sequence FROM journal_start", [], |row| row.get(0))?;
    let end: i64 = db.query_row("SELECT sequence FROM journal_head", [], |row| row.get(0))?;
    let recent: Option<i64> = db
        .query_row(
            "SELECT sequence FROM journal WHERE sequence > ?1 AND at >= ?2 ORDER BY sequence LIMIT 1",
            params![start, before.0],
            |row| row.get(0),
        )
        .optional()?;
    let through = (recent.unwrap_or(end) - 1).min(start.saturating_add(SPAN));
    if through <= start {
        return Ok(0);
    }
    let hash: Vec<u8> =
        db.query_row("SELECT hash FROM journal WHERE sequence = ?1", [through], |row| row.get(0))?;
    let body =
        serde_json::json!({ "from": start + 1, "through": through, "hash": crate::identity::hex(&hash) });
    let entry = Entry {
        at,
        kind: sign::ROTATED.to_owned(),
        subject: "journal".to_owned(),
        actor: String::new(),
        body,
    };
    append(db, &[entry])?;
    db.execute("DELETE FROM journal WHERE sequence <= ?1", [through])?;
    db.execute("UPDATE journal_start SET sequence = ?1, hash = ?2", params![through, hash])?;
    Ok(u64::try_from(through - start).unwrap_or(0))
}

fn damaged(what: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(what.to_owned()))
}

/// What is read of an entry, with the hash that its own is bound to.
const COLUMNS: &str = "SELECT sequence, at, kind, subject, actor, body, hash, coalesce(
        (SELECT p.hash FROM journal AS p WHERE p.sequence = journal.sequence - 1),
        (SELECT s.hash FROM journal_start AS s WHERE s.sequence = journal.sequence - 1), x'') FROM journal";
const KIND: &str = "(?3 = '' OR kind = ?3 OR (substr(?3, -1) = '.' AND substr(kind, 1, length(?3)) = ?3))";

struct Span {
    rows: Vec<Stored>,
    /// Where to go on; absent at the end.
    resume: Option<i64>,
}

/// The matching entries among the next [`SPAN`] numbers that are in use.
fn span(
    db: &Connection,
    from: i64,
    to: i64,
    kind: &str,
    subject: &str,
    limit: usize,
) -> rusqlite::Result<Span> {
    let limit_sql = i64::try_from(limit).unwrap_or(i64::MAX);
    if !subject.is_empty() {
        // By its index: a subject has few entries among many.
        let mut query = db.prepare_cached(&format!(
            "{COLUMNS} WHERE subject = ?5 AND sequence BETWEEN ?1 AND ?2 AND {KIND} ORDER BY sequence LIMIT ?4"
        ))?;
        let rows = query.query_map(params![from, to, kind, limit_sql, subject], stored)?;
        return Ok(Span { rows: rows.collect::<Result<_, _>>()?, resume: None });
    }
    let start: Option<i64> =
        db.query_row("SELECT min(sequence) FROM journal WHERE sequence >= ?1", [from], |row| row.get(0))?;
    let Some(start) = start.filter(|start| *start <= to) else {
        return Ok(Span { rows: Vec::new(), resume: None });
    };
    let end = start.saturating_add(SPAN - 1).min(to);
    let mut query = db.prepare_cached(&format!(
        "{COLUMNS} WHERE sequence BETWEEN ?1 AND ?2 AND {KIND} ORDER BY sequence LIMIT ?4"
    ))?;
    let rows =
        query.query_map(params![start, end, kind, limit_sql], stored)?.collect::<Result<Vec<_>, _>>()?;
    let full = rows.len() >= limit;
    Ok(Span { rows, resume: (end < to && !full).then(|| end.saturating_add(1)) })
}

/// Shows what is there, even where somebody wrote something else than text.
fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    let text = |index| -> rusqlite::Result<String> {
        Ok(String::from_utf8_lossy(&chain::bytes(row.get_ref(index)?)).into_owned())
    };
    Ok(Stored {
        sequence: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
        at: Wall(row.get_ref(1)?.as_i64().unwrap_or(0)),
        kind: text(2)?,
        subject: text(3)?,
        actor: text(4)?,
        body: text(5)?,
        hash: chain::bytes(row.get_ref(6)?),
        previous: chain::bytes(row.get_ref(7)?),
    })
}

#[cfg(test)]
mod tests;
