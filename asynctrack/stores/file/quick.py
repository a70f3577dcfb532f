"""Metric files parsed by NumPy, a column at a time: a million lines in about 0.3 seconds.

A digit costs one step for all lines of a block. A value is its digits as an integer, divided by a power of ten, in long
doubles: both are exact there, so the quotient is rounded once; where that rounding could change the next one, to a
double, Python reads the text. So does it where a field is anything but digits, a sign, a point and an exponent.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from asynctrack.stores.columns import Columns

if TYPE_CHECKING:
    from numpy import bool_, float64, int64, uint8
    from numpy.typing import NDArray

__all__ = ["is_exact", "quick_columns"]

_SPACE, _NEWLINE, _MINUS, _PLUS, _POINT, _ZERO, _NINE, _E, _N, _A = b" \n-+.09ena"
#: digits that an int64 holds whatever they are
_DIGITS = 18
#: digits of a field that are looked at in one step each: 17 behind four zeros, say
_WIDEST = 24
#: the largest power of ten that is a long double
_POWERS = 27


@cache
def is_exact() -> bool:
    """Whether NumPy's long doubles have the 64 bits that this needs. They have not on some processors, and in some
    emulators, whatever is said of them."""
    import numpy

    large = numpy.array([2**63 - 1, 2**62 + 1], numpy.int64)
    back = (large.astype(numpy.longdouble) - numpy.longdouble(2**62)).astype(numpy.int64) + 2**62
    return bool((back == large).all()) and int(_powers()[-1]) == 10**_POWERS


@cache
def _powers() -> Any:
    """The powers of ten, from 0 on: products that are exact each."""
    import numpy

    return numpy.cumprod(numpy.array([1] + [10] * _POWERS, numpy.longdouble))


def quick_columns(data: bytes) -> tuple[Columns, list[tuple[int, bytes]]] | None:
    """The points of whole lines that have three fields each; None where some line has not.

    Also, by index, the lines that have to be read otherwise: what the columns have in their place means nothing.
    """
    import numpy

    text = numpy.frombuffer(data, numpy.uint8)
    ends = numpy.flatnonzero(text <= _SPACE)
    if not len(ends) or len(ends) % 3 or len(data) <= _WIDEST:
        return None
    rows = ends.reshape(-1, 3)
    kinds = text[rows]
    if (kinds[:, :2] != _SPACE).any() or (kinds[:, 2] != _NEWLINE).any():
        return None
    behind_time, behind_value, behind_step = (numpy.ascontiguousarray(rows[:, column]) for column in range(3))
    starts = numpy.empty_like(behind_time)
    starts[0], starts[1:] = 0, behind_step[:-1] + 1
    with numpy.errstate(all="ignore"):  # a program may have made errors of them
        times, good = _integers(text, starts, behind_time)
        steps, good_steps = _integers(text, behind_value + 1, behind_step)
        values, good_values = _values(text, behind_time + 1, behind_value)
    good &= good_steps & good_values
    columns = Columns()
    columns.steps.frombytes(steps.tobytes())
    columns.times.frombytes(times.tobytes())
    columns.values.frombytes(values.tobytes())
    return columns, [(at, data[starts[at] : behind_step[at]]) for at in numpy.flatnonzero(~good).tolist()]


def _integers(
    text: NDArray[uint8], starts: NDArray[int64], ends: NDArray[int64]
) -> tuple[NDArray[int64], NDArray[bool_]]:
    """The integers between two positions each, and which of them are ones."""
    import numpy

    negative = text[starts] == _MINUS
    numbers, good = _digits(text, ends, ends - starts - negative)
    return numpy.where(negative, -numbers, numbers), good


def _digits(
    text: NDArray[uint8], ends: NDArray[int64], widths: NDArray[int64], behind: NDArray[int64] | None = None
) -> tuple[NDArray[int64], NDArray[bool_]]:
    """The numbers that end before ``ends`` and have so many digits, and which of them are ones. ``behind``: of how many
    digits at its end each has a character to leave out, a point, before them."""
    import numpy

    good = (widths > 0) & (widths <= _WIDEST)
    numbers = numpy.zeros(len(ends), numpy.int64)
    if not len(ends):
        return numbers, good
    narrowest = int(widths.min())
    at = ends - 1
    for digit in range(min(int(widths.max()), _WIDEST)):
        found = text[at if behind is None else at - (behind <= digit)] - numpy.uint8(_ZERO)
        right = found <= (_NINE - _ZERO if digit < _DIGITS else 0)  # whatever is no digit is above 9
        if digit >= narrowest:
            outside = widths <= digit
            found[outside] = 0
            right |= outside
        good &= right
        if digit < _DIGITS:
            numbers += found.astype(numpy.int64) * 10**digit
        at = at - 1
    return numbers, good


def _values(
    text: NDArray[uint8], starts: NDArray[int64], ends: NDArray[int64]
) -> tuple[NDArray[float64], NDArray[bool_]]:
    """The doubles between two positions each, and which of them are ones."""
    import numpy

    negative = text[starts] == _MINUS
    exponents, stops, good = _exponents(text, starts, ends)
    points, whose = _within(numpy.flatnonzero(text == _POINT), starts, ends)
    # Of several points in a field one counts, and the others are no digits.
    behind, has_point = numpy.full(len(ends), _WIDEST, numpy.int64), numpy.zeros(len(ends), bool)
    behind[whose], has_point[whose] = stops[whose] - points - 1, True
    numbers, digits = _digits(text, stops, stops - starts - negative - has_point, behind)
    good &= digits & (behind >= 0)  # else the point is in the exponent
    powers = numpy.where(has_point, behind, 0) - exponents
    good &= (powers <= _POWERS) & (powers >= -_POWERS)
    powers[~good] = 0
    exact = numbers.astype(numpy.longdouble)
    exact /= _powers()[numpy.maximum(powers, 0)]
    if (powers < 0).any():
        exact *= _powers()[numpy.maximum(-powers, 0)]
    values = exact.astype(numpy.float64)
    rounded, gap = numpy.abs(exact - values), numpy.spacing(values)
    # Half a gap is a tie, or only looks like one. Below a power of two the gap is half as wide.
    good &= (rounded == 0) | ((rounded != gap / 2) & (rounded != gap / 4))
    is_nan = (ends - starts == 3) & (text[starts] == _N) & (text[starts + 1] == _A) & (text[ends - 1] == _N)
    return numpy.where(is_nan, numpy.nan, numpy.where(negative, -values, values)), good | is_nan


def _exponents(
    text: NDArray[uint8], starts: NDArray[int64], ends: NDArray[int64]
) -> tuple[NDArray[int64], NDArray[int64], NDArray[bool_]]:
    """The exponents of values, where the digits before them end, and which of them are ones."""
    import numpy

    exponents, stops, good = numpy.zeros(len(ends), numpy.int64), ends.copy(), numpy.ones(len(ends), bool)
    marks, whose = _within(numpy.flatnonzero(text == _E), starts, ends)
    signs = text[marks + 1]  # a space is the last that follows
    widths = ends[whose] - marks - 1 - ((signs == _MINUS) | (signs == _PLUS))
    numbers, right = _digits(text, ends[whose], widths)
    exponents[whose] = numpy.where(signs == _MINUS, -numbers, numbers)
    stops[whose] = marks
    good[whose] = right & (widths <= 3)
    return exponents, stops, good


def _within(
    places: NDArray[int64], starts: NDArray[int64], ends: NDArray[int64]
) -> tuple[NDArray[int64], NDArray[int64]]:
    """Those of some positions, in order, that lie within a field, and in which."""
    import numpy

    if len(places) == len(ends) and (starts <= places).all() and (places < ends).all():
        return places, numpy.arange(len(ends))
    whose = numpy.searchsorted(ends, places)
    inside = whose < len(ends)
    places, whose = places[inside], whose[inside]
    inside = starts[whose] <= places
    return places[inside], whose[inside]
