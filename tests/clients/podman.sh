#!/usr/bin/env bash
# podman: builds, pushes, pulls, runs, searches.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
need podman runc || exit 0
# shellcheck source=tests/clients/storage.sh
source "$here/storage.sh"

build() { # NAME SEED
    rm -rf context
    mkdir -p context
    rootfs context "$2"
    printf 'FROM scratch\nCOPY bin /bin\nCOPY payload /payload\nCMD ["/bin/busybox","sha256sum","/payload"]\n' >context/Dockerfile
    podman build --isolation chroot --layers -t "$1" context
}
wipe() {
    podman rmi --all --force
    [[ -z $(podman images -q) ]] || fail "images are left after wiping"
}
run() { podman run --rm --network none --cgroup-parent "/$LAB_TAG" "$@"; }

untrusted() { refused 'x509|certificate' podman pull "$UNTRUSTED/podman/app:1"; }
push() {
    build "$TLS/podman/app:1" podman
    podman push --digestfile pushed "$TLS/podman/app:1"
    same "digest" "$(served "$TLS" podman/app 1)" "$(cat pushed)"
}
pull() {
    wipe
    podman pull "$TLS/podman/app:1"
    same "digest pulled" "$(cat pushed)" "$(podman image inspect --format '{{.Digest}}' "$TLS/podman/app:1")"
    run "$TLS/podman/app:1" | contains "payload" "^$(payload_sum podman) "
    wipe
    run "$TLS/podman/app@$(cat pushed)" | contains "payload, by digest" "^$(payload_sum podman) "
}
lists() {
    podman pull -q "$TLS/podman/app:1"
    podman tag "$TLS/podman/app:1" "$TLS/podman/app:stable"
    podman push "$TLS/podman/app:stable"
    same "tags" "1 stable" "$(podman search --list-tags "$TLS/podman/app" | awk 'NR > 1 { print $2 }' | in_order | xargs)"
    same "tags as served" "1 stable" "$(tags "$TLS" podman/app)"
    # It asks for Docker's old search first, and reads the catalog when there is none.
    podman search --format '{{.Name}}' "$TLS/podman" | contains "search" "^$TLS/podman/app$"
    wipe
    podman pull --all-tags "$TLS/podman/app"
    same "images" 2 "$(podman images --format '{{.Repository}}:{{.Tag}}' | wc -l)"
}
list() {
    local arch
    for arch in amd64 arm64; do
        rm -rf context
        mkdir -p context
        rootfs context "podman-$arch"
        printf 'FROM scratch\nCOPY bin /bin\nCOPY payload /payload\n' >context/Dockerfile
        podman build --isolation chroot --platform "linux/$arch" --manifest made-list context
    done
    podman manifest push --all --digestfile list made-list "docker://$TLS/podman/multi:1"
    manifest "$TLS" podman/multi 1 | jq -e '[.manifests[].platform.architecture] | sort == ["amd64", "arm64"]'
    same "digest of the list" "$(cat list)" "$(served "$TLS" podman/multi 1)"
    podman manifest rm made-list
    wipe
    podman pull --arch arm64 "$TLS/podman/multi:1"
    same "architecture" arm64 "$(podman image inspect --format '{{.Architecture}}' "$TLS/podman/multi:1")"
}
mount() {
    wipe
    build "$RELAY/podman/plain:1" podman-plain
    podman push --tls-verify=false "$RELAY/podman/plain:1"
    podman tag "$RELAY/podman/plain:1" "$RELAY/podman/mounted:1"
    podman push --tls-verify=false "$RELAY/podman/mounted:1"
    mounted podman/mounted
    wipe
    podman pull --tls-verify=false "$RELAY/podman/mounted:1"
    run "$RELAY/podman/mounted:1" | contains "payload" "^$(payload_sum podman-plain) "
}
delete() {
    wipe
    delete_manifest "$TLS" podman/app "$(cat pushed)"
    refused 'manifest unknown' podman pull "$TLS/podman/app:stable"
    refused 'manifest unknown' podman pull "$TLS/podman/app@$(cat pushed)"
}

story "refuses a certificate of an unknown CA" untrusted
story "builds and pushes" push
story "pulls into an empty store and runs, by tag and by digest" pull
story "lists tags, searches, pulls all tags" lists
story "pushes a list of two platforms and pulls one" list
story "pushes over plain HTTP, mounts what it knows" mount
story "is told that a deleted image is gone" delete
