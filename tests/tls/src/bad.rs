//! Wrong certificates, wrong names and nothing in common, in both directions: our sentence with our alert, and the alert
//! as OpenSSL saw it. A session with another target stands beside and goes on.

use std::path::Path;

use anyhow::{Context as _, ensure};
use ladewartd::config::{GatewayTls, Trust};
use serde_json::{Value, json};

use crate::{
    ours::{self, Standing},
    peer::OpenSsl,
    pki::{self, Leaf, Wish, openssl},
    report,
};

const BP256: [&str; 3] = ["brainpoolP256r1"; 3];

/// A certificate of the peer and what we say to it.
struct Wrong {
    what: &'static str,
    theirs: Leaf,
    trust: Trust,
    /// Parts of our sentence where the peer is the server, and where it is the client; empty where it is right.
    says: [&'static str; 2],
}

const UNKNOWN: &str = "its certificate is not issued by a trusted CA (sent alert unknown_ca)";
const OUTSIDE: &str = "its certificate uses a curve or a signature outside the profile (sent alert ";
const NOTHING: &str =
    "received alert handshake_failure: the peer accepts none of our suites, groups or signatures";
const PURPOSE: &str =
    "its certificate is not made for this end of TLS (key usage or extended key usage) (sent alert ";

fn wrongs(place: &Path, good: &Leaf) -> anyhow::Result<Vec<Wrong>> {
    let wish = Wish::default();
    let past = Some(("20200101000000Z", "20210101000000Z"));
    let future = Some(("20900101000000Z", "20910101000000Z"));
    let on = |root, issuer, leaf| [root, issuer, leaf];
    let bp256 = BP256[0];
    // What, its three algorithms, what is special, our sentence to a server and to a client.
    #[rustfmt::skip]
    let certificates = [
        ("expired", BP256, Wish { dates: past, ..wish },
            ["its certificate expired at 2021-01-01T00:00:00.000Z (sent alert certificate_expired)"; 2]),
        ("not valid yet", BP256, Wish { dates: future, ..wish },
            ["its certificate is not valid before 2090-01-01T00:00:00.000Z, our clock says "; 2]),
        ("on secp521r1", on(bp256, bp256, "secp521r1"), wish, [NOTHING, OUTSIDE]),
        ("for Ed25519", on(bp256, bp256, "ED25519"), wish, [NOTHING, "the peer shows no certificate (sent alert certificate_required)"]),
        ("for RSA", on(bp256, bp256, "RSA"), wish, [NOTHING, "the peer shows no certificate (sent alert certificate_required)"]),
        ("issued on secp521r1", on(bp256, "secp521r1", bp256), wish, [OUTSIDE; 2]),
        ("issued with RSA", on(bp256, "RSA", bp256), wish, [OUTSIDE; 2]),
        // OpenSSL does not serve with it.
        ("without digitalSignature", BP256, Wish { key_usage: "keyAgreement", ..wish }, [NOTHING, PURPOSE]),
        ("for code signing", BP256, Wish { purposes: "codeSigning", ..wish }, [PURPOSE; 2]),
        ("for clients only", BP256, Wish { purposes: "clientAuth", ..wish }, [PURPOSE, ""]),
        ("for servers only", BP256, Wish { purposes: "serverAuth", ..wish }, ["", PURPOSE]),
        ("eight issuers long", BP256, Wish { issuers: 8, ..wish }, ["its chain is too long (sent alert "; 2]),
    ];
    let mut list = Vec::new();
    for (i, (what, algorithms, wish, says)) in certificates.into_iter().enumerate() {
        let theirs = pki::make(place, &format!("wrong-{i}"), algorithms, wish)?;
        let trust = ours::anchors(&theirs.root, None);
        list.push(Wrong { what, theirs, trust, says });
    }
    let of_good = ours::anchors(&good.root, None);
    let other = pki::make(place, "other-ca", BP256, wish)?;
    list.push(Wrong { what: "of another CA", theirs: other, trust: of_good.clone(), says: [UNKNOWN; 2] });
    let stranger = self_signed(place)?;
    let pin = "its certificate is a CA certificate; such a gateway can only be trusted by a pin (sent alert ";
    list.push(Wrong { what: "self-signed", theirs: stranger.clone(), trust: of_good, says: [pin; 2] });
    let pinned = Trust { pins: vec![[7; 32]], ca: None, tofu: false };
    let fingerprint = "its certificate has the fingerprint ";
    list.push(Wrong { what: "other than pinned", theirs: stranger, trust: pinned, says: [fingerprint; 2] });
    let named = pki::make(place, "named", BP256, wish)?;
    let trust = ours::anchors(&named.root, Some("gateway.example"));
    let name = "its certificate is not for gateway.example; it carries DnsName(\"localhost\") (sent alert ";
    list.push(Wrong { what: "of another name", theirs: named, trust, says: [name; 2] });
    Ok(list)
}

fn self_signed(place: &Path) -> anyhow::Result<Leaf> {
    let directory = place.join("stranger");
    std::fs::create_dir_all(&directory)?;
    openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:brainpoolP256r1",
            "-nodes",
            "-subj",
            "/CN=stranger",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-days",
            "9",
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.pem",
        ],
        &directory,
    )?;
    std::fs::write(directory.join("issuers.pem"), "")?;
    let at = |file: &str| directory.join(file);
    Ok(Leaf {
        certificate: at("leaf.pem"),
        issuers: at("issuers.pem"),
        chain: at("leaf.pem"),
        key: at("leaf.key"),
        root: at("leaf.pem"),
    })
}

/// The alert that OpenSSL received, by its number in its message; RFC 5246 §7.2, RFC 8446 §6.
fn seen(errors: &str) -> &'static str {
    let number = errors.split("SSL alert number ").nth(1).and_then(|rest| rest.split_whitespace().next());
    match number {
        None => "–",
        Some("40") => "handshake_failure",
        Some("42") => "bad_certificate",
        Some("43") => "unsupported_certificate",
        Some("44") => "certificate_revoked",
        Some("45") => "certificate_expired",
        Some("46") => "certificate_unknown",
        Some("47") => "illegal_parameter",
        Some("48") => "unknown_ca",
        Some("49") => "access_denied",
        Some("50") => "decode_error",
        Some("51") => "decrypt_error",
        Some("70") => "protocol_version",
        Some("80") => "internal_error",
        Some("116") => "certificate_required",
        Some(_) => "another",
    }
}

struct Table<'a> {
    peer: &'a OpenSsl,
    rows: Vec<Value>,
    wrong: Vec<String>,
}

impl Table<'_> {
    /// What we say has to contain `says`; an alert that we claim to have sent is one that OpenSSL has received.
    fn row(&mut self, what: &str, role: &str, says: &str, got: &Result<String, String>, errors: &str) {
        let alert = seen(errors);
        let (text, good) = match got {
            Ok(session) => (format!("a session: {session}"), says.is_empty()),
            Err(fault) => (fault.clone(), !says.is_empty() && fault.contains(says)),
        };
        let claimed = text.split("sent alert ").nth(1).map(|rest| rest.trim_end_matches(')'));
        let honest = claimed.is_none_or(|claimed| claimed == alert);
        let mark = if good && honest { "" } else { "WRONG " };
        println!("  {what:<27} {role:<7} {alert:<23} {mark}{text}");
        self.rows.push(json!({ "peer": self.peer.to_string(), "what": what, "peer_is": role,
            "alert_seen_by_peer": alert, "we_say": text }));
        if !(good && honest) {
            self.wrong.push(format!("{what}, {role}: expected {says:?}, got {text:?}; it said {errors}"));
        }
    }
}

pub(crate) async fn run(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    let own = pki::make(place, "cls", BP256, Wish::default())?;
    let good = pki::make(place, "gateway", BP256, Wish::default())?;
    let wrongs = wrongs(place, &good)?;
    let trust = ours::anchors(&good.root, None);
    let old = Wish { dates: Some(("20200101000000Z", "20210101000000Z")), ..Wish::default() };
    let old = pki::make(place, "own-expired", BP256, old)?;
    let stranger = pki::make(place, "own-stranger", BP256, Wish::default())?;
    let groups = "brainpoolP256r1:P-256:P-521";
    let options = ["-tls1_2", "-groups", groups];
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for peer in peers {
        let mut standing = Standing::new(peer, &own, &good, &trust, &options).await?;
        let mut table = Table { peer, rows: Vec::new(), wrong: Vec::new() };
        println!("\n  {:<27} {:<7} {:<23} we say", peer.to_string(), "as", "it saw our alert");
        println!(" its certificate is");
        for Wrong { what, theirs, trust, says } in &wrongs {
            let (got, errors) = to_server(peer, &own, theirs, &own.root, trust, &options).await?;
            table.row(what, "server", says[0], &got, &errors);
            let tls = GatewayTls::default();
            let (got, said) = ours::served(peer, Some(theirs), &own, trust, tls, &options).await?;
            table.row(what, "client", says[1], &got, &said.errors);
            standing.turn().await.with_context(|| format!("another session ended after {what}"))?;
        }
        let tls = GatewayTls::default();
        let (got, said) = ours::served(peer, None, &own, &trust, tls, &options).await?;
        table.row(
            "missing",
            "client",
            "the peer shows no certificate (sent alert certificate_required)",
            &got,
            &said.errors,
        );

        println!(" it does not take ours, or has nothing in common with us");
        let chacha = ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"];
        let foreign = ["-tls1_2", "-servername", "emt.example", "-servername_fatal"];
        let pair = [good.certificate.to_string_lossy(), good.key.to_string_lossy()];
        let foreign = [&foreign[..], &["-cert2", &*pair[0], "-key2", &*pair[1]]].concat();
        #[rustfmt::skip]
        let others = [
            ("ours is of another CA", &own, &stranger.root, &["-tls1_2"][..],
                "received alert unknown_ca: the peer does not know our certificate or its issuer"),
            ("ours is expired", &old, &old.root, &["-tls1_2"],
                "received alert certificate_expired: the peer holds our certificate for expired"),
            ("ChaCha20 alone", &own, &own.root, &chacha, NOTHING),
            ("secp521r1 alone", &own, &own.root, &["-tls1_2", "-groups", "P-521"], NOTHING),
            ("TLS 1.3 alone", &own, &own.root, &["-tls1_3"],
                "received alert protocol_version: the peer does not speak our TLS version"),
            ("it serves another name", &own, &own.root, &foreign,
                "received alert unrecognized_name: the peer does not serve the name that we asked for"),
        ];
        for (what, shown, root, options, says) in others {
            let (got, errors) = to_server(peer, shown, &good, root, &trust, options).await?;
            table.row(what, "server", says, &got, &errors);
            standing.turn().await.with_context(|| format!("another session ended after {what}"))?;
        }
        let suites = "the peer offers none of our suites (sent alert handshake_failure)";
        let groups = "the peer offers none of our groups (sent alert handshake_failure)";
        let nothing: [(&str, &[&str], &str); 3] = [
            ("ChaCha20 alone", &chacha, suites),
            ("secp521r1 alone", &["-tls1_2", "-groups", "P-521"], groups),
            (
                "TLS 1.3 alone",
                &["-tls1_3"],
                "the peer does not speak our TLS version (sent alert protocol_version)",
            ),
        ];
        for (what, options, says) in nothing {
            let tls = GatewayTls::default();
            let (got, said) = ours::served(peer, Some(&good), &own, &trust, tls, options).await?;
            table.row(what, "client", says, &got, &said.errors);
        }
        println!("  meanwhile {} lines went through each of two other sessions", standing.turns());
        rows.append(&mut table.rows);
        wrong.append(&mut table.wrong);
    }
    let value = rows.len() - wrong.len();
    report(
        "tls-bad",
        &json!({ "name": "tls-bad", "unit": "answers", "value": value, "rows": rows,
            "peer": crate::versions(peers) }),
    )?;
    println!("{value} answers, {} wrong", wrong.len());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// We open a session with the peer's server; what came of it, and what the server said.
async fn to_server(
    peer: &OpenSsl,
    own: &Leaf,
    theirs: &Leaf,
    root: &Path,
    trust: &Trust,
    options: &[&str],
) -> anyhow::Result<(Result<String, String>, String)> {
    let client = ours::client(own, trust, GatewayTls::default())?;
    let server = peer.server(theirs, root, &[options, &["-naccept", "1"]].concat()).await?;
    let got = ours::talk(&client, server.port).await?;
    Ok((got, server.end().await?))
}
