"""What differs between runs: params, tags and metrics side by side. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.cli.fields import own_tags

if TYPE_CHECKING:
    from asynctrack.entities import Run

__all__ = ["Aspect", "aspects"]


class Aspect(NamedTuple):
    """One thing that runs have or lack. ``kind``: "param", "metric" or "tag". ``values``: of each run, None where it
    has none; of a metric the last."""

    kind: str
    key: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Whether not all are the same; NaN is the same as NaN."""
        first = self.values[0]
        return any(each != first and not (each != each and first != first) for each in self.values)


def aspects(runs: Sequence[Run]) -> list[Aspect]:
    """All that runs have: params, then metrics, then tags of their users, each in order of the keys."""
    kinds: tuple[tuple[str, list[dict[str, Any]]], ...] = (
        ("param", [dict(run.data.params) for run in runs]),
        ("metric", [dict(run.data.metrics) for run in runs]),
        ("tag", [own_tags(run.data.tags) for run in runs]),
    )
    return [
        Aspect(kind, key, tuple(entries.get(key) for entries in held))
        for kind, held in kinds
        for key in sorted({key for entries in held for key in entries})
    ]
