//! The user name and password for the upstream: from the configuration, or from a credential helper.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;

use super::Error;
use super::settings::Settings;
use crate::secret::Secret;

#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret,
}

pub(super) enum Credentials {
    Anonymous,
    Fixed(Login),
    Helper(Helper),
}

/// A program that is called `NAME get`, reads the server's URL and writes `{"Username": ..., "Secret": ...}`
/// (docker-credential-helpers).
pub(super) struct Helper {
    command: String,
    server: String,
    /// None: its first answer is good for ever.
    lifetime: Option<Duration>,
    answer: Mutex<Option<(Instant, Login)>>,
}

/// How long a helper may take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Credentials {
    pub(super) fn new(settings: &Settings) -> Self {
        match (&settings.exec_command, &settings.username) {
            (Some(command), _) => Credentials::Helper(Helper {
                command: command.clone(),
                server: settings.remote_url.clone(),
                lifetime: settings.exec_lifetime,
                answer: Mutex::default(),
            }),
            (None, Some(username)) => Credentials::Fixed(Login {
                username: username.clone(),
                password: settings.password.clone().unwrap_or_else(|| Secret::new("")),
            }),
            (None, None) => Credentials::Anonymous,
        }
    }

    pub(super) async fn login(&self) -> Result<Option<Login>, Error> {
        match self {
            Credentials::Anonymous => Ok(None),
            Credentials::Fixed(login) => Ok(Some(login.clone())),
            Credentials::Helper(helper) => helper.login().await.map(Some),
        }
    }
}

impl Helper {
    async fn login(&self) -> Result<Login, Error> {
        let mut answer = self.answer.lock().await;
        if let Some((at, login)) = &*answer
            && self.lifetime.is_none_or(|lifetime| at.elapsed() < lifetime)
        {
            return Ok(login.clone());
        }
        let (command, server) = (self.command.clone(), self.server.clone());
        let asked = tokio::task::spawn_blocking(move || ask(&command, &server)).await;
        let login = asked
            .unwrap_or(Err("the credential helper was not run"))
            .map_err(|why| {
                log::error!("proxy.exec.command: {}: {why}", self.command);
                Error::Credentials(why)
            })?;
        *answer = Some((Instant::now(), login.clone()));
        Ok(login)
    }
}

/// Its output goes nowhere but into the answer: it holds the password.
fn ask(command: &str, server: &str) -> Result<Login, &'static str> {
    let mut child = Command::new(command)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|_| "the credential helper cannot be started")?;
    let output = match converse(&mut child, server) {
        Ok(output) => output,
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(why);
        }
    };
    parse(&output)
}

fn converse(child: &mut Child, server: &str) -> Result<Vec<u8>, &'static str> {
    /// Far above any user name and password, and below what a pipe holds: so it never waits for its reader.
    const LIMIT: u64 = 64 << 10;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read what it is asked may be content without.
        let _ = stdin.write_all(server.as_bytes());
    }
    let asked = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if asked.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            _ => return Err("the credential helper did not end in time"),
        }
    };
    if !status.success() {
        return Err("the credential helper failed");
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        std::io::Read::read_to_end(&mut std::io::Read::take(stdout, LIMIT), &mut output)
            .map_err(|_| "the credential helper's answer could not be read")?;
    }
    Ok(output)
}

fn parse(output: &[u8]) -> Result<Login, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Username")]
        username: String,
        #[serde(rename = "Secret")]
        secret: String,
    }
    let answer: Answer = serde_json::from_slice(output).map_err(
        |_| "the credential helper's answer is not the JSON that Docker's helpers write",
    )?;
    if answer.username == "<token>" {
        return Err(
            "the credential helper gave an identity token, which is not supported: log in to it with a user \
                    name and a password or an access token",
        );
    }
    Ok(Login {
        username: answer.username,
        password: Secret::new(answer.secret),
    })
}

#[cfg(test)]
mod tests {
    use super::{ask, parse};

    #[test]
    fn a_helper_says_who_we_are() {
        let login = parse(br#"{"ServerURL":"https://a","Username":"u","Secret":"p"}"#).unwrap();
        assert_eq!(
            (login.username.as_str(), login.password.expose()),
            ("u", "p")
        );
        for bad in [
            &b""[..],
            b"{}",
            b"nonsense",
            br#"{"Username":"<token>","Secret":"x"}"#,
        ] {
            assert!(parse(bad).is_err());
        }
    }

    #[test]
    fn what_a_helper_does_wrong_is_said() {
        assert!(
            ask("/nonexistent", "https://a")
                .unwrap_err()
                .contains("started")
        );
        assert!(ask("false", "https://a").unwrap_err().contains("failed"));
        assert!(ask("true", "https://a").unwrap_err().contains("JSON"));
    }
}
