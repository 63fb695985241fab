#!/usr/bin/env bash
# Python clients on the requests library: python-dxf (bare blobs and aliases) and oras-py (artifacts, chunked uploads).
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
[[ -x $VENV/bin/dxf ]] || {
    skip "python-dxf and oras: $(cat "$VENV.missing" 2>/dev/null || echo "not installed, run scripts/test-deps")"
    exit 0
}
PATH=$VENV/bin:$PATH
# requests does not read SSL_CERT_FILE.
export REQUESTS_CA_BUNDLE=$SSL_CERT_FILE DXF_HOST=$TLS

dxf_push() {
    local digest
    noise dxf-one 2000000 >one.bin
    noise dxf-two 100000 >two.bin
    digest=$(dxf push-blob python/dxf one.bin)
    same "digest of the blob" "sha256:$(sha256sum one.bin | cut -d ' ' -f 1)" "$digest"
    dxf push-blob python/dxf two.bin @small
    # A second push finds it there.
    same "digest of the blob, again" "$digest" "$(dxf push-blob python/dxf one.bin)"
    dxf set-alias python/dxf both "$digest" "$(dxf get-alias python/dxf small)"
}
dxf_pull() {
    dxf pull-blob python/dxf "sha256:$(sha256sum one.bin | cut -d ' ' -f 1)" | cmp - one.bin
    dxf pull-blob python/dxf @small | cmp - two.bin
    same "size" 2000000 "$(dxf blob-size python/dxf "sha256:$(sha256sum one.bin | cut -d ' ' -f 1)")"
    dxf get-alias python/dxf both | xargs | contains "the blobs of the alias" "$(sha256sum one.bin | cut -d ' ' -f 1).*$(sha256sum two.bin | cut -d ' ' -f 1)"
    served "$TLS" python/dxf both
}
dxf_lists() {
    same "aliases" "both small" "$(dxf list-aliases python/dxf | in_order | xargs)"
    dxf list-repos | contains "repositories" '^python/dxf$'
}
dxf_mount() {
    local digest
    export DXF_HOST=$RELAY DXF_INSECURE=1
    digest=$(dxf push-blob python/source one.bin)
    dxf mount-blob python/mounted python/source "$digest"
    mounted python/mounted
    dxf pull-blob python/mounted "$digest" | cmp - one.bin
}
dxf_delete() {
    local digest
    digest=$(served "$TLS" python/dxf both)
    dxf del-alias python/dxf both
    same "GET of the deleted manifest" 404 "$(status GET "$TLS" "/v2/python/dxf/manifests/$digest")"
    same "aliases" small "$(dxf list-aliases python/dxf)"
    digest=sha256:$(sha256sum one.bin | cut -d ' ' -f 1)
    dxf del-blob python/dxf "$digest"
    same "HEAD of the deleted blob" 404 "$(status HEAD "$TLS" "/v2/python/dxf/blobs/$digest")"
}
dxf_untrusted() { refused 'CERTIFICATE_VERIFY_FAILED' env REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt dxf list-aliases python/dxf; }

# oras-py SUBCOMMAND HOST PLAIN NAME
oras_py() { "$VENV/bin/python" "$here/oras_client.py" "$@"; }
oras_push() {
    noise orasp-one 3000000 >three.bin
    oras_py push "$TLS" python/oras:1 three.bin
    manifest "$TLS" python/oras 1 | jq -e '.layers | length == 1'
}
oras_pull() {
    rm -rf out
    oras_py pull "$TLS" python/oras:1 out
    cmp three.bin out/three.bin
    same "tags" 1 "$(oras_py tags "$TLS" python/oras)"
}
oras_chunked() { # a PATCH for each part, with Content-Range
    oras_py push-chunked "$RELAY" python/chunked:1 three.bin
    (($(relayed '^PATCH /v2/python/chunked/' | wc -l) >= 3)) || fail "not in parts: $(relayed '^PATCH /v2/python/chunked/')"
    oras_py pull "$RELAY" python/chunked:1 out-chunked
    cmp three.bin out-chunked/three.bin
}
oras_delete() {
    oras_py delete-tag "$TLS" python/oras:1
    same "GET of the tag" 404 "$(status GET "$TLS" /v2/python/oras/manifests/1)"
}

story "dxf refuses a certificate of an unknown CA" dxf_untrusted
story "dxf pushes blobs and aliases" dxf_push
story "dxf pulls them" dxf_pull
story "dxf lists aliases and repositories" dxf_lists
story "dxf mounts a blob, over plain HTTP" dxf_mount
story "dxf deletes an alias and a blob" dxf_delete
story "oras-py pushes an artifact" oras_push
story "oras-py pulls it and lists its tags" oras_pull
story "oras-py pushes in parts, over plain HTTP" oras_chunked
story "oras-py deletes what a tag names" oras_delete
