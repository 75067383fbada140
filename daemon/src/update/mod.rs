//! The device's own software: takes bundles, has RAUC write them to the slot that does not run, tells how it goes.
//!
//! In: bundles and orders of those who may, what RAUC says on the bus. Out: orders to RAUC, a request to start again.
//! Invariants: one bundle at a time; nothing is installed while the running slot is on trial, since the other one is
//! then the only good one; what was ordered and how it ended is in the journal before it is answered. Whether a bundle
//! is good (signature, board, version) is for RAUC and its hooks to say, not for the caller.
//!
//! ```text
//! Upload ──bytes──▶ Bundle ──job──▶ checked by RAUC ──▶ written ──▶ installed ──restart──▶ trial ──▶ confirmed
//!    └─ not as announced: gone          └─ refused, in RAUC's words
//! ```

mod rauc;
mod upload;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::upload::{Announced, Bundle, Upload};
use crate::{
    clock::Clock,
    config,
    identity::hex,
    journal::{Entry, Journal},
};

/// How often RAUC is asked how far it is.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is asked for its slots while it does something else: some seconds together.
const ASKED: u32 = 20;

/// Why an update does not go on.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// One at a time.
    #[error("another update is under way; see its progress with GetUpdateStatus")]
    Busy,
    /// The other slot is the only one that is known to be good.
    #[error("the running system is on trial; wait until it is confirmed, or confirm it")]
    OnTrial,
    /// Empty, or more than a slot could hold.
    #[error("a bundle of {size} bytes; it takes 1 to {most}")]
    Size {
        /// Announced.
        size: u64,
        /// Configured.
        most: u64,
    },
    /// The disk is full.
    #[error("no room: {need} bytes are needed and {free} are free")]
    NoRoom {
        /// Bytes.
        need: u64,
        /// Bytes.
        free: u64,
    },
    /// More bytes than announced.
    #[error("more than the announced {0} bytes")]
    Longer(u64),
    /// Fewer bytes than announced.
    #[error("{received} of the announced {size} bytes")]
    Shorter {
        /// Announced.
        size: u64,
        /// Received.
        received: u64,
    },
    /// Other bytes than announced.
    #[error("the bytes do not have the announced SHA-256")]
    Digest,
    /// The place for bundles does not work.
    #[error("{}: {}", .0.display(), .1)]
    Spool(PathBuf, #[source] io::Error),
    /// RAUC does not take it.
    #[error("{0}")]
    Refused(String),
    /// RAUC cannot be reached.
    #[error("the installer (RAUC) cannot be reached: {0}")]
    Absent(String),
    /// Done, but without evidence.
    #[error("done, but not recorded: {0}")]
    NotRecorded(String),
}

/// The last installation since the daemon's start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installation {
    /// Counts installations.
    pub number: u64,
    /// How far it is.
    pub state: State,
    /// 0 to 100.
    pub percent: u8,
    /// What is being done, or why it failed.
    pub message: String,
    /// The bundle's, once it was read.
    pub version: String,
}

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// There was none.
    #[default]
    None,
    /// Goes on.
    Running,
    /// Is in the other slot, which is started next.
    Installed,
    /// Was refused or broke off; the other slot may be damaged and is not started.
    Failed,
}

/// What there is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The board that bundles must be for.
    pub compatible: String,
    /// The parts of the disk.
    pub slots: Vec<Slot>,
    /// Whether the running system is no longer on trial.
    pub confirmed: bool,
}

/// A part of the disk that a bundle writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// RAUC's name.
    pub name: String,
    /// The boot loader's; empty for a part of another slot.
    pub boot_name: String,
    /// The running system is in it.
    pub running: bool,
    /// Is started next.
    pub next: bool,
    /// The boot loader may start it.
    pub bootable: bool,
    /// Of the bundle that it was written from.
    pub version: String,
    /// When that was, as RAUC writes it (RFC 3339).
    pub installed: String,
}

struct Job {
    bundle: Bundle,
    by: String,
    restart: bool,
}

/// The way to the updates. Clones are the same.
#[derive(Debug, Clone)]
pub struct Updates {
    config: Arc<config::Update>,
    turn: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
    installation: watch::Receiver<Installation>,
    /// The slots as RAUC last told them: it does not while it installs.
    seen: Arc<watch::Sender<Option<Vec<Slot>>>>,
    journal: Journal,
    clock: Clock,
}

/// What carries updates out.
#[derive(Debug)]
pub struct Installing {
    jobs: mpsc::Receiver<Job>,
    installation: watch::Sender<Installation>,
    updates: Updates,
}

/// Both ends.
#[must_use]
pub fn updates(config: config::Update, journal: Journal, clock: Clock) -> (Updates, Installing) {
    let (jobs, jobs_in) = mpsc::channel(1);
    let (installation, watched) = watch::channel(Installation::default());
    let turn = Arc::new(Semaphore::new(1));
    let (config, seen) = (Arc::new(config), Arc::new(watch::Sender::new(None)));
    let updates = Updates { config, turn, jobs, installation: watched, seen, journal, clock };
    (updates.clone(), Installing { jobs: jobs_in, installation, updates })
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("by", &self.by).finish_non_exhaustive()
    }
}

impl Updates {
    /// The last installation, and its changes.
    #[must_use]
    pub fn installation(&self) -> watch::Receiver<Installation> {
        self.installation.clone()
    }

    /// Begins to take a bundle. Blocks for the disk.
    pub fn upload(&self, announced: Announced) -> Result<Upload, UpdateError> {
        if !self.confirmed() {
            return Err(UpdateError::OnTrial);
        }
        let turn = self.turn.clone().try_acquire_owned().map_err(|_| UpdateError::Busy)?;
        Upload::begin(&self.config.spool, announced, self.config.most, turn)
    }

    /// Hands a bundle to RAUC; [`Updates::installation`] tells the rest. Gives the installation's number.
    pub async fn install(&self, bundle: Bundle, by: String, restart: bool) -> Result<u64, UpdateError> {
        let body = json!({ "bytes": bundle.announced.size, "sha256": hex(&bundle.announced.sha256), "restart": restart });
        self.record("update.received", &by, body).await?;
        let number = self.installation.borrow().number + 1;
        self.jobs.send(Job { bundle, by, restart }).await.map_err(|_| UpdateError::Busy)?;
        Ok(number)
    }

    /// What there is to start; while RAUC installs, as it was before.
    pub async fn status(&self) -> Result<Status, UpdateError> {
        let rauc = rauc::connect().await?;
        let compatible = rauc.compatible().await.map_err(rauc::absent)?;
        let slots = self.slots(&rauc).await?;
        self.seen.send_replace(Some(slots.clone()));
        Ok(Status { compatible, slots, confirmed: self.confirmed() })
    }

    async fn slots(&self, rauc: &rauc::InstallerProxy<'_>) -> Result<Vec<Slot>, UpdateError> {
        let mut asked = 0;
        let slots = loop {
            match rauc.slots().await {
                Ok(slots) => break slots,
                Err(error) if rauc::busy(&error) => {
                    let seen = self.seen.borrow().clone();
                    asked += 1;
                    // Anything but an installation is over in a moment.
                    match seen {
                        Some(seen)
                            if asked == ASKED || self.installation.borrow().state == State::Running =>
                        {
                            return Ok(seen);
                        }
                        None if asked == ASKED => {
                            let text = "the installer (RAUC) is busy with something else; ask again";
                            return Err(UpdateError::Refused(text.to_owned()));
                        }
                        _ => tokio::time::sleep(LOOK).await,
                    }
                }
                Err(error) => return Err(rauc::absent(error)),
            }
        };
        // Without a working boot loader there is none; the rest is worth showing all the same.
        let primary = rauc.primary().await.unwrap_or_default();
        let slots = slots.into_iter().map(|(name, status)| {
            let text = |key| rauc::text(&status, key);
            Slot {
                next: name == primary,
                boot_name: text("bootname"),
                running: text("state") == "booted",
                bootable: text("boot-status") == "good",
                version: text("bundle.version"),
                installed: text("installed.timestamp"),
                name,
            }
        });
        let mut slots: Vec<Slot> = slots.collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(slots)
    }

    /// Keeps the running slot. Gives its name.
    pub async fn confirm(&self, by: &str) -> Result<String, UpdateError> {
        let rauc = rauc::connect().await?;
        let (slot, _) = rauc.mark("good", "booted").await.map_err(rauc::refused)?;
        self.record("update.confirmed", by, json!({ "slot": slot })).await?;
        Ok(slot)
    }

    /// Starts the other slot next. Gives its name.
    pub async fn rollback(&self, by: &str, restart: bool) -> Result<String, UpdateError> {
        let _turn = self.turn.try_acquire().map_err(|_| UpdateError::Busy)?;
        let slots = self.status().await?.slots;
        let other = slots.iter().find(|slot| !slot.running && !slot.boot_name.is_empty());
        match other {
            None => return Err(UpdateError::Refused("there is no other slot".to_owned())),
            Some(slot) if !slot.bootable => {
                let text = format!("{} cannot be started: nothing good was ever written to it", slot.name);
                return Err(UpdateError::Refused(text));
            }
            Some(_) => {}
        }
        let rauc = rauc::connect().await?;
        let (slot, _) = rauc.mark("active", "other").await.map_err(rauc::refused)?;
        self.record("update.rolled_back", by, json!({ "slot": slot, "restart": restart })).await?;
        if restart {
            self.restart()?;
        }
        Ok(slot)
    }

    /// Whether the running slot is known to be good. A device without trial is never on trial.
    fn confirmed(&self) -> bool {
        self.config.confirmed.as_ref().is_none_or(|mark| mark.exists())
    }

    /// Asks the system to start again; a unit of the system waits for this file.
    fn restart(&self) -> Result<(), UpdateError> {
        let Some(path) = &self.config.restart else {
            let text = "installed; start the device again yourself: update.restart is not configured";
            return Err(UpdateError::Refused(text.to_owned()));
        };
        std::fs::write(path, b"").map_err(|error| UpdateError::Spool(path.clone(), error))
    }

    async fn record(&self, kind: &str, by: &str, body: Value) -> Result<(), UpdateError> {
        let entry = Entry {
            at: self.clock.now().wall,
            kind: kind.to_owned(),
            subject: "software".to_owned(),
            actor: by.to_owned(),
            body,
        };
        match self.journal.append(vec![entry]).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(UpdateError::NotRecorded(error.to_string())),
            Err(_) => Err(UpdateError::NotRecorded("the journal is closed".to_owned())),
        }
    }
}

impl Installing {
    /// Carries out one after the other, until the stop. An installation that runs then goes on in RAUC.
    pub async fn run(mut self, stop: CancellationToken) {
        self.tidy().await;
        loop {
            let job = tokio::select! {
                job = self.jobs.recv() => job,
                () = stop.cancelled() => return,
            };
            let Some(job) = job else { return };
            tokio::select! {
                () = self.carry_out(job) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// A bundle that is there before any came was interrupted, by a power cut most likely.
    async fn tidy(&self) {
        let rest = self.updates.config.spool.join(upload::NAME);
        if std::fs::remove_file(&rest).is_err() {
            return;
        }
        let body = json!({ "outcome": "the daemon ended before the installation did" });
        if let Err(error) = self.updates.record("update.interrupted", "", body).await {
            tracing::error!(%error, "the interrupted update is not in the journal");
        }
    }

    async fn carry_out(&self, job: Job) {
        let Job { bundle, by, restart } = job;
        self.installation.send_modify(|i| {
            *i = Installation { number: i.number + 1, state: State::Running, ..Installation::default() };
        });
        let result = self.install(bundle.path()).await;
        // Room for the next before anybody hears of the end.
        drop(bundle);
        let (kind, state, message) = match &result {
            Ok(()) => ("update.installed", State::Installed, "installed".to_owned()),
            Err(error) => ("update.refused", State::Failed, error.to_string()),
        };
        let version = self.installation.borrow().version.clone();
        let body = json!({ "version": version, "outcome": message });
        if let Err(error) = self.updates.record(kind, &by, body).await {
            tracing::error!(%error, "the outcome of the update is not in the journal");
        }
        let mut message = message;
        if result.is_ok()
            && restart
            && let Err(error) = self.updates.restart()
        {
            tracing::warn!(%error, "the new version is not started");
            message = error.to_string();
        }
        self.installation.send_modify(|i| {
            i.state = state;
            i.message = message;
            if state == State::Installed {
                i.percent = 100;
            }
        });
    }

    /// RAUC keeps what the system's own hook says to itself; the hook leaves it in a file.
    fn with_reason(&self, error: String) -> String {
        let reason = self.updates.config.reason.as_ref().filter(|_| error.contains("handler error"));
        let reason = reason.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        match reason.trim() {
            "" => error,
            reason => format!("{reason} ({error})"),
        }
    }

    async fn install(&self, bundle: &Path) -> Result<(), UpdateError> {
        // RAUC runs in a directory of its own.
        let spooled = |error| UpdateError::Spool(bundle.to_owned(), error);
        let path = std::path::absolute(bundle).map_err(spooled)?;
        let text = path.to_str().ok_or_else(|| spooled(io::Error::other("the path is not UTF-8")))?;
        let rauc = rauc::connect().await?;
        // A bundle that cannot be read is refused below, with a better sentence.
        if let Ok((_, version)) = rauc.info(text).await {
            self.installation.send_modify(|i| i.version = version);
        }
        // Whoever asks for the status from now on gets what is true before.
        if let Err(error) = self.updates.status().await {
            tracing::warn!(%error, "the slots cannot be shown during the installation");
        }
        let mut completed = rauc.receive_completed().await.map_err(rauc::absent)?;
        rauc.install_bundle(text, HashMap::new()).await.map_err(rauc::refused)?;
        loop {
            tokio::select! {
                done = completed.next() => {
                    let Some(done) = done else {
                        return Err(UpdateError::Absent("it went away while it installed".to_owned()));
                    };
                    return match done.args().map_err(rauc::absent)?.result {
                        0 => Ok(()),
                        _ => {
                            let error = rauc.last_error().await.map_err(rauc::absent)?;
                            Err(UpdateError::Refused(self.with_reason(error)))
                        }
                    };
                }
                () = tokio::time::sleep(LOOK) => {
                    // A RAUC that died sends no signal any more, but it does not answer either.
                    let (percent, what, _) = rauc.progress().await.map_err(rauc::absent)?;
                    self.installation.send_if_modified(|i| {
                        let percent = u8::try_from(percent.clamp(0, 100)).unwrap_or(100);
                        let news = i.percent != percent || i.message != what;
                        i.percent = percent;
                        i.message = what;
                        news
                    });
                }
            }
        }
    }
}
