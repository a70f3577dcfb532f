"""Converts the arguments of log calls. Pure functions; a bad argument raises InvalidInputError with key and value."""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import Any

from asynctrack.errors import InvalidInputError

__all__ = ["as_text", "is_stored_as", "shortened", "shown", "to_float", "to_step", "to_text", "to_timestamp"]


def to_float(key: object, value: Any) -> float:
    """A metric's value: anything that is one real number, as it is. A number of any kind (int, bool, Decimal, Fraction,
    NumPy, tensor scalars of any width), an array or tensor of one element, or a text that is a number, as MLflow takes
    it. Not a complex number with an imaginary part, nor a masked value: they have no float."""
    try:
        if isinstance(value, (int, float, str)) or _is_real(type(value)):  # type: ignore[arg-type]  # a type is hashable
            return float(value)
        if not (isinstance(value, memoryview) or _masked(value)):
            number = _scalar(value)
            return float(number.real if isinstance(number, complex) and not number.imag else number)
    except TypeError:
        pass  # no number at all: said below
    except Exception as error:  # whatever its __float__ raises
        why = str(error)[:200]
        raise InvalidInputError(f"metric {shortened(key)}: {_described(value)} is not one number: {why}") from None
    raise InvalidInputError(
        f"metric {shortened(key)}: {_described(value)} is not a number; log a float, an int or a one-element array or "
        "tensor, and other things with log_param or set_tag"
    )


def to_step(key: object, step: Any) -> int:
    """A step, from a signed 64-bit integer, or a number of another kind that is whole (4.0, ``np.float32(4)``)."""
    number = _whole(step)
    if number is None:
        raise InvalidInputError(f"metric {shortened(key)}: step={_described(step)} is not an integer")
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidInputError(f"metric {shortened(key)}: step={shortened(number)} does not fit 64 bits")
    return number


@lru_cache(256)
def _is_real(kind: type) -> bool:
    """Whether its values are real numbers by their type, as NumPy's scalars are: then nothing else is asked of them,
    which would take longer than all the rest of a log call."""
    from numbers import Real  # late: most programs have no use for it

    return issubclass(kind, Real)


def _whole(step: Any) -> int | None:
    if isinstance(step, (str, bytes, bytearray)) or _masked(step):
        return None
    try:
        return operator.index(step)
    except Exception:
        pass  # no integer, or one whose __index__ fails: perhaps another number that is whole
    try:
        exact = _scalar(step)
        number = int(exact)
        return number if number == exact else None
    except Exception:  # whatever its __int__ raises
        return None


def _scalar(value: Any) -> Any:
    """The one element of an array or tensor, as a number of Python's own; anything else as it is."""
    return value.item() if hasattr(value, "ndim") and hasattr(value, "item") else value


def _masked(value: Any) -> bool:
    """Whether it is NumPy's masked value: it says that there is none, and yet is 0.0 or NaN to whoever asks."""
    return _may_be_masked(type(value)) and bool(value.mask.any())  # type: ignore[arg-type]  # a type is hashable


@lru_cache(256)
def _may_be_masked(kind: type) -> bool:
    return hasattr(kind, "fill_value") and hasattr(kind, "mask")


def _described(value: object) -> str:
    """``repr(value)``, shortened; of what is no number of Python's own, with its type and shape."""
    if isinstance(value, (int, float, complex, str, bytes)) or value is None:
        return shortened(value)
    try:
        shape = getattr(value, "shape", None)
    except Exception:  # whatever its __getattr__ raises
        shape = None
    what = f"{shortened(value)} ({type(value).__module__}.{type(value).__qualname__}"
    return f"{what} of shape {tuple(shape)})" if isinstance(shape, tuple) else f"{what})"


def to_timestamp(key: object, timestamp: Any) -> int:
    """A timestamp in ms since the epoch, from an integer that is not negative."""
    try:
        number = operator.index(timestamp)
    except Exception:  # whatever its __index__ raises
        number = -1
    if not 0 <= number < 1 << 63:
        raise InvalidInputError(
            f"metric {shortened(key)}: timestamp={shortened(timestamp)} is not an integer of milliseconds since the "
            "epoch; time.time_ns() // 1_000_000 is now"
        )
    return number


def as_text(value: object) -> str | None:
    """The plain `str` that a text is, a subclass of it too, or that one stands for: Werkzeug's and wrapt's proxies say
    that they are texts, and no regular expression or encoder takes them. None for what is no text."""
    try:
        if not isinstance(value, str):
            return None
        return str.__str__(value) if issubclass(type(value), str) else str(value)
    except Exception:  # whatever its __str__ raises
        return None


def to_text(kind: str, key: object, value: Any) -> str:
    """The text of a param or tag: ``str(value)``, with "?" for characters that UTF-8 cannot encode."""
    try:
        text = str(value)
    except Exception as error:
        raise InvalidInputError(f"{kind} {shortened(key)}: str() of its value failed: {error!r}") from error
    return text.encode("utf-8", "replace").decode("utf-8")


def is_stored_as(text: str, stored: str) -> bool:
    """Whether a store that holds ``stored`` may have been given ``text``: MLflow cuts long values (after 250 characters
    or more), and a server keeps U+FFFD for NUL."""
    return stored in (text, text.replace("\0", "\ufffd")) or (len(stored) >= 250 and text.startswith(stored))


def shortened(value: object, limit: int = 60) -> str:
    """``repr(value)``, cut after ``limit`` characters, for messages."""
    text = shown(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def shown(value: object) -> str:
    """``repr(value)``, or why there is none: an integer of 5,000 digits and an endless dictionary have none."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr fails: {type(error).__name__}>"
