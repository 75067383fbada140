//! What must survive: the messages that wait for the backend, the transactions, the cards, the boot.
//!
//! In: [`Op`]s, carried out in their order inside the store's writer. Out: [`Saved`], the state of one station at
//! start. Invariant: replaying the operations on an empty database gives the state that the route holds in memory.
//!
//! ```text
//! a message:  waiting → sent, unanswered → done (only its fingerprint is kept, for retries of the EVSE)
//!                └──────────────┴────────→ dead (kept as it is, for a person)
//! ```

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{
    Secret, Version,
    frame::{self, Frame},
    ledger, local,
    route::list::{List, ListUpdate},
    table::Kind,
    v16::message::IdTagInfo,
};
use crate::{ids::Identity, store::Migration, time::Wall};

/// The tables of this room.
pub const MIGRATIONS: &[Migration] = &[FIRST, VERSIONS, PROFILES, ledger::MIGRATION, LIST, local::MIGRATION];

const FIRST: Migration = Migration {
    name: "ocpp-1",
    sql: "
CREATE TABLE ocpp_station (
    identity TEXT PRIMARY KEY,
    accepted INTEGER NOT NULL DEFAULT 0,
    boot TEXT
) STRICT;
CREATE TABLE ocpp_message (
    identity TEXT NOT NULL,
    seq INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'done', 'dead')),
    kind TEXT NOT NULL,
    frame TEXT NOT NULL,
    tx INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    digest INTEGER NOT NULL,
    why TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (identity, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE ocpp_transaction (
    born INTEGER PRIMARY KEY,
    identity TEXT NOT NULL,
    id INTEGER NOT NULL,
    backend_id INTEGER,
    told INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    connector INTEGER NOT NULL,
    id_tag TEXT NOT NULL,
    started INTEGER NOT NULL,
    meter_start INTEGER NOT NULL,
    sameness TEXT NOT NULL,
    message_id TEXT NOT NULL,
    UNIQUE (identity, id)
) STRICT;
CREATE TABLE ocpp_card (
    identity TEXT NOT NULL,
    id_tag TEXT NOT NULL,
    status TEXT NOT NULL,
    expiry TEXT NOT NULL,
    parent TEXT NOT NULL,
    heard INTEGER NOT NULL,
    PRIMARY KEY (identity, id_tag)
) STRICT, WITHOUT ROWID;
",
};

const VERSIONS: Migration = Migration {
    name: "ocpp-versions",
    sql: "
ALTER TABLE ocpp_station ADD COLUMN version TEXT NOT NULL DEFAULT '1.6';
ALTER TABLE ocpp_message ADD COLUMN version TEXT NOT NULL DEFAULT '1.6';
",
};

const LIST: Migration = Migration {
    name: "ocpp-list-1",
    sql: "
ALTER TABLE ocpp_station ADD COLUMN list_version INTEGER NOT NULL DEFAULT 0;
CREATE TABLE ocpp_list (
    identity TEXT NOT NULL,
    id_tag TEXT NOT NULL,
    status TEXT NOT NULL,
    expiry TEXT NOT NULL,
    parent TEXT NOT NULL,
    PRIMARY KEY (identity, id_tag)
) STRICT, WITHOUT ROWID;
",
};

const PROFILES: Migration = Migration {
    name: "ocpp-profiles",
    sql: "
ALTER TABLE ocpp_station ADD COLUMN merged INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ocpp_station ADD COLUMN password BLOB;
CREATE TABLE ocpp_profile (
    identity TEXT NOT NULL,
    id INTEGER NOT NULL,
    version TEXT NOT NULL,
    payload TEXT NOT NULL,
    set_at INTEGER NOT NULL,
    PRIMARY KEY (identity, id)
) STRICT, WITHOUT ROWID;
",
};

/// How many fingerprints of delivered messages are kept per station.
pub(crate) const RECENT: usize = 64;
/// How many cards are kept per station.
pub(crate) const CARDS: usize = 1000;

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its place in the order of this station.
    pub(crate) seq: i64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Of the connection it came over.
    pub(crate) version: Version,
    /// As the EVSE sent it; an event of 2.x that came while the backend was away says so.
    pub(crate) frame: String,
    /// The transaction it belongs to, by [`Transaction::id`].
    pub(crate) tx: Option<i64>,
    /// Whether it may have reached the backend.
    pub(crate) sent: bool,
    /// How often the backend has refused it.
    pub(crate) attempts: u32,
    /// Fingerprint of what it says: [`fingerprint`] of the frame as the EVSE sent it.
    pub(crate) digest: i64,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub(crate) struct Transaction {
    /// Provisional, from our own range; for one that we did not see begin, the id that the EVSE uses.
    pub(crate) id: i64,
    /// The backend's id, once it is known.
    pub(crate) backend_id: Option<i64>,
    /// Whether the EVSE knows it by `id` instead of by the backend's.
    pub(crate) told: bool,
    /// The backend refused its StartTransaction for good.
    pub(crate) dead: bool,
    /// Its StopTransaction was heard.
    pub(crate) ended: bool,
    /// Connector.
    pub(crate) connector: i64,
    /// Card.
    pub(crate) id_tag: String,
    /// By the EVSE's clock.
    pub(crate) started: Wall,
    /// Meter register in Wh.
    pub(crate) meter_start: i64,
    /// [`super::v16::message::StartTransaction::sameness`]; of a transaction of 2.x its transactionId.
    pub(crate) sameness: String,
    /// Id of its StartTransaction.
    pub(crate) message_id: String,
    /// There is no backend to tell.
    pub(crate) local: bool,
    /// What its StopTransaction told; not kept for the next process, the ledger has it.
    pub(crate) end: Option<End>,
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// By the EVSE's clock.
    pub(crate) at: Wall,
    /// Meter register in Wh.
    pub(crate) meter: Option<i64>,
    /// As told.
    pub(crate) reason: String,
}

impl Transaction {
    /// The id that the EVSE uses.
    pub(crate) fn known_as(&self) -> i64 {
        if self.told { self.id } else { self.backend_id.unwrap_or(self.id) }
    }

    /// Whether it is one of 2.x: it has a name of its own, and no StartTransaction.
    pub(crate) fn is_2(&self) -> bool {
        self.message_id.is_empty() && !self.sameness.is_empty()
    }

    /// Whether the EVSE or the backend may mean this one.
    pub(crate) fn is(&self, id: i64) -> bool {
        self.id == id || self.backend_id == Some(id)
    }
}

/// What is known of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    /// In lower case.
    pub(crate) id_tag: String,
    /// The backend's word.
    pub(crate) info: IdTagInfo,
    /// When.
    pub(crate) heard: Wall,
}

/// A charging profile of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedProfile {
    /// chargingProfileId.
    pub(crate) id: i64,
    /// Of the payload.
    pub(crate) version: Version,
    /// Of its `SetChargingProfile`, as it came.
    pub(crate) payload: String,
    /// When.
    pub(crate) set: Wall,
}

/// A change.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Append(Message),
    Sent(i64),
    Attempts(i64, u32),
    Done(i64),
    Dead(i64, String, Wall),
    /// A dead message waits again, under a new number.
    Revive(i64, i64),
    /// A dead message is of no more use.
    Discard(i64),
    Transaction(Box<Transaction>),
    Forget(i64),
    Card(Card),
    /// Nothing is known of any card any more; the list stays.
    CardsGone,
    List(ListUpdate),
    Accepted(bool),
    Boot(Option<String>),
    Version(Version),
    Profile(Box<SavedProfile>),
    ProfileGone(i64),
    Merged(bool),
    /// For the backend's leg.
    Password(Secret),
}

/// The state of one station.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) messages: Vec<Message>,
    pub(crate) recent: Vec<i64>,
    pub(crate) dead: u64,
    /// Transactions that dead messages belong to.
    pub(crate) dead_of: Vec<i64>,
    pub(crate) next_seq: i64,
    /// Oldest first.
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) cards: Vec<Card>,
    pub(crate) list: List,
    pub(crate) accepted: bool,
    pub(crate) boot: Option<String>,
    /// Last spoken with the EVSE.
    pub(crate) version: Version,
    pub(crate) profiles: Vec<SavedProfile>,
    /// The EVSE has room for one profile.
    pub(crate) merged: bool,
    /// Given by the backend for its leg.
    pub(crate) password: Option<Secret>,
}

/// Fingerprint of a CALL. A reading or an event has its time in it, so it is the same one under another id: an EVSE
/// that got no answer may ask again under a new one.
pub(crate) fn fingerprint(kind: Kind, frame: &str) -> i64 {
    match frame::peek(frame) {
        Ok(Frame::Call { action, payload, .. }) if matches!(kind, Kind::Meter | Kind::Event) => {
            digest(&format!("{action}\n{payload}"))
        }
        _ => digest(frame),
    }
}

/// Fingerprint of a text, the same in every version of this program.
pub(crate) fn digest(text: &str) -> i64 {
    let hash = Sha256::digest(text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Start => "start",
        Kind::Stop => "stop",
        Kind::Meter => "meter",
        Kind::Event => "event",
        Kind::Other => "other",
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "start" => Kind::Start,
        "stop" => Kind::Stop,
        "meter" => Kind::Meter,
        "event" => Kind::Event,
        _ => Kind::Other,
    }
}

fn version(name: &str) -> Version {
    Version::named(name).unwrap_or_default()
}

/// Carries out one change.
pub(crate) fn apply(db: &Connection, identity: &Identity, op: &Op) -> rusqlite::Result<()> {
    let me = identity.as_str();
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| db.prepare_cached(sql)?.execute(values);
    match op {
        Op::Append(m) => run(
            "INSERT INTO ocpp_message (identity, seq, state, kind, frame, tx, attempts, digest, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                me,
                m.seq,
                if m.sent { "sent" } else { "waiting" },
                kind_name(m.kind),
                m.frame,
                m.tx,
                m.attempts,
                m.digest,
                m.version.name()
            ],
        )?,
        Op::Sent(seq) => {
            run("UPDATE ocpp_message SET state = 'sent' WHERE identity = ?1 AND seq = ?2", params![me, seq])?
        }
        Op::Attempts(seq, n) => run(
            "UPDATE ocpp_message SET attempts = ?3 WHERE identity = ?1 AND seq = ?2",
            params![me, seq, n],
        )?,
        Op::Done(seq) => {
            run(
                "UPDATE ocpp_message SET state = 'done', frame = '' WHERE identity = ?1 AND seq = ?2",
                params![me, seq],
            )?;
            let oldest = seq - i64::try_from(RECENT).unwrap_or(i64::MAX);
            run(
                "DELETE FROM ocpp_message WHERE identity = ?1 AND seq <= ?2 AND state = 'done'",
                params![me, oldest],
            )?
        }
        Op::Dead(seq, why, at) => run(
            "UPDATE ocpp_message SET state = 'dead', why = ?3, died = ?4 WHERE identity = ?1 AND seq = ?2",
            params![me, seq, why, at.0],
        )?,
        Op::Revive(seq, new) => run(
            "UPDATE ocpp_message SET state = 'waiting', seq = ?3, attempts = 0, why = '', died = NULL
             WHERE identity = ?1 AND seq = ?2 AND state = 'dead'",
            params![me, seq, new],
        )?,
        Op::Discard(seq) => run(
            "DELETE FROM ocpp_message WHERE identity = ?1 AND seq = ?2 AND state = 'dead'",
            params![me, seq],
        )?,
        Op::Transaction(t) => {
            ledger::note(db, identity, t)?;
            run(
            "INSERT INTO ocpp_transaction (identity, id, backend_id, told, dead, ended, connector, id_tag, started,
                 meter_start, sameness, message_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (identity, id) DO UPDATE SET backend_id = ?3, told = ?4, dead = ?5, ended = ?6",
            params![
                me,
                t.id,
                t.backend_id,
                t.told,
                t.dead,
                t.ended,
                t.connector,
                t.id_tag,
                t.started.0,
                t.meter_start,
                t.sameness,
                t.message_id
            ],
        )?
        }
        Op::Forget(id) => {
            run("DELETE FROM ocpp_transaction WHERE identity = ?1 AND id = ?2", params![me, id])?
        }
        Op::Card(card) => return apply_card(db, me, card),
        Op::CardsGone => run("DELETE FROM ocpp_card WHERE identity = ?1", params![me])?,
        Op::List(update) => return apply_list(db, me, update),
        Op::Accepted(_)
        | Op::Boot(_)
        | Op::Version(_)
        | Op::Profile(_)
        | Op::ProfileGone(_)
        | Op::Merged(_)
        | Op::Password(_) => return apply_to_station(db, me, op),
    };
    Ok(())
}

/// Carries out a change of what is known of the station itself.
fn apply_to_station(db: &Connection, me: &str, op: &Op) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| db.prepare_cached(sql)?.execute(values);
    match op {
        Op::Accepted(yes) => run(
            "INSERT INTO ocpp_station (identity, accepted) VALUES (?1, ?2)
             ON CONFLICT (identity) DO UPDATE SET accepted = ?2",
            params![me, yes],
        )?,
        Op::Boot(frame) => run(
            "INSERT INTO ocpp_station (identity, boot) VALUES (?1, ?2)
             ON CONFLICT (identity) DO UPDATE SET boot = ?2",
            params![me, frame],
        )?,
        Op::Version(version) => run(
            "INSERT INTO ocpp_station (identity, version) VALUES (?1, ?2)
             ON CONFLICT (identity) DO UPDATE SET version = ?2",
            params![me, version.name()],
        )?,
        Op::Profile(p) => run(
            "INSERT OR REPLACE INTO ocpp_profile VALUES (?1, ?2, ?3, ?4, ?5)",
            params![me, p.id, p.version.name(), p.payload, p.set.0],
        )?,
        Op::ProfileGone(id) => {
            run("DELETE FROM ocpp_profile WHERE identity = ?1 AND id = ?2", params![me, id])?
        }
        Op::Merged(yes) => run(
            "INSERT INTO ocpp_station (identity, merged) VALUES (?1, ?2)
             ON CONFLICT (identity) DO UPDATE SET merged = ?2",
            params![me, yes],
        )?,
        Op::Password(secret) => run(
            "INSERT INTO ocpp_station (identity, password) VALUES (?1, ?2)
             ON CONFLICT (identity) DO UPDATE SET password = ?2",
            params![me, secret.bytes()],
        )?,
        _ => 0,
    };
    Ok(())
}

fn apply_card(db: &Connection, me: &str, c: &Card) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO ocpp_card VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![me, c.id_tag, c.info.status, c.info.expiry_date, c.info.parent_id_tag, c.heard.0])?;
    db.prepare_cached(
        "DELETE FROM ocpp_card WHERE identity = ?1 AND id_tag IN
         (SELECT id_tag FROM ocpp_card WHERE identity = ?1 ORDER BY heard DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![me, i64::try_from(CARDS).unwrap_or(i64::MAX)])?;
    Ok(())
}

fn apply_list(db: &Connection, me: &str, update: &ListUpdate) -> rusqlite::Result<()> {
    if update.full {
        db.execute("DELETE FROM ocpp_list WHERE identity = ?1", params![me])?;
    }
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO ocpp_list VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut drop = db.prepare_cached("DELETE FROM ocpp_list WHERE identity = ?1 AND id_tag = ?2")?;
    for (id_tag, info) in &update.entries {
        match info {
            Some(info) => {
                put.execute(params![me, id_tag, info.status, info.expiry_date, info.parent_id_tag])?
            }
            None => drop.execute(params![me, id_tag])?,
        };
    }
    db.execute(
        "INSERT INTO ocpp_station (identity, list_version) VALUES (?1, ?2)
         ON CONFLICT (identity) DO UPDATE SET list_version = ?2",
        params![me, update.version],
    )?;
    Ok(())
}

/// Dead messages of one station: all, or the one with this number.
pub(crate) fn dead(db: &Connection, identity: &Identity, seq: Option<i64>) -> rusqlite::Result<Vec<Message>> {
    db.prepare(
        "SELECT seq, kind, frame, tx, digest, version FROM ocpp_message
         WHERE identity = ?1 AND state = 'dead' AND (?2 IS NULL OR seq = ?2) ORDER BY seq",
    )?
    .query_map(params![identity.as_str(), seq], |r| {
        Ok(Message {
            seq: r.get(0)?,
            kind: kind(&r.get::<_, String>(1)?),
            frame: r.get(2)?,
            tx: r.get(3)?,
            sent: false,
            attempts: 0,
            digest: r.get(4)?,
            version: version(&r.get::<_, String>(5)?),
        })
    })?
    .collect()
}

/// Reads the cards that a station knows.
fn load_cards(db: &Connection, me: &str) -> rusqlite::Result<Vec<Card>> {
    db.prepare("SELECT id_tag, status, expiry, parent, heard FROM ocpp_card WHERE identity = ?1")?
        .query_map([me], |r| {
            Ok(Card {
                id_tag: r.get(0)?,
                info: IdTagInfo { status: r.get(1)?, expiry_date: r.get(2)?, parent_id_tag: r.get(3)? },
                heard: Wall(r.get(4)?),
            })
        })?
        .collect()
}

/// Reads the list that the backend gave a station.
fn load_list(db: &Connection, me: &str) -> rusqlite::Result<List> {
    let me = [me];
    Ok(List {
        version: db
            .query_row("SELECT list_version FROM ocpp_station WHERE identity = ?1", me, |r| r.get(0))
            .optional()?
            .unwrap_or_default(),
        entries: db
            .prepare("SELECT id_tag, status, expiry, parent FROM ocpp_list WHERE identity = ?1")?
            .query_map(me, |r| {
                let info = IdTagInfo { status: r.get(1)?, expiry_date: r.get(2)?, parent_id_tag: r.get(3)? };
                Ok((r.get(0)?, info))
            })?
            .collect::<rusqlite::Result<_>>()?,
    })
}

/// Reads what is kept of one station.
pub(crate) fn load(db: &Connection, identity: &Identity) -> rusqlite::Result<Saved> {
    let me = [identity.as_str()];
    let station = db
        .query_row(
            "SELECT accepted, boot, version, merged, password FROM ocpp_station WHERE identity = ?1",
            me,
            |r| Ok((r.get(0)?, r.get(1)?, version(&r.get::<_, String>(2)?), r.get(3)?, r.get(4)?)),
        )
        .optional()?;
    let (accepted, boot, spoken, merged, password): (_, _, _, _, Option<Vec<u8>>) =
        station.unwrap_or_default();
    let password = password.map(Secret::given);
    let messages = db
        .prepare(
            "SELECT seq, kind, frame, tx, state = 'sent', attempts, digest, version FROM ocpp_message
             WHERE identity = ?1 AND state IN ('waiting', 'sent') ORDER BY seq",
        )?
        .query_map(me, |r| {
            Ok(Message {
                seq: r.get(0)?,
                kind: kind(&r.get::<_, String>(1)?),
                frame: r.get(2)?,
                tx: r.get(3)?,
                sent: r.get(4)?,
                attempts: r.get(5)?,
                digest: r.get(6)?,
                version: version(&r.get::<_, String>(7)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let recent = db
        .prepare("SELECT digest FROM ocpp_message WHERE identity = ?1 AND state = 'done' ORDER BY seq")?
        .query_map(me, |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let (next_seq, dead) = db.query_row(
        "SELECT coalesce(max(seq), 0) + 1, coalesce(sum(state = 'dead'), 0) FROM ocpp_message WHERE identity = ?1",
        me,
        |r| Ok((r.get(0)?, r.get::<_, i64>(1)?)),
    )?;
    let dead_of = db
        .prepare(
            "SELECT DISTINCT tx FROM ocpp_message WHERE identity = ?1 AND state = 'dead' AND tx IS NOT NULL",
        )?
        .query_map(me, |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let transactions = db
        .prepare(
            "SELECT identity, id, backend_id, told, dead, ended, connector, id_tag, started, meter_start, sameness,
                 message_id
             FROM ocpp_transaction WHERE identity = ?1 ORDER BY born",
        )?
        .query_map(me, |r| {
            Ok(Transaction {
                id: r.get(1)?,
                backend_id: r.get(2)?,
                told: r.get(3)?,
                dead: r.get(4)?,
                ended: r.get(5)?,
                connector: r.get(6)?,
                id_tag: r.get(7)?,
                started: Wall(r.get(8)?),
                meter_start: r.get(9)?,
                sameness: r.get(10)?,
                message_id: r.get(11)?,
                local: false,
                end: None,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let cards = load_cards(db, identity.as_str())?;
    let list = load_list(db, identity.as_str())?;
    let profiles = db
        .prepare(
            "SELECT id, version, payload, set_at FROM ocpp_profile WHERE identity = ?1 ORDER BY set_at, id",
        )?
        .query_map(me, |r| {
            Ok(SavedProfile {
                id: r.get(0)?,
                version: version(&r.get::<_, String>(1)?),
                payload: r.get(2)?,
                set: Wall(r.get(3)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Saved {
        messages,
        recent,
        dead: u64::try_from(dead).unwrap_or_default(),
        dead_of,
        next_seq,
        transactions,
        cards,
        list,
        accepted,
        boot,
        version: spoken,
        profiles,
        merged,
        password,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: i64, frame: &str) -> Message {
        Message {
            seq,
            kind: Kind::Meter,
            version: Version::V201,
            frame: frame.into(),
            tx: Some(7),
            sent: false,
            attempts: 0,
            digest: digest(frame),
        }
    }

    #[test]
    fn a_message_lives_as_drawn() {
        let db = Connection::open_in_memory().unwrap();
        for step in MIGRATIONS {
            db.execute_batch(step.sql).unwrap();
        }
        let (me, other) = (Identity::new("A"), Identity::new("B"));
        let run = |op: Op| apply(&db, &me, &op).unwrap();
        for seq in 1..=4 {
            run(Op::Append(message(seq, &format!("m{seq}"))));
        }
        run(Op::Sent(1));
        run(Op::Done(1));
        run(Op::Sent(2));
        run(Op::Attempts(2, 3));
        run(Op::Dead(2, "InternalError".into(), Wall(5)));
        run(Op::Sent(3));
        run(Op::Boot(Some("b".into())));
        run(Op::Accepted(true));
        run(Op::Version(Version::V21));
        let profile = |id| SavedProfile { id, version: Version::V16, payload: "{}".into(), set: Wall(id) };
        for id in [3, 4, 3] {
            run(Op::Profile(Box::new(profile(id))));
        }
        run(Op::ProfileGone(4));
        run(Op::Merged(true));
        let saved = load(&db, &me).unwrap();
        assert_eq!(saved.messages.len(), 2);
        assert_eq!(saved.messages[0], Message { sent: true, ..message(3, "m3") });
        assert_eq!(saved.messages[1], message(4, "m4"));
        assert_eq!((saved.recent, saved.dead, saved.next_seq), (vec![digest("m1")], 1, 5));
        assert_eq!((saved.accepted, saved.boot.as_deref()), (true, Some("b")));
        assert_eq!((saved.version, saved.profiles, saved.merged), (Version::V21, vec![profile(3)], true));
        assert_eq!(load(&db, &other).unwrap(), Saved { next_seq: 1, ..Saved::default() });
        assert_eq!((saved.dead_of, dead(&db, &me, None).unwrap()), (vec![7], vec![message(2, "m2")]));
        assert!(dead(&db, &me, Some(3)).unwrap().is_empty(), "that one is not dead");
        run(Op::Discard(3));
        run(Op::Revive(2, 5));
        let saved = load(&db, &me).unwrap();
        assert_eq!(saved.messages[2], message(5, "m2"), "it goes behind what waits");
        assert_eq!((saved.messages.len(), saved.dead, saved.next_seq), (3, 0, 6));
    }

    #[test]
    fn a_list_comes_back_as_it_was() {
        let db = Connection::open_in_memory().unwrap();
        for step in MIGRATIONS {
            db.execute_batch(step.sql).unwrap();
        }
        let me = Identity::new("A");
        let info = |status: &str| Some(IdTagInfo { status: status.into(), ..IdTagInfo::default() });
        let update = |version, full, entries| ListUpdate { version, full, entries };
        let mut list = List::default();
        for update in [
            update(3, true, vec![("ada".to_owned(), info("Accepted")), ("ben".to_owned(), info("Blocked"))]),
            update(4, false, vec![("ada".to_owned(), None), ("cy".to_owned(), info("Accepted"))]),
        ] {
            list.update(&update);
            apply(&db, &me, &Op::List(update)).unwrap();
        }
        assert_eq!(load(&db, &me).unwrap().list, list);
    }

    #[test]
    fn fingerprints_and_cards_are_bounded() {
        let db = Connection::open_in_memory().unwrap();
        for step in MIGRATIONS {
            db.execute_batch(step.sql).unwrap();
        }
        let me = Identity::new("A");
        for seq in 1..=200 {
            apply(&db, &me, &Op::Append(message(seq, "m"))).unwrap();
            apply(&db, &me, &Op::Done(seq)).unwrap();
        }
        for n in 0..i64::try_from(CARDS).unwrap() + 5 {
            let card = Card { id_tag: n.to_string(), info: IdTagInfo::default(), heard: Wall(n) };
            apply(&db, &me, &Op::Card(card)).unwrap();
        }
        let saved = load(&db, &me).unwrap();
        assert_eq!(saved.recent.len(), RECENT);
        assert_eq!(saved.next_seq, 201, "a number is never used twice");
        assert_eq!(saved.cards.len(), CARDS);
        assert!(saved.cards.iter().all(|c| c.heard >= Wall(5)), "the oldest go first");
    }
}
