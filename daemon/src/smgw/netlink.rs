//! Tells when the kernel's network configuration changes (rtnetlink(7)).
//!
//! What has changed is not read here: who waits looks at the whole again.

use std::{io, os::fd::AsRawFd, os::unix::net::UnixDatagram as StdDatagram};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
};
use tokio::net::UnixDatagram;

/// Groups by their numbers in `linux/rtnetlink.h`: links, IPv4 and IPv6 addresses and routes, and the switches
/// for forwarding (netconf).
const GROUPS: [u32; 7] = [1, 5, 7, 9, 11, 24, 25];

/// See the module. The runtime has no type for netlink; receiving is the same for every datagram socket.
#[derive(Debug)]
pub(super) struct Changes(UnixDatagram);

impl Changes {
    pub(super) fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self(UnixDatagram::from_std(StdDatagram::from(fd))?))
    }

    /// Something changed since the last call, or since it was opened.
    pub(super) async fn next(&self) -> io::Result<()> {
        match self.0.recv(&mut [0; 4096]).await {
            // More changes than the socket holds: that is a change, too.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(()),
            other => other.map(drop),
        }
    }
}
