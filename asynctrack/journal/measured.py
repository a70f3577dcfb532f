"""What a metric was measured on: a logged model, a dataset, or both (MLflow 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["MeasuredOn", "measured_on"]


class MeasuredOn(NamedTuple):
    """A metric's key, with the logged model that it is about, and the dataset that it was measured on (MLflow 3).

    It may be used for a key where a metric is logged. Either dataset field is None where the other is.
    """

    key: str
    model_id: str | None
    dataset_name: str | None = None
    dataset_digest: str | None = None


def measured_on(key: str, more: Sequence[Any]) -> MeasuredOn | None:
    """A metric's key with what stands behind it: a model's id, a dataset's name and digest. What does not fit, no
    writer of ours has made: it is left out."""
    fields = [field if isinstance(field, str) and field else None for field in [*more, None, None, None][:3]]
    model_id, name, digest = fields
    if name is None or digest is None:
        name = digest = None
    return MeasuredOn(key, model_id, name, digest) if model_id or name else None
