"""The two seats: what is started in each, with which configuration, and what the kernel says about the process."""

import http.client
import os
import pathlib
import shlex
import socket
import ssl
import subprocess
import time

from report import OURS

READY_WITHIN = 60.0
STOP_WITHIN = 20.0
TICK = os.sysconf("SC_CLK_TCK")

# User "bench", password "bench": a file for both registries, made once by `htpasswd -Bbn bench bench` (cost 5, its default).
HTPASSWD = "bench:$2y$05$P/k8If50424h3qrI717PMuW.pjq4WP9083cdCwNSEuHglYtC13I3S\n"
AUTHORIZATION = "Basic YmVuY2g6YmVuY2g="

CONFIG = """\
version: 0.1
log:
  level: {level}
  accesslog:
    disabled: {quiet}
storage:
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
  cache:
    blobdescriptor: inmemory
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: 127.0.0.1:{port}
  secret: only-for-this-run
"""
# Ours gives HTTP/2 to clients that know both only when told; the reference does not know the key, and does it anyway.
CONFIG_TLS = """\
  http2:
    preferred: true
  tls:
    certificate: {certificate}
    key: {key}
"""
CONFIG_AUTH = """\
auth:
  htpasswd:
    realm: bench
    path: {htpasswd}
"""


class Failed(Exception):
    """One measurement cannot go on in one seat; the others can."""


class RefusesPlain(Exception):
    """A port with a certificate answers plain HTTP with 400, as Go's server does."""


class Certificate:
    """A CA and a certificate for 127.0.0.1, P-256 as most tools make them."""

    def __init__(self, directory: pathlib.Path):
        self.authority = directory / "ca.crt"
        self.certificate = directory / "server.crt"
        self.key = directory / "server.key"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        authority_key = directory / "ca.key"
        run = lambda *command: subprocess.run(command, check=True, capture_output=True)
        run("openssl", "req", "-x509", *curve, "-subj", "/CN=bench CA", "-keyout", authority_key, "-out", self.authority)
        request = directory / "server.csr"
        run("openssl", "req", *curve[:-2], "-subj", "/CN=localhost", "-keyout", self.key, "-out", request)
        names = directory / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        run("openssl", "x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", authority_key,
            "-CAcreateserial", "-days", "2", "-extfile", names, "-out", self.certificate)
        self.context = ssl.create_default_context(cafile=str(self.authority))


class Seat:
    """A registry to measure: `name` for the table, `command` to start it."""

    def __init__(self, name: str, command: str, *, one_port: bool, certificate: Certificate, workdir: pathlib.Path,
                 access_log: bool):
        self.name = name
        self.command = shlex.split(command)
        self.one_port = one_port  # tells TLS from plain HTTP by the first byte: always configured with its certificate
        self.certificate = certificate
        self.workdir = workdir
        self.access_log = access_log
        self.own = ""
        self.notes: list[str] = []

    def fresh_root(self) -> pathlib.Path:
        root = self.workdir / f"root-{self.name}"
        remove(root)
        root.mkdir()
        return root

    def start(self, root: pathlib.Path, transport: str = "plain", *, auth: bool = False, trace: pathlib.Path | None = None,
              guarded: bool = True, own: str = "") -> "Server":
        """A server that has answered once. `guarded`: it dies with us even if we are killed, at the price of one exec. `own`: keys of
        the config that only this registry knows."""
        self.own = own if self.name == OURS else ""
        try:
            return Server(self, root, transport, auth, trace, guarded)
        except RefusesPlain:
            self.one_port = False
            self.notes.append(f"{self.name} does not serve plain HTTP and TLS on one port: configured for each in turn")
            return Server(self, root, transport, auth, trace, guarded)

    def config(self, root: pathlib.Path, port: int, transport: str, auth: bool) -> pathlib.Path:
        text = CONFIG.format(root=root, port=port, level="info" if self.access_log else "error",
                             quiet="false" if self.access_log else "true")
        if transport != "plain" or self.one_port:
            text += CONFIG_TLS.format(certificate=self.certificate.certificate, key=self.certificate.key)
        if auth:
            users = self.workdir / "htpasswd"
            users.write_text(HTPASSWD)
            text += CONFIG_AUTH.format(htpasswd=users)
        text += self.own
        file = self.workdir / f"{self.name}.yml"
        file.write_text(text)
        return file


class Server:
    """A running registry. A context manager: it is stopped, by its pid, at the end of the block."""

    def __init__(self, seat: Seat, root: pathlib.Path, transport: str, auth: bool, trace: pathlib.Path | None, guarded: bool):
        self.seat = seat
        self.root = root
        self.tls = transport != "plain"
        self.auth = auth
        self.port = free_port()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self.log = seat.workdir / f"{seat.name}.log"
        command = [*seat.command, str(seat.config(root, self.port, transport, auth))]
        self.trace = trace
        if trace:
            # -D: the tracer is a grandchild, so that the pid we know is the registry's.
            command = ["strace", "-D", "-f", "-qq", "-ttt", "-T", "-y", "-s", "0", "-o", str(trace),
                       "-e", "trace=fsync,fdatasync,syncfs,sync,openat,rename,renameat,renameat2,linkat,read,pread64,readv,preadv",
                       *command]
        if guarded:
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with open(self.log, "wb") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait_ready(began)
            self.seconds_to_answer = time.monotonic() - began
        except BaseException:
            self.stop(expect_alive=False)
            raise

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind, *_):
        self.stop(expect_alive=kind is None)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self, began: float):
        while True:
            if self.process.poll() is not None:
                raise Failed(f"{self.seat.name} ended at its start with status {self.process.returncode}: {self.log_tail()}")
            try:
                connection = self.connection(timeout=10)
                connection.request("GET", "/v2/")
                status = connection.getresponse().status
                connection.close()
                if status == 400 and not self.tls and self.seat.one_port:
                    raise RefusesPlain
                if status != (401 if self.auth else 200):
                    raise Failed(f"{self.seat.name} answers GET /v2/ with {status}" + (" although htpasswd is configured" if self.auth else ""))
                return
            except (OSError, http.client.HTTPException) as problem:
                if time.monotonic() - began > READY_WITHIN:
                    raise Failed(f"{self.seat.name} does not answer: {problem}; {self.log_tail()}") from None
                time.sleep(0.0005)

    def connection(self, timeout: float = 300) -> http.client.HTTPConnection:
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.seat.certificate.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def cpu(self) -> float:
        """User and system seconds of all its threads so far."""
        stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2:].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def settle(self, limit: float = 3.0):
        """Waits until it has been idle for 0.2 s, so that work put off past the answer is counted, and not to the next one."""
        end = time.monotonic() + limit
        last, since = self.cpu(), time.monotonic()
        while time.monotonic() < end:
            time.sleep(0.05)
            now = self.cpu()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= 0.2:
                return

    def status_mib(self, field: str) -> float:
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
        raise Failed(f"/proc/{self.pid}/status has no {field}")

    def resident(self) -> float:
        return self.status_mib("VmRSS")

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        return self.status_mib("VmHWM")

    def log_tail(self) -> str:
        text = self.log.read_text(errors="replace").strip()
        return " / ".join(line[:200] for line in text.splitlines()[-3:]) or "(its log is empty)"

    def stop(self, expect_alive: bool = True):
        status = self.process.poll()
        if status is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                self.seat.notes.append(f"{self.seat.name} did not end within {STOP_WITHIN:.0f} s of SIGTERM and was killed")
        elif expect_alive:
            raise Failed(f"{self.seat.name} ended by itself with status {status}: {self.log_tail()}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def remove(path: pathlib.Path):
    if path.is_dir() and not path.is_symlink():
        # Half a million files: rm is several times quicker than a walk from here.
        subprocess.run(["rm", "-rf", "--", str(path)], check=True)
    else:
        path.unlink(missing_ok=True)
