//! Which cipher suites are offered, and in which order.

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedCipherSuite};

use super::Error;

/// Whether AES is done by the CPU. Without it ChaCha20 is several times faster (a Raspberry Pi before the 5th).
pub(super) fn cpu_has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    // A 64-bit CPU under a 32-bit system; the standard library cannot tell there yet.
    #[cfg(target_arch = "arm")]
    return std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| lists_aes(&text));
    #[cfg(not(any(
        target_arch = "x86",
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "arm"
    )))]
    return false;
}

/// Whether `/proc/cpuinfo` of an ARM machine, which shows its HWCAPs, has AES among them.
#[cfg(any(test, target_arch = "arm"))]
fn lists_aes(cpuinfo: &str) -> bool {
    let mut features = cpuinfo.lines().filter_map(|line| {
        let (name, list) = line.split_once(':')?;
        (name.trim() == "Features").then_some(list)
    });
    features
        .next()
        .is_some_and(|list| list.split_whitespace().any(|feature| feature == "aes"))
}

/// The library's suites, or those of them that `names` lists. As in Go, whose names these are, the list is about TLS 1.2:
/// the suites of TLS 1.3 are offered too, unless the list has some of them.
///
/// Their order is by what they cost a CPU that has instructions for AES (`aes`) or not, and never that of `names`. AES with
/// a key of 128 bits comes before that of 256: ten rounds instead of fourteen, and nobody breaks either.
pub(super) fn provider(names: &[String], aes: bool) -> Result<CryptoProvider, Error> {
    let mut provider = ring::default_provider();
    if !names.is_empty() {
        provider.cipher_suites = listed(&provider.cipher_suites, names)?;
    }
    provider
        .cipher_suites
        .sort_by_key(|suite| cost(suite.suite(), aes));
    Ok(provider)
}

fn listed(
    all: &[SupportedCipherSuite],
    names: &[String],
) -> Result<Vec<SupportedCipherSuite>, Error> {
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    for name in names {
        match all.iter().find(|suite| is_called(suite.suite(), name)) {
            Some(suite) if chosen.contains(suite) => {}
            Some(suite) => chosen.push(*suite),
            None => log::warn!(
                "http.tls.ciphersuites: {name} is insecure or not known, and not offered"
            ),
        }
    }
    if chosen.is_empty() {
        return Err(Error::NoSuites);
    }
    if !chosen.iter().any(|suite| suite.tls13().is_some()) {
        let newer = all.iter().filter(|suite| suite.tls13().is_some());
        chosen.splice(0..0, newer.copied());
    }
    Ok(chosen)
}

/// rustls calls TLS 1.3's suites `TLS13_...`, IANA and Go `TLS_...`; Go also has short names for those with ChaCha20.
fn is_called(suite: CipherSuite, name: &str) -> bool {
    let Some(known) = suite.as_str() else {
        return false;
    };
    let known = known.replacen("TLS13_", "TLS_", 1);
    known.eq_ignore_ascii_case(name)
        || known
            .strip_suffix("_SHA256")
            .is_some_and(|short| short.eq_ignore_ascii_case(name))
}

/// The smaller the cheaper.
fn cost(suite: CipherSuite, aes: bool) -> u8 {
    let name = suite.as_str().unwrap_or_default();
    match (name.contains("CHACHA20"), name.contains("AES_128")) {
        (true, _) => {
            if aes {
                3
            } else {
                0
            }
        }
        (false, true) => 1,
        (false, false) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(provider: &CryptoProvider) -> Vec<&'static str> {
        provider
            .cipher_suites
            .iter()
            .filter_map(|suite| suite.suite().as_str())
            .collect()
    }

    fn chosen(list: &[&str]) -> Result<Vec<&'static str>, Error> {
        let list: Vec<String> = list.iter().map(|name| (*name).to_owned()).collect();
        provider(&list, true).map(|provider| names(&provider))
    }

    #[test]
    fn gos_names_are_understood_and_tls_13_stays() {
        let mut suites = chosen(&[
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
            "TLS_RSA_WITH_RC4_128_SHA",
        ])
        .unwrap();
        suites.sort_unstable();
        assert_eq!(
            suites,
            [
                "TLS13_AES_128_GCM_SHA256",
                "TLS13_AES_256_GCM_SHA384",
                "TLS13_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ]
        );
        assert_eq!(
            chosen(&["TLS_AES_128_GCM_SHA256"]).unwrap(),
            ["TLS13_AES_128_GCM_SHA256"]
        );
        assert!(matches!(
            chosen(&["TLS_RSA_WITH_RC4_128_SHA"]),
            Err(Error::NoSuites)
        ));
    }

    #[test]
    fn a_raspberry_pi_4_has_no_aes_and_a_5_has() {
        let four = "processor\t: 0\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 lpae evtstrm crc32\n";
        let five = "processor\t: 0\nFeatures\t: half thumb neon vfpv4 aes pmull sha1 sha2 crc32\n";
        assert!(!lists_aes(four) && lists_aes(five) && !lists_aes(""));
    }

    #[test]
    fn the_cheapest_for_the_cpu_comes_first() {
        let all = ["AES_128", "AES_256", "CHACHA20"];
        for (aes, order) in [(true, all), (false, ["CHACHA20", "AES_128", "AES_256"])] {
            let names = names(&provider(&[], aes).unwrap());
            assert_eq!(names.len(), 9);
            let kinds = names
                .iter()
                .map(|name| all.iter().find(|kind| name.contains(*kind)));
            let mut kinds: Vec<_> = kinds.map(Option::unwrap).collect();
            kinds.dedup();
            assert_eq!(kinds, order.iter().collect::<Vec<_>>());
        }
    }
}
