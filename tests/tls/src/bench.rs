//! Handshakes: processor time per handshake, ours against OpenSSL's own, mutual TLS with a leaf and its issuer on the
//! curve, no resumption. As client against the same `s_server`, as server against the same `s_time`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use ladewartd::{config::GatewayTls, tls};
use nix::{
    sys::resource::{UsageWho, getrusage},
    unistd::{SysconfVar, sysconf},
};
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    ours,
    peer::{LONG, OpenSsl},
    pki::{self, CURVES, Curve, Leaf, Wish},
    report,
};

fn seconds() -> u64 {
    std::env::var("TLS_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Processor time of this process, in seconds.
fn own_time() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// Processor time of a running process, in seconds (proc_pid_stat(5): utime and stime).
fn time_of(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(ticks / per_second as f64)
}

/// Leaf and issuer are both trusted: `s_time` shows its leaf alone.
fn trusted(leaf: &Leaf, place: &Path, name: &str) -> anyhow::Result<std::path::PathBuf> {
    let file = place.join(format!("{name}.trusted.pem"));
    std::fs::write(&file, std::fs::read_to_string(&leaf.root)? + &std::fs::read_to_string(&leaf.issuers)?)?;
    Ok(file)
}

fn group(curve: Curve, tls13: bool) -> String {
    match curve.name {
        "prime256v1" => "P-256".to_owned(),
        "secp384r1" => "P-384".to_owned(),
        other if tls13 => format!("{other}tls13"),
        other => other.to_owned(),
    }
}

pub(crate) async fn run(peer: &OpenSsl, place: &Path) -> anyhow::Result<()> {
    println!(
        "{:<8} {:<8} {:<8} {:>14} {:>14} {:>7}",
        "we are", "version", "curve", "ours /s", "OpenSSL /s", "ratio"
    );
    let mut rows = Vec::new();
    for tls13 in [false, true] {
        for curve in CURVES {
            let own =
                pki::make(place, &format!("own-{}-{tls13}", curve.short), [curve.name; 3], Wish::default())?;
            let theirs = pki::make(
                place,
                &format!("their-{}-{tls13}", curve.short),
                [curve.name; 3],
                Wish::default(),
            )?;
            for client in [true, false] {
                let (ours, openssl) = if client {
                    as_client(peer, &own, &theirs, curve, tls13, place).await?
                } else {
                    as_server(peer, &own, &theirs, curve, tls13, place).await?
                };
                let (role, version) =
                    (if client { "client" } else { "server" }, if tls13 { "TLS 1.3" } else { "TLS 1.2" });
                let ratio = ours / openssl;
                println!(
                    "{role:<8} {version:<8} {:<8} {ours:>14.0} {openssl:>14.0} {ratio:>7.2}",
                    curve.short
                );
                rows.push(json!({ "role": role, "version": version, "curve": curve.short, "ours": ours,
                    "openssl": openssl, "ratio": ratio }));
            }
        }
    }
    println!("handshakes per second of processor time of the one side; OpenSSL {}", peer.version);
    report(
        "tls-handshakes",
        &json!({ "name": "tls-handshakes", "unit": "handshakes/s of processor time",
        "rows": rows, "peer": format!("OpenSSL {}", peer.version) }),
    )
}

fn options(tls13: bool) -> [&'static str; 3] {
    if tls13 {
        ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]
    } else {
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]
    }
}

async fn as_client(
    peer: &OpenSsl,
    own: &Leaf,
    theirs: &Leaf,
    curve: Curve,
    tls13: bool,
    place: &Path,
) -> anyhow::Result<(f64, f64)> {
    let trust = trusted(own, place, "own")?;
    let group = group(curve, tls13);
    let options = options(tls13);
    let server = peer
        .server(
            theirs,
            &trust,
            &[options[0], options[1], options[2], "-groups", &group, "-no_ticket", "-no_cache"],
        )
        .await?;
    let client =
        ours::client(own, &ours::anchors(&theirs.root, None), GatewayTls { tls13, ..GatewayTls::default() })?;
    let (from, before) = (Instant::now(), own_time()?);
    let mut count = 0_u32;
    while from.elapsed() < Duration::from_secs(seconds()) {
        let tcp = TcpStream::connect(("127.0.0.1", server.port)).await?;
        let name = tls::server_name("localhost").map_err(|e| anyhow!(e))?;
        timeout(LONG, client.connect(name, tcp)).await??;
        count += 1;
    }
    let ours = f64::from(count) / (own_time()? - before);
    let (_, openssl) =
        s_time(peer, own, &trusted(theirs, place, "theirs")?, server.port, &group, tls13, place).await?;
    Ok((ours, openssl))
}

/// How many connections `s_time` made, and how many per second of its processor time.
async fn s_time(
    peer: &OpenSsl,
    own: &Leaf,
    trust: &Path,
    port: u16,
    group: &str,
    tls13: bool,
    place: &Path,
) -> anyhow::Result<(f64, f64)> {
    // It has no option for groups.
    let settings = place.join("s_time.cnf");
    std::fs::write(
        &settings,
        format!("openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nGroups = {group}\n"),
    )?;
    let mut command = peer.bare("s_time");
    command.env("OPENSSL_CONF", &settings).arg("-connect").arg(format!("127.0.0.1:{port}"));
    command.arg("-cert").arg(&own.leaf).arg("-key").arg(&own.key).arg("-CAfile").arg(trust);
    command.args(options(tls13)).args(["-new", "-verify", "9", "-time", &seconds().to_string()]);
    let child = command.spawn()?;
    let output = timeout(LONG, child.wait_with_output()).await.context("s_time does not end")??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "1105 connections in 0.44s; 2511.36 connections/user sec, bytes read 0"
    let words: Vec<_> = text.split_whitespace().collect();
    let before = |what: &str| {
        let at = words.iter().position(|word| word.starts_with(what))?;
        words[at.checked_sub(1)?].parse().ok()
    };
    before("connections")
        .zip(before("connections/user"))
        .with_context(|| format!("s_time said {text} {}", String::from_utf8_lossy(&output.stderr)))
}

async fn as_server(
    peer: &OpenSsl,
    own: &Leaf,
    theirs: &Leaf,
    curve: Curve,
    tls13: bool,
    place: &Path,
) -> anyhow::Result<(f64, f64)> {
    let group = group(curve, tls13);
    let trust = ours::anchors(&trusted(theirs, place, "theirs")?, None);
    let config = ours::server(own, &trust, GatewayTls { tls13, ..GatewayTls::default() })?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let roots = trusted(own, place, "own")?;
    let mut count = 0_u32;
    let before = own_time()?;
    let serving = async {
        loop {
            let (tcp, _) = listener.accept().await?;
            let mut stream = TlsAcceptor::from(config.clone()).accept(tcp).await?;
            let _ = stream.read(&mut [0; 64]).await;
            count += 1;
        }
    };
    let driving = s_time(peer, theirs, &roots, port, &group, tls13, place);
    tokio::select! {
        failed = serving => { let failed: anyhow::Result<()> = failed; failed?; }
        done = driving => { done?; }
    }
    let ours = f64::from(count) / (own_time()? - before);
    ensure!(count > 0, "no handshake");

    let their_trust = trusted(theirs, place, "theirs")?;
    let options = options(tls13);
    let server = peer
        .server(
            own,
            &their_trust,
            &[options[0], options[1], options[2], "-groups", &group, "-no_ticket", "-no_cache"],
        )
        .await?;
    let pid = server.child.id().context("s_server has ended")?;
    let before = time_of(pid)?;
    let (count, _) = s_time(peer, theirs, &roots, server.port, &group, tls13, place).await?;
    let openssl = count / (time_of(pid)? - before);
    Ok((ours, openssl))
}
