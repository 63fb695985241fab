#!/usr/bin/env bash
# Who may do what, as clients see it: they log in, push, pull and log out, where some things are public and others are not, over TLS
# and over plain HTTP to this machine; and with the tokens of another server.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
if [[ $REGISTRY_KIND != ours ]]; then
    report n/a "clients log in" "not of $REGISTRY_KIND"
    exit 0
fi
need_new crane || exit 0
ports=501
# shellcheck source=tests/clients/protocols.sh
source "$here/protocols.sh"

story "crane makes the images that the others ask for" seed
both crane crane
story "crane gets its tokens elsewhere" external crane
story "passwords do not cross the network in the clear" over_plain_elsewhere
if need_new oras; then
    both oras oras
    story "oras gets its tokens elsewhere" external oras
fi
engine_trust
# shellcheck source=tests/clients/storage.sh
source "$here/storage.sh"
if need skopeo; then
    skopeo=$(type -P skopeo)
    both skopeo "skopeo 1.9"
    story "skopeo 1.9 logs in as a robot" robot skopeo "$mixed"
    story "skopeo 1.9 gets its tokens elsewhere" external skopeo
fi
if need_new skopeo; then
    skopeo=$new/skopeo
    both skopeo "a newer skopeo"
fi
if need podman; then
    engine=$(type -P podman) local_image=localhost/root:1
    story "podman makes an image" engine import root.tar "$local_image"
    both engine podman
    story "podman logs in as a robot" robot engine "$mixed"
fi
if need buildah; then
    engine=$(type -P buildah) local_image=localhost/from-scratch:1
    make() {
        local container
        container=$(engine from scratch)
        engine add "$container" root.tar /
        engine commit --rm "$container" "$local_image"
    }
    story "buildah makes an image" make
    both engine buildah
fi
if need dockerd docker containerd runc; then
    docker=/usr/bin/docker label=20.10
    # shellcheck source=tests/clients/dockerd.sh
    source "$here/dockerd.sh"
    docker=/usr/bin/docker
    if start_dockerd /usr/sbin overlay2; then
        both docker "docker 20.10"
        story "docker 20.10 logs in as a robot" robot docker "$mixed"
        story "docker 20.10 gets its tokens elsewhere" external docker
        kept() { # a token in place of the password
            docker_login "$mixed" wonderland
            jq -e --arg host "$mixed" '.auths[$host].identitytoken | length > 100' "$STATE/docker/config.json"
            ! grep -q "$(printf 'alice:wonderland' | base64)" "$STATE/docker/config.json" || fail "the password is there as well"
            docker_logout "$mixed"
        }
        story "docker 20.10 keeps a token, and no password" kept
    fi
fi
if need containerd ctr; then
    ctr=$(type -P ctr) socket=/run/containerd-tokens.sock
    printf 'version = 2\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "%s"\n' \
        "$STATE/containerd/root" "$STATE/containerd/state" "$socket" >containerd.toml
    background containerd containerd -c "$STATE/containerd.toml" --log-level warn
    if wait_for 15 "$ctr" -a "$socket" version; then
        both ctr ctr
        story "ctr logs in as a robot" robot ctr "$mixed"
    else
        report FAIL "containerd starts" "" "$LAB/logs/$FAMILY-containerd.log"
    fi
fi
