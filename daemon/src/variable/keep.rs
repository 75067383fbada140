//! Settings that outlive a restart.

use rusqlite::{Connection, params};

use super::Setting;
use crate::{config::Role, store::Migration, time::Wall};

/// The table of settings.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "variable-1",
    sql: "CREATE TABLE variable (
              name TEXT PRIMARY KEY,
              value REAL NOT NULL,
              issuer TEXT NOT NULL,
              role TEXT NOT NULL,
              set_at INTEGER NOT NULL,
              valid_until INTEGER
          ) STRICT;",
}];

/// Keeps a setting.
pub fn remember(db: &Connection, name: &str, setting: &Setting) -> rusqlite::Result<()> {
    db.execute(
        "INSERT OR REPLACE INTO variable (name, value, issuer, role, set_at, valid_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            name,
            setting.value,
            setting.issuer,
            setting.role.name(),
            setting.set_at.0,
            setting.valid_until.map(|at| at.0)
        ],
    )?;
    Ok(())
}

/// Drops a setting.
pub fn forget(db: &Connection, name: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM variable WHERE name = ?1", [name])?;
    Ok(())
}

/// What was set before the restart.
pub fn kept(db: &Connection) -> rusqlite::Result<Vec<(String, Setting)>> {
    let mut query =
        db.prepare("SELECT name, value, issuer, role, set_at, valid_until FROM variable ORDER BY name")?;
    let rows = query.query_map([], |row| {
        let role: String = row.get(3)?;
        let roles = [Role::Viewer, Role::Installer, Role::Grid, Role::Supplier, Role::Admin];
        Ok((
            row.get(0)?,
            Setting {
                value: row.get(1)?,
                issuer: row.get(2)?,
                role: roles.into_iter().find(|r| r.name() == role).unwrap_or(Role::Viewer),
                set_at: Wall(row.get(4)?),
                valid_until: row.get::<_, Option<i64>>(5)?.map(Wall),
            },
        ))
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_comes_back_as_it_was() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(MIGRATIONS[0].sql).unwrap();
        let setting = Setting {
            value: 62.5,
            issuer: "uid:7".into(),
            role: Role::Grid,
            set_at: Wall(1),
            valid_until: Some(Wall(9)),
        };
        remember(&db, "AVAIL", &setting).unwrap();
        remember(&db, "AVAIL", &setting).unwrap();
        assert_eq!(kept(&db).unwrap(), [("AVAIL".to_owned(), setting)]);
        forget(&db, "AVAIL").unwrap();
        assert!(kept(&db).unwrap().is_empty());
    }
}
