"""Metric files parsed by NumPy, a column at a time: a million lines in about 0.2 seconds.

Eight digits are taken at once, as one 64-bit number, of all lines of a block. A value is its digits as an integer,
divided by a power of ten, in long doubles: both are exact there, so the quotient is rounded once; where that rounding
could change the next one, to a double, Python reads the text. So does it where a field is anything but digits, a sign,
a point and an exponent.
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
#: digits that are looked at, eight at once: 17 behind four zeros, say
_WIDEST = 24
#: so few of a character are looked for one by one
_SELDOM = 200
#: bytes; more than all arrays of a block
_LARGE = 4 << 20
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
def _has_64_bits() -> bool:
    """Whether a long double is x86's: a mantissa of 64 bits, and as many of which the lowest are the rest."""
    import numpy

    return numpy.dtype(numpy.longdouble).itemsize == 16 and numpy.finfo(numpy.longdouble).nmant == 63


@cache
def _powers() -> Any:
    """The powers of ten, from 0 on: products that are exact each."""
    import numpy

    return numpy.cumprod(numpy.array([1] + [10] * _POWERS, numpy.longdouble))


@cache
def _powers_of_ints() -> Any:
    """The powers of ten that an int64 holds."""
    import numpy

    return numpy.array([10**power for power in range(_DIGITS + 1)], numpy.int64)


@cache
def _inside() -> Any:
    """What leaves out the first 0 to 8 of eight bytes."""
    import numpy

    return numpy.array([(1 << 64) - (1 << 8 * count) for count in range(9)], numpy.uint64)


def quick_columns(data: bytes) -> tuple[Columns, list[tuple[int, bytes]]] | None:
    """The points of whole lines that have three fields each; None where some line has not.

    Also, by index, the lines that have to be read otherwise: what the columns have in their place means nothing.
    """
    import numpy

    _keep_memory()
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
        values, good_values = _values(data, text, behind_time + 1, behind_value)
    good &= good_steps & good_values
    good[starts < _WIDEST] = False  # as many bytes before a field are looked at, and here there are none
    columns = Columns()
    columns.steps.frombytes(steps.view(numpy.uint8).data)
    columns.times.frombytes(times.view(numpy.uint8).data)
    columns.values.frombytes(values.view(numpy.uint8).data)
    return columns, [(at, data[starts[at] : behind_step[at]]) for at in numpy.flatnonzero(~good).tolist()]


def _integers(
    text: NDArray[uint8], starts: NDArray[int64], ends: NDArray[int64]
) -> tuple[NDArray[int64], NDArray[bool_]]:
    """The integers between two positions each, and which of them are ones."""
    import numpy

    negative = text[starts] == _MINUS
    widths = ends - starts - negative
    numbers, good = _digits(text, ends, widths)
    good &= widths > 0
    return (numpy.where(negative, -numbers, numbers) if negative.any() else numbers), good


def _digits(
    text: NDArray[uint8], ends: NDArray[int64], widths: NDArray[int64]
) -> tuple[NDArray[int64], NDArray[bool_]]:
    """The numbers that end before ``ends`` and have so many digits (0 of none), and which of them are ones."""
    import numpy

    good = (widths >= 0) & (widths <= _WIDEST)
    numbers, others = numpy.zeros(len(ends), numpy.int64), numpy.zeros(len(ends), numpy.uint64)
    widest = min(int(widths.max(initial=0)), _WIDEST)
    eights = numpy.ndarray((len(text) - 7,), "<u8", text.data, 0, (1,))  # the eight bytes at each place
    for right in range(0, widest, 8):
        found = eights[ends - (right + 8)]
        found ^= 0x3030303030303030  # digits become 0 to 9, all else something above
        outside = (right + 8) - widths  # of the eight the first that are before the field: as zeros
        if int(outside.max()) > 0:
            found &= _inside()[numpy.minimum(numpy.maximum(outside, 0), 8)]
        others |= found
        others |= found + 0x7676767676767676  # of a byte that is no digit one of the two has the highest bit
        # Pairs of digits, then fours, then all eight: a product puts the tens above the ones, and adds them.
        found *= 10 << 8 | 1
        found >>= 8
        found &= 0x00FF00FF00FF00FF
        found *= 100 << 16 | 1
        found >>= 16
        found &= 0x0000FFFF0000FFFF
        found *= 10000 << 32 | 1
        found >>= 32
        if right == 16:
            good &= found < 10 ** (_DIGITS - 16)
        numbers += found.astype(numpy.int64) * 10**right
    return numbers, good & (others & 0x8080808080808080 == 0)


def _values(
    data: bytes, text: NDArray[uint8], starts: NDArray[int64], ends: NDArray[int64]
) -> tuple[NDArray[float64], NDArray[bool_]]:
    """The doubles between two positions each, and which of them are ones."""
    import numpy

    negative = text[starts] == _MINUS
    exponents, stops, good = _exponents(data, text, starts, ends)
    whole, behind = _points(text, starts + negative, stops)
    before = whole - starts - negative
    numbers, digits = _digits(text, whole, before)
    fractions, right = _digits(text, stops, behind)
    good &= digits & right & (before + behind > 0)
    good &= numbers < _powers_of_ints()[numpy.clip(_DIGITS - behind, 0, _DIGITS)]
    numbers *= _powers_of_ints()[numpy.clip(behind, 0, _DIGITS)]
    numbers += fractions
    powers = behind - exponents
    good &= (powers <= _POWERS) & (powers >= -_POWERS)
    powers[~good] = 0
    exact = numbers.astype(numpy.longdouble)
    exact /= _powers()[numpy.maximum(powers, 0)]
    if (powers < 0).any():
        exact *= _powers()[numpy.maximum(-powers, 0)]
    values = exact.astype(numpy.float64)
    good &= ~_may_be_ties(exact, values)
    numpy.negative(values, out=values, where=negative)
    if b"n" in data:
        is_nan = (ends - starts == 3) & (text[starts] == _N) & (text[starts + 1] == _A) & (text[ends - 1] == _N)
        values[is_nan] = numpy.nan
        good |= is_nan
    return values, good


def _points(
    text: NDArray[uint8], firsts: NDArray[int64], stops: NDArray[int64]
) -> tuple[NDArray[int64], NDArray[int64]]:
    """Where the digits before the point of each value end, and how many are behind it: where there is none, 0, and
    fewer where it is in the exponent. Of several points in a field one counts, and the others are no digits."""
    import numpy

    seconds = firsts + 1  # mostly one digit is before the point
    if (text[seconds] == _POINT).all():
        return seconds, stops - seconds - 1
    points, whose = _within(numpy.flatnonzero(text == _POINT), firsts, stops)
    whole, behind = stops.copy(), numpy.zeros(len(stops), numpy.int64)
    whole[whose] = points
    behind[whose] = stops[whose] - points - 1
    return whole, behind


def _may_be_ties(exact: Any, values: NDArray[float64]) -> Any:
    """Which of the quotients are half-way between two doubles, or only look like that, as they are rounded."""
    import numpy

    if _has_64_bits():  # of which a double keeps all but the last eleven
        return exact.view(numpy.uint64)[::2] & 0x7FF == 0x400
    # Half a gap is a tie. Below a power of two the gap is half as wide.
    rounded, gap = numpy.abs(exact - values), numpy.spacing(values)
    return (rounded != 0) & ((rounded == gap / 2) | (rounded == gap / 4))


def _exponents(
    data: bytes, text: NDArray[uint8], starts: NDArray[int64], ends: NDArray[int64]
) -> tuple[NDArray[int64], NDArray[int64], NDArray[bool_]]:
    """The exponents of values, where the digits before them end, and which of them are ones."""
    import numpy

    exponents, stops, good = numpy.zeros(len(ends), numpy.int64), ends.copy(), numpy.ones(len(ends), bool)
    marks, whose = _within(_places_of(b"e", data, text), starts, ends)
    signs = text[marks + 1]  # a space is the last that follows
    widths = ends[whose] - marks - 1 - ((signs == _MINUS) | (signs == _PLUS))
    numbers, right = _digits(text, ends[whose], widths)
    exponents[whose] = numpy.where(signs == _MINUS, -numbers, numbers)
    stops[whose] = marks
    good[whose] = right & (widths > 0) & (widths <= 3)
    return exponents, stops, good


def _places_of(character: bytes, data: bytes, text: NDArray[uint8]) -> NDArray[int64]:
    """Where a character is; quicker than by NumPy where it is seldom."""
    import numpy

    count = data.count(character)
    if count > _SELDOM:
        return numpy.flatnonzero(text == ord(character))
    places, at = [], -1
    for _ in range(count):
        places.append(at := data.index(character, at + 1))
    return numpy.array(places, numpy.int64)


@cache
def _keep_memory() -> None:
    """Let the C library keep what is freed here for what follows. As it is set at first, it gives the memory of each
    array back to the system, and getting it again, page by page, takes as long as all computing. A large array that is
    freed changes that; this one is never touched."""
    bytearray(_LARGE)


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
