"""What a log call's arguments become."""

from __future__ import annotations

import decimal
import fractions
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asynctrack
from asynctrack.errors import InvalidInputError
from asynctrack.values import shortened, to_float, to_step, to_text, to_timestamp


class Tensor:
    """Behaves like a tensor of some shape."""

    def __init__(self, *items: complex, ndim: int = 1) -> None:
        self.items, self.ndim = items, ndim

    def item(self) -> complex:
        if len(self.items) != 1:
            raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")
        return self.items[0]

    def __float__(self) -> float:
        return float(self.item().real)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0), (True, 1.0), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (np.bool_(True), 1.0),
        (np.array(2.5), 2.5), (np.array([2.5]), 2.5), (np.array([[2.5]]), 2.5),
        (decimal.Decimal("0.1"), 0.1), (fractions.Fraction(1, 4), 0.25),
        ("0.5", 0.5), (" 1e3 ", 1000.0), ("-inf", -math.inf), (b"2", 2.0),
        (Tensor(7.0), 7.0), (Tensor(7.0, ndim=0), 7.0), (Tensor(7.0 + 0j), 7.0),
        (1 + 0j, 1.0), (np.complex64(2), 2.0), (np.array([2 + 0j]), 2.0), (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.ma.array(2.5, mask=False), 2.5), (np.str_("0.5"), 0.5), (math.inf, math.inf), (-math.inf, -math.inf),
    ],
)  # fmt: skip
def test_whatever_is_one_number_is_a_value(value: Any, expected: float) -> None:
    """Python, NumPy, Decimal and tensor scalars, one-element arrays, and texts of numbers, as in MLflow, become exactly
    that float."""
    assert type(to_float("loss", value)) is float
    assert to_float("loss", value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        "",
        "0x10",
        "1,5",
        b"abc",
        None,
        [],
        [1.0],
        {},
        (1,),
        object(),
        1j,
        np.complex64(1 + 2j),
        np.array([1 + 2j]),
        Tensor(1 + 2j),
        np.ma.masked,
        np.ma.array(5.0, mask=True),
        np.ma.array([5.0], mask=[True]),
        np.array([1.0, 2.0]),
        np.array([]),
        Tensor(1.0, 2.0),
        10**400,
    ],
)
def test_anything_else_is_refused_by_name(value: Any) -> None:
    """Text (even of digits), None, containers, 2-element arrays, numbers too large: an error naming key and value."""
    with pytest.raises(InvalidInputError, match="'loss'") as caught:
        to_float("loss", value)
    assert shortened(value) in str(caught.value)


def test_the_message_says_of_what_type_and_shape_it_is() -> None:
    with pytest.raises(InvalidInputError, match=r"\(numpy\.ndarray of shape \(2, 1\)\) is not one number"):
        to_float("loss", np.array([[1.0], [2.0]]))
    with pytest.raises(InvalidInputError, match=r"\(builtins\.list\) is not a number"):
        to_float("loss", [1.0])


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_64_bit_integer_is_a_step(step: int) -> None:
    """Steps are kept exactly, NumPy's too."""
    assert to_step("loss", step) == step
    assert to_step("loss", np.int64(step)) == step


@pytest.mark.parametrize(
    "step",
    [
        1.5, "1", b"1", 1 << 63, -(1 << 63) - 1, math.nan, math.inf, [1], None, np.float32(1.5), np.float32(math.nan),
        np.array([1, 2]), 1 + 0j, np.ma.masked, np.ma.array(5, mask=True), decimal.Decimal("1.5"), 1e30,
    ],
)  # fmt: skip
def test_other_steps_are_refused(step: Any) -> None:
    """Fractions, text and what does not fit 64 bits."""
    with pytest.raises(InvalidInputError, match="step="):
        to_step("loss", step)


@pytest.mark.parametrize(
    "step",
    [
        3, 3.0, True + 2, np.float32(3), np.float64(3), np.int8(3), np.uint64(3), np.array(3), np.array([3]),
        np.array([3.0]), decimal.Decimal(3), fractions.Fraction(3), Tensor(3.0), np.ma.array(3, mask=False),
    ],
)  # fmt: skip
def test_whatever_is_a_whole_number_is_a_step(step: Any) -> None:
    """3.0 means 3: a step that went through NumPy or JSON."""
    assert to_step("loss", step) == 3
    assert type(to_step("loss", step)) is int


def test_whole_numbers_are_exact() -> None:
    """Not by way of a float."""
    assert to_step("loss", decimal.Decimal(2**62 + 1)) == 2**62 + 1
    assert to_step("loss", np.uint64(2**62 + 1)) == 2**62 + 1


def test_the_number_types_of_machine_learning() -> None:
    dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 and float8 for NumPy: pip install ml_dtypes")
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"):
        number = getattr(dtypes, name)(2)
        for value in (number, np.array(number), np.array([number])):
            assert to_float("loss", value) == 2.0
            assert to_step("loss", value) == 2


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for dtype in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float64, torch.int8, torch.bool):
        for shape in ((), (1,), (1, 1)):
            assert to_float("loss", torch.ones(shape).to(dtype)) == 1.0
            assert to_step("loss", torch.ones(shape).to(dtype)) == 1
    assert to_float("loss", torch.tensor(0.5, requires_grad=True)) == 0.5
    assert to_float("loss", torch.nn.Parameter(torch.tensor([0.5]))) == 0.5
    assert to_float("loss", torch.tensor(2 + 0j)) == 2.0
    for wrong in (torch.tensor(1 + 2j), torch.ones(2), torch.ones(0), torch.ones((), device="meta")):
        with pytest.raises(InvalidInputError, match=r"torch\.Tensor of shape"):
            to_float("loss", wrong)
        with pytest.raises(InvalidInputError, match=r"torch\.Tensor of shape"):
            to_step("loss", wrong)
    with pytest.raises(InvalidInputError):
        to_step("loss", torch.tensor(1.5))


JAX = """
import jax, pytest
from asynctrack.errors import InvalidInputError
from asynctrack.values import to_float, to_step
for value in (jax.numpy.float32(0.5), jax.numpy.array([0.5]), jax.numpy.array(0.5, "bfloat16")):
    assert to_float("loss", value) == 0.5
for value in (jax.numpy.int32(3), jax.numpy.array([3]), jax.numpy.float32(3)):
    assert to_step("loss", value) == 3
for wrong in (jax.numpy.array(1 + 2j), jax.numpy.array([1.0, 2.0])):
    with pytest.raises(InvalidInputError):
        to_float("loss", wrong)
"""


def test_arrays_of_jax() -> None:
    """In a process of its own: where JAX is loaded, it warns at every fork, of other tests too."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    package = str(Path(asynctrack.__file__).parents[1])
    subprocess.run([sys.executable, "-c", JAX], check=True, env={**os.environ, "PYTHONPATH": package})


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
