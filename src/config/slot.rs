//! One setting: a typed place in `Config` that can read itself from a node, say what it expects, and print itself.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_yaml::Value;

use super::node::{Content, Node};
use super::units::{ByteSize, Span};
use crate::auth::Network;
use crate::secret::Secret;

/// A borrowed field of a `Settings` struct.
pub(crate) enum Slot<'a> {
    Bool(&'a mut bool),
    /// A switch that is off in the file when it is on here (`disabled`).
    NotBool(&'a mut bool),
    Count(&'a mut usize),
    /// 0 means none.
    MaybeCount(&'a mut Option<usize>),
    Text(&'a mut String),
    MaybeText(&'a mut Option<String>),
    Secret(&'a mut Option<Secret>),
    Path(&'a mut PathBuf),
    /// A path that cannot be left empty.
    Directory(&'a mut PathBuf),
    MaybePath(&'a mut Option<PathBuf>),
    Span(&'a mut Duration),
    MaybeSpan(&'a mut Option<Duration>),
    Bytes(&'a mut u64),
    Texts(&'a mut Vec<String>),
    /// Where distribution knows one text and we take several.
    OneOrMore(&'a mut Vec<String>),
    Paths(&'a mut Vec<PathBuf>),
    Networks(&'a mut Vec<Network>),
    Patterns(&'a mut dyn Patterns),
    Choice(&'a mut dyn Choice),
    Headers(&'a mut Vec<(String, Vec<String>)>),
    SecretHeaders(&'a mut Vec<(String, Vec<Secret>)>),
    Fields(&'a mut Vec<(String, String)>),
}

/// An enum whose variants have names in the file.
pub(crate) trait Choice {
    fn names(&self) -> &'static [&'static str];
    /// Whether `name` (in lower case) is one of them.
    fn choose(&mut self, name: &str) -> bool;
    /// None: nothing was chosen.
    fn chosen(&self) -> Option<&'static str>;
    /// What to say about `name`, which was chosen.
    fn remark(&self, _name: &str) -> Option<&'static str> {
        None
    }
}

/// Texts that each have to be understood.
pub(crate) trait Patterns {
    /// On error nothing has changed, and the text says which is wrong, and why.
    fn read(&mut self, texts: &[String]) -> Result<(), String>;
    fn texts(&self) -> Vec<String>;
}

impl<T: FromStr<Err: Display> + Display> Patterns for Vec<T> {
    fn read(&mut self, texts: &[String]) -> Result<(), String> {
        let read = texts.iter().map(|text| {
            let read = text.parse();
            read.map_err(|why| format!("`{}`: {why}", text.escape_debug()))
        });
        *self = read.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn texts(&self) -> Vec<String> {
        self.iter().map(T::to_string).collect()
    }
}

impl Slot<'_> {
    /// Takes the value of `node`, which is not null. On error nothing has changed, and the text says what was expected
    /// and what was found. `Ok(Some(..))` is a remark about a value that was taken.
    pub(crate) fn read(self, node: &Node) -> Result<Option<String>, String> {
        let secret = matches!(self, Slot::Secret(_) | Slot::SecretHeaders(_));
        let expected = self.expected();
        let mismatch = || match (&node.content, secret) {
            (Content::Bool(_) | Content::Int(_) | Content::Float(_) | Content::Text(_), true) => {
                format!("expected {expected}")
            }
            _ => format!("expected {expected}, found {}", node.describe()),
        };
        let mut remark = None;
        match self {
            Slot::Bool(field) => *field = truth(node).ok_or_else(mismatch)?,
            Slot::NotBool(field) => *field = !truth(node).ok_or_else(mismatch)?,
            Slot::Count(field) => *field = count(node).ok_or_else(mismatch)?,
            Slot::MaybeCount(field) => {
                *field = Some(count(node).ok_or_else(mismatch)?).filter(|n| *n > 0)
            }
            Slot::Text(field) => *field = text(node).ok_or_else(mismatch)?,
            Slot::MaybeText(field) => {
                *field = Some(text(node).ok_or_else(mismatch)?).filter(|t| !t.is_empty())
            }
            Slot::Secret(field) => {
                *field = Some(text(node).ok_or_else(mismatch)?)
                    .filter(|t| !t.is_empty())
                    .map(Secret::new);
            }
            Slot::Path(field) => {
                let path = text(node).ok_or_else(mismatch)?;
                if !path.is_empty() {
                    *field = PathBuf::from(path);
                }
            }
            Slot::Directory(field) => {
                let path = text(node).ok_or_else(mismatch)?;
                if path.is_empty() {
                    return Err(format!(
                        "expected {expected}, found nothing: name the directory, or leave the key out"
                    ));
                }
                *field = PathBuf::from(path);
            }
            Slot::MaybePath(field) => {
                *field = Some(text(node).ok_or_else(mismatch)?)
                    .filter(|t| !t.is_empty())
                    .map(PathBuf::from);
            }
            Slot::MaybeSpan(field) => {
                let (value, about) = span(node).map_err(|why| why.unwrap_or_else(mismatch))?;
                (*field, remark) = (Some(value), about);
            }
            Slot::Span(field) => {
                (*field, remark) = span(node).map_err(|why| why.unwrap_or_else(mismatch))?
            }
            Slot::Bytes(field) => {
                *field = bytes(node).map_err(|why| why.unwrap_or_else(mismatch))?
            }
            Slot::Texts(field) | Slot::OneOrMore(field) => {
                *field = texts(node).ok_or_else(mismatch)?
            }
            Slot::Paths(field) => {
                *field = texts(node)
                    .ok_or_else(mismatch)?
                    .into_iter()
                    .map(PathBuf::from)
                    .collect();
            }
            Slot::Networks(field) => {
                let texts = texts(node).ok_or_else(mismatch)?;
                let networks = texts.iter().map(|text| {
                    text.parse()
                        .map_err(|why| format!("`{}`: {why}", text.escape_debug()))
                });
                *field = networks.collect::<Result<_, _>>()?;
            }
            Slot::Patterns(field) => field.read(&texts(node).ok_or_else(mismatch)?)?,
            Slot::Choice(field) => {
                let name = choice_name(node, field.names()).ok_or_else(mismatch)?;
                if !field.choose(&name) {
                    return Err(mismatch());
                }
                remark = field.remark(&name).map(str::to_owned);
            }
            Slot::Headers(field) => *field = headers(node).ok_or_else(mismatch)?,
            Slot::SecretHeaders(field) => {
                let all = headers(node).ok_or_else(mismatch)?;
                *field = all
                    .into_iter()
                    .map(|(k, v)| (k, v.into_iter().map(Secret::new).collect()))
                    .collect();
            }
            Slot::Fields(field) => *field = fields(node).ok_or_else(mismatch)?,
        }
        Ok(remark)
    }

    fn expected(&self) -> String {
        let text = match self {
            Slot::Bool(_) | Slot::NotBool(_) => "true or false",
            Slot::Count(_) | Slot::MaybeCount(_) => "a whole number, 0 or more",
            Slot::Text(_) | Slot::MaybeText(_) | Slot::Secret(_) => "a text",
            Slot::Path(_) | Slot::Directory(_) | Slot::MaybePath(_) => "a path",
            Slot::Span(_) | Slot::MaybeSpan(_) => "a duration as `168h`, `1h30m` or `10s`",
            Slot::Bytes(_) => "a size as `4MiB` or `10GiB`",
            Slot::Texts(_) => "a list of texts",
            Slot::OneOrMore(_) => "a text, or a list of texts",
            Slot::Paths(_) => "a list of paths",
            Slot::Networks(_) => "a network as `192.168.1.0/24`, or a list of them",
            Slot::Patterns(_) => "a pattern, or a list of patterns",
            Slot::Headers(_) | Slot::SecretHeaders(_) => {
                "a section of header names, each with a list of texts"
            }
            Slot::Fields(_) => "a section of names, each with a text or number",
            Slot::Choice(choice) => return format!("one of {}", choice.names().join(", ")),
        };
        text.to_owned()
    }

    /// The value as YAML on one line; secrets as `(set)`, and what is not set as `null`.
    pub(crate) fn show(self) -> String {
        let none = || "null".to_owned();
        match self {
            Slot::Bool(field) => field.to_string(),
            Slot::NotBool(field) => (!*field).to_string(),
            Slot::Count(field) => field.to_string(),
            Slot::MaybeCount(field) => field.map_or_else(none, |count| count.to_string()),
            Slot::Text(field) => scalar(field),
            Slot::MaybeText(field) => field.as_deref().map_or_else(none, scalar),
            Slot::Secret(field) => field.as_ref().map_or_else(none, |_| "(set)".to_owned()),
            Slot::Path(field) | Slot::Directory(field) => scalar(&field.to_string_lossy()),
            Slot::MaybePath(field) => field
                .as_ref()
                .map_or_else(none, |path| scalar(&path.to_string_lossy())),
            Slot::Span(field) => Span(*field).to_string(),
            Slot::MaybeSpan(field) => field.map_or_else(none, |span| Span(span).to_string()),
            Slot::Bytes(field) => ByteSize(*field).to_string(),
            Slot::OneOrMore(field) if field.len() == 1 => scalar(&field[0]),
            Slot::Texts(field) | Slot::OneOrMore(field) => list(field.iter().map(String::as_str)),
            Slot::Paths(field) => list(field.iter().map(|path| path.to_string_lossy())),
            Slot::Networks(field) => list(field.iter().map(Network::to_string)),
            Slot::Patterns(field) => list(field.texts().iter()),
            Slot::Choice(field) => field.chosen().map_or_else(none, scalar),
            Slot::Headers(field) => map(field
                .iter()
                .map(|(name, values)| (name.as_str(), list(values.iter().map(String::as_str))))),
            Slot::SecretHeaders(field) => map(field
                .iter()
                .map(|(name, _)| (name.as_str(), "(set)".to_owned()))),
            Slot::Fields(field) => map(field
                .iter()
                .map(|(name, value)| (name.as_str(), item(value)))),
        }
    }
}

/// YAML 1.1's spellings too: Go's reader takes them where a bool is wanted.
fn truth(node: &Node) -> Option<bool> {
    match &node.content {
        Content::Bool(value) => Some(*value),
        Content::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn count(node: &Node) -> Option<usize> {
    match &node.content {
        Content::Int(value) => usize::try_from(*value).ok(),
        Content::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// A scalar as text: what was written, not what YAML made of it.
fn text(node: &Node) -> Option<String> {
    let written = |value: String| node.raw.clone().unwrap_or(value);
    match &node.content {
        Content::Text(text) => Some(text.clone()),
        Content::Bool(value) => Some(written(value.to_string())),
        Content::Int(value) => Some(written(value.to_string())),
        Content::Float(value) => Some(written(value.to_string())),
        Content::Null => None,
        // Only a variable knows the text of these: a password like `{a: b`.
        Content::List(_) | Content::Map(_) | Content::Tagged(_) => node.raw.clone(),
    }
}

/// One text stands for a list of it.
fn texts(node: &Node) -> Option<Vec<String>> {
    match &node.content {
        Content::List(items) => items.iter().map(text).collect(),
        _ => text(node).map(|text| {
            if text.is_empty() {
                Vec::new()
            } else {
                vec![text]
            }
        }),
    }
}

fn span(node: &Node) -> Result<(Duration, Option<String>), Option<String>> {
    match &node.content {
        // What distribution makes of a bare number.
        Content::Int(nanos) => {
            let nanos = u64::try_from(*nanos)
                .ok()
                .filter(|n| i64::try_from(*n).is_ok())
                .ok_or(None)?;
            let remark = (1..1_000_000).contains(&nanos).then(|| {
                format!("a bare number counts nanoseconds, as in distribution; for seconds write `{nanos}s`")
            });
            Ok((Duration::from_nanos(nanos), remark))
        }
        Content::Text(text) => {
            let span = Span::parse(text.trim())
                .map_err(|why| Some(format!("{why}; write it as `168h` or `1h30m`")))?;
            Ok((span.0, None))
        }
        _ => Err(None),
    }
}

fn bytes(node: &Node) -> Result<u64, Option<String>> {
    match &node.content {
        Content::Int(value) => u64::try_from(*value)
            .ok()
            .filter(|n| i64::try_from(*n).is_ok())
            .ok_or(None),
        Content::Text(text) => {
            let size = ByteSize::parse(text.trim())
                .map_err(|why| Some(format!("{why}; write it as `4MiB`")))?;
            Ok(size.0)
        }
        _ => Err(None),
    }
}

/// `off` and `on` may have become bools on the way.
fn choice_name(node: &Node, names: &[&str]) -> Option<String> {
    match &node.content {
        Content::Bool(value) => {
            let words = if *value {
                ["on", "true"]
            } else {
                ["off", "false"]
            };
            words
                .into_iter()
                .find(|word| names.contains(word))
                .map(str::to_owned)
        }
        _ => text(node).map(|text| text.to_ascii_lowercase()),
    }
}

fn headers(node: &Node) -> Option<Vec<(String, Vec<String>)>> {
    let Content::Map(entries) = &node.content else {
        return None;
    };
    let filled = entries.iter().filter(|(_, value)| !value.is_null());
    filled
        .map(|(name, value)| Some((name.clone(), texts(value)?)))
        .collect()
}

fn fields(node: &Node) -> Option<Vec<(String, String)>> {
    let Content::Map(entries) = &node.content else {
        return None;
    };
    let filled = entries.iter().filter(|(_, value)| !value.is_null());
    filled
        .map(|(name, value)| Some((name.clone(), text(value)?)))
        .collect()
}

/// `text` so that YAML reads the same text back, on one line.
fn scalar(text: &str) -> String {
    plain_or_quoted(text, |text| {
        let read: serde_yaml::Mapping = serde_yaml::from_str(&format!("key: {text}")).ok()?;
        read.into_iter().next().map(|(_, value)| value)
    })
}

/// The same inside `[]` and `{}`.
fn item(text: &str) -> String {
    plain_or_quoted(text, |text| {
        let [item] = serde_yaml::from_str::<[Value; 1]>(&format!("[{text}]")).ok()?;
        let read: serde_yaml::Mapping =
            serde_yaml::from_str(&format!("{{{text}: 1, key: {text}}}")).ok()?;
        read.into_iter()
            .all(|(key, value)| key == item || value == item)
            .then_some(item)
    })
}

fn plain_or_quoted(text: &str, read: impl Fn(&str) -> Option<Value>) -> String {
    let simple = !text.is_empty() && !text.contains(|c: char| c.is_control() || c == '#');
    if simple && read(text) == Some(Value::String(text.to_owned())) {
        text.to_owned()
    } else {
        serde_json::to_string(text).unwrap_or_default()
    }
}

fn list<T: AsRef<str>>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|text| item(text.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

fn map<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> String {
    let entries: Vec<String> = entries
        .map(|(name, value)| format!("{}: {value}", item(name)))
        .collect();
    format!("{{{}}}", entries.join(", "))
}
