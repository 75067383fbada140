//! The one writer of the database (SQLite, WAL, synchronous=FULL).
//!
//! In: jobs, each a function on the connection, inside a transaction. Out: their results, after the commit that holds them is synced.
//! Invariant: a job's result is seen only once its writes survive a power cut; jobs run in the order in which
//! they were handed in. Jobs that wait together share one sync (group commit); a job that fails is rolled back
//! alone.
//!
//! Each room brings its own tables as [`Migration`]s and its own SQL; nobody but this room opens the database.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

/// A step of the schema, applied once, in order, known by its name for ever.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// e.g. `"journal-1"`.
    pub name: &'static str,
    /// Statements.
    pub sql: &'static str,
}

/// Why a job's effect is not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No space left; may pass.
    #[error("the storage is full")]
    Full,
    /// Not writable, failing or corrupt.
    #[error("the storage does not work: {0}")]
    Unavailable(String),
    /// The statement itself is wrong: a defect of this program or a foreign database.
    #[error("the storage refused a statement: {0}")]
    Refused(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(
                Code::SystemIoFailure
                | Code::ReadOnly
                | Code::CannotOpen
                | Code::DatabaseCorrupt
                | Code::NotADatabase
                | Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::PermissionDenied,
            ) => Self::Unavailable(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// Runs within the commit and says whether its writes shall stay; its second half then tells the waiting side.
type Job = Box<dyn FnOnce(&Connection) -> (bool, Reply) + Send>;
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Hands jobs to the writer. Cheap to clone; the writer ends when the last clone is gone.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    reader: Arc<Mutex<Connection>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// The writer's thread; join it after the last [`Store`] is dropped.
#[derive(Debug)]
pub struct Writer(thread::JoinHandle<()>);

impl Writer {
    /// Waits until everything handed in is stored.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the storage writer panicked");
        }
    }
}

const FILE: &str = "ladewart.db";

fn open(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", "ON")?;
    db.busy_timeout(Duration::from_secs(5))?;
    Ok(db)
}

fn migrate(db: &mut Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    db.execute_batch("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY) STRICT;")?;
    for step in migrations {
        let tx = db.transaction()?;
        if tx.execute("INSERT OR IGNORE INTO migration (name) VALUES (?1)", [step.name])? == 1 {
            tx.execute_batch(step.sql)?;
        }
        tx.commit()?;
    }
    Ok(())
}

impl Store {
    /// Opens (or makes) the database in `directory`, applies the migrations, starts the writer.
    pub fn open(directory: &Path, migrations: &[Migration]) -> Result<(Self, Writer), StoreError> {
        std::fs::create_dir_all(directory)
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", directory.display())))?;
        let path: PathBuf = directory.join(FILE);
        let mut db = open(&path)?;
        migrate(&mut db, migrations)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(&path, flags)?;
        reader.busy_timeout(Duration::from_secs(5))?;
        let (jobs, queue) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || write(&mut db, &queue))
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        Ok((Self { jobs, reader: Arc::new(Mutex::new(reader)) }, Writer(thread)))
    }

    /// Hands in a job at once; the receiver gets its result after the sync. Dropping the receiver does not undo
    /// the job.
    pub fn submit<T, F>(&self, job: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, receiver) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let value = job(tx).map_err(StoreError::from);
            let keep = value.is_ok();
            let tell: Reply = Box::new(move |committed: Result<(), StoreError>| {
                let _ = reply.send(match value {
                    Ok(value) => committed.map(|()| value),
                    Err(error) => Err(error),
                });
            });
            (keep, tell)
        });
        if let Err(mpsc::SendError(_job)) = self.jobs.send(job) {
            tracing::error!("the storage writer is gone");
        }
        receiver
    }

    /// [`Store::submit`], waited for.
    pub async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.submit(job).await.unwrap_or_else(|_| Err(StoreError::Unavailable("the writer is gone".into())))
    }

    /// Reads beside the writer, on a blocking thread.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || {
            let db = reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            query(&db).map_err(StoreError::from)
        })
        .await
        .unwrap_or_else(|e| Err(StoreError::Unavailable(e.to_string())))
    }
}

/// Most jobs that share one sync: bounds how long the first of them waits.
const BATCH: usize = 256;

fn write(db: &mut Connection, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut replies = Vec::new();
        let committed =
            commit(db, std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)), &mut replies);
        if let Err(error) = &committed {
            tracing::error!(%error, "nothing was stored");
        }
        for reply in replies {
            reply(committed.clone());
        }
    }
}

fn commit(
    db: &mut Connection,
    jobs: impl Iterator<Item = Job>,
    replies: &mut Vec<Reply>,
) -> Result<(), StoreError> {
    let mut tx = match db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate) {
        Ok(tx) => tx,
        Err(error) => {
            // Jobs that never ran are dropped; their receivers see that the reply is gone.
            drop(jobs.collect::<Vec<_>>());
            return Err(error.into());
        }
    };
    for job in jobs {
        let mut savepoint = tx.savepoint()?;
        let (keep, reply) = job(&savepoint);
        if keep {
            savepoint.commit()?;
        } else {
            savepoint.rollback()?;
        }
        replies.push(reply);
    }
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Migration =
        Migration { name: "test-1", sql: "CREATE TABLE t (n INTEGER NOT NULL UNIQUE) STRICT;" };

    #[tokio::test]
    async fn jobs_keep_their_order_and_fail_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), &[TABLE]).unwrap();
        let first = store.submit(|db| db.execute("INSERT INTO t VALUES (1)", []));
        let twice = store.submit(|db| {
            db.execute("INSERT INTO t VALUES (7)", [])?;
            db.execute("INSERT INTO t VALUES (1)", [])
        });
        let last = store.submit(|db| db.execute("INSERT INTO t VALUES (2)", []));
        assert!(first.await.unwrap().is_ok());
        assert!(matches!(twice.await.unwrap(), Err(StoreError::Refused(_))));
        assert!(last.await.unwrap().is_ok());
        let all: Vec<i64> = store
            .read(|db| db.prepare("SELECT n FROM t ORDER BY rowid")?.query_map([], |r| r.get(0))?.collect())
            .await
            .unwrap();
        assert_eq!(all, [1, 2]);
        drop(store);
        writer.join();
        let (store, _writer) = Store::open(dir.path(), &[TABLE]).unwrap();
        let n: i64 = store.read(|db| db.query_row("SELECT count(*) FROM t", [], |r| r.get(0))).await.unwrap();
        assert_eq!(n, 2, "opening again applies no migration twice");
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_opened_says_where() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let error = Store::open(&dir.path().join("f"), &[TABLE]).unwrap_err();
        assert!(error.to_string().contains("/f"), "{error}");
    }
}
