"""The contract's tests about reading metrics as columns."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection
from typing import Any

from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.stores.base import AbstractStore, Batch, Point
from asynctrack.stores.branches import Branch, latest_branch
from asynctrack.stores.columns import Columns, Increment, Summary
from asynctrack.testing.hooks import ContractHooks

__all__ = ["ColumnsContract"]


class ColumnsContract(ContractHooks):
    """How a store gives metrics as columns: all of them, only what is new, and their summaries."""

    def columns(self, store: AbstractStore, run_id: str, keys: Collection[str] | None = None) -> dict[str, Columns]:
        """A run's columns, read at once."""
        return self.run(store.read_columns(run_id, keys)).columns

    def look(self, store: AbstractStore, run_id: str, seen: dict[str, Columns], after: Any, **given: Any) -> Any:
        """Read what is new into ``seen``, as a follower does. Returns the next cursor, as JSON gives it back."""
        found: Increment = self.run(store.read_columns(run_id, after=after, **given))
        for key in found.anew:
            seen.pop(key, None)
        for key, columns in found.columns.items():
            assert len(columns), key
            seen.setdefault(key, Columns()).extend(columns)
        return json.loads(json.dumps(found.cursor))

    def test_columns_are_the_history(self, store: AbstractStore) -> None:
        """Of all metrics, or of those that are asked for and there; bit for bit."""
        run_id = self.new_run(store)
        points = [(1000 + i, i // 2 - 3, value) for i, value in enumerate([0.1 + 0.2, 1e308, 5e-324, -1.5, 3.0])]
        self.deliver(
            store, run_id, Batch(metrics={"loss/train": list(points), "b c": [(1, 2, 3.0)], "d": [(1, 0, 0.5)]})
        )
        found = self.columns(store, run_id)
        assert sorted(found) == ["b c", "d", "loss/train"]
        assert found["loss/train"] == Columns.of(self.run(store.get_metric_history(run_id, "loss/train")))
        assert list(found["loss/train"].rows()) == [(step, time, value) for time, step, value in points]
        assert self.columns(store, run_id, ["d", "none", "d", "loss"]) == {"d": Columns([0], [1], [0.5])}
        assert self.columns(store, run_id, []) == {}

    def test_nan_and_infinities_are_values_of_columns(self, store: AbstractStore) -> None:
        """Infinities are given back as such, or as the largest doubles that a database holds in their place."""
        run_id = self.new_run(store)
        self.deliver(store, run_id, Batch(metrics={"m": [(1, 0, -math.inf), (2, 1, math.inf), (3, 2, math.nan)]}))
        least, most, nan = self.columns(store, run_id)["m"].values
        assert least <= -sys.float_info.max
        assert most >= sys.float_info.max
        assert math.isnan(nan)

    def test_a_run_without_metrics_has_no_columns(self, store: AbstractStore) -> None:
        """And a run that does not exist is not found, whatever metric is asked for."""
        run_id = self.new_run(store)
        found = self.run(store.read_columns(run_id))
        assert (found.columns, found.anew) == ({}, frozenset())
        assert self.run(store.summarize(run_id)) == {}
        self.raised(NotFoundError, store.read_columns("f" * 32))
        self.raised(NotFoundError, store.read_columns("f" * 32, ["m"]))
        self.raised(NotFoundError, store.summarize("f" * 32))

    def test_only_what_is_new_is_read_again(self, store: AbstractStore) -> None:
        """The cursor is plain data. Without news there are no columns; a new metric is news."""
        run_id = self.new_run(store)
        self.deliver(store, run_id, Batch(metrics={"a": [(1, 0, 1.0), (2, 1, 2.0)], "b": [(1, 0, 5.0)]}))
        seen: dict[str, Columns] = {}
        cursor = self.look(store, run_id, seen, None)
        again = self.run(store.read_columns(run_id, after=cursor))
        assert (again.columns, again.anew) == ({}, frozenset())
        self.deliver(store, run_id, Batch(metrics={"a": [(3, 2, 3.0)], "c": [(3, 2, math.nan)]}))
        news = self.run(store.read_columns(run_id, after=cursor))
        assert news.columns["a"] == Columns([2], [3], [3.0])
        assert sorted(news.columns) == ["a", "c"]
        assert not news.anew
        self.look(store, run_id, seen, cursor)
        assert seen == self.columns(store, run_id)

    def test_points_that_come_late_are_not_missed(self, store: AbstractStore) -> None:
        """Another process delivers points with an earlier step and time than those that were read: after each look a
        reader has what the store has, each point once."""
        run_id = self.new_run(store)
        seen: dict[str, Columns] = {}
        cursor: Any = None
        for points in (
            [(100, 50, 1.0), (101, 51, 2.0)],
            [(90, 40, 3.0)],  # both earlier
            [(102, 10, 4.0)],  # an earlier step
            [(95, 60, 5.0), (96, 61, 6.0)],  # an earlier time
            [(101, 51, 7.0), (102, 10, math.nan)],  # the same ones, with another value
            [(110, 70, 8.0)],
        ):
            self.deliver(store, run_id, Batch(metrics={"m": list(points)}))
            cursor = self.look(store, run_id, seen, cursor)
            assert seen == self.columns(store, run_id)
        assert len(seen["m"]) == 9

    def test_a_reader_sees_that_a_branch_was_dropped(self, store: AbstractStore) -> None:
        """After a run was taken up again from an earlier step, with the points that are logged then."""
        run_id = self.new_run(store)
        self.deliver(store, run_id, Batch(metrics={"a": [(10 + i, i, 1.0) for i in range(6)], "b": [(15, 5, 1.0)]}))
        seen: dict[str, Columns] = {}
        cursor = self.look(store, run_id, seen, None)
        spec = self.spec(store, run_id=run_id)
        branch = Branch.begun(spec.uid, 3, 20)
        self.run(store.create_run(spec._replace(tags={**spec.tags, **branch.tag})))
        cursor = self.look(store, run_id, seen, cursor)
        assert seen == self.columns(store, run_id)
        self.deliver(store, run_id, Batch(metrics={"a": [(30 + i, i, 2.0) for i in range(3, 9)]}))
        self.look(store, run_id, seen, cursor)
        assert seen == self.columns(store, run_id)
        tags = self.run(store.get_tags(run_id))
        kept = latest_branch(self.run(store.get_metric_history(run_id, "a")), tags)
        assert [(point.step, point.value) for point in kept] == [
            *((step, 1.0) for step in range(3)), *((step, 2.0) for step in range(3, 9)),
        ]  # fmt: skip

    def test_steps_can_be_chosen(self, store: AbstractStore) -> None:
        """Both ends are included, also in what is new; a range that holds nothing is refused."""
        run_id = self.new_run(store)
        ends = (-(2**63), 2**63 - 1)
        points: list[Point] = [(i + 1, step, float(i)) for i, step in enumerate([*range(-5, 5), *ends])]
        self.deliver(store, run_id, Batch(metrics={"m": points, "far": [(1, 1000, 1.0)]}))
        for least, most in ((-2, 3), (None, 0), (4, None), (2**63 - 1, None), (None, -(2**63)), (7, 9)):
            expected = [
                point[1] for point in points
                if (least is None or point[1] >= least) and (most is None or point[1] <= most)
            ]  # fmt: skip
            found = self.run(store.read_columns(run_id, ["m"], min_step=least, max_step=most)).columns
            assert list(found["m"].steps) == expected if expected else found == {}
        seen: dict[str, Columns] = {}
        cursor: Any = self.look(store, run_id, seen, None, min_step=-2, max_step=3)
        self.deliver(store, run_id, Batch(metrics={"m": [(20, 3, 1.0), (21, 4, 1.0)]}))
        self.look(store, run_id, seen, cursor, min_step=-2, max_step=3)
        assert list(seen["m"].steps) == [*range(-2, 4), 3]
        assert sorted(seen) == ["m"]
        self.raised(InvalidInputError, store.read_columns(run_id, min_step=2, max_step=1))

    def test_a_cursor_that_is_none_is_refused(self, store: AbstractStore) -> None:
        """It may be of another kind of store, and to read on from it would give points twice."""
        run_id = self.new_run(store)
        others: list[Any] = ["x", ["m"], {"keys": {"m": "x"}}, {"keys": {"m": []}}]
        for other in others:
            self.raised(InvalidInputError, store.read_columns(run_id, after=other))

    def test_a_summary_is_that_of_the_points(self, store: AbstractStore) -> None:
        """Number, first, latest, least and largest with their steps and times; also after more has come."""
        run_id = self.new_run(store)
        for points in (
            [(1, 0, 5.0), (2, 1, math.nan), (3, 2, -1.0), (4, 3, -1.0)],
            [(5, 1, 7.0), (5, 3, 7.0)],  # steps go back
            [(6, 2, 0.25)],
        ):
            self.deliver(store, run_id, Batch(metrics={"m": list(points), "nan": [(points[0][0], 1, math.nan)]}))
            found = self.run(store.summarize(run_id))
            expected = {key: Summary.of(columns) for key, columns in self.columns(store, run_id).items()}
            assert repr(sorted(found.items())) == repr(sorted(expected.items()))  # NaN is unequal to itself
        assert found["m"].points == 7
        assert found["m"].min == (2, 3, -1.0)
        assert found["m"].max == (1, 5, 7.0)
        assert found["m"].latest == (3, 5, 7.0)
        assert (found["nan"].min, found["nan"].max) == (None, None)
        assert sorted(self.run(store.summarize(run_id, ["m", "none"]))) == ["m"]
