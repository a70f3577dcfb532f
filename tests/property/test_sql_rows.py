"""The same random events and verbs through MLflow's own store and through ours give the same rows, and the same
refusals."""

from __future__ import annotations

import math
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asynctrack.errors import InvalidInputError, StoreError
from asynctrack.journal.measured import MeasuredOn
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from tests.mlflow_store import open_mlflow
from tests.postgres import Postgres

_MAX = sys.float_info.max
_LEAST, _MOST = -(2**63), 2**63 - 1

keys = st.sampled_from(["a", "b/c", "x y"])
values = st.sampled_from([-1.0, 0.0, -0.0, 1.0, 0.5, math.nan, math.inf, -math.inf, _MAX, -_MAX, 5e-324]) | st.floats()
points = st.tuples(keys, st.integers(0, 3), st.sampled_from([_LEAST, -1, 0, 1, 2, _MOST]), values)
texts = st.sampled_from(["", "1", "2", "é\n", "x" * 6500, "x" * 8500])
tag_keys = st.sampled_from(["t", "u v"])
#: PostgreSQL's column takes 250 characters: MLflow refuses more, we cut them
names = st.tuples(st.just("mlflow.runName"), st.sampled_from(["", "1", "é", "n" * 250]))
MODELS, MISSING = ("m-1", "m-2"), "m-3"
datasets = st.sampled_from([(None, None), ("train", "d1"), ("größe 1", "d2")])
about = st.tuples(keys, st.sampled_from([0, 1, _MOST]), values, st.sampled_from([None, *MODELS]), datasets)
batches = st.tuples(st.just("metrics"), st.lists(points, min_size=1, max_size=12))
operations = st.one_of(
    batches,
    batches,
    batches,
    st.tuples(st.just("measured"), st.lists(about, min_size=1, max_size=6)),
    st.tuples(st.just("param"), keys, texts),
    st.tuples(st.just("tags"), st.lists(st.tuples(tag_keys, texts) | names, min_size=1, max_size=4)),
    st.tuples(st.just("end"), st.sampled_from(["FINISHED", "FAILED", "KILLED", "RUNNING"]), st.integers(1, 99)),
    st.tuples(st.just("rename"), st.sampled_from(["", "other", "é"])),
    st.tuples(st.just("delete_tag"), tag_keys),
    st.sampled_from([("delete",), ("restore",), ("delete_experiment",), ("restore_experiment",)]),
    st.tuples(st.just("name_experiment"), st.sampled_from(["taken", "free", ""])),
    st.tuples(st.just("tag_experiment"), tag_keys, texts),
    st.tuples(st.just("untag_experiment"), tag_keys),
)


class Pair(NamedTuple):
    """The two stores, each with a database of its own."""

    theirs: Any
    ours: Any
    urls: dict[str, str]

    def rows(self, which: str, statement: str, *given: Any) -> list[Any]:
        """What stands in a database, in an order of its own."""
        if self.urls[which].startswith("sqlite"):
            connection: Any = sqlite3.connect(self.urls[which].removeprefix("sqlite:///"))
        else:
            connection = psycopg.connect(self.urls[which].replace("+psycopg", ""))
            statement = statement.replace("?", "%s")
        try:
            return sorted(map(repr, connection.execute(statement, given).fetchall()))
        finally:
            connection.close()

    def write(self, which: str, statement: str) -> None:
        """Change a database."""
        if self.urls[which].startswith("sqlite"):
            connection: Any = sqlite3.connect(self.urls[which].removeprefix("sqlite:///"))
        else:
            connection = psycopg.connect(self.urls[which].replace("+psycopg", ""))
        try:
            connection.execute(statement)
            connection.commit()
        finally:
            connection.close()


_MODEL = (
    "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms, "
    "last_updated_timestamp_ms, status, lifecycle_stage) VALUES ('{}', 0, 'm', 'm', 1, 1, 2, 'active')"
)


def both(theirs: Any, urls: dict[str, str]) -> Iterator[Pair]:
    ours = open_store(urls["ours"], InlineIO())
    for name in ("taken", "deleted"):
        theirs.create_experiment(name)
        drive(ours.create_experiment(name))
    pair = Pair(theirs, ours, urls)
    for which in urls:
        for model in MODELS:
            pair.write(which, _MODEL.format(model))
    yield pair
    drive(ours.aclose())
    theirs._dispose_engine()


@pytest.fixture
def pair(memory_path: Path) -> Iterator[Pair]:
    """On SQLite."""
    theirs = open_mlflow(memory_path / "theirs.db")
    shutil.copy(memory_path / "theirs.db", memory_path / "ours.db")
    yield from both(theirs, {which: f"sqlite:///{memory_path}/{which}.db" for which in ("theirs", "ours")})


@pytest.fixture
def postgres_pair(postgres_cluster: Postgres) -> Iterator[Pair]:
    """On PostgreSQL."""
    urls = {which: postgres_cluster.copy(f"{which}_rows") for which in ("theirs", "ours")}
    yield from both(open_mlflow(urls["theirs"]), urls)


def refused_by_theirs(verb: Callable[[], Any]) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        verb()
    except MlflowException:
        return True
    return False


def refused_by_ours(work: Any) -> bool:
    try:
        return isinstance(result := drive(work), list) and bool(result)
    except (StoreError, InvalidInputError):
        return True


def their_verb(store: Any, run: str, experiment: str, operation: tuple[Any, ...]) -> Callable[[], Any]:
    from mlflow.entities import ExperimentTag, Metric, Param, RunStatus, RunTag

    verb, *given = operation
    return {
        "metrics": lambda: store.log_batch(run, [Metric(k, v, t, s) for k, t, s, v in given[0]], [], []),
        "measured": lambda: store.log_batch(run, [Metric(k, v, t, s, m, *d) for t, k, s, v, m, d in given[0]], [], []),
        "param": lambda: store.log_batch(run, [], [Param(*given)], []),
        "tags": lambda: store.log_batch(run, [], [], [RunTag(*tag) for tag in given[0]]),
        "end": lambda: store.update_run_info(run, RunStatus.from_string(given[0]), given[1], None),
        "rename": lambda: store.update_run_info(run, None, None, given[0]),
        "delete_tag": lambda: store.delete_tag(run, given[0]),
        "delete": lambda: store.delete_run(run),
        "restore": lambda: store.restore_run(run),
        "delete_experiment": lambda: store.delete_experiment(experiment),
        "restore_experiment": lambda: store.restore_experiment(experiment),
        "name_experiment": lambda: store.rename_experiment(experiment, given[0] and f"{given[0]}{experiment}"),
        "tag_experiment": lambda: store.set_experiment_tag(experiment, ExperimentTag(*given)),
        "untag_experiment": lambda: store.delete_experiment_tag(experiment, given[0]),
    }[verb]


def our_work(store: Any, run: str, experiment: str, operation: tuple[Any, ...]) -> Any:
    verb, *given = operation
    if verb == "metrics":
        metrics: dict[str, list[Any]] = {}
        for key, timestamp, step, value in given[0]:
            metrics.setdefault(key, []).append((timestamp, step, value))
        return store.log_batch(run, Batch(metrics))
    if verb == "measured":
        events: dict[str, list[Any]] = {}
        for timestamp, key, step, value, model, dataset in given[0]:
            events.setdefault(key, []).append((timestamp, step, value, 7, MeasuredOn(key, model, *dataset)))
        return store.log_batch(run, Batch(events))
    return {
        "param": lambda: store.log_batch(run, Batch(params=[tuple(given)])),
        "tags": lambda: store.log_batch(run, Batch(tags=given[0])),
        "end": lambda: store.update_run(run, status=given[0], end_time=given[1]),
        "rename": lambda: store.update_run(run, run_name=given[0]),
        "delete_tag": lambda: store.delete_tag(run, given[0]),
        "delete": lambda: store.delete_run(run),
        "restore": lambda: store.restore_run(run),
        "delete_experiment": lambda: store.delete_experiment(experiment),
        "restore_experiment": lambda: store.restore_experiment(experiment),
        "name_experiment": lambda: store.rename_experiment(experiment, given[0] and f"{given[0]}{experiment}"),
        "tag_experiment": lambda: store.set_experiment_tag(experiment, *given),
        "untag_experiment": lambda: store.delete_experiment_tag(experiment, given[0]),
    }[verb]()


_TABLES = {
    "metrics": "SELECT key, timestamp, step, value, is_nan FROM metrics WHERE run_uuid = ?",
    "latest_metrics": "SELECT key, timestamp, step, value, is_nan FROM latest_metrics WHERE run_uuid = ?",
    "logged_model_metrics": (
        "SELECT model_id, metric_name, metric_timestamp_ms, metric_step, metric_value, experiment_id, dataset_uuid, "
        "dataset_name, dataset_digest FROM logged_model_metrics WHERE run_id = ?"
    ),
    "params": "SELECT key, value FROM params WHERE run_uuid = ?",
    "tags": "SELECT key, value FROM tags WHERE run_uuid = ?",
    "runs": (
        "SELECT name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, "
        "source_version, lifecycle_stage, deleted_time IS NULL, replace(artifact_uri, run_uuid, 'run'), experiment_id "
        "FROM runs WHERE run_uuid = ?"
    ),
}
_EXPERIMENTS = {
    "experiments": (
        "SELECT experiment_id, name, artifact_location, lifecycle_stage, creation_time > 0, last_update_time > 0, "
        "workspace FROM experiments"
    ),
    "experiment_tags": "SELECT key, value, experiment_id FROM experiment_tags",
}


#: what few random examples may miss: the latest changes between NaN and numbers, a name is emptied, values are cut
KNOWN: list[tuple[Any, ...]] = [
    ("metrics", [("a", 0, 0, math.nan), ("b/c", 0, 0, 0.5), ("a", 0, 0, 0.0)]),
    ("metrics", [("a", 1, 1, 0.5), ("b/c", 0, 1, math.nan), ("b/c", 0, 0, 7.0)]),
    ("metrics", [("a", 1, 1, 0.25), ("x y", 0, 0, math.inf), ("x y", 0, 0, _MAX), ("x y", 0, 0, -math.inf)]),
    ("tags", [("mlflow.runName", "1"), ("t", "1"), ("t", "x" * 8500)]),
    ("tags", [("mlflow.runName", "")]),
    ("measured", [("a", 0, math.nan, "m-1", ("train", "d1")), ("a", 0, math.inf, "m-2", (None, None))]),
    ("measured", [("a", 0, 0.5, MISSING, (None, None))]),
    ("param", "a", "x" * 6500),
    ("param", "a", "x" * 6001),
    ("param", "a", "1"),
]


scenarios: Any = {
    "todo": st.lists(operations, min_size=3, max_size=8),
    "again": st.sets(st.integers(0, 7)),
    "name": st.sampled_from([None, "named"]),
}
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(**scenarios)
@example(todo=KNOWN, again={0, 1, 2, 3, 4, 5, 6, 7, 8}, name=None)
def test_mlflow_and_we_leave_the_same_rows(
    pair: Pair, todo: list[tuple[Any, ...]], again: set[int], name: str | None
) -> None:
    """In SQLite."""
    check(pair, todo, again, name)


@few
@given(**scenarios)
@example(todo=KNOWN, again={0, 1, 2, 3, 4, 5, 6, 7, 8}, name=None)
def test_mlflow_and_we_leave_the_same_rows_in_postgresql(
    postgres_pair: Pair, todo: list[tuple[Any, ...]], again: set[int], name: str | None
) -> None:
    """The same there."""
    check(postgres_pair, todo, again, name)


def check(pair: Pair, todo: list[tuple[Any, ...]], again: set[int], name: str | None) -> None:
    """Whatever is sent again, as after an answer that was lost, changes nothing."""
    from mlflow.entities import RunTag

    label = uuid.uuid4().hex
    there, here = pair.theirs.create_experiment(label), drive(pair.ours.create_experiment(label))
    assert there == here
    tags = {"team": "cv", "mlflow.runName": name or "tagged"}
    one = pair.theirs.create_run(there, "ann", 5, [RunTag(*tag) for tag in tags.items()], name).info.run_id
    other = uuid.uuid4().hex
    drive(pair.ours.create_run(RunSpec(other, None, here, None, name, "ann", 5, tags)))
    for index, operation in enumerate(todo):
        if operation[0] == "measured":  # of two with one key, step and time, MLflow refuses the second
            operation = ("measured", [(100 * index + at, *each) for at, each in enumerate(operation[1])])
        refused = refused_by_theirs(their_verb(pair.theirs, one, there, operation))
        for _ in range(2 if index in again and operation[0] in ("metrics", "measured", "param", "tags", "end") else 1):
            assert refused_by_ours(our_work(pair.ours, other, here, operation)) == refused, operation
        for table, statement in _TABLES.items():
            assert pair.rows("theirs", statement, one) == pair.rows("ours", statement, other), (table, operation)
    for table, statement in _EXPERIMENTS.items():
        assert pair.rows("theirs", statement) == pair.rows("ours", statement), table
