"""What a log call's arguments become. Pure; every refusal is an InvalidInputError that names key and value."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

from asynctrack.errors import InvalidInputError

__all__ = ["flatten", "shortened", "to_float", "to_step", "to_text", "to_timestamp"]

#: float() would read a number in these
_TEXT = (str, bytes, bytearray, memoryview)


def to_float(key: object, value: Any) -> float:
    """A metric's value: whatever has ``__float__`` (int, bool, NumPy and tensor scalars, Decimal), or one element."""
    try:
        if isinstance(value, (int, float)):
            return float(value)
        if not isinstance(value, _TEXT):
            return float(value.item() if getattr(value, "ndim", 0) else value)
    except TypeError:
        pass  # no number at all: said below
    except (ValueError, OverflowError, RuntimeError) as error:
        raise InvalidInputError(f"metric {shortened(key)}: {shortened(value)} is not one number: {error}") from None
    raise InvalidInputError(
        f"metric {shortened(key)}: {shortened(value)} is not a number; log a float, an int or a one-element array or "
        "tensor, and text with log_param or set_tag"
    )


def to_step(key: object, step: Any) -> int:
    """A step: any integer of 64 bits; floats only where they are whole."""
    try:
        number = int(step) if isinstance(step, float) and step.is_integer() else operator.index(step)
    except TypeError:
        raise InvalidInputError(f"metric {shortened(key)}: step={shortened(step)} is not an integer") from None
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidInputError(f"metric {shortened(key)}: step={number} does not fit 64 bits")
    return number


def to_timestamp(key: object, timestamp: Any) -> int:
    """A timestamp: ms since the epoch, an integer, not negative."""
    try:
        number = operator.index(timestamp)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 63:
        raise InvalidInputError(
            f"metric {shortened(key)}: timestamp={shortened(timestamp)} is not an integer of milliseconds since the "
            "epoch; time.time_ns() // 1_000_000 is now"
        )
    return number


def to_text(kind: str, key: object, value: Any) -> str:
    """The text of a param or tag: ``str(value)``, with characters that no encoding holds replaced."""
    try:
        text = str(value)
    except Exception as error:
        raise InvalidInputError(f"{kind} {shortened(key)}: str() of its value failed: {error!r}") from error
    return text.encode("utf-8", "replace").decode("utf-8")


def flatten(params: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of nested dictionaries, keys joined with dots: ``{"opt": {"lr": 1}}`` gives ``("opt.lr", 1)``."""
    if not isinstance(params, Mapping):
        raise InvalidInputError(f"expected a dictionary of names and values, not {shortened(params)}")
    yield from _flatten(params, "", ())


def _flatten(params: Mapping[Any, Any], prefix: str, around: tuple[object, ...]) -> Iterator[tuple[str, Any]]:
    around = (*around, params)
    for key, value in params.items():
        name = f"{prefix}{key}" if prefix else key
        if any(value is outer for outer in around):
            raise InvalidInputError(f"param {shortened(name)}: the dictionary contains itself")
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{name}.", around)
        else:
            yield name, value


def shortened(value: object, limit: int = 60) -> str:
    """``repr(value)``, cut to a length that fits a message."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr fails: {error!r}>"
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
