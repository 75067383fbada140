//! The real daemon as its own process.
//!
//! In: a configuration file. Out: readiness, log lines, exit code. Invariant: the process ends with its handle.
//!
//! ```text
//! starting ─READY=1─→ ready ─stop→ ended (exit code)
//!     └─── exits ───────┴──kill──→ ended
//! ```

use std::{
    env,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    net::UnixDatagram,
    process::{Child, Command},
    task::JoinSet,
};

use crate::log::Log;

/// Directory of this build's programs: the parent of `deps/` for tests.
fn programs() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("the lab does not know its own place")?;
    let mut directory = own.parent().context("the lab's program has no directory")?.to_owned();
    if directory.ends_with("deps") {
        directory.pop();
    }
    Ok(directory)
}

/// Builds the packages `ladewartd` and `ladewartctl` beside this program with cargo, in the same profile, once per
/// process. Cargo itself does nothing when they are fresh. With `visible` its progress goes to the terminal.
/// Errors: cargo is missing, or the build fails; then its messages are in the error.
pub fn build(visible: bool) -> anyhow::Result<()> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT
        .get_or_init(|| cargo_build(visible).map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn cargo_build(visible: bool) -> anyhow::Result<()> {
    let directory = programs()?;
    let profile = match directory.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target = directory.parent().context("the build directory has no parent")?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let mut command = std::process::Command::new(cargo);
    command
        .args(["build", "--package", "ladewartd", "--package", "ladewartctl", "--profile", profile])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null());
    // What cargo told us about our own package is not about that one: build scripts that look at it would run again
    // at each change between `cargo run` and a direct start.
    let told = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| name.starts_with(p))
            || ["CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "OUT_DIR"].contains(&name)
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(told) {
            command.env_remove(name);
        }
    }
    if visible {
        ensure!(command.status().context("cargo cannot be started")?.success(), "the daemon does not build");
        return Ok(());
    }
    let output = command.output().context("cargo cannot be started")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the daemon does not build:\n{messages}");
    Ok(())
}

/// Path of a program of this workspace, built if needed.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    build(false)?;
    Ok(programs()?.join(name))
}

/// A daemon that runs.
pub struct Daemon {
    child: Child,
    log: Log<String>,
    readers: JoinSet<()>,
}

impl Daemon {
    /// Starts it and waits until it says `READY=1` (sd_notify). Errors: it ends or stays silent before that; its
    /// last lines are in the error.
    pub async fn start(config: &Path, log: &Log<String>) -> anyhow::Result<Self> {
        let directory = config.parent().context("the configuration has no directory")?;
        let notify = directory.join("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify)?;
        let mut daemon = Self::spawn(config, log, &notify)?;
        let ready = async {
            let mut message = [0; 4096];
            loop {
                let n = socket.recv(&mut message).await?;
                if String::from_utf8_lossy(&message[..n]).lines().any(|l| l == "READY=1") {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::select! {
            result = tokio::time::timeout(Duration::from_secs(20), ready) => match result {
                Ok(result) => result?,
                Err(_) => bail!("ladewartd was not READY within 20 s\n{}", tail(log)),
            },
            status = daemon.child.wait() => {
                // Its last lines are still in the pipe.
                while daemon.readers.join_next().await.is_some() {}
                bail!("ladewartd ended before it was READY: {}\n{}", status?, tail(log))
            }
        }
        Ok(daemon)
    }

    fn spawn(config: &Path, log: &Log<String>, notify: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program("ladewartd")?)
            .arg("--config")
            .arg(config)
            .env("NOTIFY_SOCKET", notify)
            // As its unit does.
            .env("MALLOC_ARENA_MAX", "1")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("ladewartd cannot be started")?;
        let mut readers = JoinSet::new();
        if let Some(out) = child.stdout.take() {
            readers.spawn(lines(out, log.clone()));
        }
        if let Some(err) = child.stderr.take() {
            readers.spawn(lines(err, log.clone()));
        }
        Ok(Self { child, log: log.clone(), readers })
    }

    /// Runs it until it ends by itself: for configurations that must be refused. Gives exit code and output.
    pub async fn refused(config: &Path) -> anyhow::Result<(Option<i32>, String)> {
        let run = Command::new(program("ladewartd")?)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(10), run).await.context("it did not end")??;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> &Log<String> {
        &self.log
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// As a power cut: no chance to tidy up.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ladewartd cannot be killed")
    }

    /// As systemd stops it: SIGTERM, then up to 10 s.
    pub async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = self.child.id().context("ladewartd has ended already")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        match tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("ladewartd did not end within 10 s of SIGTERM\n{}", tail(&self.log)),
        }
    }

    /// Resident memory in KiB (`/proc/PID/status`, VmRSS).
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let pid = self.child.id().context("ladewartd has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")
    }
}

async fn lines(from: impl AsyncRead + Unpin, log: Log<String>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.push(line);
    }
}

/// The last lines of a daemon's log.
#[must_use]
pub fn tail(log: &Log<String>) -> String {
    let entries = log.entries();
    let from = entries.len().saturating_sub(30);
    let lines: Vec<_> = entries[from..].iter().map(|e| e.what.as_str()).collect();
    lines.join("\n")
}
