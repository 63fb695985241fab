//! Names and addresses: what a machine has, what a certificate is for, what a CA may sign.

use std::fmt;
use std::net::IpAddr;

/// DNS names in lower case and addresses, each once, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) dns: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Names {
    /// A name or an address in text. False when it is neither, and was not added.
    pub(crate) fn add(&mut self, text: &str) -> bool {
        if let Ok(address) = text.parse() {
            self.add_address(address);
            return true;
        }
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let valid = is_dns_name(&name);
        if valid && !self.dns.contains(&name) {
            self.dns.push(name);
        }
        valid
    }

    pub(crate) fn add_address(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.addresses.is_empty()
    }

    /// Those of `self` that are not among `others`.
    pub(crate) fn without(&self, others: &Names) -> Names {
        let mut left = self.clone();
        left.dns.retain(|name| !others.dns.contains(name));
        left.addresses
            .retain(|address| !others.addresses.contains(address));
        left
    }

    /// Those of `self` that `keep` says yes to.
    pub(super) fn filtered(
        &self,
        dns: impl Fn(&str) -> bool,
        address: impl Fn(IpAddr) -> bool,
    ) -> Names {
        let mut left = self.clone();
        left.dns.retain(|name| dns(name));
        left.addresses.retain(|known| address(*known));
        left
    }

    /// As texts: names first.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> + '_ {
        let addresses = self.addresses.iter().map(IpAddr::to_string);
        self.dns.iter().cloned().chain(addresses)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(", "))
    }
}

/// RFC 1123: labels of letters, digits and inner hyphens. The first may be `*`: names of the user's own can be wildcards.
fn is_dns_name(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // What ends in a number would be taken for an address.
    let last = rest.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && rest.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_certificate_can_have_is_taken() {
        let mut names = Names::default();
        for good in [
            "Pi",
            "pi.local",
            "a-1.b2",
            "*.lan",
            "pi.",
            "10.0.0.1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(names.add(good), "{good}");
        }
        for bad in [
            "",
            "my_pi 4",
            "-a",
            "a..b",
            "*",
            "a.*.b",
            "pi.local:5000",
            "300.1.1.1",
            "ä.de",
        ] {
            assert!(!names.add(bad), "{bad}");
        }
        assert_eq!(
            names.to_string(),
            "pi, pi.local, a-1.b2, *.lan, 10.0.0.1, fe80::1"
        );
    }

    #[test]
    fn a_difference_is_what_is_new() {
        let (mut now, mut before) = (Names::default(), Names::default());
        for name in ["pi", "pi.lan", "10.0.0.1", "10.0.0.2"] {
            now.add(name);
        }
        for name in ["pi", "10.0.0.1", "10.0.0.9"] {
            before.add(name);
        }
        assert_eq!(now.without(&before).to_string(), "pi.lan, 10.0.0.2");
        assert!(before.without(&before).is_empty());
    }
}
