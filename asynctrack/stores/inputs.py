"""What some stores keep of the datasets and logged models that a run has used and made, and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from asynctrack.entities import DatasetInput, LoggedModelInput, LoggedModelOutput
from asynctrack.errors import RefusedError
from asynctrack.stores.keys import shorten

__all__ = ["KeepsInputs", "check_dataset"]

#: characters, as in MLflow
_LONGEST = {"name": 500, "digest": 36, "source_type": 36, "source": 65535, "schema": 1048575, "profile": 16777215}
_LONGEST_KEY, _LONGEST_VALUE = 255, 500


@runtime_checkable
class KeepsInputs(Protocol):
    """A store that does. What is there already stays as it is, so a call may be repeated."""

    async def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
    ) -> None:
        """Note what a run has used. Raises `NotFoundError`; `RefusedError` for a deleted run, for what is too long, and
        where the store is of before such things were kept."""

    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        """Note the models that a run has logged. Raises as `log_inputs` does."""


def check_dataset(used: DatasetInput) -> None:
    """Raise `RefusedError` for what MLflow refuses."""
    about = f"dataset {shorten(used.dataset.name)}"
    for field, most in _LONGEST.items():
        value = getattr(used.dataset, field)
        if value is not None and len(value) > most:
            raise RefusedError(f"{about}: its {field} has {len(value)} characters; MLflow takes {most}")
    for tag in used.tags:
        if len(tag.key) > _LONGEST_KEY or len(tag.value) > _LONGEST_VALUE:
            raise RefusedError(
                f"{about}: its tag {shorten(tag.key)} has {len(tag.key)} and {len(tag.value)} characters; MLflow takes "
                f"{_LONGEST_KEY} of a key and {_LONGEST_VALUE} of a value"
            )
