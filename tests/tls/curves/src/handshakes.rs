//! Handshakes per second of processor time of one side, ours against OpenSSL's own programs: full handshakes with both
//! certificates, no resumption. As client both open sessions with the same `s_server`; as server both serve the same
//! `s_time`. Each side shows a leaf issued by its root, all on the curve, and judges the other's.
//!
//! "Ours" is the daemon's provider under rustls with webpki; the socket's costs count on both sides.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use serde_json::json;

use crate::{
    pki::{self, CURVES, Curve, Leaf, Wish},
    report,
    tls::{Offer, Profile, provider},
};

/// How long each of the four ways of a row goes on.
fn seconds() -> u64 {
    std::env::var("TLS_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Processor time in seconds, of this process or of its children that have ended.
fn used(who: UsageWho) -> anyhow::Result<f64> {
    let usage = getrusage(who)?;
    let time = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// One row: the peers, the curve and the version.
struct Row<'a> {
    openssl: &'a Path,
    curve: Curve,
    tls13: bool,
    own: Leaf,
    theirs: Leaf,
    /// Settings of OpenSSL that allow the one group; `s_time` has no option for it.
    settings: PathBuf,
}

pub(crate) fn run(openssl: &Path) -> anyhow::Result<()> {
    let version = Command::new(openssl).arg("version").output()?.stdout;
    let version =
        String::from_utf8_lossy(&version).split_whitespace().nth(1).context("no version")?.to_owned();
    let place = tempfile::tempdir()?;
    println!(
        "{:<8} {:<8} {:<8} {:>12} {:>12} {:>7}",
        "as", "version", "curve", "ours /s", "OpenSSL /s", "ratio"
    );
    let mut rows = Vec::new();
    for tls13 in [false, true] {
        for curve in CURVES {
            if tls13 && curve.brainpool && (version.starts_with("3.0.") || version.starts_with("3.1.")) {
                continue;
            }
            let wish = Wish { issuers: 0, ..Wish::default() };
            let name = |side: &str| format!("{side}-{}-{tls13}", curve.short);
            let settings = place.path().join(name("settings"));
            let group = curve.group(tls13);
            fs::write(
                &settings,
                format!("openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\nGroups={group}\n"),
            )?;
            let row = Row {
                openssl,
                curve,
                tls13,
                own: pki::make(place.path(), &name("own"), [curve.name; 3], wish)?,
                theirs: pki::make(place.path(), &name("theirs"), [curve.name; 3], wish)?,
                settings,
            };
            for (role, figures) in [("client", row.as_client()?), ("server", row.as_server()?)] {
                let (ours, openssl) = figures;
                let (ratio, label) = (ours / openssl, if tls13 { "TLS 1.3" } else { "TLS 1.2" });
                println!("{role:<8} {label:<8} {:<8} {ours:>12.0} {openssl:>12.0} {ratio:>7.2}", curve.short);
                rows.push(json!({ "role": role, "version": label, "curve": curve.short,
                    "ours": ours, "openssl": openssl, "ratio": ratio }));
            }
        }
    }
    println!(
        "full mutual handshakes per second of processor time of the one side, AES128-GCM; OpenSSL {version}"
    );
    report(
        "tls-handshakes",
        &json!({ "name": "tls-handshakes", "unit": "handshakes/s of processor time", "rows": rows,
            "peer": format!("OpenSSL {version}") }),
    )
}

impl Row<'_> {
    fn suite(&self) -> [&'static str; 3] {
        if self.tls13 {
            ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]
        } else {
            ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]
        }
    }

    fn as_client(&self) -> anyhow::Result<(f64, f64)> {
        let server = self.s_server(&self.theirs, &self.own)?;
        let provider = Arc::new(provider(self.profile()));
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots(&self.theirs)?, provider.clone()).build()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.profile().versions())?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(vec![certificate(&self.own)?], key(&self.own)?)?;
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        let (from, before) = (Instant::now(), used(UsageWho::RUSAGE_SELF)?);
        let mut count = 0_u32;
        while from.elapsed() < Duration::from_secs(seconds()) {
            let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port))?;
            let mut session = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
            while session.is_handshaking() || session.wants_write() {
                session.complete_io(&mut tcp)?;
            }
            count += 1;
        }
        let ours = f64::from(count) / (used(UsageWho::RUSAGE_SELF)? - before);
        let before = used(UsageWho::RUSAGE_CHILDREN)?;
        let count = self.s_time(&self.own, &self.theirs, server.port)?;
        let openssl = count / (used(UsageWho::RUSAGE_CHILDREN)? - before);
        Ok((ours, openssl))
    }

    fn as_server(&self) -> anyhow::Result<(f64, f64)> {
        let provider = Arc::new(provider(self.profile()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots(&self.theirs)?, provider.clone()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.profile().versions())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate(&self.own)?], key(&self.own)?)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let before = used(UsageWho::RUSAGE_SELF)?;
        // The driver ends; then a connection without a word ends the server.
        let served = thread::scope(|scope| {
            let serving = scope.spawn(|| serve(&listener, &config));
            let driven = self.s_time(&self.theirs, &self.own, port);
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            let served = serving.join().map_err(|_| anyhow!("the server panicked"))??;
            ensure!(driven? > 0.0, "no handshake");
            Ok(served)
        })?;
        let ours = f64::from(served) / (used(UsageWho::RUSAGE_SELF)? - before);

        let server = self.s_server(&self.own, &self.theirs)?;
        let count = self.s_time(&self.theirs, &self.own, server.port)?;
        // The driver is a child, too, and has ended already.
        let before = used(UsageWho::RUSAGE_CHILDREN)?;
        drop(server);
        let openssl = count / (used(UsageWho::RUSAGE_CHILDREN)? - before);
        Ok((ours, openssl))
    }

    fn profile(&self) -> Profile {
        Profile::Han(Offer { tls13: self.tls13, cbc: false })
    }

    fn command(&self, what: &str, own: &Leaf, theirs: &Leaf) -> Command {
        let mut command = Command::new(self.openssl);
        command.env("OPENSSL_CONF", &self.settings).stdin(Stdio::null()).stdout(Stdio::piped());
        command.arg(what).args(self.suite()).arg("-cert").arg(&own.certificate).arg("-key").arg(&own.key);
        command.arg("-CAfile").arg(&theirs.root);
        command
    }

    fn s_server(&self, own: &Leaf, theirs: &Leaf) -> anyhow::Result<Server> {
        let mut command = self.command("s_server", own, theirs);
        command.args([
            "-accept",
            "127.0.0.1:0",
            "-Verify",
            "9",
            "-verify_return_error",
            "-verify_quiet",
            "-www",
        ]);
        command.args(["-no_ticket", "-no_cache"]);
        let mut child = command.stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            let port = line.trim_end().strip_prefix("ACCEPT ").and_then(|address| address.rsplit(':').next());
            if let Some(port) = port {
                let port = port.parse()?;
                // Whoever writes into a full pipe waits.
                thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                return Ok(Server { child, port });
            }
            line.clear();
        }
        anyhow::bail!("s_server ended")
    }

    /// How many sessions OpenSSL's own timer opened.
    fn s_time(&self, own: &Leaf, theirs: &Leaf, port: u16) -> anyhow::Result<f64> {
        let mut command = self.command("s_time", own, theirs);
        command.arg("-connect").arg(format!("{}:{port}", Ipv4Addr::LOCALHOST));
        command.args(["-new", "-verify", "9", "-time", &seconds().to_string()]);
        // It tells of each certificate: both pipes are read at once, or it would wait.
        let output = command.stderr(Stdio::piped()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        // "1105 connections in 0.44s; 2511.36 connections/user sec, bytes read 0"
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "connections");
        let count = at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok());
        count.with_context(|| format!("{}: s_time said {text} {errors}", self.curve.short))
    }
}

/// Serves until a connection brings no handshake.
fn serve(listener: &TcpListener, config: &Arc<ServerConfig>) -> anyhow::Result<u32> {
    let mut count = 0;
    loop {
        let (mut tcp, _) = listener.accept()?;
        if tcp.peek(&mut [0])? == 0 {
            return Ok(count);
        }
        let mut session = ServerConnection::new(config.clone())?;
        while session.is_handshaking() || session.wants_write() {
            session.complete_io(&mut tcp)?;
        }
        count += 1;
        // The client's end comes first.
        let _ = tcp.read(&mut [0; 64]);
    }
}

/// Ended when it is dropped; its processor time counts from then on.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn roots(leaf: &Leaf) -> anyhow::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&leaf.root)?)?;
    Ok(Arc::new(roots))
}

fn certificate(leaf: &Leaf) -> anyhow::Result<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_file(&leaf.certificate)?)
}

fn key(leaf: &Leaf) -> anyhow::Result<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_file(&leaf.key)?)
}
