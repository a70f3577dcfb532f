"""The events of one run that go to a store together, and those that it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from asynctrack.journal.slots import SLOT_SIZE, Slots, all_finite, records
from asynctrack.stores.points import Point

__all__ = ["Batch", "RecordBlock", "Refusal"]


class RecordBlock(NamedTuple):
    """Metric points of one run in the journal's encoding. ``data``: whole slots (see
    `asynctrack.journal.slots.records`). ``keys``: the metric key of each stream number in ``data``."""

    data: Slots
    keys: dict[int, str]

    @property
    def finite(self) -> bool:
        """True if no value is NaN or ±Inf. It may also be False for very large values: the test is approximate, and
        takes an eighth of the time of testing each value."""
        return all_finite(self.data)

    @property
    def points(self) -> int:
        """The number of points."""
        return len(self.data) // SLOT_SIZE


class Batch:
    """Events of one run, in order within each metric, and within params and tags.

    ``inputs`` are the datasets and models that the run uses or has made, as text (`asynctrack.journal.inputs`). A store
    gets them by calls of their own (`asynctrack.stores.inputs.KeepsInputs`), and never with a batch.

    Most stores read ``metrics``. A store that decodes records itself reads ``blocks``, the points that are not yet
    decoded into ``metrics``, after ``decoded``.
    """

    __slots__ = ("_metrics", "blocks", "inputs", "params", "points", "tags")

    def __init__(
        self,
        metrics: dict[str, list[Point]] | None = None,
        params: Iterable[tuple[str, str]] = (),
        tags: Iterable[tuple[str, str]] = (),
        blocks: Iterable[RecordBlock] = (),
        inputs: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._metrics = {} if metrics is None else metrics
        self.params = list(params)
        self.tags = list(tags)
        self.blocks = list(blocks)
        self.inputs = list(inputs)
        #: number of metric points
        self.points = sum(map(len, self._metrics.values())) + sum(block.points for block in self.blocks)

    def __len__(self) -> int:
        return self.points + len(self.params) + len(self.tags) + len(self.inputs)

    def __repr__(self) -> str:
        return f"<Batch of {self.points} points, {len(self.params)} params, {len(self.tags)} tags>"

    @property
    def metrics(self) -> dict[str, list[Point]]:
        """The points of each metric. Decodes ``blocks`` first. Do not change the result."""
        blocks, self.blocks = self.blocks, []
        for block in blocks:
            for record in records(block.data):
                self._metrics.setdefault(block.keys[record[3]], []).append(record)
        return self._metrics

    @property
    def decoded(self) -> dict[str, list[Point]]:
        """The points of each metric, without the points in ``blocks``, which follow them."""
        return self._metrics

    def metric_keys(self) -> set[str]:
        """The keys of all metrics in the batch."""
        return set(self._metrics).union(*(block.keys.values() for block in self.blocks))

    def add(self, key: str, points: Sequence[Point]) -> None:
        """Add points of one metric."""
        self._metrics.setdefault(key, []).extend(points)
        self.points += len(points)

    def add_block(self, block: RecordBlock) -> None:
        """Add undecoded points."""
        self.blocks.append(block)
        self.points += block.points

    def plus(self, later: Batch) -> Batch:
        """A batch of the events of this batch, followed by those of ``later``."""
        if later._metrics:
            self.metrics  # noqa: B018  # decodes ``blocks``: their points must precede those of ``later``
        metrics = {key: list(points) for key, points in self._metrics.items()}
        for key, points in later._metrics.items():
            metrics.setdefault(key, []).extend(points)
        params, tags, inputs = self.params + later.params, self.tags + later.tags, self.inputs + later.inputs
        return Batch(metrics, params, tags, self.blocks + later.blocks, inputs)

    def items(self) -> Iterator[tuple[str, str, Any]]:
        """Every event as (kind, key, value). ``kind``: "metric", "param", "tag" or "input". A metric's value is a
        `Point`."""
        for key, value in self.params:
            yield "param", key, value
        for key, points in self.metrics.items():
            for point in points:
                yield "metric", key, point
        for key, value in self.tags:
            yield "tag", key, value
        for key, value in self.inputs:
            yield "input", key, value

    @classmethod
    def of(cls, items: Iterable[tuple[str, str, Any]]) -> Batch:
        """The inverse of `items`."""
        batch = cls()
        for kind, key, value in items:
            if kind == "metric":
                batch.add(key, (value,))
            elif kind == "param":
                batch.params.append((key, value))
            elif kind == "tag":
                batch.tags.append((key, value))
            else:
                batch.inputs.append((key, value))
        return batch

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches that together hold the same events in the same order."""
        items = list(self.items())
        middle = len(items) // 2
        return Batch.of(items[:middle]), Batch.of(items[middle:])


class Refusal(NamedTuple):
    """One event that a store will never accept, and the reason."""

    kind: str
    key: str
    value: Any
    reason: str
