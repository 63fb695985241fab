# shellcheck shell=bash
# What every family's script stands on. Sourced; run by `run`, inside its namespaces.
#
#   FAMILY  the family's name and the first component of its repositories    STATE  its own folder, in memory
#   $TLS    registry.test:5000, TLS by the CA that engines find in certs.d and everybody else in SSL_CERT_FILE
#   $LOGIN  registry.test:5003, the same with TLS, and a password: lab's is "secret"
#   $RELAY  127.0.0.1:5002, plain HTTP, through the relay that writes down requests and cuts downloads of */cut/*
set -euo pipefail

export TLS=$REGISTRY_HOST:$REGISTRY_PORT UNTRUSTED=$UNTRUSTED_HOST:$REGISTRY_PORT RELAY=127.0.0.1:$RELAY_PORT LOGIN=$REGISTRY_HOST:$LOGIN_PORT
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(cd "$here/.." && pwd)/.cache
export NEW=$cache/new VENV=$cache/venv
# run sent our standard output into the family's log; descriptor 3 is its own output, for the report.
cd "$STATE"

report() { # STATUS NAME DETAIL [LOG]
    {
        flock 9
        printf '%-5s %s: %s\n' "$1" "$FAMILY" "$2${3:+ ($3)}" >&3
        if [[ -n ${4-} ]]; then tail -n 25 "$4" | cut -c 1-400 | sed 's/^/      | /' >&3; fi
        printf '%s\t%s\t%s\n' "$1" "$FAMILY" "$2" >>"$LAB/results"
    } 9>>"$LAB/lock"
}

# story SENTENCE FUNCTION [ARGUMENT...]: runs it in a subshell that ends at the first command that fails.
story() {
    local sentence=$1 status=0 begin=$EPOCHREALTIME log=$STATE/story.log
    shift
    printf '=== %s\n' "$sentence"
    # Not in a condition and not before "||": there, bash ignores -e all the way down.
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1
    status=$?
    set -e
    cat "$log"
    local took
    took=$(awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", end - begin }')
    if ((status == 0)); then
        report ok "$sentence" "$took"
    else
        report FAIL "$sentence" "$took" "$log"
    fi
}

# A story that is told of our registry only: CNCF distribution 2.8 knows no referrers, deletes no tags, serves no plain HTTP beside TLS.
our_story() {
    if [[ $REGISTRY_KIND == ours ]]; then
        story "$@"
    else
        report n/a "$1" "not of $REGISTRY_KIND"
    fi
}

skip() { report skip "$1"; }

# need_new PROGRAM...: the newer clients that scripts/test-deps unpacks; says what is missing and why.
need_new() {
    local program missing=0
    for program in "$@"; do
        [[ ! -x $NEW/bin/$program ]] || continue
        skip "newer $program: $(cat "$NEW/$program.missing" 2>/dev/null || echo "not installed, run scripts/test-deps")"
        missing=1
    done
    return $missing
}
need() {
    local program missing=0
    for program in "$@"; do
        ! command -v "$program" >/dev/null || continue
        skip "$program: not installed, run scripts/test-deps"
        missing=1
    done
    return $missing
}

fail() {
    printf 'failed: %s\n' "$*"
    return 1
}
same() { # WHAT EXPECTED ACTUAL
    [[ -n $2 && $2 == "$3" ]] || fail "$1: expected '$2', got '$3'"
}
# contains WHAT EXPRESSION <text
contains() {
    local text
    text=$(cat)
    grep -qE -- "$2" <<<"$text" || fail "$1: no '$2' in: $text"
}
# refused EXPRESSION COMMAND...: the command fails, and says this.
refused() {
    local expression=$1 output
    shift
    if output=$("$@" 2>&1); then
        fail "should have failed: $*: $output"
    else
        contains "the refusal of $1" "$expression" <<<"$output"
    fi
}

# noise SEED SIZE: the same bytes for the same seed, that no compressor makes smaller.
noise() {
    head -c "$2" /dev/zero | openssl enc -aes-128-ctr -K "$(printf '%s' "$1" | md5sum | cut -c 1-32)" -iv 00000000000000000000000000000000
}

# rootfs DIR SEED [SIZE]: what an image needs to run and to be checked: a static busybox, and bytes with a known sum.
rootfs() {
    mkdir -p "$1/bin"
    cp /bin/busybox "$1/bin/busybox"
    noise "$2" "${3:-1500000}" >"$1/payload"
}
payload_sum() { noise "$1" "${2:-1500000}" | sha256sum | cut -d ' ' -f 1; }

manifest_types='application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json'

url() { # HOST: with the scheme that it speaks
    if [[ $1 == "$TLS" ]]; then printf 'https://%s' "$1"; else printf 'http://%s' "$1"; fi
}
status() { # METHOD HOST PATH: the status alone
    local how=(-X "$1")
    [[ $1 != HEAD ]] || how=(--head)
    curl -sS -o /dev/null -w '%{http_code}' -H "Accept: $manifest_types" "${how[@]}" "$(url "$2")$3"
}
manifest() { # HOST REPOSITORY REFERENCE: its bytes
    curl -fsS -H "Accept: $manifest_types" "$(url "$1")/v2/$2/manifests/$3"
}
# served HOST REPOSITORY REFERENCE: the digest the registry tells for it, which has to be that of the bytes it gives.
served() {
    local told sum
    told=$(curl -fsS --head -H "Accept: $manifest_types" "$(url "$1")/v2/$2/manifests/$3" | tr -d '\r' | sed -n 's/^docker-content-digest: *//Ip')
    sum=sha256:$(manifest "$1" "$2" "$3" | sha256sum | cut -d ' ' -f 1)
    [[ $told == "$sum" ]] || {
        printf 'served: %s/%s %s: the header says %s, the bytes are %s\n' "$1" "$2" "$3" "$told" "$sum" >&2
        return 1
    }
    printf '%s' "$told"
}
# CNCF distribution 2.8 lists tags as its file system does, in no order; ours lists them in order.
in_order() { if [[ $REGISTRY_KIND == ours ]]; then cat; else sort; fi; }
tags() { # HOST REPOSITORY: in one line
    curl -fsS "$(url "$1")/v2/$2/tags/list" | jq -r '.tags[]' | in_order | xargs
}
# For engines, which find the CA in certs.d, by host and port: the pool of CAs that they fall back to must not have ours.
engine_trust() {
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
    # shellcheck disable=SC2317 # called by all that ask the registry
    curl() { command curl --cacert "$LAB/state/tls/ca.crt" "$@"; }
}
# untrusting COMMAND...: one of the clients that know CAs by SSL_CERT_FILE, with those of the machine instead of ours.
untrusting() { SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$@"; }
delete_manifest() { # HOST REPOSITORY DIGEST
    same "DELETE $3" 202 "$(status DELETE "$1" "/v2/$2/manifests/$3")"
    same "GET after DELETE" 404 "$(status GET "$1" "/v2/$2/manifests/$3")"
}
# relayed EXPRESSION: lines of the relay's log about this family's repositories.
relayed() { grep -E " /v2/$FAMILY/" "$LAB/relay.log" | grep -E -- "$1"; }
# mounted REPOSITORY: a blob came into it from another repository instead of over the wire.
mounted() {
    relayed "^POST /v2/$1/blobs/uploads/\?.*mount=.* 201$" || fail "no mount into $1: $(relayed " /v2/$1/" || true)"
}
# resumed REPOSITORY: after the relay's cut, the rest and only the rest was asked for.
resumed() {
    relayed "^CUT /v2/$1/blobs/" || fail "no download of $1 was cut off"
    relayed "^GET /v2/$1/blobs/.* range=bytes=[1-9][0-9]*-.* 206$" || fail "no ranged GET in $1: $(relayed " /v2/$1/" || true)"
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local tries=$(($1 * 20))
    shift
    until "$@" >/dev/null 2>&1; do
        ((tries-- > 0)) || return 1
        sleep 0.05
    done
}

# background NAME COMMAND...: a daemon; stopped when the script ends.
daemons=()
background() {
    local name=$1
    shift
    "$@" >"$LAB/logs/$FAMILY-$name.log" 2>&1 </dev/null 3>&- &
    daemons+=($!)
}
stop_daemons() {
    local pid tries
    for pid in "${daemons[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${daemons[@]}"; do
        for ((tries = 0; tries < 200; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    daemons=()
}
trap stop_daemons EXIT
