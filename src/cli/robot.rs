//! `registry robot add|list|remove`: API keys for machines.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::account_file::{self, ConfigArg};
use crate::auth::robots::{self, Robot};
use crate::auth::{Auth, Permission, Permissions, htpasswd};
use crate::config::parse_span;
use crate::oci::RepoPattern;

#[derive(Subcommand)]
pub(super) enum RobotCommand {
    /// Make a key, and print it: it is kept nowhere. Log in with it as robot+NAME
    Add {
        name: String,
        /// Repositories, as team/app or team/**; may be given several times
        #[arg(long = "repo", value_name = "PATTERN", required = true)]
        repositories: Vec<RepoPattern>,
        /// What it may do there, as far as the rules of `access` allow robots: pull, push (and pull), delete, list
        #[arg(long, value_name = "ACTION", value_delimiter = ',', required = true)]
        allow: Vec<String>,
        /// How long the key is good, as 90d or 12h; without it until it is removed
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Which there are, what they may do, and until when
    List,
    /// Make a key useless
    Remove { name: String },
}

pub(super) fn run(command: RobotCommand, config: &ConfigArg) -> anyhow::Result<ExitCode> {
    let path = config.htpasswd()?.robots_path();
    match command {
        RobotCommand::Add {
            name,
            repositories,
            allow,
            expires,
        } => {
            htpasswd::check_name(&name).map_err(anyhow::Error::msg)?;
            let allow = permissions(&allow)?;
            let expires = expires.as_deref().map(after).transpose()?;
            let (robot, key) = Robot::new(name.clone(), allow, repositories, expires)
                .map_err(|_| anyhow!("the system gives no randomness"))?;
            account_file::edit(&path, |text| {
                if htpasswd::without_line(text, &name).is_some() {
                    bail!("{name} is there already: `registry robot remove {name}` first");
                }
                Ok(htpasswd::with_line(text, &name, &robot.to_string()))
            })?;
            eprintln!("This key is shown once. Log in with it as robot+{name}:");
            println!("{key}");
            if !is_let_in(config, &name)? {
                eprintln!(
                    "No rule of `access` lets it do anything: add one as {{who: robots, allow: [{allow}]}}"
                );
            }
        }
        RobotCommand::List => {
            let (robots, bad) = robots::list(&account_file::read(&path)?);
            for robot in robots {
                println!("{}", described(&robot));
            }
            for bad in bad {
                eprintln!(
                    "{}:{}: lets nobody in: {}",
                    path.display(),
                    bad.line,
                    bad.text
                );
            }
        }
        RobotCommand::Remove { name } => {
            account_file::edit(&path, |text| match htpasswd::without_line(text, &name) {
                Some(text) => Ok(text),
                None => bail!("{name} is not in {}", path.display()),
            })?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn permissions(words: &[String]) -> anyhow::Result<Permissions> {
    let words = words.iter();
    let found: Option<Permissions> = words
        .map(|word| word.parse().ok().filter(|p| *p != Permission::Admin))
        .collect();
    found.ok_or_else(|| anyhow!("--allow takes pull, push, delete and list"))
}

fn after(text: &str) -> anyhow::Result<OffsetDateTime> {
    let span: Duration =
        parse_span(text).map_err(|why| anyhow!("--expires: {why}; write it as 90d or 12h"))?;
    let now = OffsetDateTime::now_utc().replace_nanosecond(0)?;
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    now.checked_add(time::Duration::seconds(seconds))
        .filter(|time| time.year() <= 9999)
        .ok_or_else(|| anyhow!("--expires: that is too far away"))
}

fn described(robot: &Robot) -> String {
    let repositories: Vec<&str> = robot.repositories.iter().map(RepoPattern::as_str).collect();
    let until = match robot.expires {
        None => "until it is removed".to_owned(),
        Some(time) if robot.has_expired(OffsetDateTime::now_utc()) => {
            format!("expired {}", time.date())
        }
        Some(time) => format!("until {}", time.format(&Rfc3339).unwrap_or_default()),
    };
    format!(
        "robot+{}: {} in {}, {until}",
        robot.name,
        robot.allow,
        repositories.join(" ")
    )
}

/// Whether the rules let the robot do something from somewhere.
fn is_let_in(config: &ConfigArg, name: &str) -> anyhow::Result<bool> {
    let auth = Auth::new(&config.load()?.auth, None)?;
    let Some(subject) = auth.subject(&format!("robot+{name}")) else {
        return Ok(true); // expired at once: its own business
    };
    Ok(auth.lets_in(&subject))
}
