//! Refusals of bodies: what came of them, and what did not.

use actix_web::http::StatusCode;
use actix_web::http::header;
use serde_json::json;

use super::Refusal;
use crate::http::payload::BodyError;
use crate::oci::ErrorCode;

pub(super) fn of_upload(error: &BodyError) -> Refusal {
    let resume = |text| {
        format!("{text}; what came before is kept, so an upload can be resumed from its status")
    };
    match error {
        BodyError::Incomplete | BodyError::Malformed => Refusal::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::BlobUploadInvalid,
            resume(error.to_string()),
        ),
        BodyError::Stalled(_) | BodyError::TooSlow => Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::BlobUploadInvalid,
            resume(error.to_string()),
        ),
        BodyError::Displaced => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            resume(error.to_string()),
        )
        .header(header::RETRY_AFTER, "10"),
        BodyError::TooLarge { limit } => too_large(*limit),
    }
}

pub(super) fn of_manifest(error: &BodyError) -> Refusal {
    let again = |text| format!("{text}; nothing of the manifest is kept: push it again, whole");
    let (status, code) = match error {
        BodyError::Incomplete => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
        BodyError::Malformed => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
        BodyError::Stalled(_) => (StatusCode::REQUEST_TIMEOUT, ErrorCode::ManifestInvalid),
        BodyError::TooSlow => {
            let message = again("the manifest came too slowly".to_owned());
            return Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                ErrorCode::ManifestInvalid,
                message,
            );
        }
        BodyError::Displaced => return busy(),
        BodyError::TooLarge { limit } => return too_large(*limit),
    };
    Refusal::new(status, code, again(error.to_string()))
}

pub(super) fn busy() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Unavailable,
        "so much is under way that there is no memory for more: try again in a moment",
    )
    .header(header::RETRY_AFTER, "5")
}

pub(super) fn too_large(limit: usize) -> Refusal {
    let message = format!(
        "the manifest is larger than the {limit} bytes that this registry takes: move annotations or embedded data into \
         blobs, or raise validation.manifests.maxsize"
    );
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::ManifestInvalid,
        message,
    )
    .detail(json!({ "limit": limit }))
}
