#!/usr/bin/env bash
# Debian's Docker 20.10: one connection a request, one chunked PATCH a layer, HEAD to verify.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
docker=/usr/bin/docker label=20.10
need dockerd docker containerd runc || exit 0
# shellcheck source=tests/clients/dockerd.sh
source "$here/dockerd.sh"

build() { DOCKER_BUILDKIT=0 "$docker" build --quiet --network none --tag "$1" "$2"; }

if start_dockerd /usr/sbin overlay2; then
    docker_stories
    story "$label pushes a manifest list" manifest_list
fi
