//! 5 curves × suites × client and server × TLS 1.2 and 1.3 against each OpenSSL, with mutual TLS over chains of three
//! certificates on the curve.

use std::{fmt::Write as _, path::Path};

use anyhow::ensure;
use ladewartd::config::GatewayTls;
use serde_json::{Value, json};

use crate::{
    ours,
    peer::OpenSsl,
    pki::{self, CURVES, Curve, Leaf, Wish},
    report, versions,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::Tls12 => "-tls1_2",
            Self::Tls13 => "-tls1_3",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    Gcm128,
    Gcm256,
    Cbc128,
    /// The same, without `cbc = true` in the configuration.
    CbcUnasked,
}

impl Suite {
    const ALL: [Self; 4] = [Self::Gcm128, Self::Gcm256, Self::Cbc128, Self::CbcUnasked];

    const fn name(self) -> &'static str {
        match self {
            Self::Gcm128 => "AES128-GCM",
            Self::Gcm256 => "AES256-GCM",
            Self::Cbc128 => "C023",
            Self::CbcUnasked => "C023, not opted in",
        }
    }

    /// OpenSSL's option, and the name under which rustls tells of it; `None` where there is none.
    pub(crate) const fn of(self, version: Version) -> Option<([&'static str; 2], &'static str)> {
        Some(match (self, version) {
            (Self::Gcm128, Version::Tls12) => {
                (["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
            }
            (Self::Gcm256, Version::Tls12) => {
                (["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
            }
            (Self::Cbc128 | Self::CbcUnasked, Version::Tls12) => {
                (["-cipher", "ECDHE-ECDSA-AES128-SHA256"], "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256")
            }
            (Self::Gcm128, Version::Tls13) => {
                (["-ciphersuites", "TLS_AES_128_GCM_SHA256"], "TLS13_AES_128_GCM_SHA256")
            }
            (Self::Gcm256, Version::Tls13) => {
                (["-ciphersuites", "TLS_AES_256_GCM_SHA384"], "TLS13_AES_256_GCM_SHA384")
            }
            (Self::Cbc128 | Self::CbcUnasked, Version::Tls13) => return None,
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

/// What has to come out.
enum Expected {
    /// The session as we tell of it.
    Session(String),
    /// A refusal in these words of ours, and what it is for.
    Refused { says: &'static str, why: &'static str },
    /// There is nothing to try.
    Absent(&'static str),
}

impl Case<'_> {
    fn expected(&self) -> Expected {
        let Some((_, suite)) = self.suite.of(self.version) else {
            return Expected::Absent("TLS 1.3 has no CBC");
        };
        if self.suite == Suite::CbcUnasked {
            let why = "without `cbc = true` no CBC is offered or taken";
            let says = if self.client {
                "received alert handshake_failure"
            } else {
                "the peer offers none of our suites (sent alert handshake_failure)"
            };
            return Expected::Refused { says, why };
        }
        if self.version == Version::Tls13 && self.curve.brainpool && !self.peer.brainpool_in_tls13() {
            let why = "this OpenSSL has no brainpool in TLS 1.3 (RFC 8734)";
            let says =
                if self.client { "received alert protocol_version" } else { "received alert internal_error" };
            return Expected::Refused { says, why };
        }
        let group = self.curve.ours;
        Expected::Session(match self.version {
            Version::Tls12 => format!("TLSv1.2 {suite} {group}"),
            Version::Tls13 if self.curve.brainpool => format!("TLSv1.3 {suite} {group}tls13"),
            Version::Tls13 => format!("TLSv1.3 {suite} {group}"),
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
        let new = self.version == Version::Tls13 && self.peer.brainpool_in_tls13();
        let group = self.curve.group(new);
        let options = [self.version.option(), suite[0], suite[1], "-groups", &group];
        meet(self.peer, self.client, own, theirs, tls, &options).await
    }
}

/// One session with the peer's program; each trusts the other's root.
pub(crate) async fn meet(
    peer: &OpenSsl,
    client: bool,
    own: &Leaf,
    theirs: &Leaf,
    tls: GatewayTls,
    options: &[&str],
) -> anyhow::Result<Result<String, String>> {
    let trust = ours::anchors(&theirs.root, None);
    if client {
        let client = ours::client(own, &trust, tls)?;
        let server = peer.server(theirs, &own.root, options).await?;
        return ours::talk(&client, server.port).await;
    }
    let (served, said) = ours::served(peer, Some(theirs), own, &trust, tls, options).await?;
    Ok(match served {
        Ok(_) if !said.came.contains("olleh") => {
            Err(format!("s_client got {:?}, and said {:?}", said.came, said.errors))
        }
        other => other,
    })
}

/// The table as it grows.
#[derive(Default)]
struct Table {
    text: String,
    rows: Vec<Value>,
    notes: Vec<&'static str>,
    wrong: Vec<String>,
    passed: usize,
    refused: usize,
}

impl Table {
    /// The number of a footnote.
    fn note(&mut self, reason: &'static str) -> usize {
        let at = self.notes.iter().position(|note| *note == reason).unwrap_or_else(|| {
            self.notes.push(reason);
            self.notes.len() - 1
        });
        at + 1
    }

    fn cell(&mut self, what: &str, expected: Expected, got: Result<String, String>) -> (String, String) {
        let wish = match (expected, got) {
            (Expected::Absent(reason), _) => {
                return (format!("– {}", self.note(reason)), format!("absent: {reason}"));
            }
            (Expected::Session(expected), Ok(session)) if session == expected => {
                self.passed += 1;
                return ("ok".to_owned(), session);
            }
            (Expected::Refused { says, why }, Err(fault)) if fault.contains(says) => {
                self.refused += 1;
                return (format!("no {}", self.note(why)), format!("refused, {why}: {fault}"));
            }
            (Expected::Session(expected), got) => (expected, got),
            (Expected::Refused { says, .. }, got) => (says.to_owned(), got),
        };
        self.wrong.push(format!("{what}: expected {:?}, got {:?}", wish.0, wish.1));
        ("WRONG".to_owned(), format!("wrong: {:?}", wish.1))
    }
}

/// Prints the table; an error if a cell is not as it has to be.
pub(crate) async fn run(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    let mut own = Vec::new();
    let mut theirs = Vec::new();
    for curve in CURVES {
        own.push(pki::make(place, &format!("cls-{}", curve.short), [curve.name; 3], Wish::default())?);
        theirs.push(pki::make(place, &format!("gateway-{}", curve.short), [curve.name; 3], Wish::default())?);
    }
    let mut table = Table::default();
    write!(table.text, "{:<16} {:<7} {:<8} {:<19}", "peer", "we are", "version", "suite")?;
    CURVES.iter().try_for_each(|curve| write!(table.text, " {:>7}", curve.short))?;
    table.text.push('\n');
    for peer in peers {
        for client in [true, false] {
            for version in [Version::Tls12, Version::Tls13] {
                for suite in Suite::ALL {
                    if suite == Suite::CbcUnasked && version == Version::Tls13 {
                        continue;
                    }
                    let role = if client { "client" } else { "server" };
                    let (label, name) = (version.name(), suite.name());
                    write!(table.text, "{:<16} {role:<7} {label:<8} {name:<19}", peer.to_string())?;
                    for (i, curve) in CURVES.into_iter().enumerate() {
                        let case = Case { peer, client, version, suite, curve };
                        let got = case.run(&own[i], &theirs[i]).await?;
                        let what = format!("{peer}, we are {role}, {label}, {name}, {}", curve.short);
                        let (cell, result) = table.cell(&what, case.expected(), got);
                        write!(table.text, " {cell:>7}")?;
                        table.rows.push(json!({ "peer": peer.to_string(), "role": role, "version": label,
                            "suite": name, "curve": curve.short, "result": result }));
                    }
                    table.text.push('\n');
                }
            }
        }
    }
    let Table { text, rows, notes, wrong, passed, refused } = table;
    println!("mutual TLS, root > issuer > leaf and key exchange on the curve\n{text}");
    for (i, note) in notes.iter().enumerate() {
        println!("  {}: {note}", i + 1);
    }
    println!("{passed} sessions, {refused} refused for the reason stated, {} wrong", wrong.len());
    report(
        "tls-matrix",
        &json!({ "name": "tls-matrix", "unit": "sessions", "value": passed, "refused": refused,
            "wrong": wrong.len(), "rows": rows, "peer": versions(peers) }),
    )?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
