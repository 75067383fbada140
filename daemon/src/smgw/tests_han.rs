//! The separation of the HAN, against a real kernel: in a network namespace of its own.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{State, Status, Uplink, peers::Peers};
use crate::{clock::Clock, config};

const SOON: Duration = Duration::from_secs(20);

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "LADEWART_TEST_NAMESPACE";

/// Starts this very test, named from the crate on, again inside a namespace. `false` inside; `true`, too, where there
/// is no right to make one.
pub(super) fn outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    if !nix::unistd::geteuid().is_root() {
        #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
        {
            eprintln!("{test} needs root for a network namespace of its own and was not run");
        }
        return true;
    }
    let script = "mount -t sysfs sysfs /sys && exec \"$0\" --exact \"$1\" --nocapture";
    let child = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let output =
        String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "inside the namespace:\n{output}");
    assert!(output.contains("1 passed"), "the test was found inside:\n{output}");
    true
}

pub(super) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

pub(super) fn set(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

async fn until(uplink: &Uplink, what: &str, fits: impl FnMut(&Status) -> bool) -> Status {
    let mut status = uplink.status();
    let found = timeout(SOON, status.wait_for(fits)).await;
    let Ok(found) = found else {
        panic!("{what}: {:?}", uplink.status().borrow());
    };
    found.unwrap().clone()
}

#[test]
fn the_uplink_follows_the_separation_of_a_real_interface() {
    if outside("smgw::tests_han::the_uplink_follows_the_separation_of_a_real_interface") {
        return;
    }
    // A namespace begins with the host's switch.
    set("ipv4/ip_forward", "0");
    ip("link set lo up");
    ip("link add han0 type veth peer name gw0");
    ip("addr add 192.0.2.2/24 dev han0");
    ip("link set han0 up");
    ip("link set gw0 up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(follow());
}

type Change = fn();

async fn follow() {
    let peers = Peers::new();
    // Nobody answers there: what is tried and what is not even tried can be told apart.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = peers.config(listener.local_addr().unwrap(), peers.trust_ca());
    config.step_timeout = Duration::from_millis(300);
    if let config::Mode::Socks5(gateway) = &mut config.mode {
        gateway.interface = Some("han0".to_owned());
    }
    let uplink = Uplink::new(&config, Clock::system()).unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(uplink.clone().run(stop.clone()));

    let error = uplink.connect("emt.example", 9000).await.unwrap_err().to_string();
    assert!(error.starts_with("TCP connect to 127.0.0.1:"), "separated, so it is tried: {error}");

    let changes: [(&str, Change, Change); 6] = [
        (
            "han0 is a port of the bridge br0",
            || {
                ip("link add br0 type bridge");
                ip("link set han0 master br0");
            },
            || {
                ip("link set han0 nomaster");
                ip("link del br0");
            },
        ),
        (
            "han0 forwards IPv4",
            || set("ipv4/conf/han0/forwarding", "1"),
            || set("ipv4/conf/han0/forwarding", "0"),
        ),
        (
            "gw0 forwards IPv4",
            || set("ipv4/conf/gw0/forwarding", "1"),
            || set("ipv4/conf/gw0/forwarding", "0"),
        ),
        (
            "this device forwards IPv6",
            || set("ipv6/conf/all/forwarding", "1"),
            || set("ipv6/conf/all/forwarding", "0"),
        ),
        (
            "han0 holds an IPv4 default route",
            || ip("route add default via 192.0.2.1 dev han0"),
            || ip("route del default"),
        ),
        (
            "han0 holds an IPv6 default route",
            || ip("-6 route add default dev han0"),
            || ip("-6 route del default dev han0"),
        ),
    ];
    for (says, wrong, right) in changes {
        wrong();
        // Heard of by itself, much sooner than anybody would look.
        let heard = Clock::system();
        let status = until(&uplink, says, |status| {
            status.last_error.as_ref().is_some_and(|(text, _)| text.contains(says))
        })
        .await;
        assert!(heard.now().mono.0 < Duration::from_secs(5), "{says}: {:?}", heard.now().mono.0);
        assert_eq!(status.state, State::Down);
        let attempts = timeout(SOON, uplink.connect("emt.example", 9000)).await.unwrap();
        assert!(attempts.unwrap_err().to_string().contains(says));
        right();
        let tried = async {
            loop {
                let error = uplink.connect("emt.example", 9000).await.unwrap_err().to_string();
                if error.starts_with("TCP connect to ") {
                    return;
                }
            }
        };
        timeout(SOON, tried).await.unwrap_or_else(|_| panic!("mended, so it is tried again: {says}"));
    }
    ip("link del han0");
    until(&uplink, "gone", |status| {
        status.last_error.as_ref().is_some_and(|(text, _)| text == "there is no interface han0")
    })
    .await;
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}
