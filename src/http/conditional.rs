//! Conditional requests (RFC 9110, section 13). The entity tag of content is its digest.

use actix_web::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE};

use crate::oci::Digest;
use crate::registry::{Condition, IfMatch};

use super::reply::Failure;

/// Whether `If-None-Match` says that the client has this content already. Weak and strong tags compare alike here.
pub(crate) fn has_already(headers: &HeaderMap, etag: &str) -> bool {
    tags(headers, &IF_NONE_MATCH).any(|tag| tag == "*" || strip_weak(tag) == etag)
}

/// Whether a `Range` counts: `If-Range`, if any, has to name this content (RFC 9110, section 13.1.5: no weak tag does).
pub(crate) fn range_counts(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get(IF_RANGE)
        .is_none_or(|value| value.as_bytes() == etag.as_bytes())
}

/// Whether `If-Match` lets the content of `etag` be read (RFC 9110, section 13.1.1: no weak tag does).
///
/// # Errors
/// [`Failure::Precondition`] when it does not.
pub(crate) fn of_read(headers: &HeaderMap, etag: &str) -> Result<(), Failure> {
    let mut wanted = tags(headers, &IF_MATCH);
    if headers.contains_key(IF_MATCH) && !wanted.any(|tag| tag == "*" || tag == etag) {
        return Err(Failure::Precondition);
    }
    Ok(())
}

/// The condition under which a manifest, a tag or a blob may be changed. It counts only where the change would be made without it
/// (RFC 9110, section 13.2.1): what is not there is not there.
///
/// # Errors
/// [`Failure::ConditionUnsupported`].
pub(crate) fn of_change(headers: &HeaderMap) -> Result<Condition, Failure> {
    let if_match = if headers.contains_key(IF_MATCH) {
        if tags(headers, &IF_MATCH).any(|tag| tag == "*") {
            Some(IfMatch::Any)
        } else {
            // What is no digest in quotes is no tag of ours: it matches nothing.
            let digests = tags(headers, &IF_MATCH).filter_map(unquote);
            Some(IfMatch::OneOf(digests.collect()))
        }
    } else {
        None
    };
    let if_none_match = match headers.contains_key(IF_NONE_MATCH) {
        false => false,
        true if tags(headers, &IF_NONE_MATCH).any(|tag| tag == "*") => true,
        true => return Err(Failure::ConditionUnsupported),
    };
    Ok(Condition {
        if_match,
        if_none_match,
    })
}

fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers
        .get_all(name)
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
}

fn strip_weak(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn unquote(tag: &str) -> Option<Digest> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn if_none_match_takes_lists_weak_tags_and_the_star() {
        let etag = format!("\"{DIGEST}\"");
        for (value, has) in [
            (etag.clone(), true),
            (format!("W/{etag}"), true),
            (format!("\"x\" , {etag}"), true),
            ("*".to_owned(), true),
            (DIGEST.to_owned(), false),
            ("\"x\"".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(
                has_already(&headers(&[(IF_NONE_MATCH, &value)]), &etag),
                has,
                "{value}"
            );
        }
        assert!(has_already(
            &headers(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, &etag)]),
            &etag
        ));
        assert!(!has_already(&headers(&[]), &etag));
    }

    #[test]
    fn if_range_needs_the_very_tag() {
        let etag = format!("\"{DIGEST}\"");
        assert!(range_counts(&headers(&[]), &etag));
        assert!(range_counts(&headers(&[(IF_RANGE, &etag)]), &etag));
        assert!(!range_counts(
            &headers(&[(IF_RANGE, &format!("W/{etag}"))]),
            &etag
        ));
        assert!(!range_counts(
            &headers(&[(IF_RANGE, "Sat, 01 Jan 2028 00:00:00 GMT")]),
            &etag
        ));
    }

    #[test]
    fn reading_needs_the_very_tag() {
        let etag = format!("\"{DIGEST}\"");
        let weak = format!("W/{etag}");
        let list = format!("\"x\", {etag}");
        for (value, is_fine) in [
            (&*etag, true),
            ("*", true),
            (&list, true),
            (&weak, false),
            ("\"x\"", false),
            ("", false),
        ] {
            let headers = headers(&[(IF_MATCH, value)]);
            assert_eq!(of_read(&headers, &etag).is_ok(), is_fine, "{value}");
        }
        assert!(of_read(&headers(&[]), &etag).is_ok());
    }

    #[test]
    fn conditions_of_a_change() {
        let etag = format!("\"{DIGEST}\"");
        let none = of_change(&headers(&[])).ok().unwrap();
        assert!(none.if_match.is_none() && !none.if_none_match);
        let star = of_change(&headers(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]))
            .ok()
            .unwrap();
        assert!(star.if_match == Some(IfMatch::Any) && star.if_none_match);
        let one = of_change(&headers(&[(IF_MATCH, &format!("\"x\", {etag}"))]))
            .ok()
            .unwrap();
        assert_eq!(
            one.if_match,
            Some(IfMatch::OneOf(vec![DIGEST.parse().unwrap()]))
        );
        let nothing = of_change(&headers(&[(IF_MATCH, "\"x\"")])).ok().unwrap();
        assert_eq!(nothing.if_match, Some(IfMatch::OneOf(Vec::new())));
        assert!(matches!(
            of_change(&headers(&[(IF_NONE_MATCH, &etag)])),
            Err(Failure::ConditionUnsupported)
        ));
    }
}
