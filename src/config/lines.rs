//! On which line of a YAML text a key stands.
//!
//! serde_yaml's values carry no positions, so this reads the block structure of the text a second time, by indentation
//! alone. It only points people to a line: inside flow collections (`{a: 1}`) and aliases it knows the line of the
//! nearest key around them, and what it takes for a key inside a text of several lines is never asked for.

use std::collections::HashMap;

#[derive(Debug, Default)]
pub(crate) struct Lines {
    at: HashMap<String, Line>,
}

#[derive(Debug)]
struct Line {
    number: usize,
    /// What follows the key on its line, without a comment.
    rest: String,
}

enum Level {
    Map {
        indent: usize,
        base: String,
        key: String,
    },
    Seq {
        indent: usize,
        base: String,
        index: usize,
    },
}

impl Level {
    fn indent(&self) -> usize {
        match self {
            Level::Map { indent, .. } | Level::Seq { indent, .. } => *indent,
        }
    }

    fn path(&self) -> String {
        match self {
            Level::Map { base, key, .. } => join(base, key),
            Level::Seq { base, index, .. } => format!("{base}[{index}]"),
        }
    }
}

/// `http` and `addr` make `http.addr`.
pub(crate) fn join(base: &str, key: &str) -> String {
    if base.is_empty() {
        key.to_owned()
    } else {
        format!("{base}.{key}")
    }
}

impl Lines {
    pub(crate) fn scan(text: &str) -> Lines {
        let mut lines = Lines::default();
        let mut levels: Vec<Level> = Vec::new();
        // Deeper lines than this belong to a block scalar (`|`, `>`).
        let mut scalar: Option<usize> = None;
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let mut content = line.trim_start_matches(' ');
            let mut indent = line.len() - content.len();
            if content.trim().is_empty() || scalar.is_some_and(|limit| indent > limit) {
                continue;
            }
            scalar = None;
            if content.starts_with('#') || line.starts_with("---") || line.starts_with("...") {
                continue;
            }
            while let Some(item) = content
                .strip_prefix('-')
                .filter(|item| item.is_empty() || item.starts_with(' '))
            {
                lines.item(&mut levels, indent, number, item);
                let trimmed = item.trim_start_matches(' ');
                indent += content.len() - trimmed.len();
                content = trimmed;
            }
            if let Some((key, rest)) = split_key(content) {
                lines.key(&mut levels, indent, number, key, rest);
                if rest.starts_with(['|', '>']) {
                    scalar = Some(indent);
                }
            }
        }
        lines
    }

    fn item(&mut self, levels: &mut Vec<Level>, indent: usize, number: usize, rest: &str) {
        while levels.last().is_some_and(|level| level.indent() > indent) {
            levels.pop();
        }
        if let Some(Level::Seq {
            indent: same,
            index,
            ..
        }) = levels.last_mut()
            && *same == indent
        {
            *index += 1;
        } else {
            let base = levels.last().map(Level::path).unwrap_or_default();
            levels.push(Level::Seq {
                indent,
                base,
                index: 0,
            });
        }
        self.note(levels, number, rest);
    }

    fn key(
        &mut self,
        levels: &mut Vec<Level>,
        indent: usize,
        number: usize,
        name: &str,
        rest: &str,
    ) {
        // A sequence may stand at the indentation of the key that it belongs to.
        while levels.last().is_some_and(|level| match level {
            Level::Map { indent: at, .. } => *at > indent,
            Level::Seq { indent: at, .. } => *at >= indent,
        }) {
            levels.pop();
        }
        if let Some(Level::Map {
            indent: same, key, ..
        }) = levels.last_mut()
            && *same == indent
        {
            name.clone_into(key);
        } else {
            let base = levels.last().map(Level::path).unwrap_or_default();
            levels.push(Level::Map {
                indent,
                base,
                key: name.to_owned(),
            });
        }
        self.note(levels, number, rest);
    }

    fn note(&mut self, levels: &[Level], number: usize, rest: &str) {
        if let Some(level) = levels.last() {
            let rest = rest
                .find(" #")
                .map_or(rest, |end| &rest[..end])
                .trim()
                .to_owned();
            self.at.entry(level.path()).or_insert(Line { number, rest });
        }
    }

    /// The line of `path`, or of the nearest key around it.
    pub(crate) fn of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.at.get(path) {
                return Some(line.number);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// A plain scalar as it was written: `0x10` or `1.10`, of which the parsed value only knows 16 and 1.1.
    pub(crate) fn plain(&self, path: &str) -> Option<&str> {
        let rest = self.at.get(path)?.rest.as_str();
        let starts_other = rest.starts_with(['"', '\'', '{', '[', '|', '>', '&', '*', '!']);
        (!rest.is_empty() && !starts_other).then_some(rest)
    }
}

/// `key: rest`, `"key": rest`, `key:`.
fn split_key(content: &str) -> Option<(&str, &str)> {
    for quote in ['"', '\''] {
        if let Some(inner) = content.strip_prefix(quote) {
            let (key, rest) = inner.split_once(quote)?;
            return Some((key, rest.trim_start().strip_prefix(':')?.trim_start()));
        }
    }
    if content.starts_with(['{', '[', '#', '&', '*', '!', '|', '>', '%', '@']) {
        return None;
    }
    match content.split_once(": ") {
        Some((key, rest)) => Some((key.trim_end(), rest.trim_start())),
        None => Some((content.trim_end().strip_suffix(':')?.trim_end(), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    const TEXT: &str = "\
version: 0.1 # always
# comment
http:
  addr: :5000
  'net': tcp
  tls:
    clientcas:
    - /a
    - /b
    ciphersuites: [X,
      Y]
  secret: 0x10   # hex
  note: |
    addr: not a key
    - nor an item

  prefix: /p
notifications:
    endpoints:
      - name: one
        url: http://a/

      -
        name: two
      - url: http://c/
        headers: {A: [b]}
matrix:
- - a
  - b
- - c
";

    #[test]
    fn keys_items_and_what_stands_in_flow_have_lines() {
        let lines = Lines::scan(TEXT);
        for (path, line) in [
            ("version", 1),
            ("http", 3),
            ("http.addr", 4),
            ("http.net", 5),
            ("http.tls.clientcas", 7),
            ("http.tls.clientcas[1]", 9),
            ("http.tls.ciphersuites[1]", 10),
            ("http.secret", 12),
            ("http.prefix", 17),
            ("notifications.endpoints[0].url", 21),
            ("notifications.endpoints[1].name", 24),
            ("notifications.endpoints[2].url", 25),
            ("notifications.endpoints[2].headers.A[0]", 26),
            ("matrix[0][1]", 29),
            ("matrix[1][0]", 30),
        ] {
            assert_eq!(lines.of(path), Some(line), "{path}");
        }
        assert_eq!(lines.of("nowhere"), None);
        assert_eq!(lines.plain("http.secret"), Some("0x10"));
        assert_eq!(lines.plain("http.tls.ciphersuites"), None);
        assert_eq!(lines.plain("version"), Some("0.1"));
    }
}
