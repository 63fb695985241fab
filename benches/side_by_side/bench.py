"""One run: its folder, its data, its two seats, and the turns they take."""

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable

from report import OURS, REFERENCE, Goal, Row
from seat import Certificate, Failed, Seat, remove
import tree

MIB = 1 << 20
SMALL = MIB
SMALL_WANTED = 200


class Scale:
    """How much of everything. The goals speak of the full one."""

    def __init__(self, quick: bool, size_mib: int | None, runs: int | None):
        self.size = (size_mib or (128 if quick else 1024)) * MIB
        self.runs = runs or (1 if quick else 3)
        self.wrk_seconds = 1 if quick else 3
        self.pushers = 16
        self.pusher_size = min(self.size, 32 * MIB if quick else self.size)
        self.repositories = 1_000 if quick else 10_000
        self.tags = 1_000 if quick else 10_000
        self.blobs = 5_000 if quick else 100_000
        # The small blobs are slices of the large one, and the second 200 the same slices a little further on.
        self.small = min(48 if quick else SMALL_WANTED, self.size // SMALL - 1)
        self.full = self.size == 1024 * MIB and not quick

    def size_text(self, size: int) -> str:
        return f"{size // (1 << 30)} GiB" if size % (1 << 30) == 0 else f"{size // MIB} MiB"


class Samples:
    """figure -> seat -> samples, and what failed."""

    def __init__(self):
        self.figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.failed: dict[str, str] = {}


class Data:
    """A file that does not compress, and its digest; the same bytes at every run."""

    def __init__(self, path: pathlib.Path, size: int, key: int):
        self.path, self.size = path, size
        self.hash = hashlib.sha256()
        with open("/dev/zero", "rb") as zero, open(path, "wb") as file:
            cipher = subprocess.Popen(["openssl", "enc", "-aes-128-ctr", "-nosalt", "-K", f"{key:032x}", "-iv", "0" * 32],
                                      stdin=zero, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try:
                left = size
                while left:
                    block = cipher.stdout.read(min(left, MIB))
                    if not block:
                        raise RuntimeError("openssl enc ended early")
                    self.hash.update(block)
                    file.write(block)
                    left -= len(block)
            finally:
                cipher.stdout.close()
                cipher.kill()
                cipher.wait()
        self.digest = "sha256:" + self.hash.hexdigest()

    def with_suffix(self, suffix: bytes) -> str:
        """The digest of the file and a few bytes after it, without hashing the file again."""
        copy = self.hash.copy()
        copy.update(suffix)
        return "sha256:" + copy.hexdigest()

    def slice(self, offset: int, length: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(length)


class Bench:
    def __init__(self, scale: Scale, seats: Iterable[str], access_log: bool):
        self.scale = scale
        base = pathlib.Path(os.environ["BENCH_CALLED_FROM"], os.environ["BENCH_DIR"])
        base.mkdir(parents=True, exist_ok=True)
        clean_up_after_the_killed(base)
        self.workdir = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=base))
        # Held as long as we live: whose lock is free left its folder behind.
        self.lock = open(self.workdir / "lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.details: dict = {}  # for --json only
        self.commands = {OURS: os.environ["OURS_CMD"], REFERENCE: os.environ["REFERENCE_CMD"]}
        self.wanted = list(seats)
        self.access_log = access_log
        self.seats: list[Seat] = []
        self.image = Image(self.workdir / "image")
        self._grown: tuple[pathlib.Path, list[str]] | None = None

    def prepare(self):
        scale = self.scale
        free = shutil.disk_usage(self.workdir).free
        if free < 4 * scale.size:
            raise SystemExit(f"bench: {free // MIB} MiB free in {self.workdir.parent}; this needs {4 * scale.size // MIB}: choose --size or BENCH_DIR")
        certificate = Certificate(self.workdir)
        self.seats = [
            Seat(name, self.commands[name], one_port=name == OURS, certificate=certificate, workdir=self.workdir, access_log=self.access_log)
            for name in (REFERENCE, OURS) if name in self.wanted
        ]
        self.say(f"making {scale.size_text(scale.size)} of data")
        self.large = Data(self.workdir / "large", scale.size, key=1)
        self.warm = Data(self.workdir / "warm", 8 * MIB, key=2)

    def shorter(self, size: int) -> Data:
        return Data(self.workdir / "shorter", size, key=3)

    def close(self):
        self.image.unmount()
        remove(self.workdir)
        self.lock.close()

    @staticmethod
    def say(text: str):
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def note(self, text: str):
        if text not in self.notes:
            self.notes.append(text)

    def grown(self) -> tuple[pathlib.Path, list[str]]:
        """The large tree, which both seats serve in turn, and the names of its repositories in order."""
        if self._grown is None:
            scale = self.scale
            self.say(f"writing a tree of {scale.repositories:,} repositories and {scale.blobs:,} blobs")
            ground = self.workdir / "ground"
            ground.mkdir()
            if self.image.mount(ground, 30 * scale.repositories + 8 * scale.tags + 2 * scale.blobs + 10_000):
                self.note("the tree of the listings and starts lay in an ext4 image of its own, on the same disk: half a million small "
                          "files are removed with it at once")
            root = ground / "root-large"
            self._grown = root, tree.grow(root, scale.repositories, scale.tags, scale.blobs)
            os.sync()
        return self._grown

    def alternate(self, what: str, runs: int, act: Callable[[Seat], dict[str, float]]) -> Samples:
        """`act` in both seats, in turn, the first one changing: whatever drifts meanwhile, drifts for both."""
        samples = Samples()
        for run in range(runs):
            for seat in self.seats if run % 2 == 0 else reversed(self.seats):
                if seat.name in samples.failed:
                    continue
                self.say(f"{what}: {seat.name}, run {run + 1} of {runs}")
                try:
                    for figure, value in act(seat).items():
                        samples.figures[figure][seat.name].append(value)
                except Failed as problem:
                    self.say(f"failed: {problem}")
                    samples.failed[seat.name] = str(problem)
                    self.note(f"{what}: {problem}")
        return samples

    def row(self, subject: str, figure: str, unit: str, samples: Samples, key: str, goal: Goal | None = None):
        self.rows.append(Row(subject, figure, unit, {seat: list(values) for seat, values in samples.figures[key].items()}, goal,
                             self.scale.full, dict(samples.failed)))


class Image:
    """A file system in a file. To remove the files of a large tree one by one takes a disk with online discard minutes.

    Only where scripts/bench could give us a mount namespace of our own: there a mount cannot outlive us. Elsewhere `mount` says
    no, and the tree is made in the folder itself.
    """

    def __init__(self, file: pathlib.Path):
        self.file = file
        self.mounted: pathlib.Path | None = None

    def mount(self, where: pathlib.Path, inodes: int) -> bool:
        if os.environ.get("BENCH_OWN_MOUNTS") != "1":
            return False
        with open(self.file, "wb") as file:
            file.truncate(inodes * 2048 + 64 * MIB)
        # Without a journal: nothing here has to survive anything. Small blocks: each directory takes one.
        make = ["mkfs.ext4", "-q", "-F", "-b", "1024", "-N", str(inodes), "-O", "^has_journal", str(self.file)]
        try:
            subprocess.run(make, check=True, capture_output=True)
            subprocess.run(["mount", "-o", "loop,noatime", str(self.file), str(where)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.file.unlink()
            return False
        self.mounted = where
        return True

    def unmount(self):
        if self.mounted:
            subprocess.run(["umount", str(self.mounted)], check=False)
            self.mounted = None


def clean_up_after_the_killed(base: pathlib.Path):
    for left in base.glob("run-*"):
        try:
            with open(left / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(left)
        except (OSError, BlockingIOError):
            continue
