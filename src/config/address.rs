//! What an address to listen at and a URL to reach somebody by look like.

/// `host:port`, `:port`, `[v6]:port`.
pub(super) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let port_valid =
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let host_valid = match host.strip_prefix('[') {
        // With a zone: link-local addresses need one.
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| {
            let (address, zone) = v6.split_once('%').unwrap_or((v6, "0"));
            address.parse::<std::net::Ipv6Addr>().is_ok() && !zone.is_empty()
        }),
        None => host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b)),
    };
    port_valid && host_valid
}

/// `http(s)://host[:port][/path]`. Names no part of the URL: passwords stand in some.
pub(super) fn check_url(text: &str) -> Result<(), &'static str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or("it does not begin with `https://` or `http://`")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("it has a user or password in it; there are keys or headers for that");
    }
    if authority.is_empty() || text.contains(|c: char| c.is_control() || c == ' ') {
        return Err("it names no host");
    }
    let has_port = if authority.starts_with('[') {
        !authority.ends_with(']')
    } else {
        authority.contains(':')
    };
    if authority.starts_with(':') || (has_port && !is_address(authority)) {
        return Err("its host or port is not valid");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_url, is_address};

    #[test]
    fn addresses_are_host_and_port() {
        for good in [
            ":5000",
            "0.0.0.0:80",
            "[::]:5000",
            "[fe80::1%eth0]:5000",
            "registry.local:5000",
            "localhost:0",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "5000",
            ":",
            ":x",
            ":70000",
            "::1:5000",
            "[::1]",
            "[x]:1",
            "a b:1",
            "http://a:1",
            ":+1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn urls_have_a_scheme_and_a_host_and_no_password() {
        for good in [
            "https://a",
            "http://a:5000/x",
            "https://[::1]:5000",
            "https://[::1]/",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a:5000",
            "ftp://a",
            "https://",
            "https:///x",
            "https://:5000",
            "https://a:x",
            "https://u:p@a",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
