//! What this version understands and cannot do yet, in one place: each entry goes when its feature comes.
//!
//! They are refused rather than warned of, since whoever asks for access control must never get an open registry, and
//! whoever asks for a mirror would wait for it in vain.

use super::Config;
use super::check::origin_of;
use super::report::Report;

struct Unbuilt {
    key: &'static str,
    wanted: fn(&Config) -> bool,
    reason: &'static str,
    next: &'static str,
}

const UNBUILT: &[Unbuilt] = &[Unbuilt {
    key: "http.tls.letsencrypt",
    wanted: |config| {
        config.http.tls.is_none() && config.origins.contains_key("http.tls.letsencrypt")
    },
    reason: "this version cannot fetch certificates yet, and would speak plain HTTP",
    next: "let an ACME client (certbot, lego) write the files that `http.tls.certificate` and `.key` name, \
               and remove `letsencrypt`",
}];

pub(super) fn refuse(config: &Config, report: &mut Report) {
    for unbuilt in UNBUILT.iter().filter(|unbuilt| (unbuilt.wanted)(config)) {
        let origin = origin_of(&config.origins, unbuilt.key);
        let text = format!("is not supported: {}; {}", unbuilt.reason, unbuilt.next);
        report.error(unbuilt.key, &origin, text);
    }
}
