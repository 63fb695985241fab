//! A CA of this machine's own, and the server certificate that it signs: TLS without having been given any.
//!
//! ```text
//! machine (names, addresses) -> ensure -> issue (CA, server certificate) -> files (one rename each)
//!                                 |- scope  what the CA's name constraints let it sign
//!                                 `- facts  what a certificate says
//! ```
//!
//! Two files are the truth, each replaced in one step: `ca.pem` and then `server.pem`. Wherever a crash falls, the next
//! [`LocalCa::ensure`] makes what is missing, and a server certificate that another CA signed is replaced.

mod facts;
mod files;
mod issue;
mod scope;

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::machine::Machine;
use super::names::Names;
use super::{clock, pem};
pub(crate) use facts::Facts;
pub(super) use facts::sha256;
use files::{AUTHORITY, AUTHORITY_PUBLIC, Folder, SERVER, SERVER_PUBLIC};

/// A certificate that ends sooner is replaced.
const RENEW_BEFORE: Duration = Duration::days(30);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("{path} is damaged: restore it, or make a new CA with `registry cert renew --ca`")]
    Bad { path: PathBuf },
    #[error(
        "{folder} has no CA yet: `registry cert init` makes it, and so does the start of the registry"
    )]
    Missing { folder: PathBuf },
    #[error(
        "a new server certificate is due ({reason}) and {path} is gone: put it back, or make a new CA with \
         `registry cert renew --ca`"
    )]
    KeyGone { path: PathBuf, reason: Reason },
}

/// Why a certificate was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("there was none")]
    Missing,
    #[error("the one there was cannot be used")]
    Unusable,
    #[error("the one there was is of another CA")]
    OtherAuthority,
    #[error("it ends on {}", .0.date())]
    Ends(OffsetDateTime),
    #[error("it begins on {}", .0.date())]
    Begins(OffsetDateTime),
    #[error("this machine is now called {0}")]
    Names(Names),
    #[error("it was asked for")]
    Asked,
}

/// What was done, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Server(Reason),
    /// A new CA, hence a new server certificate too.
    Authority(Reason),
}

/// The CA and the server's certificate as they are.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    /// PEM, byte for byte what clients are given.
    pub(crate) ca_pem: String,
    pub(crate) ca: Facts,
    pub(crate) server: Facts,
    /// Names of the machine that the CA may not sign.
    pub(crate) left_out: Names,
}

/// The CA below a folder.
#[derive(Clone, Debug)]
pub(crate) struct LocalCa {
    folder: PathBuf,
    names: Vec<String>,
}

/// `ca.pem`, understood.
struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
    facts: Facts,
}

/// `server.pem`, understood.
struct Server {
    ca: Option<CertificateDer<'static>>,
    facts: Facts,
    pem: String,
    usable: bool,
}

impl LocalCa {
    /// `names` are names and addresses that the machine cannot know.
    pub(crate) fn new(folder: &Path, names: &[String]) -> Self {
        LocalCa {
            folder: folder.to_owned(),
            names: names.to_vec(),
        }
    }

    /// PEM: the server's key, its certificate, and the CA's.
    pub(crate) fn server_pem(&self) -> PathBuf {
        self.folder.join(SERVER)
    }

    /// Makes what is missing or not good any more. Cheap when nothing is.
    ///
    /// # Errors
    /// Those of the disk, and a CA that cannot be used. What was there stays.
    pub(crate) fn ensure(&self) -> Result<(Issued, Change), Error> {
        self.make(&Machine::look(&self.names), clock::now(), Change::None)
    }

    /// Makes a new server certificate; a new CA too, if `authority` is set: then all clients have to trust anew.
    ///
    /// # Errors
    /// As [`LocalCa::ensure`].
    pub(crate) fn renew(&self, authority: bool) -> Result<(Issued, Change), Error> {
        let asked = if authority {
            Change::Authority(Reason::Asked)
        } else {
            Change::Server(Reason::Asked)
        };
        self.make(&Machine::look(&self.names), clock::now(), asked)
    }

    /// PEM: the server's certificate and the CA's.
    ///
    /// # Errors
    /// As [`LocalCa::look`].
    pub(crate) fn public_chain(&self) -> Result<String, Error> {
        let text = files::read(&self.folder, SERVER_PUBLIC)?;
        text.ok_or_else(|| self.missing())
    }

    /// As they are, without making anything, from the files that everybody can read.
    ///
    /// # Errors
    /// Those of the disk; [`Error::Missing`] when there is no CA yet.
    pub(crate) fn look(&self) -> Result<Issued, Error> {
        let ca_pem = files::read(&self.folder, AUTHORITY_PUBLIC)?.ok_or_else(|| self.missing())?;
        let ca = first(&ca_pem).and_then(|ca| Facts::of(&ca));
        let ca = ca.ok_or_else(|| self.bad(AUTHORITY_PUBLIC))?;
        let server = files::read(&self.folder, SERVER_PUBLIC)?
            .and_then(|text| Facts::of(&first(&text)?))
            .ok_or_else(|| self.bad(SERVER_PUBLIC))?;
        let left_out = divide(&Machine::look(&self.names).names, &ca).1;
        Ok(Issued {
            ca_pem,
            ca,
            server,
            left_out,
        })
    }

    fn make(
        &self,
        machine: &Machine,
        now: OffsetDateTime,
        asked: Change,
    ) -> Result<(Issued, Change), Error> {
        let folder = Folder::hold(&self.folder)?;
        let mut change = asked;
        let server = self.read_server()?;
        let found = match change {
            Change::Authority(_) => None,
            Change::None | Change::Server(_) => self.read_authority()?,
        };
        let authority = match (found, server.as_ref()) {
            (Some(authority), _) => authority,
            // The owner may keep the CA's key elsewhere: its certificate is good until it ends.
            (None, Some(server)) if !matches!(change, Change::Authority(_)) => {
                return self.without_key(server, machine, now, change);
            }
            (None, _) => {
                let made = issue::authority(machine, now)?;
                folder.write_private(AUTHORITY, &format!("{}{}", made.key, made.certificate))?;
                if change == Change::None {
                    change = Change::Authority(Reason::Missing);
                }
                self.read_authority()?.ok_or_else(|| self.bad(AUTHORITY))?
            }
        };
        let (wanted, left_out) = divide(&machine.names, &authority.facts);
        if change == Change::None
            && let Some(reason) = due(server.as_ref(), &authority.certificate, &wanted, now)
        {
            change = Change::Server(reason);
        }
        let server = match (change == Change::None, server) {
            (true, Some(server)) => server,
            _ => {
                let ends = authority.facts.ends;
                let made = issue::leaf(&authority.certificate, &authority.key, ends, &wanted, now)?;
                let pem = format!("{}{}{}", made.key, made.certificate, authority.pem);
                folder.write_private(SERVER, &pem)?;
                self.read_server()?.ok_or_else(|| self.bad(SERVER))?
            }
        };
        folder.write_public(SERVER_PUBLIC, &server.pem)?;
        folder.write_public(AUTHORITY_PUBLIC, &authority.pem)?;
        let issued = Issued {
            ca_pem: authority.pem,
            ca: authority.facts,
            server: server.facts,
            left_out,
        };
        Ok((issued, change))
    }

    fn without_key(
        &self,
        server: &Server,
        machine: &Machine,
        now: OffsetDateTime,
        asked: Change,
    ) -> Result<(Issued, Change), Error> {
        let key_gone = |reason| Error::KeyGone {
            path: self.folder.join(AUTHORITY),
            reason,
        };
        if let Change::Server(reason) = asked {
            return Err(key_gone(reason));
        }
        let ca = server.ca.as_ref().ok_or_else(|| self.bad(SERVER))?;
        let facts = Facts::of(ca).ok_or_else(|| self.bad(SERVER))?;
        let (wanted, left_out) = divide(&machine.names, &facts);
        if let Some(reason) = due(Some(server), ca, &wanted, now) {
            return Err(key_gone(reason));
        }
        let ca_pem = files::read(&self.folder, AUTHORITY_PUBLIC)?;
        let issued = Issued {
            ca_pem: ca_pem.ok_or_else(|| self.bad(AUTHORITY_PUBLIC))?,
            ca: facts,
            server: server.facts.clone(),
            left_out,
        };
        Ok((issued, Change::None))
    }

    fn read_authority(&self) -> Result<Option<Authority>, Error> {
        let Some(text) = files::read(&self.folder, AUTHORITY)? else {
            return Ok(None);
        };
        let understood = || {
            let (key, pem) = text.split_at(text.find(BEGIN_CERTIFICATE)?);
            let certificate = first(pem)?;
            let facts = Facts::of(&certificate)?;
            let matches = super::certified(vec![certificate.clone()], &self.folder.join(AUTHORITY));
            matches.ok().map(|_| Authority {
                certificate,
                pem: pem.to_owned(),
                key: key.to_owned(),
                facts,
            })
        };
        understood().map(Some).ok_or_else(|| self.bad(AUTHORITY))
    }

    /// None also for a file that makes no sense: it is replaced.
    fn read_server(&self) -> Result<Option<Server>, Error> {
        let Some(text) = files::read(&self.folder, SERVER)? else {
            return Ok(None);
        };
        let understood = || {
            let pem = text.get(text.find(BEGIN_CERTIFICATE)?..)?;
            let mut chain = pem::all(pem.as_bytes()).ok()?.into_iter();
            let certificate = chain.next()?;
            let facts = Facts::of(&certificate)?;
            Some(Server {
                usable: super::certified(vec![certificate], &self.server_pem()).is_ok(),
                facts,
                ca: chain.next(),
                pem: pem.to_owned(),
            })
        };
        Ok(understood())
    }

    fn missing(&self) -> Error {
        Error::Missing {
            folder: self.folder.clone(),
        }
    }

    fn bad(&self, name: &str) -> Error {
        Error::Bad {
            path: self.folder.join(name),
        }
    }
}

const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The first certificate of a PEM text.
fn first(text: &str) -> Option<CertificateDer<'static>> {
    pem::all(text.as_bytes()).ok()?.into_iter().next()
}

/// What of `names` the CA may sign, and what it may not.
fn divide(names: &Names, ca: &Facts) -> (Names, Names) {
    let Some(scope) = &ca.scope else {
        return (names.clone(), Names::default());
    };
    let allowed = names.filtered(
        |name| scope.allows_name(name),
        |address| scope.allows_address(address),
    );
    let left_out = names.without(&allowed);
    (allowed, left_out)
}

/// Why `server` has to be replaced. Names that the machine has lost are no reason: they do no harm until it ends.
fn due(
    server: Option<&Server>,
    ca: &CertificateDer<'_>,
    wanted: &Names,
    now: OffsetDateTime,
) -> Option<Reason> {
    let Some(server) = server else {
        return Some(Reason::Missing);
    };
    if !server.usable {
        return Some(Reason::Unusable);
    }
    if server.ca.as_ref() != Some(ca) {
        return Some(Reason::OtherAuthority);
    }
    let missing = wanted.without(&server.facts.names);
    if !missing.is_empty() {
        return Some(Reason::Names(missing));
    }
    let ca_ends = Facts::of(ca).map(|ca| ca.ends);
    if server.facts.ends < now + RENEW_BEFORE && ca_ends.is_none_or(|end| server.facts.ends < end) {
        return Some(Reason::Ends(server.facts.ends));
    }
    (server.facts.begins > now).then_some(Reason::Begins(server.facts.begins))
}

#[cfg(test)]
mod tests;
