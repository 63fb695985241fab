"""Ours and docker-registry, in turn. Started by scripts/bench, which says how."""

import argparse
import datetime
import json
import os
import pathlib
import signal
import sys
import time

from bench import Bench, Scale
import machine
from measurements import MEASUREMENTS
from report import OURS, REFERENCE, table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="This registry against docker-registry, side by side on this machine.")
    parser.add_argument("--quick", action="store_true", help="smaller, under two minutes: to see that it works")
    parser.add_argument("--only", metavar="NAME,...", help="measurements whose names begin so")
    parser.add_argument("--list", action="store_true", help="the names of the measurements")
    parser.add_argument("--seat", choices=("both", "ours", "reference"), default="both")
    parser.add_argument("--size", type=int, metavar="MIB", help="of the large blob, instead of 1024 (with --quick 128)")
    parser.add_argument("--runs", type=int, metavar="N", help="of each measurement, instead of 3 (with --quick 1); the median counts")
    parser.add_argument("--access-log", action="store_true", help="one log line a request in both; the default is errors only in both")
    parser.add_argument("--limit", type=int, default=1500, metavar="SECONDS", help="of the whole run; what was measured by then is printed")
    parser.add_argument("--json", metavar="FILE", help="every sample")
    options = parser.parse_args()
    if options.size is not None and options.size < 16:
        parser.error("--size: at least 16 MiB")
    return options


def chosen(only: str | None) -> list[str]:
    if not only:
        return list(MEASUREMENTS)
    names = []
    for wanted in only.split(","):
        found = [name for name in MEASUREMENTS if name == wanted or name.startswith(wanted + "-")]
        if not found:
            raise SystemExit(f"bench: no measurement is called {wanted!r}; there are: {', '.join(MEASUREMENTS)}")
        names += [name for name in found if name not in names]
    return [name for name in MEASUREMENTS if name in names]


class Ended(BaseException):
    """A signal, or the time is up. No Exception: nothing on the way may take it for a failed measurement."""


def end(number, _frame):
    # Once: the cleaning that follows must not be interrupted by the next one.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(each, signal.SIG_IGN)
    raise Ended("the time limit" if number == signal.SIGALRM else signal.Signals(number).name)


def main() -> int:
    options = arguments()
    if options.list:
        for name, measurement in MEASUREMENTS.items():
            print(f"{name:12} {measurement.__doc__.strip().splitlines()[0]}")
        return 0
    names = chosen(options.only)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, end)
    signal.alarm(options.limit)

    # A proxy, a log level or a setting in the environment must not matter.
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith(("REGISTRY_", "RUST_LOG"))]:
        del os.environ[name]
    began = time.monotonic()
    watch = machine.Watch()
    seats = {"both": (REFERENCE, OURS), "ours": (OURS,), "reference": (REFERENCE,)}[options.seat]
    bench = Bench(Scale(options.quick, options.size, options.runs), seats, options.access_log)
    ended = None
    context: list[str] = []
    took = {}
    try:
        bench.prepare()
        context = machine.describe({seat: bench.commands[seat] for seat in seats}, bench.large.path, bench.workdir)
        for name in names:
            started = time.monotonic()
            MEASUREMENTS[name](bench)
            took[name] = round(time.monotonic() - started, 1)
            bench.say(f"{name}: {took[name]} s")
    except Ended as why:
        ended = f"ended early, by {why}: what is missing was not measured"
    finally:
        signal.alarm(0)
        bench.close()

    notes = [*bench.notes, *(note for seat in bench.seats for note in seat.notes)]
    kind = "quick run, smaller than the goals speak of" if options.quick else "full run" if bench.scale.full else "run at another size than the goals speak of"
    context += [
        f"{kind}; median of {bench.scale.runs} (fewer where one takes long); ~ marks a spread above 20 %; logs: {'one line a request' if options.access_log else 'errors only'} in both; "
        f"took {time.monotonic() - began:.0f} s",
        str(watch),
    ]
    print(f"{datetime.date.today()}\n")
    print("\n".join(f"- {line}" for line in context))
    print(f"\n{table(bench.rows)}\n")
    for note in ([ended] if ended else []) + notes:
        print(f"- {note}")
    if options.json:
        with open(pathlib.Path(os.environ["BENCH_CALLED_FROM"], options.json), "w") as file:
            json.dump({"context": context, "notes": notes, "ended": ended, "seconds": took, "details": bench.details, "rows": [row.json() for row in bench.rows]}, file, indent=1)
    return 1 if ended or any(row.failed for row in bench.rows) else 0


sys.exit(main())
