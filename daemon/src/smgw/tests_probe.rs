//! What a test of the way says, for each fault a site is likely to have.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::crypto::ring;

use super::{
    BackendDialer, Uplink,
    peers::{Act, Ca, Leaf, Peers, Proxy},
};
use crate::{
    clock::Clock,
    config::{self, Trust},
};

/// A test's output, without what differs from run to run.
async fn walk(peers: &Peers, config: &config::Uplink, tls: bool) -> String {
    let uplink = Uplink::new(config, Clock::system()).unwrap();
    let backend = BackendDialer::new(&uplink, &peers.backend(tls)).unwrap();
    let (sender, mut reports) = Uplink::reports();
    uplink.test(backend.target(), Some(&backend), sender).await;
    let mut text = String::new();
    while let Some(report) = reports.recv().await {
        let verdict = if report.ok { "ok" } else { "FAILED" };
        writeln!(text, "{} {verdict}: {}", report.step, steady(&report.detail)).unwrap();
        if !report.advice.is_empty() {
            writeln!(text, "  -> {}", report.advice).unwrap();
        }
    }
    assert_eq!(uplink.status().borrow().attempts, 0, "a test is no attempt");
    text
}

/// Ports and fingerprints by name.
fn steady(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word.trim_end_matches([':', ',', ';']);
        let end = &word[bare.len()..];
        if bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            return format!("<fingerprint>{end}");
        }
        match bare.parse::<SocketAddr>() {
            Ok(address) => format!("{}:<port>{end}", address.ip()),
            Err(_) => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn granted() -> Vec<u8> {
    vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0]
}

fn asked(answer: Vec<u8>) -> Vec<Act> {
    vec![Act::Read(3), Act::Write(vec![5, 0]), Act::Read(18), Act::Write(answer)]
}

/// A backend that answers whatever it is asked with these bytes.
fn backend(answer: &[u8]) -> Proxy {
    Proxy::Script([asked(granted()), vec![Act::Read(20), Act::Write(answer.to_vec()), Act::Wait]].concat())
}

#[tokio::test]
async fn the_output_for_a_good_way_and_for_each_likely_fault() {
    let mut text = String::new();
    let mut peers = Peers::new();
    let mut tell = |title: &str, output: String| writeln!(text, "## {title}\n{output}").unwrap();

    let gateway = peers
        .gateway(peers.good(), backend(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"))
        .await;
    tell("a good way", walk(&peers, &peers.config(gateway, peers.trust_ca()), false).await);

    let mut config = peers.config(gateway, peers.trust_ca());
    if let config::Mode::Socks5(gateway) = &mut config.mode {
        gateway.interface = Some("han7".to_owned());
    }
    tell("no such interface", walk(&peers, &config, false).await);

    let mut config = peers.config(gateway, peers.trust_ca());
    config.mode = config::Mode::Socks5(peers.side("no-such-gateway.invalid:8443", peers.trust_ca()));
    let output = walk(&peers, &config, false).await;
    // The system's own words differ.
    assert!(output.contains("address FAILED: resolving no-such-gateway.invalid: "), "{output}");
    assert!(output.contains("  -> Ask the gateway administrator for the gateway's HAN address"), "{output}");

    let nobody = peers.nobody().await;
    tell("nobody on the port", walk(&peers, &peers.config(nobody, peers.trust_ca()), false).await);

    let ssh = peers.greeter(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    tell("another service on the port", walk(&peers, &peers.config(ssh, peers.trust_ca()), false).await);

    let stalled = peers.stall().await;
    let mut config = peers.config(stalled, peers.trust_ca());
    config.step_timeout = Duration::from_millis(200);
    tell("a gateway that stalls in the handshake", walk(&peers, &config, false).await);

    let pin = Trust { pins: vec![[0xab; 32]], ..Trust::default() };
    tell("another gateway than the pinned one", walk(&peers, &peers.config(gateway, pin), false).await);

    let tls = peers.tls(Leaf { until: 2021, ..Leaf::default() }.signed_by(&peers.gateway_ca));
    let expired = peers.gateway(tls, Proxy::Honest).await;
    let output = walk(&peers, &peers.config(expired, peers.trust_ca()), false).await;
    tell("a gateway whose certificate has ended", output);

    let other = Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::default() }
        .signed_by(&Ca::new("Another CA"));
    let stranger = peers.gateway(peers.good(), Proxy::Honest).await;
    peers.write_identity("stranger", &other);
    let mut config = peers.config(stranger, peers.trust_ca());
    if let config::Mode::Socks5(gateway) = &mut config.mode {
        let (certificate, key) = (peers.file("stranger.pem"), peers.file("stranger.key"));
        gateway.own = config::Own::Files { certificate, key };
    }
    tell("a gateway that does not know us", walk(&peers, &config, false).await);

    let mut tls = peers.good();
    tls.suites = vec![ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
    let foreign = peers.gateway(tls, Proxy::Honest).await;
    tell("no suite in common", walk(&peers, &peers.config(foreign, peers.trust_ca()), false).await);

    for (code, title) in [
        (2, "a target that is not in the profile"),
        (4, "a target whose name the gateway does not know"),
        (5, "a target that does not listen"),
        (8, "a kind of address that the proxy does not take"),
    ] {
        let proxy = Proxy::Script(asked([&[5, code, 0, 3, 11][..], b"emt.example", &[0x23, 0x28]].concat()));
        let gateway = peers.gateway(peers.good(), proxy).await;
        tell(title, walk(&peers, &peers.config(gateway, peers.trust_ca()), false).await);
    }

    let http = Proxy::Script(vec![Act::Read(3), Act::Write(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]);
    let gateway = peers.gateway(peers.good(), http).await;
    tell("a proxy that is not SOCKS5", walk(&peers, &peers.config(gateway, peers.trust_ca()), false).await);

    let gateway = peers.gateway(peers.good(), Proxy::Script(asked(granted()))).await;
    tell("success, and then an end", walk(&peers, &peers.config(gateway, peers.trust_ca()), false).await);

    let gateway = peers.gateway(peers.good(), backend(b"HTTP/1.1 404 Not Found\r\n\r\n")).await;
    tell("a backend without our path", walk(&peers, &peers.config(gateway, peers.trust_ca()), false).await);

    let gateway = peers.gateway(peers.good(), backend(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")).await;
    tell("a backend that is broken", walk(&peers, &peers.config(gateway, peers.trust_ca()), false).await);

    let gateway = peers.gateway(peers.good(), backend(b"220 mail.example ESMTP\r\n")).await;
    tell(
        "something else than a backend",
        walk(&peers, &peers.config(gateway, peers.trust_ca()), false).await,
    );

    let gateway = peers.gateway(peers.good(), backend(b"HTTP/1.1 400 plain\r\n\r\n")).await;
    tell("a backend without TLS", walk(&peers, &peers.config(gateway, peers.trust_ca()), true).await);
    insta::assert_snapshot!(text);
}
