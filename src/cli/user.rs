//! `registry user add|list|remove|passwd|logout`: the htpasswd file.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Subcommand;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, tcgetattr, tcsetattr};

use super::account_file::{self, ConfigArg};
use crate::auth::{htpasswd, logouts, password};

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
    /// Forget that somebody is logged in: their tokens end, and their password is asked for again
    Logout { name: String },
    /// Who has one
    List,
}

pub(super) fn run(command: UserCommand, config: &ConfigArg) -> anyhow::Result<ExitCode> {
    let htpasswd = config.htpasswd()?;
    let path = &htpasswd.path;
    match command {
        UserCommand::Add {
            name,
            password_stdin,
        } => {
            htpasswd::check_name(&name).map_err(anyhow::Error::msg)?;
            if has(&account_file::read(path)?, &name) {
                bail!(
                    "{name} is there already: `registry user passwd {name}` sets another password"
                );
            }
            set(path, &name, password_stdin)?;
        }
        UserCommand::Passwd {
            name,
            password_stdin,
        } => {
            if !has(&account_file::read(path)?, &name) {
                bail!(
                    "{name} is not in {}: `registry user add {name}`",
                    path.display()
                );
            }
            set(path, &name, password_stdin)?;
        }
        UserCommand::Remove { name } => {
            account_file::edit(path, |text| match htpasswd::without_line(text, &name) {
                Some(text) => Ok(text),
                None => bail!("{name} is not in {}", path.display()),
            })?
        }
        UserCommand::Logout { name } => {
            if !has(&account_file::read(path)?, &name) {
                bail!("{name} is not in {}", path.display());
            }
            let line =
                logouts::line(&name).map_err(|_| anyhow!("the system gives no randomness"))?;
            account_file::edit(&htpasswd.logouts_path(), |text| {
                Ok(htpasswd::with_line(text, &name, &line))
            })?;
            eprintln!(
                "{name} has to log in again. The password stays good: `registry user passwd {name}` sets another one"
            );
        }
        UserCommand::List => {
            let text = account_file::read(path)?;
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
///
/// # Errors
/// It was interrupted (Ctrl-C): that ends the line here rather than this process, which would leave the terminal as it is.
fn without_echo(prompt: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    let shown = tcgetattr(stdin.as_fd())?;
    let interrupt = shown.control_chars[SpecialCharacterIndices::VINTR as usize];
    let mut hidden = shown.clone();
    hidden
        .local_flags
        .remove(LocalFlags::ECHO | LocalFlags::ISIG);
    hidden.local_flags.insert(LocalFlags::ECHONL);
    hidden.control_chars[SpecialCharacterIndices::VEOL as usize] = interrupt;
    // Before anybody is asked: what was typed until then is thrown away.
    tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &hidden)?;
    eprint!("{prompt}");
    let _ = io::stderr().flush();
    let line = read_line(interrupt);
    tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &shown)?;
    let line = line?;
    if line.ends_with(&[interrupt]) {
        eprintln!();
        bail!("interrupted; nothing was changed");
    }
    String::from_utf8(line).map_err(|_| anyhow!("the password is no text; nothing was changed"))
}

/// Up to the end of the line, which does not belong to it, or to `interrupt`, which does.
fn read_line(interrupt: u8) -> io::Result<Vec<u8>> {
    let (mut line, mut piece) = (Vec::new(), [0; 256]);
    while line.len() < 64 << 10 {
        let read = io::stdin().lock().read(&mut piece)?;
        line.extend_from_slice(&piece[..read]);
        match line.last() {
            Some(b'\n' | b'\r') => {
                line.pop();
                return Ok(line);
            }
            Some(last) if *last == interrupt => return Ok(line),
            _ if read == 0 => return Ok(line),
            _ => {}
        }
    }
    Ok(line)
}
