"""What the figures were taken on: without it nobody can judge them."""

import os
import pathlib
import re
import resource
import shlex
import statistics
import subprocess
import time

MIB = 1 << 20


def output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip()


def cpu_info() -> tuple[str, set[str]]:
    text = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"(?m)^(?:model name|Model|Hardware)\s*:\s*(.+)", text)
    flags = re.search(r"(?m)^(?:flags|Features)\s*:\s*(.+)", text)
    return (model.group(1) if model else os.uname().machine), set(flags.group(1).split() if flags else ())


def hashes_in_hardware() -> bool:
    return bool(cpu_info()[1] & {"sha_ni", "sha2"})


def file_system(directory: pathlib.Path) -> str:
    best, kind = "", "unknown"
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, mount, fstype, *_ = line.split()
        if (str(directory) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, fstype
    return kind


def openssl_speed(algorithm: str) -> float:
    """MB/s of one core, 16 KiB at a time (a TLS record)."""
    found = re.search(r"(?m)\s([\d.]+)k\s*$", output("openssl", "speed", "-seconds", "1", "-bytes", "16384", "-evp", algorithm))
    return float(found.group(1)) / 1000 if found else 0.0


def disk(source: pathlib.Path, directory: pathlib.Path) -> tuple[float, float]:
    """MB/s of one large write with its fsync; milliseconds of one small write with its fsync."""
    target = directory / "disk-speed"
    os.sync()
    began = time.monotonic()
    subprocess.run(["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync"], check=True, capture_output=True)
    speed = source.stat().st_size / 1e6 / (time.monotonic() - began)
    target.unlink()
    times = []
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    end = time.monotonic() + 3
    while len(times) < 100 and time.monotonic() < end:
        began = time.monotonic()
        os.write(handle, b"x" * 4096)
        os.fsync(handle)
        times.append((time.monotonic() - began) * 1e3)
    os.close(handle)
    target.unlink()
    return speed, statistics.median(times)


def describe(commands: dict[str, str], source: pathlib.Path, directory: pathlib.Path) -> list[str]:
    model, flags = cpu_info()
    wanted = {"sha_ni": "x86", "aes": "any", "avx2": "x86", "avx512f": "x86", "sha2": "arm", "pmull": "arm"}
    arm = os.uname().machine.startswith(("arm", "aarch"))
    told = [name + ("" if name in flags else " **missing**") for name, where in wanted.items() if where in ("any", "arm" if arm else "x86")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    write, fsync = disk(source, directory)
    speeds = {name: openssl_speed(name) for name in ("sha256", "aes-128-gcm", "aes-256-gcm", "chacha20-poly1305")}
    lines = [
        f"{model}, {os.cpu_count()} cores, {memory:.1f} GiB, Linux {os.uname().release.split('-')[0]} {os.uname().machine}; CPU: {', '.join(told)}",
        f"disk: {file_system(directory)}, {write:.0f} MB/s (dd, {source.stat().st_size // MIB} MiB, with its fsync), {fsync:.2f} ms for 4 KiB and its fsync",
        "OpenSSL, one core, 16 KiB: " + ", ".join(f"{name} {speed:,.0f} MB/s" for name, speed in speeds.items()),
    ]
    versions = [f"{name}: {version(command)}" for name, command in commands.items()]
    versions.append(" ".join(output("curl", "--version").split()[:2]))
    versions.append(" ".join(output("wrk", "--version").split()[:2]))
    lines.append("; ".join(versions))
    return lines


def version(command: str) -> str:
    program = shlex.split(command)[0]
    lines = output(program, "--version").splitlines()
    text = lines[0] if lines else "version unknown"
    # Only the name: where a program lies says nothing, and whose machine this is even less.
    return text.replace(program, pathlib.Path(program).name)


class Watch:
    """How much of the machine somebody else had meanwhile."""

    def __init__(self):
        self.load = os.getloadavg()[0]
        self.ticks = self.read()
        self.own = self.used()

    @staticmethod
    def read() -> list[int]:
        return [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]

    @staticmethod
    def used() -> float:
        mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime

    def __str__(self) -> str:
        user, nice, system, idle, iowait, irq, softirq, steal = (now - then for now, then in zip(self.read(), self.ticks))
        busy = user + nice + system + irq + softirq
        total = max(1, busy + idle + iowait + steal)
        own = (self.used() - self.own) * os.sysconf("SC_CLK_TCK")
        foreign = max(0.0, busy - own) / total
        text = (f"of the machine's CPU time {own / total:.0%} went to the two registries and their clients, {foreign:.0%} to others "
                f"(the kernel's own threads included), {steal / total:.1%} was stolen by the host; load average at the start {self.load:.1f}")
        return text + ("; **the machine was not quiet: take these figures as a trial**" if foreign > 0.1 or steal / total > 0.02 else "")
