#!/usr/bin/env bash
# crane (go-containerregistry): HTTP/2 over TLS, HEAD before every push, PATCH with a length.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
need_new crane || exit 0
PATH=$NEW/bin:$PATH

layer() { # NAME SEED [SIZE]
    rootfs "$STATE/$1" "$2" "${3:-1500000}"
    tar -C "$STATE/$1" --sort=name --mtime=@0 --owner=0 --group=0 -cf "$STATE/$1.tar" .
}

push() {
    local printed
    layer first crane-first
    layer second crane-second 300000
    printed=$(crane append -f first.tar -f second.tar -t "$TLS/crane/app:1")
    same "digest" "$TLS/crane/app@$(served "$TLS" crane/app 1)" "$printed"
    same "crane digest" "$(served "$TLS" crane/app 1)" "$(crane digest "$TLS/crane/app:1")"
}
untrusted() { refused 'x509|certificate' untrusting crane manifest "$TLS/crane/app:1"; }
pull() {
    local dir=$STATE/pulled
    crane pull --format=oci "$TLS/crane/app:1" "$dir"
    same "digest in the layout" "$(served "$TLS" crane/app 1)" "$(jq -r '.manifests[0].digest' "$dir/index.json")"
    crane export "$TLS/crane/app:1" - | tar -xf - -O payload | sha256sum | contains "payload" "^$(payload_sum crane-second 300000) "
    crane validate --remote "$TLS/crane/app:1"
    crane config "$TLS/crane/app:1" | jq -e '.rootfs.diff_ids | length == 2'
}
again() {
    local before
    before=$(served "$TLS" crane/app 1)
    crane push pulled "$TLS/crane/again:1"
    same "digest pushed back" "$before" "$(served "$TLS" crane/again 1)"
}
lists() {
    crane tag "$TLS/crane/app:1" stable
    crane tag "$TLS/crane/app:1" v1.0
    same "tags" "1 stable v1.0" "$(crane ls "$TLS/crane/app" | in_order | xargs)"
    same "tags as served" "1 stable v1.0" "$(tags "$TLS" crane/app)"
    crane catalog "$TLS" | contains "catalog" '^crane/app$'
}
mount_and_copy() {
    crane append --insecure -f first.tar -t "$RELAY/crane/source:1"
    crane --insecure cp "$RELAY/crane/source:1" "$RELAY/crane/copy:1"
    mounted crane/copy
    same "digest of the copy" "$(served "$RELAY" crane/source 1)" "$(served "$RELAY" crane/copy 1)"
    crane --insecure validate --remote "$RELAY/crane/copy:1"
}
index() {
    local index
    crane append -f first.tar --platform linux/amd64 -t "$TLS/crane/multi:amd64"
    crane append -f second.tar --platform linux/arm64 -t "$TLS/crane/multi:arm64"
    crane mutate --set-platform linux/amd64 "$TLS/crane/multi:amd64" -t "$TLS/crane/multi:amd64"
    crane mutate --set-platform linux/arm64 "$TLS/crane/multi:arm64" -t "$TLS/crane/multi:arm64"
    index=$(crane index append -m "$TLS/crane/multi:amd64" -m "$TLS/crane/multi:arm64" -t "$TLS/crane/multi:latest")
    same "digest of the index" "$TLS/crane/multi@$(served "$TLS" crane/multi latest)" "$index"
    crane manifest "$TLS/crane/multi:latest" | jq -e '.manifests | length == 2'
    same "the arm64 child" "$(served "$TLS" crane/multi arm64)" "$(crane digest --platform linux/arm64 "$TLS/crane/multi:latest")"
    crane export --platform linux/arm64 "$TLS/crane/multi:latest" - | tar -xf - -O payload | sha256sum | contains "arm64 payload" "^$(payload_sum crane-second 300000) "
    crane cp "$TLS/crane/multi:latest" "$TLS/crane/multi-copy:latest"
    same "digest of the copied index" "$(served "$TLS" crane/multi latest)" "$(served "$TLS" crane/multi-copy latest)"
    crane validate --remote "$TLS/crane/multi-copy:latest"
}
delete() {
    local digest
    digest=$(served "$TLS" crane/again 1)
    crane delete "$TLS/crane/again@$digest"
    refused 'MANIFEST_UNKNOWN|404' crane manifest "$TLS/crane/again@$digest"
    refused 'MANIFEST_UNKNOWN|404' crane pull "$TLS/crane/again:1" gone.tar
    # What another repository still has is untouched.
    crane validate --remote "$TLS/crane/app:1"
}
delete_tag() {
    crane delete "$TLS/crane/app:stable"
    same "tags" "1 v1.0" "$(tags "$TLS" crane/app)"
    crane validate --remote "$TLS/crane/app:1"
}
plain_beside_tls() {
    # curl, since crane only speaks plain HTTP to names that it takes for local.
    same "GET /v2/ in the clear" 200 "$(curl -sS -o /dev/null -w '%{http_code}' "http://$TLS/v2/")"
    curl -fsS -H "Accept: $manifest_types" "http://$TLS/v2/crane/app/manifests/1" | sha256sum | contains "the manifest" "^$(served "$TLS" crane/app 1 | cut -d : -f 2) "
}

story "refuses a certificate of an unknown CA" untrusted
story "pushes two layers" push
story "pulls, exports and validates what it pushed" pull
story "pushes a pulled layout to another repository" again
story "tags, lists tags and the catalog" lists
story "mounts blobs when it copies, over plain HTTP" mount_and_copy
story "pushes, resolves and copies an index of two platforms" index
story "deletes by digest" delete
our_story "deletes a tag and leaves the manifest" delete_tag
our_story "serves plain HTTP on the port of TLS" plain_beside_tls
