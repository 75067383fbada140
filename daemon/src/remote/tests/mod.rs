//! Operators with real TLS on real sockets, in both directions, against a site whose loop is played.

mod coming;
mod pki;
mod table;
mod unset;

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use ladewart_proto::v1::{self, site_service_client::SiteServiceClient};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tonic::transport::{Channel, Endpoint};

use self::pki::{Authority, Dates, Leaf};
use super::*;
use crate::{
    api::{
        Peer,
        tests::{Daemon, own_uid, soon},
    },
    config::Role,
    journal::Stored,
};

const HOST: &str = "operator.example";
const ROLES: [Role; 5] = [Role::Viewer, Role::Installer, Role::Grid, Role::Supplier, Role::Admin];

/// A certificate, a role, and perhaps a name.
fn known(print: &str, role: Role, name: Option<&str>) -> String {
    let name = name.map(|name| format!("name = \"{name}\"\n")).unwrap_or_default();
    format!("[[api.certificate]]\nfingerprint = \"{print}\"\nrole = \"{}\"\n{name}\n", role.name())
}

/// `[[operator]]` with the files that [`load`] writes.
fn operator(name: &str, address: SocketAddr, roles: &str) -> String {
    format!(
        "[[operator]]\nname = \"{name}\"\naddress = \"{address}\"\nca = \"ca.pem\"\nserver_name = \"{HOST}\"\n\
         certificate = \"site.pem\"\nkey = \"site.key\"\nroles = [{roles}]\n\n"
    )
}

/// A configuration with these tables, and the files `ca.pem`, `site.pem` and `site.key`.
fn load(dir: &Path, ca: &Authority, tables: &str) -> Config {
    load_with(dir, ca, "[uplink]\nmode = \"direct\"\n\n", tables)
}

/// The same with another uplink.
fn load_with(dir: &Path, ca: &Authority, uplink: &str, tables: &str) -> Config {
    fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    ca.leaf("site.example", None, Dates::Now).write(dir, "site");
    let text = format!("[site]\nname = \"x\"\n\n{uplink}[[node]]\nid = \"n\"\nfuse = \"63 A\"\n\n{tables}");
    fs::write(dir.join("site.toml"), text).unwrap();
    config::load(&dir.join("site.toml")).unwrap().0
}

/// The played site, its interface for the callers of a configuration, and the configuration.
struct Site {
    daemon: Daemon,
    interface: Interface,
    config: Config,
    clock: Clock,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn new(ca: &Authority, tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = load(dir.path(), ca, tables);
        Self::with(config, dir).await
    }

    /// With a configuration and the directory of its files.
    async fn with(config: Config, dir: tempfile::TempDir) -> Self {
        let daemon = Daemon::start(vec![(own_uid(), Role::Admin)]);
        let parts = crate::api::Parts { config: config.api.clone(), ..daemon.parts.clone() };
        let clock = parts.clock;
        let interface = Interface::new(parts, daemon.stop.clone()).await.unwrap();
        Self { daemon, interface, config, clock, _dir: dir }
    }

    /// Starts what dials the operators.
    fn dial(&self, tasks: &mut JoinSet<()>) {
        let uplink = Uplink::new(self.config.uplink.as_ref().unwrap(), self.clock).unwrap();
        let operators = Operators::new(&self.config, Some(&uplink), self.clock).unwrap().unwrap();
        let (journal, stop) = (self.daemon.parts.journal.clone(), self.daemon.stop.clone());
        tasks.spawn(operators.run(self.interface.clone(), journal, self.clock, stop));
    }

    async fn listen(&self, tasks: &mut JoinSet<()>) -> SocketAddr {
        let lan = Lan::new(self.config.api.lan.as_ref().unwrap(), self.clock).unwrap();
        let listener = lan.bind().await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(lan.run(listener, self.interface.clone(), self.daemon.stop.clone()));
        address
    }

    /// Waits until the journal holds so many entries of a kind.
    async fn recorded(&self, kind: &str, least: usize) -> Vec<Stored> {
        let look = async {
            loop {
                let found = self.daemon.parts.journal.page(1, 0, kind, 100).await.unwrap();
                if found.len() >= least {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(look).await
    }

    async fn ends(self, mut tasks: JoinSet<()>) {
        self.daemon.stop.cancel();
        drop(self.interface);
        while let Some(ended) = soon(tasks.join_next()).await {
            ended.unwrap();
        }
        self.daemon.ends().await;
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The operator takes the site's next connection.
async fn accept(
    listener: &TcpListener,
    tls: &Arc<ServerConfig>,
) -> std::io::Result<server::TlsStream<TcpStream>> {
    let (tcp, _) = soon(listener.accept()).await?;
    tcp.set_nodelay(true)?;
    soon(TlsAcceptor::from(tls.clone()).accept(tcp)).await
}

/// Somebody calls on the site's network.
async fn connect(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let tcp = soon(TcpStream::connect(address)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("site.example").unwrap();
    soon(TlsConnector::from(tls.clone()).connect(name, tcp)).await
}

/// A client of the interface on one stream.
async fn caller(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Channel {
    let mut io = Some(TokioIo::new(io));
    let once = tower::service_fn(move |_| {
        let io = io.take();
        async move { io.ok_or_else(|| std::io::Error::other("once")) }
    });
    soon(Endpoint::from_static("http://site").connect_with_connector(once)).await.unwrap()
}

async fn works(channel: &Channel) -> bool {
    let answer = soon(SiteServiceClient::new(channel.clone()).get_site(v1::GetSiteRequest {})).await;
    answer.is_ok_and(|answer| answer.into_inner().site.is_some_and(|site| site.name == "Depot"))
}

#[tokio::test]
async fn the_site_dials_serves_and_comes_back_after_a_cut() {
    let ca = Authority::new("ca");
    let (listener, address) = listener().await;
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let tables =
        known(&leaf.fingerprint(), Role::Grid, Some("dso")) + &operator("north", address, "\"grid\"");
    let site = Site::new(&ca, &tables).await;
    let mut tasks = JoinSet::new();
    site.dial(&mut tasks);
    for n in 1..=2 {
        let stream = accept(&listener, &ca.server(&leaf)).await.unwrap();
        assert!(stream.get_ref().1.peer_certificates().is_some(), "the site shows its own");
        let channel = caller(stream).await;
        assert!(works(&channel).await);
        let connected = site.recorded("remote.connected", n).await;
        let (last, body) = (connected.last().unwrap(), &connected.last().unwrap().body);
        assert_eq!((last.subject.as_str(), last.actor.as_str()), ("north", "cert:dso"));
        assert!(body.contains(&leaf.fingerprint()) && body.contains("\"grid\""), "{body}");
        // The operator goes without a word.
        drop(channel);
        let gone = site.recorded("remote.disconnected", n).await;
        assert!(gone.last().unwrap().body.contains("reason"), "{gone:?}");
    }
    site.ends(tasks).await;
}

#[tokio::test]
async fn one_operator_that_stalls_does_not_keep_another_waiting() {
    let ca = Authority::new("ca");
    let (stalls, deaf) = listener().await;
    let (listener, address) = listener().await;
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let tables = known(&leaf.fingerprint(), Role::Admin, None)
        + &operator("deaf", deaf, "\"admin\"")
        + &operator("good", address, "\"admin\"");
    let site = Site::new(&ca, &tables).await;
    let mut tasks = JoinSet::new();
    site.dial(&mut tasks);
    let (_silent, _) = soon(stalls.accept()).await.unwrap();
    let channel = caller(accept(&listener, &ca.server(&leaf)).await.unwrap()).await;
    assert!(works(&channel).await);
    site.ends(tasks).await;
}

#[tokio::test]
async fn the_next_connection_stands_before_the_old_one_is_given_up() {
    let ca = Authority::new("ca");
    let (listener, address) = listener().await;
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let tables = known(&leaf.fingerprint(), Role::Viewer, None) + &operator("north", address, "\"viewer\"");
    let site = Site::new(&ca, &tables).await;
    let way = site.config.uplink.as_ref().unwrap();
    let (host, port) = (address.ip().to_string(), address.port());
    let mut operator =
        Operator::new("operator[0]", &site.config.operators[0], (&host, port), way, site.clock).unwrap();
    operator.times.renew = Duration::from_millis(300);
    let served = session::Served {
        interface: site.interface.clone(),
        journal: site.daemon.parts.journal.clone(),
        clock: site.clock,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(operator.run(Uplink::new(way, site.clock).unwrap(), served, site.daemon.stop.clone()));
    let tls = ca.server(&leaf);
    let old = caller(accept(&listener, &tls).await.unwrap()).await;
    let watch = v1::WatchSiteRequest::default();
    let mut pictures = SiteServiceClient::new(old.clone()).watch_site(watch).await.unwrap().into_inner();
    soon(pictures.message()).await.unwrap();
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    assert!(works(&old).await, "the old one serves while the next one is being made");
    let new = caller(soon(TlsAcceptor::from(tls).accept(tcp)).await.unwrap()).await;
    assert!(works(&new).await);
    let end = soon(async {
        while pictures.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    })
    .await;
    let end = end.unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
    assert!(end.message().contains("the next one"), "{}", end.message());
    site.ends(tasks).await;
}

#[tokio::test]
async fn whoever_stalls_on_the_network_keeps_nobody_out() {
    let ca = Authority::new("ca");
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let site = Site::new(&ca, &(known(&leaf.fingerprint(), Role::Viewer, None) + LAN)).await;
    let mut tasks = JoinSet::new();
    let address = site.listen(&mut tasks).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(soon(TcpStream::connect(address)).await.unwrap());
    }
    let channel = caller(connect(address, &ca.client(Some(&leaf))).await.unwrap()).await;
    assert!(works(&channel).await);
    let closed = async {
        for stream in &mut silent[..160] {
            let mut byte = [0];
            assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
        }
    };
    soon(closed).await;
    site.ends(tasks).await;
}

/// `[api.lan]` with the files that [`load`] writes.
const LAN: &str = "[api.lan]\nlisten = \"127.0.0.1:0\"\ncertificate = \"site.pem\"\nkey = \"site.key\"\nca = \"ca.pem\"\n\n";

#[tokio::test(start_paused = true)]
async fn who_passes_tls_and_then_says_nothing_is_let_go() {
    let ca = Authority::new("ca");
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let site = Site::new(&ca, &known(&leaf.fingerprint(), Role::Grid, None)).await;
    let (_silent, io) = tokio::io::duplex(1024);
    let shown = crate::api::Presented::read(&leaf.certificate).unwrap();
    let peer = Peer::Certificate(shown.into());
    let why = site.interface.serve_stream(io, peer, CancellationToken::new()).await.unwrap();
    assert!(why.contains("within 10s"), "{why}");
    site.ends(JoinSet::new()).await;
}

#[test]
fn files_that_do_not_fit_are_named() {
    let ca = Authority::new("ca");
    let leaf: Leaf = ca.leaf(HOST, None, Dates::Now);
    let dir = tempfile::tempdir().unwrap();
    let tables = known(&leaf.fingerprint(), Role::Grid, None)
        + &operator("north", SocketAddr::from(([127, 0, 0, 1], 9)), "\"grid\"")
        + LAN;
    let config = load(dir.path(), &ca, &tables);
    let clock = Clock::system();
    let uplink = Uplink::new(config.uplink.as_ref().unwrap(), clock).unwrap();
    ca.leaf("other.example", None, Dates::Now).write(dir.path(), "site");
    fs::copy(dir.path().join("ca.pem"), dir.path().join("site.pem")).unwrap();
    let error = Operators::new(&config, Some(&uplink), clock).unwrap_err();
    assert_eq!(error.field, "operator[0].key", "{error}");
    assert_eq!(Lan::new(config.api.lan.as_ref().unwrap(), clock).unwrap_err().field, "api.lan.key");
    ca.leaf("site.example", None, Dates::Now).write(dir.path(), "site");
    fs::write(dir.path().join("ca.pem"), "").unwrap();
    let error = Operators::new(&config, Some(&uplink), clock).unwrap_err();
    assert_eq!(error.field, "operator[0].ca", "{error}");
    assert_eq!(Lan::new(config.api.lan.as_ref().unwrap(), clock).unwrap_err().field, "api.lan.ca");
}
