#!/usr/bin/env bash
# Every client logs in with a password (Basic, over TLS), pushes, pulls and logs out; with a wrong one it says what it always says.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
engine_trust

rootfs image login
tar -C image --sort=name --mtime=@0 --owner=0 --group=0 -cf image.tar .
# pushed REPOSITORY: it is there, for whoever has the password.
pushed() { curl -fsS -o /dev/null -u lab:secret -H "Accept: $manifest_types" "https://$LOGIN/v2/$1/manifests/1"; }

# What docker, podman and skopeo have in common.
wrong_password() { echo wrong | refused 'nauthorized|invalid username/password' "$@" login --username lab --password-stdin "$LOGIN"; }
log_in() { echo secret | "$@" login --username lab --password-stdin "$LOGIN"; }

docker_story() {
    "$docker" import image.tar "$LOGIN/login/docker:1"
    refused 'no basic auth credentials|unauthorized|authentication required' "$docker" push "$LOGIN/login/docker:1"
    wrong_password "$docker"
    log_in "$docker"
    "$docker" push "$LOGIN/login/docker:1"
    pushed login/docker
    "$docker" image rm "$LOGIN/login/docker:1"
    "$docker" pull "$LOGIN/login/docker:1"
    "$docker" logout "$LOGIN"
    "$docker" image rm "$LOGIN/login/docker:1"
    refused 'no basic auth credentials|unauthorized|authentication required' "$docker" pull "$LOGIN/login/docker:1"
}
podman_story() {
    podman import image.tar "$LOGIN/login/podman:1"
    refused 'unauthorized|authentication required' podman push "$LOGIN/login/podman:1"
    wrong_password podman
    log_in podman
    podman push "$LOGIN/login/podman:1"
    pushed login/podman
    podman pull "$LOGIN/login/podman:1"
    podman logout "$LOGIN"
    refused 'unauthorized|authentication required' podman pull "$LOGIN/login/podman:1"
}
skopeo_story() {
    refused 'unauthorized|authentication required' skopeo inspect "docker://$LOGIN/login/skopeo:1"
    wrong_password skopeo
    log_in skopeo
    # An image of another story, or of none, is as good: what counts is who may write it.
    skopeo copy "docker://$TLS/login/source:1" "docker://$LOGIN/login/skopeo:1"
    skopeo inspect "docker://$LOGIN/login/skopeo:1"
    skopeo list-tags "docker://$LOGIN/login/skopeo" | jq -e '.Tags == ["1"]'
    skopeo logout "$LOGIN"
    refused 'unauthorized|authentication required' skopeo inspect "docker://$LOGIN/login/skopeo:1"
}
crane_story() {
    export SSL_CERT_FILE=$LAB/state/tls/ca.crt DOCKER_CONFIG=$STATE/crane
    mkdir -p "$DOCKER_CONFIG"
    refused 'UNAUTHORIZED' "$NEW/bin/crane" manifest "$LOGIN/login/crane:1"
    echo wrong | "$NEW/bin/crane" auth login --username lab --password-stdin "$LOGIN"
    refused 'UNAUTHORIZED' "$NEW/bin/crane" manifest "$LOGIN/login/crane:1"
    echo secret | "$NEW/bin/crane" auth login --username lab --password-stdin "$LOGIN"
    "$NEW/bin/crane" append -f image.tar -t "$LOGIN/login/crane:1"
    "$NEW/bin/crane" validate --remote "$LOGIN/login/crane:1"
    "$NEW/bin/crane" auth logout "$LOGIN"
    refused 'UNAUTHORIZED' "$NEW/bin/crane" manifest "$LOGIN/login/crane:1"
}
oras_story() {
    export SSL_CERT_FILE=$LAB/state/tls/ca.crt DOCKER_CONFIG=$STATE/oras
    mkdir -p "$DOCKER_CONFIG"
    echo wrong | refused 'unauthorized' "$NEW/bin/oras" login --username lab --password-stdin "$LOGIN"
    echo secret | "$NEW/bin/oras" login --username lab --password-stdin "$LOGIN"
    "$NEW/bin/oras" push "$LOGIN/login/oras:1" image.tar
    "$NEW/bin/oras" manifest fetch "$LOGIN/login/oras:1" | jq -e '.layers | length == 1'
    "$NEW/bin/oras" logout "$LOGIN"
    refused 'basic credential not found|unauthorized' "$NEW/bin/oras" manifest fetch "$LOGIN/login/oras:1"
}

# A first image for skopeo to copy, by the registry that asks for no password.
source_image() {
    local file sum size layers=()
    for file in image.tar config.json; do
        [[ $file != config.json ]] || printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$sum" >config.json
        sum=$(sha256sum $file | cut -d ' ' -f 1)
        size=$(stat -c %s $file)
        layers+=("\"digest\":\"sha256:$sum\",\"size\":$size")
        curl -fsS -X POST -H 'Content-Type: application/octet-stream' --data-binary @$file "https://$TLS/v2/login/source/blobs/uploads/?digest=sha256:$sum"
    done
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}]}' \
        "${layers[1]}" "${layers[0]}" >manifest.json
    curl -fsS -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @manifest.json "https://$TLS/v2/login/source/manifests/1"
}

if need dockerd docker containerd runc; then
    docker=/usr/bin/docker label=login-docker
    # shellcheck source=tests/clients/dockerd.sh
    source "$here/dockerd.sh"
    if start_dockerd /usr/sbin overlay2; then
        story "docker logs in, pushes, pulls and logs out" docker_story
    fi
fi
if need podman runc; then
    # shellcheck source=tests/clients/storage.sh
    source "$here/storage.sh"
    story "podman logs in, pushes, pulls and logs out" podman_story
fi
if need skopeo && [[ $REGISTRY_KIND == ours ]]; then
    source_image >/dev/null
    story "skopeo logs in, copies, inspects and logs out" skopeo_story
fi
if need_new crane; then story "crane logs in, pushes, reads and logs out" crane_story; fi
if need_new oras; then story "oras logs in, pushes, reads and logs out" oras_story; fi
