"""A batch holds points decoded or as they stand in the journal; nobody can tell from what comes out of it."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrack.journal.slots import PACK_SETTLED, SLOT_SIZE
from asynctrack.stores.base import Batch, Point, RecordBlock, RunSpec
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive

KEYS = {1: "a", 2: "b", 7: "a"}  # two streams of one key: registered by two threads at once

POINTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(-2, 2),
        st.sampled_from([0.5, 1.0, 0.0, -0.0, math.inf, 1.7976931348623157e308, math.nan]),
        st.sampled_from(sorted(KEYS)),
    ),
    max_size=12,
)


def block(points: list[tuple[int, int, float, int]]) -> RecordBlock:
    data = bytearray(len(points) * SLOT_SIZE)
    for index, point in enumerate(points):
        PACK_SETTLED(data, index * SLOT_SIZE, *point, *point)
    return RecordBlock(bytes(data), KEYS)


def plain(points: list[tuple[int, int, float, int]]) -> dict[str, list[Point]]:
    metrics: dict[str, list[Point]] = {}
    for point in points:
        metrics.setdefault(KEYS[point[3]], []).append(point)
    return metrics


def test_blocks_are_decoded_on_demand() -> None:
    """`metrics` shows undecoded points like any others, and counting them needs no decoding."""
    points = [(1, 0, 0.5, 1), (2, 0, 1.5, 2), (3, 1, 2.5, 7)]
    batch = Batch(blocks=[block(points)])
    assert (batch.points, len(batch), batch.metric_keys(), batch.decoded) == (3, 3, {"a", "b"}, {})
    assert batch.metrics == {"a": [points[0], points[2]], "b": [points[1]]}
    assert (batch.points, batch.blocks) == (3, [])


@given(st.lists(st.tuples(st.booleans(), POINTS), max_size=4))
def test_joining_batches_keeps_each_metrics_order(parts: list[tuple[bool, list[tuple[int, int, float, int]]]]) -> None:
    """However decoded and undecoded parts alternate, a metric's points stay in the order they were logged in."""
    whole = Batch()
    everything: list[tuple[int, int, float, int]] = []
    for raw, points in parts:
        whole = whole.plus(Batch(blocks=[block(points)]) if raw else Batch(plain(points)))
        everything += points
    assert whole.points == len(everything)
    expected = plain(everything)
    assert repr({key: points for key, points in whole.metrics.items() if points}) == repr(
        {key: expected[key] for key in whole.metrics if whole.metrics[key]}
    )
    assert sum(map(len, whole.metrics.values())) == len(everything)


@settings(deadline=None)
@given(first=POINTS, second=POINTS)
def test_the_file_store_writes_the_same_lines_either_way(
    first: list[tuple[int, int, float, int]],
    second: list[tuple[int, int, float, int]],
    tmp_path_factory: object,
) -> None:
    """Undecoded records become the very lines that decoded points become, identical points once in both."""
    contents = []
    for raw in (False, True):
        root = Path(tmp_path_factory.mktemp("store"))  # type: ignore[attr-defined]  # pytest's factory
        store = FileStore(str(root), InlineIO())
        run_id = drive(store.create_run(RunSpec(uid="a" * 32, start_time=1))).run_id
        for points in (first, second):
            batch = Batch(blocks=[block(points)]) if raw else Batch(plain(points))
            assert drive(store.log_batch(run_id, batch)) == []
        folder = root / "0" / run_id / "metrics"
        contents.append({path.name: path.read_text() for path in folder.iterdir()})
    assert contents[0] == contents[1]
