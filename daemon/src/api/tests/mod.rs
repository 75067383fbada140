//! Over a real socket, with a real client, against a site whose loop is played here.

mod access;
mod fake;
mod identities;
mod limits;
mod pictures;
mod transactions;

use hyper_util::rt::TokioIo;
use ladewart_proto::v1;
use tokio::{
    net::UnixStream,
    sync::{broadcast, mpsc},
    task::JoinSet,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use self::fake::Loop;
use super::*;
use crate::{
    config::Role,
    control::Handle,
    journal::MIGRATIONS,
    store::{Store, Writer},
};

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

async fn next_site(stream: &mut tonic::Streaming<v1::WatchSiteResponse>) -> Result<v1::Site, Status> {
    soon(stream.message()).await.map(|answer| answer.expect("a picture").site.unwrap())
}

pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    pub(crate) stop: CancellationToken,
    /// For more interfaces to the same site.
    pub(crate) parts: Parts,
    site: Arc<Loop>,
    uplink: watch::Sender<smgw::Status>,
    tasks: JoinSet<Result<(), Error>>,
    _dir: tempfile::TempDir,
    _writer: Writer,
}

impl Daemon {
    pub(crate) fn start(users: Vec<(u32, Role)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let migrations = [MIGRATIONS, crate::ocpp::MIGRATIONS].concat();
        let (store, writer) = Store::open(dir.path(), &migrations).unwrap();
        let (clock, journal) = (Clock::system(), Journal::new(store.clone()));
        let (commands, queue) = mpsc::channel(16);
        let (view, shown) = watch::channel(Arc::new(fake::view(clock.now())));
        let (limits, _) = broadcast::channel(64);
        let (uplink, status) = watch::channel(smgw::Status { mode: "socks5", ..Default::default() });
        let socket = dir.path().join("l.sock");
        let listener = bind(&socket).unwrap();
        let stop = CancellationToken::new();
        let site = Arc::new(Loop { journal: journal.clone(), view, limits: limits.clone(), clock });
        let parts = Parts {
            config: config::Api { socket: socket.clone(), users, certificates: vec![], lan: None },
            site: Handle { commands, view: shown, limits, offers: fake::offers() },
            uplink: Some(status),
            way: None,
            identities: Some(crate::identity::Store::open(&dir.path().join("identity"), clock).unwrap()),
            updates: None,
            desk: None,
            orders: crate::ocpp::Orders::default(),
            ledger: crate::ocpp::ledger::Ledger::new(store),
            journal,
            clock,
        };
        let mut tasks = JoinSet::new();
        let (token, path) = (stop.clone(), socket.clone());
        let mine = parts.clone();
        tasks.spawn(async move { Interface::new(mine, token).await?.serve_socket(listener, &path).await });
        let owner = Arc::clone(&site);
        tasks.spawn(async move {
            owner.run(queue).await;
            Ok(())
        });
        Self { socket, stop, parts, site, uplink, tasks, _dir: dir, _writer: writer }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://ladewart").connect_with_connector(connect).await.unwrap()
    }

    pub(crate) async fn ends(mut self) {
        self.stop.cancel();
        drop(self.parts);
        // The interface ends and drops the way to the site; then the site's owner ends, too.
        while let Some(ended) = soon(self.tasks.join_next()).await {
            ended.unwrap().unwrap();
        }
        assert!(!self.socket.exists(), "a stopped daemon leaves no socket");
    }
}

pub(crate) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}
