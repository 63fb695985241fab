//! The configuration: CNCF distribution's `config.yml` and `REGISTRY_*` variables, and our own keys beside them.
//!
//! ```text
//! file ----> node (values with their lines) --.
//! REGISTRY_* -> env (overrides in the nodes) -+-> file::fill (the table in keys) -> check -> Config
//!                                                                                            `-> explain
//! ```
//!
//! `Config` is composed of the `Settings` that each module owns; nobody but `cli` reads it. One table (`keys`) says
//! which keys there are and where their values go: reading, overriding, "did you mean" and explaining all walk it.

mod address;
mod check;
mod check_tls;
mod check_token;
mod choices;
mod env;
mod explain;
mod file;
mod key;
mod keys;
mod keys_features;
mod keys_health;
mod keys_http;
mod lines;
mod node;
mod report;
mod slot;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use key::Importance;
pub(crate) use node::Origin;
pub(crate) use report::{ConfigErrors, Notice};

use node::{Content, Node};
use report::Report;

use crate::storage::settings::FsSettings;
use crate::{auth, health, http, logging, notifications, registry, upstream};

/// Where each value that is not the default was set, by path; sections are there too.
pub(crate) type Origins = BTreeMap<String, Origin>;

/// A configuration that was read completely, and can be served with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) log: logging::Settings,
    pub(crate) storage: FsSettings,
    pub(crate) registry: registry::settings::Settings,
    pub(crate) http: http::settings::Settings,
    pub(crate) health: health::settings::Settings,
    pub(crate) auth: auth::settings::Settings,
    /// Nothing is mirrored while its `remote_url` is empty.
    pub(crate) proxy: upstream::settings::Settings,
    pub(crate) notifications: notifications::settings::Settings,
    /// What has no effect, and why; to be logged at start.
    pub(crate) notices: Vec<Notice>,
    origins: Origins,
}

/// A duration as keys take it: `90d`, `12h`, `1h30m`.
///
/// # Errors
/// Why it is none.
pub(crate) fn parse_span(text: &str) -> Result<std::time::Duration, String> {
    let span = units::Span::parse(text.trim()).map_err(|why| why.to_string())?;
    Ok(span.0)
}

/// The file to read: the one of the command line, else the one that `REGISTRY_CONFIGURATION_PATH` names.
pub(crate) fn file_of(
    path: Option<&Path>,
    mut variables: impl Iterator<Item = (String, String)>,
) -> Option<PathBuf> {
    let mut named = || variables.find(|(name, path)| name == env::FILE && !path.is_empty());
    path.map(Path::to_owned)
        .or_else(|| named().map(|(_, path)| PathBuf::from(path)))
}

impl Config {
    /// Reads the file at `path`, else the one that `REGISTRY_CONFIGURATION_PATH` names, if any, and `variables` over it. Without
    /// all of them, the defaults.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub(crate) fn load(
        path: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        let mut report = Report::default();
        let variables: Vec<(String, String)> = variables.collect();
        let root = match file_of(path, variables.iter().cloned()) {
            Some(path) => file::read(&path, &mut report),
            None => Some(Node::new(Origin::Default, Content::Map(Vec::new()))),
        };
        Config::resolve(root, variables.into_iter(), report)
    }

    /// As `load`, of a text and without variables.
    #[cfg(fuzzing)]
    pub(crate) fn of_text(text: &str) -> Result<Config, ConfigErrors> {
        let mut report = Report::default();
        let root = file::parse(&"config.yml".into(), text, &mut report);
        Config::resolve(root, std::iter::empty(), report)
    }

    fn resolve(
        root: Option<Node>,
        variables: impl Iterator<Item = (String, String)>,
        mut report: Report,
    ) -> Result<Config, ConfigErrors> {
        // What was no YAML has no values to complain of.
        let Some(mut root) = root else {
            return Err(report.into_errors());
        };
        env::apply(&mut root, variables, &mut report);
        let mut config = Config::default();
        file::fill(&mut config, &root, &mut report);
        check::check(&mut config, &mut report);
        if !report.errors.is_empty() {
            return Err(report.into_errors());
        }
        config.notices = report.notices;
        Ok(config)
    }

    /// The whole configuration as YAML, with where each value came from; secrets as `(set)`.
    pub(crate) fn explain(&self) -> String {
        explain::explain(self)
    }
}
