#!/usr/bin/env bash
# buildah: builds from nothing, pushes, pulls, and makes manifest lists.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
need buildah || exit 0
# shellcheck source=tests/clients/storage.sh
source "$here/storage.sh"

build() { # NAME ARCH SEED
    local container
    rootfs root "$3"
    container=$(buildah from --arch "$2" scratch)
    buildah copy "$container" root /
    buildah config --cmd '["/bin/busybox","sha256sum","/payload"]' "$container"
    buildah commit --rm "$container" "$1"
    rm -rf root
}
wipe() {
    buildah rm --all
    buildah rmi --all --force
    [[ -z $(buildah images -q) ]] || fail "images are left after wiping"
}

untrusted() {
    build app amd64 buildah
    refused 'x509|certificate' buildah push app "docker://$UNTRUSTED/buildah/app:1"
}
push() {
    buildah push --digestfile pushed app "docker://$TLS/buildah/app:1"
    same "digest" "$(served "$TLS" buildah/app 1)" "$(cat pushed)"
    buildah push app "docker://$TLS/buildah/app:2"
    same "tags" "1 2" "$(tags "$TLS" buildah/app)"
}
pull() {
    local container
    wipe
    buildah pull "docker://$TLS/buildah/app@$(cat pushed)"
    buildah pull "$TLS/buildah/app:1"
    buildah images --format '{{.Digest}}' | contains "digest pulled" "^$(cat pushed)$"
    container=$(buildah from --pull-never "$TLS/buildah/app:1")
    buildah run --isolation=chroot "$container" /bin/busybox sha256sum /payload | contains "payload" "^$(payload_sum buildah) "
}
dockerfile() {
    mkdir -p context
    rootfs context buildah-file
    printf 'FROM %s\nCOPY payload /second\nLABEL made=here\n' "$TLS/buildah/app:1" >context/Dockerfile
    wipe
    # Its base comes from the registry, the result goes there in Docker's format.
    buildah build --isolation=chroot --layers --tag "$TLS/buildah/built:1" context
    buildah push --format v2s2 --digestfile built "$TLS/buildah/built:1"
    same "digest" "$(served "$TLS" buildah/built 1)" "$(cat built)"
    manifest "$TLS" buildah/built 1 | jq -e '.layers | length == 2'
}
list() {
    local arch
    wipe
    for arch in amd64 arm64; do build "made-$arch" "$arch" "buildah-$arch"; done
    buildah manifest create both made-amd64 made-arm64
    buildah manifest push --all --digestfile list both "docker://$TLS/buildah/multi:1"
    manifest "$TLS" buildah/multi 1 | jq -e '[.manifests[].platform.architecture] | sort == ["amd64", "arm64"]'
    same "digest of the list" "$(cat list)" "$(served "$TLS" buildah/multi 1)"
    wipe
    buildah pull --arch arm64 "$TLS/buildah/multi:1"
    same "architecture" arm64 "$(buildah inspect --type image --format '{{.OCIv1.Architecture}}' "$TLS/buildah/multi:1")"
}
mount() {
    wipe
    build plain amd64 buildah-plain
    buildah push --tls-verify=false plain "docker://$RELAY/buildah/plain:1"
    buildah push --tls-verify=false plain "docker://$RELAY/buildah/mounted:1"
    mounted buildah/mounted
    wipe
    buildah pull --tls-verify=false "$RELAY/buildah/mounted:1"
    buildah images --format '{{.Digest}}' | contains "digest pulled" "^$(served "$RELAY" buildah/mounted 1)$"
}
delete() {
    wipe
    delete_manifest "$TLS" buildah/app "$(cat pushed)"
    refused 'manifest unknown' buildah pull "$TLS/buildah/app:1"
}

story "refuses a certificate of an unknown CA" untrusted
story "pushes an image made from nothing" push
story "pulls it into an empty store and runs in it" pull
story "builds on a base from the registry" dockerfile
story "pushes a list of two platforms and pulls one" list
story "pushes over plain HTTP, mounts what it knows" mount
story "is told that a deleted image is gone" delete
