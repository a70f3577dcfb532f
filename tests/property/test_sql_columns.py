"""Whatever points come in whatever order, a reader of a database who looks for what is new has what the database has,
each point once, and the summaries are those of the points."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynctrack.stores.base import AbstractStore, Batch, RunSpec
from asynctrack.stores.branches import Branch
from asynctrack.stores.columns import Columns, Summary
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.sql import columns, summaries
from asynctrack.stores.uri import open_store

_MAX = sys.float_info.max
keys = st.sampled_from(["a", "b/c", "x y", "é"])
values = st.sampled_from([-1.0, 0.0, 1.0, math.nan, math.inf, -math.inf, _MAX, 5e-324]) | st.floats()
points = st.tuples(
    keys, st.integers(0, 4), st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 2**63 - 1]) | st.integers(0, 9), values
)
operations = st.one_of(
    st.tuples(st.just("log"), st.lists(points, min_size=1, max_size=8)),
    st.tuples(st.just("log"), st.lists(points, min_size=1, max_size=8)),
    st.tuples(st.just("later"), st.lists(points, min_size=1, max_size=8)),
    st.tuples(st.just("branch"), st.integers(-1, 4)),
    st.tuples(st.just("other"), st.lists(points, min_size=1, max_size=3)),
)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, memory_path: Path) -> Iterator[AbstractStore]:
    """A store on a database."""
    if request.param == "sqlite":
        uri = f"sqlite:///{memory_path}/mlflow.db"
    else:
        uri = request.getfixturevalue("postgres_database")
    opened = open_store(uri, InlineIO())
    yield opened
    drive(opened.aclose())


def plain(found: dict[str, Columns]) -> dict[str, list[str]]:
    return {key: list(map(repr, its.rows())) for key, its in sorted(found.items())}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(operations, max_size=8),
    st.sampled_from([None, ["a"], ["a", "x y", "none"]]),
    st.sampled_from([(None, None), (0, None), (-1, 2)]),
)
def test_each_look_gives_what_there_is_once(
    store: AbstractStore,
    monkeypatch: pytest.MonkeyPatch,
    happenings: list[tuple[str, Any]],
    wanted: list[str] | None,
    steps: tuple[int | None, int | None],
) -> None:
    monkeypatch.setattr(columns, "_PAGE", 3)
    monkeypatch.setattr(columns, "_MOST_KEYS", 2)
    monkeypatch.setattr(summaries, "_PAGE", 3)
    monkeypatch.setattr(summaries, "_MOST_KEYS", 2)
    uid = uuid.uuid4().hex
    run_id = drive(store.create_run(RunSpec(uid, tags={"t": "1"}))).run_id
    other = drive(store.create_run(RunSpec(uuid.uuid4().hex))).run_id
    given_steps = {"min_step": steps[0], "max_step": steps[1]}
    seen: dict[str, Columns] = {}
    cursor: Any = None
    for at, (what, value) in enumerate([("log", []), *happenings]):
        if what == "branch":
            spec = RunSpec(uuid.uuid4().hex, run_id=run_id)
            drive(store.create_run(spec._replace(tags=Branch.begun(spec.uid, value, at * 100).tag)))
        else:
            metrics: dict[str, list[Any]] = {}
            for key, time, step, number in value:
                metrics.setdefault(key, []).append((time + (100 * at if what == "later" else 0), step, number))
            drive(store.log_batch(other if what == "other" else run_id, Batch(metrics=metrics)))
        found = drive(store.read_columns(run_id, wanted, after=cursor, **given_steps))
        cursor = found.cursor
        for key in found.anew:
            seen.pop(key, None)
        for key, its in found.columns.items():
            seen.setdefault(key, Columns()).extend(its)
        whole = drive(store.read_columns(run_id, wanted, **given_steps)).columns
        assert plain(seen) == plain(whole)
        rows = drive(store.read_columns(run_id)).columns
        for key, its in rows.items():
            history = drive(store.get_metric_history(run_id, key))
            assert sorted((point.timestamp, point.step) for point in history) == [
                (time, step) for step, time, _ in its.rows()
            ]
        assert {key: repr(summary) for key, summary in drive(store.summarize(run_id)).items()} == {
            key: repr(Summary.of(its)) for key, its in rows.items()
        }
