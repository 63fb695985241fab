//! What is taken for a manifest, and what is read in it.

use super::*;
use proptest::prelude::*;

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn parse(body: &str, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
    Manifest::parse(
        Bytes::copy_from_slice(body.replace("$D", D).as_bytes()),
        content_type,
    )
}

fn image(extra: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{D}","size":2}},"layers":[]{extra}}}"#
    )
}

#[test]
fn the_type_comes_from_header_field_or_shape() {
    assert_eq!(
        parse(&image(""), None).unwrap().media_type(),
        MediaType::OciManifest
    );
    assert_eq!(
        parse(&image(""), Some(OCI)).unwrap().media_type(),
        MediaType::OciManifest
    );
    assert_eq!(
        parse(&image(""), Some("application/json"))
            .unwrap()
            .media_type(),
        MediaType::OciManifest
    );
    let docker = image(&format!(r#","mediaType":"{DOCKER}""#));
    assert_eq!(
        parse(&docker, None).unwrap().media_type(),
        MediaType::DockerManifest
    );
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert_eq!(parse(index, Some(INDEX)).unwrap().kind(), Kind::Index);
}

#[test]
fn refuses_contradictions_and_gaps() {
    let error = |body: &str, header| parse(body, header).unwrap_err();
    assert!(matches!(error("[]", None), ManifestError::Json(_)));
    assert!(matches!(error("{", None), ManifestError::Json(_)));
    assert_eq!(error("{}", None), ManifestError::Missing("schemaVersion"));
    assert_eq!(
        error(r#"{"schemaVersion":1}"#, None),
        ManifestError::Schema1
    );
    assert_eq!(
        error(r#"{"schemaVersion":3}"#, None),
        ManifestError::SchemaVersion(3)
    );
    assert_eq!(
        error(r#"{"schemaVersion":2}"#, None),
        ManifestError::Missing("config")
    );
    assert!(
        error(r#"{"schemaVersion":2}"#, Some(INDEX))
            .to_string()
            .contains(INDEX)
    );
    assert!(matches!(
        error(&image(r#","mediaType":"a/b""#), None),
        ManifestError::MediaType(_)
    ));
    assert!(matches!(
        error(&image(""), Some("a/b")),
        ManifestError::MediaType(_)
    ));
    assert!(matches!(
        error(&image(""), Some(DOCKER)),
        ManifestError::MediaTypeMissing(_)
    ));
    let field = image(&format!(r#","mediaType":"{OCI}""#));
    assert!(matches!(
        error(&field, Some(DOCKER)),
        ManifestError::MediaTypesDiffer { .. }
    ));
    assert_eq!(
        error(&image(r#","manifests":[]"#), None),
        ManifestError::Ambiguous
    );
    assert!(
        matches!(
            error(&image(r#","schemaVersion":2"#), None),
            ManifestError::Json(_)
        ),
        "a key twice"
    );
    let layer = |d: &str| {
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"$D","size":0}},"layers":[{d}]}}"#)
    };
    assert!(matches!(
        error(&layer(r#"{"digest":"$D","size":-1}"#), None),
        ManifestError::Size { .. }
    ));
    assert!(matches!(
        error(&layer(r#"{"digest":"sha256:x","size":1}"#), None),
        ManifestError::Digest { .. }
    ));
}

#[test]
fn names_every_reference_and_its_role() {
    let body = r#"{"schemaVersion":2,"config":{"mediaType":"c/c","digest":"$D","size":1},"layers":[
        {"mediaType":"l/l","digest":"$D","size":2},
        {"mediaType":"l/l","digest":"$D","size":3,"urls":["https://example.com/x"]},
        {"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"$D","size":4}],
        "subject":{"mediaType":"s/s","digest":"$D","size":5},"x-unknown":{"kept":true}}"#;
    let manifest = parse(body, None).unwrap();
    let roles: Vec<_> = manifest
        .references()
        .map(|(d, role)| (d.size, role))
        .collect();
    assert_eq!(
        roles,
        [
            (1, Role::Config),
            (2, Role::Layer),
            (3, Role::ForeignLayer),
            (4, Role::ForeignLayer),
            (5, Role::Subject)
        ]
    );
    assert_eq!(
        manifest.bytes(),
        &body.replace("$D", D),
        "the bytes stay as they came"
    );
    assert_eq!(manifest.artifact_type(), Some("c/c"));
}

#[test]
fn null_lists_are_empty_ones() {
    assert!(parse(&image(r#","annotations":null"#), None).is_ok());
    let body = r#"{"schemaVersion":2,"config":{"digest":"$D","size":0},"layers":null}"#;
    assert_eq!(parse(body, None).unwrap().references().count(), 1);
}

#[test]
fn null_is_as_good_as_nothing() {
    for extra in [
        r#","subject":{}"#,
        r#","subject":{"mediaType":"","digest":"","size":0}"#,
        r#","subject":null,"annotations":{"a":null},"artifactType":null,"mediaType":null"#,
    ] {
        let manifest = parse(&image(extra), Some(OCI)).unwrap();
        assert_eq!(manifest.subject(), None, "{extra}");
        manifest.check_embedded().unwrap();
    }
    let layer = r#"{"mediaType":null,"digest":"$D","size":1,"urls":null,"data":null,
        "platform":{"os":"linux","architecture":null}}"#;
    let body = image("").replace("\"layers\":[]", &format!("\"layers\":[{layer}]"));
    let manifest = parse(&body, None).unwrap();
    manifest.check_embedded().unwrap();
    let (layer, role) = manifest.references().nth(1).unwrap();
    assert_eq!((layer.media_type.as_str(), role), ("", Role::Layer));
    assert_eq!(layer.platform.as_ref().unwrap().architecture, "");
    for (bad, field) in [(r#"{"size":1}"#, "digest"), (r#"{"digest":"$D"}"#, "size")] {
        let body = format!(r#"{{"schemaVersion":2,"config":{bad},"layers":[]}}"#);
        let place = "config".to_owned();
        let error = parse(&body, None).unwrap_err();
        assert_eq!(error, ManifestError::Incomplete { place, field });
    }
}

#[test]
fn an_array_is_no_object() {
    let descriptor = r#"["x/y","$D",2,[],null]"#;
    let in_list = |key: &str| format!(r#"{{"schemaVersion":2,"{key}":[{descriptor}]}}"#);
    let layers = format!(r#"{{"digest":"$D","size":2}},"layers":[{descriptor}]"#);
    for body in [
        format!(r#"[2,"{OCI}",null,{descriptor},[],null,null,{{}},null]"#),
        format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[]}}"#),
        format!(r#"{{"schemaVersion":2,"config":{layers}}}"#),
        in_list("manifests"),
        image(&format!(r#","subject":{descriptor}"#)),
        image("").replace("\"size\":2", r#""size":2,"platform":["linux","arm"]"#),
    ] {
        let error = parse(&body, None).unwrap_err();
        let ManifestError::Json(why) = &error else {
            panic!("{body}: {error:?}");
        };
        assert!(why.contains("expected a JSON object"), "{body}: {why}");
        assert!(!error.to_string().contains("struct"), "{body}: {error}");
    }
    assert!(matches!(
        Manifest::sniff(br#"[2,null,null]"#),
        Err(ManifestError::Json(_))
    ));
}

#[test]
fn an_index_shows_no_artifact_type_of_its_own() {
    let manifest = parse(
        r#"{"schemaVersion":2,"manifests":[],"artifactType":""}"#,
        Some(INDEX),
    )
    .unwrap();
    assert_eq!(manifest.artifact_type(), None);
}

#[test]
fn a_stored_manifest_tells_its_type() {
    assert_eq!(
        Manifest::sniff(image("").as_bytes()),
        Ok(MediaType::OciManifest)
    );
    assert_eq!(
        Manifest::sniff(br#"{"schemaVersion":2,"manifests":[]}"#),
        Ok(MediaType::OciIndex)
    );
    assert_eq!(
        Manifest::sniff(br#"{"schemaVersion":1}"#),
        Err(ManifestError::Schema1)
    );
    assert!(Manifest::sniff(b"").is_err());
}

#[test]
fn embedded_content_has_to_be_what_its_descriptor_says() {
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let check = |config: &str| {
        let body = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{empty}",{config}}},"layers":[{{"digest":"$D","size":0}}]}}"#
        );
        parse(&body, None).unwrap().check_embedded()
    };
    assert_eq!(check(r#""size":2"#), Ok(()));
    assert_eq!(check(r#""size":2,"data":"e30=""#), Ok(()));
    assert_eq!(check(r#""size":2,"data":null"#), Ok(()));
    for wrong in [
        r#""size":2,"data":"e31=""#,
        r#""size":3,"data":"e30=""#,
        r#""size":2,"data":"e30""#,
        r#""size":2,"data":"{}""#,
        r#""size":2,"data":"""#,
    ] {
        assert!(
            matches!(check(wrong), Err(ManifestError::Embedded { .. })),
            "{wrong}"
        );
    }
    assert!(matches!(
        check(r#""size":2,"data":7"#),
        Err(ManifestError::Json(_))
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Manifest::sniff(&bytes);
        let _ = Manifest::parse(bytes.into(), None);
    }

    #[test]
    fn what_is_accepted_is_made_of_objects(
        places in prop::collection::vec(0..4usize, 5),
        header in prop::option::of(prop::sample::select(vec![OCI, INDEX, DOCKER])),
    ) {
        let one = |i: usize| {
            let shapes = [
                r#"{"mediaType":"a/b","digest":"$D","size":1}"#,
                r#"["a/b","$D",1,[],null]"#,
                "null",
                "{}",
            ];
            shapes[places[i]]
        };
        let (config, layer, child, subject) = (one(0), one(1), one(2), one(3));
        let body = if places[4] < 2 {
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}],"subject":{subject}}}"#)
        } else {
            format!(r#"{{"schemaVersion":2,"manifests":[{child}],"subject":{subject}}}"#)
        };
        if let Ok(manifest) = parse(&body, header) {
            prop_assert_eq!(Manifest::sniff(manifest.bytes()), Ok(manifest.media_type()));
            let json: serde_json::Value = serde_json::from_slice(manifest.bytes()).unwrap();
            for list in ["layers", "manifests"] {
                let list = json[list].as_array();
                prop_assert!(list.into_iter().flatten().all(|one| one.is_object()), "{}", body);
            }
            for one in ["config", "subject"] {
                prop_assert!(json[one].is_object() || json[one].is_null(), "{}", body);
            }
        }
    }

    #[test]
    fn what_is_accepted_is_served_under_the_same_type(docker: bool, index: bool, field: bool) {
        let media_type = match (docker, index) {
            (false, false) => MediaType::OciManifest,
            (false, true) => MediaType::OciIndex,
            (true, false) => MediaType::DockerManifest,
            (true, true) => MediaType::DockerList,
        };
        let field = if field { format!(r#","mediaType":"{}""#, media_type.as_str()) } else { String::new() };
        let body = if index { format!(r#"{{"schemaVersion":2,"manifests":[]{field}}}"#) } else { image(&field) };
        if let Ok(manifest) = parse(&body, Some(media_type.as_str())) {
            prop_assert_eq!(Manifest::sniff(manifest.bytes()), Ok(media_type));
        }
    }
}
