//! The command line.

mod access;
mod account_file;
mod ask;
mod attach;
mod cert;
pub(crate) mod config;
mod drive;
mod garbage;
mod rm;
mod robot;
mod serve;
mod undo;
mod user;
mod verify;
mod watchdog;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// A private container registry: docker, podman, containerd, skopeo, crane and oras push to it and pull from it.
#[derive(Parser)]
#[command(name = "registry", version, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the registry until it is told to stop (SIGTERM lets uploads under way finish)
    ///
    /// Understands the config.yml and the REGISTRY_* variables of registry:2 and registry:3. Without a file everything has
    /// its default.
    Serve {
        /// A config.yml
        config: Option<PathBuf>,
        /// For this machine alone: http and https on 127.0.0.1:5000, images and a certificate of its own in DIR
        #[arg(long, value_name = "DIR")]
        local: Option<PathBuf>,
    },
    /// Get back the space of what no manifest refers to (deleted images, broken-off pushes)
    ///
    /// Talks to the running server, or works on the directory itself when none runs. The server does this by itself
    /// some minutes after a delete, and once a day.
    GarbageCollect {
        /// A config.yml; without it the defaults and the REGISTRY_* variables count
        config: Option<PathBuf>,
        /// Remove nothing, and say what would go
        #[arg(long, short)]
        dry_run: bool,
        /// Remove manifests too that no tag leads to
        #[arg(long, short = 'm')]
        delete_untagged: bool,
        /// Take what is kept only so that deletes can be undone, too
        #[arg(long)]
        forget_undo: bool,
        /// How long content stays that a client was told is here, in place of gc.grace; 0s disturbs pushes under way
        #[arg(long, value_name = "TIME", value_parser = crate::config::parse_span)]
        grace: Option<std::time::Duration>,
        /// Say only what went wrong
        #[arg(long, short)]
        quiet: bool,
    },
    /// Remove images: `registry rm 'team/**:pr-*' --older-than 30d`
    ///
    /// Says what would go and how much room comes back, and asks. An image goes with what only it leads to: the images of an
    /// index, signatures. It can be brought back for some time, with `registry undo`.
    Rm(rm::RmArgs),
    /// Remove now what the rules of the configuration (retention) say, or say what would go
    ///
    /// The server does this by itself, at retention.interval.
    Retention(rm::RetentionArgs),
    /// Check that what is stored is what it should be: contents, links, sizes, references
    ///
    /// Talks to the running server, or works on the directory itself when none runs. Damaged content is moved aside, where
    /// nobody is served it. The server does this by itself once a month. The exit status is 0 if all is well, 2 if damage
    /// is left, and 1 if it could not be checked.
    Verify(verify::Args),
    /// What a tag pointed to, when, and what of it can be brought back
    History(undo::HistoryArgs),
    /// Bring back a tag that was deleted or overwritten, or a manifest that was deleted
    ///
    /// Possible for some time (undo.keep in the configuration, 7 days). A second undo of a tag takes back the first.
    Undo(undo::UndoArgs),
    /// Look at a configuration without running it
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Keep the images on an external drive; without a further word it asks which
    Drive {
        #[command(subcommand)]
        command: Option<drive::DriveCommand>,
        /// The registry's config.yml [default: /etc/registry/config.yml if it exists]
        #[arg(long, global = true, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Who has a password: the file of auth.htpasswd.path
    User {
        #[command(subcommand)]
        command: user::UserCommand,
        #[command(flatten)]
        config: account_file::ConfigArg,
    },
    /// API keys for machines, each with a scope and a date
    Robot {
        #[command(subcommand)]
        command: robot::RobotCommand,
        #[command(flatten)]
        config: account_file::ConfigArg,
    },
    /// Who may do what
    Access {
        #[command(subcommand)]
        command: access::AccessCommand,
        #[command(flatten)]
        config: account_file::ConfigArg,
    },
    /// The CA and the certificate that the registry makes for itself (http.tls.selfsigned)
    Cert(cert::Args),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say what is wrong with a configuration, or worth knowing; exit status 1 if it cannot be served with
    Check {
        /// A config.yml; without it the defaults and the REGISTRY_* variables are checked
        file: Option<PathBuf>,
    },
    /// Print every setting, where its value comes from, and what is ignored
    Explain {
        /// A config.yml; without it the defaults and the REGISTRY_* variables are explained
        file: Option<PathBuf>,
    },
}

/// The commands and their options, for what describes them: man pages, completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    match Args::parse().command {
        Command::Serve { config, local } => {
            or_say(serve::serve(config.as_deref(), local.as_deref()))
        }
        Command::User { command, config } => or_say(user::run(command, &config)),
        Command::Robot { command, config } => or_say(robot::run(command, &config)),
        Command::Access { command, config } => or_say(access::run(command, &config)),
        Command::Cert(args) => or_say(cert::run(&args)),
        Command::GarbageCollect {
            config,
            dry_run,
            delete_untagged,
            forget_undo,
            grace,
            quiet,
        } => {
            let options = garbage::Options {
                dry_run,
                untagged: delete_untagged,
                forget_undo,
                quiet,
                grace,
            };
            or_say(garbage::collect_garbage(config.as_deref(), options))
        }
        Command::Rm(args) => or_say(rm::rm(&args)),
        Command::Retention(args) => or_say(rm::retention(&args)),
        Command::Verify(args) => or_say(verify::run(&args)),
        Command::History(args) => or_say(undo::history(&args)),
        Command::Undo(args) => or_say(undo::undo(&args)),
        Command::Config {
            command: ConfigCommand::Check { file },
        } => config::check(file.as_deref()),
        Command::Config {
            command: ConfigCommand::Explain { file },
        } => config::explain(file.as_deref()),
        Command::Drive { command, config } => drive::run(command, config.as_deref()),
    }
}

fn or_say(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("registry: {error:#}");
        ExitCode::FAILURE
    })
}
