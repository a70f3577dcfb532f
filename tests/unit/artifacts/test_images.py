"""Images become the files that MLflow's log_image makes of them."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import numpy
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.artifacts.images import image_content, stepped_image_contents
from asynctrack.errors import InvalidInputError
from tests.artifact_clients import made_by_mlflow

NAME = re.compile(r"images/val~cat 1\+step\+7\+timestamp\+1234\+[0-9a-f-]{36}(\+compressed\.webp|\.png)")


def opened(data: bytes) -> PIL.Image.Image:
    image = PIL.Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize(
    "image",
    [
        numpy.eye(3, dtype=bool),
        numpy.arange(12, dtype=numpy.int64).reshape(3, 4),
        numpy.linspace(0, 1, 12).reshape(3, 4, 1),
        numpy.full((2, 2, 3), 200, dtype=numpy.uint8),
        numpy.full((2, 2, 4), 0.5, dtype=numpy.float32),
        PIL.Image.new("RGB", (3, 2), "red"),
    ],
)
def test_an_image_is_stored_byte_for_byte_as_mlflow_stores_it(image: Any) -> None:
    theirs = made_by_mlflow("log_image", image, "a/image.png")
    assert [image_content(image, "a/image.png")] == list(theirs.items())


def test_an_image_with_a_key_is_named_as_mlflow_s_ui_expects_with_a_small_copy_beside_it() -> None:
    image = numpy.zeros((600, 300, 3), dtype=numpy.uint8)
    full, small = stepped_image_contents(image, "val/cat 1", 7, 1234)
    assert NAME.fullmatch(full.artifact_file)
    assert NAME.fullmatch(small.artifact_file)
    assert small.artifact_file == full.artifact_file.removesuffix(".png") + "+compressed.webp"
    assert (opened(full.data).format, opened(full.data).size) == ("PNG", (300, 600))
    assert (opened(small.data).format, opened(small.data).size) == ("WEBP", (128, 256))


def test_the_time_of_an_image_is_now_unless_it_is_given() -> None:
    import time

    before = time.time_ns() // 1_000_000
    found = re.search(r"\+step\+0\+timestamp\+(\d+)\+", stepped_image_contents(numpy.eye(2), "k")[0].artifact_file)
    assert found
    assert before <= int(found[1]) <= time.time_ns() // 1_000_000


def test_a_very_long_image_has_a_small_copy_too() -> None:
    _, small = stepped_image_contents(numpy.zeros((1, 5000), dtype=numpy.uint8), "k")
    assert opened(small.data).size == (256, 1)


@pytest.mark.parametrize("key", ["a:b", "ü", "", "../x\0", None])
def test_a_key_that_mlflow_refuses_is_refused(key: Any) -> None:
    with pytest.raises(InvalidInputError, match="image key"):
        stepped_image_contents(numpy.eye(2), key)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (numpy.array([[-1, 2]]), "0 to 255, these are -1 to 2"),
        (numpy.array([[1, 256]]), "0 to 255, these are 1 to 256"),
        (numpy.array([[0.5, float("nan")]]), "NaN or infinite"),
        (numpy.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (numpy.zeros(4), r"shape \(4,\)"),
        (numpy.zeros((0, 4)), r"shape \(0, 4\)"),
        (numpy.array([["a"]]), "no image"),
        ([[1, 2]], "list is no image"),
        ("cat.png", "str is no image"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(image: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'a.png': .*{reason}"):
        image_content(image, "a.png")


def test_floats_out_of_range_are_scaled_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"these are -1\.0 to 3\.0; they are scaled"):
        data = image_content(numpy.array([[-1.0, 1.0, 3.0]]), "a.png").data
    assert list(opened(data).tobytes()) == [0, 127, 255]
    with pytest.warns(UserWarning, match="scaled"):
        data = image_content(numpy.full((1, 2), 5.0), "a.png").data
    assert list(opened(data).tobytes()) == [0, 0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_float_pixels_keep_their_brightness(row: list[float]) -> None:
    data = image_content(numpy.array([row]), "a.png").data
    assert all(abs(pixel / 255 - value) <= 1 / 255 for pixel, value in zip(opened(data).tobytes(), row, strict=True))


@pytest.mark.parametrize("name", ["a.docx", "a", "a.jpg"])
def test_a_format_that_cannot_hold_the_image_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"image '{name}'"):
        image_content(PIL.Image.new("RGBA", (2, 2)), name)


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIL", "PIL.Image", "PIL.features"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInputError, match=r"pip install 'asynctrack\[images\]'"):
        image_content(numpy.eye(2), "a.png")
    with pytest.raises(InvalidInputError, match=r"pip install 'asynctrack\[images\]'"):
        stepped_image_contents(numpy.eye(2), "key")
