"""Branches of a run: what was logged from some step on, and is replaced by what is logged now.

A run that is taken up again from an earlier checkpoint (``start_run(run_id=…, from_step=1000)``) logs its steps from
1000 on once more. What stands there from before is an abandoned branch. A store that can delete points deletes them
when the run is taken up. Everywhere a tag says so: it tells a store that this was done, and readers what to leave out
where a store cannot delete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from asynctrack.entities import Metric

__all__ = ["Branch", "branch_of", "branches_of", "latest_branch"]

#: the tag's name, before the uid of the start that it belongs to; MLflow's UI hides tags of this prefix
_PREFIX = "mlflow.asynctrack.branch."


class Branch(NamedTuple):
    """The points of a run at ``from_step`` and behind, with a time before ``began`` (ms since the epoch), are replaced.

    ``key``: of the tag that says so.
    """

    key: str
    from_step: int
    began: int

    @classmethod
    def begun(cls, uid: str, from_step: int, began: int) -> Branch:
        """The branch that a start with this uid begins."""
        return cls(_PREFIX + uid, from_step, began)

    @property
    def tag(self) -> dict[str, str]:
        """The tag that says so."""
        return {self.key: json.dumps({"from_step": self.from_step, "began": self.began})}

    def replaces(self, step: int, timestamp: int) -> bool:
        """Whether it replaces a point."""
        return step >= self.from_step and timestamp < self.began


def branches_of(tags: Mapping[str, str]) -> list[Branch]:
    """The branches that a run's tags tell of. A tag that cannot be read tells of none."""
    found = []
    for key, value in tags.items():
        if key.startswith(_PREFIX):
            try:
                told = json.loads(value)
                found.append(Branch(key, int(told["from_step"]), int(told["began"])))
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                continue
    return found


def branch_of(uid: str, tags: Mapping[str, str]) -> Branch | None:
    """The branch that the start with this uid begins, by its tags; None if it replaces nothing."""
    return next((branch for branch in branches_of(tags) if branch.key == _PREFIX + uid), None)


def latest_branch(points: Iterable[Metric], tags: Mapping[str, str]) -> list[Metric]:
    """The points of a metric that none of the run's branches replaces."""
    branches = branches_of(tags)
    return [point for point in points if not any(branch.replaces(point.step, point.timestamp) for branch in branches)]
