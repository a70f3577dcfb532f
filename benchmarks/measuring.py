"""What several benchmarks need: quantiles, rounds in turn, and an asynctrack run that leaves nothing behind."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asynctrack

__all__ = ["InMemory", "Tails", "between", "clean_settings", "in_turn", "seconds", "work_folder"]


class InMemory:
    """The floor: nothing is checked, nothing is kept beyond the process, nothing is delivered. Cheap, and honest."""

    def __init__(self) -> None:
        from collections import deque

        self.events: deque[tuple[str, float, int, int]] = deque(maxlen=100_000)

    def log_metric(self, key: str, value: float, step: int | None = None, timestamp: int | None = None) -> None:
        """What any such class does."""
        self.events.append((key, float(value), step or 0, timestamp or time.time_ns() // 1_000_000))


class Tails(NamedTuple):
    """How long calls took, in µs, and how many took more than 1 ms."""

    p50: float
    p99: float
    p999: float
    most: float
    over_1_ms: int
    calls: int

    @classmethod
    def of(cls, laps: Sequence[int]) -> Tails:
        """From single calls in ns."""
        ordered = sorted(laps)
        p50, p99, p999 = (ordered[int(len(ordered) * share)] / 1e3 for share in (0.5, 0.99, 0.999))
        return cls(p50, p99, p999, ordered[-1] / 1e3, sum(lap > 1_000_000 for lap in ordered), len(ordered))

    def cells(self) -> list[str]:
        """For a table."""
        times = [f"{lap:.1f}" if lap < 100 else f"{lap:,.0f}" for lap in self[:4]]
        return [*times, f"{self.over_1_ms} of {self.calls:,}"]


def seconds(call: Callable[[], Any]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def in_turn(
    calls: Sequence[Callable[[], float]], rounds: int, before: Callable[[], None] = lambda: None
) -> list[list[float]]:
    """What each call returned, round by round; each round begins with another one, as the first may find the
    processor's caches and clock rate as somebody else has left them."""
    found: list[list[float]] = []
    for number in range(rounds):
        before()
        results = [0.0] * len(calls)
        for place in range(len(calls)):
            at = (place + number) % len(calls)
            results[at] = calls[at]()
        found.append(results)
    return found


def between(ratios: Sequence[float]) -> str:
    """The middle half of them."""
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0], 0.0, ratios[0])
    return f"{low:.2f} – {high:.2f}"


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="asynctrack-benchmark-") as work:
        yield Path(work)


@contextmanager
def clean_settings(work: Path, **settings: Any) -> Iterator[None]:
    """These settings, with the spools in ``work``; everything delivered, shut down and back to default afterwards."""
    given = {"spool_dir": str(work / "spool"), "close_timeout": 600.0, **settings}
    asynctrack.configure(**given)
    try:
        yield
    finally:
        asynctrack.shutdown()
        asynctrack.configure(**dict.fromkeys(given))
