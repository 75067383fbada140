//! A site whose clock is not set: it judges no dates, in any direction, and everything else as ever.

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::time::Wall;

/// 1970: no battery, no NTP yet.
const UNSET: Wall = Wall(0);

/// Whether the site serves an operator that it dials, with this certificate.
async fn dialed(ca: &Authority, leaf: &Leaf, set: bool) -> bool {
    let (listener, address) = listener().await;
    let tables = known(&leaf.fingerprint(), Role::Grid, None) + &operator("north", address, "\"grid\"");
    let mut site = Site::new(ca, &tables).await;
    if !set {
        site.clock = Clock::set_to(UNSET);
    }
    let mut tasks = JoinSet::new();
    site.dial(&mut tasks);
    let serves = match accept(&listener, &ca.server(leaf)).await {
        // In TLS 1.3 a server is done before it hears that its certificate was refused.
        Ok(mut stream) => soon(stream.read_u8()).await.is_ok(),
        Err(_) => false,
    };
    site.ends(tasks).await;
    serves
}

/// Whether the site serves who calls it on its network, with this certificate.
async fn called(ca: &Authority, client: &Arc<ClientConfig>, leaf: &Leaf, set: bool) -> bool {
    let mut site = Site::new(ca, &(known(&leaf.fingerprint(), Role::Grid, None) + LAN)).await;
    if !set {
        site.clock = Clock::set_to(UNSET);
    }
    let mut tasks = JoinSet::new();
    let address = site.listen(&mut tasks).await;
    let serves = match connect(address, client).await {
        // The first thing that a server of HTTP/2 says are its settings.
        Ok(mut stream) => soon(stream.read_u8()).await.is_ok(),
        Err(_) => false,
    };
    site.ends(tasks).await;
    serves
}

#[tokio::test]
async fn dates_are_judged_once_the_clock_is_set_and_everything_else_always() {
    let ca = Authority::new("ca");
    for (dates, set, good) in [
        (Dates::Now, true, true),
        (Dates::Past, true, false),
        (Dates::Future, true, false),
        (Dates::Now, false, true),
        (Dates::Past, false, true),
        (Dates::Future, false, true),
    ] {
        let leaf = ca.leaf(HOST, None, dates);
        assert_eq!(dialed(&ca, &leaf, set).await, good, "dialed: {dates:?}, clock set: {set}");
        let client = ca.client(Some(&leaf));
        assert_eq!(called(&ca, &client, &leaf, set).await, good, "called: {dates:?}, clock set: {set}");
    }
    let other = Authority::new("other");
    for leaf in [other.leaf(HOST, None, Dates::Now), ca.leaf("elsewhere.example", None, Dates::Now)] {
        assert!(!dialed(&ca, &leaf, false).await, "another issuer, or another name");
    }
    let stranger = other.leaf(HOST, None, Dates::Now);
    assert!(!called(&ca, &ca.client(Some(&stranger)), &stranger, false).await, "another issuer");
    assert!(!called(&ca, &ca.client(None), &stranger, false).await, "no certificate");
}
