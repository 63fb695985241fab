//! The part of a request target behind the question mark. Unknown keys (`ns`, `origin`, `_state`) are ignored.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::op::PageQuery;
use super::route::OpError;

pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn new(raw: &'a str) -> Self {
        Query(raw)
    }

    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = Cow<'a, str>> {
        self.0.split('&').filter_map(move |pair| {
            let (k, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(k) == key).then(|| decode(value))
        })
    }

    /// The first of them; nobody sends the others twice.
    pub(super) fn get(&self, key: &str) -> Option<Cow<'a, str>> {
        if self.0.is_empty() {
            None
        } else {
            self.all(key).next()
        }
    }

    /// An empty value is none.
    pub(super) fn parsed<T: FromStr>(&self, key: &str) -> Option<Result<T, (String, T::Err)>> {
        let value = self.get(key).filter(|value| !value.is_empty())?;
        Some(T::from_str(&value).map_err(|e| (value.into_owned(), e)))
    }

    pub(super) fn number(&self) -> Result<Option<usize>, OpError> {
        let Some(text) = self.get("n") else {
            return Ok(None);
        };
        if text.is_empty() {
            return Ok(None);
        }
        // A sign is no digit, though `from_str` would take a plus.
        match text.parse() {
            Ok(n) if text.bytes().all(|c| c.is_ascii_digit()) => Ok(Some(n)),
            _ => Err(OpError::PageSize(text.chars().take(40).collect())),
        }
    }

    pub(super) fn page(&self) -> Result<PageQuery, OpError> {
        let last = self
            .get("last")
            .filter(|last| !last.is_empty())
            .map(Cow::into_owned);
        Ok(PageQuery {
            n: self.number()?,
            last,
        })
    }
}

/// A plus stays a plus, other than in a form: no value has a space, and a media type has a plus that not every client
/// knows to encode.
fn decode(raw: &str) -> Cow<'_, str> {
    if raw.contains('%') {
        percent_decode_str(raw).decode_utf8_lossy()
    } else {
        Cow::Borrowed(raw)
    }
}
