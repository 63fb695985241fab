//! From where somebody asks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// From where a request comes.
///
/// A proxy that the configuration trusts is believed about its client. What others claim in `X-Forwarded-For` is no proof,
/// and yet means that the address of the connection is not that of the client: such a request is allowed only what the
/// connection's address and every claimed one are allowed, and denied what any of them is denied. So a forged header
/// only ever takes rights away, and a proxy that nobody told this server about does not open it to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    peer: Hop,
    /// Nearest first. Empty but for unproven claims.
    claimed: Vec<Hop>,
}

/// One station of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// This machine: a Unix socket, or an address of its own.
    Own(Option<IpAddr>),
    Address(IpAddr),
    /// A proxy did not want to say, or nobody can read it.
    Unknown,
}

impl Place {
    pub(crate) fn new(peer: Hop) -> Self {
        Place {
            peer,
            claimed: Vec::new(),
        }
    }

    /// With addresses that nobody vouches for.
    pub(crate) fn claiming(peer: Hop, claimed: Vec<Hop>) -> Self {
        Place { peer, claimed }
    }

    /// The address that can be counted on: of the client, or of a proxy that is not known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.peer {
            Hop::Own(address) => address,
            Hop::Address(address) => Some(address),
            Hop::Unknown => None,
        }
    }

    /// Whether everything about it lies in one of `networks`: what a rule that allows asks.
    pub(super) fn is_within(&self, networks: &[Network]) -> bool {
        let within = |hop: &Hop| networks.iter().any(|network| network.contains(hop));
        within(&self.peer) && self.claimed.iter().all(within)
    }

    /// Whether anything about it does: what a rule that denies asks.
    pub(super) fn touches(&self, networks: &[Network]) -> bool {
        let within = |hop: &Hop| networks.iter().any(|network| network.contains(hop));
        within(&self.peer) || self.claimed.iter().any(within)
    }
}

impl fmt::Display for Place {
    /// For logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer)?;
        match self.claimed.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " (for {one}, unproven)"),
            // The outermost, where it says to begin.
            [.., first] => write!(f, " (for {first} and others, unproven)"),
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Own(None) => f.write_str("unix"),
            Hop::Own(Some(address)) | Hop::Address(address) => write!(f, "{address}"),
            Hop::Unknown => f.write_str("unknown"),
        }
    }
}

/// Where a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Anywhere,
    /// RFC 1918, unique local, link-local and loopback addresses, and this machine.
    Private,
    /// This machine.
    Loopback,
    /// The first `len` bits of the address. IPv4 is IPv4, also when it comes in IPv6.
    Block {
        address: IpAddr,
        len: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("expected private, loopback, anywhere, or a network as 192.168.1.0/24 or fd00::/8")]
    Format,
    #[error("has bits set after its first {len}; the network is written {network}/{len}")]
    HostBits { network: IpAddr, len: u8 },
}

impl Network {
    pub(crate) fn contains(&self, hop: &Hop) -> bool {
        let (is_own, address) = match hop {
            Hop::Own(address) => (true, *address),
            Hop::Address(address) => (false, Some(*address)),
            Hop::Unknown => (false, None),
        };
        match self {
            Network::Anywhere => true,
            Network::Private => is_own || address.is_some_and(is_private),
            Network::Loopback => {
                is_own || address.is_some_and(|address| canonical(address).is_loopback())
            }
            Network::Block {
                address: network,
                len,
            } => address.is_some_and(|address| masked(canonical(address), *len) == Some(*network)),
        }
    }
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn is_private(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// The address with all but its first `len` bits zero; none if it has fewer than that.
fn masked(address: IpAddr, len: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let drop = 32u32.checked_sub(len.into())?;
            let mask = u32::MAX.checked_shl(drop).unwrap_or(0);
            Some(Ipv4Addr::from_bits(v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let drop = 128u32.checked_sub(len.into())?;
            let mask = u128::MAX.checked_shl(drop).unwrap_or(0);
            Some(Ipv6Addr::from_bits(v6.to_bits() & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match text {
            "anywhere" => return Ok(Network::Anywhere),
            "private" => return Ok(Network::Private),
            "loopback" => return Ok(Network::Loopback),
            _ => {}
        }
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Format)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let len = match len {
            Some(len) => len.parse().ok().filter(|len| *len <= whole),
            None => Some(whole),
        };
        let len: u8 = len.ok_or(NetworkError::Format)?;
        // `::ffff:10.0.0.0/104` is 10.0.0.0/8.
        let (address, len) = match (address, canonical(address)) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) => {
                (v4, len.checked_sub(96).ok_or(NetworkError::Format)?)
            }
            _ => (address, len),
        };
        match masked(address, len) {
            Some(network) if network == address => Ok(Network::Block { address, len }),
            Some(network) => Err(NetworkError::HostBits { network, len }),
            None => Err(NetworkError::Format),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Anywhere => f.write_str("anywhere"),
            Network::Private => f.write_str("private"),
            Network::Loopback => f.write_str("loopback"),
            Network::Block { address, len } => write!(f, "{address}/{len}"),
        }
    }
}
