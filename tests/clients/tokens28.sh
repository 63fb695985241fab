#!/usr/bin/env bash
# The newer docker and containerd where some things are public and others are not, and robots with their API keys.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
if [[ $REGISTRY_KIND != ours ]]; then
    report n/a "clients log in" "not of $REGISTRY_KIND"
    exit 0
fi
need_new crane || exit 0
ports=502
# shellcheck source=tests/clients/protocols.sh
source "$here/protocols.sh"

story "crane makes the images that the others ask for" seed
story "crane logs in as a robot" robot crane "$mixed"
if need_new oras; then
    story "oras logs in as a robot" robot oras "$mixed"
fi
engine_trust
# shellcheck source=tests/clients/storage.sh
source "$here/storage.sh"
if need_new skopeo; then
    skopeo=$new/skopeo
    story "skopeo logs in as a robot" robot skopeo "$mixed"
fi
if need_new dockerd docker containerd && need runc; then
    docker=$new/docker
    label=28t
    # shellcheck source=tests/clients/dockerd.sh
    source "$here/dockerd.sh"
    # The daemon starts its own containerd, which finds the shim beside itself.
    mkdir -p "$STATE/bin"
    ln -sf "$(readlink -f "$NEW/bin/dockerd")" "$(dirname "$(readlink -f "$NEW/bin/containerd")")"/* "$STATE/bin/"
    if start_dockerd "$STATE/bin" overlay2; then
        both docker "docker 28"
        story "docker 28 gets its tokens elsewhere" external docker
        story "docker 28 logs in as a robot" robot docker "$mixed"
    fi
    # With that store, it asks for tokens with the CAs of the system and not with those of certs.d.
    label=28tc
    if SSL_CERT_FILE=$LAB/state/tls/ca.crt start_dockerd "$STATE/bin" containerd; then
        both docker "docker 28 with containerd's store"
    fi
fi
if need_new containerd; then
    directory=$(dirname "$(readlink -f "$NEW/bin/containerd")")
    ctr=$directory/ctr socket=/run/containerd-tokens28.sock ctr_hosts=$STATE/hosts
    mkdir -p "$ctr_hosts/$mixed"
    printf 'server = "https://%s"\n[host."https://%s"]\n  capabilities = ["pull", "resolve", "push"]\n  ca = "%s"\n' \
        "$mixed" "$mixed" "$LAB/state/tls/ca.crt" >"$ctr_hosts/$mixed/hosts.toml"
    printf 'version = 2\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "%s"\n[plugins."io.containerd.transfer.v1.local"]\n  config_path = "%s"\n' \
        "$STATE/containerd/root" "$STATE/containerd/state" "$socket" "$ctr_hosts" >containerd.toml
    PATH=$directory:$PATH background containerd "$directory/containerd" -c "$STATE/containerd.toml" --log-level warn
    if wait_for 15 "$ctr" -a "$socket" version; then
        both ctr "containerd 2.1"
        story "containerd 2.1 logs in as a robot" robot ctr "$mixed"
    else
        report FAIL "containerd 2.1 starts" "" "$LAB/logs/$FAMILY-containerd.log"
    fi
fi
