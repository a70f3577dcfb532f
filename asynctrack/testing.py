"""For tests of code that logs, and of stores: one in memory, one that fails on demand, and what every store promises.

To test a store of your own, inherit `StoreContract` in a module that pytest collects and give it a ``store`` fixture::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

        def run(self, work):                # only where the store needs an event loop
            return anyio.run(lambda: work)
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from asynctrack.entities import ViewType
from asynctrack.errors import AlreadyExistsError, InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.stores.base import AbstractStore, Batch, RunSpec
from asynctrack.stores.io import drive
from asynctrack.stores.memory import MemoryStore

__all__ = ["FaultyStore", "MemoryStore", "StoreContract"]

T = TypeVar("T")


def _delegated(name: str) -> Any:
    async def method(self: FaultyStore, *args: Any, **kwargs: Any) -> Any:
        return await self._attempt(name, *args, **kwargs)

    method.__name__ = name
    return method


class FaultyStore(AbstractStore):
    """Another store with planned failures. ``calls`` counts the calls of each method, failed ones too."""

    def __init__(self, store: AbstractStore) -> None:
        self.inner = store
        self.uri = store.uri
        self.limits = store.limits
        self.keys_are_paths = store.keys_are_paths
        self.calls: Counter[str] = Counter()
        self._plan: dict[tuple[str, int], tuple[Exception, bool]] = {}

    def fail(self, method: str, error: Exception, *, nth: int = 1, times: int = 1, applied: bool = False) -> None:
        """Raise ``error`` in the ``nth`` call of ``method`` from now on (1: the next) and the ``times - 1`` after it.

        With ``applied`` the call is carried out first, as when a server's answer is lost on the way.
        """
        for call in range(self.calls[method] + nth, self.calls[method] + nth + times):
            self._plan[method, call] = error, applied

    async def _attempt(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.calls[method] += 1
        error, applied = self._plan.pop((method, self.calls[method]), (None, True))
        result = await getattr(self.inner, method)(*args, **kwargs) if applied else None
        if error is not None:
            raise error
        return result

    @property
    def io(self) -> Any:
        """The inner store's `StoreIO`, which the engine exchanges at exit; None where it has none."""
        return getattr(self.inner, "io", None)

    @io.setter
    def io(self, io: Any) -> None:
        if hasattr(self.inner, "io"):
            self.inner.io = io

    def check_key(self, kind: str, key: str) -> None:
        self.inner.check_key(kind, key)

    create_run = _delegated("create_run")
    bookmark = _delegated("bookmark")
    log_batch = _delegated("log_batch")
    update_run = _delegated("update_run")
    get_run = _delegated("get_run")
    search_runs = _delegated("search_runs")
    get_metric_history = _delegated("get_metric_history")
    delete_run = _delegated("delete_run")
    restore_run = _delegated("restore_run")
    delete_tag = _delegated("delete_tag")
    create_experiment = _delegated("create_experiment")
    get_experiment = _delegated("get_experiment")
    get_experiment_by_name = _delegated("get_experiment_by_name")
    search_experiments = _delegated("search_experiments")
    rename_experiment = _delegated("rename_experiment")
    delete_experiment = _delegated("delete_experiment")
    restore_experiment = _delegated("restore_experiment")
    set_experiment_tag = _delegated("set_experiment_tag")
    aclose = _delegated("aclose")


class StoreContract:
    """What the engine and the public functions rely on, whatever the store. Inherit it, with a ``store`` fixture."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one coroutine of the store to its end. Override it where the store needs an event loop."""
        return drive(work)

    def new_run(self, store: AbstractStore, **given: Any) -> str:
        """A new run's id."""
        spec = RunSpec(uid=uuid.uuid4().hex, **{"user_id": "ann", "start_time": 1_700_000_000_000, **given})
        return self.run(store.create_run(spec)).run_id

    def raised(self, kind: type[Exception], work: Coroutine[Any, Any, Any]) -> str:
        """The message of the error of class ``kind`` that ``work`` must raise."""
        try:
            self.run(work)
        except kind as error:
            return str(error)
        raise AssertionError(f"{work!r} did not raise {kind.__name__}")

    # ── creating runs

    def test_a_new_run_is_running_and_carries_what_was_given(self, store: AbstractStore) -> None:
        """create_run keeps the user, the start, the name and the tags."""
        run_id = self.new_run(store, run_name="baseline", tags={"team": "cv"}, start_time=5)
        run = self.run(store.get_run(run_id))
        assert (run.info.status, run.info.user_id, run.info.start_time) == ("RUNNING", "ann", 5)
        assert (run.info.run_name, run.info.end_time, run.info.lifecycle_stage) == ("baseline", None, "active")
        assert {"team": "cv", "mlflow.runName": "baseline"}.items() <= run.data.tags.items()

    def test_a_run_without_a_name_gets_one(self, store: AbstractStore) -> None:
        """The random name is kept, in the run and in its tag."""
        run = self.run(store.get_run(self.new_run(store)))
        assert run.info.run_name
        assert run.data.tags["mlflow.runName"] == run.info.run_name

    def test_creating_a_run_twice_changes_nothing(self, store: AbstractStore) -> None:
        """A creation whose answer was lost can be repeated: one run, with what it has logged since."""
        spec = RunSpec(uid=uuid.uuid4().hex, start_time=1)
        first = self.run(store.create_run(spec))
        self.run(store.log_batch(first.run_id, Batch(params=[("a", "1")])))
        self.run(store.update_run(first.run_id, status="FINISHED", end_time=9))
        again = self.run(store.create_run(spec))
        assert (again.run_id, again.status, again.end_time) == (first.run_id, "FINISHED", 9)
        assert len(self.run(store.search_runs([first.experiment_id])).items) == 1
        assert self.run(store.get_run(first.run_id)).data.params == {"a": "1"}

    def test_a_named_experiment_is_created_once(self, store: AbstractStore) -> None:
        """Runs that name the same missing experiment end in the same one."""
        runs = [self.run(store.get_run(self.new_run(store, experiment_name="vision"))) for _ in range(2)]
        assert len({run.info.experiment_id for run in runs}) == 1
        assert self.run(store.get_experiment(runs[0].info.experiment_id)).name == "vision"

    def test_an_experiment_id_that_does_not_exist_is_not_found(self, store: AbstractStore) -> None:
        """A wrong experiment is an error, not a new experiment."""
        spec = RunSpec(uid=uuid.uuid4().hex, experiment_id="123456")
        assert "123456" in self.raised(NotFoundError, store.create_run(spec))

    def test_taking_a_run_up_again_sets_it_running_and_keeps_its_end(self, store: AbstractStore) -> None:
        """Resuming is what MLflow's start_run(run_id=...) does."""
        run_id = self.new_run(store)
        self.run(store.update_run(run_id, status="FAILED", end_time=7))
        spec = RunSpec(uid=uuid.uuid4().hex, run_id=run_id, run_name="second", tags={"again": "yes"})
        info = self.run(store.create_run(spec))
        assert (info.run_id, info.status, info.end_time, info.run_name) == (run_id, "RUNNING", 7, "second")
        tags = self.run(store.get_run(run_id)).data.tags
        assert (tags["again"], tags["mlflow.runName"]) == ("yes", "second")

    def test_only_an_existing_active_run_can_be_taken_up(self, store: AbstractStore) -> None:
        """A missing run is not found, a deleted one refused."""
        self.raised(NotFoundError, store.create_run(RunSpec(uid=uuid.uuid4().hex, run_id="0" * 32)))
        run_id = self.new_run(store)
        self.run(store.delete_run(run_id))
        self.raised(RefusedError, store.create_run(RunSpec(uid=uuid.uuid4().hex, run_id=run_id)))

    # ── logging

    def test_every_point_is_kept_in_order(self, store: AbstractStore) -> None:
        """Finite values come back bit for bit, negative steps and equal steps included."""
        points = [(1000 + i, i // 2 - 3, value) for i, value in enumerate([0.1 + 0.2, 1e308, 5e-324, -1.5, 3.0])]
        run_id = self.new_run(store)
        assert self.run(store.log_batch(run_id, Batch(metrics={"loss/train": list(points)}))) == []
        history = self.run(store.get_metric_history(run_id, "loss/train"))
        assert [(point.timestamp, point.step, point.value) for point in history] == points

    def test_points_with_a_stream_number_are_points(self, store: AbstractStore) -> None:
        """The journal's fourth item is ignored."""
        run_id = self.new_run(store)
        self.run(store.log_batch(run_id, Batch(metrics={"m": [(1, 0, 2.5, 77), (2, 1, 3.5, 78)]})))
        assert [point.value for point in self.run(store.get_metric_history(run_id, "m"))] == [2.5, 3.5]

    def test_nan_is_a_value(self, store: AbstractStore) -> None:
        """NaN is stored, and does not hide a larger step."""
        run_id = self.new_run(store)
        self.run(store.log_batch(run_id, Batch(metrics={"m": [(1, 0, 1.0), (2, 1, math.nan)]})))
        assert math.isnan(self.run(store.get_metric_history(run_id, "m"))[1].value)
        assert math.isnan(self.run(store.get_run(run_id)).data.metrics["m"])

    def test_the_latest_value_is_that_of_the_largest_step(self, store: AbstractStore) -> None:
        """Arrival order is irrelevant; timestamp, then value decide between equal steps."""
        run_id = self.new_run(store)
        points: list[Any] = [(5, 9, 1.0), (7, 9, 2.0), (7, 9, 3.0), (99, 8, 4.0)]
        self.run(store.log_batch(run_id, Batch(metrics={"m": points})))
        assert self.run(store.get_run(run_id)).data.metrics == {"m": 3.0}

    def test_identical_points_are_kept_once(self, store: AbstractStore) -> None:
        """Within a batch and across batches, so that a batch may be sent again."""
        run_id = self.new_run(store)
        batch = Batch(metrics={"m": [(1, 0, 1.0), (1, 0, 1.0), (2, 1, math.nan), (2, 1, math.nan), (3, 2, 0.0)]})
        for _ in range(2):
            self.run(store.log_batch(run_id, batch))
        assert [point.step for point in self.run(store.get_metric_history(run_id, "m"))] == [0, 1, 2]

    def test_a_batch_sent_again_with_its_bookmark_changes_nothing(self, store: AbstractStore) -> None:
        """However long the batch: the outcome was unknown, and all of it was stored."""
        run_id = self.new_run(store)
        batch = Batch(metrics={"m": [(i, i, i / 2) for i in range(3000)]}, params=[("p", "1")], tags=[("t", "1")])
        bookmark = self.run(store.bookmark(run_id, batch))
        for _ in range(2):
            assert self.run(store.log_batch(run_id, batch, bookmark)) == []
        assert [point.step for point in self.run(store.get_metric_history(run_id, "m"))] == list(range(3000))

    def test_a_param_never_changes(self, store: AbstractStore) -> None:
        """The same value again is fine; another is refused, alone, and the reason names the first."""
        run_id = self.new_run(store)
        assert (
            self.run(store.log_batch(run_id, Batch(params=[("lr", "0.1"), ("lr", "0.1"), ("é ñ", "a\r\nb\n")]))) == []
        )
        refused = self.run(store.log_batch(run_id, Batch(params=[("lr", "0.2"), ("é ñ", "a\r\nb\n"), ("x", "")])))
        assert [(refusal.kind, refusal.key, refusal.value) for refusal in refused] == [("param", "lr", "0.2")]
        assert "already logged with '0.1'" in refused[0].reason
        assert self.run(store.get_run(run_id)).data.params == {"lr": "0.1", "é ñ": "a\r\nb\n", "x": ""}

    def test_the_last_tag_wins(self, store: AbstractStore) -> None:
        """Tags overwrite, within a batch and later, and the name tag is the run's name."""
        run_id = self.new_run(store)
        self.run(store.log_batch(run_id, Batch(tags=[("t", "1"), ("t", "2"), ("mlflow.runName", "new")])))
        run = self.run(store.get_run(run_id))
        assert (run.data.tags["t"], run.info.run_name) == ("2", "new")

    def test_a_bad_key_is_refused_alone(self, store: AbstractStore) -> None:
        """A journal may hold keys that were checked against another store."""
        run_id = self.new_run(store)
        refused = self.run(store.log_batch(run_id, Batch({"a//b": [(1, 0, 1.0)], "m": [(1, 0, 1.0)]}, [("../x", "1")])))
        assert {(refusal.kind, refusal.key) for refusal in refused} == {("metric", "a//b"), ("param", "../x")}
        assert self.run(store.get_run(run_id)).data.metrics == {"m": 1.0}

    def test_keys_are_checked_before_anything_is_written(self, store: AbstractStore) -> None:
        """MLflow's rule, for all three kinds, with a message that names the key."""
        for kind in ("metric", "param", "tag"):
            for key in ("a", "a/b.c", "a b", "é", "日本", "a:b", " ", "k" * 250):
                store.check_key(kind, key)
            for key in ("", ".", "..", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\n", "a\0", "a$", "k" * 251):
                assert kind in self.raised(InvalidInputError, self._checked(store, kind, key))

    async def _checked(self, store: AbstractStore, kind: str, key: str) -> None:
        store.check_key(kind, key)

    def test_a_missing_or_deleted_run_refuses_every_event(self, store: AbstractStore) -> None:
        """Nothing is kept for a run that is not there, and no error stops the engine."""
        run_id = self.new_run(store)
        self.run(store.delete_run(run_id))
        batch = Batch({"m": [(1, 0, 1.0), (2, 1, 1.0)]}, [("p", "1")], [("t", "1")])
        for target in (run_id, "f" * 32):
            refused = self.run(store.log_batch(target, batch))
            assert [(refusal.kind, refusal.key) for refusal in refused] == [
                ("param", "p"), ("metric", "m"), ("metric", "m"), ("tag", "t"),
            ]  # fmt: skip
        assert self.run(store.get_run(run_id)).data.params == {}

    # ── changing and reading runs

    def test_update_run_sets_what_is_given(self, store: AbstractStore) -> None:
        """Status, end and name are set alone or together."""
        run_id = self.new_run(store, run_name="old")
        self.run(store.update_run(run_id, status="KILLED"))
        info = self.run(store.update_run(run_id, end_time=11, run_name="new"))
        assert (info.status, info.end_time, info.run_name) == ("KILLED", 11, "new")
        assert self.run(store.get_run(run_id)).info == info
        self.raised(NotFoundError, store.update_run("f" * 32, status="FINISHED"))
        self.raised(StoreError, store.update_run(run_id, status="DONE"))

    def test_deleting_and_restoring_a_run(self, store: AbstractStore) -> None:
        """A deleted run is shown on request only; both calls may be repeated."""
        run_id = self.new_run(store)
        experiment_id = self.run(store.get_run(run_id)).info.experiment_id
        for _ in range(2):
            self.run(store.delete_run(run_id))
        assert self.run(store.search_runs([experiment_id])).items == []
        assert len(self.run(store.search_runs([experiment_id], run_view_type=ViewType.DELETED_ONLY)).items) == 1
        self.raised(RefusedError, store.update_run(run_id, status="FINISHED"))
        for _ in range(2):
            self.run(store.restore_run(run_id))
        assert self.run(store.get_run(run_id)).info.lifecycle_stage == "active"
        self.raised(NotFoundError, store.delete_run("f" * 32))

    def test_a_tag_can_be_removed_once(self, store: AbstractStore) -> None:
        """Removing what is not there is an error, as in MLflow."""
        run_id = self.new_run(store, tags={"t": "1"})
        self.run(store.delete_tag(run_id, "t"))
        assert "t" not in self.run(store.get_run(run_id)).data.tags
        self.raised(NotFoundError, store.delete_tag(run_id, "t"))

    def test_what_does_not_exist_is_not_found(self, store: AbstractStore) -> None:
        """A run that is none, or whose id could lead elsewhere; a metric that is none is an empty history."""
        for run_id in ("f" * 32, "../x", ""):
            self.raised(NotFoundError, store.get_run(run_id))
        self.raised(NotFoundError, store.get_experiment("../x"))
        assert self.run(store.get_metric_history(self.new_run(store), "none")) == []

    def test_searching_filters_orders_and_pages(self, store: AbstractStore) -> None:
        """Newest first unless ordered; what lacks the key comes last."""
        experiment_id = self.run(store.create_experiment("s"))
        ids = [self.new_run(store, experiment_id=experiment_id, start_time=i) for i in range(4)]
        for i, run_id in enumerate(ids[:3]):
            batch = Batch({"acc": [(1, 0, i / 4)]}, [("p", str(i % 2))], [("a b", f"v{i}")])
            self.run(store.log_batch(run_id, batch))

        def found(text: str, *order_by: str) -> list[int]:
            page = self.run(store.search_runs([experiment_id], text, order_by=order_by))
            return [ids.index(run.info.run_id) for run in page.items]

        assert found("") == [3, 2, 1, 0]
        assert found("metrics.acc > 0.2 and params.p = '0'") == [2]
        assert found("tags.`a b` LIKE 'v%' AND attributes.status = 'RUNNING'", "metrics.acc ASC") == [0, 1, 2]
        assert found("", "metrics.acc DESC") == [2, 1, 0, 3]
        first = self.run(store.search_runs([experiment_id], max_results=3))
        rest = self.run(store.search_runs([experiment_id], max_results=3, page_token=first.token))
        assert (len(first.items), len(rest.items), rest.token) == (3, 1, None)
        self.raised(InvalidInputError, store.search_runs([experiment_id], "metrics.acc ~ 1"))

    # ── experiments

    def test_an_experiment_keeps_its_name_tags_and_place(self, store: AbstractStore) -> None:
        """By id and by name; the name is taken from then on."""
        experiment_id = self.run(store.create_experiment("x", "s3://bucket/x", {"k": "v"}))
        found = self.run(store.get_experiment(experiment_id))
        assert (found.name, found.artifact_location, found.tags) == ("x", "s3://bucket/x", {"k": "v"})
        assert self.run(store.get_experiment_by_name("x")) == found
        assert self.run(store.get_experiment_by_name("y")) is None
        self.raised(AlreadyExistsError, store.create_experiment("x"))
        self.raised(InvalidInputError, store.create_experiment(" "))

    def test_an_experiment_can_be_renamed_and_tagged(self, store: AbstractStore) -> None:
        """The new name is taken, the old one free."""
        experiment_id = self.run(store.create_experiment("old"))
        self.run(store.rename_experiment(experiment_id, "new"))
        self.run(store.set_experiment_tag(experiment_id, "k", "v"))
        found = self.run(store.get_experiment(experiment_id))
        assert (found.name, found.tags) == ("new", {"k": "v"})
        self.run(store.create_experiment("old"))
        self.raised(AlreadyExistsError, store.rename_experiment(experiment_id, "old"))

    def test_deleting_an_experiment_deletes_its_runs_and_keeps_its_name(self, store: AbstractStore) -> None:
        """Until it is restored, with its runs."""
        experiment_id = self.run(store.create_experiment("x"))
        run_id = self.new_run(store, experiment_id=experiment_id)
        self.run(store.delete_experiment(experiment_id))
        assert self.run(store.get_experiment(experiment_id)).lifecycle_stage == "deleted"
        assert self.run(store.get_run(run_id)).info.lifecycle_stage == "deleted"
        self.raised(NotFoundError, store.delete_experiment(experiment_id))
        self.raised(AlreadyExistsError, store.create_experiment("x"))
        self.raised(RefusedError, store.rename_experiment(experiment_id, "y"))
        self.raised(RefusedError, store.create_run(RunSpec(uid=uuid.uuid4().hex, experiment_name="x")))
        self.run(store.restore_experiment(experiment_id))
        assert self.run(store.get_run(run_id)).info.lifecycle_stage == "active"
        self.raised(NotFoundError, store.restore_experiment(experiment_id))

    def test_searching_experiments(self, store: AbstractStore) -> None:
        """By name and tag, active ones unless asked otherwise."""
        ids = {name: self.run(store.create_experiment(name, tags={"t": name})) for name in ("aa", "ab", "b")}
        self.run(store.delete_experiment(ids["b"]))

        def found(text: str, **more: Any) -> list[str]:
            return [found.name for found in self.run(store.search_experiments(filter_string=text, **more)).items]

        assert set(found("")) >= {"aa", "ab"}
        assert found("name LIKE 'a%'", order_by=["name ASC"]) == ["aa", "ab"]
        assert found("tags.t = 'ab'") == ["ab"]
        assert found("name = 'b'") == []
        assert found("name = 'b'", view_type=ViewType.ALL) == ["b"]
        self.raised(InvalidInputError, store.search_experiments(filter_string="metrics.x > 1"))
