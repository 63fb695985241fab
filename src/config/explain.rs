//! The resolved configuration as a file that resolves to the same, each line with where its value came from.

use std::fmt::Write;

use super::Config;
use super::key::{At, Importance, Key, Shape};
use super::keys::ROOT;
use super::lines::join;
use super::node::Origin;

/// The column of the remarks, where the value leaves room.
const COLUMN: usize = 48;

struct Line {
    text: String,
    remark: String,
}

pub(crate) fn explain(config: &Config) -> String {
    let mut printer = Printer {
        config: config.clone(),
        told: Vec::new(),
    };
    let mut lines = vec![Line {
        text: "version: 0.1".to_owned(),
        remark: String::new(),
    }];
    lines.extend(printer.keys(ROOT, "", 0, 0));
    let mut out = String::new();
    for Line { text, remark } in lines {
        if remark.is_empty() {
            out.push_str(&text);
        } else {
            let _ = write!(out, "{text:COLUMN$} # {remark}");
        }
        out.push('\n');
    }
    let rest: Vec<_> = config
        .notices
        .iter()
        .enumerate()
        .filter(|(i, _)| !printer.told.contains(i))
        .map(|(_, notice)| notice)
        .collect();
    for notice in rest {
        let _ = writeln!(out, "# {notice}");
    }
    out
}

struct Printer {
    /// A copy, since the table's accessors borrow mutably.
    config: Config,
    /// The notices that stand beside their keys.
    told: Vec<usize>,
}

impl Printer {
    fn keys(&mut self, keys: &'static [Key], path: &str, index: usize, depth: usize) -> Vec<Line> {
        keys.iter()
            .flat_map(|key| self.key(key, &join(path, key.name), index, depth))
            .collect()
    }

    fn key(&mut self, key: &'static Key, path: &str, index: usize, depth: usize) -> Vec<Line> {
        let indent = "  ".repeat(depth);
        let heading = |remark: String| Line {
            text: format!("{indent}{}:", key.name),
            remark,
        };
        match &key.shape {
            Shape::Value(at) | Shape::Names(at) => self.value(key, *at, path, index, &indent),
            Shape::Section(section) | Shape::Types { section, .. } => {
                let lines = self.keys(section.keys, path, index, depth + 1);
                match (lines.is_empty(), self.config.origins.get(path)) {
                    (false, _) => std::iter::once(heading(String::new()))
                        .chain(lines)
                        .collect(),
                    // A choice without parameters: `auth: none`.
                    (true, Some(origin)) if section.keys.is_empty() => {
                        vec![heading(origin.to_string())]
                    }
                    (true, _) => Vec::new(),
                }
            }
            Shape::Items { keys, len, .. } => {
                let count = len(&self.config);
                if count == 0 {
                    // A list without items may say something else than no list.
                    let (shown, origin) = match self.config.origins.get(path) {
                        Some(origin) => ("[]", origin),
                        None => ("null", &Origin::Default),
                    };
                    return vec![Line {
                        text: format!("{indent}{}: {shown}", key.name),
                        remark: origin.to_string(),
                    }];
                }
                let mut lines = vec![heading(String::new())];
                for item in 0..count {
                    let mut inner = self.keys(keys, &format!("{path}[{item}]"), item, depth + 2);
                    if let Some(first) = inner.first_mut() {
                        first
                            .text
                            .replace_range(indent.len() + 2..indent.len() + 4, "- ");
                    }
                    lines.extend(inner);
                }
                lines
            }
            Shape::Ignored { .. } | Shape::Refused { .. } => match self.remarks(path, true) {
                remarks if remarks.is_empty() => Vec::new(),
                remarks => vec![Line {
                    text: format!("{indent}# {}: {remarks}", key.name),
                    remark: String::new(),
                }],
            },
        }
    }

    fn value(&mut self, key: &Key, at: At, path: &str, index: usize, indent: &str) -> Vec<Line> {
        let origin = self.config.origins.get(path).cloned();
        if key.old && origin.is_none() {
            return Vec::new();
        }
        let Some(slot) = at(&mut self.config, index) else {
            return Vec::new();
        };
        let shown = slot.show();
        let mut remark = origin.unwrap_or(Origin::Default).to_string();
        let remarks = self.remarks(path, false);
        if !remarks.is_empty() {
            let _ = write!(remark, "; {remarks}");
        }
        vec![Line {
            text: format!("{indent}{}: {shown}", key.name),
            remark,
        }]
    }

    /// What the notices say about `path`.
    fn remarks(&mut self, path: &str, with_origin: bool) -> String {
        let mut texts = Vec::new();
        for (i, notice) in self
            .config
            .notices
            .iter()
            .enumerate()
            .filter(|(_, notice)| notice.about.key == path)
        {
            self.told.push(i);
            let warning = if notice.importance == Importance::Warning {
                "warning: "
            } else {
                ""
            };
            let origin = if with_origin {
                format!(" ({})", notice.about.origin)
            } else {
                String::new()
            };
            texts.push(format!("{warning}{}{origin}", notice.about.text));
        }
        texts.join("; ")
    }
}
