"""Reads what strace wrote: which call, on which path, when it returned."""

import dataclasses
import pathlib
import re
import time

SYNCS = {"fsync", "fdatasync", "syncfs", "sync"}
READS = {"read", "pread64", "readv", "preadv"}

# 1234 1700000000.000001 fsync(7</a/b>) = 0 <0.000123>
WHOLE = re.compile(r"^(?P<pid>\d+)\s+(?P<at>\d+\.\d+) (?P<name>\w+)\((?P<args>.*)\)\s+= (?P<result>-?\d+|\?)(?P<rest>.*)$")
BEGUN = re.compile(r"^(?P<pid>\d+)\s+(?P<at>\d+\.\d+) (?P<name>\w+)\((?P<args>.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(?P<pid>\d+)\s+(?P<at>\d+\.\d+) <\.\.\. (?P<name>\w+) resumed>(?P<args>.*)\)\s+= (?P<result>-?\d+|\?)(?P<rest>.*)$")
TOOK = re.compile(r"<(\d+\.\d+)>$")


@dataclasses.dataclass
class Call:
    name: str
    path: str  # of the file the call is about, for openat the one it opened
    result: int
    returned: float
    creates: bool  # an open for writing that makes or empties the file


def parse(trace: pathlib.Path, root: pathlib.Path, patience: float = 10.0) -> list[Call]:
    """The calls below `root`, and the syncs wherever they are. Waits for the tracer to finish its file: it outlives the traced."""
    end = time.monotonic() + patience
    size = -1
    while time.monotonic() < end and size != trace.stat().st_size:
        size = trace.stat().st_size
        time.sleep(0.2)
    calls, begun = [], {}
    for line in trace.read_text(errors="replace").splitlines():
        if found := BEGUN.match(line):
            begun[found["pid"]] = found["args"]
            continue
        if found := RESUMED.match(line):
            args, returned = begun.pop(found["pid"], "") + found["args"], float(found["at"])
        elif found := WHOLE.match(line):
            took = TOOK.search(found["rest"])
            args, returned = found["args"], float(found["at"]) + (float(took.group(1)) if took else 0)
        else:
            continue
        if found["result"] == "?" or int(found["result"]) < 0:
            continue
        path = path_of(found["name"], args, found["rest"])
        if not path.startswith(str(root)) and found["name"] not in SYNCS:
            continue
        creates = found["name"] == "openat" and bool(re.search(r"O_TRUNC|O_CREAT", args)) and bool(re.search(r"O_WRONLY|O_RDWR", args))
        calls.append(Call(found["name"], path.removeprefix(str(root)), int(found["result"]), returned, creates))
    return calls


def path_of(name: str, args: str, rest: str) -> str:
    where = rest if name == "openat" else args
    found = re.search(r"<(/[^>]*)>", where)
    return found.group(1) if found else ""


def is_content(path: str) -> bool:
    """Bytes of a blob or of an upload, wherever a registry keeps them; not its links, states and indexes."""
    return path.endswith("/data") or "/_uploads/" in path and "/hashstates/" not in path and not path.endswith("/startedat")


def short(path: str) -> str:
    return re.sub(r"[0-9a-f]{64}", "HEX", re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", path)) or "/"
