//! The gateway connects to us.

use std::{net::SocketAddr, time::Duration};

use rcgen::ExtendedKeyUsagePurpose;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Dial, State, Target, Uplink,
    peers::{Ca, Leaf, Peers, Signed},
};
use crate::{
    clock::Clock,
    config::{self, Place, Trust},
};

const SOON: Duration = Duration::from_secs(30);

struct Side {
    peers: Peers,
    uplink: Uplink,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Side {
    fn new(targets: &[&str], step_timeout: Duration) -> Self {
        let peers = Peers::new();
        // Ours serves here, and the gateway is the client.
        let cls = Leaf { name: "cls", ..Leaf::default() }.signed_by(&peers.cls_ca);
        peers.write_identity("cls", &cls);
        let mut config = peers.config(([127, 0, 0, 1], 1).into(), peers.trust_ca());
        config.mode = config::Mode::Listen(peers.side("127.0.0.1", peers.trust_ca()));
        config.step_timeout = step_timeout;
        let target = |name: &&str| config::Target { name: (*name).to_owned(), place: Place::Port(0) };
        config.targets = targets.iter().map(target).collect();
        let uplink = Uplink::new(&config, Clock::system()).unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(uplink.clone().run(stop.clone()));
        Self { peers, uplink, stop, tasks }
    }

    async fn address(&self, target: &str) -> SocketAddr {
        let mut listening = self.uplink.target(target).unwrap().listening();
        let address = *timeout(SOON, listening.wait_for(Option::is_some)).await.unwrap().unwrap();
        address.unwrap()
    }

    fn gateway(&self) -> Signed {
        Leaf { name: "smgw", usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::default() }
            .signed_by(&self.peers.gateway_ca)
    }

    /// The gateway connects, and whoever dials the target speaks first.
    async fn works(&self, target: &Target, address: SocketAddr, gateway: &Signed) {
        let far = async {
            let mut tls = self.peers.call(address, Some(gateway)).await.unwrap();
            let mut asked = [0; 5];
            tls.read_exact(&mut asked).await.unwrap();
            tls.write_all(&asked).await.unwrap();
            tls.flush().await.unwrap();
        };
        let near = async {
            let mut channel = target.connect().await.unwrap();
            super::tests_targets::say_hello(&mut channel).await.unwrap();
        };
        timeout(SOON, async { tokio::join!(far, near) }).await.unwrap();
    }

    async fn ends(mut self) {
        self.stop.cancel();
        timeout(SOON, self.tasks.join_next()).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn whoever_dials_gets_the_connection_that_the_gateway_opened() {
    let side = Side::new(&["backend", "operator"], Duration::from_secs(10));
    let (backend, operator) =
        (side.uplink.target("backend").unwrap(), side.uplink.target("operator").unwrap());
    let gateway = side.gateway();
    assert!(!backend.ready(), "nobody has come yet");
    side.works(&backend, side.address("backend").await, &gateway).await;
    // What comes for one target is not handed to another.
    let mut far = side.peers.call(side.address("operator").await, Some(&gateway)).await.unwrap();
    let accepted = timeout(SOON, operator.accept()).await.unwrap().unwrap();
    assert_eq!(accepted.peer.fingerprint, gateway.fingerprint());
    assert_eq!(accepted.from, far.get_ref().0.local_addr().unwrap());
    let mut channel = accepted.channel;
    far.write_all(b"hello").await.unwrap();
    far.flush().await.unwrap();
    let mut heard = [0; 5];
    channel.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    let status = side.uplink.status().borrow().clone();
    assert_eq!((status.mode, status.state, status.open), ("listen", State::Up, 1));
    assert_eq!(status.peer.unwrap().fingerprint, gateway.fingerprint());
    assert!(status.session.starts_with("TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_"), "{}", status.session);
    drop(channel);
    assert_eq!(side.uplink.status().borrow().open, 0);
    side.ends().await;
}

#[tokio::test]
async fn a_connection_that_was_given_up_while_it_waited_is_handed_to_nobody() {
    let side = Side::new(&["backend"], Duration::from_secs(10));
    let (target, address, gateway) =
        (side.uplink.target("backend").unwrap(), side.address("backend").await, side.gateway());
    let mut gone = Vec::new();
    for _ in 0..5 {
        gone.push(side.peers.call(address, Some(&gateway)).await.unwrap());
    }
    let mut status = side.uplink.status();
    timeout(SOON, status.wait_for(|status| status.open == 5)).await.unwrap().unwrap();
    drop(gone);
    let mut live = side.peers.call(address, Some(&gateway)).await.unwrap();
    timeout(SOON, status.wait_for(|status| status.open == 1)).await.unwrap().unwrap();
    let mut channel = timeout(SOON, target.connect()).await.unwrap().unwrap();
    channel.write_all(b"hello").await.unwrap();
    channel.flush().await.unwrap();
    let mut heard = [0; 5];
    timeout(SOON, live.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"hello");
    drop((channel, live));
    // One that speaks first loses nothing of what it said while it waited.
    let mut early = side.peers.call(address, Some(&gateway)).await.unwrap();
    early.write_all(b"early").await.unwrap();
    early.flush().await.unwrap();
    let _other = side.peers.call(address, Some(&gateway)).await.unwrap();
    timeout(SOON, status.wait_for(|status| status.open == 2)).await.unwrap().unwrap();
    let mut channel = timeout(SOON, target.connect()).await.unwrap().unwrap();
    timeout(SOON, channel.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"early");
    side.ends().await;
}

#[tokio::test]
async fn a_gateway_that_does_not_come_is_a_failure_in_words() {
    let side = Side::new(&["backend"], Duration::from_millis(200));
    side.address("backend").await;
    let error = side.uplink.connect("csms.example", 80).await.unwrap_err().to_string();
    assert_eq!(error, "the gateway has not connected for backend within 200ms");
    assert_eq!(side.uplink.status().borrow().state, State::Down);
    side.ends().await;
}

#[tokio::test]
async fn only_the_gateway_is_let_in() {
    let side = Side::new(&["backend"], Duration::from_secs(10));
    let address = side.address("backend").await;
    let client = || Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::default() };
    let stranger = client().signed_by(&Ca::new("Another"));
    let expired = Leaf { until: 2021, ..client() }.signed_by(&side.peers.gateway_ca);
    let early = Leaf { from: 2090, ..client() }.signed_by(&side.peers.gateway_ca);
    let alone = client().self_signed();
    let server = Leaf::default().signed_by(&side.peers.gateway_ca);
    let mut status = side.uplink.status();
    let cases = [
        (None, "the peer shows no certificate"),
        (Some(&stranger), "is not issued by a trusted CA"),
        (Some(&expired), "expired at 2021"),
        (Some(&early), "is not valid before 2090"),
        (Some(&alone), "is not issued by a trusted CA"),
        (Some(&server), "extended key usage"),
    ];
    for (i, (certificate, says)) in (1..).zip(cases) {
        let refused = async {
            match side.peers.call(address, certificate).await {
                Ok(mut tls) => tls.read_u8().await.map(drop),
                Err(error) => Err(error),
            }
        };
        assert!(timeout(SOON, refused).await.unwrap().is_err(), "{says}");
        let status = timeout(SOON, status.wait_for(|status| status.refused == i)).await.unwrap().unwrap();
        let (words, _) = status.last_refusal.clone().unwrap();
        assert!(words.starts_with("TLS with 127.0.0.1:") && words.contains(says), "{says:?} in {words:?}");
        assert_eq!((status.open, status.failures), (0, 0), "a stranger is not a failure of ours");
    }
    side.works(&side.uplink.target("backend").unwrap(), address, &side.gateway()).await;
    side.ends().await;
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn ten_thousand_garbage_connections_harm_nobody() {
    let side = Side::new(&["flooded", "other"], Duration::from_secs(10));
    let (flooded, other) = (side.address("flooded").await, side.address("other").await);
    let gateway = side.gateway();
    let target = side.uplink.target("other").unwrap();
    let before = resident();
    let garbage: [&[u8]; 4] = [b"", b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0x40, 0], &[0xff; 2000]];
    let flood = async {
        // Stallers that stay open all along, and many that come and go.
        let mut stay = Vec::new();
        for i in 0..10_000_usize {
            let mut tcp = TcpStream::connect(flooded).await.unwrap();
            let _ = tcp.write_all(garbage[i % garbage.len()]).await;
            if i % 50 == 0 {
                stay.push(tcp);
            }
        }
        stay
    };
    let meanwhile = async {
        for _ in 0..10 {
            side.works(&target, other, &gateway).await;
        }
    };
    let (stay, ()) =
        timeout(Duration::from_secs(240), Box::pin(async { tokio::join!(flood, meanwhile) })).await.unwrap();
    // While two hundred still stall, the gateway gets in where they do.
    side.works(&side.uplink.target("flooded").unwrap(), flooded, &gateway).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    let status = side.uplink.status().borrow().clone();
    assert!(status.refused > 5_000, "{}", status.refused);
    assert_eq!((status.failures, status.state), (0, State::Up));
    drop(stay);
    side.ends().await;
}

#[tokio::test]
async fn a_pinned_gateway_is_let_in_whatever_its_certificate_says() {
    let peers = Peers::new();
    let gateway = Leaf { until: 2021, ..Leaf::default() }.self_signed();
    let cls = Leaf { name: "cls", ..Leaf::default() }.signed_by(&peers.cls_ca);
    peers.write_identity("cls", &cls);
    let trust = Trust { pins: vec![gateway.fingerprint()], ..Trust::default() };
    let mut config = peers.config(([127, 0, 0, 1], 1).into(), trust.clone());
    config.mode = config::Mode::Listen(peers.side("127.0.0.1", trust));
    config.targets = vec![config::Target { name: "backend".to_owned(), place: Place::Port(0) }];
    let uplink = Uplink::new(&config, Clock::system()).unwrap();
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    tasks.spawn(uplink.clone().run(stop.clone()));
    let side = Side { peers, uplink, stop, tasks };
    side.works(&side.uplink.target("backend").unwrap(), side.address("backend").await, &gateway).await;
    side.ends().await;
}
