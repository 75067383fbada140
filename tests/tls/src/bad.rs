//! Wrong certificates, wrong names and nothing in common, in both directions: our sentence, and the alert by name.
//! Then gateways that refuse the renegotiation SCSV.

use std::path::Path;

use anyhow::{Context as _, ensure};
use ladewartd::{
    config::{GatewayTls, Trust},
    tls::{self, Fault},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    ours,
    peer::OpenSsl,
    pki::{self, CURVES, Leaf, Wish, openssl},
    report,
};

const BP256: [&str; 3] = ["brainpoolP256r1"; 3];

/// A certificate of the peer and what we say to it.
struct Wrong {
    what: &'static str,
    theirs: Leaf,
    trust: Trust,
    /// Parts of our sentence where the peer is the server, and where it is the client.
    says: [&'static str; 2],
}

fn wrongs(place: &Path, good: &Leaf) -> anyhow::Result<Vec<Wrong>> {
    let wish = Wish::default();
    let make = |name: &str, curves: [&str; 3], wish: Wish<'_>| pki::make(place, name, curves, wish);
    let of = |leaf: &Leaf| ours::anchors(&leaf.root, None);
    let mut list = Vec::new();
    let mut add = |what, theirs: Leaf, trust: Trust, says: [&'static str; 2]| {
        list.push(Wrong { what, theirs, trust, says });
    };

    let other = make("other-ca", BP256, wish)?;
    let unknown = "not issued by a trusted CA (sent alert unknown_ca)";
    add("of another CA", other, of(good), [unknown; 2]);

    let old = make("expired", BP256, Wish { dates: Some(("20200101000000Z", "20210101000000Z")), ..wish })?;
    let trust = of(&old);
    add("expired", old, trust, ["expired at 2021-01-01T00:00:00.000Z (sent alert certificate_expired)"; 2]);

    let new = make("early", BP256, Wish { dates: Some(("20900101000000Z", "20910101000000Z")), ..wish })?;
    let trust = of(&new);
    add("not valid yet", new, trust, ["not valid before 2090-01-01T00:00:00.000Z"; 2]);

    let issuer = make("issuer-521", ["brainpoolP256r1", "secp521r1", "brainpoolP256r1"], wish)?;
    let trust = of(&issuer);
    add("signed on secp521r1", issuer, trust, ["a curve or a signature outside the profile"; 2]);

    let leaf = make("leaf-521", ["brainpoolP256r1", "brainpoolP256r1", "secp521r1"], wish)?;
    let trust = of(&leaf);
    add(
        "itself on secp521r1",
        leaf,
        trust,
        ["received alert handshake_failure", "a curve or a signature outside the profile"],
    );

    let usage = make("key-usage", BP256, Wish { key_usage: "keyAgreement", ..wish })?;
    let trust = of(&usage);
    add("key usage without digitalSignature", usage, trust, ["key usage"; 2]);

    let purpose = make("purpose", BP256, Wish { purposes: "codeSigning", ..wish })?;
    let trust = of(&purpose);
    add("for code signing", purpose, trust, ["key usage"; 2]);

    let client = make("only-client", BP256, Wish { purposes: "clientAuth", ..wish })?;
    let trust = of(&client);
    add("for the other end of TLS (client)", client, trust, ["key usage", ""]);
    let server = make("only-server", BP256, Wish { purposes: "serverAuth", ..wish })?;
    let trust = of(&server);
    add("for the other end of TLS (server)", server, trust, ["", "key usage"]);

    add("self-signed stranger", self_signed(place)?, of(good), ["CA"; 2]);

    let long = make("long", BP256, Wish { issuers: 8, ..wish })?;
    let trust = of(&long);
    add("eight issuers long", long, trust, ["its chain is too long"; 2]);

    let name = make("name", BP256, wish)?;
    let trust = ours::anchors(&name.root, Some("gateway.example"));
    add(
        "of another name",
        name,
        trust,
        ["not for gateway.example; it carries DnsName(\"localhost\") (sent alert"; 2],
    );
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
        leaf: at("leaf.pem"),
        issuers: at("issuers.pem"),
        chain: at("leaf.pem"),
        key: at("leaf.key"),
        root: at("leaf.pem"),
    })
}

struct Table {
    rows: Vec<serde_json::Value>,
    wrong: Vec<String>,
}

impl Table {
    fn row(&mut self, peer: &str, what: &str, role: &str, says: &str, got: &Result<String, String>) {
        let good = match got {
            Ok(_) => says.is_empty(),
            Err(fault) => !says.is_empty() && fault.contains(says),
        };
        let text = match got {
            Ok(session) => format!("a session: {session}"),
            Err(fault) => fault.clone(),
        };
        let mark = if good { "" } else { "WRONG " };
        println!("  {what:<38} {role:<10} {mark}{text}");
        self.rows.push(json!({ "peer": peer, "what": what, "peer_is": role, "answer": text }));
        if !good {
            self.wrong.push(format!("{what}, {role}: expected {says:?}, got {text:?}"));
        }
    }
}

pub(crate) async fn run(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    let peer = peers.last().context("no OpenSSL given")?;
    let name = format!("OpenSSL {}", peer.version);
    let own = pki::make(place, "cls", BP256, Wish::default())?;
    let good = pki::make(place, "gateway", BP256, Wish::default())?;
    let mut table = Table { rows: Vec::new(), wrong: Vec::new() };
    let groups = "brainpoolP256r1:P-256:P-521";
    println!("{name} shows a certificate that is");
    for Wrong { what, theirs, trust, says } in wrongs(place, &good)? {
        let client = ours::client(&own, &trust, GatewayTls::default())?;
        let server = peer.server(&theirs, &own.root, &["-tls1_2", "-groups", groups]).await?;
        let got = ours::talk(&client, server.port).await?;
        table.row(&name, what, "a server", says[0], &got);
        let got = as_client(peer, Some(&theirs), &own, &trust, &["-tls1_2", "-groups", groups]).await?;
        table.row(&name, what, "a client", says[1], &got);
    }
    let trust = ours::anchors(&good.root, None);
    let got = as_client(peer, None, &own, &trust, &["-tls1_2", "-groups", groups]).await?;
    table.row(&name, "missing", "a client", "the peer shows no certificate", &got);

    println!("{name} does not take ours, or has nothing in common with us");
    let old = pki::make(
        place,
        "own-expired",
        BP256,
        Wish { dates: Some(("20200101000000Z", "20210101000000Z")), ..Wish::default() },
    )?;
    let stranger = pki::make(place, "own-stranger", BP256, Wish::default())?;
    for (what, shown, root, options, says) in [
        ("our certificate: another CA", &own, &stranger.root, &["-tls1_2"][..], "received alert unknown_ca"),
        ("our certificate: expired", &old, &old.root, &["-tls1_2"], "received alert certificate_expired"),
        (
            "ChaCha20 alone",
            &own,
            &own.root,
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
            "received alert handshake_failure",
        ),
        (
            "CBC alone, without cbc = true",
            &own,
            &own.root,
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"],
            "received alert handshake_failure",
        ),
        (
            "secp521r1 alone",
            &own,
            &own.root,
            &["-tls1_2", "-groups", "P-521"],
            "received alert handshake_failure",
        ),
        (
            "TLS 1.3 alone, without tls13 = true",
            &own,
            &own.root,
            &["-tls1_3"],
            "received alert protocol_version",
        ),
    ] {
        let client = ours::client(shown, &trust, GatewayTls::default())?;
        let server = peer.server(&good, root, options).await?;
        table.row(&name, what, "a server", says, &ours::talk(&client, server.port).await?);
    }

    println!("{name} does not serve the name that we ask for");
    let second = good.leaf.to_string_lossy().into_owned();
    let second_key = good.key.to_string_lossy().into_owned();
    let sni = [
        "-tls1_2",
        "-servername",
        "emt.example",
        "-servername_fatal",
        "-cert2",
        &second,
        "-key2",
        &second_key,
    ];
    let client = ours::client(&own, &trust, GatewayTls::default())?;
    let server = peer.server(&good, &own.root, &sni).await?;
    let got = ours::talk(&client, server.port).await?;
    table.row(
        &name,
        "asked for localhost, serves emt.example",
        "a server",
        "received alert unrecognized_name",
        &got,
    );

    let Table { rows, wrong } = table;
    report("tls-bad", &json!({ "name": "tls-bad", "unit": "answers", "rows": rows, "peer": name }))?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn as_client(
    peer: &OpenSsl,
    theirs: Option<&Leaf>,
    own: &Leaf,
    trust: &Trust,
    options: &[&str],
) -> anyhow::Result<Result<String, String>> {
    let config = ours::server(own, trust, GatewayTls::default())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (served, said) =
        tokio::join!(ours::serve(&config, &listener), peer.client(theirs, &own.root, port, options));
    said?;
    served
}

/// A gateway as the SMARTY IQ: any ClientHello with the SCSV or the extension is answered with illegal_parameter; what
/// passes goes to OpenSSL.
async fn strict(listener: TcpListener, behind: u16) -> anyhow::Result<()> {
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
        let mut far = TcpStream::connect(("127.0.0.1", behind)).await?;
        far.write_all(&record).await?;
        tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
    }
}

/// Whether a ClientHello holds the SCSV or renegotiation_info (RFC 5746).
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

pub(crate) async fn scsv(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    println!("a gateway that refuses the renegotiation SCSV with illegal_parameter, OpenSSL behind it");
    let mut rows = Vec::new();
    for curve in CURVES {
        let own = pki::make(place, &format!("cls-{}", curve.short), [curve.name; 3], Wish::default())?;
        let theirs = pki::make(place, &format!("gateway-{}", curve.short), [curve.name; 3], Wish::default())?;
        let trust = ours::anchors(&theirs.root, None);
        let group = match curve.name {
            "prime256v1" => "P-256",
            "secp384r1" => "P-384",
            other => other,
        };
        for peer in peers {
            for cipher in [
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-AES128-SHA256",
            ] {
                let options = ["-tls1_2", "-cipher", cipher, "-groups", group];
                let server = peer.server(&theirs, &own.root, &options).await?;
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let port = listener.local_addr()?.port();
                let front = tokio::spawn(strict(listener, server.port));
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
                ensure!(!client.try_without_scsv(&first), "asked twice");
                // OpenSSL's own client sends one or the other always.
                let said = peer.client(Some(&own), &theirs.root, port, &options).await?.1;
                ensure!(said.contains("illegal parameter"), "OpenSSL's client came through: {said}");
                println!("  OpenSSL {:<8} {session}", peer.version);
                rows.push(json!({ "peer": peer.version, "curve": curve.short, "session": session }));
                front.abort();
            }
        }
    }
    report(
        "tls-scsv",
        &json!({ "name": "tls-scsv", "unit": "sessions", "value": rows.len(), "rows": rows,
        "peer": "OpenSSL" }),
    )
}

async fn connect(client: &tls::HanClient, port: u16) -> Result<(), Fault> {
    let faulty = |error: std::io::Error| Fault::new(&error);
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(faulty)?;
    let name = tls::server_name("localhost").map_err(|e| faulty(std::io::Error::other(e)))?;
    client.connect(name, tcp).await.map(drop).map_err(faulty)
}
