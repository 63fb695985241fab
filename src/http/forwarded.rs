//! The syntax of the `Forwarded` header (RFC 7239, section 4).

/// The elements of a value, and those of `X-Forwarded-For`: what is between commas that are not within quotes.
///
/// Where a quote is never closed, commas count everywhere: else a client could hide what the proxies behind it append.
pub(super) fn elements(value: &str) -> Vec<&str> {
    split(value, ',').unwrap_or_else(|| value.split(',').map(str::trim).collect())
}

/// `host="a:1"` of an element, without the quotes; none if it is not there or empty. What is escaped within quotes is left as it
/// is, and no address or host.
pub(super) fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let pairs = split(element, ';').unwrap_or_else(|| element.split(';').collect());
    let mut pairs = pairs.into_iter().filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"')).filter(|value| !value.is_empty())
}

/// None where a quote is not closed.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(text[start..at].trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_semicolons_in_quotes_are_text() {
        let value = r#"for="a,b;c";proto=https; Host="out:99", for=x;by="\",\"""#;
        let all = elements(value);
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(parameter(all[0], "for"), Some("a,b;c"));
        assert_eq!(parameter(all[0], "proto"), Some("https"));
        assert_eq!(parameter(all[0], "host"), Some("out:99"));
        assert_eq!(parameter(all[1], "for"), Some("x"));
        assert_eq!(parameter(all[1], "host"), None);
        assert_eq!(elements("a , b"), ["a", "b"]);
    }

    #[test]
    fn an_open_quote_hides_nothing_that_comes_after_it() {
        for client in [r#"for="x"#, r#"for="x\"#, r#"for=x""#] {
            for proxy in ["for=192.0.2.1", r#"for="[2001:db8::1]:80""#] {
                let value = format!("{client}, {proxy}");
                assert_eq!(elements(&value).last(), Some(&proxy), "{value}");
            }
        }
    }
}
