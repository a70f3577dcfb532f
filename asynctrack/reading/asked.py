"""What a reader asks for, checked at the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.arguments import given, several, step_of, text_of
from asynctrack.reading.frames import Format, check_format
from asynctrack.reading.sampling import check_samples
from asynctrack.stores.columns import check_steps

if TYPE_CHECKING:
    from asynctrack.reading.table import History

__all__ = ["Asked", "asked_of"]


class Asked(NamedTuple):
    """Which points, and as what. ``keys``: None for all."""

    keys: list[str] | None
    samples: int | None
    x: str
    min_step: int | None
    max_step: int | None
    format: Format

    def give(self, history: History) -> Any:
        """The history in the format that was asked for. Raises ImportError."""
        return history.to(self.format)


def asked_of(keys: object, samples: object, x: object, min_step: object, max_step: object, format: object) -> Asked:
    """The arguments of `asynctrack.history`, checked. Raises InvalidInputError."""
    wanted = None if given(keys) is None else [text_of("keys", key) for key in several("keys", keys)]
    most = None if samples is None else check_samples(samples)
    low = None if min_step is None else step_of("min_step", min_step)
    high = None if max_step is None else step_of("max_step", max_step)
    check_steps(low, high)
    return Asked(wanted, most, text_of("x", x), low, high, check_format(format))
