#!/usr/bin/env bash
# What happens between two machines of a LAN; run by `run`, inside its namespaces.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/../clients/lib.sh"
: "${NAME:?}" "${daemons[@]}"
config=$STATE/registry.yml
tls=$STATE/tls
# Private copies of what the line may change.
places=(/etc /usr/local/share/ca-certificates /var/lib/registry-trust)

pi() { nsenter --net=/run/netns/pi --uts="/proc/$registry/ns/uts" "$@"; }

# The registry's machine has this address, and the client's knows its name.
at_address() {
    ip -n pi address flush dev cable scope global
    ip -n pi address add "$1/24" dev cable
    printf '127.0.0.1 localhost\n%s %s %s.local forged.example.com\n' "$1" "$NAME" "$NAME" >/etc/hosts
}

# The registry's machine: its own host name, and nothing but the package's settings.
start_registry() {
    cat >"$config" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $STATE/registry}}
http:
  addr: :5000
  tls: {selfsigned: {enabled: true, directory: $tls}}
END
    background registry nsenter --net=/run/netns/pi unshare --uts bash -c "unset \${!REGISTRY_@}; hostname $NAME && exec '$REGISTRY_BINARY' serve '$config'"
    registry=${daemons[-1]}
    wait_for 30 curl -sk "https://$NAME.local:5000/healthz"
}
log() { cat "$LAB/logs/lan-registry.log"; }

# All of the machine's settings in one text: names, modes, owners, contents. Not what the stories themselves write.
settings() {
    # What the stories and the engines write by themselves.
    local not_ours=(-path /etc/hosts -o -path /etc/containers/containers.conf -o -path /etc/containers/networks -o -path /etc/cni -o -path /etc/docker/key.json) place
    for place in "${places[@]}"; do
        [[ -e $place ]] || continue
        find "$place" \( "${not_ours[@]}" \) -prune -o -printf '%p %y %m %U %G %l\n'
        find "$place" \( "${not_ours[@]}" \) -prune -o -type f -exec sha256sum {} +
    done | sort
}
unchanged() { # FILE-WITH-SETTINGS
    settings >now
    diff "$1" now || fail "settings of this machine have changed"
}

line() { pi "$REGISTRY_BINARY" cert export --line --config "$config"; }
# As a person does: the text, into a shell.
paste() { sh -c "$1${2:+ $2}"; }

image() { # NAME SEED: an archive that docker, podman and skopeo can load
    local arch
    arch=$(dpkg --print-architecture)
    rm -rf root layer
    mkdir layer
    noise "$2" 300000 >layer/payload
    tar -C layer --sort=name --mtime=@0 --owner=0 --group=0 -cf layer.tar .
    mkdir -p root
    cp layer.tar root/layer.tar
    printf '{"architecture":"%s","os":"linux","config":{"Cmd":["/payload"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$arch" "$(sha256sum layer.tar | cut -d ' ' -f 1)" >root/config.json
    printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$1" >root/manifest.json
    tar -C root -cf image.tar manifest.json config.json layer.tar
}
skopeo_tool() { skopeo --tmpdir "$TMPDIR" --insecure-policy "$@"; }

# ---- before ----

nobody_trusts() {
    refused 'x509|certificate' skopeo_tool inspect "docker://$NAME.local:5000/app:1"
    refused 'certificate' curl -sS "https://$NAME.local:5000/v2/"
    log | contains "the registry's log" "10.78.0.3 does not trust this server's certificate: .registry cert show. prints the line"
}
plain_http_says_what_to_do() {
    local url=http://$NAME.local:5000 sum
    sum=$(sha256sum "$tls/ca.crt" | cut -d ' ' -f 1)
    curl -sS "$url/" | contains "the page" "^  sh -c 'u=https://$NAME.local:5000 s=$sum;"
    same "the line on the page" "$(line)" "$(curl -sS "$url/" | sed -n "s/^  \(sh -c .*\)/\1/p")"
    curl -sS -H 'Accept: text/html' "$url/" | contains "the page for browsers" "<pre>sh -c 'u=https://$NAME.local:5000 s=$sum;"
    curl -sS -H 'Accept: text/html' -w '%{http_code}' "$url/v2/_catalog" | contains "a browser elsewhere" '^403$'
    same "status of a refusal" 403 "$(curl -sS -o refusal -w '%{http_code}' "$url/v2/app/manifests/1")"
    jq -e --arg sum "$sum" '.errors[0] | .code == "DENIED" and .detail.ca_sha256 == $sum and (.message | contains($sum) and contains("https://'"$NAME"'.local:5000"))' refusal
    curl -sS "$url/ca.crt" | cmp - "$tls/ca.crt"
    # By an address it is the same, with that address in it.
    curl -sS "http://$FIRST:5000/" | contains "the page by address" "u=https://$FIRST:5000 s=$sum;"
    # A name that the certificate is not for is not repeated.
    curl -sS -H 'Host: evil.example:5000' "$url/" | contains "the page by a foreign name" "u=https://$NAME.local:5000 "
}
a_copy_over_plain_http_runs_nothing() {
    refused 'for reading only' sh -c "curl -sS http://$NAME.local:5000/trust | sh"
    unchanged before
}
clients_show_it() {
    export DOCKER_CONFIG=$STATE/empty
    # docker, podman, skopeo and crane, told that the registry is insecure, use TLS and do not ask who it is; oras does as told.
    if [[ -x $NEW/bin/oras ]]; then
        refused 'registry cert show' "$NEW/bin/oras" manifest fetch --plain-http "$NAME.local:5000/app:1"
    fi
}

# ---- the line ----

a_wrong_fingerprint_stops() {
    local right wrong asked
    asked=$(log | grep -c 'get-trust-script' || true)
    right=$(line)
    wrong=${right/ s=????/ s=0000}
    [[ $right != "$wrong" ]] || wrong=${right/ s=????/ s=1111}
    refused "does not have the CA that this line names; nothing was changed" paste "$wrong"
    unchanged before
    same "how often the script was asked for" "$asked" "$(log | grep -c 'get-trust-script' || true)"
}
# Somebody between, who has the genuine ca.crt (everybody can have it) but not the key: a script of his own is not run.
a_man_in_the_middle_runs_nothing() {
    local line
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$NAME.local" \
        -addext "subjectAltName=DNS:$NAME.local,DNS:localhost" -keyout middle.key -out middle.crt 2>/dev/null
    mkdir -p middle
    cp "$tls/ca.crt" middle/ca.crt
    echo "touch $STATE/owned" >middle/trust
    cat >middle.py <<'PY'
import http.server, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("middle.crt", "middle.key")
handler = lambda *a: http.server.SimpleHTTPRequestHandler(*a, directory="middle")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 5003), handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
PY
    /usr/bin/python3 middle.py >middle.log 2>&1 &
    local middle=$!
    wait_for 10 curl -sk https://localhost:5003/ca.crt
    line=$(line)
    line=${line/$NAME.local:5000/localhost:5003}
    refused 'certificate' paste "$line"
    kill "$middle"
    grep -q '"GET /ca.crt' middle.log || fail "the line did not even ask: $(cat middle.log)"
    if grep -q '"GET /trust' middle.log; then fail "the script was asked for"; fi
    [[ ! -e $STATE/owned ]] || fail "a script that came unverified was executed"
    unchanged before
}
a_dry_run_changes_nothing() {
    paste "$(line)" --dry-run | contains "a dry run" "would write: /etc/docker/certs.d/$NAME.local:5000/registry-ca.crt"
    unchanged before
}
the_line() {
    local output
    output=$(paste "$(line)")
    echo "$output"
    contains "the end" "^done: docker push $NAME.local:5000/app:v1" <<<"$output"
    # Without curl the same by wget; and all is there already.
    settings >trusted
    mkdir -p without-curl
    local program
    for program in /usr/bin/* /bin/* /usr/sbin/*; do
        case ${program##*/} in curl) ;; *) ln -sf "$program" "without-curl/${program##*/}" ;; esac
    done
    if command -v wget >/dev/null; then
        output=$(PATH=$STATE/without-curl paste "$(line)")
        if grep -E 'wrote|changed:' <<<"$output"; then fail "a second time changed something"; fi
    fi
    output=$(paste "$(line)")
    if grep -E 'wrote|changed:' <<<"$output"; then fail "a third time changed something"; fi
    unchanged trusted
}
what_was_written_makes_sense() {
    /usr/bin/python3 - "$NAME.local:5000" <<'PY'
import os, sys, tomllib
host = sys.argv[1]
def toml(path):
    with open(path, "rb") as file:
        return tomllib.load(file)
ca = toml(f"/etc/containerd/certs.d/{host}/hosts.toml")["host"][f"https://{host}"]["ca"]
assert os.path.exists(ca), ca
registries = toml("/etc/buildkit/buildkitd.toml")["registry"]
assert registries["docker.io"]["mirrors"] == ["mirror.lan"]
assert os.path.exists(registries[host]["ca"][0])
try:
    import yaml
except ImportError:
    sys.exit()
with open("/etc/rancher/k3s/registries.yaml") as file:
    k3s = yaml.safe_load(file)
assert k3s["mirrors"]["docker.io"]["endpoint"] == ["https://mirror.lan"], k3s
assert k3s["configs"]["mirror.lan"]["tls"]["insecure_skip_verify"] is True, k3s
assert os.path.exists(k3s["configs"][host]["tls"]["ca_file"]), k3s
PY
}

# ---- clients ----

system_clients() {
    local url=https://$NAME.local:5000/v2/
    same "curl (OpenSSL)" '{}' "$(curl -fsS "$url")"
    same "curl, by name without a domain" '{}' "$(curl -fsS "https://$NAME:5000/v2/")"
    same "curl, by address" '{}' "$(curl -fsS "https://$1:5000/v2/")"
    if command -v wget >/dev/null; then same "wget (GnuTLS)" '{}' "$(wget -qO- "$url")"; fi
    same "Python" '{}' "$(/usr/bin/python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())' "$url")"
    if command -v gnutls-cli >/dev/null; then
        gnutls-cli --x509cafile "$tls/ca.crt" -p 5000 "$NAME.local" </dev/null | contains gnutls-cli 'certificate is trusted'
    fi
    if [[ -x $NEW/bin/crane ]]; then "$NEW/bin/crane" catalog "$NAME.local:5000"; fi
    if [[ -x $NEW/bin/oras ]]; then "$NEW/bin/oras" repo ls "$NAME.local:5000"; fi
}
by_skopeo() { # TAG
    image "app:$1" "skopeo-$1"
    skopeo_tool copy docker-archive:image.tar "docker://$NAME.local:5000/skopeo:$1"
    rm -rf pulled
    skopeo_tool copy "docker://$NAME.local:5000/skopeo:$1" dir:pulled
    skopeo_tool inspect "docker://$2:5000/skopeo:$1" >/dev/null
}
by_podman() { # TAG
    image "localhost/app:$1" "podman-$1"
    podman load -i image.tar
    podman push "localhost/app:$1" "$NAME.local:5000/podman:$1"
    podman rmi --all --force
    podman pull "$NAME.local:5000/podman:$1"
    podman rmi --all --force
}
by_docker() { # TAG
    image "app:$1" "docker-$1"
    docker load -i image.tar
    docker tag "app:$1" "$NAME.local:5000/docker:$1"
    docker push "$NAME.local:5000/docker:$1"
    docker image rm -f "app:$1" "$NAME.local:5000/docker:$1"
    docker pull "$NAME.local:5000/docker:$1"
    docker image rm -f "$NAME.local:5000/docker:$1"
}
by_containerd() { # TAG
    ctr -a "$ctr" images pull --hosts-dir /etc/containerd/certs.d --snapshotter native "$NAME.local:5000/skopeo:$1"
}

# ---- the machine changes ----

# until_verified URL: a person's patience, not a second's.
until_verified() {
    wait_for 20 command curl -fsS --max-time 1 "$1" || fail "$1 is not verified: $(curl -sS --max-time 1 "$1" 2>&1)"
}
a_new_address() {
    local pid=$registry
    at_address "$SECOND"
    until_verified "https://$SECOND:5000/v2/"
    kill -0 "$pid" || fail "the registry was restarted"
    log | contains "the log" "new server certificate for .*$SECOND.*: this machine is now called"
    system_clients "$SECOND"
}
a_new_name() {
    pi hostname attic
    printf '127.0.0.1 localhost\n%s %s %s.local attic.local attic\n' "$SECOND" "$NAME" "$NAME" >/etc/hosts
    kill -HUP "$registry"
    until_verified "https://attic.local:5000/v2/"
    # Without its zone it is a name that the CA may not sign, which is said.
    log | contains "the log" 'not for attic: the CA may not sign that'
    refused certificate curl -sS https://attic:5000/v2/
    same "the line's name" "sh -c 'u=https://attic.local:5000" "$(line | cut -d ' ' -f 1-3)"
    pi hostname "$NAME"
}
renewed_by_hand() {
    local before after
    before=$(openssl s_client -connect "$SECOND:5000" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint)
    pi "$REGISTRY_BINARY" cert renew --config "$config" >/dev/null
    kill -HUP "$registry"
    wait_for 10 eval "[[ \$(openssl s_client -connect $SECOND:5000 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint) != '$before' ]]" ||
        fail "the certificate is still the old one"
    after=$(curl -fsS "https://$NAME.local:5000/v2/")
    same "still trusted" '{}' "$after"
}

# Whoever steals the CA's key can make certificates for other sites; who trusts the CA does not take them.
the_ca_is_of_no_use_for_other_sites() {
    sed '/BEGIN CERTIFICATE/,$d' "$tls/ca.pem" >stolen.key
    local name=forged.example.com client
    printf '%s %s %s.local %s\n' "$SECOND" "$NAME" "$NAME" "$name" >>/etc/hosts
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout forged.key -out forged.csr 2>/dev/null
    printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\n' "$name" >forged.ext
    openssl x509 -req -in forged.csr -CA "$tls/ca.crt" -CAkey stolen.key -CAcreateserial -days 2 -out forged.crt -extfile forged.ext 2>/dev/null
    refused 'permitted subtree violation' openssl verify -CAfile "$tls/ca.crt" forged.crt
    cat >forged.yml <<END
version: 0.1
storage: {filesystem: {rootdirectory: $STATE/forged}}
http: {addr: ":5001", tls: {certificate: $STATE/forged.crt, key: $STATE/forged.key}}
END
    background forged nsenter --net=/run/netns/pi "$REGISTRY_BINARY" serve "$STATE/forged.yml"
    local forged=${daemons[-1]}
    wait_for 30 curl -sk "https://$name:5001/v2/"
    mkdir -p "/etc/containers/certs.d/$name:5001"
    cp "$tls/ca.crt" "/etc/containers/certs.d/$name:5001/"
    refused 'not permitted by any constraint' skopeo_tool inspect "docker://$name:5001/app:1"
    refused 'certificate' curl -sS "https://$name:5001/v2/"
    refused 'permitted subtree violation' /usr/bin/python3 -c "import urllib.request as r; r.urlopen('https://$name:5001/v2/')"
    if command -v wget >/dev/null; then refused 'certificate' wget -O- "https://$name:5001/v2/"; fi
    # And over plain HTTP, a registry with a certificate of its owner's has no CA to give.
    same "no CA" 404 "$(curl -sS -o /dev/null -w '%{http_code}' "http://$name:5001/ca.crt")"
    kill "$forged"
    rm -r "/etc/containers/certs.d/$name:5001"
}

undo() {
    local output
    # Somebody has gone on writing in one of the files meanwhile.
    printf 'rewrites: {}\n' >>/etc/rancher/k3s/registries.yaml
    cp /etc/rancher/k3s/registries.yaml expected.yaml
    sh "/var/lib/registry-trust/registry-$NAME-local/trust" --undo --dry-run | contains "a dry run" '^nothing was changed'
    sh "/var/lib/registry-trust/registry-$NAME-local/trust" --undo | contains "the end" '^done: '
    printf 'rewrites: {}\n' >>before.yaml
    cmp before.yaml /etc/rancher/k3s/registries.yaml || fail "what somebody added got lost: $(cat /etc/rancher/k3s/registries.yaml)"
    sed -i '$d' /etc/rancher/k3s/registries.yaml
    unchanged before
    refused 'certificate' curl -sS "https://$NAME.local:5000/v2/"
    refused 'x509|certificate' skopeo_tool inspect "docker://$NAME.local:5000/skopeo:1"
    sh -c "$(line) --undo" 2>&1 | contains "a second time" 'there is nothing to take back'
    unchanged before
}
without_root() {
    chmod 711 "$LAB" "$STATE" "$TMPDIR"
    mkdir -p person
    chown nobody person
    line >the-line
    refused 'run it as root, or with --user' setpriv --reuid nobody --clear-groups env HOME="$STATE/person" TMPDIR="$STATE/person" PATH="$STATE/without-sudo" sh -c "$(cat the-line)"
    setpriv --reuid nobody --clear-groups env HOME="$STATE/person" TMPDIR="$STATE/person" sh -c "$(cat the-line) --user"
    [[ -s person/.config/containers/certs.d/$NAME.local:5000/registry-ca.crt ]] || fail "nothing for podman of this person"
    setpriv --reuid nobody --clear-groups env HOME="$STATE/person" TMPDIR="$STATE/person" sh -c "$(cat the-line) --user --undo"
    [[ -z $(find person -type f) ]] || fail "left: $(find person -type f)"
    unchanged before
}

at_address "$FIRST"
settings >before
cp /etc/rancher/k3s/registries.yaml before.yaml
mkdir -p without-sudo
for program in /usr/bin/* /bin/* /usr/sbin/*; do
    case ${program##*/} in sudo) ;; *) ln -sf "$program" "without-sudo/${program##*/}" ;; esac
done
start_registry

story "nobody trusts the registry at first" nobody_trusts
story "plain HTTP says what to do" plain_http_says_what_to_do
story "what came over plain HTTP runs nothing" a_copy_over_plain_http_runs_nothing
story "clients that use plain HTTP show it" clients_show_it
story "a wrong fingerprint stops with a sentence" a_wrong_fingerprint_stops
story "a man in the middle gets nothing executed" a_man_in_the_middle_runs_nothing
story "a dry run changes nothing" a_dry_run_changes_nothing
story "without root, for one person" without_root
story "the line makes this machine trust the registry, once" the_line
story "the files of k3s, buildkit and containerd say it" what_was_written_makes_sense
story "curl, wget and Python trust it" system_clients "$FIRST"
clients=()
if need skopeo; then clients+=(skopeo); fi
if need podman runc; then
    # In a shell of its own: it sets what curl trusts as well.
    # shellcheck source=tests/clients/storage.sh disable=SC2317
    (
        engine_trust() { :; }
        source "$here/storage.sh"
    )
    # shellcheck disable=SC2031
    export CONTAINERS_STORAGE_CONF=$STATE/containers/storage.conf CONTAINERS_REGISTRIES_CONF=$STATE/containers/registries.conf XDG_RUNTIME_DIR=$STATE/containers/xdg
    clients+=(podman)
fi
if need dockerd docker containerd; then
    export DOCKER_HOST=unix:///run/lan-docker.sock DOCKER_CONFIG=$STATE/docker-config
    mkdir -p "$DOCKER_CONFIG"
    printf '{}' >"$DOCKER_CONFIG/config.json"
    printf '{"storage-driver":"vfs"}' >daemon.json
    background dockerd dockerd --config-file "$STATE/daemon.json" --data-root "$STATE/docker" --exec-root /run/lan-docker --pidfile /run/lan-docker.pid \
        -H "$DOCKER_HOST" --iptables=false --ip6tables=false --bridge=none --cgroup-parent "/$LAB_TAG" --log-level warn
    if wait_for 30 docker version; then clients+=(docker); else report FAIL "dockerd starts" "" "$LAB/logs/lan-dockerd.log"; fi
    ctr=/run/lan-docker/containerd/containerd.sock
    if [[ -S $ctr ]]; then clients+=(containerd); fi
fi
for client in "${clients[@]}"; do story "$client pushes and pulls by the registry's name" "by_$client" 1 "$FIRST"; done
story "a new address gets a new certificate without a restart" a_new_address
for client in "${clients[@]}"; do story "$client goes on after the address changed" "by_$client" 2 "$SECOND"; done
story "a new host name, too" a_new_name
story "a renewal by hand is taken up" renewed_by_hand
story "the CA is of no use for other sites" the_ca_is_of_no_use_for_other_sites
story "--undo takes everything back, byte for byte" undo
