//! From the file's text to values in `Config`.

use std::path::Path;
use std::sync::Arc;

use super::Config;
use super::key::{At, Importance, Key, Section, Shape};
use super::keys::ROOT;
use super::lines::join;
use super::node::{Content, Node, Origin};
use super::report::Report;

/// Reads and parses `path`; without `version: 0.1` nothing else in it can be trusted to mean what we think.
pub(crate) fn read(path: &Path, report: &mut Report) -> Option<Node> {
    let name: Arc<str> = Arc::from(path.display().to_string());
    let at = |line| Origin::File {
        name: name.clone(),
        line,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(err) => {
            report.error("", &at(None), format!("cannot be read: {err}"));
            return None;
        }
    };
    parse(&name, &text, report)
}

/// As `read`, of a text.
pub(crate) fn parse(name: &Arc<str>, text: &str, report: &mut Report) -> Option<Node> {
    let at = |line| Origin::File {
        name: name.clone(),
        line,
    };
    let mut root = match Node::of_file(name, text) {
        Ok(root) => root,
        Err((line, err)) => {
            report.error("", &at(line), format!("is not YAML: {err}"));
            return None;
        }
    };
    let version = match &mut root.content {
        Content::Null => None,
        Content::Map(entries) => {
            let place = entries.iter().position(|(key, _)| key == "version");
            place.map(|place| entries.remove(place).1)
        }
        _ => {
            report.error(
                "",
                &at(Some(1)),
                format!("expected sections as `http:`, found {}", root.describe()),
            );
            return None;
        }
    };
    match version {
        None => report.error(
            "version",
            &at(None),
            "is missing; the file has to say `version: 0.1`",
        ),
        Some(version) => {
            let is_known = match &version.content {
                Content::Float(number) => (number - 0.1).abs() < f64::EPSILON,
                Content::Text(text) => text == "0.1",
                _ => false,
            };
            if !is_known {
                let text = format!(
                    "expected 0.1, the only version there is, found {}",
                    version.describe()
                );
                report.error("version", &version.origin, text);
            }
        }
    }
    Some(root)
}

/// Puts every value of `root` into `config`.
pub(crate) fn fill(config: &mut Config, root: &Node, report: &mut Report) {
    Filler { config, report }.keys(ROOT, root, "", 0);
}

struct Filler<'a> {
    config: &'a mut Config,
    report: &'a mut Report,
}

impl Filler<'_> {
    /// In the order of the table, so that what a key means does not hang on the order of the file.
    fn keys(&mut self, keys: &'static [Key], node: &Node, path: &str, index: usize) {
        let entries = match &node.content {
            Content::Map(entries) => entries,
            Content::Null => return,
            _ => {
                let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                let text = format!(
                    "expected a section with {}, found {}",
                    names.join(", "),
                    node.describe()
                );
                return self.report.error(path, &node.origin, text);
            }
        };
        for key in keys {
            if let Some(child) = node.get(key.name) {
                self.key(key, child, &join(path, key.name), index);
            }
        }
        for (name, child) in entries {
            if keys.iter().any(|key| key.name == name) {
                continue;
            }
            let text = format!("unknown key{}", hint(keys, name));
            match &child.origin {
                Origin::Variable(_) => {
                    let path = join(path, name);
                    if !self.report.errors.iter().any(|error| error.key == path) {
                        self.report
                            .notice(Importance::Warning, &path, &child.origin, text);
                    }
                }
                _ => self.report.error(&join(path, name), &child.origin, text),
            }
        }
    }

    fn key(&mut self, key: &'static Key, node: &Node, path: &str, index: usize) {
        match &key.shape {
            Shape::Value(at) | Shape::Names(at) => self.value(*at, node, path, index),
            Shape::Section(section) => self.section(section, node, path, index),
            Shape::Types { section, neutral } => self.types(section, neutral, node, path),
            Shape::Items { keys, len, grow } => self.items(keys, *len, *grow, node, path),
            Shape::Ignored { importance, reason } => {
                if !is_empty(node) {
                    let text = format!("has no effect: {reason}");
                    self.report.notice(*importance, path, &node.origin, text);
                    self.config
                        .origins
                        .insert(path.to_owned(), node.origin.clone());
                }
            }
            Shape::Refused { reason, next } => {
                if !is_empty(node) {
                    self.refuse(path, &node.origin, reason, next);
                }
            }
        }
    }

    fn refuse(&mut self, path: &str, origin: &Origin, reason: &str, next: &str) {
        self.report
            .error(path, origin, format!("is not supported: {reason}; {next}"));
    }

    fn value(&mut self, at: At, node: &Node, path: &str, index: usize) {
        if node.is_null() {
            return;
        }
        let Some(slot) = at(self.config, index) else {
            return;
        };
        match slot.read(node) {
            Ok(remark) => {
                if let Some(remark) = remark {
                    self.report
                        .notice(Importance::Warning, path, &node.origin, remark);
                }
                self.config
                    .origins
                    .insert(path.to_owned(), node.origin.clone());
            }
            Err(text) => self.report.error(path, &node.origin, text),
        }
    }

    fn section(&mut self, section: &'static Section, node: &Node, path: &str, index: usize) {
        if let Some(enter) = section.enter {
            enter(self.config);
        }
        self.config
            .origins
            .insert(path.to_owned(), node.origin.clone());
        self.keys(section.keys, node, path, index);
    }

    fn types(&mut self, section: &'static Section, neutral: &[&str], node: &Node, path: &str) {
        let word;
        let node = match &node.content {
            Content::Text(text) => {
                word = bare_word(text, &node.origin);
                &word
            }
            _ => node,
        };
        if let Content::Map(entries) = &node.content {
            let chosen: Vec<&(String, Node)> = entries
                .iter()
                .filter(|(name, _)| !neutral.contains(&name.as_str()))
                .collect();
            if let [.., _, (_, last)] = chosen.as_slice() {
                let names: Vec<&str> = chosen.iter().map(|(name, _)| name.as_str()).collect();
                let text = format!(
                    "only one can be used, found {}; keep one of them",
                    names.join(", ")
                );
                self.report.error(path, &last.origin, text);
            }
            for (name, child) in chosen {
                let key = section.keys.iter().find(|key| key.name == name);
                match key.map(|key| &key.shape) {
                    // Without parameters it is chosen nevertheless.
                    Some(Shape::Refused { reason, next }) if is_empty(child) => {
                        self.refuse(&join(path, name), &child.origin, reason, next);
                    }
                    // Choosing what does not exist may not be passed over, from wherever it is chosen: the choice of an
                    // access control is among these.
                    None if matches!(child.origin, Origin::Variable(_)) => {
                        let text = format!("unknown key{}", hint(section.keys, name));
                        self.report.error(&join(path, name), &child.origin, text);
                    }
                    _ => {}
                }
            }
        }
        self.section(section, node, path, 0);
    }

    fn items(
        &mut self,
        keys: &'static [Key],
        len: fn(&Config) -> usize,
        grow: fn(&mut Config),
        node: &Node,
        path: &str,
    ) {
        let items = match &node.content {
            Content::Null => return,
            Content::List(items) => items,
            _ => {
                let text = format!("expected a list of sections, found {}", node.describe());
                return self.report.error(path, &node.origin, text);
            }
        };
        self.config
            .origins
            .insert(path.to_owned(), node.origin.clone());
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let index = len(self.config);
            grow(self.config);
            self.config
                .origins
                .insert(path.clone(), item.origin.clone());
            self.keys(keys, item, &path, index);
        }
    }
}

/// `filesystem` as `{filesystem: }`.
pub(crate) fn bare_word(word: &str, origin: &Origin) -> Node {
    let chosen = Node::new(origin.clone(), Content::Null);
    Node::new(
        origin.clone(),
        Content::Map(vec![(word.to_owned(), chosen)]),
    )
}

fn is_empty(node: &Node) -> bool {
    match &node.content {
        Content::Null => true,
        Content::List(items) => items.is_empty(),
        Content::Map(entries) => entries.is_empty(),
        Content::Text(text) => text.is_empty(),
        _ => false,
    }
}

/// `near`, or else what there is.
fn hint(keys: &[Key], name: &str) -> String {
    let near = near(keys, name);
    let names: Vec<&str> = keys
        .iter()
        .filter(|key| !key.old)
        .map(|key| key.name)
        .collect();
    if near.is_empty() && !names.is_empty() {
        format!("; known here: {}", names.join(", "))
    } else {
        near
    }
}

/// `; did you mean ...?`: a sibling that is spelt alike, or the same name at another place.
pub(crate) fn near(keys: &[Key], name: &str) -> String {
    let lower = name.to_lowercase();
    let near = keys
        .iter()
        .map(|key| (strsim::osa_distance(key.name, &lower), key.name))
        .min();
    if let Some((distance, near)) = near
        && distance <= (near.len() / 3).max(1)
    {
        return format!("; did you mean `{near}`?");
    }
    let mut elsewhere = Vec::new();
    find(ROOT, "", &lower, &mut elsewhere);
    if let [place] = elsewhere.as_slice() {
        return format!("; did you mean `{place}`?");
    }
    String::new()
}

fn find(keys: &'static [Key], base: &str, name: &str, found: &mut Vec<String>) {
    for key in keys {
        let path = join(base, key.name);
        find(key.keys(), &path, name, found);
        if key.name == name {
            found.push(path);
        }
    }
}
