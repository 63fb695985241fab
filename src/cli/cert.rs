//! `registry cert init|show|renew|export`: the CA and the certificate that the registry makes for itself.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use time::OffsetDateTime;

use crate::config::Config;
use crate::http::settings as http;
use crate::tls;
use crate::tls::local_ca::{Issued, LocalCa};
use crate::tls::trust::{Address, Trust};

/// The file that the package installs.
const PACKAGED: &str = "/etc/registry/config.yml";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// A config.yml; without it /etc/registry/config.yml if that is there, else the defaults
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make the CA and the server's certificate, if they are not there yet
    Init,
    /// Print names, validity and fingerprint, and the line that makes another machine trust this registry
    Show,
    /// Make a new server certificate now
    ///
    /// The registry does that by itself when an address or the host name changes, and 30 days before the end. A registry
    /// that runs takes the new one up within a minute, or at once on SIGHUP.
    Renew {
        /// A new CA too: every machine that trusts the old one has to be told again
        #[arg(long)]
        ca: bool,
    },
    /// Write to the standard output what other machines need
    Export {
        #[command(flatten)]
        what: What,
    },
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The CA's certificate (PEM)
    #[arg(long)]
    ca: bool,
    /// The server's certificate and the CA's (PEM)
    #[arg(long)]
    certificate: bool,
    /// The line for a shell on another machine
    #[arg(long)]
    line: bool,
    /// The line for PowerShell on Windows
    #[arg(long)]
    line_powershell: bool,
    /// The script that the line fetches and runs
    #[arg(long)]
    trust_script: bool,
    /// The script for Windows
    #[arg(long)]
    powershell: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let packaged = Some(Path::new(PACKAGED)).filter(|path| path.exists());
    let file = args.config.as_deref().or(packaged);
    let config = match Config::load(file, super::config::variables()) {
        Ok(config) => config,
        Err(errors) => return Ok(super::config::fail(file, &errors)),
    };
    let own = config.http.tls.as_ref().map(|tls| &tls.certificate);
    if let (Command::Show, Some(path)) = (&args.command, own.filter(|path| is_set(path))) {
        return show_own(path);
    }
    let Some(ca) = config.http.tls.as_ref().and_then(local_ca) else {
        let from = file.map_or("the defaults".into(), |file| file.display().to_string());
        let text = format!(
            "the registry has no CA of its own: `http.tls.selfsigned.enabled` is not set in {from}, or \
             `http.tls.certificate` is"
        );
        // At the first boot there is nothing to do then.
        if matches!(args.command, Command::Init) {
            return say(&format!("{text}\n"));
        }
        bail!(text);
    };
    match &args.command {
        Command::Init => {
            let (issued, _) = ca.ensure()?;
            say(&show(&issued, &config.http))
        }
        Command::Show => say(&show(&ca.look()?, &config.http)),
        Command::Renew { ca: authority } => {
            let (issued, _) = ca.renew(*authority)?;
            say(&show(&issued, &config.http))
        }
        Command::Export { what } => export(what, &ca, &config.http),
    }
}

/// None when the certificate is the user's own, or there is none.
pub(super) fn local_ca(tls: &http::Tls) -> Option<LocalCa> {
    let own = &tls.self_signed;
    (own.enabled && !is_set(&tls.certificate)).then(|| LocalCa::new(&own.directory, &own.names))
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// The certificate that the user gave.
fn show_own(path: &Path) -> anyhow::Result<ExitCode> {
    let facts = tls::facts(path).context("http.tls.certificate")?;
    say(&format!(
        "server certificate, your own ({})\n  for          {}\n  until        {}\n  fingerprint  {}\n",
        path.display(),
        facts.names,
        until(facts.ends),
        facts.fingerprint,
    ))
}

fn until(end: OffsetDateTime) -> String {
    match (end - OffsetDateTime::now_utc()).whole_days() {
        left if left < 0 => format!("{} (over)", end.date()),
        left => format!("{} ({left} days)", end.date()),
    }
}

fn export(what: &What, ca: &LocalCa, http: &http::Settings) -> anyhow::Result<ExitCode> {
    let issued = ca.look()?;
    let trust = Trust::of(&issued);
    let address = || address(&trust, http).context("http.prefix cannot stand in a script");
    say(&match what {
        What { ca: true, .. } => issued.ca_pem.clone(),
        What {
            certificate: true, ..
        } => ca.public_chain()?,
        What { line: true, .. } => trust.line(&address()?) + "\n",
        What {
            line_powershell: true,
            ..
        } => trust.line_powershell(&address()?) + "\n",
        What {
            trust_script: true, ..
        } => trust.script(&address()?),
        What { .. } => trust.powershell(&address()?),
    })
}

fn show(issued: &Issued, http: &http::Settings) -> String {
    let trust = Trust::of(issued);
    let mut text = String::new();
    // Writing into a text does not fail.
    let _ = writeln!(text, "server certificate");
    let _ = writeln!(text, "  for          {}", issued.server.names);
    let _ = writeln!(text, "  until        {}", until(issued.server.ends));
    if !issued.left_out.is_empty() {
        let _ = writeln!(
            text,
            "  not for      {}\n               which the CA may not sign; `registry cert renew --ca` makes one that may, and \
             every machine has to trust that anew",
            issued.left_out
        );
    }
    let _ = writeln!(text, "certificate authority");
    let _ = writeln!(text, "  name         {}", issued.ca.subject);
    let _ = writeln!(text, "  until        {}", until(issued.ca.ends));
    let _ = writeln!(
        text,
        "  SHA-256      {}  (of ca.crt, by sha256sum)",
        trust.sha256
    );
    let _ = writeln!(
        text,
        "  fingerprint  {}  (as browsers show it)",
        trust.fingerprint
    );
    match address(&trust, http) {
        Some(at) => {
            let _ = write!(text, "\n{}", advice(&trust, &at));
        }
        None => text.push_str("\nhttp.prefix cannot stand in a script, so there is no line\n"),
    }
    text
}

/// What to do on other machines.
pub(super) fn advice(trust: &Trust, at: &Address) -> String {
    let mut text = format!(
        "To make another machine trust this registry, paste there (Linux, macOS):\n\n  {}\n\nand then push: docker push {}/app:v1\n",
        trust.line(at),
        at.of_images(),
    );
    let others: Vec<String> = trust.addresses().map(ToString::to_string).collect();
    if !others.is_empty() {
        let _ = writeln!(
            text,
            "Where that name is not found, put an address in its place: {}",
            others.join(", ")
        );
    }
    text.push_str("For Windows: registry cert export --line-powershell\n");
    text
}

/// Where others reach the registry, as far as the configuration tells.
pub(super) fn address(trust: &Trust, http: &http::Settings) -> Option<Address> {
    let url = http
        .host
        .as_deref()
        .and_then(|url| url.strip_prefix("https://"));
    if let Some(url) = url {
        let authority = url.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, 443),
        };
        if trust.is_for(host) {
            return Address::new(host, port, &http.prefix);
        }
    }
    let mut ports = http.addr.iter().filter_map(|addr| addr.rsplit_once(':'));
    let port = ports.find_map(|(_, port)| port.parse().ok());
    Address::new(&trust.host(), port.unwrap_or(5000), &http.prefix)
}

/// A reader that went away (`| head`) is no failure.
fn say(text: &str) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
