//! The command line; this stands in until the command tree is there.

pub(crate) mod config;

use std::path::Path;
use std::process::ExitCode;

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["config", "check"] => config::check(None),
        ["config", "check", file] => config::check(Some(Path::new(file))),
        ["config", "explain"] => config::explain(None),
        ["config", "explain", file] => config::explain(Some(Path::new(file))),
        _ => {
            eprintln!("usage: registry config check|explain [FILE]");
            ExitCode::from(2)
        }
    }
}
