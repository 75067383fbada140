//! 5 curves × suites × client and server × TLS 1.2 and 1.3 against each OpenSSL, with mutual TLS over chains of three
//! certificates on the curve; then chains of mixed curves.

use std::{fmt::Write as _, path::Path};

use anyhow::ensure;
use ladewartd::config::GatewayTls;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    ours,
    peer::OpenSsl,
    pki::{self, CURVES, Curve, Leaf, Wish},
    report,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Tls12,
    Tls13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suite {
    Gcm128,
    Gcm256,
    Cbc128,
}

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Gcm128 => "GCM-128",
            Self::Gcm256 => "GCM-256",
            Self::Cbc128 => "C023",
        }
    }

    /// OpenSSL's option, and the name under which rustls tells of it; `None` where there is none.
    const fn of(self, version: Version) -> Option<([&'static str; 2], &'static str)> {
        Some(match (self, version) {
            (Self::Gcm128, Version::Tls12) => {
                (["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
            }
            (Self::Gcm256, Version::Tls12) => {
                (["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
            }
            (Self::Cbc128, Version::Tls12) => {
                (["-cipher", "ECDHE-ECDSA-AES128-SHA256"], "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256")
            }
            (Self::Gcm128, Version::Tls13) => {
                (["-ciphersuites", "TLS_AES_128_GCM_SHA256"], "TLS13_AES_128_GCM_SHA256")
            }
            (Self::Gcm256, Version::Tls13) => {
                (["-ciphersuites", "TLS_AES_256_GCM_SHA384"], "TLS13_AES_256_GCM_SHA384")
            }
            (Self::Cbc128, Version::Tls13) => return None,
        })
    }
}

/// One cell of the table.
struct Case<'a> {
    peer: &'a OpenSsl,
    client: bool,
    version: Version,
    suite: Suite,
    curve: Curve,
}

impl Case<'_> {
    /// What has to come out, and what it means.
    fn expected(&self) -> Outcome {
        let old = self.version == Version::Tls13 && self.curve.brainpool && !self.peer.brainpool_in_tls13();
        if old {
            return Outcome::Refused("its OpenSSL has no brainpool in TLS 1.3 (RFC 8734)");
        }
        let Some((_, suite)) = self.suite.of(self.version) else {
            return Outcome::Absent("TLS 1.3 has no CBC");
        };
        Outcome::Session(match self.version {
            Version::Tls12 => format!("TLSv1.2 {suite} {}", self.curve.ours),
            Version::Tls13 if self.curve.brainpool => format!("TLSv1.3 {suite} {}tls13", self.curve.ours),
            Version::Tls13 => format!("TLSv1.3 {suite} {}", self.curve.ours),
        })
    }

    async fn run(&self, own: &Leaf, theirs: &Leaf) -> anyhow::Result<Result<String, String>> {
        let Some((suite, _)) = self.suite.of(self.version) else {
            return Ok(Err(String::new()));
        };
        let tls = GatewayTls {
            tls13: self.version == Version::Tls13,
            cbc: self.suite == Suite::Cbc128,
            omit_scsv: None,
        };
        let trust = ours::anchors(&theirs.root, None);
        let version = match self.version {
            Version::Tls12 => "-tls1_2",
            Version::Tls13 => "-tls1_3",
        };
        let tls13 = self.version == Version::Tls13 && self.curve.brainpool;
        let name = match self.curve.name {
            "prime256v1" => "P-256",
            "secp384r1" => "P-384",
            other => other,
        };
        let group =
            if tls13 && self.peer.brainpool_in_tls13() { format!("{name}tls13") } else { name.to_owned() };
        let options = [version, suite[0], suite[1], "-groups", &group];
        if self.client {
            let client = ours::client(own, &trust, tls)?;
            let server = self.peer.server(theirs, &own.root, &options).await?;
            ours::talk(&client, server.port).await
        } else {
            let config = ours::server(own, &trust, tls)?;
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let port = listener.local_addr()?.port();
            let (served, said) = tokio::join!(
                ours::serve(&config, &listener),
                self.peer.client(Some(theirs), &own.root, port, &options)
            );
            let (served, (got, _)) = (served?, said?);
            Ok(match served {
                Ok(_) if !got.contains("olleh") => Err(format!("s_client got {got:?}")),
                other => other,
            })
        }
    }
}

enum Outcome {
    /// The session as we tell of it.
    Session(String),
    /// An alert, and why.
    Refused(&'static str),
    /// There is nothing to try.
    Absent(&'static str),
}

/// Prints the table; an error if a cell is not as it has to be.
pub(crate) async fn run(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    let mut own = Vec::new();
    let mut theirs = Vec::new();
    for curve in CURVES {
        own.push(pki::make(place, &format!("cls-{}", curve.short), [curve.name; 3], Wish::default())?);
        theirs.push(pki::make(place, &format!("gateway-{}", curve.short), [curve.name; 3], Wish::default())?);
    }
    let mut table = String::new();
    write!(table, "{:<16} {:<7} {:<8} {:<8}", "peer", "we are", "version", "suite")?;
    CURVES.iter().try_for_each(|curve| write!(table, " {:>8}", curve.short))?;
    table.push('\n');
    let (mut rows, mut wrong, mut notes) = (Vec::new(), Vec::new(), Vec::<&str>::new());
    let (mut passed, mut refused) = (0, 0);
    for peer in peers {
        for client in [true, false] {
            for version in [Version::Tls12, Version::Tls13] {
                for suite in [Suite::Gcm128, Suite::Gcm256, Suite::Cbc128] {
                    let role = if client { "client" } else { "server" };
                    let label = if version == Version::Tls12 { "TLS 1.2" } else { "TLS 1.3" };
                    let peer_name = format!("OpenSSL {}", peer.version);
                    write!(table, "{peer_name:<16} {role:<7} {label:<8} {:<8}", suite.name())?;
                    for (i, curve) in CURVES.into_iter().enumerate() {
                        let case = Case { peer, client, version, suite, curve };
                        let mut note = |reason: &'static str| {
                            let at = notes.iter().position(|note| *note == reason).unwrap_or_else(|| {
                                notes.push(reason);
                                notes.len() - 1
                            });
                            at + 1
                        };
                        let what = format!("{peer_name} {role} {label} {} {}", suite.name(), curve.short);
                        let (cell, result) = match case.expected() {
                            Outcome::Absent(reason) => (format!("– {}", note(reason)), "absent".to_owned()),
                            expected => match (expected, case.run(&own[i], &theirs[i]).await?) {
                                (Outcome::Session(expected), Ok(session)) if session == expected => {
                                    passed += 1;
                                    ("ok".to_owned(), "ok".to_owned())
                                }
                                (Outcome::Refused(reason), Err(fault)) => {
                                    refused += 1;
                                    (format!("no {}", note(reason)), format!("refused: {fault}"))
                                }
                                (Outcome::Session(expected), other) => {
                                    wrong.push(format!("{what}: expected {expected}, got {other:?}"));
                                    ("WRONG".to_owned(), format!("{other:?}"))
                                }
                                (_, other) => {
                                    wrong.push(format!("{what}: expected a refusal, got {other:?}"));
                                    ("WRONG".to_owned(), format!("{other:?}"))
                                }
                            },
                        };
                        write!(table, " {cell:>8}")?;
                        rows.push(json!({ "peer": peer_name, "role": role, "version": label,
                            "suite": suite.name(), "curve": curve.short, "result": result }));
                    }
                    table.push('\n');
                }
            }
        }
    }
    print!("{table}");
    for (i, note) in notes.iter().enumerate() {
        println!("  {}: {note}", i + 1);
    }
    println!("{passed} sessions, {refused} refused for the reason stated");
    report(
        "tls-matrix",
        &json!({ "name": "tls-matrix", "unit": "sessions", "value": passed, "rows": rows,
        "peer": peers.iter().map(|peer| format!("OpenSSL {}", peer.version)).collect::<Vec<_>>() }),
    )?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    mixed(peers, place).await
}

/// Root, issuer, leaf and key exchange each on another curve.
async fn mixed(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    println!("\nchains of mixed curves, TLS 1.2, GCM-256");
    let mut wrong = Vec::new();
    for i in 0..CURVES.len() {
        let at = |j: usize| CURVES[(i + j) % CURVES.len()];
        let curves = [at(0).name, at(1).name, at(2).name];
        let own = pki::make(place, &format!("mixed-cls-{i}"), curves, Wish::default())?;
        let theirs = pki::make(
            place,
            &format!("mixed-gateway-{i}"),
            [curves[1], curves[2], curves[0]],
            Wish::default(),
        )?;
        for peer in peers {
            for client in [true, false] {
                let case = Case { peer, client, version: Version::Tls12, suite: Suite::Gcm256, curve: at(3) };
                // A strict peer wants the curves of both leaves among the groups.
                let result = case.run_with(&own, &theirs, &[at(3), at(2), at(0)]).await?;
                let role = if client { "client" } else { "server" };
                println!(
                    "  OpenSSL {:<8} we are {role}: ours {} > {} > {}, theirs {} > {} > {}: {}",
                    peer.version,
                    at(0).short,
                    at(1).short,
                    at(2).short,
                    at(1).short,
                    at(2).short,
                    at(0).short,
                    result.as_deref().map_or_else(|fault| format!("WRONG: {fault}"), str::to_owned)
                );
                if let Err(fault) = result {
                    wrong.push(format!("mixed {i} {role} OpenSSL {}: {fault}", peer.version));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

impl Case<'_> {
    async fn run_with(
        &self,
        own: &Leaf,
        theirs: &Leaf,
        groups: &[Curve],
    ) -> anyhow::Result<Result<String, String>> {
        let names: Vec<_> = groups
            .iter()
            .map(|curve| match curve.name {
                "prime256v1" => "P-256",
                "secp384r1" => "P-384",
                other => other,
            })
            .collect();
        let groups = names.join(":");
        let options = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384", "-groups", &groups];
        let trust = ours::anchors(&theirs.root, None);
        if self.client {
            let client = ours::client(own, &trust, GatewayTls::default())?;
            let server = self.peer.server(theirs, &own.root, &options).await?;
            return ours::talk(&client, server.port).await;
        }
        let config = ours::server(own, &trust, GatewayTls::default())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (served, said) = tokio::join!(
            ours::serve(&config, &listener),
            self.peer.client(Some(theirs), &own.root, port, &options)
        );
        said?;
        served
    }
}
