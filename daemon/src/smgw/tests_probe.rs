//! What a test of the way says, for each fault a site is likely to have. The table of all is `faults.md`, and goes to
//! `target/report/uplink-faults.json` and `uplink-faults-wire.json`.

use std::{fmt::Write, fs, net::SocketAddr, path::Path, time::Duration};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::crypto::ring;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    BackendDialer, Report, State, Uplink,
    peers::{Act, Ca, Leaf, Peers, Proxy, Signed},
    tests_han::{ip, outside, set},
};
use crate::{
    clock::Clock,
    config::{self, Place, Trust},
    time::Wall,
};

const SOON: Duration = Duration::from_secs(30);

/// What was wrong, and what the test said of it.
type Found = (&'static str, Vec<Report>);

/// What a test says, without what differs from run to run.
async fn walk(peers: &Peers, config: &config::Uplink, tls: bool) -> Vec<Report> {
    test(&Uplink::new(config, Clock::system()).unwrap(), peers, tls).await
}

async fn test(uplink: &Uplink, peers: &Peers, tls: bool) -> Vec<Report> {
    let backend = BackendDialer::new(uplink, &peers.backend(tls)).unwrap();
    let (sender, mut reports) = Uplink::reports();
    timeout(SOON, uplink.test(backend.target(), Some(&backend), sender)).await.unwrap();
    let mut all = Vec::new();
    while let Some(report) = reports.recv().await {
        all.push(Report { detail: steady(&report.detail), ..report });
    }
    assert_eq!(uplink.status().borrow().attempts, 0, "a test is no attempt");
    all
}

/// Ports, fingerprints and times by name.
fn steady(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word.trim_end_matches([':', ',', ';', ')']);
        let end = &word[bare.len()..];
        if bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            return format!("<fingerprint>{end}");
        }
        if let Some(time) = bare.strip_prefix('(')
            && Wall::parse(time).is_some()
        {
            return format!("(<time>{end}");
        }
        match bare.parse::<SocketAddr>() {
            Ok(address) => format!("{}:<port>{end}", address.ip()),
            Err(_) => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What `ladewartctl uplink test` prints of it, as text.
fn output(found: &[Found]) -> String {
    let mut text = String::new();
    for (title, reports) in found {
        writeln!(text, "## {title}").unwrap();
        for report in reports {
            let verdict = if report.ok { "ok" } else { "FAILED" };
            writeln!(text, "{} {verdict}: {}", report.step, report.detail).unwrap();
            if !report.advice.is_empty() {
                writeln!(text, "  -> {}", report.advice).unwrap();
            }
        }
        writeln!(text).unwrap();
    }
    text
}

/// The faults as a table: the step where it ends, what is said, and what to do next. Writes the report, and holds
/// `faults.md` equal to what was seen.
fn told(heading: &str, name: &str, found: &[Found]) {
    let mut table =
        format!("## {heading}\n\n| fault | ends at | what is said | what to do next |\n|---|---|---|---|\n");
    let mut rows = Vec::new();
    for (fault, reports) in found {
        let Some(last) = reports.last().filter(|report| !report.ok) else { continue };
        assert!(!last.advice.is_empty(), "{fault}: nothing to do next");
        assert!(reports.iter().rev().skip(1).all(|report| report.ok), "{fault}: nothing follows a failure");
        writeln!(table, "| {fault} | {} | {} | {} |", last.step, last.detail, last.advice).unwrap();
        rows.push(serde_json::json!({
            "fault": fault, "step": last.step.to_string(), "says": last.detail, "next": last.advice,
        }));
    }
    let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/report");
    fs::create_dir_all(&report).unwrap();
    let content = serde_json::json!({ "name": name, "unit": "sentence", "rows": rows });
    fs::write(report.join(format!("{name}.json")), format!("{content:#}\n")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/smgw/faults.md");
    let written = fs::read_to_string(&file).unwrap();
    let (before, rest) = written.split_once(&format!("## {heading}\n")).unwrap();
    let after = rest.find("## ").map_or(String::new(), |next| format!("\n{}", &rest[next..]));
    let made = format!("{before}{table}{after}");
    if written != made && std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &made).unwrap();
    }
    assert!(written == made, "faults.md differs; run the tests with UPDATE_DOCS=1:\n{table}");
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

/// Where the gateway connects to us, and nobody or the wrong one comes.
async fn listening(peers: &Peers, stranger: Option<&Signed>) -> Vec<Report> {
    let mut config = peers.config(([127, 0, 0, 1], 1).into(), peers.trust_ca());
    // Ours serves here.
    peers.write_identity("serving", &Leaf { name: "cls", ..Leaf::default() }.signed_by(&peers.cls_ca));
    let mut side = peers.side("127.0.0.1", peers.trust_ca());
    let (certificate, key) = (peers.file("serving.pem"), peers.file("serving.key"));
    side.own = config::Own::Files { certificate, key };
    config.mode = config::Mode::Listen(side);
    config.step_timeout = Duration::from_millis(200);
    config.targets = vec![config::Target { name: "backend".to_owned(), place: Place::Port(0) }];
    let uplink = Uplink::new(&config, Clock::system()).unwrap();
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    tasks.spawn(uplink.clone().run(stop.clone()));
    let mut port = uplink.target("backend").unwrap().listening();
    let address = timeout(SOON, port.wait_for(Option::is_some)).await.unwrap().unwrap().unwrap();
    if let Some(stranger) = stranger {
        drop(peers.call(address, Some(stranger)).await);
        let mut status = uplink.status();
        timeout(SOON, status.wait_for(|status| status.refused == 1)).await.unwrap().unwrap();
        assert_eq!(uplink.status().borrow().state, State::Idle);
    }
    let found = test(&uplink, peers, false).await;
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
    found
}

#[tokio::test]
async fn the_output_for_a_good_way_and_for_each_likely_fault() {
    let mut found = Vec::new();
    let mut peers = Peers::new();
    let mut tell = |title: &'static str, reports: Vec<Report>| found.push((title, reports));

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
    let mut reports = walk(&peers, &config, false).await;
    // The system's own words differ.
    let last = reports.last_mut().unwrap();
    assert!(last.detail.starts_with("resolving no-such-gateway.invalid: "), "{last:?}");
    last.detail = "resolving no-such-gateway.invalid: <what the system says>".to_owned();
    tell("a gateway's name that nobody knows", reports);

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
    let reports = walk(&peers, &peers.config(expired, peers.trust_ca()), false).await;
    tell("a gateway whose certificate has ended", reports);

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
    let gateway = peers.gateway(peers.good(), backend(b"")).await;
    let mut config = peers.config(gateway, peers.trust_ca());
    config.step_timeout = Duration::from_secs(2);
    tell("a backend that says nothing", walk(&peers, &config, false).await);

    // A byte now and then, and never a whole reply: the time is that of the whole.
    let long = [&[5, 0, 0, 3, 255][..], &[b'x'; 257]].concat();
    let slow = vec![Act::Read(3), Act::Write(vec![5, 0]), Act::Read(18), Act::Slow(long)];
    let gateway = peers.gateway(peers.good(), Proxy::Script(slow)).await;
    let mut config = peers.config(gateway, peers.trust_ca());
    config.step_timeout = Duration::from_secs(2);
    tell("a proxy that answers byte by byte, and not in time", walk(&peers, &config, false).await);

    tell("a gateway that should come and does not", listening(&peers, None).await);
    let stranger =
        Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::default() }.signed_by(&Ca::new("Another"));
    tell("another one comes instead of the gateway", listening(&peers, Some(&stranger)).await);
    insta::assert_snapshot!(output(&found));
    told("Behind the port", "uplink-faults", &found);
}

#[test]
fn the_output_for_each_fault_of_the_wire() {
    if outside("smgw::tests_probe::the_output_for_each_fault_of_the_wire") {
        return;
    }
    set("ipv4/ip_forward", "0");
    set("ipv6/conf/all/disable_ipv6", "1");
    ip("link set lo up");
    ip("link add han0 type veth peer name gw0");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(wire());
}

async fn wire() {
    let mut found: Vec<Found> = Vec::new();
    let peers = Peers::new();
    let mut config = peers.config("192.0.2.1:8443".parse().unwrap(), peers.trust_ca());
    config.step_timeout = Duration::from_secs(10);
    if let config::Mode::Socks5(gateway) = &mut config.mode {
        gateway.interface = Some("han0".to_owned());
    }
    found.push(("the interface is switched off", walk(&peers, &config, false).await));
    ip("link set han0 up");
    found.push(("no cable", walk(&peers, &config, false).await));
    ip("link set gw0 up");
    found.push(("no address of our own", walk(&peers, &config, false).await));
    ip("addr add 192.0.2.2/24 dev han0");
    found.push(("nobody has the gateway's address", walk(&peers, &config, false).await));
    // A neighbour that is there and swallows everything.
    ip("neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev han0");
    config.step_timeout = Duration::from_secs(1);
    found.push(("the gateway says nothing", walk(&peers, &config, false).await));
    for (title, wrong, right) in [
        ("the interface is a port of a bridge", "link set han0 master br0", "link set han0 nomaster"),
        (
            "a default route leads over the HAN",
            "route add default via 192.0.2.1 dev han0",
            "route del default",
        ),
    ] {
        if wrong.ends_with("br0") {
            ip("link add br0 type bridge");
        }
        ip(wrong);
        found.push((title, walk(&peers, &config, false).await));
        ip(right);
    }
    set("ipv4/conf/han0/forwarding", "1");
    found.push(("this device forwards packets of the HAN", walk(&peers, &config, false).await));
    told("On the wire", "uplink-faults-wire", &found);
}
