"""What `asynctrack wait` waits for: ``loss < 0.1 and step >= 1000``. Pure."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.errors import InvalidInputError

if TYPE_CHECKING:
    from asynctrack.stores.columns import Summary

__all__ = ["Condition", "Facts", "parse"]

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_PARTS = ("min", "max", "first", "last")
_TERM = re.compile(r"\s*(?:`([^`]+)`((?:\.\w+)?)|([^`<>=!]+?))\s*(<=|>=|==|!=|<|>|=)\s*(\S+)\s*")
_AND = re.compile(r"\s+(?:and|&&)\s+(?=(?:[^`]*`[^`]*`)*[^`]*$)", re.IGNORECASE)


class Facts(NamedTuple):
    """What is known of a run. ``step``: its largest."""

    summaries: Mapping[str, Summary]
    step: int | None
    ended: bool
    status: str


class _Term(NamedTuple):
    """``key`` is a metric's, maybe with a part behind it; "step"; or "ended", without a comparison."""

    key: str
    symbol: str = ""
    number: float = 0.0

    def value(self, facts: Facts) -> float | None:
        """What is compared; None where there is nothing yet."""
        summary, part = facts.summaries.get(self.key), "last"
        if summary is None:
            if self.key == "step":
                return facts.step
            stem, _, part = self.key.rpartition(".")
            summary = facts.summaries.get(stem) if part in _PARTS else None
        if summary is None:
            return None
        spot = {"last": summary.latest, "first": summary.first, "min": summary.min, "max": summary.max}[part]
        return None if spot is None else spot.value

    def met(self, facts: Facts) -> bool:
        if not self.symbol:
            return facts.ended
        value = self.value(facts)
        if value is None:
            return False
        if math.isnan(self.number):  # so that one can wait for it
            return math.isnan(value) == (self.symbol in ("==", "="))
        return _OPERATORS[self.symbol](value, self.number)


class Condition(NamedTuple):
    """Terms that have to be met at once."""

    terms: tuple[_Term, ...]

    def met(self, facts: Facts) -> bool:
        """Whether all are."""
        return all(term.met(facts) for term in self.terms)

    def metrics(self) -> set[str]:
        """The metrics that it may be about: a key may end like a part."""
        names = [term.key for term in self.terms if term.symbol]
        return {*names, *(name.rpartition(".")[0] for name in names if name.rpartition(".")[2] in _PARTS)}

    @property
    def needs_step(self) -> bool:
        """Whether it is about the run's step, which any metric may be the first to reach."""
        return any(term.key == "step" for term in self.terms)

    def values(self, facts: Facts) -> Iterator[tuple[str, float | str]]:
        """What is compared, and how it stands."""
        for term in self.terms:
            if term.symbol:
                value = term.value(facts)
                yield term.key, "not logged" if value is None else value


def parse(text: str) -> Condition:
    """A condition as it was written. Raises InvalidInputError that says how one is."""
    terms = []
    for part in _AND.split(text.strip()):
        if part.strip().lower() == "ended":
            terms.append(_Term("ended"))
            continue
        found = _TERM.fullmatch(part)
        if found is None:
            raise InvalidInputError(
                f"condition {part!r}: write it like 'loss < 0.1', 'loss.min < 0.1', 'step >= 1000' or 'ended', "
                f"with 'and' between several"
            )
        quoted, behind, bare, symbol, number = found.groups()
        try:
            terms.append(_Term(f"{quoted}{behind}" if quoted else bare.strip(), symbol, float(number)))
        except ValueError:
            raise InvalidInputError(f"condition {part!r}: {number!r} is not a number") from None
    return Condition(tuple(terms))
