//! Limits that outlive a restart. The table holds what is in force, not the history: that is the journal's.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{Limit, Record, Stage};
use crate::{
    config::Role,
    ids::{LimitId, NodeId},
    store::Migration,
    time::Wall,
    units::Watts,
};

/// The table of limits in force.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "grid-1",
    sql: "CREATE TABLE grid_limit (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;",
}];

#[derive(Serialize, Deserialize)]
struct Row {
    issuer: String,
    role: Role,
    node: NodeId,
    watts: i64,
    valid_from: Wall,
    valid_until: Option<Wall>,
    reason: String,
    received: Wall,
    accepted: Wall,
}

/// Keeps a limit as accepted at `accepted`.
pub fn remember(db: &Connection, record: &Record, accepted: Wall) -> rusqlite::Result<()> {
    let limit = &record.limit;
    let row = Row {
        issuer: limit.issuer.clone(),
        role: limit.role,
        node: limit.node.clone(),
        watts: limit.watts.0,
        valid_from: limit.valid_from,
        valid_until: limit.valid_until,
        reason: limit.reason.clone(),
        received: record.received,
        accepted,
    };
    let text =
        serde_json::to_string(&row).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    db.execute(
        "INSERT INTO grid_limit (id, record) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
        params![limit.id.as_str(), text],
    )?;
    Ok(())
}

/// Drops an ended limit.
pub fn forget(db: &Connection, id: &LimitId) -> rusqlite::Result<()> {
    db.execute("DELETE FROM grid_limit WHERE id = ?1", [id.as_str()])?;
    Ok(())
}

/// What was in force before the restart, stage `accepted`. A row that cannot be read is an error: forgetting a
/// limit silently is not an option.
pub fn kept(db: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut query = db.prepare("SELECT id, record FROM grid_limit ORDER BY id")?;
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (id, text) = row?;
        let row: Row = serde_json::from_str(&text).map_err(|e| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e))
        })?;
        Ok(Record {
            limit: Limit {
                id: LimitId::new(&id),
                issuer: row.issuer,
                role: row.role,
                node: row.node,
                watts: Watts(row.watts),
                valid_from: row.valid_from,
                valid_until: row.valid_until,
                reason: row.reason,
            },
            stage: Stage::Accepted,
            received: row.received,
            accepted: Some(row.accepted),
            applied: None,
            effective: None,
            ended: None,
            measured: None,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_comes_back_as_it_was() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(MIGRATIONS[0].sql).unwrap();
        let record = Record {
            limit: Limit {
                id: LimitId::new("a"),
                issuer: "uid:0".into(),
                role: Role::Grid,
                node: NodeId::new("main"),
                watts: Watts(0),
                valid_from: Wall(1),
                valid_until: Some(Wall(9)),
                reason: "why".into(),
            },
            stage: Stage::Accepted,
            received: Wall(1),
            accepted: Some(Wall(2)),
            applied: None,
            effective: None,
            ended: None,
            measured: None,
        };
        remember(&db, &record, Wall(2)).unwrap();
        remember(&db, &record, Wall(2)).unwrap();
        assert_eq!(kept(&db).unwrap(), [record]);
        forget(&db, &LimitId::new("a")).unwrap();
        assert!(kept(&db).unwrap().is_empty());
    }
}
