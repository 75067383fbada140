use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{config, grid::Wish};

/// A formula's limit is not kept, so nothing may be decided before it is computed again: the first command finds it.
#[tokio::test]
async fn a_formulas_limit_holds_before_the_first_decision() {
    let text = "[site]\nname = \"x\"\n[[node]]\nid = \"main\"\nfuse = \"63 A\"\n\
        [[variable]]\nname = \"AVAIL\"\nunit = \"%\"\ndefault = 0\n\
        [[limit]]\nid = \"avail\"\nwatts = \"55000 * AVAIL / 100\"\notherwise = \"4.2 kW\"\n\
        [[relay]]\nid = \"k1\"\nline = { file = \"k1\" }\nfunction = \"unlimited\"\n";
    let source = config::Source::new("site.toml".into(), text.to_owned());
    let dir = tempfile::tempdir().unwrap();
    let migrations = [crate::journal::MIGRATIONS, crate::grid::MIGRATIONS].concat();
    let (store, writer) = Store::open(dir.path(), &migrations).unwrap();
    let (relay, mut energised) = watch::channel(false);
    let (control, site, _events) = Control::new(Parts {
        config: Arc::new(config::parse(&source).unwrap()),
        limits: vec![],
        tariffs: tariff::Book::default(),
        variables: vec![],
        failsafes: vec![],
        store: store.clone(),
        journal: Journal::new(store),
        clock: Clock::system(),
        setpoints: vec![],
        devices: vec![],
        relays: vec![relay],
        alive: Box::new(|| ()),
    });
    let now = Clock::system().now().wall;
    let tomorrow = Wish {
        valid_from: Some(now + Duration::from_secs(86_400)),
        ..Wish::new("uid:1", config::Role::Grid, Watts(1_000))
    };
    // It is waiting when the loop begins.
    let mut asked = JoinSet::new();
    let caller = site.clone();
    asked.spawn(async move { caller.set_limit(tomorrow).await });
    tokio::task::yield_now().await;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(control.run(stop.clone()));
    let answer = tokio::time::timeout(Duration::from_secs(20), asked.join_next()).await.unwrap();
    answer.unwrap().unwrap().unwrap();
    let limits = site.view().borrow().limits.clone();
    assert!(
        limits.iter().any(|r| r.limit.id.as_str().contains("avail") && r.limit.watts == Watts::ZERO),
        "{limits:?}"
    );
    assert!(!energised.has_changed().unwrap(), "it was free for a moment");
    assert!(!*energised.borrow_and_update());
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
    drop(writer);
}
