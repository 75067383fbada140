//! What is billed, and what the backend refused: kept for people.
//!
//! In: transactions as the routes know them. Out: pages of [`Session`]s and [`DeadLetter`]s. Invariant: a session is
//! written in the same commit as the message that makes it, and outlives everything that the route forgets; its
//! energy is the difference of two registers or nothing.

use rusqlite::{Connection, Row, params};

use super::queue::Transaction;
use crate::{
    ids::Identity,
    store::{Migration, Store, StoreError},
    time::Wall,
};

/// The tables of this room.
pub(super) const MIGRATION: Migration = Migration {
    name: "ocpp-ledger-1",
    sql: "
CREATE TABLE ocpp_session (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL,
    key TEXT NOT NULL,
    id TEXT NOT NULL,
    tx INTEGER,
    backend_id TEXT,
    connector INTEGER NOT NULL,
    id_tag TEXT NOT NULL,
    started INTEGER NOT NULL,
    meter_start INTEGER,
    stopped INTEGER,
    meter_stop INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    local INTEGER NOT NULL DEFAULT 0,
    UNIQUE (identity, key)
) STRICT;
CREATE INDEX ocpp_message_tx ON ocpp_message (identity, tx);
ALTER TABLE ocpp_message ADD COLUMN died INTEGER;
",
};

/// How many sessions are kept; the oldest go first.
pub(crate) const MOST: i64 = 500_000;

/// Whether a transaction is at the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// There was no backend to tell.
    Local,
    /// Some of its messages wait.
    Waiting,
    /// The backend has all of it so far.
    Delivered,
    /// The backend refused some of it for good.
    Refused,
}

/// A transaction as it is billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its place in the list; rises, is never used twice.
    pub number: i64,
    /// The EVSE's OCPP identity.
    pub identity: String,
    /// The id that the EVSE began it with.
    pub id: String,
    /// The id that the backend gave.
    pub backend_id: Option<String>,
    /// Connector.
    pub connector: i64,
    /// Who.
    pub id_tag: String,
    /// By the EVSE's clock.
    pub started: Wall,
    /// Register in Wh; unknown if its beginning was not seen.
    pub meter_start: Option<i64>,
    /// By the EVSE's clock; absent while it runs.
    pub stopped: Option<Wall>,
    /// Register in Wh.
    pub meter_stop: Option<i64>,
    /// OCPP 1.6 §7.36 Reason; `Local` if the EVSE did not say.
    pub reason: String,
    /// Whether the backend knows.
    pub delivery: Delivery,
}

impl Session {
    /// The difference of the registers in Wh; absent unless both are known and the second is not less.
    #[must_use]
    pub fn energy(&self) -> Option<i64> {
        let energy = self.meter_stop?.checked_sub(self.meter_start?)?;
        (energy >= 0).then_some(energy)
    }
}

/// A message that the backend refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The EVSE's OCPP identity.
    pub identity: String,
    /// Its place in the order of this EVSE.
    pub seq: i64,
    /// As the EVSE sent it.
    pub frame: String,
    /// The backend's last word.
    pub why: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was given up.
    pub died: Option<Wall>,
}

/// Which sessions.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of this identity.
    pub identity: Option<String>,
    /// Begun at or after.
    pub from: Option<Wall>,
    /// Begun before.
    pub to: Option<Wall>,
    /// Only those that run.
    pub running: bool,
}

/// Reads the ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger(Store);

impl Ledger {
    /// Of this database, opened with [`super::MIGRATIONS`].
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// A page of sessions after the one with this number (before it, with `newest_first`).
    pub async fn sessions(
        &self,
        filter: Filter,
        after: Option<i64>,
        newest_first: bool,
        most: usize,
    ) -> Result<Vec<Session>, StoreError> {
        self.0.read(move |db| sessions(db, &filter, after, newest_first, most)).await
    }

    /// Messages that were given up, all or those of one identity, by identity and order.
    pub async fn dead_letters(
        &self,
        identity: Option<String>,
        most: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.0.read(move |db| dead_letters(db, identity.as_deref(), most)).await
    }
}

/// Keeps what is known of a transaction.
pub(super) fn note(db: &Connection, identity: &Identity, t: &Transaction) -> rusqlite::Result<()> {
    // 2.x: the id is a text of the EVSE's, the same on both sides, and the first event need not tell a register.
    let name = Some(t.sameness.as_str()).filter(|name| t.message_id.is_empty() && !name.is_empty());
    let seen = !t.sameness.is_empty() && (name.is_none() || t.meter_start != 0);
    let end = t.end.as_ref();
    db.prepare_cached(
        "INSERT INTO ocpp_session (identity, key, id, tx, backend_id, connector, id_tag, started, meter_start, stopped,
             meter_stop, reason, local)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (identity, key) DO UPDATE SET backend_id = coalesce(excluded.backend_id, backend_id),
             stopped = coalesce(excluded.stopped, stopped), meter_stop = coalesce(excluded.meter_stop, meter_stop),
             reason = CASE excluded.reason WHEN '' THEN reason ELSE excluded.reason END",
    )?
    .execute(params![
        identity.as_str(),
        format!("{}@{}", t.id, t.started.0),
        name.map_or_else(|| t.id.to_string(), str::to_owned),
        t.id,
        name.map(str::to_owned).filter(|_| !t.local).or_else(|| t.backend_id.map(|id| id.to_string())),
        t.connector,
        t.id_tag,
        t.started.0,
        seen.then_some(t.meter_start),
        end.map(|end| end.at.0),
        end.and_then(|end| end.meter),
        end.map_or("", |end| &end.reason),
        t.local,
    ])?;
    let newest = db.last_insert_rowid();
    db.prepare_cached("DELETE FROM ocpp_session WHERE number <= ?1")?.execute([newest - MOST])?;
    Ok(())
}

const DELIVERY: &str = "
    CASE
    WHEN EXISTS (SELECT 1 FROM ocpp_message m WHERE m.identity = s.identity AND m.tx = s.tx AND m.state = 'dead')
        THEN 'refused'
    WHEN EXISTS (SELECT 1 FROM ocpp_message m
                 WHERE m.identity = s.identity AND m.tx = s.tx AND m.state IN ('waiting', 'sent')) THEN 'waiting'
    WHEN s.local THEN 'local'
    ELSE 'delivered' END";

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let delivery = match row.get::<_, String>(11)?.as_str() {
        "refused" => Delivery::Refused,
        "waiting" => Delivery::Waiting,
        "delivered" => Delivery::Delivered,
        _ => Delivery::Local,
    };
    Ok(Session {
        number: row.get(0)?,
        identity: row.get(1)?,
        id: row.get(2)?,
        backend_id: row.get(3)?,
        connector: row.get(4)?,
        id_tag: row.get(5)?,
        started: Wall(row.get(6)?),
        meter_start: row.get(7)?,
        stopped: row.get::<_, Option<i64>>(8)?.map(Wall),
        meter_stop: row.get(9)?,
        reason: row.get(10)?,
        delivery,
    })
}

fn sessions(
    db: &Connection,
    filter: &Filter,
    after: Option<i64>,
    newest_first: bool,
    most: usize,
) -> rusqlite::Result<Vec<Session>> {
    let (sign, order, start) = if newest_first { ("<", "DESC", i64::MAX) } else { (">", "ASC", 0) };
    let sql = format!(
        "SELECT number, identity, id, backend_id, connector, id_tag, started, meter_start, stopped, meter_stop, reason,
             {DELIVERY}
         FROM ocpp_session s
         WHERE number {sign} ?1 AND (?2 IS NULL OR identity = ?2) AND started >= ?3 AND started < ?4
             AND (NOT ?5 OR stopped IS NULL)
         ORDER BY number {order} LIMIT ?6"
    );
    db.prepare_cached(&sql)?
        .query_map(
            params![
                after.unwrap_or(start),
                filter.identity,
                filter.from.map_or(i64::MIN, |at| at.0),
                filter.to.map_or(i64::MAX, |at| at.0),
                filter.running,
                i64::try_from(most).unwrap_or(i64::MAX),
            ],
            session,
        )?
        .collect()
}

fn dead_letters(db: &Connection, identity: Option<&str>, most: usize) -> rusqlite::Result<Vec<DeadLetter>> {
    db.prepare_cached(
        "SELECT identity, seq, frame, why, attempts, died FROM ocpp_message
         WHERE state = 'dead' AND (?1 IS NULL OR identity = ?1) ORDER BY identity, seq LIMIT ?2",
    )?
    .query_map(params![identity, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        Ok(DeadLetter {
            identity: row.get(0)?,
            seq: row.get(1)?,
            frame: row.get(2)?,
            why: row.get(3)?,
            attempts: row.get(4)?,
            died: row.get::<_, Option<i64>>(5)?.map(Wall),
        })
    })?
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::queue::{self, End, Message, Op},
        *,
    };
    use crate::ocpp::table::Kind;

    fn db() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        for step in queue::MIGRATIONS {
            db.execute_batch(step.sql).unwrap();
        }
        db
    }

    fn transaction(id: i64) -> Transaction {
        Transaction {
            id,
            backend_id: None,
            told: true,
            dead: false,
            ended: false,
            connector: 1,
            id_tag: "Ada".into(),
            started: Wall(id),
            meter_start: 100,
            sameness: "s".into(),
            message_id: "m".into(),
            local: false,
            end: None,
        }
    }

    #[test]
    fn a_session_outlives_what_the_route_forgets_and_tells_where_it_is() {
        let (db, me) = (db(), Identity::new("A"));
        let run = |op: Op| queue::apply(&db, &me, &op).unwrap();
        let all = || sessions(&db, &Filter::default(), None, false, 10).unwrap();
        let message = Message {
            seq: 1,
            kind: Kind::Start,
            version: crate::ocpp::Version::default(),
            frame: "f".into(),
            tx: Some(7),
            sent: false,
            attempts: 0,
            digest: 0,
        };
        run(Op::Append(message));
        run(Op::Transaction(Box::new(transaction(7))));
        assert_eq!((all()[0].delivery, all()[0].energy(), all()[0].stopped), (Delivery::Waiting, None, None));
        run(Op::Done(1));
        let end = End { at: Wall(9), meter: Some(2600), reason: "Local".into() };
        run(Op::Transaction(Box::new(Transaction {
            backend_id: Some(41),
            ended: true,
            end: Some(end),
            ..transaction(7)
        })));
        // Loaded from the map of a later process, the end is not known any more; it stays on record.
        run(Op::Transaction(Box::new(Transaction { backend_id: Some(41), ended: true, ..transaction(7) })));
        run(Op::Forget(7));
        let session = all().remove(0);
        assert_eq!(session.delivery, Delivery::Delivered);
        assert_eq!((session.energy(), session.reason.as_str()), (Some(2500), "Local"));
        assert_eq!((session.id_tag.as_str(), session.backend_id.as_deref()), ("Ada", Some("41")));
        run(Op::Transaction(Box::new(Transaction { local: true, ..transaction(8) })));
        assert_eq!(all()[1].delivery, Delivery::Local);
        let newest = sessions(&db, &Filter::default(), None, true, 1).unwrap();
        assert_eq!(newest[0].id, "8");
        let running = Filter { running: true, ..Filter::default() };
        assert_eq!(sessions(&db, &running, None, false, 10).unwrap().len(), 1);
        let later = Filter { from: Some(Wall(8)), ..Filter::default() };
        assert_eq!(sessions(&db, &later, None, false, 10).unwrap()[0].id, "8");
    }

    #[test]
    fn without_two_registers_there_is_no_energy() {
        let (db, me) = (db(), Identity::new("A"));
        let adopted = Transaction { sameness: String::new(), meter_start: 0, ..transaction(1) };
        let end = End { at: Wall(9), meter: Some(2600), reason: String::new() };
        let ended = Transaction { ended: true, end: Some(end), ..adopted };
        queue::apply(&db, &me, &Op::Transaction(Box::new(ended))).unwrap();
        let session = sessions(&db, &Filter::default(), None, false, 10).unwrap().remove(0);
        assert_eq!((session.meter_start, session.energy()), (None, None));
        let back = Session { meter_start: Some(2601), ..session };
        assert_eq!(back.energy(), None, "a register does not run backwards");
    }
}
