"""Colours of the page: WCAG 2.1 AA in both modes, computed."""

from __future__ import annotations

import os
import re

import pytest

from asynctrack.ui import server

_STATIC = os.path.join(os.path.dirname(server.__file__), "static")


def _read(name: str) -> str:
    with open(os.path.join(_STATIC, name), encoding="utf-8") as file:
        return file.read()


def _themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root[^{]*\{([^}]*)\}", _read("style.css"))[:2]
    return {
        name: dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", text)) for name, text in (("light", light), ("dark", dark))
    }


def _lines() -> dict[str, list[str]]:
    text = _read("words.js")
    return {
        name.lower(): re.findall(r"#[0-9a-f]{6}", re.search(rf"const {name} = (\[.*?\])", text, re.S)[1])  # type: ignore[index]  # it is there
        for name in ("LIGHT", "DARK")
    }


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_defines_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_can_be_read(mode: str) -> None:
    colours = _themes()[mode]
    for text in ("ink", "quiet", "accent", "warn", "bad", "good"):
        for ground in ("paper", "side", "chosen"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_line_and_every_edge_of_a_control_can_be_seen(mode: str) -> None:
    colours = _themes()[mode]
    lines = _lines()[mode]
    assert len(set(lines)) == 8
    for colour in lines:
        assert contrast(colour, colours["paper"]) >= 3, colour
    assert contrast(colours["edge"], colours["paper"]) >= 3
    assert contrast(colours["accent"], colours["paper"]) >= 3  # what has the focus
