//! A gateway that refuses the renegotiation SCSV (RFC 5746) with the alert illegal_parameter.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    Uplink,
    peers::{Peers, Proxy},
    tests_targets::say_hello,
};
use crate::{
    clock::Clock,
    config::{GatewayTls, Mode},
    tls::scsv,
};

/// Lets those through whose ClientHello has no SCSV, or nobody; counts who came.
struct Strict {
    address: SocketAddr,
    came: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Strict {
    async fn new(behind: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let counter = came.clone();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                open.spawn(async move {
                    let mut record = vec![0; 5];
                    near.read_exact(&mut record).await.unwrap();
                    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
                    record.resize(5 + length, 0);
                    near.read_exact(&mut record[5..]).await.unwrap();
                    let Some(behind) = behind.filter(|_| scsv::without(&record[5..]).is_none()) else {
                        let _ = near.write_all(&[21, 3, 3, 0, 2, 2, 47]).await;
                        let _ = near.shutdown().await;
                        return;
                    };
                    let mut far = TcpStream::connect(behind).await.unwrap();
                    far.write_all(&record).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, came, _tasks: tasks }
    }

    fn uplink(&self, peers: &Peers, tls: GatewayTls) -> Uplink {
        let mut config = peers.config(self.address, peers.trust_ca());
        if let Mode::Socks5(gateway) = &mut config.mode {
            gateway.tls = tls;
        }
        Uplink::new(&config, Clock::system()).unwrap()
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

async fn strict(peers: &mut Peers) -> Strict {
    let target = peers.echo().await;
    let tls = peers.good();
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    Strict::new(Some(gateway)).await
}

async fn works(uplink: &Uplink) {
    let mut channel = uplink.connect("emt.example", 9000).await.unwrap();
    say_hello(&mut channel).await.unwrap();
}

const OMIT: GatewayTls = GatewayTls { tls13: false, cbc: false, omit_scsv: Some(true) };

#[tokio::test]
async fn after_the_alert_it_is_left_out_and_stays_so() {
    let mut peers = Peers::new();
    let front = strict(&mut peers).await;
    // TLS 1.3 is given up for it, too: such a gateway does not have it.
    let uplink = front.uplink(&peers, GatewayTls { tls13: true, ..GatewayTls::default() });
    works(&uplink).await;
    assert_eq!(front.came(), 2);
    let status = uplink.status().borrow().clone();
    assert_eq!((status.attempts, status.failures), (1, 0));
    assert!(status.session.starts_with("TLSv1.2 "), "{}", status.session);
    works(&uplink).await;
    assert_eq!(front.came(), 3);
}

#[tokio::test]
async fn where_the_configuration_says_so_it_is_left_out_at_once() {
    let mut peers = Peers::new();
    let front = strict(&mut peers).await;
    works(&front.uplink(&peers, OMIT)).await;
    assert_eq!(front.came(), 1);
}

#[tokio::test]
async fn where_the_configuration_forbids_it_the_alert_is_told() {
    let mut peers = Peers::new();
    let front = strict(&mut peers).await;
    let uplink = front.uplink(&peers, GatewayTls { omit_scsv: Some(false), ..OMIT });
    let error = uplink.connect("emt.example", 9000).await.unwrap_err().to_string();
    assert!(error.starts_with("TLS with the gateway: received alert illegal_parameter"), "{error}");
    assert_eq!((front.came(), uplink.status().borrow().last_alert.as_str()), (1, "illegal_parameter"));
}

#[tokio::test]
async fn a_gateway_that_refuses_everything_is_asked_once() {
    let peers = Peers::new();
    let front = Strict::new(None).await;
    let uplink = front.uplink(&peers, GatewayTls::default());
    let error = uplink.connect("emt.example", 9000).await.unwrap_err().to_string();
    assert!(error.contains("illegal_parameter"), "{error}");
    assert_eq!(front.came(), 2);
    uplink.connect("emt.example", 9000).await.unwrap_err();
    assert_eq!(front.came(), 3);
}

#[tokio::test]
async fn an_ordinary_gateway_does_not_mind() {
    let mut peers = Peers::new();
    let target = peers.echo().await;
    let tls = peers.good();
    let gateway = peers.gateway(tls, Proxy::Socks(target)).await;
    let front = Strict { address: gateway, came: Arc::default(), _tasks: JoinSet::new() };
    works(&front.uplink(&peers, OMIT)).await;
}
