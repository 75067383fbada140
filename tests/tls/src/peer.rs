//! OpenSSL's own server and client as peers.

use std::{
    ffi::OsStr,
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::pki::Leaf;

/// No step takes longer, however loaded the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A build of OpenSSL.
#[derive(Debug, Clone)]
pub(crate) struct OpenSsl {
    program: PathBuf,
    /// `"3.0.22"`.
    version: String,
}

impl fmt::Display for OpenSsl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenSSL {}", self.version)
    }
}

impl OpenSsl {
    pub(crate) async fn at(program: &Path) -> anyhow::Result<Self> {
        let output = Command::new(program).arg("version").output().await;
        let output = output.with_context(|| format!("{} cannot be run", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().nth(1).context("no version")?.to_owned();
        Ok(Self { program: program.to_owned(), version })
    }

    /// Whether it knows the numbers of brainpool in TLS 1.3 (RFC 8734).
    pub(crate) fn brainpool_in_tls13(&self) -> bool {
        !self.version.starts_with("3.0.") && !self.version.starts_with("3.1.")
    }

    /// `openssl s_server`, which demands a certificate and sends each line back turned round.
    pub(crate) async fn server(
        &self,
        own: &Leaf,
        trusted: &Path,
        options: &[&str],
    ) -> anyhow::Result<Server> {
        let mut command = self.command("s_server", own, trusted);
        command.args(["-accept", "127.0.0.1:0", "-Verify", "9", "-rev"]).args(options);
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let port = timeout(LONG, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix("ACCEPT ") {
                    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
                    return port.with_context(|| format!("no port in {line:?}"));
                }
            }
            let mut said = String::new();
            if let Some(mut errors) = child.stderr.take() {
                errors.read_to_string(&mut said).await?;
            }
            bail!("s_server ended: {said}")
        })
        .await??;
        // Whoever writes into a full pipe waits.
        let mut readers = JoinSet::new();
        readers.spawn(async move {
            while let Ok(Some(_)) = lines.next_line().await {}
            String::new()
        });
        if let Some(mut errors) = child.stderr.take() {
            readers.spawn(async move {
                let mut bytes = Vec::new();
                let _ = errors.read_to_end(&mut bytes).await;
                String::from_utf8_lossy(&bytes).into_owned()
            });
        }
        Ok(Server { child, readers, port })
    }

    /// `openssl s_client`: sends a line and returns all that came, and what it said about errors.
    pub(crate) async fn client(
        &self,
        own: Option<&Leaf>,
        trusted: &Path,
        port: u16,
        options: &[&str],
    ) -> anyhow::Result<Said> {
        let mut child = self.s_client(own, trusted, port, options).spawn()?;
        let mut input = child.stdin.take().context("no input")?;
        let written = input.write_all(b"hello\n").await;
        let output = timeout(LONG, child.wait_with_output()).await.context("s_client does not end")??;
        drop((input, written));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { came: text(&output.stdout), errors: text(&output.stderr) })
    }

    /// `openssl s_client`, which goes on until the server ends the session.
    pub(crate) fn s_client(
        &self,
        own: Option<&Leaf>,
        trusted: &Path,
        port: u16,
        options: &[&str],
    ) -> Command {
        let mut command = match own {
            Some(own) => self.command("s_client", own, trusted),
            None => {
                let mut command = self.bare("s_client");
                command.arg("-CAfile").arg(trusted);
                command
            }
        };
        command.arg("-connect").arg(format!("{}:{port}", Ipv4Addr::LOCALHOST));
        command.args(["-quiet", "-ign_eof", "-servername", "localhost"]).args(options);
        command
    }

    fn command(&self, what: &str, own: &Leaf, trusted: &Path) -> Command {
        let mut command = self.bare(what);
        command.arg("-cert").arg(&own.certificate).arg("-key").arg(&own.key);
        if std::fs::metadata(&own.issuers).is_ok_and(|file| file.len() > 0) {
            command.arg("-cert_chain").arg(&own.issuers);
        }
        command.arg("-CAfile").arg(trusted).arg("-verify_return_error");
        command
    }

    /// The program with its own settings, not the machine's.
    pub(crate) fn bare(&self, what: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .env("OPENSSL_CONF", "/dev/null");
        command
    }
}

/// What a client printed.
#[derive(Debug)]
pub(crate) struct Said {
    /// What the server sent.
    pub(crate) came: String,
    /// Its errors.
    pub(crate) errors: String,
}

/// A server that stands until it is dropped.
pub(crate) struct Server {
    child: Child,
    readers: JoinSet<String>,
    pub(crate) port: u16,
}

impl Server {
    /// Waits for the end of one that takes a single session (`-naccept 1`), and returns what it said about errors.
    pub(crate) async fn end(mut self) -> anyhow::Result<String> {
        let work = async {
            self.child.wait().await?;
            anyhow::Ok(self.readers.join_all().await.concat())
        };
        timeout(LONG, work).await.context("s_server does not end")?
    }
}
