# shellcheck shell=bash
# containers/storage for buildah and podman: everything in the family's own folder, nothing that needs systemd.
mkdir -p "$STATE/containers"
# The run folder's name is short since podman's own clean-up process, started at a container's end, refuses one of more than 50 characters.
cat >"$STATE/containers/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$STATE/containers/graph"
runroot = "/run/$FAMILY"
END
# runc, since crun 1.8 refuses machines with hybrid control groups. Explicit limits, since raising them to the defaults needs
# a capability that machines for tests often lack.
cat >/etc/containers/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
printf 'unqualified-search-registries = []\n' >"$STATE/containers/registries.conf"
export CONTAINERS_STORAGE_CONF=$STATE/containers/storage.conf CONTAINERS_REGISTRIES_CONF=$STATE/containers/registries.conf XDG_RUNTIME_DIR=$STATE/containers/xdg
mkdir -p "$XDG_RUNTIME_DIR"
engine_trust
