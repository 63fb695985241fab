"""What is measured of keeping house: garbage collection, deleting, checking, retention."""

import os
import statistics
import subprocess
import threading
import time

import tree
from bench import MIB, Bench
from client import MANIFEST_TYPE, Session, manifest, sha256
from report import OURS, Goal
from seat import Failed, Seat, Server, remove

GRACE = 2.0  # seconds; longer than any push here takes
COLLECTED_AT_ONCE = f"gc:\n  grace: {GRACE:.0f}s\n  delay: 0s\nundo:\n  keep: 0s\n"
KEEP_TEN = "retention:\n  interval: 1000h\n  rules: [{repositories: " + tree.TAGGED + ", keeplast: 10}]\n"


def run(seat: Seat, *arguments: str) -> tuple[float, str]:
    """A command of the seat's binary: how long it takes, and what it says."""
    began = time.monotonic()
    done = subprocess.run([*seat.command[:-1], *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{seat.name} {arguments[0]} ends with {done.returncode}: {done.stderr[-300:]}")
    return time.monotonic() - began, done.stdout


def collect(seat: Seat, *options: str) -> float:
    return run(seat, "garbage-collect", *options, str(seat.workdir / f"{seat.name}.yml"))[0]


class Pusher:
    """Pushes small images, one after the other, and notes what each took."""

    def __init__(self, server: Server):
        self.server, self.took, self.wrong = server, [], None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.push)

    def __enter__(self) -> "Pusher":
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def push(self):
        try:
            with Session(self.server) as session:
                session.push_image("bench/pushed", "latest")
                while not self.ended.is_set():
                    config = os.urandom(16 << 10)
                    digest, began = sha256(config), time.monotonic()
                    session.push_blob("bench/pushed", config, digest)
                    session.must(201, "PUT", f"/v2/bench/pushed/manifests/{digest[7:23]}", manifest(config), Content_Type=MANIFEST_TYPE)
                    self.took.append((time.monotonic() - began) * 1e3)
        except Failed as problem:
            self.wrong = problem

    def since(self, count: int) -> list[float]:
        if self.wrong:
            raise self.wrong
        return self.took[count:]


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def garbage(bench: Bench):
    """garbage collection of 10,000 blobs while somebody pushes; the reference's, which needs the registry to stand still"""
    scale = bench.scale
    blobs = min(scale.blobs, 10_000)

    def act(seat: Seat) -> dict[str, float]:
        root = seat.fresh_root()
        tree.grow(root, 100, 10, blobs + 3)
        # All but those of the one image that there is.
        needed = {sha256(blob)[7:] for blob in (b"{}", b"", manifest(b"{}"))}
        old = [file for file in (root / tree.BASE / "blobs").glob("*/*/*/data") if file.parent.name not in needed]
        with seat.start(root, own=COLLECTED_AT_ONCE) as server:
            server.settle(10)
            if seat.name == OURS:
                with Pusher(server) as pusher:
                    # Until nothing on the disk is too young any more; what is pushed meanwhile is what it is compared with.
                    time.sleep(GRACE + 3)
                    calm = pusher.since(0)
                    server.reset_peak()
                    seconds = collect(seat, "--quiet")
                    busy = pusher.since(len(calm))
                result = {"seconds": seconds, "peak": server.peak(), "calm": p99(calm), "busy": p99(busy) if len(busy) > 1 else busy[0]}
                bench.note(f"garbage: {len(calm)} images were pushed before it and {len(busy)} during it")
        if seat.name != OURS:
            result = {"seconds": collect(seat)}
        if left := sum(1 for file in old if file.exists()):
            raise Failed(f"{seat.name} left {left:,} of {len(old):,} blobs")
        remove(root)
        return result

    samples = bench.alternate("garbage collection", 1, act)
    subject = f"garbage collection of {blobs:,} blobs (docker-registry: nobody may push)"
    bench.row(subject, "all of it", "s", samples, "seconds")
    bench.row(subject, "peak memory", "MiB", samples, "peak", Goal("≤ 64", at_most=64))
    bench.row("push of a small image, ours alone", "p99, no collection", "ms", samples, "calm")
    bench.row("push of a small image, ours alone", "p99, during the collection", "ms", samples, "busy")


def free(bench: Bench):
    """from the 202 of a delete until the disk has its room back; the reference has to be stopped, collected and started"""
    layer = bench.warm.slice(0, 8 * MIB)

    def act(seat: Seat) -> dict[str, float]:
        root = seat.fresh_root()
        with seat.start(root, own=COLLECTED_AT_ONCE) as server, Session(server) as session:
            session.push_image("bench/image", "other")
            session.push_blob("bench/image", layer, sha256(layer))
            image = manifest(layer)
            session.must(201, "PUT", "/v2/bench/image/manifests/latest", image, Content_Type=MANIFEST_TYPE)
            data = tree.blob_directory(root, sha256(layer)) / "data"
            if not data.exists():
                raise Failed(f"{seat.name} stores blobs elsewhere")
            # So that only the delete is in the way.
            time.sleep(GRACE + 1)
            session.must(202, "DELETE", f"/v2/bench/image/manifests/{sha256(image)}")
            began = time.monotonic()
            while seat.name == OURS and data.exists():
                if time.monotonic() - began > 60:
                    raise Failed(f"{seat.name} still has the blob a minute after the delete")
                time.sleep(0.002)
            seconds = time.monotonic() - began
        if seat.name != OURS:
            collect(seat)
            with seat.start(root):
                seconds = time.monotonic() - began
            if data.exists():
                raise Failed(f"{seat.name} still has the blob after its collection")
        remove(root)
        return {"seconds": seconds}

    samples = bench.alternate("delete to free", bench.scale.runs, act)
    bench.row("delete of an image (`gc.delay: 0s`)", "until its room is free", "s", samples, "seconds")


def verify(bench: Bench):
    """registry verify of a large blob, beside sha256sum"""
    size = bench.large.size

    def act(seat: Seat) -> dict[str, float]:
        if seat.name != OURS:
            return {}
        root = seat.fresh_root()
        tree.place_blob(root, "bench/large", bench.large.digest, bench.large.path)
        with seat.start(root) as server:
            began = time.monotonic()
            subprocess.run(["sha256sum", str(bench.large.path)], check=True, capture_output=True)
            tool = time.monotonic() - began
            server.reset_peak()
            seconds, _ = run(seat, "verify", "--config", str(seat.workdir / f"{seat.name}.yml"))
            result = {"rate": size / MIB / seconds, "part": tool / seconds, "peak": server.peak()}
        remove(root)
        return result

    samples = bench.alternate("verify", bench.scale.runs, act)
    subject = f"`registry verify` of {bench.scale.size_text(size)}"
    bench.row(subject, "throughput", "MiB/s", samples, "rate")
    bench.row(subject, "throughput / sha256sum's", "", samples, "part", Goal("≥ 1", at_least=1))
    bench.row(subject, "peak memory", "MiB", samples, "peak")


def retention(bench: Bench):
    """a dry run of retention over 10,000 tags"""
    scale = bench.scale
    root, _ = bench.grown()

    def act(seat: Seat) -> dict[str, float]:
        if seat.name != OURS:
            return {}
        with seat.start(root, own=KEEP_TEN) as server:
            server.settle(60)
            server.reset_peak()
            before = server.resident()
            seconds, said = run(seat, "retention", "--dry-run", "--config", str(seat.workdir / f"{seat.name}.yml"))
            if said.count(f"{tree.TAGGED}:") < scale.tags - 10:
                raise Failed(f"retention names {said.count(tree.TAGGED + ':'):,} of {scale.tags - 10:,} tags")
            return {"ms": seconds * 1e3, "grown": server.peak() - before}

    samples = bench.alternate("retention", bench.scale.runs, act)
    subject = f"`registry retention --dry-run`, {scale.tags:,} tags"
    bench.row(subject, "all of it", "ms", samples, "ms")
    bench.row(subject, "memory more at its peak", "MiB", samples, "grown")
