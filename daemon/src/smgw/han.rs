//! Whether the HAN is separated from every other network (BSI TR-03109-1; gateways switch a port off whose HAN
//! reaches the Internet, and a technician must come).
//!
//! In: what the kernel says of the interface and of forwarding. Out: the reason why the uplink must stay down, or
//! nothing. Invariant: what cannot be read counts as not separated.
//!
//! Limits: packet filters are not looked at (a bridge or a forwarding interface is refused even if a filter would
//! hold), nor are IPv4 routes outside the main table.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::ifaddrs::getifaddrs;
use tokio_util::sync::CancellationToken;

/// What is known of an interface and of what surrounds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    /// There is such an interface.
    pub(super) exists: bool,
    /// Its `operstate`: `"up"`, `"down"`, `"unknown"`…
    pub(super) operstate: String,
    /// What it is tied to.
    pub(super) tie: Tie,
    /// Interfaces that pass IPv4 packets on to others.
    pub(super) forwarding_v4: Vec<String>,
    /// IPv6 packets are passed on.
    pub(super) forwarding_v6: bool,
    /// The protocols with a default route over it.
    pub(super) default_routes: Vec<&'static str>,
}

/// What an interface is tied to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Tie {
    /// Nothing.
    #[default]
    Alone,
    /// It is a bridge itself.
    Bridge,
    /// It is a port of this bridge.
    PortOf(String),
    /// It belongs to this bond, team or VRF.
    PartOf(String),
}

/// Why the uplink must stay down; `None` if the HAN is separated.
pub(super) fn judge(interface: &str, facts: &Facts) -> Option<String> {
    if !facts.exists {
        return Some(format!("there is no interface {interface}"));
    }
    let not = |why: String| Some(format!("the HAN is not separated from other networks: {why}"));
    match &facts.tie {
        Tie::Alone => {}
        Tie::Bridge => return not(format!("{interface} is a bridge; give the HAN a port of its own")),
        Tie::PortOf(bridge) => {
            return not(format!("{interface} is a port of the bridge {bridge}; take it out of the bridge"));
        }
        Tie::PartOf(other) => {
            return not(format!("{interface} belongs to {other}; give the HAN a port of its own"));
        }
    }
    if let [first, ..] = &facts.forwarding_v4[..] {
        let who = if facts.forwarding_v4.iter().any(|name| name == interface) { interface } else { first };
        return not(format!("{who} forwards IPv4; set net.ipv4.conf.{who}.forwarding = 0"));
    }
    if facts.forwarding_v6 {
        return not("this device forwards IPv6; set net.ipv6.conf.all.forwarding = 0".to_owned());
    }
    if let [version, ..] = &facts.default_routes[..] {
        return not(format!("{interface} holds an {version} default route; remove it"));
    }
    None
}

/// Reads the kernel's files below `root`, which is `/` but for tests.
pub(super) fn read(root: &Path, interface: &str) -> io::Result<Facts> {
    let device = root.join("sys/class/net").join(interface);
    if !device.try_exists()? {
        return Ok(Facts::default());
    }
    let tie = match fs::read_link(device.join("master")) {
        Ok(link) => {
            let master = link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if device.join("brport").try_exists()? { Tie::PortOf(master) } else { Tie::PartOf(master) }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if device.join("bridge").try_exists()? {
                Tie::Bridge
            } else {
                Tie::Alone
            }
        }
        Err(e) => return Err(e),
    };
    // The thread's own view: a process may hold threads in several network namespaces.
    let net = ["proc/thread-self/net", "proc/net"].map(|path| root.join(path));
    let net = if net[0].try_exists()? { &net[0] } else { &net[1] };
    let mut default_routes = Vec::new();
    if default_v4(&fs::read_to_string(net.join("route"))?, interface) {
        default_routes.push("IPv4");
    }
    if default_v6(&optional(&net.join("ipv6_route"))?.unwrap_or_default(), interface) {
        default_routes.push("IPv6");
    }
    Ok(Facts {
        exists: true,
        operstate: fs::read_to_string(device.join("operstate"))?.trim().to_owned(),
        tie,
        forwarding_v4: forwarding_v4(root)?,
        forwarding_v6: forwarding_v6(root, interface)?,
        default_routes,
    })
}

/// A file that is missing where the kernel lacks the feature.
fn optional(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The kernel asks the interface where a packet came in; a packet for the HAN may come in anywhere.
fn forwarding_v4(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("proc/sys/net/ipv4/conf"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The first two are templates for others; what comes in by loopback is our own.
        if ["all", "default", "lo"].contains(&name.as_str()) {
            continue;
        }
        // An interface may go while the list is read.
        if optional(&entry.path().join("forwarding"))?.is_some_and(|text| text.trim() != "0") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// One switch for all, or (since Linux 6.17) one per interface.
fn forwarding_v6(root: &Path, interface: &str) -> io::Result<bool> {
    let conf = root.join("proc/sys/net/ipv6/conf");
    let on = |path: PathBuf| Ok::<_, io::Error>(optional(&path)?.is_some_and(|text| text.trim() != "0"));
    Ok(on(conf.join("all/forwarding"))?
        || on(conf.join(interface).join("forwarding"))?
        || on(conf.join(interface).join("force_forwarding"))?)
}

/// Longest prefix that is as good as a default route: two halves make a whole.
const WIDE: u32 = 1;

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses in hexadecimal.
fn default_v4(table: &str, interface: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let ours = fields.next() == Some(interface);
        let mask = fields.nth(6).and_then(|mask| u32::from_str_radix(mask, 16).ok());
        ours && mask.is_none_or(|mask| mask.count_ones() <= WIDE)
    })
}

/// `destination length source length next-hop metric refcnt use flags device`, in hexadecimal.
fn default_v6(table: &str, interface: &str) -> bool {
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ours = fields.last() == Some(&interface);
        let length = fields.get(1).and_then(|length| u32::from_str_radix(length, 16).ok());
        ours && length.is_none_or(|length| length <= WIDE)
    })
}

/// Guards one interface. Sessions hold a token that ends them when the separation does.
#[derive(Debug)]
pub(super) struct Han {
    interface: String,
    root: PathBuf,
    fence: Mutex<CancellationToken>,
}

impl Han {
    pub(super) fn new(interface: &str) -> Arc<Self> {
        Self::below(interface, Path::new("/"))
    }

    pub(super) fn below(interface: &str, root: &Path) -> Arc<Self> {
        Arc::new(Self {
            interface: interface.to_owned(),
            root: root.to_owned(),
            fence: Mutex::new(CancellationToken::new()),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.interface
    }

    pub(super) fn facts(&self) -> io::Result<Facts> {
        read(&self.root, &self.interface)
    }

    /// Says so if the interface has no address from which this one can be reached, or none at all.
    pub(super) fn lacks_address(&self, far: Option<IpAddr>) -> Option<String> {
        let found = match getifaddrs() {
            Ok(found) => found,
            Err(error) => {
                return Some(format!("the addresses of {} cannot be read: {error}", self.interface));
            }
        };
        let (mut v4, mut v6) = (false, false);
        for address in found.filter(|found| found.interface_name == self.interface) {
            let address = address.address;
            v4 |= address.as_ref().is_some_and(|address| address.as_sockaddr_in().is_some());
            v6 |= address.as_ref().is_some_and(|address| address.as_sockaddr_in6().is_some());
        }
        let (there, kind) = match far {
            None => (v4 || v6, "IP"),
            Some(IpAddr::V4(_)) => (v4, "IPv4"),
            Some(IpAddr::V6(_)) => (v6, "IPv6"),
        };
        let interface = &self.interface;
        (!there).then(|| {
            format!(
                "the interface {interface} has no {kind} address; give it the one that the gateway administrator \
                 assigned"
            )
        })
    }

    /// Looks now. The token ends with the separation; the error is the reason why there is none.
    pub(super) fn check(&self) -> Result<CancellationToken, String> {
        let reason = match self.facts() {
            Ok(facts) => judge(&self.interface, &facts),
            Err(e) => Some(format!("the separation of {} cannot be checked: {e}", self.interface)),
        };
        let mut fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => {
                fence.cancel();
                Err(reason)
            }
            None => {
                if fence.is_cancelled() {
                    *fence = CancellationToken::new();
                }
                Ok(fence.clone())
            }
        }
    }
}

#[cfg(test)]
#[path = "han_tests.rs"]
mod tests;
