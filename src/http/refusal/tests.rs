//! Every failure becomes an answer of the specification.

use super::*;
use crate::http::reply::ReplyBody;

fn json_of(failure: &Failure) -> (StatusCode, Value) {
    let reply = Refusal::of(failure).into_reply();
    let status = reply.status();
    match reply.into_parts().1 {
        ReplyBody::Bytes(bytes) => (status, serde_json::from_slice(&bytes).unwrap()),
        _ => panic!("an error has a body"),
    }
}

#[test]
fn errors_have_the_specifications_form() {
    let (status, json) = json_of(&Failure::Op(OpError::PageSize("x\"y".to_owned())));
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(json["errors"][0]["code"], "PAGINATION_NUMBER_INVALID");
    assert_eq!(json["errors"][0]["detail"]["n"], "x\"y");
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(1));
}

#[test]
fn each_unknown_reference_is_an_error_of_its_own() {
    let digests: Vec<_> = (0..300u32)
        .map(|n| crate::oci::Algorithm::Sha256.digest(&n.to_le_bytes()))
        .collect();
    let (status, json) = json_of(&Failure::Registry(Error::ReferencesUnknown(
        digests.clone(),
    )));
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let errors = json["errors"].as_array().unwrap();
    assert_eq!(errors.len(), MAX_LISTED);
    for (error, digest) in errors.iter().zip(&digests) {
        assert_eq!(error["code"], "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(error["detail"]["digest"], digest.to_string());
    }
}

#[test]
fn methods_and_ranges_say_what_is_possible() {
    let allow = |failure| {
        Refusal::of(&failure)
            .headers
            .first()
            .map(|(name, value)| (name.clone(), value.to_str().unwrap().to_owned()))
    };
    assert_eq!(
        allow(Failure::Op(OpError::Method {
            method: "BREW".to_owned(),
            allow: "GET, HEAD"
        })),
        Some((header::ALLOW, "GET, HEAD".to_owned()))
    );
    assert_eq!(
        allow(Failure::Registry(Error::RangeUnsatisfiable { len: 7 })),
        Some((header::CONTENT_RANGE, "bytes */7".to_owned()))
    );
}
