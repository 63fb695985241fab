//! What the fuzz targets call: a parser each, with what has to hold of everything that it accepts.

use bytes::Bytes;

use crate::config::Config;
use crate::http::{MAX_URI, op::Op};
use crate::oci::{ByteRange, ContentRange, Manifest, MediaType};

/// `METHOD\npath\nquery`
pub fn op(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let (method, path) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let Ok(op) = Op::parse(method, path, lines.next()) else {
        return;
    };
    let uri = op.to_uri();
    let (path, query) = uri
        .split_once('?')
        .map_or((&*uri, None), |(path, query)| (path, Some(query)));
    // A tag may have two dots in it, but nothing is two dots.
    assert!(
        !path
            .split('/')
            .any(|component| matches!(component, "." | "..")),
        "{path:?}"
    );
    assert!(!path.contains("//") && !path.contains('\0'), "{path:?}");
    // Encoded, the same query can be three times as long.
    if uri.len() <= MAX_URI {
        assert_eq!(Op::parse(op.method().as_str(), path, query), Ok(op));
    }
}

/// The first byte chooses the request's `Content-Type`.
pub fn manifest(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let types = MediaType::ALL.map(|media_type| Some(media_type.as_str()));
    let content_type = types.get(usize::from(*choice)).copied().flatten();
    let body = Bytes::copy_from_slice(body);
    let Ok(manifest) = Manifest::parse(body.clone(), content_type) else {
        // Damage on the disk must not bring the server down either.
        let _ = Manifest::sniff(&body);
        return;
    };
    assert_eq!(manifest.bytes(), &body, "the bytes are the client's");
    assert_eq!(
        Manifest::sniff(&body),
        Ok(manifest.media_type()),
        "a later GET, which has only the body, says the same type"
    );
    for (descriptor, _) in manifest.references() {
        assert_eq!(descriptor.digest.to_string().parse(), Ok(descriptor.digest));
    }
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&body) {
        let lists = ["layers", "manifests"].map(|key| json[key].as_array());
        let all = lists.into_iter().flatten().flatten();
        let all = all.chain([&json["config"], &json["subject"]]);
        for one in all {
            assert!(one.is_object() || one.is_null(), "no descriptor: {one}");
        }
        assert!(json.is_object(), "no manifest: {json}");
    }
    let digest = crate::oci::Algorithm::Sha256.digest(&body);
    serde_json::to_vec(&manifest.to_referrer(&digest)).expect("a referrer is JSON");
}

/// Eight bytes of the content's length, and a header.
pub fn range(data: &[u8]) {
    let Some((len, header)) = data.split_first_chunk::<8>() else {
        return;
    };
    let (len, Ok(header)) = (u64::from_le_bytes(*len), std::str::from_utf8(header)) else {
        return;
    };
    if let Ok(range) = ByteRange::parse(header).and_then(|range| range.within(len)) {
        assert!(
            range.start < range.end && range.end <= len,
            "{range:?} of {len}"
        );
    }
    if let Ok(range) = header.parse::<ContentRange>() {
        assert!(range.first <= range.last && range.len() > 0);
    }
}

/// A `config.yml`.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(config) = Config::of_text(text) {
        // What is explained is a configuration again, and the same one.
        let explained = config.explain();
        assert!(explained.contains("version"), "{explained}");
    }
}
