# shellcheck shell=bash
# A whole Debian with systemd as its first process, in a container: what `apt install` leaves on a machine, and how that lives.

lend_root bookworm amd64 minbase boot
root=$WORK/boot/root
# Nothing of the system's own may write while nobody asks for anything, or want a network.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-networkd-wait-online.service; do
    ln -s /dev/null "$root/etc/systemd/system/$unit"
done
mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system/registry.service.d"
printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/test.conf"
mkdir -p "$WORK/trust"
HOST=lab.local:5000

# Boots it; its first process, as this namespace counts, is $NET from then on. This machine's own systemd, if it has one, is not asked.
power_on() {
    local hierarchy container
    # On a machine without systemd nobody has made a control group for it.
    for hierarchy in systemd unified; do
        if [[ -d /sys/fs/cgroup/$hierarchy ]]; then
            mkdir -p "/sys/fs/cgroup/$hierarchy/registry-test-$$"
            echo "$BASHPID" >"/sys/fs/cgroup/$hierarchy/registry-test-$$/cgroup.procs"
        fi
    done
    systemd-nspawn --quiet --directory="$root" --machine="registry-test-$$" --boot --register=no --keep-unit --console=pipe --private-network \
        </dev/null >>"$WORK/console" 2>&1 &
    container=$!
    echo "$container" >"$WORK/container"
    wait_for 30 pgrep --parent "$container" --oldest >/dev/null
    NET=$(pgrep --parent "$container" --oldest)
    # The CA, the certificates and clients speak of this name.
    nsenter --net="/proc/$NET/ns/net" ip link set lo up
    wait_for 90 booted
}
booted() { [[ $(on systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]; }
power_off() {
    # The manager may be gone before it has answered.
    on systemctl poweroff || true
    wait_for 90 gone "$(cat "$WORK/container")"
}
# on COMMAND...: on that machine.
on() { nsenter --target "$NET" --mount --uts --ipc --net --pid --root --wd -- "$@" </dev/null; }
of_service() { on systemctl show --property "$1" --value registry.service; }
active() { [[ $(of_service ActiveState) == active ]]; }
serves() { request -o /dev/null -f "https://$HOST/v2/" 2>/dev/null; }
log() { on journalctl --quiet --no-pager --output cat --unit registry.service "$@"; }
# The CA as a person would bring it to another machine, and the name that the other machine knows.
trust() {
    cp "$root/etc/registry/tls/ca.crt" "$WORK/trust/ca.crt"
}

installs() {
    cp "$(package amd64)" "$(package amd64 "*+next")" "$root/root/"
    on apt-get install -y --no-install-recommends "/root/$(basename "$(package amd64)")"
    active
    trust
    request -f "https://$HOST/v2/" >/dev/null
    [[ $(on systemctl is-enabled registry.service) == enabled ]]
    same "failed units" "" "$(on systemctl list-units --failed --plain --no-legend | grep registry || true)"
    of_service StatusText | contains "status" 'serving /var/lib/registry on https://'
}

pushes_and_pulls() {
    image "$WORK/image" one 3000000
    push "$WORK/image" "$HOST/app:v1"
    pull "$HOST/app:v1" "$WORK/pulled"
    same_image "$WORK/image" "$WORK/pulled"
}

tells_of_itself() {
    on journalctl --quiet --no-pager --output cat --unit registry-firstboot.service | contains "the first boot's journal" '[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}'
    request "https://$HOST/v2/app/manifests/v1" -o /dev/null
    log | contains "a line for a request" 'get-manifest|/v2/app/manifests/v1'
    [[ $(log) != *$'\e'* ]] || fail "colours in the journal"
}

reloads() {
    on systemctl reload registry.service
    active
    wait_for 10 serves
    log | contains "what it did" 'certificates reloaded'
}

is_shut_in() {
    local pid
    pid=$(of_service MainPID)
    on cat "/proc/$pid/status" >"$WORK/status"
    contains "capabilities" '^CapEff:\s0+$' <"$WORK/status"
    contains "system calls are filtered" '^Seccomp:\s2$' <"$WORK/status"
    same "user" registry "$(on stat -c %U "/proc/$pid")"
    # As root, and yet: what the service sees cannot be written.
    if inside_service touch /etc/registry/config.yml 2>"$WORK/said"; then fail "its /etc can be written"; fi
    contains "the reason" 'Read-only file system' <"$WORK/said"
    inside_service touch /var/lib/registry/x /etc/registry/tls/x
    on rm /var/lib/registry/x /etc/registry/tls/x
    local exposure
    exposure=$(on systemd-analyze security --no-pager registry.service | sed -n 's/.*service: \([0-9.]*\) .*/\1/p')
    awk -v exposure="$exposure" 'BEGIN { exit !(exposure != "" && exposure <= 1.5) }' || fail "exposure $exposure"
}

# The service has its own view of the file systems; what is plugged in later has to appear there.
sees_a_drive() {
    on mount -t tmpfs -o mode=755 drive /var/lib/registry
    on sh -c 'mkdir /var/lib/registry/.registry && chown -R registry:registry /var/lib/registry'
    same "file system seen by the service" tmpfs "$(inside_service stat --file-system --format %T /var/lib/registry)"
    inside_service touch /var/lib/registry/x
    on umount /var/lib/registry
    present "$root/var/lib/registry/docker"
    inside_service test -d /var/lib/registry/docker
}
inside_service() { on nsenter --target "$(of_service MainPID)" --mount --root --wd -- "$@"; }

is_quiet() {
    # After what a start does in the background, and long enough for several rounds of the watchdog.
    sleep 5
    touch "$WORK/now"
    sleep 35
    same "changed on the disk of an idle machine" "" "$(find "$root" -xdev -newer "$WORK/now" -not -path "$root/run*" -not -path "$root/dev*" -not -path "$root/proc*" -not -path "$root/tmp*")"
}

is_watched() {
    local before
    printf '[Service]\nWatchdogSec=4s\nTimeoutAbortSec=4s\n' >"$root/etc/systemd/system/registry.service.d/test.conf"
    on systemctl daemon-reload
    on systemctl restart registry.service
    # It is fed in good time, or it would not get as far.
    sleep 6
    same "restarts" 0 "$(of_service NRestarts)"
    before=$(of_service MainPID)
    on kill -STOP "$before"
    wait_for 30 restarted
    log | contains "the reason" 'Watchdog timeout'
    [[ $(of_service MainPID) != "$before" ]]
    wait_for 10 serves
    rm "$root/etc/systemd/system/registry.service.d/test.conf"
    on systemctl daemon-reload
    on systemctl restart registry.service
}
restarted() { (($(of_service NRestarts) >= 1)) && active; }

upgrades() {
    local session location before
    head -c 6000000 /dev/urandom >"$WORK/blob"
    local digest
    digest=sha256:$(sha256sum "$WORK/blob" | cut -d ' ' -f 1)
    printf '\n# edited here\n' >>"$root/etc/registry/config.yml"
    # One upload half-way, and one whose request is under way while the package is replaced.
    session=$(begin_upload)
    location=$(head -c 2000000 "$WORK/blob" | request -f -D - -o /dev/null -X PATCH --data-binary @- -H 'Content-Type: application/octet-stream' "$session" | location)
    request -f -o /dev/null -w '%{http_code}' -X PATCH --limit-rate 1000000 -T "$WORK/blob" -H 'Content-Type: application/octet-stream' "$(begin_upload)" >"$WORK/slow" &
    local slow=$!
    before=$(of_service MainPID)
    on env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "/root/$(basename "$(package amd64 "*+next")")"
    wait "$slow"
    same "the request under way" 202 "$(cat "$WORK/slow")"
    [[ $(of_service MainPID) != "$before" ]]
    active
    on dpkg-query -W -f '${Version}' registry | contains "version" 'next$'
    grep -q '^# edited here' "$root/etc/registry/config.yml"
    # The other upload goes on where it was.
    request -f --head "$location" | tr -d '\r' | contains "offset" '^(range|Range): 0-1999999$'
    location=$(tail -c +2000001 "$WORK/blob" | request -f -D - -o /dev/null -X PATCH --data-binary @- -H 'Content-Type: application/octet-stream' "$location" | location)
    same "end of the upload" 201 "$(request -o /dev/null -w '%{http_code}' -X PUT "$location$([[ $location == *\?* ]] && echo '&' || echo '?')digest=$digest")"
    same "the blob" "$digest" "sha256:$(request -f "https://$HOST/v2/app/blobs/$digest" | sha256sum | cut -d ' ' -f 1)"
}
begin_upload() { request -f -D - -o /dev/null -X POST "https://$HOST/v2/app/blobs/uploads/" | location; }
location() { tr -d '\r' | sed -n "s|^location: *\(https://[^/]*\)\{0,1\}/|https://$HOST/|Ip"; }

is_activated() {
    on systemctl stop registry.service
    on systemctl enable --now registry.socket
    # A port that a user without privileges could not take.
    mkdir -p "$root/etc/systemd/system/registry.socket.d"
    printf '[Socket]\nListenStream=443\n' >"$root/etc/systemd/system/registry.socket.d/test.conf"
    on systemctl daemon-reload
    on systemctl restart registry.socket
    # The connection starts the service.
    request -f -o /dev/null "https://${HOST%:*}/v2/"
    active
    (
        while [[ ! -e $WORK/enough ]]; do request -f -o /dev/null "https://$HOST/v2/" || echo refused; done
    ) >"$WORK/refused" 2>&1 &
    local asking=$!
    on systemctl restart registry.service
    on systemctl restart registry.service
    touch "$WORK/enough"
    wait "$asking"
    same "requests that failed while it restarted" "" "$(cat "$WORK/refused")"
    on systemctl disable --now registry.socket
    rm -r "$root/etc/systemd/system/registry.socket.d"
    on systemctl daemon-reload
    on systemctl restart registry.service
}

survives_a_reboot() {
    local before
    before=$(sha256sum <"$root/etc/registry/tls/ca.crt")
    power_off
    power_on
    echo "$NET" >"$WORK/machine"
    wait_for 30 serves
    same "the CA" "$before" "$(sha256sum <"$root/etc/registry/tls/ca.crt")"
    pull "$HOST/app:v1" "$WORK/pulled"
    same_image "$WORK/image" "$WORK/pulled"
}

goes_and_comes_back() {
    on apt-get remove -y registry
    if pgrep --ns "$NET" --nslist pid -x registry; then fail "it still runs"; fi
    absent "$root/usr/bin/registry"
    present "$root/etc/registry/config.yml" "$root/etc/registry/tls/ca.crt" "$root/var/lib/registry/docker"
    on apt-get purge -y registry
    absent "$root/etc/registry"
    present "$root/var/lib/registry/docker"
    on apt-get install -y --no-install-recommends "/root/$(basename "$(package amd64)")"
    active
    trust
    pull "$HOST/app:v1" "$WORK/pulled"
    same_image "$WORK/image" "$WORK/pulled"
}

: >"$WORK/console"
if power_on; then
    # Clients outside find the machine by name, as they do with mDNS.
    printf '127.0.0.1 localhost lab.local\n' >"$WORK/hosts"
    mount --bind "$WORK/hosts" /etc/hosts
    tell "apt install leaves it running, ready, with certificates" installs
    tell "pushes and pulls with no trust but in its CA" pushes_and_pulls
    tell "the journal has the fingerprint, and a line for each request" tells_of_itself
    tell "a reload reads the certificates again" reloads
    tell "runs without privileges, and can write nothing but images and certificates" is_shut_in
    tell "a drive that is mounted later is seen and can be written" sees_a_drive
    tell "an idle registry writes nothing to the disk" is_quiet
    tell "a process that hangs is killed and started again" is_watched
    tell "an upgrade keeps uploads under way, and a configuration that was edited" upgrades
    tell "socket activation: port 443, and restarts that refuse no connection" is_activated
    tell "a reboot brings it back" survives_a_reboot
    if [[ -e $WORK/machine ]]; then NET=$(cat "$WORK/machine"); fi
    tell "remove keeps certificates, purge does not; images stay and are found again" goes_and_comes_back
    power_off
    umount /etc/hosts
else
    tell "the machine boots" fail "$(tail -n 20 "$WORK/console")"
fi
for hierarchy in systemd unified; do
    if [[ -d /sys/fs/cgroup/$hierarchy ]]; then echo "$$" >"/sys/fs/cgroup/$hierarchy/cgroup.procs"; fi
done
