//! What the CA may sign: the name constraints that it carries (RFC 5280, section 4.2.1.10).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::tls::names::Names;

/// Names that no public site has, with everything below them: RFC 6761, RFC 6762, RFC 8375, ICANN's `internal`, and
/// `lan`, which routers use and ICANN does not delegate.
const PRIVATE_ZONES: [&str; 5] = ["localhost", "local", "lan", "home.arpa", "internal"];

/// RFC 1122 (loopback), RFC 1918, RFC 6598 (carriers' and VPNs' shared space), RFC 3927 (link-local).
const PRIVATE_V4: [(Ipv4Addr, u8); 6] = [
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
];

/// Loopback, RFC 4193 (unique local), RFC 4291 (link-local).
const PRIVATE_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::LOCALHOST, 128),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// Addresses that begin as this one in the bits of the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4 { address: u32, mask: u32 },
    V6 { address: u128, mask: u128 },
}

impl Network {
    fn new(address: IpAddr, bits: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                let address = address.to_bits() & mask;
                Network::V4 { address, mask }
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                let address = address.to_bits() & mask;
                Network::V6 { address, mask }
            }
        }
    }

    /// From the bytes of a certificate: address and mask, one after the other.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (address, mask) = bytes.split_at(bytes.len() / 2);
        if let (Ok(address), Ok(mask)) = (address.try_into(), mask.try_into()) {
            let (address, mask) = (u32::from_be_bytes(address), u32::from_be_bytes(mask));
            return Some(Network::V4 { address, mask });
        }
        let (address, mask) = (address.try_into().ok()?, mask.try_into().ok()?);
        let (address, mask) = (u128::from_be_bytes(address), u128::from_be_bytes(mask));
        Some(Network::V6 { address, mask })
    }

    fn contains(self, other: IpAddr) -> bool {
        match (self, other) {
            (Network::V4 { address, mask }, IpAddr::V4(other)) => other.to_bits() & mask == address,
            (Network::V6 { address, mask }, IpAddr::V6(other)) => other.to_bits() & mask == address,
            _ => false,
        }
    }

    fn subnet(self) -> CidrSubnet {
        match self {
            Network::V4 { address, mask } => {
                CidrSubnet::V4(address.to_be_bytes(), mask.to_be_bytes())
            }
            Network::V6 { address, mask } => {
                CidrSubnet::V6(address.to_be_bytes(), mask.to_be_bytes())
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// A zone stands for itself and everything below it.
    zones: Vec<String>,
    networks: Vec<Network>,
}

impl Scope {
    /// For a CA of a machine with these names: they, and what is private everywhere. Its public addresses of now are
    /// taken in one by one, so that a server on the internet can be called by its address too.
    pub(super) fn of_machine(names: &Names) -> Self {
        let mut scope = Scope {
            zones: PRIVATE_ZONES
                .iter()
                .map(|zone| (*zone).to_owned())
                .collect(),
            networks: Vec::new(),
        };
        let v4 = PRIVATE_V4.map(|(address, bits)| Network::new(address.into(), bits));
        let v6 = PRIVATE_V6.map(|(address, bits)| Network::new(address.into(), bits));
        scope.networks.extend(v4.into_iter().chain(v6));
        for name in &names.dns {
            if !scope.allows_name(name) {
                let zone = name.strip_prefix("*.").unwrap_or(name);
                scope.zones.push(zone.to_owned());
            }
        }
        for address in &names.addresses {
            if !scope.allows_address(*address) {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                scope.networks.push(Network::new(*address, bits));
            }
        }
        scope
    }

    /// As the CA's certificate says. None for one that has no constraints.
    pub(super) fn of_certificate(certificate: &X509Certificate<'_>) -> Option<Self> {
        let constraints = certificate.name_constraints().ok()??.value;
        let mut scope = Scope::default();
        for subtree in constraints.permitted_subtrees.iter().flatten() {
            match subtree.base {
                GeneralName::DNSName(zone) => {
                    let zone = zone.trim_start_matches('.').to_ascii_lowercase();
                    scope.zones.push(zone);
                }
                GeneralName::IPAddress(bytes) => scope.networks.extend(Network::of_bytes(bytes)),
                _ => {}
            }
        }
        Some(scope)
    }

    pub(super) fn constraints(&self) -> NameConstraints {
        let zones = self.zones.iter().cloned().map(GeneralSubtree::DnsName);
        let networks = self.networks.iter().map(|network| network.subnet());
        NameConstraints {
            permitted_subtrees: zones
                .chain(networks.map(GeneralSubtree::IpAddress))
                .collect(),
            excluded_subtrees: Vec::new(),
        }
    }

    pub(super) fn allows_name(&self, name: &str) -> bool {
        let name = name.strip_prefix("*.").unwrap_or(name);
        self.zones.iter().any(|zone| {
            name.strip_suffix(zone.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    pub(super) fn allows_address(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(own: &[&str]) -> Scope {
        let mut names = Names::default();
        own.iter().for_each(|name| assert!(names.add(name)));
        Scope::of_machine(&names)
    }

    #[test]
    fn private_names_and_addresses_are_in_and_the_rest_of_the_world_is_not() {
        let scope = scope(&[
            "pi",
            "pi.local",
            "pi.example.com",
            "203.0.113.5",
            "10.1.1.1",
        ]);
        for name in [
            "pi",
            "other.local",
            "a.b.lan",
            "x.home.arpa",
            "pi.internal",
            "pi.example.com",
            "deep.pi.example.com",
            "localhost",
        ] {
            assert!(scope.allows_name(name), "{name}");
        }
        for name in [
            "example.com",
            "evilpi.example.com",
            "api",
            "local.evil",
            "notlan",
            "com",
        ] {
            assert!(!scope.allows_name(name), "{name}");
        }
        for (address, inside) in [
            ("127.0.0.1", true),
            ("10.255.0.1", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.168.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("169.254.1.1", true),
            ("203.0.113.5", true),
            ("203.0.113.6", false),
            ("8.8.8.8", false),
            ("::1", true),
            ("::2", false),
            ("fd12::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(scope.allows_address(address), inside, "{address}");
        }
    }

    #[test]
    fn what_is_private_anyway_is_not_listed_again() {
        assert_eq!(scope(&["pi.local", "192.168.1.4", "fd00::1"]), scope(&[]));
    }
}
