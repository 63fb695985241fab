#!/usr/bin/env bash
# skopeo (containers/image), Debian's 1.9 and a newer one: copies in every direction and format, inspects, synchronises, deletes.
# shellcheck source=tests/clients/lib.sh
source "$(dirname "$0")/lib.sh"
engine_trust

# layout DIR ARCH SEED: an OCI layout with one image, by hand, so that this family needs no other client.
layout() {
    local dir=$1 arch=$2 seed=$3 name sum size layers=() diffs=()
    blob() {
        sum=$(sha256sum "$1" | cut -d ' ' -f 1)
        size=$(stat -c %s "$1")
        mv "$1" "$dir/blobs/sha256/$sum"
    }
    mkdir -p "$dir/blobs/sha256"
    for name in base top; do
        rm -rf one
        rootfs one "$seed-$name" 900000
        tar -C one --sort=name --mtime=@0 --owner=0 --group=0 -cf one.tar .
        diffs+=("\"sha256:$(sha256sum one.tar | cut -d ' ' -f 1)\"")
        gzip -n1f one.tar
        blob one.tar.gz
        layers+=("{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$sum\",\"size\":$size}")
    done
    printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%s]},"history":[{"created_by":"base"},{"created_by":"top"}]}' "$arch" "$(IFS=, && echo "${diffs[*]}")" >one.json
    blob one.json
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' \
        "$sum" "$size" "$(IFS=, && echo "${layers[*]}")" >one.json
    blob one.json
    printf '{"imageLayoutVersion":"1.0.0"}' >"$dir/oci-layout"
    printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"}}' "$sum" "$size" "$arch" >"$dir/descriptor"
    printf '{"schemaVersion":2,"manifests":[%s]}' "$(cat "$dir/descriptor")" >"$dir/index.json"
}
# two_platforms DIR: amd64 and arm64 in an index of their own.
two_platforms() {
    local sum
    layout "$1" amd64 skopeo-amd64
    mv "$1/descriptor" amd64.descriptor
    layout "$1" arm64 skopeo-arm64
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s,%s]}' "$(cat amd64.descriptor)" "$(cat "$1/descriptor")" >index
    sum=$(sha256sum index | cut -d ' ' -f 1)
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:%s","size":%s}]}' "$sum" "$(stat -c %s index)" >"$1/index.json"
    mv index "$1/blobs/sha256/$sum"
}

tool() { "$skopeo" --tmpdir "$TMPDIR" "$@"; }
plain=(--tls-verify=false)
plain_both=(--src-tls-verify=false --dest-tls-verify=false)

untrusted() { refused 'x509|certificate' tool inspect "docker://$UNTRUSTED/skopeo/app-$version:1"; }
push() {
    tool copy --digestfile pushed "oci:image" "docker://$TLS/skopeo/app-$version:1"
    same "digest" "$(served "$TLS" "skopeo/app-$version" 1)" "$(cat pushed)"
    same "digest of the layout" "$(jq -r '.manifests[0].digest' image/index.json)" "$(cat pushed)"
}
pull() {
    # skopeo remembers which blobs are where; without that it has to ask.
    rm -rf pulled "$HOME/.local" /var/lib/containers/cache
    tool copy "docker://$TLS/skopeo/app-$version@$(cat pushed)" oci:pulled
    same "digest pulled" "$(cat pushed)" "$(jq -r '.manifests[0].digest' pulled/index.json)"
    diff <(cd image/blobs/sha256 && sha256sum -- *) <(cd pulled/blobs/sha256 && sha256sum -- *)
    rm -rf dir
    tool copy "docker://$TLS/skopeo/app-$version:1" dir:dir
    (cd dir && for blob in [0-9a-f]*; do printf '%s  %s\n' "$blob" "$blob"; done | sha256sum --check --quiet)
}
inspect() {
    tool copy "docker://$TLS/skopeo/app-$version:1" "docker://$TLS/skopeo/app-$version:2"
    same "digest as inspected" "$(cat pushed)" "$(tool inspect "docker://$TLS/skopeo/app-$version:1" | jq -r .Digest)"
    tool inspect "docker://$TLS/skopeo/app-$version:1" | jq -e '.Architecture == "amd64" and (.Layers | length == 2)'
    same "tags" "1 2" "$(tool list-tags "docker://$TLS/skopeo/app-$version" | jq -r '.Tags[]' | in_order | xargs)"
    tool inspect --raw "docker://$TLS/skopeo/app-$version:1" | sha256sum | contains "the raw manifest" "^$(cut -d : -f 2 pushed) "
}
formats() {
    local format
    for format in v2s2 oci; do
        tool copy --format "$format" oci:image "docker://$TLS/skopeo/formats-$version:$format"
        served "$TLS" "skopeo/formats-$version" "$format"
    done
    manifest "$TLS" "skopeo/formats-$version" v2s2 | jq -e '.mediaType == "application/vnd.docker.distribution.manifest.v2+json"'
    tool copy --dest-compress-format zstd --dest-compress --format oci dir:dir "docker://$TLS/skopeo/formats-$version:zstd"
    served "$TLS" "skopeo/formats-$version" zstd
    manifest "$TLS" "skopeo/formats-$version" zstd | jq -e '.layers | length == 2'
    tool inspect "docker://$TLS/skopeo/formats-$version:v2s2" | jq -e '.Layers | length == 2'
}
schema1() { # a format of the past: refused, as the client's fault
    refused 'manifest invalid|MANIFEST_INVALID|unsupported|schema' tool copy --format v2s1 oci:image "docker://$TLS/skopeo/formats-$version:v2s1"
    same "GET of what was refused" 404 "$(status GET "$TLS" "/v2/skopeo/formats-$version/manifests/v2s1")"
}
multi() {
    local digest=$multi_digest
    tool copy --all oci:multi "docker://$TLS/skopeo/multi-$version:1"
    same "digest" "$digest" "$(served "$TLS" "skopeo/multi-$version" 1)"
    rm -rf multi-pulled
    tool copy --all "docker://$TLS/skopeo/multi-$version:1" oci:multi-pulled
    diff <(cd multi/blobs/sha256 && sha256sum -- *) <(cd multi-pulled/blobs/sha256 && sha256sum -- *)
    same "architecture" arm64 "$(tool --override-arch arm64 inspect "docker://$TLS/skopeo/multi-$version:1" | jq -r .Architecture)"
}
sync_all() {
    rm -rf mirror
    mkdir mirror
    tool sync --all --scoped --src docker --dest dir "$TLS/skopeo/multi-$version" mirror
    [[ -f mirror/$TLS/skopeo/multi-$version:1/manifest.json ]]
    tool sync --all --src dir --dest docker "mirror/$TLS/skopeo" "$TLS/skopeo/synced"
    same "digest after both ways" "$multi_digest" "$(served "$TLS" "skopeo/synced/multi-$version" 1)"
}
mount() {
    tool copy "${plain[@]/--tls/--dest-tls}" oci:image "docker://$RELAY/skopeo/plain-$version:1"
    same "digest" "$(cat pushed)" "$(served "$RELAY" "skopeo/plain-$version" 1)"
    tool copy "${plain_both[@]}" "docker://$RELAY/skopeo/plain-$version:1" "docker://$RELAY/skopeo/mounted-$version:1"
    mounted "skopeo/mounted-$version"
    rm -rf pulled-plain
    tool copy "${plain[@]/--tls/--src-tls}" "docker://$RELAY/skopeo/mounted-$version:1" oci:pulled-plain
    same "digest pulled" "$(cat pushed)" "$(jq -r '.manifests[0].digest' pulled-plain/index.json)"
}
resume() {
    # Layers have to be larger than what the relay lets through.
    mkdir -p wide
    rootfs wide "skopeo-wide-$version" 6000000
    tar -C wide -cf wide.tar .
    tool copy --dest-tls-verify=false "tarball:wide.tar" "docker://$RELAY/skopeo/cut/$version:1"
    rm -rf wide-pulled
    tool copy --src-tls-verify=false "docker://$RELAY/skopeo/cut/$version:1" oci:wide-pulled
    resumed "skopeo/cut/$version"
    same "digest" "$(served "$RELAY" "skopeo/cut/$version" 1)" "$(jq -r '.manifests[0].digest' wide-pulled/index.json)"
    (cd wide-pulled/blobs/sha256 && for blob in *; do printf '%s  %s\n' "$blob" "$blob"; done | sha256sum --check --quiet)
}
delete() {
    tool delete "docker://$TLS/skopeo/app-$version:2"
    same "GET of the tag" 404 "$(status GET "$TLS" "/v2/skopeo/app-$version/manifests/2")"
    same "GET of the digest" 404 "$(status GET "$TLS" "/v2/skopeo/app-$version/manifests/$(cat pushed)")"
    refused 'manifest unknown' tool inspect "docker://$TLS/skopeo/app-$version:1"
    # The same blobs elsewhere stay.
    rm -rf elsewhere
    tool copy "docker://$TLS/skopeo/formats-$version:oci" oci:elsewhere
}

stories() { # VERSION PROGRAM
    version=$1 skopeo=$2
    story "$version refuses a certificate of an unknown CA" untrusted
    story "$version pushes a layout" push
    story "$version pulls by digest and by tag, every blob compared" pull
    story "$version inspects, copies to a tag, lists tags" inspect
    story "$version pushes Docker's and OCI's formats, gzip and zstd" formats
    our_story "$version is told that schema 1 is not taken" schema1
    story "$version copies all platforms of an index" multi
    story "$version synchronises out to a folder and back in" sync_all
    story "$version pushes over plain HTTP, mounts when it copies" mount
    # 1.9 starts again from the beginning, and fails.
    [[ $version == 1.9 ]] || story "$version goes on where a download was cut off" resume
    story "$version deletes an image and all its tags" delete
}

layout image amd64 skopeo-image
two_platforms multi
multi_digest=$(jq -r '.manifests[0].digest' multi/index.json)
if need skopeo; then stories 1.9 "$(command -v skopeo)"; fi
if need_new skopeo; then stories new "$NEW/bin/skopeo"; fi
