# shellcheck shell=bash
# What the tests of the package stand on: Debian roots, stories, and an image to push. Sourced by `run`, as root, in a mount
# namespace of its own.
#
#   $WORK   this run's folder     $DEBS   the packages     tell SENTENCE FUNCTION [ARGUMENT...]   runs one story and reports it

# tell SENTENCE FUNCTION [ARGUMENT...]: in a subshell that ends at the first command that fails.
tell() {
    local sentence=$1 status=0 begin=$EPOCHREALTIME log=$WORK/story.log took
    shift
    # Not in a condition and not before "||": there, bash ignores -e all the way down.
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1
    status=$?
    set -e
    took=$(awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", end - begin }')
    if ((status == 0)); then
        printf 'ok    %s: %s (%s)\n' "$SCENE" "$sentence" "$took"
        echo ok >>"$WORK/results"
    else
        printf 'FAIL  %s: %s (%s)\n' "$SCENE" "$sentence" "$took"
        tail -n 30 "$log" | cut -c 1-400 | sed 's/^/      | /'
        echo FAIL >>"$WORK/results"
    fi
}

# skip REASON: said as loudly as a failure, and not counted as one.
skip() {
    printf 'skip  %s: %s\n' "$SCENE" "$*"
    echo skip >>"$WORK/results"
}

fail() {
    printf '%s\n' "$*" >&2
    return 1
}
same() { # WHAT EXPECTED ACTUAL
    [[ $2 == "$3" ]] || fail "$1: expected $2, got $3"
}
contains() { # WHAT EXPRESSION, text on standard input
    local text
    text=$(cat)
    grep -qE -- "$2" <<<"$text" || fail "$1: no $2 in: $text"
}
# gone PID: ended, whether or not its parent has looked.
gone() { [[ ! -e /proc/$1 || $(sed -n 's/^State:\s*\(.\).*/\1/p' "/proc/$1/status") == Z ]]; }
present() {
    local path
    for path in "$@"; do [[ -e $path ]] || fail "is missing: $path" || return; done
}
absent() {
    local path
    for path in "$@"; do [[ ! -e $path && ! -L $path ]] || fail "is still there: $path" || return; done
}
# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local seconds=$1 deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || fail "not within $seconds seconds: $*" || return
        sleep 0.2
    done
}

# ---- Debian roots ----------------------------------------------------------------------------------------------------

# Made once, and used below an overlay: no test changes them. `apt` and what it needs are left out of foreign ones: the emulator
# configures them, and takes its time.
make_root() { # SUITE ARCH VARIANT PACKAGE...
    local suite=$1 arch=$2 variant=$3 root=$ROOTS/$1-$2-$3
    shift 3
    [[ ! -e $root.complete ]] || return 0
    rm -rf --one-file-system "$root"
    mmdebstrap --quiet --variant="$variant" --mode=root --architectures="$arch" --aptopt='Apt::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --include="$(IFS=, && echo "$*")" "$suite" "$root" \
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(archive bookworm) $suite main" >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        return 1
    }
    touch "$root.complete"
}

# lend_root SUITE ARCH VARIANT NAME: a fresh copy of that root at $WORK/NAME/root.
lend_root() {
    local dir=$WORK/$4
    mkdir -p "$dir"/{changes,work,root}
    mount -t overlay overlay -o "lowerdir=$ROOTS/$1-$2-$3,upperdir=$dir/changes,workdir=$dir/work" "$dir/root"
    # No daemon's port, nor the network of the machine it was made on.
    printf 'lab\n' >"$dir/root/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 lab\n' >"$dir/root/etc/hosts"
    : >"$dir/root/etc/resolv.conf"
}

# The handlers that let the kernel run foreign programs; they vanish with the mount, which is this namespace's own. Fails where
# the kernel has no binfmt_misc, or lets nobody in here use it.
register_emulators() {
    local name magic
    [[ -e /proc/sys/fs/binfmt_misc/register ]] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || return
    for name in arm:01:28 aarch64:02:b7; do
        [[ ! -e /proc/sys/fs/binfmt_misc/qemu-${name%%:*} ]] || continue
        magic="\\x7fELF\\x$(cut -d : -f 2 <<<"$name")\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x${name##*:}\\x00"
        printf ':qemu-%s:M::%s:%s:/usr/bin/qemu-%s-static:F' "${name%%:*}" "$magic" \
            '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff' "${name%%:*}" \
            >/proc/sys/fs/binfmt_misc/register || return
    done
}

package() { # ARCH [VERSION]: the file
    find "$DEBS" -maxdepth 1 -name "registry_${2-[0-9]*.[0-9]}_$1.deb" | sort -V | tail -n 1
}

# ---- an image --------------------------------------------------------------------------------------------------------

# image DIR SEED SIZE: an OCI layout with one layer.
image() {
    local dir=$1 layer config size
    mkdir -p "$dir/blobs/sha256" "$dir/tree"
    head -c "$3" /dev/zero | openssl enc -aes-128-ctr -K "$(printf '%s' "$2" | md5sum | cut -c 1-32)" -iv 00000000000000000000000000000000 >"$dir/tree/payload"
    tar -C "$dir/tree" --sort=name --mtime=@0 --owner=0 --group=0 -cf "$dir/layer" .
    rm -r "$dir/tree"
    blob() {
        size=$(stat -c %s "$1")
        name=$(sha256sum "$1" | cut -d ' ' -f 1)
        mv "$1" "$dir/blobs/sha256/$name"
    }
    local name diff
    diff=$(sha256sum "$dir/layer" | cut -d ' ' -f 1)
    gzip -n1 "$dir/layer"
    blob "$dir/layer.gz"
    layer=$(printf '{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}' "$name" "$size")
    printf '{"architecture":"arm64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$diff" >"$dir/config"
    blob "$dir/config"
    config=$(printf '{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}' "$name" "$size")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' "$config" "$layer" >"$dir/manifest"
    blob "$dir/manifest"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$dir/oci-layout"
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s}]}' "$name" "$size" >"$dir/index.json"
}

# push LAYOUT HOST/NAME:TAG, pull HOST/NAME:TAG LAYOUT: trusting the CA in $WORK/trust and no other, from the network namespace of $NET.
push() { in_network skopeo copy --quiet --dest-cert-dir "$WORK/trust" "oci:$1" "docker://$2"; }
pull() {
    rm -rf "$2"
    in_network skopeo copy --quiet --src-cert-dir "$WORK/trust" "docker://$1" "oci:$2"
}
in_network() { nsenter --net="/proc/$NET/ns/net" env SSL_CERT_FILE=/dev/null "$@"; }
request() { in_network curl -sS --max-time 60 --cacert "$WORK/trust/ca.crt" "$@"; }

# same_image LAYOUT LAYOUT: the manifest and all it names, byte for byte.
same_image() {
    same "manifest" "$(jq -r '.manifests[0].digest' "$1/index.json")" "$(jq -r '.manifests[0].digest' "$2/index.json")"
    (cd "$2/blobs/sha256" && for blob in *; do echo "$blob  $blob"; done | sha256sum --check --quiet)
    same "blobs" "$(ls "$1/blobs/sha256")" "$(ls "$2/blobs/sha256")"
}
