#!/usr/bin/env bash
# oras (oras-go): artifacts of any type, referrers, monolithic PUTs, HTTP/2 over TLS.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
need_new oras || exit 0
PATH=$NEW/bin:$PATH

push() {
    mkdir -p files/dir
    noise oras-one 700000 >files/one.bin
    noise oras-two 1200000 >files/dir/two.bin
    (
        cd files
        oras push --format json --artifact-type application/vnd.example.thing \
            "$TLS/oras/thing:1" one.bin:application/vnd.example.bin dir >../pushed.json
    )
    same "digest" "$(served "$TLS" oras/thing 1)" "$(jq -r .digest pushed.json)"
    same "resolved" "$(served "$TLS" oras/thing 1)" "$(oras resolve "$TLS/oras/thing:1")"
    manifest "$TLS" oras/thing 1 | jq -e '.artifactType == "application/vnd.example.thing" and .config.mediaType == "application/vnd.oci.empty.v1+json"'
}
pull() {
    rm -rf pulled
    oras pull -o pulled "$TLS/oras/thing@$(served "$TLS" oras/thing 1)"
    cmp files/one.bin pulled/one.bin
    cmp files/dir/two.bin pulled/dir/two.bin
}
untrusted() { refused 'x509|certificate' untrusting oras resolve "$TLS/oras/thing:1"; }
lists() {
    oras tag "$TLS/oras/thing:1" a b c-1.2_3
    same "tags" "1 a b c-1.2_3" "$(oras repo tags "$TLS/oras/thing" | in_order | xargs)"
    oras repo ls "$TLS" | contains "repositories" '^oras/thing$'
}
blobs() {
    local digest
    digest=sha256:$(sha256sum files/one.bin | cut -d ' ' -f 1)
    oras blob push "$TLS/oras/blobs" files/one.bin
    oras blob fetch --output fetched.bin "$TLS/oras/blobs@$digest"
    cmp files/one.bin fetched.bin
    oras blob delete --force "$TLS/oras/blobs@$digest"
    refused 'not found|404' oras blob fetch --output gone.bin "$TLS/oras/blobs@$digest"
    # The same blob in another repository stays.
    oras blob fetch --output fetched.bin "$TLS/oras/thing@$digest"
}
chart() {
    # What `helm push` sends: a configuration and a layer of Helm's types, and no artifactType.
    printf '{"name":"demo","version":"0.1.0","apiVersion":"v2"}' >config.json
    noise oras-chart 20000 >demo-0.1.0.tgz
    oras push --config config.json:application/vnd.cncf.helm.config.v1+json \
        "$TLS/oras/demo:0.1.0" demo-0.1.0.tgz:application/vnd.cncf.helm.chart.content.v1.tar+gzip
    oras manifest fetch-config "$TLS/oras/demo:0.1.0" | jq -e '.name == "demo"'
    oras pull -o chart "$TLS/oras/demo:0.1.0"
    cmp demo-0.1.0.tgz chart/demo-0.1.0.tgz
}
index() {
    local arch
    for arch in amd64 arm64; do
        noise "oras-$arch" 5000 >"$arch.bin"
        oras push --artifact-type application/vnd.example.thing --artifact-platform "linux/$arch" "$TLS/oras/multi:$arch" "$arch.bin"
    done
    oras manifest index create "$TLS/oras/multi:all" amd64 arm64
    manifest "$TLS" oras/multi all | jq -e '.manifests | length == 2'
    oras pull --platform linux/arm64 -o multi "$TLS/oras/multi:all"
    cmp arm64.bin multi/arm64.bin
    [[ ! -e multi/amd64.bin ]]
}
attach() {
    local subject
    subject=$(served "$TLS" oras/thing 1)
    printf '{"bom":1}\n' >sbom.json
    printf 'signature\n' >sig.txt
    oras attach --artifact-type application/vnd.example.sbom "$TLS/oras/thing@$subject" sbom.json
    oras attach --artifact-type application/vnd.example.signature --annotation who=me "$TLS/oras/thing@$subject" sig.txt
    # A referrer of a referrer.
    oras discover --format json "$TLS/oras/thing@$subject" >discovered.json
    oras attach --artifact-type application/vnd.example.signature \
        "$TLS/oras/thing@$(jq -r '.referrers[] | select(.artifactType == "application/vnd.example.sbom").digest' discovered.json)" sig.txt
    oras discover --format json "$TLS/oras/thing@$subject" >discovered.json
    jq -e '[.referrers[].artifactType] | sort == ["application/vnd.example.sbom", "application/vnd.example.signature"]' discovered.json
    jq -e '[.referrers[] | select(.artifactType == "application/vnd.example.sbom").referrers[]] | length == 1' discovered.json
    oras discover --format json --artifact-type application/vnd.example.sbom "$TLS/oras/thing@$subject" | jq -e '.referrers | length == 1'
    oras pull -o sbom "$TLS/oras/thing@$(jq -r '.referrers[] | select(.artifactType == "application/vnd.example.sbom").digest' discovered.json)"
    cmp sbom.json sbom/sbom.json
}
api() {
    local subject digest
    subject=$(served "$TLS" oras/thing 1)
    # No tag scheme: nothing but what was pushed and tagged is listed.
    same "tags" "1 a b c-1.2_3" "$(tags "$TLS" oras/thing)"
    curl -fsS "https://$TLS/v2/oras/thing/referrers/$subject" | jq -e '.mediaType == "application/vnd.oci.image.index.v1+json" and (.manifests | length == 2)'
    curl -fsS "https://$TLS/v2/oras/thing/referrers/$subject" | jq -e '.manifests[] | select(.annotations.who == "me").artifactType == "application/vnd.example.signature"'
    # What a client asks to learn whether the API is there.
    digest=sha256:$(printf '0%.0s' {1..64})
    curl -fsS "https://$TLS/v2/oras/thing/referrers/$digest" | jq -e '.manifests == []'
    oras discover --distribution-spec v1.1-referrers-api --format json "$TLS/oras/thing@$subject" | jq -e '.referrers | length == 2'
}
tag_scheme() {
    local subject digest
    noise oras-old 3000 >old.bin
    oras push --artifact-type application/vnd.example.thing "$TLS/oras/old:1" old.bin
    subject=$(served "$TLS" oras/old 1)
    oras attach --distribution-spec v1.1-referrers-tag --artifact-type application/vnd.example.sbom "$TLS/oras/old@$subject" sbom.json
    tags "$TLS" oras/old | contains "tags" "sha256-${subject#sha256:}"
    oras discover --distribution-spec v1.1-referrers-tag --format json "$TLS/oras/old@$subject" | jq -e '.referrers | length == 1'
}
copy() { # recursively, with referrers: within the registry, out to a layout, and back from there
    local subject
    subject=$(served "$TLS" oras/thing 1)
    oras cp -r "$TLS/oras/thing:1" "$TLS/oras/copied:1"
    same "digest of the copy" "$subject" "$(served "$TLS" oras/copied 1)"
    oras cp -r --to-oci-layout "$TLS/oras/copied:1" layout:1
    oras cp -r --from-oci-layout layout:1 "$TLS/oras/back:1"
    same "digest back from the layout" "$subject" "$(served "$TLS" oras/back 1)"
    oras discover --format json "$TLS/oras/back:1" >back.json
    same "referrers" "$(jq -c '[.referrers[].digest] | sort' discovered.json)" "$(jq -c '[.referrers[].digest] | sort' back.json)"
}
delete() {
    local subject digest
    subject=$(served "$TLS" oras/copied 1)
    digest=$(jq -r '.referrers[] | select(.artifactType == "application/vnd.example.signature").digest' discovered.json)
    oras manifest delete --force "$TLS/oras/copied@$digest"
    oras discover --format json "$TLS/oras/copied@$subject" | jq -e '[.referrers[].artifactType] == ["application/vnd.example.sbom"]'
    oras manifest delete --force "$TLS/oras/copied@$subject"
    refused 'not found|404' oras resolve "$TLS/oras/copied@$subject"
    refused 'not found|404' oras pull -o gone "$TLS/oras/copied:1"
}
plain() { # HOST: with --plain-http, whatever else speaks there
    local name=oras/plain
    oras push --plain-http --artifact-type application/vnd.example.thing "$1/$name:1" files/one.bin:application/vnd.example.bin --disable-path-validation
    same "digest" "$(curl -fsS -H "Accept: $manifest_types" "http://$1/v2/$name/manifests/1" | sha256sum | cut -d ' ' -f 1)" \
        "$(oras resolve --plain-http "$1/$name:1" | cut -d : -f 2)"
    oras cp --from-plain-http --to-plain-http "$1/$name:1" "$1/$name-copy:1"
    oras manifest fetch --plain-http "$1/$name-copy:1" | jq -e '.layers | length == 1'
}
mount() {
    plain "$RELAY"
    mounted oras/plain-copy
}

story "refuses a certificate of an unknown CA" untrusted
story "pushes an artifact of files and folders" push
story "pulls it by digest, byte for byte" pull
story "tags and lists" lists
story "pushes, fetches and deletes blobs" blobs
story "pushes and pulls what helm would" chart
story "makes an index and pulls one platform of it" index
story "attaches and discovers, also referrers of referrers" attach
our_story "finds the referrers API, leaves no fallback tags" api
story "keeps referrers by the tag scheme when told to" tag_scheme
story "copies recursively: across, out to a layout, and back" copy
story "deletes a referrer and the subject" delete
story "pushes over plain HTTP and mounts when it copies" mount
our_story "speaks plain HTTP to the port of TLS" plain "$TLS"
