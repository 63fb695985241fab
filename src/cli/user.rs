//! `registry user add|list|remove|passwd`: the htpasswd file.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::account_file::{self, ConfigArg};
use crate::auth::{htpasswd, password};

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Give somebody a password; the running registry takes it at once
    Add {
        name: String,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give somebody another password
    Passwd {
        name: String,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Take somebody's password away
    Remove { name: String },
    /// Who has one
    List,
}

pub(super) fn run(command: UserCommand, config: &ConfigArg) -> anyhow::Result<ExitCode> {
    let path = config.htpasswd()?.path;
    match command {
        UserCommand::Add {
            name,
            password_stdin,
        } => {
            htpasswd::check_name(&name).map_err(anyhow::Error::msg)?;
            if has(&account_file::read(&path)?, &name) {
                bail!(
                    "{name} is there already: `registry user passwd {name}` sets another password"
                );
            }
            set(&path, &name, password_stdin)?;
        }
        UserCommand::Passwd {
            name,
            password_stdin,
        } => {
            if !has(&account_file::read(&path)?, &name) {
                bail!(
                    "{name} is not in {}: `registry user add {name}`",
                    path.display()
                );
            }
            set(&path, &name, password_stdin)?;
        }
        UserCommand::Remove { name } => {
            account_file::edit(&path, |text| match htpasswd::without_line(text, &name) {
                Some(text) => Ok(text),
                None => bail!("{name} is not in {}", path.display()),
            })?
        }
        UserCommand::List => {
            let text = account_file::read(&path)?;
            let lines = text.lines().map(str::trim);
            let names = lines
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split_once(':'));
            for (name, _) in names {
                println!("{name}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn has(text: &str, name: &str) -> bool {
    htpasswd::without_line(text, name).is_some()
}

fn set(path: &std::path::Path, name: &str, from_stdin: bool) -> anyhow::Result<()> {
    let password = if from_stdin { piped()? } else { asked(name)? };
    let hash = password::hash(&password).map_err(anyhow::Error::msg)?;
    account_file::edit(path, |text| {
        Ok(htpasswd::with_line(text, name, &format!("{name}:{hash}")))
    })
}

/// All of standard input, without the end of its line.
fn piped() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin().take(64 << 10).read_to_string(&mut text)?;
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(text)
}

fn asked(name: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        bail!("there is no terminal to ask for a password: pipe it in, with --password-stdin");
    }
    let password = without_echo(&format!("Password for {name}: "))?;
    if password != without_echo("Once more: ")? {
        bail!("the two are not the same; nothing was changed");
    }
    Ok(password)
}

/// A line of the terminal, which does not show it.
fn without_echo(prompt: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    let shown = tcgetattr(stdin.as_fd())?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    hidden.local_flags.insert(LocalFlags::ECHONL);
    eprint!("{prompt}");
    io::stderr().flush()?;
    tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &hidden)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &shown)?;
    read?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}
