#!/usr/bin/env bash
# notation (Notary Project), with a certificate made for the test: signatures as referrers.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
need_new notation crane || exit 0
PATH=$NEW/bin:$PATH
export XDG_CONFIG_HOME=$STATE/config XDG_CACHE_HOME=$STATE/cache HOME=$STATE

# policy STORE: whose signatures count. Nobody can be asked whether a certificate made here was revoked.
policy() {
    cat >policy.json <<JSON
{"version":"1.0","trustPolicies":[{"name":"lab","registryScopes":["*"],
 "signatureVerification":{"level":"strict","override":{"revocation":"skip"}},
 "trustStores":["ca:$1"],"trustedIdentities":["*"]}]}
JSON
    notation policy import --force policy.json
}
prepare() {
    rootfs root notation
    tar -C root -cf root.tar .
    crane append -f root.tar -t "$TLS/notation/app:1"
    notation cert generate-test --default registry.test
    notation cert generate-test other.test
    policy registry.test
}
image() { printf '%s/notation/app@%s' "$TLS" "$(served "$TLS" notation/app 1)"; }

sign() {
    refused 'no signature' notation verify "$(image)"
    notation sign --force-referrers-tag=false "$(image)"
    notation verify "$(image)" | contains "the verdict" 'Successfully verified'
    notation ls "$(image)" | contains "the list" 'vnd.cncf.notary.signature'
    policy other.test
    refused 'signature verification failed' notation verify "$(image)"
    policy registry.test
}
api() {
    curl -fsS "https://$TLS/v2/notation/app/referrers/$(served "$TLS" notation/app 1)" |
        jq -e '.manifests | length == 1 and .[0].artifactType == "application/vnd.cncf.notary.signature"'
    same "tags" 1 "$(tags "$TLS" notation/app)"
}
# What it does unless told otherwise: an index under a tag made of the digest, which has to do no harm to the list of the API.
by_tag() {
    notation sign --key other.test --user-metadata stage=two "$(image)"
    tags "$TLS" notation/app | contains "tags" 'sha256-[0-9a-f]{64}'
    same "signatures" 2 "$(notation ls "$(image)" | grep -c ' sha256:')"
    notation verify "$(image)"
}
untrusted() { refused 'x509|certificate' untrusting notation ls "$(image)"; }
delete() {
    local image
    image=$(image)
    delete_manifest "$TLS" notation/app "${image#*@}"
    refused 'not found|404|does not exist' notation verify "$image"
}

story "makes keys and an image to sign" prepare
story "signs an image and verifies it, with the right certificate only" sign
our_story "stores the signature as a referrer, and no tag" api
story "signs it a second time, with a tag for the referrers" by_tag
story "refuses a certificate of an unknown CA" untrusted
story "deletes the signed image" delete
