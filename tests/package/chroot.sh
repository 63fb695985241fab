# shellcheck shell=bash
# Where no systemd runs: while an image for an SD card is built, for example.

lend_root bookworm amd64 minbase chroot
root=$WORK/chroot/root
mount -t proc proc "$root/proc"

installs() {
    cp "$(package amd64)" "$root/root/registry.deb"
    chroot "$root" apt-get install -y --no-install-recommends /root/registry.deb
    chroot "$root" systemctl is-enabled registry.service
    same "the socket" disabled "$(chroot "$root" systemctl is-enabled registry.socket || true)"
    same "owner of the images" "registry:registry 750" "$(chroot "$root" stat -c '%U:%G %a' /var/lib/registry)"
    same "owner of the certificates" "registry:registry 755" "$(chroot "$root" stat -c '%U:%G %a' /etc/registry/tls)"
    ! pgrep -x registry
}

has_what_is_read() {
    local path
    chroot "$root" registry --version | contains "version" '^registry [0-9]'
    chroot "$root" registry config check /etc/registry/config.yml
    chroot "$root" bash -c 'source /usr/share/bash-completion/completions/registry && complete -p registry'
    # path-exclude of the root keeps man pages out; the package has them.
    for path in man1/registry.1.gz man1/registry-serve.1.gz man5/registry-config.5.gz man8/registry.8.gz; do
        dpkg-deb --fsys-tarfile "$(package amd64)" | tar -xO "./usr/share/man/$path" | gzip -d >"$WORK/page"
        man --warnings -l "$WORK/page" >/dev/null 2>"$WORK/warnings"
        same "complaints about $path" "" "$(cat "$WORK/warnings")"
    done
}

refuses_armv6() {
    printf '#!/bin/sh\necho armv6l\n' >"$root/usr/local/bin/uname"
    chmod 755 "$root/usr/local/bin/uname"
    dpkg-deb --ctrl-tarfile "$(package amd64)" | tar -xO ./preinst >"$root/root/preinst"
    local status=0
    chroot "$root" env PATH="/usr/local/bin:$PATH" sh /root/preinst install 2>"$WORK/said" || status=$?
    rm "$root/usr/local/bin/uname"
    same "status" 1 "$status"
    contains "what it says" 'ARMv7' <"$WORK/said"
}

goes() {
    touch "$root/var/lib/registry/image"
    chroot "$root" apt-get remove -y registry
    present "$root/etc/registry/config.yml" "$root/var/lib/registry/image"
    absent "$root/usr/bin/registry"
    chroot "$root" apt-get purge -y registry
    absent "$root/etc/registry"
    present "$root/var/lib/registry/image"
    same "links to its units" "" "$(find "$root/etc/systemd" -name 'registry*')"
}

tell "installs where no systemd runs, enabled and not started" installs
tell "its commands, manual and completions are there" has_what_is_read
tell "refuses ARMv6 with a sentence" refuses_armv6
tell "remove and purge leave the images" goes
umount "$root/proc"
