#!/usr/bin/env bash
# A newer Docker with both of its image stores, which speak differently, and buildx with indexes, attestations and a cache in the registry.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
docker=$NEW/bin/docker
need_new dockerd docker containerd || exit 0
need runc || exit 0
# shellcheck source=tests/clients/dockerd.sh
source "$here/dockerd.sh"
if [[ -x $NEW/bin/docker-buildx ]]; then
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    ln -sf "$NEW/bin/docker-buildx" "$DOCKER_CONFIG/cli-plugins/docker-buildx"
fi
# The daemon starts its own containerd, which finds the shim beside itself.
mkdir -p "$STATE/bin"
ln -sf "$(readlink -f "$NEW/bin/dockerd")" "$(dirname "$(readlink -f "$NEW/bin/containerd")")"/* "$STATE/bin/"

multi() {
    local multi=$TLS/$app-multi:1
    wipe
    context context "$label-multi"
    "$docker" buildx build --platform linux/amd64,linux/arm64 --provenance=mode=max --push --tag "$multi" \
        --metadata-file metadata.json context
    same "digest" "$(jq -r '."containerimage.digest"' metadata.json)" "$(served "$TLS" "$app-multi" 1)"
    # Two images, and an attestation for each.
    manifest "$TLS" "$app-multi" 1 | jq -e '[.manifests[].platform.architecture] | sort == ["amd64", "arm64", "unknown", "unknown"]'
    wipe
    "$docker" pull --platform linux/arm64 "$multi"
    same "architecture" arm64 "$("$docker" image inspect --platform linux/arm64 --format '{{.Architecture}}' "$multi")"
    # In the client, so by SSL_CERT_FILE.
    SSL_CERT_FILE=$LAB/state/tls/ca.crt "$docker" buildx imagetools inspect --raw "$multi" | jq -e '.manifests | length == 4'
    SSL_CERT_FILE=$LAB/state/tls/ca.crt "$docker" buildx imagetools create --tag "$TLS/$app-multi-copy:1" "$multi"
    same "digest of the copy" "$(served "$TLS" "$app-multi" 1)" "$(served "$TLS" "$app-multi-copy" 1)"
}
cache() {
    local reference=$TLS/$app-cache:build
    wipe
    context context "$label-cache"
    "$docker" buildx build --cache-to "type=registry,ref=$reference,mode=max" --push --tag "$TLS/$app-cached:1" context
    manifest "$TLS" "$app-cache" build | jq -e '.config.mediaType // .manifests[-1].mediaType | test("buildkit.cacheconfig")'
    "$docker" buildx prune --all --force
    wipe
    "$docker" buildx build --progress plain --cache-from "type=registry,ref=$reference" --push --tag "$TLS/$app-cached:2" context 2>&1 |
        contains "the build" 'CACHED'
    # The layers are those of the first build, and were not made again.
    same "layers" "$(layers_of 1)" "$(layers_of 2)"
}
layers_of() { # TAG of the cached image; through the index that provenance makes of it
    local digest
    digest=$(manifest "$TLS" "$app-cached" "$1" | jq -r '.manifests[0].digest // empty')
    manifest "$TLS" "$app-cached" "${digest:-$1}" | jq -c '[.layers[].digest]'
}

label=28
build() { DOCKER_BUILDKIT=0 "$docker" build --quiet --network none --tag "$1" "$2" 2>/dev/null; }
if start_dockerd "$STATE/bin" overlay2; then
    docker_stories
    story "$label pushes a manifest list" manifest_list
    stop_daemons
fi

label=28c
if need_new docker-buildx; then
    build() { "$docker" buildx build --quiet --provenance=false --load --tag "$1" "$2"; }
    if start_dockerd "$STATE/bin" containerd; then
        docker_stories
        story "buildx pushes two platforms with provenance, and copies them" multi
        story "buildx keeps its cache in the registry" cache
    fi
fi
