#!/bin/sh
# Makes this machine trust the container registry @NAME@: its own certificate authority is given to whatever
# is here of docker, podman, buildah, skopeo, containerd, k3s, buildkit, and to the system's store (curl, crane, oras, ...).
#
#   sudo sh trust              do it; what is done already stays as it is
#   sh trust --dry-run         only say what would be done
#   sudo sh trust --undo       take all of it back
#   sh trust --user            without root: for podman and rootless docker of this user alone
#   sudo sh trust --no-system  leave the system's store alone
#
# The authority can vouch for private names and addresses and for those of the registry's machine, and for nothing else.
set -eu

id='@ID@'
# What images are pushed to: HOST/app:v1
hosts='@HOSTS@'
# On the registry's own machine.
local_hosts='@LOCAL_HOSTS@'
first='@FIRST@'
# SHA-256 of the authority's certificate in DER form.
fingerprint='@FINGERPRINT@'

authority() {
    cat <<'PEM'
@CA@
PEM
}

say() { printf '%s\n' "$*"; }
die() {
    printf 'trust: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# ---- what was done, so that --undo knows ----

# record LINE: before it is done, so that an interrupted run can be taken back too.
record() {
    [ -d "$state" ] || mkdir -p "$state"
    grep -qxF -e "$1" "$state/done" 2>/dev/null || printf '%s\n' "$1" >>"$state/done"
}

# make_folders DIR: with its missing parents.
make_folders() {
    if [ -z "$1" ] || [ -d "$1" ]; then return 0; fi
    make_folders "${1%/*}"
    record "folder $1"
    mkdir "$1"
}

# replace PATH NEW: keeps the owner and mode of a file that was there.
replace() {
    if [ -e "$1" ]; then
        cat "$2" >"$1"
    else
        cp "$2" "$1.new.$$"
        chmod 644 "$1.new.$$"
        mv "$1.new.$$" "$1"
    fi
}

# put PATH: a file of ours; its content on standard input.
put() {
    cat >"$work/new"
    if cmp -s "$work/new" "$1"; then
        say "  is there:    $1"
    elif [ "$dry" ]; then
        say "  would write: $1"
    else
        make_folders "${1%/*}"
        record "file $1"
        replace "$1" "$work/new"
        say "  wrote:       $1"
    fi
}

# ours PATH: whether an earlier run made it.
ours() { grep -qxF -e "file $1" "$state/done" 2>/dev/null; }

kept() { printf '%s/%s%s' "$state" "$1" "$(printf '%s' "$2" | tr / _)"; }

# without_ours PATH: the file as it would be if we had never written into it.
without_ours() {
    if grep -qF "# >>> $id" "$1" 2>/dev/null; then
        sed "/^ *# >>> $id\$/,/^ *# <<< $id\$/d" "$1"
    elif [ -e "$1" ]; then
        cat "$1"
    fi
}

# edit PATH: a file of somebody else's, with something of ours between marks; its new content on standard input.
edit() {
    cat >"$work/new"
    if cmp -s "$work/new" "$1"; then
        say "  is there:    $1"
        return 0
    fi
    if [ "$dry" ]; then
        say "  would change: $1"
        return 0
    fi
    if [ -e "$1" ]; then
        record "edit $1"
        # The original, unless ours is all that was changed since it was kept.
        if ! cmp -s "$(kept after "$1")" "$1"; then without_ours "$1" >"$(kept before "$1")"; fi
    else
        make_folders "${1%/*}"
        record "file $1"
    fi
    replace "$1" "$work/new"
    cp "$work/new" "$(kept after "$1")"
    say "  changed:     $1"
}

# ---- what there is ----

# certs_d TOOLS DIR: what docker and podman look up by the registry's name, at every pull and push.
certs_d() {
    say "$1:"
    for host in $hosts; do
        authority | put "$2/$host/registry-ca.crt"
    done
}

# unnamed PATH TEXT-BEFORE TEXT-AFTER: the hosts that the file does not speak of yet, outside of what is ours.
unnamed() {
    without_ours "$1" >"$work/theirs"
    for host in $hosts; do
        if grep -qF -e "$2$host$3" "$work/theirs"; then
            say "  left alone:  $1 speaks of $host already" >&2
        else
            printf '%s\n' "$host"
        fi
    done
}

# Not named as the programs are: `command -v` finds functions too.
for_containerd() {
    say "containerd:"
    folder=$(sed -n 's/^[[:space:]]*config_path[[:space:]]*=[[:space:]]*["'\'']\([^"'\'']\{1,\}\)["'\''].*/\1/p' \
        /etc/containerd/config.toml 2>/dev/null | sed -n '1s/:.*//p')
    for host in $hosts; do
        at=${folder:-/etc/containerd/certs.d}/$host
        if [ -e "$at/hosts.toml" ] && ! ours "$at/hosts.toml"; then
            say "  left alone:  $at/hosts.toml; it needs: ca = \"$at/registry-ca.crt\""
        else
            put "$at/hosts.toml" <<TOML
server = "https://$host"

[host."https://$host"]
  capabilities = ["pull", "resolve", "push"]
  ca = "$at/registry-ca.crt"
TOML
        fi
        authority | put "$at/registry-ca.crt"
    done
    if [ -z "$folder" ] && [ -e /etc/containerd/config.toml ] && [ "$(cat /etc/containerd/config.toml)" ]; then
        hint "containerd looks there for Kubernetes only with config_path = \"/etc/containerd/certs.d\" in the registry section
    of /etc/containerd/config.toml (ctr: --hosts-dir /etc/containerd/certs.d; nerdctl looks there by itself)"
    fi
}

for_k3s() {
    say "k3s:"
    yaml=/etc/rancher/k3s/registries.yaml
    ca=/etc/rancher/k3s/$id.crt
    if without_ours "$yaml" | grep -q '^configs:[[:space:]]*[^[:space:]#]'; then
        say "  left alone:  $yaml; its configs are not in lines, so they need by hand: tls: {ca_file: $ca}"
        return 0
    fi
    authority | put "$ca"
    unnamed "$yaml" '' '' >"$work/hosts"
    if [ ! -s "$work/hosts" ]; then return 0; fi
    without_ours "$yaml" | awk -v id="$id" -v ca="$ca" -v hosts="$work/hosts" '
        function entries(indent,   host) {
            print indent "# >>> " id
            while ((getline host < hosts) > 0) {
                print indent "\"" host "\":"
                print indent "  tls:"
                print indent "    ca_file: " ca
            }
            print indent "# <<< " id
        }
        # Written as far in as the entry that follows.
        waiting && /^[[:space:]]*[^[:space:]#]/ {
            match($0, /^ */)
            entries(RLENGTH > 0 ? substr($0, 1, RLENGTH) : "  ")
            waiting = 0
        }
        { print }
        /^configs:/ { waiting = 1; found = 1 }
        END {
            if (waiting) entries("  ")
            if (!found) {
                print "# >>> " id
                print "configs:"
                while ((getline host < hosts) > 0) {
                    print "  \"" host "\":"
                    print "    tls:"
                    print "      ca_file: " ca
                }
                print "# <<< " id
            }
        }' >"$work/yaml"
    edit "$yaml" <"$work/yaml"
    hint "k3s reads $yaml when it starts: systemctl restart k3s (or k3s-agent)"
}

for_buildkit() {
    say "buildkit:"
    toml=/etc/buildkit/buildkitd.toml
    ca=/etc/buildkit/$id.crt
    authority | put "$ca"
    unnamed "$toml" 'registry."' '"' >"$work/hosts"
    if [ ! -s "$work/hosts" ]; then return 0; fi
    {
        without_ours "$toml"
        # A line that nobody ended must not run into ours.
        if [ -s "$toml" ] && [ "$(tail -c 1 "$toml" | wc -l)" -eq 0 ]; then echo; fi
        echo "# >>> $id"
        while read -r host; do
            printf '[registry."%s"]\n  ca = ["%s"]\n' "$host" "$ca"
        done <"$work/hosts"
        echo "# <<< $id"
    } >"$work/toml"
    edit "$toml" <"$work/toml"
    hint "buildkitd reads $toml when it starts; docker buildx: docker buildx create --config $toml"
}

# The first of the system's stores that is here: its folder, the name of the file, and how to read it again.
system_store() {
    if [ "$(uname -s)" = Darwin ]; then
        keychain
    elif [ -d /usr/local/share/ca-certificates ] && have update-ca-certificates; then
        store /usr/local/share/ca-certificates update-ca-certificates
    elif [ -d /etc/pki/ca-trust/source/anchors ] && have update-ca-trust; then
        store /etc/pki/ca-trust/source/anchors update-ca-trust
    elif [ -d /etc/ca-certificates/trust-source/anchors ] && have update-ca-trust; then
        store /etc/ca-certificates/trust-source/anchors update-ca-trust
    elif [ -d /etc/pki/trust/anchors ] && have update-ca-certificates; then
        store /etc/pki/trust/anchors update-ca-certificates
    else
        say "system: no store that this script knows"
    fi
}

# store FOLDER PROGRAM
store() {
    say "system:"
    authority >"$work/ca"
    if cmp -s "$work/ca" "$1/$id.crt"; then
        say "  is there:    $1/$id.crt"
        return 0
    fi
    if [ -z "$dry" ]; then record "store $2"; fi
    authority | put "$1/$id.crt"
    if [ "$dry" ]; then
        say "  would run:   $2"
    else
        "$2" >"$work/log" 2>&1 || die "$2 failed: $(tail -n 1 "$work/log")"
        say "  ran:         $2"
        hint "docker, containerd, k3s and other programs that run already see the system's store when they start again"
    fi
}

keychain() {
    say "macOS:"
    system=/Library/Keychains/System.keychain
    if security find-certificate -a -Z "$system" | grep -q "$fingerprint"; then
        say "  is there:    $system"
    elif [ "$dry" ]; then
        say "  would add the authority to $system"
    else
        record "keychain $fingerprint"
        authority >"$work/ca.crt"
        security add-trusted-cert -d -r trustRoot -k "$system" "$work/ca.crt"
        say "  added the authority to $system"
    fi
    hint "Docker Desktop sees it after a restart of Docker Desktop; podman machine:
    podman machine ssh sudo sh -s <$state/trust"
}

hint() { printf '%s\n' "$*" >>"$work/hints"; }

# ---- doing it, and taking it back ----

set_up() {
    if [ "$user" ]; then
        certs_d "podman of this user" "${XDG_CONFIG_HOME:-$HOME/.config}/containers/certs.d"
        certs_d "docker of this user (rootless)" "${XDG_CONFIG_HOME:-$HOME/.config}/docker/certs.d"
    else
        if [ "$(uname -s)" != Darwin ]; then
            if have docker || have dockerd || [ -d /etc/docker ]; then certs_d docker /etc/docker/certs.d; fi
            if have podman || have buildah || have skopeo || [ -d /etc/containers ]; then
                certs_d "podman, buildah, skopeo" /etc/containers/certs.d
            fi
            if have containerd || [ -d /etc/containerd ]; then for_containerd; fi
            if have k3s || [ -d /etc/rancher/k3s ]; then for_k3s; fi
            if have buildkitd || [ -d /etc/buildkit ]; then for_buildkit; fi
        fi
        if [ "$system" ]; then system_store; fi
    fi
    if [ -z "$dry" ] && [ -f "$0" ] && [ -d "$state" ]; then
        if ! cmp -s "$0" "$state/trust"; then cp "$0" "$state/trust"; fi
    fi
    if [ -s "$work/hints" ]; then
        say "to know:"
        sed 's/^\([^ ]\)/  \1/' "$work/hints"
    fi
    if [ "$dry" ]; then
        say "nothing was changed"
    else
        say "done: docker push $first/app:v1"
        if [ -f "$state/trust" ]; then say "to take it back: sh $state/trust${user:+ --user} --undo"; fi
    fi
}

undo() {
    if [ ! -f "$state/done" ]; then
        say "there is nothing to take back"
        return 0
    fi
    # The last first: folders are empty by then.
    awk '{ line[NR] = $0 } END { while (NR) print line[NR--] }' "$state/done" >"$work/todo"
    programs=
    while read -r kind what; do
        if [ "$dry" ]; then
            say "  would take back: $kind $what"
            continue
        fi
        case $kind in
            file) rm -f "$what" ;;
            folder) rmdir "$what" 2>/dev/null || [ ! -d "$what" ] || say "  stays, since something else lies there: $what" ;;
            edit) undo_edit "$what" ;;
            store) programs="$programs $what" ;;
            keychain) security delete-certificate -Z "$what" -t /Library/Keychains/System.keychain || true ;;
        esac
    done <"$work/todo"
    if [ "$dry" ]; then
        say "nothing was changed"
        return 0
    fi
    for program in $programs; do
        # Without it, links to what is gone would stay.
        if [ "$program" = update-ca-certificates ]; then set -- --fresh; else set --; fi
        "$program" "$@" >"$work/log" 2>&1 || die "$program failed: $(tail -n 1 "$work/log")"
    done
    rm -rf "$state"
    rmdir "${state%/*}" 2>/dev/null || true
    say "done: this machine does not trust $first any more"
}

# undo_edit PATH: byte for byte what it was, unless somebody changed it since; then without what is ours.
undo_edit() {
    if [ ! -e "$1" ]; then return 0; fi
    before=$(kept before "$1")
    if cmp -s "$(kept after "$1")" "$1"; then
        cat "$before" >"$1"
    else
        without_ours "$1" >"$work/old"
        cat "$work/old" >"$1"
        say "  was changed since, lost only what is ours: $1"
    fi
}

main() {
    dry='' back='' user='' system=yes
    for argument; do
        case $argument in
            --dry-run) dry=yes ;;
            --undo) back=yes ;;
            --user) user=yes ;;
            --no-system) system='' ;;
            *) die "unknown: $argument; known are --dry-run, --undo, --user, --no-system" ;;
        esac
    done
    if [ "$user" ]; then
        state=${XDG_STATE_HOME:-$HOME/.local/state}/registry-trust/$id
    else
        state=/var/lib/registry-trust/$id
        if [ "$(uname -s)" = Darwin ]; then state=/usr/local/var/registry-trust/$id; fi
        if [ "$(id -u)" -ne 0 ] && [ -z "$dry" ]; then
            if [ -f "$0" ] && have sudo; then
                say "this changes files of the system: sudo may ask for your password"
                exec sudo sh "$0" "$@"
            fi
            die "this changes files of the system: run it as root, or with --user for podman and rootless docker of this user alone"
        fi
    fi
    umask 022
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    : >"$work/hints"
    if cmp -s /etc/registry/tls/ca.crt - <<PEM
$(authority)
PEM
    then hosts="$hosts $local_hosts"; fi
    if [ "$back" ]; then undo; else set_up; fi
}

# The last line: a script that arrived in part does nothing.
main "$@"
