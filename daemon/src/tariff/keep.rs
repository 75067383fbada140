//! Announcements that outlive a restart. The table holds what is known, not the history: that is the journal's.

use rusqlite::{Connection, params};

use super::{Announcement, Book};
use crate::store::Migration;

/// The table of announcements.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "tariff-1",
    sql: "CREATE TABLE tariff (
              issuer TEXT NOT NULL,
              id TEXT NOT NULL,
              sequence INTEGER NOT NULL,
              body TEXT,
              PRIMARY KEY (issuer, id)
          ) STRICT;",
}];

/// Keeps an announcement; without a body it is known as withdrawn.
fn put(db: &Connection, issuer: &str, id: &str, sequence: u64, body: Option<&str>) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO tariff (issuer, id, sequence, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (issuer, id) DO UPDATE SET sequence = excluded.sequence, body = excluded.body",
        params![issuer, id, i64::try_from(sequence).unwrap_or(i64::MAX), body],
    )?;
    Ok(())
}

/// Keeps an announcement.
pub fn remember(db: &Connection, new: &Announcement) -> rusqlite::Result<()> {
    let body =
        serde_json::to_string(new).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    put(db, &new.issuer, &new.id, new.sequence, Some(&body))
}

/// Keeps that it is withdrawn.
pub fn withdrawn(db: &Connection, gone: &Announcement) -> rusqlite::Result<()> {
    put(db, &gone.issuer, &gone.id, gone.sequence, None)
}

/// Drops one that is over.
pub fn forget(db: &Connection, over: &Announcement) -> rusqlite::Result<()> {
    db.execute("DELETE FROM tariff WHERE issuer = ?1 AND id = ?2", [&over.issuer, &over.id])?;
    Ok(())
}

/// What was known before the restart. An announcement that cannot be read any more is left out, with a word in the
/// log: the schedule holds in its place.
pub fn kept(db: &Connection) -> rusqlite::Result<Book> {
    let mut query = db.prepare("SELECT issuer, id, sequence, body FROM tariff ORDER BY issuer, id")?;
    let rows = query.query_map([], |row| {
        let sequence = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, sequence, row.get::<_, Option<String>>(3)?))
    })?;
    let (mut known, mut gone) = (Vec::new(), Vec::new());
    for row in rows {
        let (issuer, id, sequence, body) = row?;
        match body.as_deref().map(serde_json::from_str::<Announcement>) {
            Some(Ok(announcement)) => known.push(announcement),
            Some(Err(error)) => tracing::error!(id, issuer, %error, "a tariff announcement cannot be read"),
            None => gone.push((issuer, id, sequence)),
        }
    }
    Ok(Book::with(known, gone))
}
