//! What other machines can call this one: its host name in all forms, and its addresses.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::names::Names;

/// A certificate with more is of no use: machines with hundreds of addresses have them for containers.
const MAX_ADDRESSES: usize = 64;
/// Search domains that are taken from the resolver: the network's own comes first.
const MAX_DOMAINS: usize = 3;

/// A look at this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Without a domain. None when it is not set, or nothing that DNS can have.
    pub(crate) hostname: Option<String>,
    pub(crate) names: Names,
}

impl Machine {
    /// As it is now. `extra` are names and addresses that it cannot know (`http.tls.selfsigned.names`).
    pub(crate) fn look(extra: &[String]) -> Machine {
        let hostname = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default();
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut machine = Machine::called(&hostname, &hosts, &resolver);
        for name in extra {
            if !machine.names.add(name) {
                log::warn!("http.tls.selfsigned.names: {name:?} is no name and no address");
            }
        }
        addresses()
            .into_iter()
            .for_each(|address| machine.names.add_address(address));
        machine
    }

    /// The names, from the host name and the texts of `/etc/hosts` and `/etc/resolv.conf`. The resolver itself is not
    /// asked: that takes many seconds where there is no network yet.
    fn called(hostname: &str, hosts: &str, resolver: &str) -> Machine {
        let mut names = Names::default();
        let hostname = hostname.trim_end_matches('.').to_ascii_lowercase();
        let short = hostname.split('.').next().unwrap_or_default();
        if short != "localhost" && names.add(short) {
            names.add(&format!("{short}.local"));
            names.add(&hostname);
            let prefix = format!("{short}.");
            let words = |line: &str| -> Vec<String> {
                let line = line.split('#').next().unwrap_or_default();
                line.split_whitespace()
                    .map(str::to_ascii_lowercase)
                    .collect()
            };
            for line in hosts.lines().map(words) {
                for word in line.iter().skip(1).filter(|word| word.starts_with(&prefix)) {
                    names.add(word);
                }
            }
            let domains = resolver.lines().map(words).filter_map(|line| {
                let is_list = matches!(line.first()?.as_str(), "search" | "domain");
                is_list.then(|| line.into_iter().skip(1))
            });
            for domain in domains.flatten().filter(|d| d != ".").take(MAX_DOMAINS) {
                names.add(&format!("{short}.{domain}"));
            }
        }
        let hostname = names.dns.first().cloned();
        names.add("localhost");
        Machine { hostname, names }
    }
}

/// Global, private and link-local addresses of the interfaces that are up, loopback included. Not those that change by
/// themselves (temporary and deprecated ones of IPv6) or serve one container (interfaces that are part of a bridge).
fn addresses() -> Vec<IpAddr> {
    let transient = transient(&fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default());
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let found = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !Path::new("/sys/class/net")
                .join(&interface.interface_name)
                .join("master")
                .exists()
    });
    let found = found.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    found
        .filter(|address| !transient.contains(address))
        .take(MAX_ADDRESSES)
        .collect()
}

/// The addresses of `/proc/net/if_inet6` that are temporary (RFC 8981), deprecated, or not known to be unique yet.
fn transient(table: &str) -> Vec<IpAddr> {
    // IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE of linux/if_addr.h.
    const TRANSIENT: u8 = 0x01 | 0x08 | 0x20 | 0x40;
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u8::from_str_radix(fields.nth(3)?, 16).ok()?;
        (flags & TRANSIENT != 0).then(|| IpAddr::V6(address.into()))
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_in_every_form() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\traspberrypi.fritz.box raspberrypi # mine\n\
                     10.0.0.9 other.lan\n";
        let resolver = "# made by dhcpcd\nsearch fritz.box lan\nnameserver 10.0.0.1\n";
        let machine = Machine::called("RaspberryPi\n".trim(), hosts, resolver);
        assert_eq!(machine.hostname.as_deref(), Some("raspberrypi"));
        assert_eq!(
            machine.names.to_string(),
            "raspberrypi, raspberrypi.local, raspberrypi.fritz.box, raspberrypi.lan, localhost"
        );
        assert_eq!(
            Machine::called("pi.example.com", "", "search .\n")
                .names
                .to_string(),
            "pi, pi.local, pi.example.com, localhost"
        );
    }

    #[test]
    fn names_no_certificate_can_have_are_left_out() {
        for odd in [
            "",
            "my_pi 4",
            "localhost",
            "(none)",
            "localhost.localdomain",
        ] {
            let machine = Machine::called(odd, "", "search lan");
            assert_eq!(machine.hostname, None, "{odd}");
            assert_eq!(machine.names.to_string(), "localhost", "{odd}");
        }
    }

    #[test]
    fn addresses_that_pass_are_known() {
        let table = "fe800000000000000000000000000001 02 40 20 80     eth0\n\
                     20010db8000000000000000000000005 02 40 00 01     eth0\n\
                     20010db8000000000000000000000006 02 40 00 40     eth0\n\
                     20010db8000000000000000000000007 02 40 00 00     eth0\nnonsense\n";
        let expected: Vec<IpAddr> = ["2001:db8::5", "2001:db8::6"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(transient(table), expected);
    }

    #[test]
    fn this_machine_has_loopback_at_least() {
        let machine = Machine::look(&["extra.lan".to_owned(), "10.1.2.3".to_owned()]);
        let texts: Vec<String> = machine.names.texts().collect();
        for name in ["localhost", "extra.lan", "127.0.0.1", "10.1.2.3"] {
            assert!(texts.iter().any(|text| text == name), "{name} {texts:?}");
        }
    }
}
