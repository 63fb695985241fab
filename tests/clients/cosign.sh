#!/usr/bin/env bash
# cosign, with a key and without any service: signatures and attestations as referrers, and as tags of the older form.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
need_new cosign crane || exit 0
PATH=$NEW/bin:$PATH
export COSIGN_PASSWORD=only-for-this-test
# Without these it waits for a browser, a transparency log or a time-stamp service.
quiet=(--key cosign.pub --insecure-ignore-tlog)

prepare() {
    rootfs root cosign
    tar -C root -cf root.tar .
    crane append -f root.tar -t "$TLS/cosign/app:1"
    cosign generate-key-pair
    cosign generate-key-pair --output-key-prefix other
    cosign signing-config create --out services.json
}
image() { printf '%s/cosign/%s@%s' "$TLS" "${1-app}" "$(served "$TLS" "cosign/${1-app}" 1)"; }

sign() {
    cosign sign -y --key cosign.key --signing-config services.json "$(image)"
    cosign verify "${quiet[@]}" "$(image)" >verified.json
    contains "the verified digest" "$(served "$TLS" cosign/app 1)" <verified.json
    refused 'no (matching )?signatures|invalid signature|verif' cosign verify --key other.pub --insecure-ignore-tlog "$(image)"
}
api() {
    curl -fsS "https://$TLS/v2/cosign/app/referrers/$(served "$TLS" cosign/app 1)" |
        jq -e '.manifests | length == 1 and (.[0].artifactType | test("sigstore"))'
    same "tags" 1 "$(tags "$TLS" cosign/app)"
}
attest() {
    printf '{"built":"here"}\n' >predicate.json
    cosign attest -y --key cosign.key --signing-config services.json --type custom --predicate predicate.json "$(image)"
    cosign verify-attestation "${quiet[@]}" --type custom "$(image)" >attested.json
    contains "the attestation" payload <attested.json
    # The signature is still found beside it.
    cosign verify "${quiet[@]}" "$(image)"
}
sign_by_tag() {
    crane cp "$TLS/cosign/app:1" "$TLS/cosign/old:1"
    cosign sign -y --key cosign.key --use-signing-config=false --new-bundle-format=false --tlog-upload=false "$(image old)"
    tags "$TLS" cosign/old | contains "tags" "sha256-$(served "$TLS" cosign/old 1 | cut -d : -f 2)\.sig"
    cosign verify "${quiet[@]}" --new-bundle-format=false "$(image old)"
}
unsigned() {
    rootfs bare cosign-bare 4000
    tar -C bare -cf bare.tar .
    crane append -f bare.tar -t "$TLS/cosign/bare:1"
    refused 'no (matching )?signatures|none of the' cosign verify "${quiet[@]}" "$(image bare)"
}
untrusted() { refused 'x509|certificate' untrusting cosign verify "${quiet[@]}" "$(image)"; }
delete() {
    delete_manifest "$TLS" cosign/app "$(served "$TLS" cosign/app 1)"
    refused '404|MANIFEST_UNKNOWN|not found' cosign verify "${quiet[@]}" "$TLS/cosign/app:1"
    # The copy in another repository, with its own signature, stays.
    cosign verify "${quiet[@]}" --new-bundle-format=false "$(image old)"
}

story "makes keys and an image to sign" prepare
story "signs an image and verifies it, with the right key only" sign
our_story "stores the signature as a referrer, and no tag" api
story "attests and verifies the attestation" attest
story "signs by the older tag scheme" sign_by_tag
story "says that an image is not signed" unsigned
story "refuses a certificate of an unknown CA" untrusted
story "deletes the signed image" delete
