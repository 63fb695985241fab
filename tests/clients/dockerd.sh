# shellcheck shell=bash
# A Docker daemon without systemd, and the stories that every version of it tells. The caller sets:
#   label     what stories begin with, and repositories end with
#   docker    the client
#   build NAME FOLDER    makes an image of it, in that daemon
: "${label=}" "${docker:?}"
engine_trust
export DOCKER_CONFIG=$STATE/config
mkdir -p "$DOCKER_CONFIG"

# start_dockerd FOLDER-OF-BINARIES STORE: "overlay2" (Docker's own) or "containerd"
start_dockerd() {
    local root=$STATE/$label
    mkdir -p "$root"
    if [[ $2 == containerd ]]; then
        printf '{"features":{"containerd-snapshotter":true}}' >"$root/daemon.json"
    else
        printf '{"storage-driver":"overlay2"}' >"$root/daemon.json"
    fi
    # Short, as paths of sockets are.
    socket=/run/$label.sock
    export DOCKER_HOST=unix://$socket
    PATH=$1:$PATH background "dockerd-$label" "$1/dockerd" --config-file "$root/daemon.json" --data-root "$root/root" --exec-root "/run/$label" \
        --pidfile "/run/$label.pid" -H "$DOCKER_HOST" --iptables=false --ip6tables=false --bridge=none --cgroup-parent "/$LAB_TAG" --log-level warn
    if ! wait_for 30 "$docker" version; then
        report FAIL "$label starts" "" "$LAB/logs/$FAMILY-dockerd-$label.log"
        return 1
    fi
}

wipe() {
    "$docker" system prune --all --force --volumes >/dev/null
    "$docker" image ls -q | sort -u | xargs --no-run-if-empty "$docker" image rm --force >/dev/null
    [[ -z $("$docker" image ls -q) ]] || fail "images are left after wiping"
}
context() { # FOLDER SEED [SIZE]
    rm -rf "$1"
    rootfs "$1" "$2" "${3-}"
    printf 'FROM scratch\nCOPY bin /bin\nCOPY payload /payload\nCMD ["/bin/busybox","sha256sum","/payload"]\n' >"$1/Dockerfile"
}
run() { "$docker" run --rm --network none "$@"; }
# push REFERENCE: prints the digest that the daemon says it pushed.
push() { "$docker" push "$1" | tee "$STATE/push.log" | sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p'; }
repository_digest() { "$docker" image inspect --format '{{join .RepoDigests "\n"}}' "$1" | grep "^${1%:*}@"; }

untrusted() { refused 'x509|certificate' "$docker" pull "$UNTRUSTED/$app:1"; }
push_app() {
    context context "$label"
    build "$TLS/$app:1" context
    push "$TLS/$app:1" >pushed
    same "digest" "$(served "$TLS" "$app" 1)" "$(cat pushed)"
}
pull_app() {
    wipe
    "$docker" pull "$TLS/$app:1"
    same "digest pulled" "$TLS/$app@$(cat pushed)" "$(repository_digest "$TLS/$app:1")"
    run "$TLS/$app:1" | contains "payload" "^$(payload_sum "$label") "
    "$docker" pull "$TLS/$app:1" | contains "a second pull" 'Image is up to date'
    wipe
    "$docker" pull "$TLS/$app@$(cat pushed)"
    run "$TLS/$app@$(cat pushed)" | contains "payload, by digest" "^$(payload_sum "$label") "
}
tag_app() {
    local tag
    wipe
    "$docker" pull -q "$TLS/$app:1"
    for tag in 1.0 latest; do
        "$docker" tag "$TLS/$app:1" "$TLS/$app:$tag"
        same "digest of $tag" "$(cat pushed)" "$(push "$TLS/$app:$tag")"
    done
    same "tags" "1 1.0 latest" "$(tags "$TLS" "$app")"
    wipe
    "$docker" pull --all-tags "$TLS/$app"
    same "images" 3 "$("$docker" image ls --format '{{.Tag}}' "$TLS/$app" | sort -u | wc -l)"
    "$docker" tag "$TLS/$app:1" "$TLS/$app:extra"
    "$docker" push --all-tags "$TLS/$app"
    same "tags" "1 1.0 extra latest" "$(tags "$TLS" "$app")"
}
plain_app() {
    wipe
    context context "$label-plain"
    build "$RELAY/$app-plain:1" context
    push "$RELAY/$app-plain:1" >plain
    same "digest" "$(served "$RELAY" "$app-plain" 1)" "$(cat plain)"
    "$docker" tag "$RELAY/$app-plain:1" "$RELAY/$app-mounted:1"
    push "$RELAY/$app-mounted:1" >mounted
    contains "what the push says" 'Mounted from' <push.log
    mounted "$app-mounted"
    wipe
    "$docker" pull "$RELAY/$app-mounted:1"
    same "digest pulled" "$RELAY/$app-mounted@$(cat mounted)" "$(repository_digest "$RELAY/$app-mounted:1")"
    run "$RELAY/$app-mounted:1" | contains "payload" "^$(payload_sum "$label-plain") "
}
manifest_list() {
    local arch list=$TLS/$app-multi:1
    # The client itself speaks to the registry here.
    export SSL_CERT_FILE=$LAB/state/tls/ca.crt
    wipe
    for arch in amd64 arm64; do
        context "context-$arch" "$label-$arch"
        build "$TLS/$app-multi:$arch" "context-$arch"
        push "$TLS/$app-multi:$arch"
    done
    "$docker" manifest create "$list" "$TLS/$app-multi:amd64" "$TLS/$app-multi:arm64"
    "$docker" manifest annotate --arch arm64 "$list" "$TLS/$app-multi:arm64"
    same "digest" "$("$docker" manifest push --purge "$list" | tail -n 1)" "$(served "$TLS" "$app-multi" 1)"
    manifest "$TLS" "$app-multi" 1 | jq -e '[.manifests[].platform.architecture] | sort == ["amd64", "arm64"]'
    wipe
    "$docker" pull "$list"
    run "$list" | contains "payload" "^$(payload_sum "$label-$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')") "
}
resume_app() {
    wipe
    context context "$label-cut" 6000000
    build "$RELAY/$FAMILY/cut/$label:1" context
    push "$RELAY/$FAMILY/cut/$label:1"
    wipe
    "$docker" pull "$RELAY/$FAMILY/cut/$label:1"
    resumed "$FAMILY/cut/$label"
    run "$RELAY/$FAMILY/cut/$label:1" | contains "payload" "^$(payload_sum "$label-cut" 6000000) "
}
delete_app() {
    wipe
    delete_manifest "$TLS" "$app" "$(cat pushed)"
    refused 'manifest unknown|not found' "$docker" pull "$TLS/$app:1"
    refused 'manifest unknown|not found' "$docker" pull "$TLS/$app@$(cat pushed)"
    # And it can come back.
    context context "$label"
    build "$TLS/$app:1" context
    push "$TLS/$app:1" >pushed
    wipe
    "$docker" pull "$TLS/$app@$(cat pushed)"
}

docker_stories() {
    app=$FAMILY/app-$label
    story "$label refuses a certificate of an unknown CA" untrusted
    story "$label builds and pushes" push_app
    story "$label pulls into an empty store and runs, by tag and by digest" pull_app
    story "$label pushes and pulls many tags" tag_app
    story "$label pushes over plain HTTP and mounts what it knows" plain_app
    story "$label goes on where a download was cut off" resume_app
    story "$label is told that a deleted image is gone, and pushes it again" delete_app
}
