#!/usr/bin/env bash
# docker, skopeo and containerd push images with layers in common, and delete them again, while garbage is collected all the time: each
# of them asks first what is there, and counts on it. So what it was told of has to stay until its manifest comes.
#
#   GC_SECONDS    for how long they push (default 30)
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
if [[ $REGISTRY_KIND != ours ]]; then
    report n/a "pushes while garbage is collected" "not of $REGISTRY_KIND"
    exit 0
fi
need_new crane || exit 0
need dockerd docker containerd runc ctr skopeo || exit 0

host=127.0.0.1:5031
# For so long the registry promises to keep what it told somebody of. A push that takes longer proves nothing if it fails.
grace=3

crane() { DOCKER_CONFIG=$STATE/crane "$NEW/bin/crane" "$@"; }

start_server() {
    printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\ngc: {grace: %ss, interval: 1ms, delay: 1ms}\nundo: {keep: 0s}\n' \
        "$LAB/data/gc" "$host" "$grace" >server.yml
    # shellcheck disable=SC2086 # a command with arguments
    background server env -u REGISTRY_CMD -u REGISTRY_KIND -u REGISTRY_HOST -u REGISTRY_PORT $REGISTRY_CMD "$STATE/server.yml"
    wait_for 20 curl -fsS -o /dev/null "http://$host/v2/"
}

# Three sets of two images. What the images of a set have in common is theirs alone, so that it goes with the last of them.
make_images() {
    local set image
    for set in 0 1 2; do
        layer "common-$set" 400000
        for image in 0 1; do
            layer "own-$set-$image" 50000
            crane append -f "common-$set.tar" -f "own-$set-$image.tar" -t "$RELAY/gc/seed:$set-$image"
        done
    done
}
layer() { # NAME SIZE
    mkdir -p "$1"
    noise "$1" "$2" >"$1/$1"
    tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 -cf "$1.tar" .
}

# The client of a loop is three functions: NAME_load IMAGE, NAME_push IMAGE REPOSITORY (leaves the digest of what it pushed in the
# file NAME.digest; it runs in a condition, where a command that fails ends nothing), and NAME_pull REPOSITORY DIGEST, with nothing left of
# what it had.
docker_load() { "$docker" pull "$RELAY/gc/seed:$1"; }
docker_push() {
    "$docker" tag "$RELAY/gc/seed:$1" "$host/$2:1" && push "$host/$2:1" >docker.digest
}
docker_pull() {
    "$docker" pull "$host/$1:1"
    same "the digest that docker pulled" "$host/$1@$2" "$(repository_digest "$host/$1:1")"
}
skopeo_load() { skopeo --tmpdir "$TMPDIR" copy --src-tls-verify=false "docker://$RELAY/gc/seed:$1" "oci:layout:$1"; }
skopeo_push() { skopeo --tmpdir "$TMPDIR" copy --dest-tls-verify=false --digestfile skopeo.digest "oci:layout:$1" "docker://$host/$2:1"; }
skopeo_pull() {
    rm -rf pulled
    skopeo --tmpdir "$TMPDIR" copy --src-tls-verify=false "docker://$host/$1:1" dir:pulled
    same "the digest that skopeo pulled" "$2" "sha256:$(sha256sum pulled/manifest.json | cut -d ' ' -f 1)"
    (cd pulled && for blob in [0-9a-f]*; do printf '%s  %s\n' "$blob" "$blob"; done | sha256sum --check --quiet)
}
ctr() { command ctr -a "$STATE/c.sock" -n "$LAB_TAG" "$@"; }
ctr_load() { ctr images pull --plain-http "$RELAY/gc/seed:$1"; }
ctr_push() {
    ctr images tag --force "$RELAY/gc/seed:$1" "$host/$2:1" && ctr images push --plain-http "$host/$2:1" &&
        ctr images ls "name==$host/$2:1" | awk 'NR == 2 { printf "%s", $3 }' >ctr.digest
}
ctr_pull() {
    ctr images pull --plain-http "$host/$1:1"
    same "the digest that containerd pulled" "$2" "$(ctr images ls "name==$host/$1:1" | awk 'NR == 2 { print $3 }')"
}

# loop CLIENT NUMBER: pushes to two repositories in turn, and takes away what was there before. What it is told to push comes in sets, so that
# those of the other sets become garbage before they come again.
loop() {
    local client=$1 seed=$((BASHPID + $2)) end=$((SECONDS + ${GC_SECONDS:-30})) n=0 late=0 broken=0 begin took set repository before
    RANDOM=$seed
    echo "$client: seed $seed"
    while ((SECONDS < end)); do
        set=$(((SECONDS / 5 + $2) % 3)) repository=$client-$((n++ % 2))
        begin=$EPOCHREALTIME
        if ! "${client}_push" "$set-$((RANDOM % 2))" "gc/$repository" >"$client.log" 2>&1; then
            # Between ctr and its own daemon; the registry is only told that the connection ended.
            if ((broken < 3)) && grep -q 'rpc error: code = Internal desc = unexpected EOF' "$client.log"; then
                broken=$((broken + 1))
                continue
            fi
            took=$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { print int((b - a) * 1000) }')
            if ((took < grace * 1000)); then
                fail "push $n by $client, after $took ms: $(tail -n 5 "$client.log")"
                return 1
            fi
            late=$((late + 1))
            touch late
            continue
        fi
        before=$(cat "$repository.last" 2>/dev/null || true)
        cp "$client.digest" "$repository.last"
        if [[ -n $before && $before != "$(cat "$repository.last")" ]]; then
            same "DELETE" 202 "$(status DELETE "$host" "/v2/gc/$repository/manifests/$before")"
        fi
    done
    echo "$client: $n pushes, $late of them failed after more than the grace, $broken on this side"
    ((n - late - broken >= 5)) || fail "$client is too slow here to prove anything"
}

push_and_collect() {
    local client number=0 pids=() pid failed=0
    for client in docker skopeo ctr; do
        for image in {0,1,2}-{0,1}; do "${client}_load" "$image"; done
    done
    for client in docker skopeo ctr; do
        loop "$client" $((number++)) &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
    ((failed == 0)) || fail "a push failed"
    # Nor was one saved by a second try of the client's.
    [[ -e late ]] || ! grep -a 'put-manifest .* MANIFEST_BLOB_UNKNOWN' "$LAB/logs/$FAMILY-server.log" || fail "a manifest came whose blobs had gone"
    local metrics freed
    metrics=$(curl -fsS "http://$host/metrics")
    freed=$(awk '$1 == "registry_gc_freed_blobs_total" { print $2 }' <<<"$metrics")
    ((freed >= 10)) || fail "only $freed blobs were collected: nothing was proven"
    echo "$freed blobs were collected"
}

# Nothing of them is left here, and what nobody counts on has gone there.
pull_what_is_left() {
    local client file repository
    sleep $((grace + 1))
    wipe
    ctr images ls -q | xargs --no-run-if-empty "$(type -P ctr)" -a "$STATE/c.sock" -n "$LAB_TAG" images rm --sync
    rm -rf layout /var/lib/containers/cache
    for client in docker skopeo ctr; do
        for file in "$client"-[01].last; do
            repository=${file%.last}
            same "what $repository has" "$(cat "$file")" "$(served "$host" "gc/$repository" 1)"
            "${client}_pull" "gc/$repository" "$(cat "$file")"
        done
    done
}

if ! start_server; then
    report FAIL "the registry starts" "" "$LAB/logs/$FAMILY-server.log"
    exit 0
fi
docker=/usr/bin/docker label=gc
# shellcheck source=tests/clients/dockerd.sh
source "$here/dockerd.sh"
start_dockerd /usr/sbin overlay2 || exit 0
printf 'version = 2\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "%s"\n' \
    "$STATE/containerd/root" "$STATE/containerd/state" "$STATE/c.sock" >containerd.toml
background containerd containerd -c "$STATE/containerd.toml" --log-level warn
if ! wait_for 15 ctr version; then
    report FAIL "containerd starts" "" "$LAB/logs/$FAMILY-containerd.log"
    exit 0
fi
story "crane makes images with layers in common" make_images
story "docker, skopeo and containerd push and delete while garbage is collected" push_and_collect
story "what is left can be pulled by who has nothing of it" pull_what_is_left
