//! Who may import whom (`docs/ARCHITECTURE.md`), read from the sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Module -> what it may import beside itself. `*` is everything.
const TABLE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &["cli"]),
    ("cli", &["*"]),
    // Compiled for the fuzz targets alone: hands them the parsers.
    ("fuzzing", &["config", "http", "oci"]),
    // Composes the settings of all modules, and nothing else of them.
    ("config", &["*"]),
    (
        "http",
        &[
            "registry",
            "health",
            "auth",
            "causes",
            "ui",
            "notifications",
            "oci",
            "storage",
            "metrics",
            "tls",
            "logging",
            "secret",
        ],
    ),
    ("ui", &["registry", "oci"]),
    ("control", &["maintenance", "registry"]),
    ("drive", &["storage", "oci"]),
    ("maintenance", &["registry", "oci"]),
    ("health", &["causes", "registry", "secret", "tls"]),
    ("registry", &["storage", "upstream", "oci"]),
    ("storage", &["oci", "metrics"]),
    ("upstream", &["oci", "metrics", "secret", "tls"]),
    ("auth", &["causes", "oci", "metrics", "secret"]),
    (
        "notifications",
        &["causes", "oci", "metrics", "secret", "tls"],
    ),
    ("oci", &[]),
    ("causes", &[]),
    ("tls", &["causes"]),
    ("metrics", &[]),
    ("logging", &[]),
    ("systemd", &[]),
    ("secret", &[]),
];

/// Only `cli` reads it: each module owns its settings.
const ONLY_CLI_IMPORTS: &str = "config";

/// One file, without comments and tests.
struct Source {
    /// Below `src/`.
    path: String,
    /// With string literals emptied.
    code: String,
    literals: Vec<String>,
}

impl Source {
    /// `http/op.rs` -> `[http, op]`, `http/mod.rs` -> `[http]`.
    fn module(&self) -> Vec<&str> {
        let mut parts: Vec<&str> = self.path.trim_end_matches(".rs").split('/').collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        parts
    }

    fn top(&self) -> &str {
        self.module()[0]
    }

    /// The modules of the first level that the file names.
    fn imports(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            let is_word_before = self.code[..at]
                .chars()
                .next_back()
                .is_some_and(|c| c.is_alphanumeric() || c == '_');
            if !is_word_before {
                found.extend(names(&self.code[at + "crate::".len()..]));
            }
        }
        // A chain of `super::` that reaches the top is the same as `crate::`.
        let depth = self.module().len();
        let chain = "super::".repeat(depth);
        for (at, _) in self.code.match_indices(&chain) {
            if !self.code[..at].ends_with("super::") {
                found.extend(names(&self.code[at + chain.len()..]));
            }
        }
        found.retain(|name| name != "self" && name != "super" && name != "crate");
        found
    }
}

/// The first names of a path, or of each path in braces.
fn names(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = rest.trim_start().strip_prefix('{') else {
        return vec![word(rest)];
    };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word(&list[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Takes comments out and string literals apart. Knows of Rust what is needed to find their ends.
fn split(text: &str) -> (String, Vec<String>) {
    let (mut code, mut literals) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some((literal, after)) = raw_string(rest, &code) {
            literals.push(literal.to_owned());
            code.push_str("\"\"");
            rest = after;
        } else if c == '"' {
            let end = string_end(&rest[1..]);
            literals.push(rest[1..=end].to_owned());
            code.push_str("\"\"");
            rest = &rest[end + 2..];
        } else if c == '\'' {
            // A character, unless it is a lifetime.
            let quote = rest[1..].starts_with('\\');
            let len = if quote {
                rest[2..].find('\'').map_or(1, |end| end + 3)
            } else {
                let mut chars = rest[1..].char_indices();
                let after = chars.nth(1).map_or(0, |(at, _)| at);
                if rest[1 + after..].starts_with('\'') {
                    after + 2
                } else {
                    1
                }
            };
            // `'\''` ends one quote later.
            let len = if rest.starts_with("'\\''") { 4 } else { len };
            code.push('\'');
            rest = &rest[len..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    (code, literals)
}

/// `r"..."`, `r#"..."#`, `br"..."`.
fn raw_string<'a>(rest: &'a str, before: &str) -> Option<(&'a str, &'a str)> {
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close)?;
    Some((&body[..end], &body[end + close.len()..]))
}

/// Bytes before the quote that ends the literal.
fn string_end(body: &str) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    body.len()
}

/// Takes the bodies of `#[cfg(test)] mod x { ... }` out; names the files of `#[cfg(test)] mod x;`.
fn without_tests(text: &str) -> (String, Vec<String>) {
    let (mut kept, mut files) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let after = rest[at + "#[cfg(test)]".len()..].trim_start();
        let Some(declared) = after.strip_prefix("mod ") else {
            rest = after;
            continue;
        };
        let end = declared.find([';', '{']).unwrap_or(declared.len());
        if declared[end..].starts_with(';') {
            files.push(declared[..end].trim().to_owned());
            rest = &declared[end + 1..];
        } else {
            // rustfmt puts the brace that ends a module of the first level at the beginning of a line.
            rest = declared.find("\n}").map_or("", |end| &declared[end + 2..]);
        }
    }
    kept.push_str(rest);
    (kept, files)
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files.sort();
    let mut tests = BTreeSet::new();
    let mut sources = Vec::new();
    for file in files {
        let (text, test_files) = without_tests(&fs::read_to_string(&file).expect("a source"));
        let folder = if file
            .file_name()
            .is_some_and(|name| name == "mod.rs" || name == "lib.rs")
        {
            file.parent().expect("a folder").to_owned()
        } else {
            file.with_extension("")
        };
        for name in test_files {
            tests.insert(folder.join(format!("{name}.rs")));
            tests.insert(folder.join(&name).join("mod.rs"));
        }
        let (code, literals) = split(&text);
        let path = file.strip_prefix(&src).expect("below src").display();
        sources.push((
            file.clone(),
            Source {
                path: path.to_string(),
                code,
                literals,
            },
        ));
    }
    sources
        .into_iter()
        .filter(|(file, _)| !tests.contains(file))
        .map(|(_, source)| source)
        .collect()
}

#[track_caller]
fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn modules_import_only_what_the_drawing_allows() {
    let table: BTreeMap<&str, &[&str]> = TABLE.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let top = source.top();
        let Some(allowed) = table.get(top) else {
            wrong.push(format!("{}: module {top} is not in the table", source.path));
            continue;
        };
        for import in source.imports() {
            if import == top || source.top() == "lib" {
                continue;
            }
            let is_known = table.contains_key(import.as_str());
            let is_allowed = allowed.contains(&"*") || allowed.contains(&import.as_str());
            let is_config = import == ONLY_CLI_IMPORTS && !["cli", "fuzzing"].contains(&top);
            if is_known && (!is_allowed || is_config) {
                wrong.push(format!("{}: {top} must not import {import}", source.path));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn the_drawing_has_no_circle() {
    let table: BTreeMap<&str, &[&str]> = TABLE
        .iter()
        .filter(|(module, _)| !["main", "lib", "cli", "config"].contains(module))
        .copied()
        .collect();
    // Whoever imports only what has been taken away is taken away next.
    let mut left: BTreeSet<&str> = table.keys().copied().collect();
    loop {
        let free: Vec<&str> = left
            .iter()
            .copied()
            .filter(|module| table[module].iter().all(|import| !left.contains(import)))
            .collect();
        if free.is_empty() {
            break;
        }
        for module in free {
            left.remove(module);
        }
    }
    assert!(left.is_empty(), "a circle among {left:?}");
}

/// `what` as a whole word in the code, outside of `folder`.
fn mentions(what: &str, folder: &str) -> Vec<String> {
    sources()
        .iter()
        .filter(|source| source.top() != folder)
        .filter(|source| {
            source.code.match_indices(what).any(|(at, _)| {
                !source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        })
        .map(|source| format!("{}: {what} belongs below {folder}/", source.path))
        .collect()
}

#[test]
fn only_http_knows_actix() {
    assert_none(mentions("actix", "http"));
}

#[test]
fn only_the_command_line_knows_anyhow() {
    assert_none(mentions("anyhow", "cli"));
}

#[test]
fn paths_of_the_disk_are_spelled_in_one_file() {
    let parts = [
        "docker/registry",
        "current/link",
        "revisions/",
        "startedat",
        "/link",
        ".registry",
    ];
    let folders = [
        "_layers",
        "_manifests",
        "_uploads",
        "_referrers",
        "_history",
        "hashstates",
    ];
    let mut wrong = Vec::new();
    for source in sources() {
        if source.path == "storage/key.rs" {
            continue;
        }
        for literal in &source.literals {
            let is_of_the_disk = parts.iter().any(|part| literal.contains(part))
                || literal.split('/').any(|part| folders.contains(&part))
                // Elsewhere than in the addresses of the API.
                || (!["http", "upstream"].contains(&source.top()) && literal.contains("blobs/"));
            if is_of_the_disk {
                wrong.push(format!("{}: {literal:?}", source.path));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let wrong = sources()
        .iter()
        .filter(|source| {
            source.module().iter().any(|name| {
                [
                    "util", "utils", "helper", "helpers", "common", "manager", "misc",
                ]
                .contains(name)
            })
        })
        .map(|source| source.path.clone())
        .collect();
    assert_none(wrong);
}

#[test]
fn nothing_is_imported_by_a_glob() {
    let wrong = sources()
        .iter()
        .flat_map(|source| {
            source
                .code
                .split(';')
                .filter(|statement| statement.contains("use ") && statement.contains("::*"))
                .map(|statement| format!("{}: {}", source.path, statement.trim()))
        })
        .collect();
    assert_none(wrong);
}

/// The reader of sources above, on what it has to understand.
#[test]
fn sources_are_read_rightly() {
    let text = r####"
        //! crate::comment
        use crate::a::B; /* crate::no */
        use crate::{b, c::{D, e}, f::G as H};
        const S: &str = "crate::\" not // this"; const C: char = '"'; const D: char = '\'';
        fn f<'a>(x: &'a str) -> super::super::g::T { r#"crate::raw "quoted""#; h::crate_free(x) }
        fn g() { super::near::x(); crate::i::j(); }
    "####;
    let (code, literals) = split(text);
    assert_eq!(
        literals,
        ["crate::\\\" not // this", "crate::raw \"quoted\""]
    );
    let source = Source {
        path: "http/op.rs".into(),
        code,
        literals,
    };
    assert_eq!(source.module(), ["http", "op"]);
    assert_eq!(
        source.imports().into_iter().collect::<Vec<_>>(),
        ["a", "b", "c", "f", "g", "i"]
    );
    let (kept, files) =
        without_tests("a\n#[cfg(test)]\nmod tests {\n  b\n}\nc\n#[cfg(test)]\nmod d;\ne");
    assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a", "c", "e"]);
    assert_eq!(files, ["d"]);
}
