//! Writes the man pages of the commands and the completions of the shells into a folder: `command-line DIR`.
//!
//! An example to cargo, and not a part of the program, which would carry it to every machine.

use std::path::PathBuf;
use std::{env, fs, io};

use clap_complete::{Shell, generate_to};

fn main() -> io::Result<()> {
    let Some(dir) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("the folder to write to is missing"));
    };
    fs::create_dir_all(&dir)?;
    let mut command = registry::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "registry", &dir)?;
    }
    // Without `help` as a command of its own: a page for it would say nothing.
    clap_mangen::generate_to(registry::command().disable_help_subcommand(true), &dir)
}
