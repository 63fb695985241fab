//! A YAML document whose every value knows where it came from.

use std::fmt;
use std::sync::Arc;

use serde_yaml::Value;

use super::lines::{Lines, join};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { name: Arc<str>, line: Option<usize> },
    Variable(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File {
                name,
                line: Some(line),
            } => write!(f, "{name}:{line}"),
            Origin::File { name, line: None } => f.write_str(name),
            Origin::Variable(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) content: Content,
    /// The text of a scalar as it was written, where known.
    pub(crate) raw: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; no name is there twice.
    Map(Vec<(String, Node)>),
    /// A value with a YAML tag that means nothing here.
    Tagged(String),
}

impl Node {
    pub(crate) fn new(origin: Origin, content: Content) -> Node {
        Node {
            origin,
            content,
            raw: None,
        }
    }

    /// Reads `text`, a whole file.
    pub(crate) fn of_file(name: &Arc<str>, text: &str) -> Result<Node, (Option<usize>, String)> {
        let mut value: Value = serde_yaml::from_str(text).map_err(|err| position(&err))?;
        value.apply_merge().map_err(|err| position(&err))?;
        let lines = Lines::scan(text);
        let locate = |path: &str| {
            let origin = Origin::File {
                name: name.clone(),
                line: lines.of(path),
            };
            (origin, lines.plain(path).map(str::to_owned))
        };
        Ok(build(value, "", &locate))
    }

    /// Reads the value of the environment variable `name`, as YAML like distribution does. What is no YAML (a password
    /// that begins with `*`) is the text that it is.
    pub(crate) fn of_variable(name: &str, payload: &str) -> Node {
        let origin = Origin::Variable(Arc::from(name));
        let value =
            serde_yaml::from_str(payload).unwrap_or_else(|_| Value::String(payload.to_owned()));
        let mut node = build(value, "", &|_: &str| (origin.clone(), None));
        // A password that begins with `#` would vanish as a comment.
        if node.is_null() && !matches!(payload.trim(), "" | "~" | "null" | "Null" | "NULL") {
            node.content = Content::Text(payload.trim().to_owned());
        }
        node.raw = match node.content {
            Content::Text(_) => None,
            _ => Some(payload.trim().to_owned()),
        };
        node
    }

    pub(crate) fn is_null(&self) -> bool {
        self.content == Content::Null
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// What was found where something else was expected. The value itself is named only for short, harmless kinds, since
    /// it may be a secret that stands in the wrong place.
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            Content::Null => "nothing".to_owned(),
            Content::Bool(value) => format!("`{value}`"),
            Content::Int(value) => format!("the number {value}"),
            Content::Float(value) => format!("the number {value}"),
            Content::Text(text) if text.chars().count() <= 40 => {
                format!("the text `{}`", text.escape_debug())
            }
            Content::Text(_) => "a longer text".to_owned(),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a section".to_owned(),
            Content::Tagged(tag) => format!("a value with the tag `{tag}`"),
        }
    }
}

fn position(err: &serde_yaml::Error) -> (Option<usize>, String) {
    let text = err.to_string();
    // The line stands in front of the message already.
    let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
    (err.location().map(|location| location.line()), text)
}

fn build(value: Value, path: &str, locate: &dyn Fn(&str) -> (Origin, Option<String>)) -> Node {
    let (origin, plain) = locate(path);
    let content = match value {
        Value::Null => Content::Null,
        Value::Bool(value) => Content::Bool(value),
        Value::Number(number) => match number
            .as_i64()
            .map(i128::from)
            .or(number.as_u64().map(i128::from))
        {
            Some(value) => Content::Int(value),
            None => Content::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Content::Text(text),
        Value::Sequence(items) => Content::List(
            items
                .into_iter()
                .enumerate()
                .map(|(i, item)| build(item, &format!("{path}[{i}]"), locate))
                .collect(),
        ),
        Value::Mapping(entries) => Content::Map(
            entries
                .into_iter()
                .map(|(key, item)| {
                    let key = key_text(&key);
                    let node = build(item, &join(path, &key), locate);
                    (key, node)
                })
                .collect(),
        ),
        Value::Tagged(tagged) => Content::Tagged(tagged.tag.to_string()),
    };
    let scalar = matches!(
        content,
        Content::Bool(_) | Content::Int(_) | Content::Float(_)
    );
    Node {
        origin,
        content,
        raw: plain.filter(|_| scalar),
    }
}

/// YAML allows any value as a key; here every key is text, and others are unknown ones that can be named.
fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other)
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Node, Origin};
    use std::sync::Arc;

    #[test]
    fn a_file_keeps_lines_and_plain_text() {
        let name = Arc::from("c.yml");
        let node = Node::of_file(&name, "a:\n  b: 0x10\n  c: [1, x]\n").unwrap();
        let b = node.get("a").unwrap().get("b").unwrap();
        assert_eq!(b.content, Content::Int(16));
        assert_eq!(b.raw.as_deref(), Some("0x10"));
        assert_eq!(
            b.origin,
            Origin::File {
                name,
                line: Some(2)
            }
        );
    }

    #[test]
    fn broken_yaml_names_its_line_once() {
        let (line, text) = Node::of_file(&Arc::from("c.yml"), "a: 1\nb: [\n").unwrap_err();
        assert!(line.is_some_and(|line| line >= 2), "{line:?}");
        assert!(!text.contains("line"), "{text}");
        let (_, text) = Node::of_file(&Arc::from("c.yml"), "a: 1\na: 2\n").unwrap_err();
        assert!(text.contains("duplicate"), "{text}");
    }

    #[test]
    fn a_variable_is_yaml_or_the_text_that_it_is() {
        let content = |payload: &str| Node::of_variable("REGISTRY_X", payload).content;
        assert_eq!(content("true"), Content::Bool(true));
        assert_eq!(content("'true'"), Content::Text("true".to_owned()));
        assert_eq!(content("*star"), Content::Text("*star".to_owned()));
        assert_eq!(content(""), Content::Null);
        assert_eq!(
            Node::of_variable("REGISTRY_X", "1.10").raw.as_deref(),
            Some("1.10")
        );
    }
}
