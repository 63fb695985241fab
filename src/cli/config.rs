//! `registry config check [FILE]` and `registry config explain [FILE]`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::auth::{self, FileError};
use crate::causes::WithCauses;
use crate::config::{Config, ConfigErrors, Importance};

/// The environment as text; what is no UTF-8 can set nothing.
pub(crate) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Says on stderr what is wrong, or worth knowing; fails if the configuration cannot be served with.
pub(crate) fn check(path: Option<&Path>) -> ExitCode {
    match Config::load(path, variables()) {
        Ok(config) => {
            for notice in &config.notices {
                eprintln!("{notice}");
            }
            let notices = config.notices.iter();
            let warnings = notices
                .filter(|n| n.importance == Importance::Warning)
                .count();
            let source = source(path);
            let bad_lines = match accounts(&config) {
                Ok(complaints) => complaints,
                Err(error) => {
                    eprintln!("error: {}", WithCauses(&error));
                    eprintln!("{source}: 1 error; nothing can be served with it");
                    return ExitCode::FAILURE;
                }
            };
            for complaint in &bad_lines {
                eprintln!("warning: {complaint}");
            }
            let warnings = warnings + bad_lines.len();
            match warnings {
                0 => say(&format!("{source}: ok\n")),
                1 => say(&format!("{source}: ok, with 1 warning\n")),
                _ => say(&format!("{source}: ok, with {warnings} warnings\n")),
            }
        }
        Err(errors) => fail(path, &errors),
    }
}

/// Prints the resolved configuration with where each value came from.
pub(crate) fn explain(path: Option<&Path>) -> ExitCode {
    match Config::load(path, variables()) {
        Ok(config) => say(&config.explain()),
        Err(errors) => fail(path, &errors),
    }
}

/// What is wrong with the files of users, groups and robots, as far as whoever asks may read them.
fn accounts(config: &Config) -> Result<Vec<String>, FileError> {
    let Some(htpasswd) = &config.auth.htpasswd else {
        return Ok(Vec::new());
    };
    match auth::complaints(htpasswd) {
        Ok(complaints) => Ok(complaints.iter().map(ToString::to_string).collect()),
        Err(error) if error.is_denied() => Ok(vec![format!("not looked at: {error}")]),
        Err(error) => Err(error),
    }
}

fn source(path: Option<&Path>) -> String {
    let named = crate::config::file_of(path, variables());
    named.map_or_else(
        || "built-in defaults".to_owned(),
        |path| path.display().to_string(),
    )
}

pub(super) fn fail(path: Option<&Path>, errors: &ConfigErrors) -> ExitCode {
    for notice in &errors.notices {
        eprintln!("{notice}");
    }
    for error in &errors.errors {
        eprintln!("error: {error}");
    }
    let count = match errors.errors.len() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    };
    eprintln!("{}: {count}; nothing can be served with it", source(path));
    ExitCode::FAILURE
}

/// A reader that went away (`| head`) is no failure.
fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
