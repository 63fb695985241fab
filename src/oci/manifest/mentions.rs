//! What a manifest may refer to that nobody here understands: of old formats, of new ones, and odd ones.

use serde_json::Value;

use crate::oci::{Algorithm, Digest};

/// What a manifest mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// All digests, each once, in order. Whatever the manifest refers to, it has to name by its digest.
    pub digests: Vec<Digest>,
    /// The one of its `subject`.
    pub subject: Option<Digest>,
}

impl Mentions {
    /// Those of any bytes at all.
    pub fn of(bytes: &[u8]) -> Self {
        let mut mentions = Mentions::default();
        match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => {
                let subject = value.pointer("/subject/digest").and_then(Value::as_str);
                mentions.subject = subject.and_then(|digest| digest.parse().ok());
                mentions.in_value(&value);
            }
            Err(_) => mentions.in_text(bytes),
        }
        mentions.digests.sort_unstable();
        mentions.digests.dedup();
        mentions
    }

    /// Not deeper than the reader of JSON goes.
    fn in_value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.in_text(text.as_bytes()),
            Value::Array(items) => items.iter().for_each(|item| self.in_value(item)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.in_text(name.as_bytes());
                    self.in_value(value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn in_text(&mut self, text: &[u8]) {
        for algorithm in Algorithm::ALL {
            let (name, hex) = (algorithm.name().as_bytes(), algorithm.size() * 2);
            for (at, colon) in text.iter().enumerate() {
                if *colon != b':' || !text[..at].ends_with(name) {
                    continue;
                }
                let hex = text.get(at + 1..at + 1 + hex);
                let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
                let digest = hex.and_then(|hex| Digest::from_parts(algorithm, hex).ok());
                self.digests.extend(digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digests_are_found_wherever_they_stand() {
        let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|x| Algorithm::Sha256.digest(x));
        let e = Algorithm::Sha512.digest(b"e");
        let json = format!(
            r#"{{"schemaVersion":1,"fsLayers":[{{"blobSum":"{a}"}},{{"blobSum":"{a}"}}],"x":{{"{b}":"of\u0073ha256:{}"}},
                "y":["app@{e}:1","sha256:0"],"subject":{{"digest":"{d}"}}}}"#,
            c.hex()
        );
        let mut all = vec![a, b, c, d, e];
        all.sort_unstable();
        let mentions = Mentions::of(json.as_bytes());
        assert_eq!(mentions.digests, all);
        assert_eq!(mentions.subject, Some(d));
        let no_json = Mentions::of(format!("{{\"{a}\", {b}").as_bytes());
        assert_eq!((no_json.digests.len(), no_json.subject), (2, None));
        for odd in [
            "",
            "{",
            "null",
            r#"{"subject":"x"}"#,
            r#"{"subject":{"digest":7}}"#,
        ] {
            assert_eq!(Mentions::of(odd.as_bytes()), Mentions::default(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Mentions::of(&bytes);
        }
    }
}
