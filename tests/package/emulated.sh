# shellcheck shell=bash
# emulated.sh ARCH: the package in a Debian root of that architecture, and the program in it, run by the emulator. (Emulated, the kernel
# does not enforce what the units forbid; that is tested in boot.sh.)

arch=$1
make_root "$arch" essential systemd-standalone-sysusers systemd-standalone-tmpfiles init-system-helpers
lend_root "$arch" essential "$arch"
root=$WORK/$arch/root
mount -t proc proc "$root/proc"
mkdir -p "$WORK/trust"
readonly HOST=lab.local:5000

installs() {
    same "architecture" "$arch" "$(chroot "$root" dpkg --print-architecture)"
    cp "$(package "$arch")" "$root/root/registry.deb"
    chroot "$root" dpkg --install /root/registry.deb
    chroot "$root" registry --version | contains "version" '^registry [0-9]'
    chroot "$root" registry config check /etc/registry/config.yml
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
    image "$WORK/$arch-image" "$arch" 8000000
    push "$WORK/$arch-image" "$HOST/app:v1"
    pull "$HOST/app:v1" "$WORK/$arch-pulled"
    same_image "$WORK/$arch-image" "$WORK/$arch-pulled"
}

ends() {
    local pid
    pid=$(cat "$WORK/server")
    kill -TERM "$pid"
    wait_for 30 gone "$pid"
    contains "the last line" 'stopped' <"$WORK/server.log"
}

printf '127.0.0.1 localhost lab.local\n' >"$WORK/hosts"
mount --bind "$WORK/hosts" /etc/hosts
tell "installs" installs
tell "makes its certificates and serves" starts
tell "pushes and pulls with no trust but in its CA" pushes_and_pulls
tell "ends in order" ends
kill -KILL "$(cat "$WORK/server")" 2>/dev/null || true
umount /etc/hosts "$root/proc"
