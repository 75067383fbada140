//! Operators who come in: the gateway connects to us (HKS4, HKS5) and hands them through.

use std::collections::BTreeMap;

use super::*;
use crate::{
    config::{Mode, Place, Target},
    smgw::BoxedIo,
};

/// A site in mode `listen`, and a gateway that may connect there.
pub(super) struct Coming {
    pub(super) site: Site,
    pub(super) tasks: JoinSet<()>,
    addresses: BTreeMap<String, SocketAddr>,
    gateway: Arc<ClientConfig>,
    pub(super) uplink: Uplink,
}

/// `[[operator]]` who comes through the target of the same name.
pub(super) fn operator(name: &str, roles: &str) -> String {
    format!(
        "[[operator]]\nname = \"{name}\"\ntarget = \"{name}\"\nca = \"ca.pem\"\ncertificate = \"site.pem\"\n\
         key = \"site.key\"\nroles = [{roles}]\n\n"
    )
}

impl Coming {
    /// With a target for each of these operators.
    pub(super) async fn new(ca: &Authority, tables: &str, operators: &[&str]) -> Self {
        let han = Authority::new("han");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("han.pem"), han.pem()).unwrap();
        han.leaf("site.example", None, Dates::Now).write(dir.path(), "cls");
        // The ports are there to be read; the test listens on free ones.
        let target = |(port, name)| format!("[[uplink.target]]\nname = \"{name}\"\nport = {port}\n\n");
        let targets: String = (9000..).zip(operators).map(target).collect();
        let uplink = format!(
            "[uplink]\nmode = \"listen\"\nlisten = \"127.0.0.1\"\ncertificate = \"cls.pem\"\nkey = \"cls.key\"\n\
             trust = {{ ca = \"han.pem\" }}\n\n{targets}"
        );
        let mut config = load_with(dir.path(), ca, &uplink, tables);
        let way = config.uplink.as_mut().unwrap();
        assert!(matches!(way.mode, Mode::Listen(_)));
        let free = |target: &Target| Target { name: target.name.clone(), place: Place::Port(0) };
        way.targets = way.targets.iter().map(free).collect();
        let site = Site::with(config, dir).await;
        let uplink = Uplink::new(site.config.uplink.as_ref().unwrap(), site.clock).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(uplink.clone().run(site.daemon.stop.clone()));
        let coming = Operators::new(&site.config, Some(&uplink), site.clock).unwrap().unwrap();
        let (journal, stop) = (site.daemon.parts.journal.clone(), site.daemon.stop.clone());
        tasks.spawn(coming.run(site.interface.clone(), journal, site.clock, stop));
        let mut addresses = BTreeMap::new();
        for target in uplink.targets() {
            let mut listening = target.listening();
            let address = *soon(listening.wait_for(Option::is_some)).await.unwrap();
            addresses.insert(target.name().to_owned(), address.unwrap());
        }
        let mut gateway = (*han.client(Some(&han.leaf("smgw.example", None, Dates::Now)))).clone();
        gateway.alpn_protocols = Vec::new();
        Self { site, tasks, addresses, gateway: Arc::new(gateway), uplink }
    }

    /// The gateway connects for an operator.
    pub(super) async fn gateway(&self, operator: &str) -> client::TlsStream<TcpStream> {
        connect(self.addresses[operator], &self.gateway).await.unwrap()
    }

    /// The operator comes in through the gateway.
    pub(super) async fn comes(&self, operator: &str, tls: &Arc<ClientConfig>) -> std::io::Result<BoxedIo> {
        let way: BoxedIo = Box::new(self.gateway(operator).await);
        let name = ServerName::try_from("site.example").unwrap();
        Ok(Box::new(soon(TlsConnector::from(tls.clone()).connect(name, way)).await?))
    }

    pub(super) async fn ends(self) {
        self.site.ends(self.tasks).await;
    }
}

#[tokio::test]
async fn an_operator_that_comes_in_is_served_like_one_that_is_dialed() {
    let ca = Authority::new("ca");
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let tables = known(&leaf.fingerprint(), Role::Grid, Some("dso")) + &operator("north", "\"grid\"");
    let coming = Coming::new(&ca, &tables, &["north"]).await;
    for n in 1..=2 {
        let channel = caller(coming.comes("north", &ca.client(Some(&leaf))).await.unwrap()).await;
        assert!(works(&channel).await);
        let connected = coming.site.recorded("remote.connected", n).await;
        let last = connected.last().unwrap();
        assert_eq!((last.subject.as_str(), last.actor.as_str()), ("north", "cert:dso"));
        assert_eq!(coming.uplink.status().borrow().open, 1);
        drop(channel);
        coming.site.recorded("remote.disconnected", n).await;
    }
    coming.ends().await;
}

#[tokio::test]
async fn strangers_behind_the_gateway_are_turned_away_and_counted() {
    let ca = Authority::new("ca");
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let tables = known(&leaf.fingerprint(), Role::Grid, None) + &operator("north", "\"grid\"");
    let coming = Coming::new(&ca, &tables, &["north"]).await;
    let stranger = Authority::new("other").leaf(HOST, None, Dates::Now);
    let mut status = coming.uplink.status();
    for (n, own) in [(1, Some(&stranger)), (2, None)] {
        let refused = async {
            let mut stream = coming.comes("north", &ca.client(own)).await?;
            stream.read_u8().await
        };
        refused.await.unwrap_err();
        let told = soon(status.wait_for(|status| status.refused == n)).await.unwrap().last_refusal.clone();
        let (reason, _) = told.unwrap();
        assert!(reason.starts_with("operator north: TLS: "), "{reason}");
    }
    // Nobody at all, and somebody who speaks something else.
    let mut silent = coming.gateway("north").await;
    tokio::io::AsyncWriteExt::write_all(&mut silent, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    soon(status.wait_for(|status| status.refused == 3)).await.unwrap();
    let channel = caller(coming.comes("north", &ca.client(Some(&leaf))).await.unwrap()).await;
    assert!(works(&channel).await, "they harm nobody");
    coming.ends().await;
}

#[tokio::test]
async fn many_that_stall_keep_no_operator_out() {
    let ca = Authority::new("ca");
    let leaf = ca.leaf(HOST, None, Dates::Now);
    let tables = known(&leaf.fingerprint(), Role::Viewer, None)
        + &operator("north", "\"viewer\"")
        + &operator("south", "\"viewer\"");
    let coming = Coming::new(&ca, &tables, &["north", "south"]).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(coming.gateway("north").await);
    }
    for operator in ["south", "north"] {
        let channel = caller(coming.comes(operator, &ca.client(Some(&leaf))).await.unwrap()).await;
        assert!(works(&channel).await, "{operator}");
    }
    coming.ends().await;
}
