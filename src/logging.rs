//! The log: lines on stderr, in the form that their reader wants.
//!
//! * Under journald each line begins with its priority (`<6>`); time and colour are the journal's business.
//! * On a terminal there is a time and a coloured level; into a pipe or file the same without colour.
//! * `json` and `logstash` are distribution's two machine forms.
//!
//! Key-values of the `log` macros (`info!(target: logging::ACCESS, status = 200; "get blob")`) become `name=value`, or
//! members of the JSON object. What clients can influence is escaped: nobody forges a line.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Record};

/// The target of the one line that each request leaves; `log.accesslog.disabled` silences it.
pub(crate) const ACCESS: &str = "registry::access";

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Of this program; libraries say what they have to at info and above. `RUST_LOG` goes first. Default info.
    pub(crate) level: LevelFilter,
    /// Default text.
    pub(crate) format: Format,
    /// Added to each line. Default none.
    pub(crate) fields: Vec<(String, String)>,
    /// A line a request. Default true.
    pub(crate) access: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            level: LevelFilter::Info,
            format: Format::Text,
            fields: Vec::new(),
            access: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
    Logstash,
}

/// Who reads stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Journal,
    Terminal { colour: bool },
}

/// Whether stderr is the journal: `JOURNAL_STREAM` names its device and inode, and is inherited by processes whose
/// stderr has been sent elsewhere.
pub(crate) fn stderr_is_journal() -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Starts logging; a second call in one process changes nothing.
pub(crate) fn init(settings: &Settings, is_journal: bool) {
    let reader = if is_journal {
        Reader::Journal
    } else {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Reader::Terminal {
            colour: io::stderr().is_terminal() && !plain,
        }
    };
    let rust_log = std::env::var("RUST_LOG").ok();
    let _ = builder(settings, reader, rust_log.as_deref()).try_init();
}

fn builder(settings: &Settings, reader: Reader, rust_log: Option<&str>) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    match rust_log.filter(|filters| !filters.trim().is_empty()) {
        Some(filters) => {
            builder.parse_filters(filters);
        }
        None => {
            builder.filter_level(settings.level.min(LevelFilter::Info));
            // Its info is a line for each worker at each start.
            builder.filter_module("actix_server", settings.level.min(LevelFilter::Warn));
            // It calls it an error of ours when a client tries TLS, or nonsense, on a plain port.
            builder.filter_module("actix_http", LevelFilter::Off);
            builder.filter_module("registry", settings.level);
            if !settings.access {
                builder.filter_module(ACCESS, LevelFilter::Off);
            }
        }
    }
    let settings = settings.clone();
    builder.format(move |buf, record| {
        let time = buf.timestamp_millis().to_string();
        let mut line = line(&settings, reader, record, &time);
        line.push('\n');
        buf.write_all(line.as_bytes())
    });
    builder
}

fn line(settings: &Settings, reader: Reader, record: &Record<'_>, time: &str) -> String {
    let mut out = String::with_capacity(160);
    if reader == Reader::Journal {
        let _ = write!(out, "<{}>", priority(record.level()));
    }
    match settings.format {
        Format::Text => text(&mut out, settings, reader, record, time),
        Format::Json => object(&mut out, settings, record, [("time", time)], "msg"),
        Format::Logstash => object(
            &mut out,
            settings,
            record,
            [("@timestamp", time)],
            "message",
        ),
    }
    out
}

/// syslog's numbers.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn text(out: &mut String, settings: &Settings, reader: Reader, record: &Record<'_>, time: &str) {
    if let Reader::Terminal { colour } = reader {
        let level = record.level();
        if colour {
            let code = match level {
                Level::Error => 31,
                Level::Warn => 33,
                Level::Info => 32,
                Level::Debug => 36,
                Level::Trace => 90,
            };
            let _ = write!(out, "\x1b[2m{time}\x1b[0m \x1b[{code}m{level:5}\x1b[0m ");
        } else {
            let _ = write!(out, "{time} {level:5} ");
        }
    }
    // Where a line of our own comes from is seen in what it says.
    let ours = record.target().split("::").next() == Some("registry");
    if !ours {
        let _ = write!(out, "{}: ", record.target());
    }
    push_escaped(out, &record.args().to_string());
    let mut pairs = Pairs(|name: &str, value: String| {
        let _ = write!(out, " {name}=");
        push_value(out, &value);
    });
    let _ = record.key_values().visit(&mut pairs);
    for (name, value) in &settings.fields {
        let _ = write!(out, " {name}=");
        push_value(out, value);
    }
}

fn object(
    out: &mut String,
    settings: &Settings,
    record: &Record<'_>,
    first: [(&str, &str); 1],
    message: &str,
) {
    let mut members: Vec<(String, serde_json::Value)> = Vec::new();
    let mut put = |name: &str, value: serde_json::Value| {
        // A member twice is read differently by each reader.
        if !members.iter().any(|(known, _)| known == name) {
            members.push((name.to_owned(), value));
        }
    };
    for (name, value) in first {
        put(name, value.into());
    }
    if message == "message" {
        put("@version", "1".into());
    }
    put("level", level_name(record.level()).into());
    put(message, record.args().to_string().into());
    put("target", record.target().into());
    let _ = record.key_values().visit(&mut Members(&mut put));
    for (name, value) in &settings.fields {
        put(name, value.as_str().into());
    }
    out.push('{');
    for (i, (name, value)) in members.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let name = serde_json::Value::from(name.as_str());
        let _ = write!(out, "{comma}{name}:{value}");
    }
    out.push('}');
}

/// logrus' names.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Hands each key-value on as text.
struct Pairs<F>(F);

impl<'kvs, F: FnMut(&str, String)> VisitSource<'kvs> for Pairs<F> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if !is_none(&value) {
            (self.0)(key.as_str(), value.to_string());
        }
        Ok(())
    }
}

/// An `Option` without a value has nothing to be shown.
fn is_none(value: &Value<'_>) -> bool {
    struct IsNone(bool);
    impl VisitValue<'_> for IsNone {
        fn visit_any(&mut self, _: Value<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn visit_null(&mut self) -> Result<(), Error> {
            self.0 = true;
            Ok(())
        }
    }
    let mut found = IsNone(false);
    value.visit(&mut found).is_ok() && found.0
}

/// Hands each key-value on as JSON, numbers as numbers.
struct Members<F>(F);

impl<'kvs, F: FnMut(&str, serde_json::Value)> VisitSource<'kvs> for Members<F> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if is_none(&value) {
            return Ok(());
        }
        let json = if let Some(number) = value.to_u64() {
            number.into()
        } else if let Some(number) = value.to_i64() {
            number.into()
        } else if let Some(number) = value.to_f64() {
            number.into()
        } else if let Some(truth) = value.to_bool() {
            truth.into()
        } else {
            value.to_string().into()
        };
        (self.0)(key.as_str(), json);
        Ok(())
    }
}

/// One line stays one line, and the terminal's escape sequences are shown, not obeyed.
fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

/// In quotes where a reader could not see its end.
fn push_value(out: &mut String, value: &str) {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || c == '"' || c == '=');
    if !value.is_empty() && value.chars().all(plain) {
        out.push_str(value);
    } else {
        let _ = write!(out, "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::{ACCESS, Format, Reader, Settings, builder, line};
    use log::{Level, LevelFilter, Log, Metadata, Record};

    const TIME: &str = "2026-01-02T03:04:05.678Z";
    const PLAIN: Reader = Reader::Terminal { colour: false };

    fn written(
        settings: &Settings,
        reader: Reader,
        level: Level,
        target: &str,
        message: &str,
    ) -> String {
        let pairs = [
            ("bytes", log::kv::Value::from(12u64)),
            ("repository", log::kv::Value::from("a b")),
        ];
        let mut record = Record::builder();
        let record = record.level(level).target(target).key_values(&pairs);
        line(
            settings,
            reader,
            &record.args(format_args!("{message}")).build(),
            TIME,
        )
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let settings = Settings {
            fields: vec![("service".into(), "registry".into())],
            ..Settings::default()
        };
        for (level, priority) in [
            (Level::Error, 3),
            (Level::Warn, 4),
            (Level::Info, 6),
            (Level::Debug, 7),
            (Level::Trace, 7),
        ] {
            assert_eq!(
                written(&settings, Reader::Journal, level, ACCESS, "put blob"),
                format!("<{priority}>put blob bytes=12 repository=\"a b\" service=registry")
            );
        }
    }

    #[test]
    fn a_terminal_gets_a_time_and_a_level() {
        assert_eq!(
            written(
                &Settings::default(),
                PLAIN,
                Level::Warn,
                "rustls::server",
                "no SNI"
            ),
            format!("{TIME} WARN  rustls::server: no SNI bytes=12 repository=\"a b\"")
        );
        let coloured = written(
            &Settings::default(),
            Reader::Terminal { colour: true },
            Level::Error,
            "registry",
            "x",
        );
        assert!(coloured.contains("\x1b[31mERROR\x1b[0m x"), "{coloured:?}");
    }

    #[test]
    fn nobody_forges_a_line() {
        let forged = written(
            &Settings::default(),
            Reader::Journal,
            Level::Info,
            "registry",
            "a\n<0>panic\x1b[2J",
        );
        assert!(!forged.contains(['\n', '\x1b']), "{forged:?}");
    }

    #[test]
    fn json_and_logstash_are_one_object_a_line() {
        let fields = vec![
            ("service".into(), "registry".into()),
            ("level".into(), "forged".into()),
        ];
        for (format, time, message) in [
            (Format::Json, "time", "msg"),
            (Format::Logstash, "@timestamp", "message"),
        ] {
            let settings = Settings {
                format,
                fields: fields.clone(),
                ..Settings::default()
            };
            let text = written(
                &settings,
                Reader::Journal,
                Level::Warn,
                ACCESS,
                "say \"hi\"\n",
            );
            let text = text.strip_prefix("<4>").unwrap();
            assert!(!text.contains('\n'));
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(value[time], TIME);
            assert_eq!(value[message], "say \"hi\"\n");
            assert_eq!(value["level"], "warning");
            assert_eq!(value["bytes"], 12);
            assert_eq!(value["repository"], "a b");
            assert_eq!(value["service"], "registry");
            assert_eq!(value.get("@version").is_some(), format == Format::Logstash);
        }
    }

    fn passes(settings: &Settings, rust_log: Option<&str>, target: &str, level: Level) -> bool {
        let logger = builder(settings, PLAIN, rust_log).build();
        logger.enabled(&Metadata::builder().target(target).level(level).build())
    }

    #[test]
    fn the_level_is_ours_libraries_stay_quiet_and_rust_log_goes_first() {
        let debug = Settings {
            level: LevelFilter::Debug,
            ..Settings::default()
        };
        assert!(passes(&debug, None, "registry::storage", Level::Debug));
        assert!(!passes(&debug, None, "h2::frame", Level::Debug));
        assert!(passes(&debug, None, "rustls", Level::Info));
        assert!(!passes(&debug, None, "actix_server::builder", Level::Info));
        assert!(passes(&debug, Some("h2=trace"), "h2::frame", Level::Trace));
        assert!(!passes(&debug, Some("error"), "registry", Level::Debug));
        assert!(passes(&debug, Some(" "), "registry", Level::Debug));
        let error = Settings {
            level: LevelFilter::Error,
            ..Settings::default()
        };
        assert!(!passes(&error, None, "rustls", Level::Warn));
    }

    #[test]
    fn the_access_log_can_be_silenced_alone() {
        let quiet = Settings {
            access: false,
            ..Settings::default()
        };
        assert!(!passes(&quiet, None, ACCESS, Level::Error));
        assert!(passes(&quiet, None, "registry::http", Level::Info));
        assert!(passes(&Settings::default(), None, ACCESS, Level::Info));
    }
}
