# shellcheck shell=bash disable=SC2154,SC2034 # what lib.sh and the callers set, and what they read
# Registries where some things are public and others are not, and clients as five functions each: what the families about tokens
# stand on. The caller sets `ports`, the first three digits of the four ports that it uses.
: "${ports:?}"
PATH=$PATH:$NEW/bin
mixed=$REGISTRY_HOST:${ports}0 mixed_plain=127.0.0.1:${ports}1 external=127.0.0.1:${ports}2 token_port=${ports}3
new=$NEW/bin

# ---- the registries ----

# shellcheck disable=SC2016 # a hash
printf 'alice:%s\n' '$2y$05$BXbd5nEN1ZJKkAe3zoV6M.DvRtFPrN1AV.9NCqQKA3IyDOsTUVEaC' >htpasswd # wonderland

# registry NAME ADDRESS SECTIONS [COMMAND-TO-ENTER...]
registry() {
    local name=$1 address=$2 sections=$3 scheme=http
    shift 3
    [[ $sections != *certificate:* ]] || scheme=https
    {
        printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\n' "$LAB/data/$FAMILY-$name"
        printf 'http:\n  addr: %s\n%s\n' "$address" "$sections"
    } >"$name.yml"
    # shellcheck disable=SC2086 # a command with arguments
    background "$name" env -u REGISTRY_CMD -u REGISTRY_KIND -u REGISTRY_HOST -u REGISTRY_PORT -u SSL_CERT_FILE "$@" $REGISTRY_CMD "$STATE/$name.yml"
    if ! wait_for 20 answers "$scheme://${address/10.77.0.2/$REGISTRY_HOST}/v2/"; then
        report FAIL "a registry with rules starts" "" "$LAB/logs/$FAMILY-$name.log"
        exit 0
    fi
}
answers() { [[ $(command curl -sS --max-time 2 --cacert "$LAB/state/tls/ca.crt" -o /dev/null -w '%{http_code}' "$1") == [24]* ]]; }

rules="access:
  - {who: anyone, repositories: 'public/**', allow: pull}
  - {who: users, allow: all}
  - {who: robots, allow: push}
auth:
  htpasswd:
    realm: Registry
    path: $STATE/htpasswd"
registry mixed-tls "10.77.0.2:${ports}0" "  tls:
    certificate: $LAB/state/tls/server.crt
    key: $LAB/state/tls/server.key
$rules" nsenter --net=/run/netns/srv
registry mixed-plain "$mixed_plain" "$rules"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens.test -keyout tokens.key -out tokens.crt 2>/dev/null
background tokens /usr/bin/python3 -I "$here/token_server.py" "$token_port" "$STATE/tokens.key" "$STATE/tokens.crt"
registry external "$external" "auth:
  token:
    realm: http://127.0.0.1:$token_port/token
    service: registry.test
    issuer: tokens.test
    rootcertbundle: $STATE/tokens.crt"
wait_for 10 answers "http://127.0.0.1:$token_port/token?service=x"

# Where engines look for the CA; they must not find it in the pool of the machine.
for dir in /etc/docker /etc/containers; do
    mkdir -p "$dir/certs.d/$mixed"
    cp "$LAB/state/tls/ca.crt" "$dir/certs.d/$mixed/ca.crt"
done

# ---- what every client is asked to do ----

# Who logs in.
user=alice

rootfs root login 200000
tar -C root --sort=name --mtime=@0 --owner=0 --group=0 -cf root.tar .
no='[Uu]nauthorized|UNAUTHORIZED|[Dd]enied|DENIED|401|403|authentication required|insufficient_scope|no basic auth'
wrong='incorrect username or password|invalid username/password|UNAUTHORIZED|[Uu]nauthorized|401'

# The client of a story is five functions: NAME_login HOST PASSWORD, NAME_logout HOST, NAME_push and NAME_pull HOST REPOSITORY, and
# NAME_forget, which takes away what it has pulled and remembers.
mix() { # NAME HOST
    local client=$1 host=$2
    "${client}_forget"
    "${client}_pull" "$host" public/app
    refused "$no" "${client}_push" "$host" "public/$client"
    refused "$no" "${client}_pull" "$host" secret/app
    # Not all of them ask whether it is right before they keep it.
    refused "$wrong" try_wrong "$client" "$host"
    "${client}_logout" "$host" || true
    "${client}_login" "$host" wonderland
    "${client}_push" "$host" "public/$client"
    "${client}_push" "$host" "secret/$client"
    "${client}_forget"
    "${client}_pull" "$host" secret/app
    "${client}_pull" "$host" "secret/$client"
    "${client}_logout" "$host"
    "${client}_forget"
    refused "$no" "${client}_pull" "$host" "secret/$client"
    "${client}_pull" "$host" "public/$client"
    # Elsewhere: some of them push nothing where all of it is already.
    refused "$no" "${client}_push" "$host" "public/$client-out"
}
try_wrong() { "$1_login" "$2" looking-glass && "$1_push" "$2" "public/$1"; }

# Nobody asks for tokens again and again, or the same thing after each of some seconds.
denied_at_once() {
    local SECONDS=0
    refused '[Dd]enied|DENIED|insufficient_scope' "$@"
    ((SECONDS <= 3)) || fail "$* took $SECONDS s to be refused"
}

# The same with an API key, which is made here and pushes below robots/ alone.
robot() { # NAME HOST
    local client=$1 host=$2 user=robot+$1 key
    # shellcheck disable=SC2086 # a command with arguments
    [[ -e robot-$client ]] || env -u REGISTRY_CMD -u REGISTRY_KIND -u REGISTRY_HOST -u REGISTRY_PORT ${REGISTRY_CMD% serve} robot add "$client" --config "$STATE/mixed-tls.yml" \
        --repo 'robots/**' --allow push --expires 1d >"robot-$client"
    key=$(cat "robot-$client")
    # It looks at its files twice a second.
    wait_for 10 command curl -fsS --max-time 2 --cacert "$LAB/state/tls/ca.crt" -u "$user:$key" "https://$mixed/v2/"
    "${client}_forget"
    "${client}_login" "$host" "$key"
    "${client}_push" "$host" "robots/$client"
    denied_at_once "${client}_push" "$host" "secret/by-$client"
    "${client}_forget"
    "${client}_pull" "$host" "robots/$client"
    "${client}_logout" "$host"
    "${client}_forget"
    refused "$no" "${client}_push" "$host" "robots/$client-out"
    refused "$no" "${client}_pull" "$host" "robots/$client"
}

both() { # NAME WORDS
    story "$2 logs in beside what is public, over TLS" mix "$1" "$mixed"
    story "$2 logs in beside what is public, over plain HTTP to this machine" mix "$1" "$mixed_plain"
}

trusting() { SSL_CERT_FILE=$LAB/state/tls/ca.crt "$@"; }

# crane speaks plain HTTP to this machine by itself.
crane() { DOCKER_CONFIG=$STATE/crane trusting "$new/crane" "$@"; }
crane_login() { crane auth login "$1" -u "$user" -p "$2"; }
crane_logout() { crane auth logout "$1"; }
crane_push() { crane append -f root.tar -t "$1/$2:1"; }
crane_pull() { crane export "$1/$2:1" - | tar -tf - payload; }
crane_forget() { :; }

oras() { DOCKER_CONFIG=$STATE/oras trusting "$new/oras" "$@"; }
oras_plain() { [[ $1 == "$mixed" ]] || echo --plain-http; }
# shellcheck disable=SC2046 # nothing or one word
oras_login() { oras login $(oras_plain "$1") -u "$user" --password-stdin "$1" <<<"$2"; }
oras_logout() { oras logout "$1"; }
# shellcheck disable=SC2046
oras_push() { oras push $(oras_plain "$1") "$1/$2:1" root.tar; }
# shellcheck disable=SC2046
oras_pull() { oras pull $(oras_plain "$1") -o oras-pulled "$1/$2:1"; }
oras_forget() { rm -rf oras-pulled; }

# The three of containers/image: verify says what their TLS option is called.
verify() { if [[ $1 == "$mixed" ]]; then echo "--$2=true"; else echo "--$2=false"; fi; }
skopeo() { "$skopeo" --tmpdir "$TMPDIR" "$@"; }
skopeo_login() { skopeo login "$(verify "$1" tls-verify)" --authfile "$STATE/skopeo.json" -u "$user" -p "$2" "$1"; }
skopeo_logout() { skopeo logout --authfile "$STATE/skopeo.json" "$1"; }
skopeo_push() { skopeo copy "$(verify "$1" dest-tls-verify)" --authfile "$STATE/skopeo.json" "tarball:root.tar" "docker://$1/$2:1"; }
skopeo_pull() {
    rm -rf skopeo-pulled
    skopeo copy "$(verify "$1" src-tls-verify)" --authfile "$STATE/skopeo.json" "docker://$1/$2:1" dir:skopeo-pulled
}
# What it pulls goes into a folder of its own.
skopeo_forget() { rm -rf skopeo-pulled; }

engine() { REGISTRY_AUTH_FILE=$STATE/${engine##*/}.json "$engine" "$@"; }
engine_login() { engine login "$(verify "$1" tls-verify)" -u "$user" -p "$2" "$1"; }
engine_logout() { engine logout "$1"; }
engine_push() { engine push "$(verify "$1" tls-verify)" "$local_image" "docker://$1/$2:1"; }
engine_pull() { engine pull "$(verify "$1" tls-verify)" "$1/$2:1"; }
engine_forget() {
    local image name=Repository
    [[ $engine != */buildah ]] || name=Name
    for image in $(engine images --format "{{.$name}}:{{.Tag}}" | grep -v '^localhost/' || true); do engine rmi --force "$image"; done
}

docker() { DOCKER_CONFIG=$STATE/docker command "$docker" "$@"; }
docker_login() { docker login -u "$user" --password-stdin "$1" <<<"$2"; }
docker_logout() { docker logout "$1"; }
docker_push() {
    docker import root.tar "$1/$2:1" && docker push "$1/$2:1"
}
docker_pull() { docker pull "$1/$2:1"; }
docker_forget() { docker image ls -q | sort -u | xargs --no-run-if-empty "$docker" image rm --force; }

# It is told user and password with each command. A newer one leaves the work to the daemon, which finds the CA in a folder.
ctr_hosts=
ctr() { "$ctr" -a "$socket" -n "$LAB_TAG" images "$@"; }
ctr_options() {
    if [[ $1 != "$mixed" ]]; then
        echo --plain-http
    elif [[ -n $ctr_hosts ]]; then
        printf '%s\n' --hosts-dir "$ctr_hosts"
    else
        printf '%s\n' --tlscacert "$LAB/state/tls/ca.crt"
    fi
    if [[ -n ${ctr_password-} ]]; then printf '%s\n' --user "$user:$ctr_password"; fi
}
ctr_login() { ctr_password=$2; }
ctr_logout() { ctr_password=; }
ctr_push() {
    local options
    mapfile -t options < <(ctr_options "$1")
    ctr import --all-platforms --no-unpack archive.tar
    ctr tag --force archive.test/app:1 "$1/$2:1"
    ctr push "${options[@]}" "$1/$2:1"
}
ctr_pull() {
    local options
    mapfile -t options < <(ctr_options "$1")
    ctr pull "${options[@]}" --all-platforms "$1/$2:1"
}
ctr_forget() {
    local image
    for image in $(ctr ls -q); do ctr rm --sync "$image"; done
}

for name in skopeo podman buildah; do echo '{}' >"$name.json"; done

seed() {
    local host
    crane_login "$external" wonderland
    for host in "$mixed" "$mixed_plain"; do
        crane_login "$host" wonderland
        crane_push "$host" public/app
        crane_push "$host" secret/app
        # Who sends a password unasked needs no token.
        curl -fsS -u alice:wonderland "$(scheme "$host")://$host/v2/_catalog" | jq -e '.repositories == ["public/app", "secret/app"]'
        crane_logout "$host"
    done
    crane_push "$external" public/app
    crane_push "$external" secret/app
    crane catalog "$external" | contains "the catalog" '^secret/app$'
    crane_logout "$external"
    crane pull --format=tarball "$mixed/public/app:1" archive.tar
    (cd "$STATE" && mkdir -p archive && tar -C archive -xf archive.tar && sed -i "s|$mixed/public/app:1|archive.test/app:1|" archive/manifest.json && tar -C archive -cf archive.tar .)
}
scheme() { if [[ $1 == "$mixed" ]]; then echo https; else echo http; fi; }
external() { # NAME
    mix "$1" "$external"
}
over_plain_elsewhere() { # a password is not asked for, nor taken, where others could read it
    same "the token server, from another machine by plain HTTP" 403 "$(curl -sS -o /dev/null -w '%{http_code}' -u alice:wonderland "http://$mixed/auth/token")"
}

