"""An emulated machine with an external drive, and what happens to it. Started by scripts/system-test: MACHINE FOLDER."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

KIND, WORK = sys.argv[1], sys.argv[2]
PI3 = KIND == "pi3"
# Emulated, everything takes its time.
PATIENCE = 900 if PI3 else 300


class Failure(Exception):
    pass


class Machine:
    """One power-on. The console is a root shell, which commands are typed into."""

    def __init__(self, port):
        self.port = port
        drive = f"if=none,id=drive,file={WORK}/drive.img,format=raw,cache=writeback"
        monitor = ["-qmp", f"unix:{WORK}/monitor,server=on,wait=off"]
        network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:5000"
        kernel = ["-kernel", f"{WORK}/kernel/vmlinuz", "-initrd", f"{WORK}/kernel/initrd"]
        if PI3:
            command = ["qemu-system-aarch64", "-M", "raspi3b", "-dtb", f"{WORK}/kernel/board.dtb", "-serial", "null",
                       "-drive", f"if=sd,file={WORK}/disk.img,format=raw,cache=writeback",
                       "-drive", drive, "-device", "usb-storage,drive=drive,id=external",
                       "-netdev", network, "-device", "usb-net,netdev=net"]
            console = "ttyS1,115200"
        else:
            command = ["qemu-system-aarch64", "-cpu", "cortex-a72"] if KIND == "arm64" else ["qemu-system-arm", "-cpu", "cortex-a15"]
            command += ["-M", "virt", "-m", "1024", "-smp", "2", "-accel", "tcg,thread=multi",
                        "-drive", f"if=none,id=disk,file={WORK}/disk.img,format=raw,cache=writeback", "-device", "virtio-blk-pci,drive=disk",
                        "-device", "pcie-root-port,id=plug,bus=pcie.0",
                        "-drive", drive, "-device", "virtio-blk-pci,drive=drive,id=external,bus=plug,serial=external",
                        "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]
            console = "ttyAMA0"
        command += ["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", *monitor, *kernel,
                    "-append", f"console={console} root=LABEL=machine rw quiet systemd.show_status=0 panic=-1"]
        # Ends with this program, however that ends.
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text, self.changed = "", threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        self.wait_for(r"root@pi:[^\n]*# ", PATIENCE)
        self.type("stty -echo; PS1=; export SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 DEBIAN_FRONTEND=noninteractive TERM=dumb COLUMNS=200")
        self.run("true")

    def read(self):
        with open(f"{WORK}/console.log", "ab") as log:
            while part := os.read(self.process.stdout.fileno(), 65536):
                log.write(part)
                log.flush()
                with self.changed:
                    self.text += part.decode(errors="replace").replace("\r", "")
                    self.changed.notify_all()

    def wait_for(self, expression, patience):
        """Waits until the console says so; gives the match, and forgets all up to its end."""
        until = time.monotonic() + patience
        with self.changed:
            while not (match := re.search(expression, self.text)):
                if self.process.poll() is not None or time.monotonic() > until:
                    raise Failure(f"no {expression!r} on the console: ...{self.text[-2000:]}")
                self.changed.wait(1)
            before, self.text = self.text[:match.start()], self.text[match.end():]
        return before, match

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, command, patience=PATIENCE, fails=False):
        """What a command prints; its failure is one of the story, unless it is expected."""
        # Spelled so that an echo of the line is not taken for the answer.
        self.type(f"{{ {command} ; }} 2>&1; echo @@do''ne $?@@")
        output, match = self.wait_for(r"@@done (\d+)@@\n", patience)
        if (match[1] != "0") != fails:
            raise Failure(f"{command}: status {match[1]}: {output}")
        return output.strip()

    def monitor(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{WORK}/monitor")
            stream = connection.makefile("rw")
            stream.readline()
            for name, values in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": values}) + "\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    if "error" in answer:
                        raise Failure(f"{name}: {answer['error']}")

    def power_cut(self):
        self.process.kill()
        self.process.wait()

    def journal(self, name):
        text = self.run("journalctl --quiet --no-pager --output short-monotonic --boot --unit registry.service --unit registry-firstboot.service")
        with open(f"{WORK}/journal.{name}", "w") as file:
            file.write(text + "\n")

    # --- from outside, as another machine of the LAN ---

    def request(self, *arguments):
        result = subprocess.run(["curl", "-sS", "--max-time", "120", "--cacert", f"{WORK}/trust/ca.crt", "-w", "\n%{http_code}",
                                 f"https://localhost:{self.port}/v2/", *arguments], capture_output=True, text=True)
        return result.stdout.rpartition("\n")[2], result.stdout + result.stderr

    def until_status(self, status, patience=PATIENCE):
        until = time.monotonic() + patience
        while (answer := self.request())[0] != status:
            if time.monotonic() > until:
                raise Failure(f"no {status}: {answer[1]}")
            time.sleep(1)
        return answer[1]

    def copy(self, side, source, target):
        subprocess.run(["skopeo", "copy", "--quiet", "--retry-times", "0", f"--{side}-cert-dir", f"{WORK}/trust", source, target],
                       check=True, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "SSL_CERT_FILE": "/dev/null"})

    def push(self, image, tag):
        self.copy("dest", f"oci:{WORK}/images/{image}", f"docker://localhost:{self.port}/test/{image}:{tag}")

    def pull(self, image, tag):
        """Pulls and compares: the manifest, and every byte that it names."""
        target = f"{WORK}/pulled"
        shutil.rmtree(target, ignore_errors=True)
        self.copy("src", f"docker://localhost:{self.port}/test/{image}:{tag}", f"oci:{target}")
        pushed, pulled = ({name: hashlib.sha256(open(f"{d}/blobs/sha256/{name}", "rb").read()).hexdigest() for name in os.listdir(f"{d}/blobs/sha256")}
                          for d in (f"{WORK}/images/{image}", target))
        if pushed != pulled or any(name != digest for name, digest in pulled.items()):
            raise Failure(f"{image}:{tag} is not what was pushed")


results = []


def story(sentence, tell):
    begin = time.monotonic()
    try:
        detail = tell() or ""
        results.append(True)
        print(f"ok    {KIND}: {sentence} ({time.monotonic() - begin:.0f} s{', ' + detail if detail else ''})", flush=True)
    except (Failure, subprocess.SubprocessError, OSError) as error:
        results.append(False)
        said = getattr(error, "stderr", None) or ""
        print(f"FAIL  {KIND}: {sentence} ({time.monotonic() - begin:.0f} s)\n      | {str(error)[-1500:]} {said[-500:]}", flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


machine = None
acknowledged = []
drive = False


def boots():
    global machine
    machine = Machine(free_port())
    return f"{machine.run('uname -m')}, {machine.run('tr -d $(printf %o 0) </proc/device-tree/model || true')}"


def installs():
    machine.run("dpkg --install /root/registry.deb", PATIENCE)
    machine.run("systemctl is-active registry.service && systemctl is-enabled registry.service")
    os.makedirs(f"{WORK}/trust", exist_ok=True)
    certificate = machine.run("cat /etc/registry/tls/ca.crt")
    with open(f"{WORK}/trust/ca.crt", "w") as file:
        file.write(certificate + "\n")
    machine.until_status("200")
    return machine.run("systemctl show --property StatusText --value registry.service")


def takes_the_drive():
    global drive
    if "drive" not in machine.run("registry --help"):
        raise Failure("this version has no `registry drive`")
    device = "/dev/sda" if PI3 else machine.run("readlink -f /dev/disk/by-id/virtio-external")
    machine.run(f"registry drive use {device} --format --yes-erase {device}", PATIENCE)
    machine.until_status("200")
    machine.run("mountpoint /var/lib/registry")
    drive = True


def pushes():
    machine.push("one", "v1")
    machine.pull("one", "v1")
    acknowledged.append(("one", "v1"))


def is_watched():
    machine.run("mkdir -p /run/systemd/system/registry.service.d; printf '[Service]\\nWatchdogSec=20s\\nTimeoutAbortSec=5s\\n' >/run/systemd/system/registry.service.d/test.conf;"
                " systemctl daemon-reload; systemctl restart registry.service")
    machine.until_status("200")
    machine.run("kill -STOP $(systemctl show --property MainPID --value registry.service)")
    machine.run("for i in $(seq 120); do [ $(systemctl show --property NRestarts --value registry.service) -ge 1 ] && break; sleep 1; done;"
                " journalctl --quiet --unit registry.service | grep 'Watchdog timeout'")
    machine.until_status("200")
    machine.pull("one", "v1")


def reboots():
    global machine
    machine.journal("first-boot")
    machine.type("systemctl reboot")
    machine.process.wait(PATIENCE)
    machine = Machine(free_port())
    machine.until_status("200")
    machine.pull("one", "v1")


def survives_power_cuts():
    global machine
    cuts = 0
    for round in range(1, 4):
        done = []
        power = threading.Event()

        def push_all():
            for name in ("two", "three", "four", "five", "six", "seven", "eight"):
                try:
                    machine.push(name, f"r{round}")
                except subprocess.SubprocessError:
                    return
                if power.is_set():
                    return
                done.append((name, f"r{round}"))

        pushing = threading.Thread(target=push_all)
        pushing.start()
        until = time.monotonic() + PATIENCE
        while len(done) < round and pushing.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
        # Into the middle of the next one.
        time.sleep(0.2 * round)
        power.set()
        machine.power_cut()
        pushing.join()
        acknowledged.extend(done)
        cuts += 1
        machine = Machine(free_port())
        machine.until_status("200")
        for image, tag in acknowledged:
            machine.pull(image, tag)
    return f"{cuts} cuts, {len(acknowledged)} acknowledged pushes, none lost"


def misses_its_drive():
    if not drive:
        raise Failure("left out: no drive is in use")
    machine.monitor("device_del", id="external")
    answer = machine.until_status("503")
    used = machine.run("du -sb /var/lib/registry 2>/dev/null | cut -f 1 || true")
    time.sleep(5)
    if machine.run("mountpoint -q /var/lib/registry || du -sb /var/lib/registry | cut -f 1") not in ("", used):
        raise Failure("something is written to the SD card")
    plug = {"driver": "usb-storage"} if PI3 else {"driver": "virtio-blk-pci", "bus": "plug", "serial": "external"}
    machine.monitor("blockdev-add", **{"driver": "raw", "node-name": "again", "file": {"driver": "file", "filename": f"{WORK}/drive.img"}})
    machine.monitor("device_add", **plug, id="external2", drive="again")
    machine.until_status("200")
    for image, tag in acknowledged:
        machine.pull(image, tag)
    return answer.splitlines()[0][:120]


def keeps_its_journal():
    machine.journal("last-boot")
    machine.run("journalctl --quiet --no-pager --boot --priority err --unit registry.service || true")


open(f"{WORK}/console.log", "wb").close()
for sentence, tell in (
    ("boots", boots),
    ("the package installs, and serves with certificates of its own", installs),
    ("takes an external drive", takes_the_drive),
    ("a machine that trusts only its CA pushes and pulls", pushes),
    ("a process that hangs is killed and started again", is_watched),
    ("a reboot brings it back", reboots),
    ("power cuts during pushes lose nothing that was acknowledged", survives_power_cuts),
    ("without its drive it says so, and with it serves again", misses_its_drive),
    ("its journal is kept", keeps_its_journal),
):
    story(sentence, tell)
    if machine is None:
        break
if machine is not None and machine.process.poll() is None:
    machine.power_cut()
print(f"{sum(results)} passed, {len(results) - sum(results)} failed; journals and console: {os.path.relpath(WORK)}")
sys.exit(not all(results))
