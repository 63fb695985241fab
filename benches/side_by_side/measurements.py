"""What is measured: one function each. Its first line of documentation is what --list prints."""

import functools
import json
import os
import pathlib
import re
import statistics
import subprocess
import time

import machine
import tracing
import tree
import upkeep
from bench import MIB, SMALL, Bench, Samples
from client import (EMPTY, MANIFEST_TYPE, OCTETS, Session, cipher, in_lanes, manifest, pull, push_file, send_file_and_suffix, sha256,
                    target_of, with_digest, wrk)
from report import OURS, REFERENCE, Goal
from seat import Failed, Seat, remove

GIB = 1 << 30
TRANSPORTS = {"plain": "plain HTTP/1.1", "tls": "TLS, HTTP/1.1", "h2": "TLS, HTTP/2"}
CONTENT_GOALS = {
    # (throughput, CPU seconds a GiB); the absolute figures hold for a CPU that hashes in hardware, with a tenth of slack for "about"
    "push plain": (2.5, 0.35, 1.6), "push tls": (2.0, 0.45, 2.2), "push h2": (2.0, 0.45, 2.2),
    "pull plain": (0.9, None, None), "pull tls": (1.15, 0.6, 0.8), "pull h2": (1.15, 0.6, 0.8),
}


def content_rows(bench: Bench, subject: str, samples, kind: str, peak_goal: Goal | None = None):
    faster, cpu_ratio, cpu_seconds = CONTENT_GOALS[kind]
    bench.row(subject, "throughput", "MiB/s", samples, "rate", Goal(f"≥ {faster}x", ratio_at_least=faster))
    goal = None
    if cpu_ratio:
        # Pulls hash nothing; pushes are bound by it.
        judged = kind.startswith("pull") or machine.hashes_in_hardware()
        goal = Goal(f"≤ {cpu_ratio}x, ~{cpu_seconds}" + ("" if judged else " (with SHA in hardware)"), ratio_at_most=cpu_ratio,
                    at_most=cpu_seconds * 1.1 if judged else None)
    bench.row(subject, "server CPU", "s a GiB", samples, "cpu", goal)
    bench.row(subject, "peak memory", "MiB", samples, "peak", peak_goal)


# ---- large blobs ------------------------------------------------------------------------------------------------------


def push_large(bench: Bench, transport: str):
    """push of a large blob by POST+PUT and by POST+PATCH(chunked)+PUT"""
    for method in ("PUT", "PATCH"):
        def act(seat: Seat, method=method) -> dict[str, float]:
            root = seat.fresh_root()
            with seat.start(root, transport) as server:
                push_file(server, transport, method, bench.warm.path, bench.warm.digest)
                server.settle()
                os.sync()  # what earlier runs left for the disk to do is not this one's
                server.reset_peak()
                cpu = server.cpu()
                seconds = push_file(server, transport, method, bench.large.path, bench.large.digest)
                server.settle()
                result = {"rate": bench.large.size / MIB / seconds, "cpu": (server.cpu() - cpu) * GIB / bench.large.size, "peak": server.peak()}
            remove(root)
            return result

        way = "POST+PUT" if method == "PUT" else "POST+PATCH+PUT"
        subject = f"push of {bench.scale.size_text(bench.large.size)}, {way}, {TRANSPORTS[transport]}"
        samples = bench.alternate(subject, bench.scale.runs, act)
        content_rows(bench, subject, samples, f"push {transport}", Goal("≤ 16", at_most=16))


def pull_large(bench: Bench, transport: str):
    """pull of a large blob"""
    def act(seat: Seat) -> dict[str, float]:
        root = seat.fresh_root()
        tree.place_blob(root, "bench/large", bench.large.digest, bench.large.path)
        with seat.start(root, transport) as server:
            if transport != "plain":
                bench.note(f"{seat.name} and curl agree on {cipher(server)}")
            pull(server, transport, "bench/large", bench.large.digest, bench.large.size)
            server.settle()
            server.reset_peak()
            cpu = server.cpu()
            seconds = pull(server, transport, "bench/large", bench.large.digest, bench.large.size)
            server.settle()
            result = {"rate": bench.large.size / MIB / seconds, "cpu": (server.cpu() - cpu) * GIB / bench.large.size, "peak": server.peak()}
        remove(root)
        return result

    subject = f"pull of {bench.scale.size_text(bench.large.size)}, {TRANSPORTS[transport]}"
    content_rows(bench, subject, bench.alternate(subject, bench.scale.runs, act), f"pull {transport}")


def sixteen(bench: Bench):
    """16 pushes of a large blob at once, each another one: peak memory"""
    count, size = bench.scale.pushers, bench.scale.pusher_size
    room = os.statvfs(bench.workdir)
    if room.f_bavail * room.f_frsize < (count + 2) * size:
        bench.note(f"sixteen: not measured, the disk has no room for {count + 2} times {bench.scale.size_text(size)}")
        return
    source = bench.large if size == bench.large.size else bench.shorter(size)
    suffixes = [b"the %dth of several" % number for number in range(count)]
    blobs = [(suffix, source.with_suffix(suffix)) for suffix in suffixes]

    def act(seat: Seat) -> dict[str, float]:
        root = seat.fresh_root()
        with seat.start(root) as server:
            push_file(server, "plain", "PUT", bench.warm.path, bench.warm.digest)
            server.settle()
            os.sync()
            server.reset_peak()
            cpu = server.cpu()
            seconds = in_lanes(server, count, blobs,
                               lambda session, blob: send_file_and_suffix(session, "bench/many", source.path, blob[0], blob[1]))
            server.settle()
            total = count * size
            result = {"rate": total / MIB / seconds, "cpu": (server.cpu() - cpu) * GIB / total, "peak": server.peak()}
        remove(root)
        return result

    subject = f"{count} pushes of {bench.scale.size_text(size)} at once, POST+PUT, plain HTTP/1.1"
    samples = bench.alternate(subject, 1, act)
    bench.row(subject, "peak memory", "MiB", samples, "peak", Goal("≤ 64", at_most=64))
    bench.row(subject, "throughput", "MiB/s", samples, "rate")
    bench.row(subject, "server CPU", "s a GiB", samples, "cpu")


# ---- small blobs ------------------------------------------------------------------------------------------------------


def small(bench: Bench):
    """push and pull of 200 blobs of 1 MiB, one after the other and 8 at a time"""
    count = bench.scale.small

    def slices(shift: int) -> list[tuple[bytes, str]]:
        pieces = [bench.large.slice(number * SMALL + shift, SMALL) for number in range(count)]
        return [(piece, sha256(piece)) for piece in pieces]

    batches = {1: slices(0), 8: slices(SMALL // 2)}

    def act(seat: Seat) -> dict[str, float]:
        root = seat.fresh_root()
        result = {}
        with seat.start(root) as server:
            with Session(server) as session:
                session.push_blob("bench/small", b"warm", sha256(b"warm"))

            def measure(key: str, lanes: int, each):
                server.settle()
                os.sync()
                cpu = server.cpu()
                seconds = in_lanes(server, lanes, batches[lanes], each)
                server.settle()
                result[f"{key} {lanes} rate"] = count / seconds
                result[f"{key} {lanes} cpu"] = (server.cpu() - cpu) / count * 1e3

            for lanes in batches:
                measure("push", lanes, lambda session, blob: session.push_blob("bench/small", blob[0], blob[1]))
            for lanes in batches:
                measure("pull", lanes, lambda session, blob: session.pull_blob("bench/small", blob[1], memoryview(bytearray(SMALL))))
        remove(root)
        return result

    samples = bench.alternate(f"{count} blobs of 1 MiB", min(bench.scale.runs, 2), act)
    for verb in ("push", "pull"):
        for lanes in batches:
            subject = f"{verb} of {count} x 1 MiB, plain, " + ("one after the other" if lanes == 1 else f"{lanes} at a time")
            bench.row(subject, "rate", "blobs a second", samples, f"{verb} {lanes} rate")
            bench.row(subject, "server CPU", "ms a blob", samples, f"{verb} {lanes} cpu")


# ---- requests ---------------------------------------------------------------------------------------------------------


def requests(bench: Bench):
    """manifest GET by tag and blob HEAD at 64 connections, without and with htpasswd"""
    asked = {"manifest": ("GET", "/v2/bench/image/manifests/latest"), "head": ("HEAD", f"/v2/bench/image/blobs/{EMPTY}")}
    no_auth: dict[str, str] = {}

    def act(seat: Seat, auth: bool) -> dict[str, float]:
        root = seat.fresh_root()
        result = {}
        with seat.start(root, auth=auth) as server:
            with Session(server) as session:
                session.push_image("bench/image", "latest")
                # What is about to be counted has to be the right answer.
                _, body = session.must(200, "GET", asked["manifest"][1], Accept=MANIFEST_TYPE)
                if body != manifest(b"{}"):
                    raise Failed(f"{seat.name} serves another manifest than it was given")
                session.must(200, "HEAD", asked["head"][1])
            if auth:
                with Session(server) as stranger:
                    stranger.headers = {}
                    stranger.must(401, "GET", asked["manifest"][1], Accept=MANIFEST_TYPE)
            for key, (method, target) in asked.items():
                for figure, value in wrk(server, method, target, bench.scale.wrk_seconds).items():
                    result[f"{key} {figure}"] = value
        remove(root)
        return result

    def both(seat: Seat) -> dict[str, float]:
        result = act(seat, auth=False)
        if seat.name in no_auth:
            return result
        try:
            guarded = act(seat, auth=True)
        except Failed as problem:
            no_auth[seat.name] = str(problem)
            bench.note(f"htpasswd: not measured for {seat.name}: {problem}")
            return result
        for figure, value in guarded.items():
            result["auth " + figure] = value
        for key in asked:
            result[f"auth {key} part"] = guarded[f"{key} rate"] / result[f"{key} rate"]
        return result

    samples = bench.alternate("requests at 64 connections", bench.scale.runs, both)
    goals = {"manifest": (50, 25, Goal("≤ 8", at_most=8)), "head": (40, 22, None)}
    names = {"manifest": "manifest GET by tag", "head": "blob HEAD"}
    for key, name in names.items():
        faster, cpu, p99 = goals[key]
        subject = f"{name}, 64 connections"
        bench.row(subject, "rate", "requests a second", samples, f"{key} rate", Goal(f"≥ {faster}x", ratio_at_least=faster))
        bench.row(subject, "server CPU", "µs a request", samples, f"{key} cpu_us", Goal(f"≤ {cpu}", at_most=cpu))
        bench.row(subject, "p99", "ms", samples, f"{key} p99", p99)
    for key, name in names.items():
        subject = f"{name}, 64 connections, htpasswd"
        bench.row(subject, "rate", "requests a second", samples, f"auth {key} rate")
        bench.row(subject, "server CPU", "µs a request", samples, f"auth {key} cpu_us")
        bench.row(subject, "p99", "ms", samples, f"auth {key} p99")
        bench.row(subject, "rate / rate without htpasswd", "", samples, f"auth {key} part", Goal("≥ 0.9 (ours)", at_least=0.9))


# ---- listings ---------------------------------------------------------------------------------------------------------


NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


def walk(session: Session, target: str) -> tuple[float, list[bytes]]:
    """Follows the Link headers to the end."""
    pages = []
    began = time.monotonic()
    while target:
        headers, body = session.must(200, "GET", target)
        pages.append(body)
        following = NEXT.search(headers.get("Link", ""))
        target = target_of(following.group(1)) if following else ""
        if len(pages) > 100_000:
            raise Failed(f"{session.server.seat.name} never comes to the last page")
    return time.monotonic() - began, pages


def median_of(seconds: float, most: int, act) -> float:
    """The median of `most` times, or of as many as fit."""
    end = time.monotonic() + seconds
    times = [act()]
    while len(times) < most and time.monotonic() < end:
        times.append(act())
    return statistics.median(times)


def entries(pages: list[bytes], member: str) -> list[str]:
    return [name for page in pages for name in json.loads(page)[member] or []]


def listings(bench: Bench):
    """_catalog of 10,000 repositories, tags/list of 10,000 tags"""
    scale = bench.scale
    root, names = bench.grown()
    catalog = "/v2/_catalog?n=100"
    # Some name on the page before the last one, so that a full last page is asked for.
    last_page = f"{catalog}&last={names[-101].replace('/', '%2F')}"

    def act(seat: Seat) -> dict[str, float]:
        tree.forget_own_state(root)
        result = {}
        with seat.start(root) as server, Session(server) as session:
            def timed(target: str) -> float:
                began = time.monotonic()
                session.must(200, "GET", target)
                return (time.monotonic() - began) * 1e3

            result["first"] = timed(catalog)
            server.settle(60)
            result["page 1"] = median_of(2, 50, lambda: timed(catalog))
            result["page last"] = median_of(2, 50, lambda: timed(last_page))
            _, body = session.must(200, "GET", last_page)
            if entries([body], "repositories") != names[-100:]:
                raise Failed(f"the last page of {seat.name} is not the last 100 names: {body[:200]!r}")

            pages = []

            def whole() -> float:
                nonlocal pages
                seconds, pages = walk(session, catalog)
                return seconds * 1e3

            result["walk"] = median_of(4, 5, whole)
            found = entries(pages, "repositories")
            if found != names:
                bench.note(f"{seat.name} lists {len(found):,} repositories ({len(set(found)):,} different ones) of {len(names):,}"
                           + (", in another order" if sorted(found) == sorted(names) else ""))

            def tags() -> float:
                nonlocal pages
                seconds, pages = walk(session, f"/v2/{tree.TAGGED}/tags/list?n={scale.tags}")
                return seconds * 1e3

            result["tags"] = median_of(2, 50, tags)
            found = entries(pages, "tags")
            if len(set(found)) != scale.tags or len(found) != scale.tags:
                raise Failed(f"{seat.name} lists {len(found):,} tags of {scale.tags:,}")
        return result

    # Once: every figure is a median already, and the reference takes half a minute for its part.
    samples = bench.alternate("listings", 1, act)
    subject = f"`_catalog`, {scale.repositories:,} repositories"
    page = Goal("≤ 1", at_most=1)
    bench.row(subject, "first page (n=100)", "ms", samples, "page 1", page)
    bench.row(subject, "last page (n=100)", "ms", samples, "page last", page)
    bench.row(subject, "all pages (n=100)", "ms", samples, "walk", Goal("≤ 50", at_most=50))
    bench.row(subject, "first request after a start on a tree new to it", "ms", samples, "first")
    bench.row(f"`tags/list`, {scale.tags:,} tags", "all of them", "ms", samples, "tags", Goal("≤ 3", at_most=3))


# ---- start and memory -------------------------------------------------------------------------------------------------


def start(bench: Bench):
    """start to the first answer, idle memory; on an empty disk and on one with 100,000 blobs"""
    scale = bench.scale
    runs = scale.runs + 2
    soon = Goal("≤ 20", at_most=20)

    def empty(seat: Seat) -> dict[str, float]:
        root = seat.fresh_root()
        with seat.start(root, guarded=False) as server:
            seconds = server.seconds_to_answer
            server.settle(10)
            result = {"start": seconds * 1e3, "resident": server.resident()}
        remove(root)
        return result

    samples = bench.alternate("start on an empty disk", runs, empty)
    bench.row("on an empty disk", "start to first answer", "ms", samples, "start", soon)
    bench.row("on an empty disk", "memory, idle", "MiB", samples, "resident", Goal("≤ 8", at_most=8))

    root, _ = bench.grown()
    for new in (True, False):
        def act(seat: Seat, new=new) -> dict[str, float]:
            if new:
                tree.forget_own_state(root)
            else:
                # The other seat ran in between, but does not touch what this one noted; the first of these starts may still note.
                with seat.start(root, guarded=False) as server:
                    server.settle(60)
            with seat.start(root, guarded=False) as server:
                seconds = server.seconds_to_answer
                server.settle(60)
                return {"start": seconds * 1e3, "resident": server.resident(), "cpu": server.cpu()}

        subject = f"with {scale.blobs:,} blobs, {scale.repositories:,} repositories, " + ("new to it" if new else "known to it")
        samples = bench.alternate(f"start {subject}", runs if new else min(runs, 3), act)
        bench.row(subject, "start to first answer", "ms", samples, "start", soon)
        bench.row(subject, "server CPU until idle", "s", samples, "cpu")
        bench.row(subject, "memory, idle", "MiB", samples, "resident")


# ---- durability -------------------------------------------------------------------------------------------------------


def fsyncs(bench: Bench):
    """system calls before a 201, seen by strace: fsyncs, bytes read back, links written in place

    A new name survives a power cut only when its directory was flushed too; syncfs and sync flush all of them.
    """
    blob_goal, manifest_goal = Goal("≤ 4", at_most=4), Goal("≤ 6", at_most=6)
    operations = {
        "blob, first of its repository": blob_goal, "blob, second": blob_goal, "blob, by PATCH": blob_goal,
        "manifest, new tag": manifest_goal, "manifest, tag moved": manifest_goal,
    }
    blobs = [bench.warm.slice(number * MIB, MIB) for number in range(3)]

    def act(seat: Seat) -> dict[str, float]:
        root = seat.fresh_root()
        trace = bench.workdir / f"{seat.name}.trace"
        spans = {}
        with seat.start(root, trace=trace) as server, Session(server) as session:
            def span(name: str, operation):
                began = time.time()
                operation()
                spans[name] = (began, time.time())
                server.settle()

            def patch(data: bytes):
                location = session.start_upload("bench/traced")
                headers, _ = session.must(202, "PATCH", location, iter([data]), Content_Type=OCTETS)
                session.must(201, "PUT", with_digest(target_of(headers["Location"]), sha256(data)), b"", Content_Type=OCTETS)

            server.settle()
            span("blob, first of its repository", lambda: session.push_blob("bench/traced", blobs[0], sha256(blobs[0])))
            span("blob, second", lambda: session.push_blob("bench/traced", blobs[1], sha256(blobs[1])))
            span("blob, by PATCH", lambda: patch(blobs[2]))
            session.push_image("bench/traced", "before")  # its config and layer: not counted
            second = b'{"second": true}'
            session.push_blob("bench/traced", second, sha256(second))
            server.settle()
            target = "/v2/bench/traced/manifests/new"
            span("manifest, new tag", lambda: session.must(201, "PUT", target, manifest(b"{}") + b"\n", Content_Type=MANIFEST_TYPE))
            span("manifest, tag moved", lambda: session.must(201, "PUT", target, manifest(second), Content_Type=MANIFEST_TYPE))
        calls = tracing.parse(trace, root)
        result = {}
        for name, (began, ended) in spans.items():
            seen = [call for call in calls if began <= call.returned <= ended]
            syncs = [call for call in seen if call.name in tracing.SYNCS]
            result[f"{name} syncs"] = len(syncs)
            # The server has ended, its tree still stands.
            result[f"{name} directories"] = sum(1 for call in syncs if (root / call.path.lstrip("/")).is_dir() or call.name in ("sync", "syncfs"))
            result[f"{name} read"] = sum(call.result for call in seen if call.name in tracing.READS and tracing.is_content(call.path)) / MIB
            result[f"{name} in place"] = sum(1 for call in seen if call.creates and call.path.endswith("/link"))
            bench.details.setdefault("syncs", {}).setdefault(seat.name, {})[name] = [f"{call.name} {tracing.short(call.path)}" for call in syncs]
        remove(root)
        return result

    samples = bench.alternate("system calls before a 201", 1, act)
    for name, goal in operations.items():
        subject = f"before the 201 of a {name}"
        bench.row(subject, "fsyncs", "", samples, f"{name} syncs", goal)
        bench.row(subject, "of these, of directories", "", samples, f"{name} directories")
        if name.startswith("blob"):
            bench.row(subject, "of 1 MiB read back", "MiB", samples, f"{name} read")
        bench.row(subject, "links written in place", "", samples, f"{name} in place")


def package(bench: Bench):
    """size of the Debian package, if one was built"""
    samples = Samples()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    built = sorted(target.glob("deb/*.deb"), key=lambda file: file.stat().st_mtime)
    if built:
        samples.figures["size"][OURS].append(built[-1].stat().st_size / 1e6)
    shown = subprocess.run(["apt-cache", "show", "docker-registry"], capture_output=True, text=True, check=False).stdout
    if size := re.search(r"(?m)^Size: (\d+)", shown):
        samples.figures["size"][REFERENCE].append(int(size.group(1)) / 1e6)
    bench.row("package", ".deb", "MB", samples, "size", Goal("≤ 4", at_most=4))


def over(function, transport: str):
    bound = functools.partial(function, transport=transport)
    bound.__doc__ = f"{function.__doc__}, {TRANSPORTS[transport]}"
    return bound


MEASUREMENTS = {
    "push-plain": over(push_large, "plain"),
    "push-tls": over(push_large, "tls"),
    "push-h2": over(push_large, "h2"),
    "pull-plain": over(pull_large, "plain"),
    "pull-tls": over(pull_large, "tls"),
    "pull-h2": over(pull_large, "h2"),
    "small": small,
    "sixteen": sixteen,
    "requests": requests,
    "listings": listings,
    "start": start,
    "fsyncs": fsyncs,
    "garbage": upkeep.garbage,
    "free": upkeep.free,
    "verify": upkeep.verify,
    "retention": upkeep.retention,
    "package": package,
}
