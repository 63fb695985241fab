//! Being told when an address of this machine comes or goes: rtnetlink(7). What exactly has changed is not read, only that
//! something has, so a socket is all it takes.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use tokio::net::UnixDatagram;

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

/// A netlink socket in the clothes of another: all that is done with it is to wait and to receive, which is the same for
/// every socket of datagrams.
pub(super) struct AddressWatch(UnixDatagram);

impl AddressWatch {
    /// # Errors
    /// Where there is no netlink (a sandbox without `AF_NETLINK`).
    pub(super) fn new() -> io::Result<Self> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, ADDRESS_GROUPS))?;
        UnixDatagram::from_std(netlink.into()).map(AddressWatch)
    }

    /// Ends when something has changed since the last call. Never when the socket fails.
    pub(super) async fn changed(&self) {
        if self.0.readable().await.is_err() {
            return std::future::pending().await;
        }
        // An error: more was said than the socket could hold, which is a change as well.
        let mut message = [0; 8 << 10];
        while self.0.try_recv(&mut message).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_waits_where_nothing_changes() {
        let watch = AddressWatch::new().unwrap();
        // Other tests change no addresses of this machine.
        let changed = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(changed.is_err());
    }
}
