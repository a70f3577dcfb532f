"""What a log call's arguments become."""

from __future__ import annotations

import decimal
import fractions
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.errors import InvalidInputError
from asynctrack.values import flatten, shortened, to_float, to_step, to_text, to_timestamp


class Tensor:
    """Behaves like a tensor of some shape."""

    def __init__(self, *items: float, ndim: int = 1) -> None:
        self.items, self.ndim = items, ndim

    def item(self) -> float:
        if len(self.items) != 1:
            raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")
        return self.items[0]

    def __float__(self) -> float:
        return self.item()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0), (True, 1.0), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (np.bool_(True), 1.0),
        (np.array(2.5), 2.5), (np.array([2.5]), 2.5), (np.array([[2.5]]), 2.5),
        (decimal.Decimal("0.1"), 0.1), (fractions.Fraction(1, 4), 0.25),
        (Tensor(7.0), 7.0), (Tensor(7.0, ndim=0), 7.0), (math.inf, math.inf), (-math.inf, -math.inf),
    ],
)  # fmt: skip
def test_whatever_is_one_number_is_a_value(value: Any, expected: float) -> None:
    """Python, NumPy, Decimal and tensor scalars, and one-element arrays, become exactly that float."""
    assert type(to_float("loss", value)) is float
    assert to_float("loss", value) == expected


@pytest.mark.parametrize(
    "value",
    ["abc", "1.5", b"1", None, [], [1.0], {}, (1,), object(), 1j, np.array([1.0, 2.0]), Tensor(1.0, 2.0), 10**400],
)
def test_anything_else_is_refused_by_name(value: Any) -> None:
    """Text (even of digits), None, containers, 2-element arrays, numbers too large: an error naming key and value."""
    with pytest.raises(InvalidInputError, match="'loss'") as caught:
        to_float("loss", value)
    assert shortened(value) in str(caught.value)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_64_bit_integer_is_a_step(step: int) -> None:
    """Steps are kept exactly, NumPy's too."""
    assert to_step("loss", step) == step
    assert to_step("loss", np.int64(step)) == step


@pytest.mark.parametrize("step", [1.5, "1", 1 << 63, -(1 << 63) - 1, math.nan, math.inf, [1]])
def test_other_steps_are_refused(step: Any) -> None:
    """Fractions, text and what does not fit 64 bits."""
    with pytest.raises(InvalidInputError, match="step="):
        to_step("loss", step)


def test_a_whole_float_is_a_step() -> None:
    """3.0 means 3: a step that went through NumPy or JSON."""
    assert to_step("loss", 3.0) == 3


@pytest.mark.parametrize("timestamp", [-1, 1.5, "now", 1 << 63])
def test_timestamps_are_milliseconds(timestamp: Any) -> None:
    """Negative, fractional and oversized timestamps are refused here; a server would silently store 0 (or refuse)."""
    with pytest.raises(InvalidInputError, match="timestamp="):
        to_timestamp("loss", timestamp)


def test_text_keeps_what_can_be_encoded() -> None:
    """A lone surrogate, which no file or server can hold, is replaced; all else stays."""
    assert to_text("param", "k", "a\ud800b é 日本\n") == "a?b é 日本\n"
    assert to_text("param", "k", None) == "None"


def test_a_value_whose_str_fails_is_named() -> None:
    """An object that cannot be shown is an error about the param, not about the object."""

    class Broken:
        def __str__(self) -> str:
            raise OSError("no")

        __repr__ = __str__

    with pytest.raises(InvalidInputError, match="param 'k'"):
        to_text("param", "k", Broken())
    assert "Broken" in shortened(Broken())


def test_nested_dictionaries_are_joined_with_dots() -> None:
    """Empty dictionaries stay values; the keys of inner ones become text."""
    nested = {"a": {"b": {"c": 1}, 2: 2}, "e": {}}
    assert dict(flatten(nested)) == {"a.b.c": 1, "a.2": 2, "e": {}}
    with pytest.raises(InvalidInputError, match="dictionary"):
        dict(flatten([("a", 1)]))  # type: ignore[arg-type]  # the mistake under test


def test_a_dictionary_within_itself_is_refused() -> None:
    """At any depth; one that stands in two places is none."""
    inner: dict[str, object] = {"a": 1}
    assert dict(flatten({"x": inner, "y": {"z": inner}})) == {"x.a": 1, "y.z.a": 1}
    inner["b"] = {"c": inner}
    with pytest.raises(InvalidInputError, match=r"'x\.b\.c': the dictionary contains itself"):
        dict(flatten({"x": inner}))
