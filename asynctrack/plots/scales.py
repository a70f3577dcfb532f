"""Axes: from a value to its place between 0 and 1, and the ticks that people read."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["Scale", "number", "scale_of"]


class Scale(NamedTuple):
    """An axis from ``low`` to ``high``, both finite and different; with ``log``, of their logarithms, both above 0."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float | None:
        """Where a value is: 0 for ``low``, 1 for ``high``; ±Inf and what is outside at the edge. None for NaN, and on
        a logarithmic axis for what is not above 0."""
        if value != value or (self.log and value <= 0):
            return None
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            value = math.log10(value) if value < math.inf else math.inf
        else:
            low, high = self.low, self.high
        if value <= low:
            return 0.0
        if value >= high:
            return 1.0
        return (value / 2 - low / 2) / (high / 2 - low / 2)  # halves: the width of all doubles is infinite

    def ticks(self, most: int) -> list[float]:
        """At most ``most`` round values on the axis, rising; at least one."""
        return (_log_ticks if self.log else _ticks)(self.low, self.high, max(most, 1))


def scale_of(low: float, high: float, *, log: bool = False) -> Scale:
    """The axis for values from ``low`` to ``high``. Of one value, or of none (``low`` is above ``high``), it has some
    room."""
    if low > high:
        return Scale(1.0, 10.0, True) if log else Scale(0.0, 1.0)
    if low < high:
        return Scale(low, high, log)
    if log:
        return Scale(max(low / 10, 5e-324), min(high * 10, 1.7e308), True)
    room = abs(low) / 10 or 1.0
    return Scale(max(low - room, -1.7e308), min(high + room, 1.7e308))


def number(value: float) -> str:
    """A value as people write it, in few digits: ``0.25``, ``12k``, ``1.5e-07``."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit and size < unit * 1000 and (name != "k" or size >= 10_000):
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def _ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high / most - low / most) or 5e-324
    power = 10.0 ** min(max(math.floor(math.log10(rough)), -323), 307)
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = power * factor
        first = math.ceil(low / step)
        found = []
        for index in range(most + 1):
            value = (first + index) * step
            if value > high or not math.isfinite(value):
                break
            found.append(0.0 if abs(value) < step / 1e6 else float(f"{value:.12g}"))
        if 0 < len(found) <= most:
            return found
    return [low]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = list(range(first, last + 1))
    if len(powers) < 2:
        return _ticks(low, high, most)
    every = -(-len(powers) // most)
    return [float(f"1e{power}") for power in powers[::every]]
