//! Limits that outlive a restart. The table holds what is in force, not the history: that is the journal's.

use std::time::Duration;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{Limit, Record, Stage, Step};
use crate::{
    config::Role,
    ids::{LimitId, NodeId},
    store::Migration,
    time::Wall,
    units::Watts,
};

/// The tables of limits in force and of failsafe values that sources chose.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "grid-1",
        sql: "CREATE TABLE grid_limit (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;",
    },
    Migration {
        name: "grid-2",
        sql: "CREATE TABLE grid_failsafe (issuer TEXT PRIMARY KEY, watts INTEGER NOT NULL, seconds INTEGER NOT NULL) STRICT;",
    },
];

#[derive(Serialize, Deserialize)]
struct Row {
    issuer: String,
    role: Role,
    node: NodeId,
    watts: i64,
    #[serde(default)]
    percent: Option<u32>,
    #[serde(default)]
    steps: Vec<Step>,
    valid_from: Wall,
    valid_until: Option<Wall>,
    reason: String,
    received: Wall,
    accepted: Wall,
    #[serde(default)]
    owed: i64,
}

/// Keeps a limit as accepted at `accepted`.
pub fn remember(db: &Connection, record: &Record, accepted: Wall) -> rusqlite::Result<()> {
    let limit = &record.limit;
    let row = Row {
        issuer: limit.issuer.clone(),
        role: limit.role,
        node: limit.node.clone(),
        watts: limit.watts.0,
        percent: limit.percent,
        steps: limit.steps.clone(),
        valid_from: limit.valid_from,
        valid_until: limit.valid_until,
        reason: limit.reason.clone(),
        received: record.received,
        accepted,
        owed: record.owed.0,
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
                percent: row.percent,
                steps: row.steps,
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
            owed: Watts(row.owed),
            step: 0,
        })
    })
    .collect()
}

/// A failsafe value that a source chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failsafe {
    /// The source.
    pub issuer: String,
    /// Power while it is gone.
    pub watts: Watts,
    /// Least time in failsafe.
    pub lasting: Duration,
}

/// Keeps a failsafe value.
pub fn remember_failsafe(db: &Connection, chosen: &Failsafe) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO grid_failsafe (issuer, watts, seconds) VALUES (?1, ?2, ?3)
         ON CONFLICT (issuer) DO UPDATE SET watts = excluded.watts, seconds = excluded.seconds",
        params![chosen.issuer, chosen.watts.0, i64::try_from(chosen.lasting.as_secs()).unwrap_or(i64::MAX)],
    )?;
    Ok(())
}

/// The failsafe values that sources chose before the restart.
pub fn failsafes(db: &Connection) -> rusqlite::Result<Vec<Failsafe>> {
    let mut query = db.prepare("SELECT issuer, watts, seconds FROM grid_failsafe ORDER BY issuer")?;
    let rows = query.query_map([], |row| {
        Ok(Failsafe {
            issuer: row.get(0)?,
            watts: Watts(row.get(1)?),
            lasting: Duration::from_secs(u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0)),
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(db: &Connection) {
        for migration in MIGRATIONS {
            db.execute_batch(migration.sql).unwrap();
        }
    }

    #[test]
    fn a_failsafe_value_outlives_a_restart() {
        let db = Connection::open_in_memory().unwrap();
        tables(&db);
        let chosen = |watts| Failsafe {
            issuer: "cert:dso".into(),
            watts: Watts(watts),
            lasting: Duration::from_secs(10_800),
        };
        remember_failsafe(&db, &chosen(1)).unwrap();
        remember_failsafe(&db, &chosen(6_000)).unwrap();
        assert_eq!(failsafes(&db).unwrap(), [chosen(6_000)]);
    }

    #[test]
    fn a_limit_comes_back_as_it_was() {
        let db = Connection::open_in_memory().unwrap();
        tables(&db);
        let record = Record {
            limit: Limit {
                id: LimitId::new("a"),
                issuer: "uid:0".into(),
                role: Role::Grid,
                node: NodeId::new("main"),
                watts: Watts(0),
                percent: Some(0),
                steps: vec![Step { from: Wall(3), watts: Watts(7) }],
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
            owed: Watts(4_200),
            step: 0,
        };
        remember(&db, &record, Wall(2)).unwrap();
        remember(&db, &record, Wall(2)).unwrap();
        assert_eq!(kept(&db).unwrap(), [record]);
        forget(&db, &LimitId::new("a")).unwrap();
        assert!(kept(&db).unwrap().is_empty());
    }
}
