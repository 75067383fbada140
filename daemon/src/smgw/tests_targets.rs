//! Several targets, modes, trusts and identities over one gateway.

use std::{net::SocketAddr, time::Duration};

use rcgen::ExtendedKeyUsagePurpose;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Dial, DialError, Io, State, Uplink,
    peers::{Act, Ca, Leaf, Peers, Proxy},
};
use crate::{
    clock::Clock,
    config::{self, Connections, Place, Trust},
    identity::{Algorithm, Store, Subject},
    time::Wall,
};

const SOON: Duration = Duration::from_secs(20);

pub(super) async fn say_hello(io: &mut impl Io) -> std::io::Result<()> {
    io.write_all(b"hello").await?;
    io.flush().await?;
    let mut back = [0; 5];
    io.read_exact(&mut back).await?;
    assert_eq!(&back, b"hello");
    Ok(())
}

fn uplink(config: &config::Uplink) -> Uplink {
    Uplink::new(config, Clock::system()).unwrap()
}

fn target(name: &str, place: Place) -> config::Target {
    config::Target { name: name.to_owned(), place }
}

/// Why the first attempt came to nothing.
async fn refusal(uplink: &Uplink) -> String {
    match uplink.connect("emt.example", 9000).await {
        Err(error) => error.to_string(),
        Ok(mut channel) => say_hello(&mut channel).await.expect_err("it is refused").to_string(),
    }
}

async fn works(uplink: &Uplink) {
    let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
    say_hello(&mut channel).await.unwrap();
}

#[tokio::test]
async fn a_target_is_found_by_its_name_in_the_handshake() {
    let mut peers = Peers::new();
    let tls = peers.good();
    let gateway = peers.gateway(tls, Proxy::Script(vec![Act::EchoFor("emt.example")])).await;
    let mut config = peers.config(gateway, peers.trust_ca());
    config.mode = config::Mode::Sni(peers.side(&gateway.to_string(), peers.trust_name(Some("smgw.local"))));
    config.targets = vec![
        target("backend", Place::Sni("emt.example".to_owned())),
        target("operator", Place::Sni("nobody.example".to_owned())),
    ];
    let uplink = uplink(&config);
    assert_eq!(uplink.status().borrow().mode, "sni");
    let mut channel = uplink.target("backend").unwrap().connect().await.unwrap();
    say_hello(&mut channel).await.unwrap();
    // The gateway ends the handshake on its default service, then closes.
    let operator = uplink.target("operator").unwrap();
    let error = say_hello(&mut operator.connect().await.unwrap()).await.unwrap_err().to_string();
    assert_eq!(error, "TLS with the gateway for nobody.example stands, then it closed before its first byte");
    assert!(!operator.ready() && uplink.target("backend").unwrap().ready());
    say_hello(&mut channel).await.unwrap();
    say_hello(&mut uplink.connect("emt.example", 443).await.unwrap()).await.unwrap();
    assert!(matches!(uplink.connect("192.0.2.1", 443).await, Err(DialError::Hopeless(_))));
}

#[tokio::test]
async fn a_target_that_is_refused_does_not_hold_back_the_others() {
    let mut peers = Peers::new();
    let (echo, nobody) = (peers.echo().await, peers.nobody().await);
    let gateway = peers.gateway(peers.good(), Proxy::Honest).await;
    let mut config = peers.config(gateway, peers.trust_ca());
    let at = |address: SocketAddr| Place::Host("127.0.0.1".to_owned(), address.port());
    config.targets = vec![target("gone", at(nobody)), target("there", at(echo))];
    let uplink = uplink(&config);
    let (gone, there) = (uplink.target("gone").unwrap(), uplink.target("there").unwrap());
    for _ in 0..3 {
        let error = gone.connect().await.unwrap_err().to_string();
        assert_eq!(error, "proxy reply 05 connection refused");
        let begun = Clock::system();
        say_hello(&mut there.connect().await.unwrap()).await.unwrap();
        assert!(begun.now().mono.0 < Duration::from_millis(900), "no backoff of another");
    }
    let status = uplink.status().borrow().clone();
    let told: Vec<_> = status.targets.iter().map(|target| (target.name.as_str(), target.state)).collect();
    assert_eq!(told, [("gone", State::Down), ("there", State::Up)]);
    assert_eq!(uplink.target_at("127.0.0.1", echo.port()).unwrap().name(), "there");
    assert!(uplink.target("elsewhere").is_none());
}

#[tokio::test]
async fn one_connection_per_target_where_the_gateway_takes_no_more() {
    let mut peers = Peers::new();
    let there = peers.echo().await;
    let gateway = peers.gateway(peers.good(), Proxy::Socks(there)).await;
    let mut config = peers.config(gateway, peers.trust_ca());
    config.connections = Connections::OnePerTarget;
    config.step_timeout = Duration::from_millis(500);
    let uplink = uplink(&config);
    let target = uplink.target_at("emt.example", 9000).unwrap();
    assert_eq!(target.renewal().map(|renewal| renewal.overlap), Some(false), "break before make");
    let mut first = target.connect().await.unwrap();
    say_hello(&mut first).await.unwrap();
    let error = target.connect().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "one connection per target is configured, and the one to emt.example:9000 stands already"
    );
    say_hello(&mut uplink.connect("other.example", 9000).await.unwrap()).await.unwrap();
    drop(first);
    say_hello(&mut target.connect().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_old_pin_and_a_new_anchor_stand_side_by_side() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let old = Leaf::default().self_signed();
    let both = Trust { pins: vec![[7; 32], old.fingerprint()], ..peers.trust_ca() };
    for certificate in [old, Leaf::default().signed_by(&peers.gateway_ca)] {
        let tls = peers.tls(certificate);
        let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
        works(&uplink(&peers.config(gateway, both.clone()))).await;
    }
    let stranger = Leaf::default().signed_by(&Ca::new("Another"));
    let shown = crate::identity::hex(&stranger.fingerprint());
    let tls = peers.tls(stranger);
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let words = refusal(&uplink(&peers.config(gateway, both))).await;
    assert!(words.contains(&format!("has the fingerprint {shown}, pinned is 0707")), "{words}");
    assert!(words.contains(" or "), "both pins are named: {words}");
}

#[tokio::test]
async fn a_first_gateway_is_only_taken_on_by_command() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let clock = Clock::system();
    let directory = peers.file("identity");
    let store = Store::open(&directory, clock).unwrap();
    let trust = Trust { tofu: true, ..Trust::default() };
    let certificate = Leaf::default().self_signed();
    let pin = certificate.fingerprint();
    let tls = peers.tls(certificate);
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let config = peers.config(gateway, trust.clone());
    let first = Uplink::with_store(&config, &store, clock).unwrap();
    let words = refusal(&first).await;
    assert!(
        words.contains("and none is trusted yet; if it is the right one, `ladewartctl uplink trust`"),
        "{words}"
    );
    assert!(store.pins().pins().is_empty());
    let got = first.trust_next(Duration::from_secs(100_000)).unwrap();
    assert_eq!(got, Duration::from_secs(3600));
    works(&first).await;
    assert_eq!(store.pins().pins(), [pin]);
    // It holds for the next daemon, and for this gateway alone.
    let again = Store::open(&directory, clock).unwrap();
    works(&Uplink::with_store(&config, &again, clock).unwrap()).await;
    let tls = peers.tls(Leaf::default().self_signed());
    let other = peers.gateway(tls, Proxy::Socks(target)).await;
    let other = Uplink::with_store(&peers.config(other, trust), &again, clock).unwrap();
    assert!(refusal(&other).await.contains("pinned is "));
    let strict = Uplink::with_store(&peers.config(gateway, peers.trust_ca()), &again, clock).unwrap();
    assert!(strict.trust_next(SOON).unwrap_err().contains("write tofu = true"));
}

#[tokio::test]
async fn a_gateway_that_does_not_hold_its_key_is_not_taken_on() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let clock = Clock::system();
    let store = Store::open(&peers.file("identity"), clock).unwrap();
    let mut certificate = Leaf::default().self_signed();
    certificate.key = Leaf::default().self_signed().key;
    let tls = peers.tls(certificate);
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let config = peers.config(gateway, Trust { tofu: true, ..Trust::default() });
    let uplink = Uplink::with_store(&config, &store, clock).unwrap();
    uplink.trust_next(SOON).unwrap();
    assert!(refusal(&uplink).await.contains("does not hold the key of its certificate"));
    assert!(store.pins().pins().is_empty());
}

#[tokio::test]
async fn dates_are_judged_by_a_clock_that_is_set_and_by_no_other() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let gateway = peers.gateway(peers.good(), Proxy::Socks(target)).await;
    let config = peers.config(gateway, peers.trust_ca());
    let at = |text: &str| Clock::set_to(Wall::parse(text).unwrap());
    let unset = Uplink::new(&config, at("1970-01-01T00:00:07Z")).unwrap();
    works(&unset).await;
    assert_eq!(
        unset.status().borrow().warnings,
        ["the clock is not set, so the dates of certificates are not judged"]
    );
    let late = Uplink::new(&config, at("2100-01-01T00:00:00Z")).unwrap();
    assert!(refusal(&late).await.contains("its certificate expired at 2099"));
    let near = Uplink::new(&config, at("2098-11-01T00:00:00Z")).unwrap();
    works(&near).await;
    assert_eq!(
        near.status().borrow().warnings,
        [
            "our certificate ends in less than 90 days, on 2099-01-01T00:00:00.000Z",
            "the gateway's certificate ends in less than 90 days, on 2099-01-01T00:00:00.000Z"
        ]
    );
}

/// The fingerprint that the gateway saw.
async fn shown(io: &mut impl Io) -> [u8; 32] {
    let mut pin = [0; 32];
    io.read_exact(&mut pin).await.unwrap();
    pin
}

#[tokio::test]
async fn an_identity_is_made_brought_into_use_and_rotated_under_load() {
    rotated_under_load(Clock::system(), 2099).await;
}

/// Nor does it matter then that the gateway's certificate has ended.
#[tokio::test]
async fn and_while_the_clock_is_not_set() {
    rotated_under_load(Clock::set_to(Wall(7_000)), 2021).await;
}

async fn rotated_under_load(clock: Clock, gateway_until: i32) {
    let mut peers = Peers::new();
    let tls = peers.tls(Leaf { until: gateway_until, ..Leaf::default() }.signed_by(&peers.gateway_ca));
    let gateway = peers.gateway(tls, Proxy::Script(asked(Act::TellClient))).await;
    let store = Store::open(&peers.file("identity"), clock).unwrap();
    let mut config = peers.config(gateway, peers.trust_ca());
    if let config::Mode::Socks5(gateway) = &mut config.mode {
        gateway.own = config::Own::Stored("cls".to_owned());
    }
    assert_eq!(Uplink::new(&config, clock).unwrap_err().field, "uplink.identity");
    let uplink = Uplink::with_store(&config, &store, clock).unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(uplink.clone().run(stop.clone()));
    let words = refusal(&uplink).await;
    assert!(words.contains("identity \"cls\" has no key yet"), "{words}");

    store.create_key("cls", Algorithm::EcdsaP256).unwrap();
    let request = store.request("cls", &Subject::default()).unwrap();
    let entry = store.import_certificate("cls", &peers.cls_ca.answer(&request)).unwrap();
    let first = entry.certificate.unwrap().fingerprint;
    // No restart, and no wait for a backoff of minutes.
    let mut standing = Vec::new();
    for _ in 0..5 {
        let mut channel = timeout(SOON, uplink.connect("emt.example", 9000)).await.unwrap().unwrap();
        assert_eq!(shown(&mut channel).await, first);
        standing.push(channel);
    }
    store.create_key("next", Algorithm::EcdsaP384).unwrap();
    let request = store.request("next", &Subject::default()).unwrap();
    let entry = store.import_certificate("next", &peers.cls_ca.answer(&request)).unwrap();
    let second = entry.certificate.unwrap().fingerprint;
    let mut status = uplink.status();
    let traffic = async {
        let mut rounds = 0;
        while rounds < 50 {
            for channel in &mut standing {
                say_hello(channel).await.unwrap();
            }
            rounds += 1;
        }
    };
    let rotate = async {
        store.select("next").unwrap();
        let own = |own: &Option<super::CertificateStatus>| own.as_ref().map(|own| own.fingerprint);
        status.wait_for(|status| own(&status.own) == Some(second)).await.unwrap();
    };
    timeout(SOON, async { tokio::join!(traffic, rotate) }).await.unwrap();
    let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
    assert_eq!(shown(&mut channel).await, second);
    for channel in &mut standing {
        say_hello(channel).await.unwrap();
    }
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

/// A proxy that grants what it is asked for, then this.
fn asked(then: Act) -> Vec<Act> {
    let granted = vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    vec![Act::Read(3), Act::Write(vec![5, 0]), Act::Read(18), Act::Write(granted), then]
}

#[tokio::test]
async fn a_session_ends_before_the_gateway_cuts_it_and_its_age_is_shown() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let gateway = peers.gateway(peers.good(), Proxy::Socks(target)).await;
    let mut config = peers.config(gateway, peers.trust_ca());
    config.renew_after = Duration::from_millis(700);
    let uplink = uplink(&config);
    let mut old = uplink.connect("emt.example", 9000).await.unwrap();
    say_hello(&mut old).await.unwrap();
    let status = uplink.status().borrow().clone();
    let (begun, renew) = (status.oldest_session.unwrap(), status.next_renewal.unwrap());
    assert_eq!(renew, begun + config.renew_after);
    // Make before break: the new one is there before the old one goes.
    let mut new = uplink.connect("emt.example", 9000).await.unwrap();
    say_hello(&mut new).await.unwrap();
    let ended = timeout(SOON, old.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(ended.to_string(), "the session reached its planned end");
    assert!(old.write_all(b"more").await.is_err());
    drop(new);
    let status = uplink.status().borrow().clone();
    assert_eq!((status.open, status.oldest_session, status.next_renewal), (0, None, None));
    assert_eq!((status.state, status.failures), (State::Up, 0), "a planned end is no failure");
}

#[tokio::test]
async fn each_wrong_certificate_of_a_gateway_is_told_apart() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let wrong = [
        (Leaf { until: 2021, ..Leaf::default() }.signed_by(&peers.gateway_ca), "expired at 2021"),
        (Leaf { from: 2090, ..Leaf::default() }.signed_by(&peers.gateway_ca), "is not valid before 2090"),
        (Leaf::default().self_signed(), "is not issued by a trusted CA"),
        (
            Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::default() }
                .signed_by(&peers.gateway_ca),
            "is not made for this end of TLS",
        ),
    ];
    for (certificate, says) in wrong {
        let tls = peers.tls(certificate);
        let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
        let words = refusal(&uplink(&peers.config(gateway, peers.trust_ca()))).await;
        assert!(words.contains(says), "expected {says:?} in {words:?}");
    }
}
