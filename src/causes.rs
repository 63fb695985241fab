//! An error as people read it in a log: with what caused it.

use std::error::Error;
use std::fmt;

/// An error and its causes in one sentence, parted by colons. For logs: causes hold paths and addresses, which clients do not see.
pub(crate) struct WithCauses<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no port")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn each_cause_follows_what_it_caused() {
        let error = Outer("x".parse::<u16>().unwrap_err());
        assert_eq!(
            WithCauses(&error).to_string(),
            "no port: invalid digit found in string"
        );
    }
}
