"""The contract's tests about events: metrics, params, tags."""

from __future__ import annotations

import math
import sys
from typing import Any

from asynctrack.entities import Metric
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.stores.base import AbstractStore, Batch
from asynctrack.testing.hooks import ContractHooks

__all__ = ["EventsContract"]

_MAX = sys.float_info.max


class EventsContract(ContractHooks):
    """How a store keeps metrics, params and tags."""

    def test_every_point_is_kept_in_order(self, store: AbstractStore) -> None:
        """Finite values come back bit for bit, negative steps and equal steps included."""
        # With rising timestamps: databases order points by timestamp, other stores by arrival.
        points = [(1000 + i, i // 2 - 3, value) for i, value in enumerate([0.1 + 0.2, 1e308, 5e-324, -1.5, 3.0])]
        run_id = self.new_run(store)
        assert self.deliver(store, run_id, Batch(metrics={"loss/train": list(points)})) == []
        history = self.run(store.get_metric_history(run_id, "loss/train"))
        assert history == [Metric("loss/train", value, timestamp, step) for timestamp, step, value in points]

    def test_points_with_a_stream_number_are_points(self, store: AbstractStore) -> None:
        """The journal's fourth item is ignored."""
        run_id = self.new_run(store)
        self.deliver(store, run_id, Batch(metrics={"m": [(1, 0, 2.5, 77), (2, 1, 3.5, 78)]}))
        assert [point.value for point in self.run(store.get_metric_history(run_id, "m"))] == [2.5, 3.5]

    def test_nan_is_a_value(self, store: AbstractStore) -> None:
        """NaN is stored, and does not hide a larger step."""
        run_id = self.new_run(store)
        self.deliver(store, run_id, Batch(metrics={"m": [(1, 0, 1.0), (2, 1, math.nan)]}))
        assert math.isnan(self.run(store.get_metric_history(run_id, "m"))[1].value)
        assert math.isnan(self.run(store.get_run(run_id)).data.metrics["m"])

    def test_infinities_are_values(self, store: AbstractStore) -> None:
        """±Inf are stored, by databases as the largest doubles. They are never refused."""
        run_id = self.new_run(store)
        assert self.deliver(store, run_id, Batch(metrics={"m": [(1, 0, -math.inf), (2, 1, math.inf)]})) == []
        largest = math.inf if self.keeps_infinities else _MAX
        assert [point.value for point in self.run(store.get_metric_history(run_id, "m"))] == [-largest, largest]

    def test_the_latest_value_is_that_of_the_largest_step(self, store: AbstractStore) -> None:
        """Arrival order is irrelevant; timestamp, then value decide between equal steps."""
        run_id = self.new_run(store)
        points: list[Any] = [(5, 9, 1.0), (7, 9, 2.0), (7, 9, 3.0), (99, 8, 4.0)]
        self.deliver(store, run_id, Batch(metrics={"m": points}))
        data = self.run(store.get_run(run_id)).data
        assert data.metrics == {"m": 3.0}
        assert data.latest in ({}, {"m": Metric("m", 3.0, 7, 9)})

    def test_identical_points_are_kept_once(self, store: AbstractStore) -> None:
        """Within a batch and across batches, so that a batch may be sent again."""
        run_id = self.new_run(store)
        batch = Batch(metrics={"m": [(1, 0, 1.0), (1, 0, 1.0), (2, 1, math.nan), (2, 1, math.nan), (3, 2, 0.0)]})
        for _ in range(2):
            self.deliver(store, run_id, batch)
        steps = [point.step for point in self.run(store.get_metric_history(run_id, "m"))]
        assert steps == [0, 1, 2] if self.merges_identical_points else set(steps) == {0, 1, 2}

    def test_a_batch_sent_again_with_its_bookmark_changes_nothing(self, store: AbstractStore) -> None:
        """The answer was lost, and the whole batch was stored: sending it again stores nothing twice."""
        run_id = self.new_run(store)
        batch = Batch(metrics={"m": [(i, i, i / 2) for i in range(3000)]}, params=[("p", "1")], tags=[("t", "1")])
        bookmark = self.run(store.bookmark(run_id, batch))
        assert self.deliver(store, run_id, batch) == []
        assert self.deliver(store, run_id, batch, bookmark) == []
        assert [point.step for point in self.run(store.get_metric_history(run_id, "m"))] == list(range(3000))

    def test_a_param_never_changes(self, store: AbstractStore) -> None:
        """The same value again is fine; another is refused, alone, and the reason names the first."""
        run_id = self.new_run(store)
        # MLflow over files does not recognise a line end of two characters, so that value is logged once only.
        first = Batch(params=[("lr", "0.1"), ("lr", "0.1"), ("é ñ", "a\nb"), ("windows", "a\r\nb\n")])
        assert self.deliver(store, run_id, first) == []
        refused = self.deliver(store, run_id, Batch(params=[("lr", "0.2"), ("é ñ", "a\nb"), ("x", "")]))
        assert [(refusal.kind, refusal.key, refusal.value) for refusal in refused] == [("param", "lr", "0.2")]
        assert "0.1" in refused[0].reason
        assert self.run(store.get_run(run_id)).data.params == {
            "lr": "0.1", "é ñ": "a\nb", "windows": "a\r\nb\n", "x": "",
        }  # fmt: skip

    def test_the_last_tag_wins(self, store: AbstractStore) -> None:
        """Tags overwrite, within a batch and later, and the name tag is the run's name."""
        run_id = self.new_run(store)
        self.deliver(store, run_id, Batch(tags=[("t", "1"), ("t", "2"), ("mlflow.runName", "new")]))
        run = self.run(store.get_run(run_id))
        assert (run.data.tags["t"], run.info.run_name) == ("2", "new")

    def test_a_bad_key_is_refused_alone(self, store: AbstractStore) -> None:
        """Only the event with the bad key is refused. A journal may hold keys that another store has checked."""
        run_id = self.new_run(store)
        refused = self.deliver(store, run_id, Batch({"a//b": [(1, 0, 1.0)], "m": [(1, 0, 1.0)]}, [("../x", "1")]))
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
        """The events are refused, and no other error is raised."""
        run_id = self.new_run(store)
        self.run(store.delete_run(run_id))
        batch = Batch({"m": [(1, 0, 1.0), (2, 1, 1.0)]}, [("p", "1")], [("t", "1")])
        for target in (run_id, "f" * 32):
            refused = self.deliver(store, target, batch)
            assert [(refusal.kind, refusal.key) for refusal in refused] == [
                ("param", "p"), ("metric", "m"), ("metric", "m"), ("tag", "t"),
            ]  # fmt: skip
        assert self.run(store.get_run(run_id)).data.params == {}

    def test_a_run_that_has_ended_can_be_logged_to(self, store: AbstractStore) -> None:
        """As in MLflow: its status stays what it is."""
        run_id = self.new_run(store)
        self.run(store.update_run(run_id, status="FINISHED", end_time=1_700_000_000_001))
        assert self.deliver(store, run_id, Batch({"m": [(1, 0, 1.0)]}, [("p", "1")], [("t", "1")])) == []
        run = self.run(store.get_run(run_id))
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"m": 1.0})

    def test_a_probe_is_not_seen(self, store: AbstractStore) -> None:
        """A probe changes no metric and no param."""
        run_id = self.new_run(store)
        before = self.run(store.get_run(run_id))
        self.run(store.probe(run_id))
        after = self.run(store.get_run(run_id))
        assert (after.data.metrics, after.data.params) == (before.data.metrics, before.data.params)

    def test_a_batch_for_a_run_that_is_not_there_finds_no_run(self, store: AbstractStore) -> None:
        """NotFoundError is raised, and no event is refused: the batch can be stored once the run is created."""
        self.new_run(store)  # the store itself is there
        self.raised(NotFoundError, store.log_batch("f" * 32, Batch({"m": [(1, 1, 1.0)]}, [("p", "1")], [("t", "1")])))

    def test_a_history_that_is_none_is_empty(self, store: AbstractStore) -> None:
        """A metric that the run does not have gives an empty list. So may a missing run: databases do not tell."""
        assert self.run(store.get_metric_history(self.new_run(store), "none")) == []
        try:
            history = self.run(store.get_metric_history("f" * 32, "m"))
        except NotFoundError:
            history = []
        assert history == []

    def test_a_tag_can_be_removed_once(self, store: AbstractStore) -> None:
        """Removing a tag that does not exist is an error, as in MLflow."""
        run_id = self.new_run(store, tags={"t": "1"})
        self.run(store.delete_tag(run_id, "t"))
        assert "t" not in self.run(store.get_run(run_id)).data.tags
        self.raised(NotFoundError, store.delete_tag(run_id, "t"))
        self.raised(NotFoundError, store.delete_tag("f" * 32, "t"))
