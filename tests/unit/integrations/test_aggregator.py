"""Counts, distributions and gauges per window, of one process and of several."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asynctrack
from asynctrack.errors import AsynctrackError, InvalidInputError, NoActiveRunError
from asynctrack.integrations.aggregator import Aggregator
from asynctrack.integrations.book import Book
from asynctrack.integrations.windows import Window
from asynctrack.integrations.workers import Workers
from asynctrack.runs.active import states_of_process
from tests.mlruns import only_run


def total(tmp_path: Path, key: str) -> float:
    return math.fsum(value for _, value, _ in only_run(tmp_path / "mlruns").metrics.get(key, ()))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ── one window


def test_a_window_as_metrics() -> None:
    window = Window(7)
    values = np.random.default_rng(7).lognormal(size=20_000)
    window.observe("ms", values.tolist())
    window.observe("ms", [math.nan, math.inf])
    window.count("errors", 3)
    window.gauge("open", "sum", 4)
    window.close(10.0)
    entries = window.entries([0.5, 0.99, 0.999])
    assert entries.keys() == {
        *("ms/count", "ms/rate", "ms/mean", "ms/p50", "ms/p99", "ms/p99.9", "ms/max"),
        *("errors/count", "errors/rate", "open"),
    }
    assert (entries["ms/count"], entries["ms/rate"], entries["ms/max"]) == (20_000, 2_000, values.max())
    assert (entries["errors/count"], entries["errors/rate"], entries["open"]) == (3, 0.3, 4)
    assert entries["ms/mean"] == pytest.approx(values.mean())
    assert entries["ms/p50"] == pytest.approx(np.quantile(values, 0.5), rel=0.02)
    assert entries["ms/p99"] == pytest.approx(np.quantile(values, 0.99), rel=0.03)


def test_a_total_says_what_one_series_of_all_values_would() -> None:
    chance = np.random.default_rng(7)
    window, everything = Window(7), []
    for name in ("a", "b", "c"):
        values = chance.lognormal(size=5_000).tolist()
        everything += values
        window.observe(name, values)
    window.observe("alone", [1e9])
    window.add_up({"a": "all", "b": "all", "c": "all", "not observed": "all"})
    window.close(10.0)
    entries = window.entries([0.5, 0.99])
    assert (entries["all/count"], entries["all/rate"]) == (15_000, 1_500)
    assert entries["all/max"] == max(everything)
    assert entries["all/mean"] == pytest.approx(np.mean(everything))
    for name, quantile in (("all/p50", 0.5), ("all/p99", 0.99)):
        assert entries[name] == pytest.approx(np.quantile(everything, quantile), rel=0.03)
    assert entries["a/count"] == 5_000


def test_values_are_observed_with_their_total(tmp_path: Path) -> None:
    """Over windows and forks: a name stays a part of its total."""
    with asynctrack.start_run() as run, Aggregator(run, every=0.1) as aggregator:
        for step in range(2):
            aggregator.observe("get", 1.0, "all")
            aggregator.observe("put", 2.0, "all")
            until(lambda: not any(aggregator._observed.values()))
            time.sleep(0.15 * (1 - step))
        with pytest.raises(InvalidInputError):
            aggregator.observe("post", 1.0, 5)  # type: ignore[arg-type]
    assert (total(tmp_path, "all/count"), total(tmp_path, "get/count")) == (4, 2)
    assert not any(key.startswith("post") for key in only_run(tmp_path / "mlruns").metrics)


def test_a_window_is_cut_where_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not with the next look that comes by itself. A clock that stands still costs no processor."""
    book = Book(10.0, [0.5], "", None)
    for now, left in ((17.5, 2.5), (20.0, 10.0), (29.9999, 0.02)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert book.left() == pytest.approx(left)


def test_merged_windows_say_what_one_window_of_all_values_would() -> None:
    chance = np.random.default_rng(7)
    parts, everything = [], []
    for worker in range(4):
        window = Window(7)
        values = chance.normal(10 * worker, 1, 5_000).tolist()
        everything += values
        window.observe("ms", values)
        window.gauge("sum", "sum", worker)
        window.gauge("mean", "mean", worker)
        window.gauge("max", "max", worker)
        window.gauge("min", "min", worker)
        window.close(2.0)
        parts.append(Window.load(window.dump()))
    whole = Window(7)
    for part in parts:
        whole.merge(part)
    entries = whole.entries([0.3, 0.6])
    assert (entries["ms/count"], entries["ms/rate"]) == (20_000, 10_000)
    assert (entries["sum"], entries["mean"], entries["max"], entries["min"]) == (6, 1.5, 3, 0)
    assert entries["ms/mean"] == pytest.approx(np.mean(everything))
    assert entries["ms/p60"] == pytest.approx(np.quantile(everything, 0.6), abs=0.2)
    assert entries["ms/max"] == max(everything)


def test_what_is_no_window_is_told_apart() -> None:
    good = json.loads(Window(1).dump())
    for wrong in (b"", b"[]", b"{}", b"[" * 100_000, json.dumps(good | {"counts": [1]}).encode(), b"\xff"):
        with pytest.raises(ValueError, match="no window"):
            Window.load(wrong)
    with pytest.raises(ValueError, match="no window"):
        Window.load(json.dumps(good | {"series": {"a": [1, 1.0, 1.0, 1.0, "AAAA"]}}).encode())


# ── in a process


def test_everything_counted_is_logged_whatever_the_threads(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        with Aggregator(run, every=0.1, prefix="svc/") as aggregator:

            def work() -> None:
                for number in range(5_000):
                    aggregator.count("hits")
                    aggregator.observe("ms", number)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        aggregator.close()
        with pytest.raises(AsynctrackError, match="closed"):
            aggregator.count("more")
    assert total(tmp_path, "svc/hits/count") == total(tmp_path, "svc/ms/count") == 20_000
    points = only_run(tmp_path / "mlruns").metrics["svc/ms/p50"]
    assert all(abs(time.time() * 1000 - timestamp) < 600_000 for timestamp, _, _ in points)
    assert [step for *_, step in points] == sorted({step for *_, step in points})


def test_the_last_window_is_logged_when_the_program_ends(tmp_path: Path) -> None:
    program = "import asynctrack\na = asynctrack.Aggregator(asynctrack.start_run(), 3600)\na.count('hits', 3)\n"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=120)
    assert total(tmp_path, "hits/count") == 3
    assert only_run(tmp_path / "mlruns").status == "FINISHED"


def test_gauges_are_asked_once_a_window_and_one_that_fails_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> float:
        raise KeyError("mine")

    with asynctrack.start_run() as run, Aggregator(run, 0.1) as aggregator:
        aggregator.gauge("fails", fails)
        aggregator.gauge("depth", lambda: 5, merge="max")
        aggregator.observe("ms", "no number")  # type: ignore[arg-type]
        aggregator.observe("ms", 1.0)
        until(lambda: run.stats().accepted >= 6)
    assert {value for _, value, _ in only_run(tmp_path / "mlruns").metrics["depth"]} == {5.0}
    assert total(tmp_path, "ms/count") == 1
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len([message for message in told if "gauge fails: KeyError('mine')" in message]) == 1
    assert len([message for message in told if "left out" in message]) == 1


def test_the_open_run_is_the_default() -> None:
    aggregator = Aggregator(every=0.1)
    with pytest.raises(NoActiveRunError, match="needs a run"):
        aggregator.count("hits")
    with asynctrack.start_run() as run:
        aggregator.count("hits")
        aggregator.close()
    assert aggregator.run == run
    assert run.stats().delivered == 2


def test_arguments_are_checked() -> None:
    for wrong in (0, -1, 86_401, math.nan, "x", None):
        with pytest.raises(InvalidInputError, match="every="):
            Aggregator(every=wrong)  # type: ignore[arg-type]
    for arguments in ({"quantiles": [1.5]}, {"quantiles": ["x"]}, {"workers": "all"}, {"prefix": 7}):
        with pytest.raises(InvalidInputError):
            Aggregator(**arguments)
    aggregator = Aggregator()
    with pytest.raises(InvalidInputError, match="cannot be called"):
        aggregator.gauge("g", 7)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="merge="):
        aggregator.gauge("g", lambda: 1, merge="median")  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_counts_for_itself(tmp_path: Path) -> None:
    program = """
import os, asynctrack
run = asynctrack.start_run()
a = asynctrack.Aggregator(run, 3600)
a.count("hits", 1)
child = os.fork()
a.count("hits", 10 if child else 100)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=120)
    assert total(tmp_path, "hits/count") == 111


# ── several workers

_WORKER = """
import random, sys, time, asynctrack
from asynctrack.integrations.aggregator import Aggregator
run_id, seed, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
chance = random.Random(seed)
with asynctrack.attach(run_id) as run, Aggregator(run, 0.2, workers=how) as aggregator:
    aggregator.gauge("open", lambda: 1)
    while aggregator._book._workers is None:
        time.sleep(0.01)
    print(flush=True)
    input()  # the others are there
    for number in range(2000):
        aggregator.observe("ms", chance.random())
        if not number % 100:
            time.sleep(0.02)
    print(flush=True)
    input()  # the others are through
"""


@pytest.mark.parametrize("how", ["merged", "each"])
def test_workers_that_log_to_one_run(tmp_path: Path, how: str) -> None:
    service = asynctrack.get_service()
    run_id = service.create_run(service.create_experiment("shared")).info.run_id
    arguments = [sys.executable, "-c", _WORKER, run_id]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*arguments, str(seed), how], cwd=tmp_path, **pipes) for seed in range(3)]
    for _ in range(2):
        assert [worker.stdout.readline() for worker in workers if worker.stdout] == ["\n"] * 3
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("\n")
            worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    metrics = only_run(tmp_path / "mlruns").metrics
    keys = ["ms/count"] if how == "merged" else [f"worker/{number}/ms/count" for number in range(3)]
    assert math.fsum(total(tmp_path, key) for key in keys) == 6_000
    for key in keys:
        steps = [step for *_, step in metrics[key]]
        assert len(steps) == len(set(steps))  # a window is logged once
    if how == "merged":
        assert not [key for key in metrics if key.startswith("worker/")]
        assert max(value for _, value, _ in metrics["open"]) <= 3
    assert not list((tmp_path / ".asynctrack").glob("workers-*"))


def test_what_a_killed_worker_has_left_is_merged(tmp_path: Path) -> None:
    """Its number is free again, and its windows are there."""
    folder = str(tmp_path / "meet")
    logged: list[Window] = []
    program = f"""
import os
from asynctrack.integrations.book import Book
from asynctrack.integrations.windows import Window
from asynctrack.integrations.workers import Workers
workers = Workers({folder!r})
assert workers.number == 1
window = Window(5)
window.count("hits", 7)
window.close(1.0)
workers.put(window)
os.kill(os.getpid(), 9)
"""
    alive = Workers(folder)
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == -9
    (tmp_path / "meet" / "5-ab.part").write_bytes(b"torn")
    alive.merge(5, logged.append)
    assert not logged
    other = Workers(folder)
    assert (alive.number, other.number) == (0, 1)
    other.close(0, logged.append)
    assert not logged
    alive.close(0, logged.append)  # the last one
    assert [(window.number, window.counts) for window in logged] == [(5, {"hits": 7.0})]
    assert not os.path.exists(folder)


def test_random_workers_that_come_and_go(tmp_path: Path) -> None:
    """Threads in the place of processes: the locks are of open files. Nothing is lost, nothing doubled."""
    folder = str(tmp_path / "meet")
    logged: list[Window] = []
    given: list[int] = []

    def live(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(5):
            workers = Workers(folder)
            for number in range(chance.randrange(1, 6)):
                window = Window(number)
                window.count("hits", 1)
                window.close(1.0)
                given.append(number)
                workers.put(window)
                workers.merge(chance.randrange(7), logged.append)
            workers.close(chance.randrange(7), logged.append)

    threads: list[Any] = [threading.Thread(target=live, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(window.counts["hits"] for window in logged) == len(given)
    assert not os.path.exists(folder)


@pytest.mark.parametrize("odd", [None, 5, 1.5, ["a"], {"a": 1}, object()])
def test_what_is_no_name_or_no_choice_is_refused_at_the_call(odd: Any) -> None:
    with asynctrack.start_run() as run, Aggregator(run, 60) as aggregator:
        for call in (
            lambda: aggregator.observe(odd, 1.0),
            lambda: aggregator.count(odd),
            lambda: aggregator.gauge(odd, lambda: 1),
            lambda: aggregator.gauge("a", lambda: 1, odd),
            lambda: Aggregator(run, quantiles=[odd] if odd == 1.5 else object()),  # type: ignore[arg-type]  # tried
        ):
            with pytest.raises(InvalidInputError):
                call()


def test_the_run_that_the_environment_names_is_let_go_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = asynctrack.get_service()
    run_id = service.create_run(service.create_experiment("shared")).info.run_id
    monkeypatch.setenv("ASYNCTRACK_ATTACH", run_id)
    with asynctrack.Aggregator(every=3600) as aggregator:
        aggregator.count("tokens", 3)
        assert [state.run_id for state in states_of_process()] == [run_id]
    assert not states_of_process()
    asynctrack.shutdown()
    stored = only_run(tmp_path / "mlruns")
    assert (total(tmp_path, "tokens/count"), stored.status) == (3, "RUNNING")
