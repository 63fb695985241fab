//! Who was logged out: `NAME:TEXT` a line, with another text each time, which is a part of what a token's holder is known
//! by. So a log-out ends the tokens of before and nothing else.

use std::collections::HashMap;

use data_encoding::BASE64URL_NOPAD;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::htpasswd::BadLine;

#[derive(Debug, Default)]
pub(super) struct Logouts(HashMap<String, String>);

impl Logouts {
    pub(super) fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let (mut logouts, mut bad) = (HashMap::new(), Vec::new());
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(':') {
                Some((name, text)) if !name.is_empty() && !text.is_empty() => {
                    logouts.insert(name.to_owned(), text.to_owned());
                }
                _ => bad.push(BadLine {
                    line: i + 1,
                    text: "is not NAME:TEXT, so nobody is logged out by it".to_owned(),
                }),
            }
        }
        (Logouts(logouts), bad)
    }

    /// Empty for who was never logged out.
    pub(super) fn of(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// The line that logs `name` out.
///
/// # Errors
/// The system gives no randomness.
pub(crate) fn line(name: &str) -> Result<String, ring::error::Unspecified> {
    let mut text = [0; 16];
    SystemRandom::new().fill(&mut text)?;
    Ok(format!("{name}:{}", BASE64URL_NOPAD.encode(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_out_is_another_one() {
        let (first, second) = (line("alice").unwrap(), line("alice").unwrap());
        assert_ne!(first, second);
        let (logouts, bad) = Logouts::parse(&format!("# c\n{first}\nbob:\nnonsense\n"));
        assert_eq!(format!("alice:{}", logouts.of("alice")), first);
        assert_eq!((logouts.of("bob"), logouts.of("carol")), ("", ""));
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3, 4]);
    }
}
