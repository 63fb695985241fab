"""The clients: curl for the large, plain sockets for the many, wrk for the most. The same one for both seats, always."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.parse

from seat import AUTHORIZATION, Failed, Server

HERE = pathlib.Path(__file__).parent
OCTETS = "application/octet-stream"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
WRK_CONNECTIONS = 64

HTTP_VERSION = {"plain": ["--http1.1"], "tls": ["--http1.1"], "h2": ["--http2"]}


def sha256(data) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


EMPTY = sha256(b"")


# ---- curl -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Answer:
    status: int
    seconds: float
    version: str
    location: str
    length: int


def curl(server: Server, transport: str, url: str, *options: str, stdin=subprocess.DEVNULL) -> Answer:
    command = ["curl", "-q", "-sS", "--max-time", "600", "--cacert", str(server.seat.certificate.authority), "--noproxy", "*",
               *HTTP_VERSION[transport], "-o", "/dev/null", "-D", "-", "-H", "Expect:", "-w", "%{json}", *options, url]
    done = subprocess.run(command, stdin=stdin, capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"curl with {server.seat.name}: {done.stderr.decode(errors='replace').strip()}; {server.log_tail()}")
    headers, _, figures = done.stdout.rpartition(b"\n{")
    figures = json.loads(b"{" + figures)
    location = re.findall(rb"(?im)^location:[ \t]*(\S+)", headers)
    length = re.findall(rb"(?im)^content-length:[ \t]*(\d+)", headers)
    if transport == "h2" and figures["http_version"] != "2":
        raise Failed(f"{server.seat.name} does not take HTTP/2")
    return Answer(figures["response_code"], figures["time_total"], figures["http_version"],
                  urllib.parse.urljoin(url, location[-1].decode()) if location else "", int(length[-1]) if length else -1)


def expect(server: Server, what: str, answer, *statuses: int):
    if answer.status not in statuses:
        raise Failed(f"{server.seat.name} answers {what} with {answer.status}; {server.log_tail()}")


def with_digest(location: str, digest: str) -> str:
    return location + ("&" if "?" in location else "?") + "digest=" + digest


def push_file(server: Server, transport: str, method: str, file: pathlib.Path, digest: str) -> float:
    """One blob as a client would push it; the seconds from the first byte of the POST to the 201."""
    started = curl(server, transport, f"{server.url}/v2/bench/large/blobs/uploads/", "-X", "POST", "-H", "Content-Length: 0")
    expect(server, "POST", started, 202)
    seconds = started.seconds
    octets = ["-H", f"Content-Type: {OCTETS}"]
    if method == "PUT":
        finished = curl(server, transport, with_digest(started.location, digest), *octets, "-T", str(file))
    else:
        # From standard input curl cannot know the length: Transfer-Encoding: chunked, as docker and podman send it.
        with open(file, "rb") as source:
            patched = curl(server, transport, started.location, *octets, "-X", "PATCH", "-T", "-", stdin=source)
        expect(server, "PATCH", patched, 202)
        seconds += patched.seconds
        finished = curl(server, transport, with_digest(patched.location, digest), "-X", "PUT", "-H", "Content-Length: 0", *octets)
    expect(server, "PUT", finished, 201)
    seconds += finished.seconds
    stored = curl(server, transport, f"{server.url}/v2/bench/large/blobs/{digest}", "-I")
    if stored.status != 200 or stored.length != file.stat().st_size:
        raise Failed(f"{server.seat.name} holds {stored.length} bytes (status {stored.status}) of a blob of {file.stat().st_size}")
    return seconds


def pull(server: Server, transport: str, repository: str, digest: str, size: int) -> float:
    answer = curl(server, transport, f"{server.url}/v2/{repository}/blobs/{digest}")
    expect(server, "GET", answer, 200)
    if answer.length != size:
        raise Failed(f"{server.seat.name} sends {answer.length} bytes of a blob of {size}")
    return answer.seconds


def cipher(server: Server) -> str:
    """What curl and this server agree on when nobody asks for anything special."""
    done = subprocess.run(["curl", "-q", "-sv", "--noproxy", "*", "--max-time", "20", "--cacert", str(server.seat.certificate.authority),
                           "-o", "/dev/null", server.url + "/v2/"], capture_output=True, text=True, check=False)
    found = re.search(r"SSL connection using (.+)", done.stderr)
    return found.group(1) if found else "unknown"


# ---- many small ones, on connections that stay open -------------------------------------------------------------------


class Session:
    """One connection that is kept alive; any answer but the expected one ends the measurement."""

    def __init__(self, server: Server):
        self.server = server
        self.connection = server.connection()
        self.headers = {"Authorization": AUTHORIZATION} if server.auth else {}

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_):
        self.connection.close()

    def break_off(self):
        """From another thread: whatever is under way ends now, and nothing follows."""
        self.connection.auto_open = 0
        if self.connection.sock:
            with contextlib.suppress(OSError):
                self.connection.sock.shutdown(socket.SHUT_RDWR)

    def ask(self, method: str, target: str, body=None, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self.connection.request(method, target, body, {**self.headers, **named})
            response = self.connection.getresponse()
            return response.status, response.headers, response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise Failed(f"{method} {target.split('?')[0]} to {self.server.seat.name}: {problem!r}; {self.server.log_tail()}") from None

    def must(self, status: int, method: str, target: str, body=None, **headers: str) -> tuple[http.client.HTTPMessage, bytes]:
        got, answer_headers, answer = self.ask(method, target, body, **headers)
        if got != status:
            raise Failed(f"{self.server.seat.name} answers {method} {target.split('?')[0]} with {got}: {answer[:300]!r}; {self.server.log_tail()}")
        return answer_headers, answer

    def start_upload(self, repository: str) -> str:
        headers, _ = self.must(202, "POST", f"/v2/{repository}/blobs/uploads/", b"")
        return target_of(headers["Location"])

    def push_blob(self, repository: str, data, digest: str):
        self.must(201, "PUT", with_digest(self.start_upload(repository), digest), data,
                  Content_Type=OCTETS, Content_Length=str(len(data)))

    def pull_blob(self, repository: str, digest: str, buffer: memoryview):
        try:
            self.connection.request("GET", f"/v2/{repository}/blobs/{digest}", headers=self.headers)
            response = self.connection.getresponse()
            if response.status != 200:
                raise Failed(f"{self.server.seat.name} answers GET of a blob with {response.status}; {self.server.log_tail()}")
            got = 0
            while got < len(buffer) and (count := response.readinto(buffer[got:])):
                got += count
            if got != len(buffer) or response.read():
                raise Failed(f"{self.server.seat.name} sent another number of bytes than the {len(buffer)} of a blob")
        except (OSError, http.client.HTTPException) as problem:
            raise Failed(f"GET of a blob from {self.server.seat.name}: {problem!r}; {self.server.log_tail()}") from None

    def push_image(self, repository: str, tag: str):
        """The smallest image: a config and one empty layer. HEAD of that layer is what wrk can measure, see requests.lua."""
        config = b"{}"
        self.push_blob(repository, config, sha256(config))
        self.push_blob(repository, b"", EMPTY)
        self.must(201, "PUT", f"/v2/{repository}/manifests/{tag}", manifest(config), Content_Type=MANIFEST_TYPE)


def manifest(config: bytes) -> bytes:
    return json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": EMPTY, "size": 0}],
    }, indent=3).encode()


def target_of(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts.path + ("?" + parts.query if parts.query else "")


def in_lanes(server: Server, lanes: int, items: list, act) -> float:
    """`act(session, item)` for all items, on `lanes` connections; the seconds from the first request to the last answer."""
    sessions = [Session(server) for _ in range(lanes)]

    def lane(number: int):
        with sessions[number] as session:
            for item in items[number::lanes]:
                act(session, item)

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
        try:
            for done in [pool.submit(lane, number) for number in range(lanes)]:
                done.result()
        except BaseException:
            # The pool waits for its threads: they must not go on for minutes with what nobody counts any more.
            for session in sessions:
                session.break_off()
            raise
    return time.monotonic() - began


def send_file_and_suffix(session: Session, repository: str, file: pathlib.Path, suffix: bytes, digest: str):
    """One PUT of a file and a few bytes after it: as many different blobs as wanted from one file, by sendfile(2)."""
    size = file.stat().st_size
    target = with_digest(session.start_upload(repository), digest)
    connection = session.connection
    connection.putrequest("PUT", target)
    connection.putheader("Content-Type", OCTETS)
    connection.putheader("Content-Length", str(size + len(suffix)))
    connection.endheaders()
    try:
        with open(file, "rb") as source:
            connection.sock.sendfile(source)
        connection.sock.sendall(suffix)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as problem:
        raise Failed(f"PUT to {session.server.seat.name}: {problem!r}; {session.server.log_tail()}") from None
    if response.status != 201:
        raise Failed(f"{session.server.seat.name} answers PUT with {response.status}: {answer[:300]!r}")


# ---- wrk --------------------------------------------------------------------------------------------------------------


def wrk(server: Server, method: str, target: str, seconds: int) -> dict[str, float]:
    """Requests a second, p99, server CPU a request, at 64 connections."""
    def burst(length: int) -> dict:
        command = ["wrk", f"-t{min(2, os.cpu_count() or 1)}", f"-c{WRK_CONNECTIONS}", f"-d{length}s", "--timeout", "20s",
                   "-H", f"Accept: {MANIFEST_TYPE}", *(["-H", f"Authorization: {AUTHORIZATION}"] if server.auth else []),
                   "-s", str(HERE / "requests.lua"), server.url + target, "--", method]
        done = subprocess.run(command, capture_output=True, text=True, timeout=length + 60, check=False)
        figures = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not figures:
            raise Failed(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(figures[-1])

    burst(1)
    server.settle()
    cpu = server.cpu()
    figures = burst(seconds)
    cpu = server.cpu() - cpu
    wrong = figures["not_2xx"] + figures["socket_errors"]
    if not figures["requests"] or wrong:
        raise Failed(f"{wrong} of {figures['requests']} answers of {server.seat.name} to {method} {target} were errors; {server.log_tail()}")
    return {
        "rate": figures["requests"] / figures["seconds"],
        "p99": figures["p99_ms"],
        "cpu_us": cpu / figures["requests"] * 1e6,
    }
