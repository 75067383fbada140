//! A gateway that refuses the renegotiation SCSV (RFC 5746) as a Sagemcom SMARTY IQ does, OpenSSL behind it: the one try
//! without it, and that OpenSSL's own client does not come through.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context as _, ensure};
use ladewartd::{
    config::GatewayTls,
    tls::{self, Fault, HanClient},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    matrix::{Suite, Version},
    ours,
    peer::OpenSsl,
    pki::{self, CURVES, Wish},
    report, versions,
};

/// Any ClientHello with the SCSV or the extension is answered with illegal_parameter; what passes goes to OpenSSL.
async fn strict(listener: TcpListener, behind: u16) -> anyhow::Result<()> {
    let mut sessions = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await?;
        let mut record = vec![0; 5];
        near.read_exact(&mut record).await?;
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + length, 0);
        near.read_exact(&mut record[5..]).await?;
        if refused(&record[5..]).context("no ClientHello")? {
            near.write_all(&[21, 3, 3, 0, 2, 2, 47]).await?;
            near.shutdown().await?;
            continue;
        }
        let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, behind)).await?;
        far.write_all(&record).await?;
        sessions.spawn(async move { copy_bidirectional(&mut near, &mut far).await });
    }
}

/// Whether a ClientHello holds the SCSV or renegotiation_info.
fn refused(hello: &[u8]) -> Option<bool> {
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(*hello.get(at)?);
    let suites = usize::from(u16::from_be_bytes([*hello.get(at)?, *hello.get(at + 1)?]));
    let list = hello.get(at + 2..at + 2 + suites)?;
    at += 2 + suites;
    at += 1 + usize::from(*hello.get(at)?);
    let mut extensions = hello.get(at + 2..)?;
    let mut found = list.chunks_exact(2).any(|suite| suite == [0x00, 0xff]);
    while let [a, b, c, d, rest @ ..] = extensions {
        found |= [*a, *b] == [0xff, 0x01];
        extensions = rest.get(usize::from(u16::from_be_bytes([*c, *d]))..)?;
    }
    Some(found)
}

pub(crate) async fn run(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    println!("\na gateway that answers the renegotiation SCSV with illegal_parameter, OpenSSL behind it");
    println!("{:<16} {:<7} {:<34} session of the try without it", "behind it", "curve", "first answer");
    let mut rows = Vec::new();
    for curve in CURVES {
        let own = pki::make(place, &format!("scsv-cls-{}", curve.short), [curve.name; 3], Wish::default())?;
        let theirs = pki::make(place, &format!("scsv-{}", curve.short), [curve.name; 3], Wish::default())?;
        let trust = ours::anchors(&theirs.root, None);
        let group = curve.group(false);
        for peer in peers {
            for suite in [Suite::Gcm128, Suite::Gcm256, Suite::Cbc128] {
                let ([option, cipher], _) = suite.of(Version::Tls12).context("a suite of TLS 1.2")?;
                let options = ["-tls1_2", option, cipher, "-groups", &group];
                let server = peer.server(&theirs, &own.root, &options).await?;
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let port = listener.local_addr()?.port();
                let mut front = JoinSet::new();
                front.spawn(strict(listener, server.port));
                let tls = GatewayTls { cbc: true, ..GatewayTls::default() };
                let client = ours::client(&own, &trust, tls)?;
                let first = connect(&client, port).await.err().context("the SCSV was not refused")?;
                ensure!(
                    first.to_string().starts_with("received alert illegal_parameter"),
                    "the first answer was: {first}"
                );
                ensure!(client.try_without_scsv(&first), "no second try");
                let session = ours::talk(&client, port).await?.map_err(anyhow::Error::msg)?;
                client.tried_without_scsv(true);
                ensure!(!client.try_without_scsv(&first), "tried twice");
                // From now on it is left out at once.
                ours::talk(&client, port).await?.map_err(anyhow::Error::msg)?;
                // OpenSSL's own client always sends one or the other.
                let said = peer.client(Some(&own), &theirs.root, port, &options).await?.errors;
                ensure!(said.contains("SSL alert number 47"), "OpenSSL's client came through: {said}");
                println!("{:<16} {:<7} {:<34} {session}", peer.to_string(), curve.short, first.to_string());
                rows.push(
                    json!({ "peer": peer.to_string(), "curve": curve.short, "first": first.to_string(),
                    "session": session }),
                );
            }
        }
    }
    report(
        "tls-scsv",
        &json!({ "name": "tls-scsv", "unit": "sessions", "value": rows.len(), "rows": rows,
            "peer": versions(peers) }),
    )
}

async fn connect(client: &HanClient, port: u16) -> Result<(), Fault> {
    let faulty = |error: std::io::Error| Fault::new(&error);
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(faulty)?;
    let name = tls::server_name("localhost").map_err(|e| faulty(std::io::Error::other(e)))?;
    client.connect(name, tcp).await.map(drop).map_err(faulty)
}
