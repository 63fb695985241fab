# shellcheck shell=bash
# root.sh SCENE: the package in a Debian root of another architecture, emulated (arm64, armhf), or of another release (bullseye,
# trixie), and the program in it. (What the units forbid is not enforced here; that is tested in boot.sh.)

read -r suite arch variant _ <<<"$(root_of "$1")"
lend_root "$suite" "$arch" "$variant" "$1"
root=$WORK/$1/root
mount -t proc proc "$root/proc"
mkdir -p "$WORK/trust"
HOST=lab.local:5000

installs() {
    same "architecture" "$arch" "$(chroot "$root" dpkg --print-architecture)"
    same "release" "$suite" "$(sed -n 's/^VERSION_CODENAME=//p' "$root/etc/os-release")"
    cp "$(package "$arch")" "$root/root/registry.deb"
    # The essential packages are without apt.
    if [[ -e $root/usr/bin/apt-get ]]; then
        chroot "$root" apt-get install -y --no-install-recommends /root/registry.deb
    else
        chroot "$root" dpkg --install /root/registry.deb
    fi
    chroot "$root" registry --version | contains "version" '^registry [0-9]'
    chroot "$root" registry config check /etc/registry/config.yml
    same "owner of the images" "registry:registry 750" "$(chroot "$root" stat -c '%U:%G %a' /var/lib/registry)"
}

# What this release's systemd makes of the units; a setting that is too new for it would be said and left out.
units_are_understood() {
    chroot "$root" systemd-analyze verify /lib/systemd/system/registry.service /lib/systemd/system/registry.socket \
        /lib/systemd/system/registry-firstboot.service >"$WORK/said" 2>&1 || true
    same "complaints" "" "$(grep -E 'registry[a-z-]*\.(service|socket)' "$WORK/said" | grep -v "Command 'man " || true)"
}

# In a network of its own, as the service's user, as the units start it.
starts() {
    chroot "$root" setpriv --reuid registry --regid registry --clear-groups registry cert init --config /etc/registry/config.yml
    cp "$root/etc/registry/tls/ca.crt" "$WORK/trust/ca.crt"
    unshare --net --uts sh -c 'hostname lab && ip link set lo up && exec chroot "$0" setpriv --reuid registry --regid registry --clear-groups registry serve /etc/registry/config.yml' "$root" \
        >"$WORK/server.log" 2>&1 &
    echo $! >"$WORK/server"
    NET=$!
    wait_for 60 serves
}
serves() { request -o /dev/null -f "https://$HOST/v2/"; }

pushes_and_pulls() {
    NET=$(cat "$WORK/server")
    image "$WORK/$arch-$suite-image" "$arch" 8000000
    push "$WORK/$arch-$suite-image" "$HOST/app:v1"
    pull "$HOST/app:v1" "$WORK/$arch-$suite-pulled"
    same_image "$WORK/$arch-$suite-image" "$WORK/$arch-$suite-pulled"
}

ends() {
    local pid
    pid=$(cat "$WORK/server")
    kill -TERM "$pid"
    wait_for 30 gone "$pid"
    contains "the last line" 'stopped' <"$WORK/server.log"
}

goes() {
    chroot "$root" dpkg --remove registry
    present "$root/etc/registry/config.yml" "$root/var/lib/registry/docker"
    chroot "$root" dpkg --purge registry
    absent "$root/etc/registry"
    present "$root/var/lib/registry/docker"
}

printf '127.0.0.1 localhost lab.local\n' >"$WORK/hosts"
mount --bind "$WORK/hosts" /etc/hosts
tell "installs" installs
if [[ -e $root/usr/bin/systemd-analyze ]]; then tell "its units are understood" units_are_understood; fi
tell "makes its certificates and serves" starts
tell "pushes and pulls with no trust but in its CA" pushes_and_pulls
tell "ends in order" ends
tell "goes, and leaves the images" goes
if [[ -e $WORK/server ]]; then
    kill -KILL "$(cat "$WORK/server")" 2>/dev/null || true
    rm "$WORK/server"
fi
umount /etc/hosts "$root/proc"
