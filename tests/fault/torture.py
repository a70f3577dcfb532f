"""Random kills under load, with random faults of the store, checked event by event.

``python -m tests.fault.torture --rounds 1000 --seed 1`` runs so many programs one after another in one folder, on a
file store; with ``--store server`` on a real MLflow server behind a proxy that does all that goes wrong on a wire, with
``--store sqlite`` or ``postgres`` on a database whose locks others hold, or which itself dies. Each logs serial numbers
as fast as it can, to runs of its own, from several threads, and is ended at a random moment in a random way, while the
store is taken away, made slow or left alone; the next one delivers what is left while it logs itself. At the end, and
now and then before, everything that was acknowledged has to be in the store, once.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tests import servers
from tests.fault import programs
from tests.fault.programs import finish
from tests.fault.shipping import start_command
from tests.faults import KINDS, Delay, Mixture, Silent
from tests.mlflow_store import Tables
from tests.mlruns import StoredRun, read_runs
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer

if TYPE_CHECKING:
    from tests.postgres import Postgres
    from tests.wire import Wire

#: threads of a program, each with a metric of its own
THREADS = 3
#: rounds after which everything is checked and the folder is begun anew, so that a check stays quick
CHECK_EVERY = 10

#: what is killed: as many runs as it gets through, each with a param and a tag, each thread counting what has returned
VICTIM = """
import random
rounds, seed, segment = int(os.environ["ROUND"]), int(os.environ["SEED"]), int(os.environ["SEGMENT"])
asynctrack.configure(flush_interval=0.05, segment_bytes=segment, close_timeout=20.0)
if os.environ["SLOW"] == "1":
    really_write = os.write
    def slow_write(fd, data):
        time.sleep(0.002)
        return really_write(fd, data)
    os.write = slow_write
chance = random.Random(seed)
returned = [counted(f"acknowledged.{number}") for number in range(3)]
length = chance.choice([500, 5_000, 1 << 40])
part = 0
while True:
    with asynctrack.start_run(run_name=f"{rounds}.{part}", tags={"round": rounds}) as run:
        run.log_param("part", part)
        if not part:
            print("ready", flush=True)
        def work(number):
            log, counter, key = run.log_metric, returned[number], f"t{number}"
            for step in range(length):
                log(key, step * 0.25, step)
                counter[0] = (part << 40) + step + 1
                if step in rest:
                    time.sleep(0.02)
                if step % 1000 == 999:
                    run.log_param(f"{key}.{step}", step)
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(1, 3)]
        for thread in threads:
            thread.start()
        work(0)
        for thread in threads:
            thread.join()
        run.set_tag("whole", "yes")
    part += 1
"""


class Bench(Protocol):
    """A store to torture: what programs need to reach it, how to disturb it, how to read it back."""

    environment: dict[str, str]

    def faults(self) -> list[str]:
        """The names of what can be done to it."""

    def disturb(self, fault: str, chance: random.Random, at_rest: Callable[[], bool]) -> Callable[[], bool]:
        """Begin a fault; the function that ends it, or returns False where it must be called again when no program is
        running (``at_rest``)."""

    def runs(self) -> dict[str, StoredRun]:
        """Everything in it."""


class FileBench:
    """The file store in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.environment = {
            "MLFLOW_TRACKING_URI": str(self.disk / "mlruns"),
            "ASYNCTRACK_SPOOL_DIR": str(folder / "spools"),
        }

    def faults(self) -> list[str]:
        return ["none", "away", "blocked", "slow"]

    def disturb(self, fault: str, chance: random.Random, at_rest: Callable[[], bool]) -> Callable[[], bool]:
        away = self.disk.with_name("away")
        if fault not in ("away", "blocked"):
            return lambda: True
        self.disk.rename(away)
        if fault == "blocked":  # something that is no folder in its place: every access fails at once
            try:
                self.disk.write_text("")
            except IsADirectoryError:
                pass  # the program was faster, and has begun a new store there: so it is away

        def mend() -> bool:
            if self.disk.is_file():
                self.disk.unlink()
            elif self.disk.exists():
                # A program that had ended its runs began a new store there, as MLflow does. It may be at work in it.
                if not at_rest():
                    return False
                merge(self.disk / "mlruns", away / "mlruns")
                shutil.rmtree(self.disk)
            away.rename(self.disk)
            return True

        return mend

    def runs(self) -> dict[str, StoredRun]:
        return read_runs(self.disk / "mlruns")


class ServerBench:
    """An experiment of its own on a real MLflow server, reached through a proxy."""

    def __init__(self, server: MlflowServer, proxy: FaultProxy, folder: Path) -> None:
        self._server, self._proxy = server, proxy
        self._experiment = support.fresh("torture")
        self.environment = {
            "MLFLOW_TRACKING_URI": proxy.url,
            "MLFLOW_EXPERIMENT_NAME": self._experiment,
            "ASYNCTRACK_SPOOL_DIR": str(folder / "spools"),
            "LOG_AND_REST": "200",  # 30,000 events a second: a server on SQLite takes some 10,000
        }

    def faults(self) -> list[str]:
        return ["none", "away", "silent", "slow", "mixed"]

    def disturb(self, fault: str, chance: random.Random, at_rest: Callable[[], bool]) -> Callable[[], bool]:
        if fault == "away":
            self._proxy.refuse()
        elif fault == "silent":
            self._proxy.always(Silent())
        elif fault == "slow":
            self._proxy.always(Delay(chance.uniform(0, 0.1), chance.uniform(0, 0.1)))
        elif fault == "mixed":
            kinds = chance.sample(sorted(KINDS), 5)
            self._proxy.always(Mixture(chance.randrange(1 << 30), {kind: chance.uniform(0.02, 0.2) for kind in kinds}))

        def mend() -> bool:
            self._proxy.heal()
            return True

        return mend

    def runs(self) -> dict[str, StoredRun]:
        return programs.read_tables(self._server, self._experiment)


#: what another program does to a database; "killed" leaves a transaction behind, which the next one takes back
_OTHERS = {
    "locked": "BEGIN EXCLUSIVE",
    "read": "BEGIN; SELECT count(*) FROM metrics",
    "killed": "BEGIN IMMEDIATE; UPDATE runs SET user_id = 'nobody'; UPDATE params SET value = 'changed'",
}


class SqliteBench:
    """A database that others lock, read and are killed in."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "disk" / "mlflow.db"
        self._tables = Tables(f"sqlite:///{self._path}")
        self.environment = {
            "MLFLOW_TRACKING_URI": self._tables.backend,
            "ASYNCTRACK_SPOOL_DIR": str(folder / "spools"),
            "LOG_AND_REST": "500",
        }

    def faults(self) -> list[str]:
        return ["none", *_OTHERS]

    def disturb(self, fault: str, chance: random.Random, at_rest: Callable[[], bool]) -> Callable[[], bool]:
        if fault not in _OTHERS:
            return lambda: True
        other = subprocess.Popen([sys.executable, "-c", _OTHER, self._path, _OTHERS[fault]], stdout=PIPE)
        assert other.stdout is not None
        assert other.stdout.readline() == b"done\n"

        def mend() -> bool:
            other.kill()
            other.communicate()
            return True

        return mend

    def runs(self) -> dict[str, StoredRun]:
        connection = sqlite3.connect(self._path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()
        return programs.read_tables(self._tables, "Default")


#: another program: it carries out statements, with so little memory that what it changes is in the file, and stays
_OTHER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("PRAGMA cache_size = 1")
for statement in sys.argv[2].split(";"):
    connection.execute(statement).fetchall()
print("done", flush=True)
time.sleep(3600)
"""


class PostgresBench:
    """An experiment of its own in a real PostgreSQL database, reached over a wire."""

    def __init__(self, cluster: Postgres, wire: Wire, folder: Path) -> None:
        self._cluster, self._wire = cluster, wire
        self._experiment = support.fresh("torture")
        self.environment = {
            "MLFLOW_TRACKING_URI": wire.uri,
            "MLFLOW_EXPERIMENT_NAME": self._experiment,
            "ASYNCTRACK_SPOOL_DIR": str(folder / "spools"),
            "LOG_AND_REST": "500",
        }

    def faults(self) -> list[str]:
        return ["none", "away", "cut", "dead", "locked"]

    def disturb(self, fault: str, chance: random.Random, at_rest: Callable[[], bool]) -> Callable[[], bool]:
        mend: Callable[[], object] = self._wire.heal
        if fault == "away":
            self._wire.refuse()
        elif fault == "cut":
            self._wire.cut_some_commits(chance.randrange(1 << 30), chance.uniform(0.1, 0.9))
        elif fault == "dead":
            self._cluster.kill()
            mend = self._cluster.start
        elif fault == "locked":
            neighbour = self._cluster.connect()
            neighbour.execute("BEGIN")
            neighbour.execute(f"LOCK TABLE {chance.choice(['runs', 'metrics', 'tags'])} IN ACCESS EXCLUSIVE MODE")
            mend = neighbour.close

        def mended() -> bool:
            mend()
            return True

        return mended

    def runs(self) -> dict[str, StoredRun]:
        return programs.read_tables(Tables(self._cluster.url), self._experiment)


def merge(source: Path, target: Path) -> None:
    """Move the runs of a file store into another one."""
    for meta in source.glob("*/*/meta.yaml"):
        to = target / meta.relative_to(source).parent
        shutil.rmtree(to, ignore_errors=True)  # at most the beginnings of the same run, without meta.yaml
        to.parent.mkdir(parents=True, exist_ok=True)
        meta.parent.rename(to)


class Death(NamedTuple):
    """One way to end: the signals sent, and the exit codes that are right."""

    signals: tuple[int, ...]
    codes: tuple[int, ...]


DEATHS = {
    "kill -9": Death((signal.SIGKILL,), (-signal.SIGKILL,)),
    "SIGTERM": Death((signal.SIGTERM,), (-signal.SIGTERM,)),
    "SIGTERM, then kill -9": Death((signal.SIGTERM, signal.SIGKILL), (-signal.SIGTERM, -signal.SIGKILL)),
    "SIGHUP": Death((signal.SIGHUP,), (-signal.SIGHUP,)),
    "SIGINT": Death((signal.SIGINT,), (-signal.SIGINT, 1)),
    "stopped for a while, kill -9": Death((signal.SIGSTOP, signal.SIGKILL), (-signal.SIGKILL,)),
}


class Torture:
    """Rounds of one seed in one folder."""

    def __init__(self, folder: Path, bench: Bench, seed: int, fault: str | None = None) -> None:
        self.folder = folder
        self.bench = bench
        #: in every round; None: a random one
        self.fault = fault
        self.random = random.Random(seed)
        #: round → what each thread had acknowledged in its last run: (part, steps)
        self.acknowledged: dict[int, list[tuple[int, int]]] = {}
        self.events = 0

    def round(self, number: int) -> str:
        """One program's life and death; what happened, in words."""
        choose = self.random
        death, fault = choose.choice(list(DEATHS)), self.fault or choose.choice(self.bench.faults())
        for thread in range(THREADS):
            (self.folder / f"acknowledged.{thread}").write_bytes(bytes(8))
        process = programs.start(
            programs.COUNTING + VICTIM, self.folder, **self.bench.environment,
            ROUND=str(number), SEED=str(choose.randrange(1 << 30)), SLOW="1" if fault == "slow" else "0",
            SEGMENT=str(choose.choice([4096, 65536, 4 << 20])), ASYNCTRACK_TERM_TIMEOUT="10",
        )  # fmt: skip
        try:
            programs.line_for(process)
            time.sleep(choose.uniform(0.0, 0.3))  # random moments, not waits for something, here and below
            mend = self.bench.disturb(fault, choose, lambda: process.poll() is not None)
            time.sleep(choose.uniform(0.0, 0.4))
            for sent in DEATHS[death].signals:
                process.send_signal(sent)
                time.sleep(choose.uniform(0.0, 0.1))
            mended = mend()
            result = programs.finish(process)
            if not mended:
                mend()
        finally:
            process.kill()  # where something above has failed: it logs for ever
        what = f"round {number}: {death}, store: {fault}"
        assert result.returncode in DEATHS[death].codes, f"{what}: exit code {result.returncode}\n{result.stderr}"
        assert death == "SIGINT" or "Traceback" not in result.stderr, f"{what}\n{result.stderr}"
        counts = [struct.unpack("=q", (self.folder / f"acknowledged.{n}").read_bytes())[0] for n in range(THREADS)]
        self.acknowledged[number] = [(count >> 40, count & ((1 << 40) - 1)) for count in counts]
        return what

    def check(self) -> None:
        """Deliver what is left, and compare: every acknowledged event once, nothing else but the calls under way."""
        # Of ten programs, and maybe on a busy machine: it ends by itself when nothing gets on any more.
        result = finish(programs.start(programs.NEXT, self.folder, **self.bench.environment), 600)
        assert result.returncode == 0, result.stderr
        refused = self._refused()
        if refused:
            # While the store was away, a program may have begun a new one in its place, where older runs are not: their
            # events are refused and kept, for the user to try again when the store is back.
            assert all('"no run ' in line for line in refused), f"refused: {refused[:3]} and {len(refused)} in all"
            assert isinstance(self.bench, FileBench), "a server's runs do not go away"
            finish(start_command(self.folder, "spool", "retry", **self.bench.environment))
            refused = self._refused()
        assert not refused, f"refused: {refused[:3]} and {len(refused)} in all"
        left = [path for path in (self.folder / "spools").iterdir() if path.is_dir()]
        assert not left, f"not delivered: {left}"
        stored: dict[str, StoredRun] = {}
        for run in self.bench.runs().values():
            name = run.tags["mlflow.runName"]
            assert name == "next" or name not in stored, f"run {name} is there twice"
            stored[name] = run
        for number, threads in self.acknowledged.items():
            self._check_round(number, threads, stored)
        self.acknowledged.clear()

    def _refused(self) -> list[str]:
        files = (self.folder / "spools").glob("*/rejected.jsonl")
        return [line for file in files for line in file.read_text("utf-8").splitlines()]

    def _check_round(self, number: int, threads: list[tuple[int, int]], stored: dict[str, StoredRun]) -> None:
        parts = sorted((run for name, run in stored.items() if name.startswith(f"{number}.")), key=_part)
        assert [_part(run) for run in parts] == list(range(len(parts)))
        for thread, (part, count) in enumerate(threads):
            assert part < len(parts) or not count, f"round {number}: run {part} is missing, with {count} events"
            for run in parts:
                points = sorted((step, value) for _, value, step in run.metrics.get(f"t{thread}", []))
                about = f"round {number}.{_part(run)}, thread {thread}: {len(points)} stored"
                assert points == [(step, step * 0.25) for step in range(len(points))], f"{about}; {_difference(points)}"
                if _part(run) == part:
                    # The call under way when the end came may or may not have got there.
                    assert len(points) in (count, count + 1), f"{about}, {count} acknowledged"
                self.events += len(points)
        for run in parts[:-1]:
            assert run.status == "FINISHED", f"round {number}: {run.status}"
            assert run.tags["whole"] == "yes"
        assert all(run.status in ("FINISHED", "KILLED") for run in parts), f"round {number}: {parts[-1].status}"


def _part(run: StoredRun) -> int:
    return int(run.tags["mlflow.runName"].partition(".")[2])


def _difference(points: list[tuple[int, float]]) -> str:
    steps = [step for step, _ in points]
    missing = sorted(set(range(max(steps) + 1)) - set(steps))
    doubled = len(steps) - len(set(steps))
    wrong = [point for point in points if point[1] != point[0] * 0.25]
    return f"lost {len(missing)} {missing[:1]} to {missing[-1:]}, doubled {doubled}, wrong {wrong[:3]}"


def torture(
    rounds: int,
    seed: int,
    make_bench: Callable[[Path], Bench],
    folder: Path,
    *,
    fault: str | None = None,
    verbose: bool,
) -> int:
    """Run the rounds; how many events were checked. Raises AssertionError, and leaves the folder as it is then."""
    events = 0
    for first in range(0, rounds, CHECK_EVERY):
        home = folder / f"{first:06d}"
        home.mkdir(parents=True)
        # Each lot has a seed of its own, so that one that fails can be had again without those before it.
        lot = Torture(home, make_bench(home), seed + first, fault)
        for number in range(first, min(first + CHECK_EVERY, rounds)):
            what = lot.round(number)
            if verbose:
                print(what, flush=True)
        lot.check()
        events += lot.events
        shutil.rmtree(home)
    return events


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--store", choices=["file", "server", "sqlite", "postgres"], default="file")
    parser.add_argument("--fault", help="this one in every round, instead of a random one")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    programs.heed_signals()
    folder = Path(tempfile.mkdtemp(prefix="asynctrack-torture-"))
    print(f"seed {options.seed}, in {folder}", flush=True)
    with contextlib.ExitStack() as stack:
        make_bench: Callable[[Path], Bench] = FileBench
        server: MlflowServer | None = None
        if options.store == "server":
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(servers.sqlite(home))
            make_bench = functools.partial(ServerBench, server, stack.enter_context(FaultProxy(server.url)))
        elif options.store == "sqlite":
            make_bench = SqliteBench
        elif options.store == "postgres":
            from tests.postgres import Postgres, with_tables  # where it is installed
            from tests.wire import Wire

            cluster = stack.enter_context(with_tables(Postgres()))
            make_bench = functools.partial(PostgresBench, cluster, stack.enter_context(Wire(cluster)))
        try:
            events = torture(
                options.rounds, options.seed, make_bench, folder, fault=options.fault, verbose=options.verbose
            )
        except AssertionError as error:
            print(f"FAILED with seed {options.seed}: {error}\nThe files are in {folder}", file=sys.stderr)
            if server is not None:  # it may have been the server that has died, or hangs
                print(f"The server's last words:\n{server.log()[-3000:]}", file=sys.stderr)
            return 1
    folder.rmdir()
    print(f"{options.rounds} rounds, {events:,} events: none lost, none doubled")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
