#!/usr/bin/env bash
# containerd and its ctr, Debian's 1.6 and a newer one: CA by hosts.toml, a whole layer in one PUT, and (newer) layers fetched in parallel ranges.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"

multi_platform_archive() { # OCI layout of two platforms as a tar; also leaves its digest in index.digest
    local layout=$STATE/layout arch blob manifests=()
    blob() { # FILE: into the layout, prints "digest size"
        local sum
        sum=$(sha256sum "$1" | cut -d ' ' -f 1)
        cp "$1" "$layout/blobs/sha256/$sum"
        printf 'sha256:%s %s' "$sum" "$(stat -c %s "$1")"
    }
    mkdir -p "$layout/blobs/sha256"
    for arch in amd64 arm64; do
        rootfs "root-$arch" "containerd-$arch"
        tar -C "root-$arch" --sort=name --mtime=@0 --owner=0 --group=0 -cf "$arch.tar" .
        gzip -n1 <"$arch.tar" >"$arch.tar.gz"
        read -r layer layer_size <<<"$(blob "$arch.tar.gz")"
        jq -nc --arg arch "$arch" --arg diff "sha256:$(sha256sum "$arch.tar" | cut -d ' ' -f 1)" \
            '{architecture: $arch, os: "linux", config: {Cmd: ["/bin/busybox", "sha256sum", "/payload"]}, rootfs: {type: "layers", diff_ids: [$diff]}}' >"$arch.config"
        read -r config config_size <<<"$(blob "$arch.config")"
        jq -nc --arg config "$config" --argjson config_size "$config_size" --arg layer "$layer" --argjson layer_size "$layer_size" \
            '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
              config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $config, size: $config_size},
              layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: $layer, size: $layer_size}]}' >"$arch.manifest"
        read -r digest size <<<"$(blob "$arch.manifest")"
        manifests+=("$(jq -nc --arg digest "$digest" --argjson size "$size" --arg arch "$arch" \
            '{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $digest, size: $size, platform: {architecture: $arch, os: "linux"}}')")
    done
    printf '%s\n' "${manifests[@]}" | jq -sc '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: .}' >index.multi
    read -r digest size <<<"$(blob index.multi)"
    printf '%s' "$digest" >index.digest
    jq -nc --arg digest "$digest" --argjson size "$size" \
        '{schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.index.v1+json", digest: $digest, size: $size,
          annotations: {"io.containerd.image.name": "made.here/multi:1", "org.opencontainers.image.ref.name": "1"}}]}' >"$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar -C "$layout" -cf multi.tar .
}

start() { # VERSION DIRECTORY-OF-BINARIES
    version=$1
    root=$STATE/$version
    # Short, as paths of sockets are.
    socket=/run/containerd-$version.sock
    mkdir -p "$root"
    cat >"$root/config.toml" <<END
version = 2
root = "$root/root"
state = "$root/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$socket"
[plugins."io.containerd.transfer.v1.local"]
  config_path = "$root/hosts"
  max_concurrent_downloads = 3
  $([[ $version == 1.6 ]] || echo 'concurrent_layer_fetch_buffer = 1048576')
END
    # 1.6 heeds the CA of a [host] block only.
    mkdir -p "$root/hosts/$TLS"
    printf 'server = "https://%s"\n[host."https://%s"]\n  capabilities = ["pull", "resolve", "push"]\n  ca = "%s"\n' "$TLS" "$TLS" "$SSL_CERT_FILE" >"$root/hosts/$TLS/hosts.toml"
    # As an administrator would say that a registry has no TLS.
    mkdir -p "$root/hosts/$RELAY"
    printf 'server = "http://%s"\n[host."http://%s"]\n  capabilities = ["pull", "resolve", "push"]\n' "$RELAY" "$RELAY" >"$root/hosts/$RELAY/hosts.toml"
    # Its system pool must not know our CA by chance.
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PATH=$2:$PATH background "containerd-$version" "$2/containerd" -c "$root/config.toml" --log-level warn
    ctr() { SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$directory/ctr" -a "$socket" -n "$LAB_TAG" "$@"; }
    directory=$2
    wait_for 15 ctr version
}
wipe() {
    local image
    for image in $(ctr images ls -q); do ctr images rm --sync "$image"; done
    [[ -z $(ctr content ls -q) ]] || fail "content is left after wiping: $(ctr content ls -q)"
}
target() { ctr images ls "name==$1" | awk 'NR == 2 { print $3 }'; }

untrusted() {
    ctr images import --all-platforms --no-unpack multi.tar
    ctr images tag --force made.here/multi:1 "$UNTRUSTED/containerd/multi:1"
    refused 'x509|certificate' ctr images push "$UNTRUSTED/containerd/multi:1"
}
push() {
    ctr images import --all-platforms --no-unpack multi.tar
    ctr images tag --force made.here/multi:1 "$TLS/containerd/multi-$version:1"
    ctr images push --hosts-dir "$root/hosts" "$TLS/containerd/multi-$version:1"
    same "digest" "$(cat index.digest)" "$(served "$TLS" "containerd/multi-$version" 1)"
    same "tags" 1 "$(tags "$TLS" "containerd/multi-$version")"
}
pull_all() {
    wipe
    ctr images pull --hosts-dir "$root/hosts" --all-platforms "$TLS/containerd/multi-$version:1"
    same "digest" "$(cat index.digest)" "$(target "$TLS/containerd/multi-$version:1")"
    # Both platforms' manifests, configurations and layers, and the index.
    same "objects" 7 "$(ctr content ls -q | wc -l)"
    wipe
    ctr images pull --hosts-dir "$root/hosts" --platform linux/arm64 "$TLS/containerd/multi-$version@$(cat index.digest)"
    ctr content ls -q | contains "the layer of arm64" "$(sha256sum arm64.tar.gz | cut -d ' ' -f 1)"
    content=$(ctr content ls -q)
    if [[ $content == *"$(sha256sum amd64.tar.gz | cut -d ' ' -f 1)"* ]]; then fail "the layer of amd64 came along"; fi
    return 0
}
run() {
    local arch
    arch=$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
    wipe
    ctr images pull --hosts-dir "$root/hosts" "$TLS/containerd/multi-$version:1"
    ctr run --rm --cgroup "/$LAB_TAG/$version" "$TLS/containerd/multi-$version:1" "run-$version" | contains "payload" "^$(payload_sum "containerd-$arch") "
}
plain() {
    local image
    wipe
    ctr images import --all-platforms --no-unpack multi.tar
    image=$RELAY/containerd/plain-$version:1
    ctr images tag made.here/multi:1 "$image"
    ctr images push --plain-http "$image"
    same "digest" "$(cat index.digest)" "$(served "$RELAY" "containerd/plain-$version" 1)"
    wipe
    ctr images pull --plain-http --all-platforms "$image"
    # It knows now where these blobs came from, and offers that to the registry.
    ctr images tag "$image" "$RELAY/containerd/mounted-$version:1"
    ctr images push --plain-http "$RELAY/containerd/mounted-$version:1"
    same "digest" "$(cat index.digest)" "$(served "$RELAY" "containerd/mounted-$version" 1)"
    mounted "containerd/mounted-$version"
}
delete() {
    wipe
    delete_manifest "$TLS" "containerd/multi-$version" "$(cat index.digest)"
    refused 'not found|http.StatusNotFound' ctr images pull --hosts-dir "$root/hosts" "$TLS/containerd/multi-$version:1"
    refused 'not found|http.StatusNotFound' ctr images pull --hosts-dir "$root/hosts" "$TLS/containerd/multi-$version@$(cat index.digest)"
}
ranges() { # a large layer, in several requests at once
    local image=$RELAY/containerd/ranges:1 blob
    wipe
    rootfs big containerd-big 9000000
    tar -C big -cf big.tar .
    "$NEW/bin/crane" append --insecure -f big.tar -t "$image" >/dev/null
    blob=$(manifest "$RELAY" containerd/ranges 1 | jq -r '.layers[0].digest')
    ctr images pull --local=false --hosts-dir "$root/hosts" "$image"
    ctr content ls -q | contains "the layer" "$blob"
    (($(relayed "^GET /v2/containerd/ranges/blobs/$blob.* range=bytes=[1-9][0-9]*-.* 206$" | wc -l) >= 2)) || fail "no parallel ranges: $(relayed ranges/blobs)"
    ctr content get "$blob" | sha256sum | contains "the layer's bytes" "^${blob#sha256:} "
}
resume() {
    local image=$RELAY/containerd/cut/$version:1 blob
    wipe
    noise "containerd-cut-$version" 5000000 >cut.bin
    tar -cf cut.tar cut.bin
    "$NEW/bin/crane" append --insecure -f cut.tar -t "$image" >/dev/null
    blob=$(manifest "$RELAY" "containerd/cut/$version" 1 | jq -r '.layers[0].digest')
    ctr images pull --plain-http "$image"
    ctr content get "$blob" | sha256sum | contains "the layer's bytes" "^${blob#sha256:} "
    resumed "containerd/cut/$version"
}
plain_beside_tls() {
    wipe
    ctr images pull --plain-http --all-platforms "$TLS/containerd/multi-$version:1"
    same "digest" "$(cat index.digest)" "$(target "$TLS/containerd/multi-$version:1")"
}

stories() {
    story "$version refuses a certificate of an unknown CA" untrusted
    story "$version pushes an index of two platforms" push
    story "$version pulls all platforms, and one, after wiping its store" pull_all
    our_story "$version speaks plain HTTP to the port of TLS" plain_beside_tls
    story "$version pulls and runs a container" run
    story "$version pushes and pulls over plain HTTP, mounts what it knows" plain
    if [[ ! -x $NEW/bin/crane ]]; then
        skip "$version, ranged downloads: no crane to make their image with"
    elif [[ $version == 1.6 ]]; then
        story "$version goes on where a download was cut off" resume
    else
        story "$version fetches one layer in parallel ranges" ranges
    fi
    story "$version is told that a deleted image is gone" delete
}

multi_platform_archive
if need containerd ctr runc; then
    start 1.6 /usr/bin
    stories
    stop_daemons
fi
if need_new containerd && need runc; then
    start 2.1 "$(dirname "$(readlink -f "$NEW/bin/containerd")")"
    stories
    stop_daemons
fi
