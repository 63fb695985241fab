//! A machine of its own as far as mounts go: a mount namespace with an empty `/run` and `/etc/systemd/system`, and, if it is to
//! have one, a systemd that does what it is told and writes it down. Needs root.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use super::server::{Server, eventually};

pub(crate) struct Machine {
    dir: TempDir,
    /// Keeps the namespace alive.
    holder: Child,
}

/// Knows `registry.service`, which is a file here, and mount units.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/systemctl.log"
for last; do :; done
unit=/etc/systemd/system/$last
device() {
    for device in /dev/loop[0-9]*; do
        [ "$(blkid -p -s UUID -o value "$device")" != "$1" ] || echo "$device"
    done
}
value() { sed -n "s/^$1=//p" "$unit"; }
case "$1 $last" in
    --version*|daemon-reload*) ;;
    "is-active registry.service") test -e "$here/active" ;;
    "is-enabled registry.service") test -e "$here/enabled" ;;
    "start registry.service") touch "$here/active" ;;
    "stop registry.service") rm -f "$here/active" ;;
    is-*) exit 3 ;;
    enable*.mount) ln -sf "$unit" "$here/wanted" ;;
    start*.mount)
        mountpoint -q "$(value Where)" ||
            mount -t "$(value Type)" -o "$(value Options)" "$(device "$(value What | sed 's|.*/||')")" "$(value Where)" ;;
    disable*.mount)
        rm -f "$here/wanted"
        ! mountpoint -q "$(value Where)" || umount "$(value Where)" ;;
    *) echo "systemctl: unknown: $*" >&2; exit 1 ;;
esac
"#;

impl Machine {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("registry-machine-").expect("a directory");
        let script = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/systemd/system && echo ready && exec sleep 3600";
        let holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.path().join("holder")).expect("a file"))
            .spawn()
            .expect("unshare");
        let machine = Self { dir, holder };
        eventually("the namespace is set up", || {
            let said = fs::read_to_string(machine.dir.path().join("holder")).ok()?;
            said.contains("ready").then_some(())
        });
        fs::create_dir(machine.root()).expect("the data directory");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n    drive: {}\n",
            machine.root().display(),
            machine.expectation().display()
        );
        fs::write(machine.dir.path().join("config.yml"), config).expect("config.yml");
        machine
    }

    /// As if systemd ran, with the service enabled and active.
    #[track_caller]
    pub(crate) fn with_systemd(self) -> Self {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).expect("a directory");
        fs::write(bin.join("systemctl"), SYSTEMCTL).expect("systemctl");
        fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755))
            .expect("chmod");
        for state in ["active", "enabled"] {
            fs::write(bin.join(state), "").expect("a file");
        }
        self.run(["mkdir", "-p", "/run/systemd/system"]);
        self
    }

    /// A machine with these drives and no others: what is a loop device to its kernel is a USB disk to who asks `lsblk`.
    #[track_caller]
    pub(crate) fn with_drives(self, drives: &[&Path]) -> Self {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).expect("a directory");
        let drives: String = drives.iter().map(|d| format!(" {}", d.display())).collect();
        let script = format!(
            r#"#!/bin/sh
exec /usr/bin/lsblk "$@"{drives} |
    sed -E 's/("type": ?)"loop"/\1"disk"/;s/("tran": ?)null/\1"usb"/;s/("model": ?)null/\1"Stick"/'
"#
        );
        fs::write(bin.join("lsblk"), script).expect("lsblk");
        fs::set_permissions(bin.join("lsblk"), fs::Permissions::from_mode(0o755)).expect("chmod");
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `storage.filesystem.rootdirectory`
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `storage.filesystem.drive`
    pub(crate) fn expectation(&self) -> PathBuf {
        self.dir.path().join("drive.yml")
    }

    pub(crate) fn is_active(&self) -> bool {
        self.dir.path().join("bin/active").exists()
    }

    /// What systemd was told.
    pub(crate) fn systemctl_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("bin/systemctl.log")).unwrap_or_default()
    }

    fn enter(&self) -> Vec<OsString> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        vec![namespace.into(), "--".into()]
    }

    /// A command to run on this machine.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.enter()).args(args);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut path = std::env::split_paths(&path).collect::<Vec<_>>();
        path.insert(0, self.dir.path().join("bin"));
        command
            .env("PATH", std::env::join_paths(path).expect("a PATH"))
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its good end.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let output = self.command(args).output().expect("nsenter");
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        text
    }

    /// `registry drive <args>`: whether it succeeded, and all that it said.
    #[track_caller]
    pub(crate) fn drive(&self, args: &[&str]) -> (bool, String) {
        let output = self.drive_command(args).output().expect("nsenter");
        (output.status.success(), said(&output))
    }

    pub(crate) fn drive_command(&self, args: &[&str]) -> Command {
        self.command(self.drive_args(args))
    }

    /// `registry drive <args>` on a terminal (that of script(1)), with the answers that are typed: whether it succeeded, and
    /// all that stood there.
    #[track_caller]
    pub(crate) fn drive_on_terminal(&self, args: &[&str], answers: &[&str]) -> (bool, String) {
        let args = self.drive_args(args);
        let line: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let mut command = self.command(["script", "-qec", &line.join(" "), "/dev/null"]);
        let typed: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
        let keyboard = self.dir.path().join("keyboard");
        fs::write(&keyboard, typed).expect("a file");
        let keyboard = fs::File::open(keyboard).expect("a file");
        let output = command.stdin(keyboard).output().expect("nsenter");
        (output.status.success(), said(&output).replace('\r', ""))
    }

    pub(crate) fn drive_args(&self, args: &[&str]) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec![env!("CARGO_BIN_EXE_registry").into(), "drive".into()];
        all.extend(args.iter().map(OsString::from));
        all.push("--config".into());
        all.push(self.dir.path().join("config.yml").into());
        all
    }

    /// A server of this machine's images; not started yet.
    pub(crate) fn server(&self) -> Server {
        let server = Server::new()
            .root(self.root())
            .set(
                "storage.filesystem.drive",
                &self.expectation().display().to_string(),
            )
            .ready_path("/healthz");
        let mut args = self.enter();
        args.push(env!("CARGO_BIN_EXE_registry").into());
        args.push("serve".into());
        args.push(server.config_path().into());
        server.binary("nsenter").args(args)
    }
}

fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its mounts go with the last process of the namespace.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
