//! The whole way against peers: what works, and how each fault shows in the status.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use rcgen::{ExtendedKeyUsagePurpose, PKCS_ECDSA_P384_SHA384};
use rustls::{RootCertStore, crypto::ring};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    BackendDialer, Dial, DialError, Io, State, Status, Uplink,
    peers::{Act, Ca, Leaf, Peers, Proxy, Tls},
};
use crate::{
    clock::Clock,
    config::{self, Trust},
};

fn uplink(config: &config::Uplink) -> Uplink {
    Uplink::new(config, Clock::system()).unwrap()
}

fn pin_of(pin: [u8; 32]) -> Trust {
    Trust { pins: vec![pin], ..Trust::default() }
}

async fn say_hello(io: &mut impl Io) -> std::io::Result<()> {
    io.write_all(b"hello").await?;
    io.flush().await?;
    let mut back = [0; 5];
    io.read_exact(&mut back).await?;
    assert_eq!(&back, b"hello");
    Ok(())
}

/// One attempt that fails: the status after it.
async fn fault(uplink: &Uplink) -> Status {
    let error = match uplink.connect("emt.example", 9000).await {
        Err(error) => error.to_string(),
        Ok(mut channel) => say_hello(&mut channel).await.expect_err("the fault shows").to_string(),
    };
    let status = uplink.status().borrow().clone();
    assert_eq!((status.state, status.failures, status.attempts, status.open), (State::Down, 1, 1, 0));
    assert!(status.next_attempt.is_some() && !uplink.ready());
    assert_eq!(status.last_error.as_ref().map(|(text, _)| text.as_str()), Some(error.as_str()));
    status
}

fn words(status: &Status) -> &str {
    status.last_error.as_ref().map_or("", |(text, _)| text)
}

async fn tls_fault(peers: &mut Peers, tls: Tls, trust: Trust) -> Status {
    let target = peers.echo().await;
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let uplink = uplink(&peers.config(gateway, trust));
    fault(&uplink).await
}

async fn proxy_fault(script: Vec<Act>) -> Status {
    let mut peers = Peers::new();
    let tls = peers.good();
    let gateway = peers.gateway(tls, Proxy::Script(script)).await;
    fault(&uplink(&peers.config(gateway, peers.trust_ca()))).await
}

/// Greeting, method reply, request for emt.example:9000.
fn asked(reply: Vec<u8>) -> Vec<Act> {
    vec![Act::Read(3), Act::Write(vec![5, 0]), Act::Read(4 + 1 + 11 + 2), Act::Write(reply)]
}

async fn good(peers: &Peers, gateway: SocketAddr, trust: Trust) -> Status {
    let uplink = uplink(&peers.config(gateway, trust));
    assert_eq!(uplink.status().borrow().state, State::Idle);
    let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
    say_hello(&mut channel).await.unwrap();
    let status = uplink.status().borrow().clone();
    assert_eq!((status.state, status.open, status.attempts, status.failures), (State::Up, 1, 1, 0));
    assert_eq!(status.last_reply, "00 succeeded");
    drop(channel);
    assert_eq!(uplink.status().borrow().open, 0);
    status
}

#[tokio::test]
async fn through_a_gateway_of_a_ca() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let (tls, trust) = (peers.good(), peers.trust_ca());
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let status = good(&peers, gateway, trust).await;
    assert_eq!(status.session, "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 secp256r1");
    assert_eq!(status.mode, "socks5");
    assert_eq!(status.gateway, gateway.to_string());
    assert_eq!(status.own.unwrap().subject, "CN=cls");
    assert_eq!(status.peer.unwrap().subject, "CN=smgw.local");
}

#[tokio::test]
async fn through_a_self_signed_gateway_by_its_pin() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    for leaf in [
        Leaf { ca_flag: true, ..Leaf::default() },
        Leaf { algorithm: &PKCS_ECDSA_P384_SHA384, until: 2021, ..Leaf::default() },
    ] {
        let certificate = leaf.self_signed();
        let pin = certificate.fingerprint();
        let gateway = peers.gateway(peers.tls(certificate), Proxy::Socks(target)).await;
        let status = good(&peers, gateway, pin_of(pin)).await;
        assert_eq!(status.peer.unwrap().fingerprint, pin);
    }
}

#[tokio::test]
async fn the_name_is_judged_when_it_is_configured() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let trust = |name: &str| peers.trust_name(Some(name));
    let (right, wrong) = (trust("smgw.local"), trust("other.local"));
    let gateway = peers.gateway(peers.good(), Proxy::Socks(target)).await;
    good(&peers, gateway, right).await;
    let tls = peers.good();
    let status = tls_fault(&mut peers, tls, wrong).await;
    assert!(
        words(&status).contains("its certificate is not for other.local; it carries"),
        "{}",
        words(&status)
    );
    assert_eq!(status.last_alert, "bad_certificate");
}

#[tokio::test]
async fn a_wrong_pin_names_both_fingerprints() {
    let mut peers = Peers::new();
    let certificate = Leaf::default().self_signed();
    let shown = crate::identity::hex(&certificate.fingerprint());
    let tls = peers.tls(certificate);
    let status = tls_fault(&mut peers, tls, pin_of([0xab; 32])).await;
    assert!(words(&status).starts_with("TLS with the gateway: its certificate has the fingerprint "));
    assert!(words(&status).contains(&shown) && words(&status).contains(&"ab".repeat(32)));
    assert_eq!(status.last_alert, "certificate_unknown");
    assert_eq!(status.peer.unwrap().subject, "CN=smgw.local", "the refused certificate is shown");
}

#[tokio::test]
async fn each_bad_certificate_is_told_from_the_others() {
    let leaf = Leaf::default;
    let client_only = Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..leaf() };
    for (leaf, stranger, says, alert) in [
        (leaf(), true, "not issued by a trusted CA", "unknown_ca"),
        (Leaf { until: 2021, ..leaf() }, false, "expired at 2021-01-01T00:00:00", "certificate_expired"),
        (Leaf { from: 2090, ..leaf() }, false, "not valid before 2090-01-01T00:00:00", "certificate_expired"),
        (client_only, false, "not made for this end of TLS", "unsupported_certificate"),
        (Leaf { ca_flag: true, ..leaf() }, false, "can only be trusted by a pin", "certificate_unknown"),
    ] {
        let mut peers = Peers::new();
        let certificate = leaf.signed_by(if stranger { &peers.cls_ca } else { &peers.gateway_ca });
        let (tls, trust) = (peers.tls(certificate), peers.trust_ca());
        let status = tls_fault(&mut peers, tls, trust).await;
        assert!(words(&status).starts_with("TLS with the gateway: its certificate "), "{}", words(&status));
        assert!(words(&status).contains(says), "{}", words(&status));
        assert_eq!(status.last_alert, alert);
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_know_us_says_so() {
    let mut peers = Peers::new();
    let other = Ca::new("Another CA");
    let stranger = Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::default() }.signed_by(&other);
    peers.write_identity("cls", &stranger);
    let (tls, trust) = (peers.good(), peers.trust_ca());
    let status = tls_fault(&mut peers, tls, trust).await;
    assert_eq!(status.last_alert, "unknown_ca");
    assert_eq!(
        words(&status),
        "TLS with the gateway: received alert unknown_ca: the peer does not know our certificate or its issuer"
    );
}

#[tokio::test]
async fn no_common_suite_and_no_common_version() {
    let mut peers = Peers::new();
    let mut tls = peers.good();
    tls.suites = vec![ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
    let trust = peers.trust_ca();
    let status = tls_fault(&mut peers, tls, trust.clone()).await;
    assert_eq!(status.last_alert, "handshake_failure");
    assert!(words(&status).starts_with("TLS with the gateway: received alert handshake_failure: "));
    let mut tls = peers.good();
    tls.versions = vec![&rustls::version::TLS13];
    let status = tls_fault(&mut peers, tls, trust).await;
    assert_eq!(status.last_alert, "protocol_version");
}

#[tokio::test]
async fn a_gateway_that_stalls_in_the_handshake() {
    let mut peers = Peers::new();
    let gateway = peers.stall().await;
    let mut config = peers.config(gateway, peers.trust_ca());
    config.step_timeout = Duration::from_millis(300);
    let status = fault(&uplink(&config)).await;
    assert_eq!(words(&status), "TLS with the gateway: no handshake within 300ms");
}

#[tokio::test]
async fn something_that_is_not_tls_or_hangs_up() {
    let mut peers = Peers::new();
    let gateway = peers.greeter(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    let status = fault(&uplink(&peers.config(gateway, peers.trust_ca()))).await;
    assert!(words(&status).contains("does not speak TLS here"), "{}", words(&status));
    let gateway = peers.greeter(b"").await;
    let status = fault(&uplink(&peers.config(gateway, peers.trust_ca()))).await;
    assert!(words(&status).starts_with("TLS with the gateway: "), "{}", words(&status));
}

#[tokio::test]
async fn a_gateway_that_is_down() {
    let peers = Peers::new();
    let gateway = peers.nobody().await;
    let status = fault(&uplink(&peers.config(gateway, peers.trust_ca()))).await;
    assert_eq!(words(&status), format!("TCP connect to {gateway}: connection refused"));
}

#[tokio::test]
async fn an_interface_that_does_not_exist() {
    let mut peers = Peers::new();
    let gateway = peers.stall().await;
    let mut config = peers.config(gateway, peers.trust_ca());
    if let config::Mode::Socks5(gateway) = &mut config.mode {
        gateway.interface = Some("no-such-if0".to_owned());
    }
    let status = fault(&uplink(&config)).await;
    assert_eq!(words(&status), "there is no interface no-such-if0");
}

#[tokio::test]
async fn refusals_of_the_proxy_are_named() {
    for (code, name) in [
        (2, "02 not allowed by ruleset"),
        (4, "04 host unreachable"),
        (5, "05 connection refused"),
        (8, "08 address type not supported"),
    ] {
        let echo = [&[5, code, 0, 3, 11][..], b"emt.example", &[0x23, 0x28]].concat();
        let status = proxy_fault(asked(echo)).await;
        assert_eq!(words(&status), format!("proxy reply {name}"));
        assert_eq!(status.last_reply, name);
    }
}

#[tokio::test]
async fn an_independent_proxy_says_that_the_target_is_closed() {
    let mut peers = Peers::new();
    let (target, tls) = (peers.nobody().await, peers.good());
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let status = fault(&uplink(&peers.config(gateway, peers.trust_ca()))).await;
    assert_eq!(words(&status), "proxy reply 05 connection refused");
}

#[tokio::test]
async fn a_proxy_that_breaks_the_rules() {
    let status = proxy_fault(vec![Act::Read(3), Act::Write(vec![4, 0x5b])]).await;
    assert_eq!(words(&status), "proxy: answers with version 04 instead of 05; is this a SOCKS5 proxy?");
    let status = proxy_fault(vec![Act::Read(3), Act::Write(vec![5, 0xff])]).await;
    assert_eq!(words(&status), "proxy: accepts no client without authentication (method ff)");
    let status = proxy_fault(vec![Act::Read(3), Act::Write(vec![5, 0, 0, 0, 0])]).await;
    assert_eq!(words(&status), "proxy: sent 3 bytes more than a method reply before the request");
    let status = proxy_fault(vec![Act::Read(3), Act::Write(vec![5, 0])]).await;
    assert_eq!(words(&status), "proxy: closed the connection before its reply");
    let status = proxy_fault(asked(vec![5, 0, 0, 9])).await;
    assert_eq!(words(&status), "proxy: its reply has the unknown address type 09");
}

#[tokio::test]
async fn a_proxy_that_falls_silent() {
    for said in [vec![], vec![5], vec![5, 0]] {
        let mut peers = Peers::new();
        let tls = peers.good();
        let script = vec![Act::Read(3), Act::Write(said), Act::Wait];
        let gateway = peers.gateway(tls, Proxy::Script(script)).await;
        let mut config = peers.config(gateway, peers.trust_ca());
        config.step_timeout = Duration::from_secs(2);
        let status = fault(&uplink(&config)).await;
        assert_eq!(words(&status), "proxy: no reply within 2s");
    }
}

#[tokio::test]
async fn success_and_then_an_end_is_a_failure() {
    let status = proxy_fault(asked(vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0])).await;
    assert_eq!(
        words(&status),
        "proxy reply 00 succeeded for emt.example:9000, then it closed before its first byte"
    );
    assert_eq!(status.last_reply, "00 succeeded");
}

#[tokio::test]
async fn a_reply_byte_by_byte_and_early_application_data() {
    let mut peers = Peers::new();
    let name = "x".repeat(255);
    let reply = [&[5, 0, 0, 3, 255][..], name.as_bytes(), &[0, 1]].concat();
    let tls = peers.good();
    let script = vec![Act::Read(3), Act::Single(vec![5, 0]), Act::Read(18), Act::Single(reply), Act::Echo];
    let gateway = peers.gateway(tls, Proxy::Script(script)).await;
    good(&peers, gateway, peers.trust_ca()).await;

    let tls = peers.good();
    let with_data = [&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"welcome"].concat();
    let gateway = peers.gateway(tls, Proxy::Script([asked(with_data), vec![Act::Echo]].concat())).await;
    let uplink = uplink(&peers.config(gateway, peers.trust_ca()));
    let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
    let mut early = [0; 7];
    channel.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"welcome");
    say_hello(&mut channel).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_says_so_in_words() {
    let mut peers = Peers::new();
    let tls = peers.good();
    let with_data = [&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"welcome"].concat();
    let gateway = peers.gateway(tls, Proxy::Script([asked(with_data), vec![Act::HangUp]].concat())).await;
    let uplink = uplink(&peers.config(gateway, peers.trust_ca()));
    let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
    let mut all = Vec::new();
    let error = channel.read_to_end(&mut all).await.unwrap_err();
    assert_eq!(all, b"welcome");
    assert_eq!(error.to_string(), "the peer closed the connection without an alert");
    assert_eq!(uplink.status().borrow().failures, 0, "it worked before");
}

#[tokio::test]
async fn callers_while_it_works_share_no_turn() {
    let mut peers = Peers::new();
    let (target, tls) = (peers.echo().await, peers.good());
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let uplink = uplink(&peers.config(gateway, peers.trust_ca()));
    let mut first = uplink.connect("emt.example", 9000).await.unwrap();
    say_hello(&mut first).await.unwrap();
    let ten = (0..10).map(|_| async {
        let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
        say_hello(&mut channel).await.unwrap();
        channel
    });
    let open = futures_util::future::join_all(ten).await;
    assert_eq!(uplink.status().borrow().open, 11);
    drop((first, open));
    assert_eq!((uplink.status().borrow().open, uplink.status().borrow().state), (0, State::Up));
}

#[tokio::test]
async fn a_failure_while_connections_stand_is_told_and_stays_up() {
    let mut peers = Peers::new();
    let (target, tls) = (peers.echo().await, peers.good());
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let uplink = uplink(&peers.config(gateway, peers.trust_ca()));
    let mut first = uplink.connect("emt.example", 9000).await.unwrap();
    say_hello(&mut first).await.unwrap();
    assert!(matches!(uplink.connect(&"x".repeat(300), 1).await, Err(DialError::Hopeless(_))));
    drop(peers);
    assert!(matches!(uplink.connect("emt.example", 9000).await, Err(DialError::Failed(_))));
    assert_eq!((uplink.status().borrow().state, uplink.status().borrow().failures), (State::Up, 1));
    drop(first);
    assert_eq!(uplink.status().borrow().state, State::Down);
}

#[tokio::test]
async fn twenty_callers_against_a_closed_port_hear_of_one_attempt() {
    let peers = Peers::new();
    let gateway = peers.nobody().await;
    let uplink = uplink(&peers.config(gateway, peers.trust_ca()));
    let all = (0..20).map(|_| uplink.connect("emt.example", 9000));
    let outcomes = futures_util::future::join_all(all).await;
    let text = format!("TCP connect to {gateway}: connection refused");
    assert!(outcomes.iter().all(|o| o.as_ref().is_err_and(|e| e.to_string() == text)), "{outcomes:?}");
    assert_eq!(uplink.status().borrow().attempts, 1);
}

#[tokio::test]
async fn it_comes_back_after_an_outage() {
    let mut peers = Peers::new();
    let (target, tls) = (peers.echo().await, peers.good());
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let (line, cut) = peers.line(gateway).await;
    let uplink = uplink(&peers.config(line, peers.trust_ca()));
    cut.store(true, Ordering::Relaxed);
    assert!(words(&fault(&uplink).await).starts_with("TLS with the gateway: "));
    cut.store(false, Ordering::Relaxed);
    let all = (0..5).map(|_| async {
        let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
        say_hello(&mut channel).await.unwrap();
    });
    futures_util::future::join_all(all).await;
    let status = uplink.status().borrow().clone();
    assert_eq!(
        (status.state, status.failures, status.attempts, status.next_attempt),
        (State::Up, 1, 6, None)
    );
    assert!(status.last_error.is_some(), "the last failure stays to be seen");
}

#[tokio::test]
async fn the_pinned_certificate_without_its_key_is_refused() {
    let mut peers = Peers::new();
    let mut certificate = Leaf::default().self_signed();
    let pin = certificate.fingerprint();
    certificate.key = Leaf::default().self_signed().key;
    let tls = peers.tls(certificate);
    let status = tls_fault(&mut peers, tls, pin_of(pin)).await;
    assert!(words(&status).contains("does not hold the key of its certificate"), "{}", words(&status));
}

#[tokio::test]
async fn without_a_gateway_it_is_plain_tcp() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let config = config::Uplink { mode: config::Mode::Direct, ..peers.config(target, peers.trust_ca()) };
    let uplink = uplink(&config);
    let mut channel = uplink.connect("127.0.0.1", target.port()).await.unwrap();
    say_hello(&mut channel).await.unwrap();
    let status = uplink.status().borrow().clone();
    assert_eq!((status.mode, status.state, status.gateway.as_str()), ("direct", State::Up, ""));
}

#[tokio::test]
async fn tls_inside_the_channel() {
    let mut peers = Peers::new();
    let inner = Leaf { name: "emt.example", ..Leaf::default() }.signed_by(&peers.gateway_ca);
    let mut tls = peers.tls(inner);
    tls.versions = vec![&rustls::version::TLS13];
    tls.clients = RootCertStore::empty();
    let mut backend = peers.backend(true);
    backend.tls.as_mut().unwrap().identity = Some((peers.file("cls.pem"), peers.file("cls.key")));
    tls.clients.clone_from(&peers.good().clients);
    let target = peers.tls_echo(tls).await;
    let gateway = peers.gateway(peers.good(), Proxy::Socks(target)).await;
    let uplink = uplink(&peers.config(gateway, peers.trust_ca()));
    let dialer = BackendDialer::new(&uplink, &backend).unwrap();
    assert!(dialer.ready());
    let mut stream = dialer.dial().await.unwrap();
    say_hello(&mut stream).await.unwrap();
    assert_eq!((uplink.status().borrow().state, uplink.status().borrow().open), (State::Up, 1));

    backend.host = "other.example".to_owned();
    let error = BackendDialer::new(&uplink, &backend).unwrap().dial().await.err().unwrap();
    assert!(
        error.to_string().starts_with(
            "TLS with the backend other.example:9000: its certificate is not for other.example; it carries"
        ),
        "{error}"
    );
    assert!(!uplink.ready(), "a backend with a wrong certificate is not dialed again at once");
}

#[tokio::test]
async fn a_backend_that_refuses_our_certificate_after_the_handshake() {
    let mut peers = Peers::new();
    let inner = Leaf { name: "emt.example", ..Leaf::default() }.signed_by(&peers.gateway_ca);
    let mut tls = peers.tls(inner);
    tls.versions = vec![&rustls::version::TLS13];
    let target = peers.tls_echo(tls).await;
    let gateway = peers.gateway(peers.good(), Proxy::Socks(target)).await;
    let uplink = uplink(&peers.config(gateway, peers.trust_ca()));
    let dialer = BackendDialer::new(&uplink, &peers.backend(true)).unwrap();
    let error = match dialer.dial().await {
        Err(error) => error.to_string(),
        Ok(mut stream) => say_hello(&mut stream).await.unwrap_err().to_string(),
    };
    assert!(error.contains("received alert certificate_required"), "{error}");
    let status = uplink.status().borrow().clone();
    assert_eq!((status.state, status.last_alert.as_str()), (State::Down, "certificate_required"));
}

#[tokio::test]
async fn files_that_cannot_work_name_their_field() {
    let peers = Peers::new();
    let nobody = peers.nobody().await;
    let setup = |config: &config::Uplink| Uplink::new(config, Clock::system()).unwrap_err();
    let with = |change: &dyn Fn(&mut config::Gateway)| {
        let mut config = peers.config(nobody, peers.trust_ca());
        if let config::Mode::Socks5(gateway) = &mut config.mode {
            change(gateway);
        }
        setup(&config)
    };
    let own = |c: &str, k: &str| config::Own::Files { certificate: peers.file(c), key: peers.file(k) };
    let error = with(&|g| g.own = own("cls.pem", "cls.pem"));
    assert_eq!(error.field, "uplink.key");
    assert!(error.problem.ends_with("holds a certificate and no private key; give the key here"), "{error}");
    assert_eq!(with(&|g| g.own = own("cls.key", "cls.key")).field, "uplink.certificate");
    let error = with(&|g| g.trust.ca.as_mut().unwrap().file = peers.file("cls.key"));
    assert_eq!(error.field, "uplink.trust.ca");
    let trust = peers.trust_name(Some("a b"));
    assert_eq!(with(&|g| g.trust = trust.clone()).field, "uplink.trust.name");

    let uplink = uplink(&peers.config(nobody, peers.trust_ca()));
    let backend = |change: &dyn Fn(&mut config::BackendTls)| {
        let mut backend = peers.backend(true);
        change(backend.tls.as_mut().unwrap());
        BackendDialer::new(&uplink, &backend).unwrap_err().field
    };
    assert_eq!(backend(&|b| b.ca = peers.file("cls.key")), "backend.ca");
    let pair = |c: &str, k: &str| Some((peers.file(c), peers.file(k)));
    assert_eq!(backend(&|b| b.identity = pair("cls.pem", "cls.pem")), "backend.key");
    assert_eq!(backend(&|b| b.identity = pair("cls.key", "cls.key")), "backend.certificate");
}
