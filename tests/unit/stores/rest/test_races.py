"""What RestStore makes of a server whose database has no room for an event, as MLflow's own answers it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from asynctrack.delivery.isolation import Isolation
from asynctrack.errors import StoreError, UnavailableError
from asynctrack.stores.base import Batch, Point, Refusal
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.points import MeasuredOn
from asynctrack.stores.rest.answers import RaceError
from asynctrack.stores.rest.store import RestStore
from asynctrack.stores.uri import open_store
from tests import faults
from tests.exchange import Exchange
from tests.faults import Answer, Fault
from tests.proxy import FaultProxy

ONE, OTHER = "m-1", "m-2"


class NoRoomError(Exception):
    """SQLAlchemy's IntegrityError."""

    def __init__(self, table: str) -> None:
        where = f"UNIQUE constraint failed: {table}.key"
        super().__init__(f"(sqlite3.IntegrityError) {where} [SQL: INSERT INTO {table} (key) VALUES (?)]")


@dataclass
class Database(Fault):
    """MLflow's server over a database: its tables of points, and how it writes them.

    ``version``: before 3.17 two points are the same to it if all that was sent of them is equal, which NaN never is;
    before 3.10 it does not say that it has a database.
    """

    version: tuple[int, int] = (3, 17)
    runs: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    #: keys of params for which there is never room
    full: str = "none"

    async def act(self, exchange: Exchange) -> None:
        await exchange.prefetch()
        path, answer = exchange.record.path, dict[str, Any]()
        try:
            if "log-batch" in path:
                self._log_batch(exchange.record.json())
            elif "log-metric" in path:
                point = exchange.record.json()
                point.pop("run_id")
                self._write_models([point])
                self._write_run([point])
            elif "get-history" in path:
                key = re.search(r"metric_key=(\w+)", path)[1]  # type: ignore[index]  # a query without one is a bug
                answer = {"metrics": [json.loads(row) for row in self.runs if json.loads(row)["key"] == key]}
            elif "server-info" in path and self.version >= (3, 10):
                answer = {"store_type": "SqlStore"}
            elif "server-info" in path:
                await faults.html(404).act(exchange)
                return
        except NoRoomError as error:
            await faults.error(400, "BAD_REQUEST", str(error)).act(exchange)
            return
        await Answer(200, json.dumps(answer).encode(), (("Content-Type", "application/json"),)).act(exchange)

    def _log_batch(self, body: Any) -> None:
        """Each part is a transaction, in this order."""
        given = {param["key"]: param["value"] for param in body.get("params", ())}
        if self.full in given:
            raise NoRoomError("params")
        self.params |= given
        self._write_run(body.get("metrics", ()))
        self._write_models(body.get("metrics", ()))

    def _write_run(self, points: Any) -> None:
        rows = [json.dumps({name: point[name] for name in ("key", "timestamp", "step", "value")}) for point in points]
        if self.version < (3, 17):
            # Two in the batch are the same if they are about the same, and what is stored if it is equal.
            kept = {json.dumps(point): row for point, row in zip(points, rows, strict=True) if "NaN" not in row}
            specials = [row for row in rows if "NaN" in row]
            rows = [row for row in kept.values() if row not in self.runs] + specials
            if len(set(rows)) < len(rows) or self.runs.intersection(rows):
                raise NoRoomError("metrics")
        self.runs |= set(rows)

    def _write_models(self, points: Any) -> None:
        added: dict[str, str] = {}
        for point in points:
            if "model_id" in point:
                place = json.dumps([point[name] for name in ("model_id", "key", "timestamp", "step")])
                row = json.dumps(point)
                if (added | self.models).get(place, row) != row:
                    raise NoRoomError("logged_model_metrics")
                added[place] = row
        self.models |= added


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy(None) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy) -> Iterator[RestStore]:
    store = open_store(proxy.url, InlineIO())
    assert isinstance(store, RestStore)
    yield store
    drive(store.aclose())


def about(model_id: str | None, step: int, value: float, dataset: str | None = None) -> Point:
    return (step, step, value, 7, MeasuredOn("m", model_id, dataset, dataset and "digest"))


def deliver(store: RestStore, batch: Batch, attempts: int = 1) -> list[Refusal]:
    """As the engine does, but for its pauses: what is refused. The last of ``attempts`` is under suspicion."""
    bookmark = drive(store.bookmark("a1", batch))
    isolation = Isolation(batch, store.limits)
    for attempt in range(attempts):
        isolation.suspected = attempt > 0
        try:
            assert drive(isolation.turn(store, "a1", bookmark if attempt else None))
        except StoreError:
            if attempt == attempts - 1:
                raise
        else:
            return isolation.refusals
    raise AssertionError("no attempt at all")


VERSIONS = [(3, 17), (3, 16), (3, 9)]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_point_about_two_models_reaches_both(
    version: tuple[int, int], proxy: FaultProxy, store: RestStore
) -> None:
    """It is one of the run's; to an MLflow before 3.17 two, for which its database has no room, however often."""
    database = Database(version)
    proxy.always(database)
    plain: list[Point] = [(step, step, float(step)) for step in range(20)]
    batch = Batch({"m": [about(ONE, 5, 1.0), about(OTHER, 5, 1.0)], "n": plain}, [("p", "1")])
    assert deliver(store, batch) == []
    assert len(database.runs) == 21
    assert len(database.models) == 2
    assert database.params == {"p": "1"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("again", [about(ONE, 5, 5.0, "other"), about(ONE, 5, 0.5), about(ONE, 5, math.nan)])
def test_a_second_value_of_a_model_s_metric_at_one_time_and_step_is_refused_alone(
    again: Point, version: tuple[int, int], proxy: FaultProxy, store: RestStore
) -> None:
    """Measured on another dataset, or another value. Of such a batch MLflow stores the run's points and no model's."""
    database = Database(version)
    proxy.always(database)
    points = [*(about(ONE, step, float(step), "first") for step in range(10)), about(OTHER, 20, 1.0), again]
    (refusal,) = deliver(store, Batch({"m": points}, [("p", "1")]))
    assert (refusal.key, refusal.value) == ("m", again)
    assert "only the run has the value: logged model 'm-1' can have one value" in refusal.reason
    assert len(database.models) == 11
    assert len(database.runs) == 11 + (again[2] != 5.0)
    # And alone, from the start.
    (refusal,) = deliver(store, Batch({"m": [about(ONE, 5, 8.0)]}))
    assert "only the run has the value" in refusal.reason
    assert any("8.0" in row for row in database.runs)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_point_about_a_model_is_not_left_out_because_the_run_has_the_same(
    version: tuple[int, int], proxy: FaultProxy, store: RestStore
) -> None:
    """The run's may be about another model; the stored NaN is what an MLflow before 3.17 does not know again."""
    database = Database(version)
    proxy.always(database)
    first = Batch({"m": [(1, 1, math.nan), about(ONE, 2, 2.0), about(ONE, 3, math.nan)]})
    assert deliver(store, first) == []
    second = Batch({"m": [(1, 1, math.nan), about(OTHER, 2, 2.0), about(OTHER, 3, math.nan)]})
    assert deliver(store, second) == []
    for batch in (first, second):
        assert deliver(store, batch) == []
    assert len(database.runs) == 3
    assert len(database.models) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_database_never_has_room_for_is_refused_and_the_rest_delivered(
    version: tuple[int, int], proxy: FaultProxy, store: RestStore
) -> None:
    """Not at once: another client may have been faster, and then it is there the next time."""
    database = Database(version, full="p3")
    proxy.always(database)
    batch = Batch({"m": [(1, 1, 1.0), about(ONE, 2, 2.0)]}, [(f"p{number}", "1") for number in range(5)])
    with pytest.raises(RaceError):
        deliver(store, batch)
    (refusal,) = deliver(store, batch, attempts=2)
    assert (refusal.kind, refusal.key) == ("param", "p3")
    assert database.params.keys() == {"p0", "p1", "p2", "p4"}
    assert (len(database.runs), len(database.models)) == (2, 1)


def test_a_race_for_a_run_s_latest_value_is_tried_again(proxy: FaultProxy, store: RestStore) -> None:
    """A point about a model may lose it, too: nothing is refused."""
    text = "(sqlite3.IntegrityError) UNIQUE constraint failed [SQL: INSERT INTO latest_metrics (key) VALUES (?)]"
    proxy.plan(*[faults.error(400, "BAD_REQUEST", text)] * 2, path="log-metric")
    proxy.always(database := Database())
    with pytest.raises(UnavailableError, match="latest_metrics"):
        deliver(store, Batch({"m": [about(ONE, 1, 1.0)]}))
    assert deliver(store, Batch({"m": [about(ONE, 1, 1.0)]})) == []
    assert len(database.models) == 1
