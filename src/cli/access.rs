//! `registry access explain`: which rule decides.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Subcommand;

use super::account_file::ConfigArg;
use crate::auth::{Auth, Decision, Hop, Identity, Permission, Place, Subject};
use crate::oci::RepoName;

#[derive(Subcommand)]
pub(super) enum AccessCommand {
    /// Say whether somebody may do something, and which rule decides; exit status 1 if they may not
    Explain {
        /// anonymous, a user's name, robot+NAME or certificate:COMMON-NAME
        who: String,
        /// pull, push, delete, list or admin
        action: String,
        /// The repository, for pull, push and delete
        repository: Option<String>,
        /// The address they ask from
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
        from: IpAddr,
    },
}

pub(super) fn run(command: AccessCommand, config: &ConfigArg) -> anyhow::Result<ExitCode> {
    let AccessCommand::Explain {
        who,
        action,
        repository,
        from,
    } = command;
    let auth = Auth::new(&config.load()?.auth, None)?;
    let permission: Permission = action
        .parse()
        .map_err(|()| anyhow!("`{action}` is none of pull, push, delete, list and admin"))?;
    let repository: Option<RepoName> = match (repository, permission.is_of_repository()) {
        (Some(name), true) => Some(name.parse().map_err(|why| anyhow!("`{name}`: {why}"))?),
        (None, true) => return Err(anyhow!("{permission} of which repository?")),
        (_, false) => None,
    };
    let identity = Identity::of(subject(&auth, &who)?);
    let place = Place::new(Hop::Address(from.to_canonical()));
    let decision = auth.decide(&identity, &place, repository.as_ref(), permission);
    Ok(match decision {
        Decision::Allowed(reason) => {
            println!("allowed: {reason}");
            ExitCode::SUCCESS
        }
        Decision::Denied(reason) => {
            println!("denied: {reason}");
            ExitCode::FAILURE
        }
        Decision::BeyondToken => {
            println!("denied: the token does not grant it");
            ExitCode::FAILURE
        }
    })
}

fn subject(auth: &Auth, who: &str) -> anyhow::Result<Subject> {
    if who == "anonymous" {
        return Ok(Subject::Anonymous);
    }
    if let Some(name) = who.strip_prefix("certificate:") {
        return Ok(Subject::Certificate { name: name.into() });
    }
    let robot = who
        .strip_prefix("robot:")
        .map(|name| format!("robot+{name}"));
    let name = robot
        .as_deref()
        .unwrap_or(who.strip_prefix("user:").unwrap_or(who));
    auth.subject(name).ok_or_else(|| {
        anyhow!(
            "there is no {name}: `registry user list` and `registry robot list` say who there is"
        )
    })
}
