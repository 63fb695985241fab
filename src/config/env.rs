//! `REGISTRY_*` variables over the file's values, by distribution's rules.
//!
//! * Sorted by name, so that `REGISTRY_STORAGE` comes before `REGISTRY_STORAGE_DELETE_ENABLED`.
//! * Split at `_` and walked down the table of keys, whatever the case. Where distribution's Go field is not called
//!   like the key (`notifications.events` is `EVENTCONFIG`), both names work.
//! * The value is YAML. A whole section may be given: `REGISTRY_STORAGE_MAINTENANCE_READONLY='{"enabled": true}'`; the
//!   form that panics in distribution, `..._READONLY_ENABLED=true`, works as well.
//! * Lists by index; the index after the last appends.
//! * `REGISTRY_STORAGE` and `REGISTRY_AUTH` with a bare word choose a type.
//! * What is not known is a warning: service links of container engines (`REGISTRY_PORT=tcp://...`) look the same.
//!
//! One difference: distribution's bare word replaces all of `storage`, and with it a `delete.enabled: false` of the
//! file. Here it replaces the type, and the rest stays.

use super::file::{bare_word, near};
use super::key::{Importance, Key, Shape};
use super::keys::ROOT;
use super::node::{Content, Node, Origin};
use super::report::Report;

const PREFIX: &str = "REGISTRY_";
/// Names the file where no argument does, as in distribution.
pub(super) const FILE: &str = "REGISTRY_CONFIGURATION_PATH";

/// Lists longer than this are somebody's mistake.
const MAX_INDEX: usize = 10_000;

/// Why a variable was not applied.
enum Trouble {
    Unknown(String),
    Wrong(String),
}

/// Overrides what `root` has with those of `variables` that begin with `REGISTRY_`.
pub(crate) fn apply(
    root: &mut Node,
    variables: impl Iterator<Item = (String, String)>,
    report: &mut Report,
) {
    let mut variables: Vec<(String, String)> = variables
        .filter(|(name, _)| name.starts_with(PREFIX) && name != FILE)
        .collect();
    variables.sort();
    for (name, payload) in variables {
        let node = Node::of_variable(&name, &payload);
        let origin = node.origin.clone();
        let parts: Vec<&str> = name[PREFIX.len()..].split('_').collect();
        if parts[0].eq_ignore_ascii_case("version") {
            report.notice(
                Importance::Warning,
                "",
                &origin,
                "ignored: the version of the file cannot be overridden",
            );
            continue;
        }
        match place(root, ROOT, &parts, node) {
            Ok(()) => {}
            Err(Trouble::Unknown(why)) => {
                report.notice(Importance::Warning, "", &origin, format!("ignored: {why}"))
            }
            Err(Trouble::Wrong(why)) => report.error("", &origin, why),
        }
    }
}

fn place(
    section: &mut Node,
    keys: &'static [Key],
    parts: &[&str],
    new: Node,
) -> Result<(), Trouble> {
    let (part, rest) = split(parts)?;
    let Some(key) = find(keys, part) else {
        let name = part.to_lowercase();
        return Err(Trouble::Unknown(format!(
            "no key here is called `{name}`{}",
            near(keys, &name)
        )));
    };
    let Some(child) = entry(section, key.name, &new.origin) else {
        return Ok(());
    };
    if rest.is_empty() {
        match (&key.shape, &new.content) {
            (Shape::Types { neutral, .. }, Content::Text(word)) => {
                choose(child, neutral, word, &new.origin)
            }
            _ => *child = new,
        }
        return Ok(());
    }
    match &key.shape {
        Shape::Section(below) => place(child, below.keys, rest, new),
        Shape::Types { section, .. } => {
            if let Content::Text(word) = &child.content {
                *child = bare_word(&word.clone(), &child.origin.clone());
            }
            let (name, _) = split(rest)?;
            if find(section.keys, name).is_none() {
                // It would choose this type in distribution; reading refuses it.
                set(child, &name.to_lowercase(), new);
                return Ok(());
            }
            place(child, section.keys, rest, new)
        }
        Shape::Items { keys, .. } => {
            let (item, rest) = item(child, rest, &new.origin)?;
            if rest.is_empty() {
                *item = new;
                return Ok(());
            }
            place(item, keys, rest, new)
        }
        Shape::Names(_) => {
            let (name, rest) = split(rest)?;
            if rest.is_empty() {
                set(child, &name.to_lowercase(), new);
                return Ok(());
            }
            let Some(value) = entry(child, &name.to_lowercase(), &new.origin) else {
                return Ok(());
            };
            indexed(value, rest, new)
        }
        Shape::Value(_) => indexed(child, rest, new),
        // Whatever is below has no effect, or is refused; that it is there has to be known.
        Shape::Ignored { .. } | Shape::Refused { .. } => {
            set(child, &rest.join("_").to_lowercase(), new);
            Ok(())
        }
    }
}

/// The key that a variable calls `part`.
fn find(keys: &'static [Key], part: &str) -> Option<&'static Key> {
    keys.iter()
        .find(|key| key.name.eq_ignore_ascii_case(part) || key.field.eq_ignore_ascii_case(part))
}

fn split<'a, 'b>(parts: &'a [&'b str]) -> Result<(&'b str, &'a [&'b str]), Trouble> {
    match parts.split_first() {
        Some((part, rest)) if !part.is_empty() => Ok((*part, rest)),
        _ => Err(Trouble::Unknown("a part of the name is empty".to_owned())),
    }
}

/// `new` into the list `node`, which `rest` is the index of.
fn indexed(node: &mut Node, rest: &[&str], new: Node) -> Result<(), Trouble> {
    if rest[0].parse::<usize>().is_err() && !matches!(node.content, Content::List(_)) {
        return Err(Trouble::Unknown(format!(
            "there is no key `{}` below a single value",
            rest[0].to_lowercase()
        )));
    }
    let (item, rest) = item(node, rest, &new.origin)?;
    if !rest.is_empty() {
        return Err(Trouble::Unknown(
            "there are no keys below an item of this list".to_owned(),
        ));
    }
    *item = new;
    Ok(())
}

/// The item of the list `node` that the first of `parts` is the index of, and what is left of `parts`.
fn item<'a, 'b, 'c>(
    node: &'a mut Node,
    parts: &'b [&'c str],
    origin: &Origin,
) -> Result<(&'a mut Node, &'b [&'c str]), Trouble> {
    let (part, rest) = split(parts)?;
    let index: usize = part
        .parse()
        .map_err(|_| Trouble::Wrong(format!("`{part}` is no index into a list")))?;
    match &mut node.content {
        Content::List(_) => {}
        Content::Null => *node = Node::new(origin.clone(), Content::List(Vec::new())),
        // One text stands for a list of it.
        _ => {
            let only = node.clone();
            node.content = Content::List(vec![only]);
        }
    }
    let Content::List(items) = &mut node.content else {
        return Err(Trouble::Wrong("there is no list".to_owned()));
    };
    let len = items.len();
    if index > len || index > MAX_INDEX {
        return Err(Trouble::Wrong(format!(
            "index {index} leaves a gap: the list has {len} items, {len} is the next"
        )));
    }
    if index == len {
        items.push(Node::new(origin.clone(), Content::Null));
    }
    Ok((&mut items[index], rest))
}

/// The value of `name` in the section `node`, made if missing. None: `node` is no section, which reading will tell.
fn entry<'a>(node: &'a mut Node, name: &str, origin: &Origin) -> Option<&'a mut Node> {
    if node.is_null() {
        *node = Node::new(origin.clone(), Content::Map(Vec::new()));
    }
    let Content::Map(entries) = &mut node.content else {
        return None;
    };
    // Header names differ in case only; keys are lower case.
    let place = entries
        .iter()
        .position(|(key, _)| key.eq_ignore_ascii_case(name));
    let place = place.unwrap_or_else(|| {
        entries.push((name.to_owned(), Node::new(origin.clone(), Content::Null)));
        entries.len() - 1
    });
    Some(&mut entries[place].1)
}

fn set(node: &mut Node, name: &str, new: Node) {
    if let Some(value) = entry(node, name, &new.origin) {
        *value = new;
    }
}

/// `word` as the one type in `node`, with empty parameters.
fn choose(node: &mut Node, neutral: &[&str], word: &str, origin: &Origin) {
    let chosen = bare_word(word, origin);
    let (Content::Map(old), Content::Map(new)) = (&mut node.content, &chosen.content) else {
        *node = chosen;
        return;
    };
    old.retain(|(name, _)| neutral.contains(&name.as_str()));
    old.extend(new.iter().cloned());
}
