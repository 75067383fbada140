//! An operator who administers sites from far away: the real `ladewartctl reverse-listen` behind the end of the
//! gateway's WAN leg.
//!
//! In: keys. Out: the socket of each appliance, as the program tells it. Invariant: both end with their handles.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{log::Log, process::program};

/// The end of the WAN leg: takes the gateway's TLS off and passes on what is inside.
pub struct WanEnd {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl WanEnd {
    /// Binds a free port of the loopback interface and starts.
    pub async fn start(acceptor: TlsAcceptor, to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => {
                        let Ok((tcp, _)) = accepted else { continue };
                        let acceptor = acceptor.clone();
                        connections.spawn(async move {
                            // What breaks here breaks for both sides, who notice it themselves.
                            let _ = pass(tcp, acceptor, to).await;
                        });
                    }
                }
            }
        });
        Ok(Self { address, _tasks: tasks })
    }

    /// Where the gateway connects.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn pass(tcp: TcpStream, acceptor: TlsAcceptor, to: SocketAddr) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let mut near = acceptor.accept(tcp).await?;
    let mut far = TcpStream::connect(to).await?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// A running `ladewartctl reverse-listen`; ends when dropped.
pub struct ReverseListen {
    child: Child,
    address: SocketAddr,
    log: Log<Value>,
    _readers: JoinSet<()>,
}

impl ReverseListen {
    /// Starts it on a free port with `operator.pem`, `operator.key` and `appliances.pem` of a directory, sockets in
    /// `appliances` there, and waits until it listens.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program("ladewartctl")?)
            .current_dir(directory)
            .args(["reverse-listen", "--listen", "127.0.0.1:0", "--output", "json"])
            .args(["--certificate", "operator.pem", "--key", "operator.key", "--ca", "appliances.pem"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("ladewartctl cannot be started")?;
        let log = Log::default();
        let mut readers = JoinSet::new();
        let out = child.stdout.take().context("no pipe")?;
        let events: Log<Value> = log.clone();
        readers.spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                events.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let begun = log
            .wait(Duration::from_secs(20), |e| {
                (e.what["event"] == "listening").then(|| e.what["address"].as_str().map(str::to_owned))
            })
            .await;
        let Some(Some(address)) = begun else {
            child.start_kill()?;
            let output = child.wait_with_output().await?;
            bail!("reverse-listen did not begin: {}", String::from_utf8_lossy(&output.stderr));
        };
        Ok(Self { child, address: address.parse()?, log, _readers: readers })
    }

    /// Where appliances connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it told.
    #[must_use]
    pub fn log(&self) -> &Log<Value> {
        &self.log
    }

    /// How many events of a kind it told.
    #[must_use]
    pub fn count(&self, event: &str) -> usize {
        self.log.count(|e| e["event"] == event)
    }

    /// Waits for the n-th event of a kind (from 1).
    pub async fn told(&self, event: &str, n: usize) -> anyhow::Result<Value> {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let mut found = self.log.entries().into_iter().map(|e| e.what).filter(|e| e["event"] == event);
            if let Some(found) = found.nth(n - 1) {
                return Ok(found);
            }
            if tokio::time::Instant::now() >= end {
                let told: Vec<_> = self.log.entries().into_iter().map(|e| e.what.to_string()).collect();
                bail!("reverse-listen did not tell {event:?} {n} times:\n{}", told.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The socket of the appliance of this name.
    #[must_use]
    pub fn socket(directory: &Path, name: &str) -> PathBuf {
        directory.join("appliances").join(format!("{name}.sock"))
    }

    /// Ends it as a service manager does. Gives its exit code.
    pub async fn stop(mut self) -> anyhow::Result<Option<i32>> {
        let pid = self.child.id().context("it has ended already")?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(pid)?),
            nix::sys::signal::Signal::SIGTERM,
        )?;
        let status = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await??;
        Ok(status.code())
    }
}
