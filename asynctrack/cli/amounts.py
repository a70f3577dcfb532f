"""Numbers, times and durations, as people and programs read and write them. Pure."""

from __future__ import annotations

import math
import re
import time
from functools import lru_cache
from typing import Any

from asynctrack.errors import InvalidInputError

__all__ = ["ago", "duration", "exact", "moment", "number", "plain", "seconds_of"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|min|s|m|h|d|w)?\s*")


def moment(ms: int | None) -> str | int | None:
    """A time in RFC 3339, UTC, from ms since the epoch; the number itself where no calendar has it."""
    if ms is None:
        return None
    at = _second(ms // 1000)
    return ms if at is None else f"{at}.{ms % 1000:03d}Z"


@lru_cache(64)  # points of a training loop come many in a second
def _second(seconds: int) -> str | None:
    try:
        at = time.gmtime(seconds)
    except (OverflowError, ValueError, OSError):
        return None
    return f"{at.tm_year:04d}-{time.strftime('%m-%dT%H:%M:%S', at)}" if 0 <= at.tm_year <= 9999 else None


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units: "3d4h", "2m10s", "0.4s"."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for name, length, below, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length}{name}" + (f"{rest}{below}" if rest else "")
    return f"{whole}s"


def ago(ms: int | None, now: int) -> str:
    """How long ago a time was: "3m", "2d"; a program whose clock is ahead has logged "now"."""
    if ms is None:
        return ""
    seconds = max((now - ms) // 1000, 0)
    for name, length in (("y", 31557600), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{name} ago"
    return f"{seconds}s ago" if seconds else "now"


def seconds_of(text: str) -> float:
    """The seconds of "1h", "5m", "1h30m", "90". Raises InvalidInputError."""
    position, total = 0, 0.0
    stripped = text.strip()
    while position < len(stripped):
        found = _DURATION.match(stripped, position)
        if found is None:
            break
        total += float(found[1]) * _UNITS[found[2] or "s"]
        position = found.end()
    if not stripped or position < len(stripped):
        raise InvalidInputError(f"{text!r} is no length of time; write it like 30s, 5m, 1h or 1h30m")
    return total


def number(value: Any) -> str:
    """A value in few characters, for a table: at most four digits that count."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def exact(value: Any) -> str:
    """A value with all its digits, for a program that reads text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """A value as JSON has it. NaN and infinity, which JSON does not have, are texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
