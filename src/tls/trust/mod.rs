//! How other machines come to trust the CA: the line to paste there, and the scripts that it runs.
//!
//! The line fetches `/ca.crt` without trusting anybody, compares its SHA-256 with the one in the line, and only then
//! fetches `/trust` over TLS that this CA vouches for, and runs it. What came unverified is never executed.

use std::net::IpAddr;

use super::local_ca::{Issued, sha256};
use super::names::Names;

/// What is told about the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// PEM; what `/ca.crt` gives, byte for byte.
    pub(crate) ca_pem: String,
    /// SHA-256 of `ca_pem`: what `sha256sum ca.crt` prints.
    pub(crate) sha256: String,
    /// SHA-256 of the certificate in DER form, as browsers and openssl show it.
    pub(crate) fingerprint: String,
    /// Those of the server's certificate.
    pub(crate) names: Names,
}

/// Where clients reach the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
    prefix: String,
}

impl Address {
    /// `host` is a name or an address, `prefix` the path that the registry is served below: empty, or `/` and no `/` at
    /// its end. None when they cannot stand in a script as they are.
    pub(crate) fn new(host: &str, port: u16, prefix: &str) -> Option<Self> {
        let host = host.trim_matches(['[', ']']);
        let is_path = prefix
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-._~/".contains(&c));
        let address = Address {
            host: host.to_ascii_lowercase(),
            port,
            prefix: prefix.to_owned(),
        };
        (is_path && super::is_certificate_name(host)).then_some(address)
    }

    /// As images are called: without the port that is the default.
    pub(crate) fn of_images(&self) -> String {
        match self.port {
            443 => self.bracketed(),
            _ => self.authority(),
        }
    }

    /// With the port.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}{}", self.of_images(), self.prefix)
    }
}

impl Trust {
    pub(crate) fn of(issued: &Issued) -> Self {
        Trust {
            sha256: sha256(issued.ca_pem.as_bytes()),
            ca_pem: issued.ca_pem.clone(),
            fingerprint: issued.ca.fingerprint.clone(),
            names: issued.server.names.clone(),
        }
    }

    /// What others call this machine: its name in multicast DNS, which needs no configuration anywhere; else its first
    /// name, or an address.
    pub(crate) fn host(&self) -> String {
        let named = |name: &&String| !name.starts_with("*.") && *name != "localhost";
        let mut names = self.names.dns.iter().filter(named);
        let local = names.clone().find(|name| name.ends_with(".local"));
        let address = || {
            let mut others = self.names.addresses.iter();
            others.find(|address| !address.is_loopback())
        };
        local
            .or_else(|| names.next())
            .cloned()
            .or_else(|| address().map(IpAddr::to_string))
            .unwrap_or_else(|| "localhost".to_owned())
    }

    /// The addresses to use where the name is not found.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.names.addresses.iter().filter(|ip| is_reachable(ip))
    }

    /// Whether the certificate is for `host`, so that it can stand in the line.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        self.names.texts().any(|name| name == host)
    }

    /// For a POSIX shell with curl or wget, and sha256sum, shasum or openssl. Options of the script can follow it.
    pub(crate) fn line(&self, at: &Address) -> String {
        let (url, sum) = (at.url(), &self.sha256);
        format!(
            "sh -c 'u={url} s={sum}; d=$(mktemp -d) && cd \"$d\" || exit; \
             if command -v curl >/dev/null; then a=\"curl -fsSk\" b=\"curl -fsS --cacert ca.crt\"; \
             else a=\"wget -qO- --no-check-certificate\" b=\"wget -qO- --ca-certificate=ca.crt\"; fi; \
             $a $u/ca.crt >ca.crt; \
             case $({{ sha256sum ca.crt || shasum -a 256 ca.crt || openssl dgst -sha256 -r ca.crt; }} 2>/dev/null) in \
             $s*) $b $u/trust >trust && sh trust \"$@\";; \
             *) echo \"$u does not have the CA that this line names; nothing was changed\" >&2; false;; esac; \
             e=$?; cd /; rm -r \"$d\"; exit $e' trust"
        )
    }

    /// For PowerShell on Windows 10 and later, which have curl.exe.
    pub(crate) fn line_powershell(&self, at: &Address) -> String {
        let (url, sum) = (at.url(), self.sha256.to_ascii_uppercase());
        format!(
            "$u='{url}'; $d=(New-Item -ItemType Directory (Join-Path $env:TEMP ([guid]::NewGuid()))).FullName; \
             curl.exe -fsSk -o \"$d\\ca.crt\" \"$u/ca.crt\"; \
             if ((Get-FileHash \"$d\\ca.crt\").Hash -ne '{sum}') {{ throw \"$u does not have the CA that this line names; nothing was changed\" }}; \
             curl.exe -fsS --ssl-no-revoke --cacert \"$d\\ca.crt\" -o \"$d\\trust.ps1\" \"$u/trust.ps1\"; \
             if ($LASTEXITCODE) {{ throw \"cannot fetch $u/trust.ps1; nothing was changed\" }}; \
             powershell -ExecutionPolicy Bypass -File \"$d\\trust.ps1\""
        )
    }

    /// `/trust`.
    pub(crate) fn script(&self, at: &Address) -> String {
        let mut hosts = vec![at.of_images()];
        for name in self.names.texts().filter(|name| is_reachable_name(name)) {
            let host = Address {
                host: name,
                ..at.clone()
            };
            if !hosts.contains(&host.of_images()) {
                hosts.push(host.of_images());
            }
        }
        let local = ["localhost", "127.0.0.1"].map(|host| {
            let host = host.to_owned();
            Address { host, ..at.clone() }.of_images()
        });
        let fingerprint = self.fingerprint.replace(':', "");
        self.fill(include_str!("trust.sh"), at)
            .replace("@LOCAL_HOSTS@", &local.join(" "))
            .replace("@HOSTS@", &hosts.join(" "))
            .replace("@FINGERPRINT@", &fingerprint)
    }

    /// `/trust.ps1`.
    pub(crate) fn powershell(&self, at: &Address) -> String {
        self.fill(include_str!("trust.ps1"), at)
    }

    /// Only names of the certificate and numbers get into the scripts, and nothing that a shell would take for more.
    fn fill(&self, template: &str, at: &Address) -> String {
        let id: String = self
            .host()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        template
            .replace("@NAME@", &at.of_images())
            .replace("@FIRST@", &at.of_images())
            .replace("@ID@", &format!("registry-{id}"))
            .replace("@CA@", self.ca_pem.trim_end())
    }
}

/// From another machine, without more than the address itself.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

fn is_reachable_name(name: &str) -> bool {
    match name.parse() {
        Ok(address) => is_reachable(&address),
        Err(_) => name != "localhost" && !name.starts_with("*."),
    }
}

#[cfg(test)]
mod tests;
