//! What reading a configuration has to say: errors, all at once, and notices.

use std::fmt;

use super::key::Importance;
use super::node::Origin;

/// One sentence about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// `http.tls.certificate`; empty when it is about no key.
    pub(crate) key: String,
    pub(crate) origin: Origin,
    pub(crate) text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// Something that the operator should know and that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) importance: Importance,
    pub(crate) about: Diagnostic,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.importance {
            Importance::Info => "note",
            Importance::Warning => "warning",
        };
        write!(f, "{word}: {}", self.about)
    }
}

/// Why a configuration cannot be used: every reason found, those of the file in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigErrors {
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) notices: Vec<Notice>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects while reading.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) notices: Vec<Notice>,
}

impl Report {
    pub(crate) fn error(&mut self, key: &str, origin: &Origin, text: impl Into<String>) {
        self.errors.push(Diagnostic {
            key: key.to_owned(),
            origin: origin.clone(),
            text: text.into(),
        });
    }

    pub(crate) fn notice(
        &mut self,
        importance: Importance,
        key: &str,
        origin: &Origin,
        text: impl Into<String>,
    ) {
        let about = Diagnostic {
            key: key.to_owned(),
            origin: origin.clone(),
            text: text.into(),
        };
        self.notices.push(Notice { importance, about });
    }

    pub(crate) fn into_errors(mut self) -> ConfigErrors {
        self.errors.sort_by_key(|error| match &error.origin {
            Origin::File { line, .. } => (0, *line),
            Origin::Variable(_) => (1, None),
            Origin::Default => (2, None),
        });
        ConfigErrors {
            errors: self.errors,
            notices: self.notices,
        }
    }
}
