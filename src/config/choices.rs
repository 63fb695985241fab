//! The names that the variants of the modules' enums have in the file.

use super::slot::Choice;
use crate::http::settings::{ClientAuth, MinimumTls, Net, Plain};
use crate::logging::Format;
use crate::registry::settings::Platforms;

/// `$type`'s variants by name; the first name of a variant is the one that is printed, and `names` is what is offered.
macro_rules! choice {
    ($type:ty, [$($name:literal $(| $alias:literal)* => $variant:expr),+ $(,)?]) => {
        impl Choice for $type {
            fn names(&self) -> &'static [&'static str] {
                &[$($name),+]
            }

            fn choose(&mut self, name: &str) -> bool {
                match name {
                    $($name $(| $alias)* => *self = $variant,)+
                    _ => return false,
                }
                true
            }

            fn chosen(&self) -> Option<&'static str> {
                $(if *self == $variant {
                    return Some($name);
                })+
                None
            }
        }
    };
}

choice!(Net, ["tcp" | "tcp4" | "tcp6" => Net::Tcp, "unix" => Net::Unix]);
choice!(Plain, [
    "off" => Plain::Off,
    "loopback" => Plain::Loopback,
    "pull" => Plain::Pull,
    "all" => Plain::All,
]);
choice!(Option<ClientAuth>, [
    "request-client-cert" => Some(ClientAuth::Request),
    "require-any-client-cert" => Some(ClientAuth::RequireAny),
    "verify-client-cert-if-given" => Some(ClientAuth::VerifyIfGiven),
    "require-and-verify-client-cert" => Some(ClientAuth::RequireAndVerify),
]);
choice!(Platforms, ["all" => Platforms::All, "none" => Platforms::None, "list" => Platforms::List]);
choice!(Format, ["text" => Format::Text, "json" => Format::Json, "logstash" => Format::Logstash]);
choice!(log::LevelFilter, [
    "error" => log::LevelFilter::Error,
    "warn" | "warning" => log::LevelFilter::Warn,
    "info" => log::LevelFilter::Info,
    "debug" => log::LevelFilter::Debug,
    "trace" => log::LevelFilter::Trace,
]);

impl Choice for MinimumTls {
    fn names(&self) -> &'static [&'static str] {
        &["tls1.2", "tls1.3"]
    }

    fn choose(&mut self, name: &str) -> bool {
        *self = match name {
            "tls1.0" | "tls1.1" | "tls1.2" => MinimumTls::Tls12,
            "tls1.3" => MinimumTls::Tls13,
            _ => return false,
        };
        true
    }

    fn chosen(&self) -> Option<&'static str> {
        match self {
            MinimumTls::Tls12 => Some("tls1.2"),
            MinimumTls::Tls13 => Some("tls1.3"),
        }
    }

    fn remark(&self, name: &str) -> Option<&'static str> {
        matches!(name, "tls1.0" | "tls1.1").then_some("TLS 1.2 is the lowest that is spoken")
    }
}
