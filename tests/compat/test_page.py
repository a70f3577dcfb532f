"""The page in a real browser: the spike is on the canvas, a new point comes, and hands find their way."""

from __future__ import annotations

import re
from typing import Any

import pytest

import asynctrack
from tests.compat.browser import CHROMIUM, coloured, drawn, page_on
from tests.unit.ui.viewing import Writer, two_runs, viewer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: apt-get install chromium")


@pytest.fixture
def runs() -> list[str]:
    """The ids of the runs of `two_runs`."""
    return two_runs()


def test_a_spike_among_ten_thousand_points_is_on_the_canvas_and_zoom_is_kept(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), page_on(address, f"&runs={runs[0][:8]}") as page:
        drawn(page, "loss", "label.includes('max 1000')")
        high = coloured(page, "loss", 0.25)
        assert 1 <= len(high) <= 6, "the spike, and nothing else, is that high"
        assert 0.3 < high[0] <= high[-1] < 0.6
        box = page.locator('.card[data-key="loss"] .u-over').bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.42, box["y"] + 80)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 80, steps=5)
        page.mouse.up()
        drawn(page, "loss", "x[0] > 4000 && x[1] < 4700")
        assert re.search(r"[?&]from=[\d.]+&to=[\d.]+", page.url)
        page.wait_for_function("() => !document.querySelector('.card .notes').textContent.includes('min–max')")  # finer
        assert coloured(page, "loss", 0.25)
        page.reload()
        drawn(page, "loss", "x[0] > 4000 && x[1] < 4700")
        page.keyboard.press("Escape")
        drawn(page, "loss", "x[0] === 0 && x[1] === 9999")
        assert "from=" not in page.url


def test_a_point_that_is_logged_comes_to_the_screen_and_zoom_and_choice_stay() -> None:
    writer = Writer()
    try:
        for step in range(50):
            writer.log("loss", step, 1 + step / 100)
        with viewer("mlruns") as (address, _), page_on(address) as page:
            drawn(page, "loss", "x[1] >= 49")
            page.wait_for_selector(".health.good")
            assert "1 running" in page.inner_text(".health")
            writer.log("loss", 50, 77.0)
            drawn(page, "loss", "label.includes('last 77') && x[1] === 50")
            high = coloured(page, "loss", 0.2)
            assert high
            assert high[0] > 0.9, "the new point is at the right"
            zoomed = page.url.partition("?")[0] + "?from=10&to=20"
            page.goto(zoomed)
            drawn(page, "loss", "x[0] === 10 && x[1] === 20")
            writer.log("loss", 51, 88.0)
            drawn(page, "loss", "label.includes('last 88') && x[0] === 10 && x[1] === 20")
            assert page.url == zoomed
            writer.close()
            page.wait_for_function("() => !document.querySelector('.health').textContent.includes('running')")
    finally:
        writer.kill()


def test_everything_can_be_done_by_keys_and_the_address_holds_it(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), page_on(address) as page:
        drawn(page, "loss")
        keys = page.keyboard
        keys.press("?")
        assert "log y" in page.inner_text(".panel")
        keys.press("Escape")
        page.wait_for_selector(".panel", state="detached")
        keys.press("f")
        page.wait_for_function("() => document.activeElement.id === 'search'")
        keys.type("params.lr = '0.3'")
        page.wait_for_function("() => document.querySelectorAll('.rows tbody tr').length === 1")
        keys.press("Escape")
        keys.press("j")
        keys.press(" ")  # "odd" is not shown any more
        page.wait_for_function("() => document.querySelectorAll('.card').length === 1")
        keys.press("y")
        keys.press("s")
        keys.press("r")
        keys.press("d")
        keys.press("d")
        page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
        keys.press("/")
        keys.type("^lo")
        keys.press("Escape")
        keys.press("l")
        keys.press("t")
        page.wait_for_selector(".card .values td")
        query = page.url.partition("?")[2]
        for part in (f"runs={runs[0][:8]}", "ly=1", "s=0.3", "x=time", "k=%5Elo", "q=params.lr"):
            assert part in query
        page.reload()
        drawn(page, "loss")
        assert page.locator(".card").count() == 1
        assert page.locator(".toggle[aria-pressed=true]").count() == 1
        assert page.input_value("#search") == "params.lr = '0.3'"
        assert page.input_value("#x") == "time"
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"  # taste stays, too


def test_a_click_shows_the_values_of_a_step_and_compare_what_differs(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), page_on(address, f"&runs={runs[1][:8]}") as page:
        drawn(page, "val/acc")
        box = page.locator('.card[data-key="val/acc"] .u-over').bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        page.wait_for_selector(".panel td")
        assert "odd, step 2" in page.inner_text(".panel h2")
        assert [text.split() for text in page.locator(".panel tr").all_inner_texts()] == [
            ["loss", "-2"],
            ["val/acc", "0.2"],
        ]
        page.keyboard.press("Escape")
        page.keyboard.press("a")
        page.keyboard.press("c")
        page.wait_for_selector(".compare .differs")
        assert "lr" in page.inner_text(".compare .differs")
        assert page.locator(".compare .differs").count() == 1


def test_axes_change_while_the_page_is_open(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), page_on(address, f"&runs={runs[0][:8]}") as page:
        drawn(page, "loss", "x[0] === 0")
        for key, condition in (
            ("x", "x[0] === 1 && x[1] === 9999"),  # a logarithmic axis has no place for step 0
            ("y", "x[0] === 1"),
            ("r", "x[0] > 1e12"),
            ("r", "x[0] >= 0 && x[1] < 1e6"),
            ("x", "x[0] >= 0"),
            ("r", "x[0] === 0 && x[1] === 9999"),
        ):
            page.keyboard.press(key)
            drawn(page, "loss", condition)


def test_hostile_names_are_text(runs: list[str]) -> None:
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&'
    with asynctrack.start_run(run_name=evil) as run:
        run.log_params({"p": evil, "lr": "javascript:alert(1)"})
        run.set_tag("t", evil)
        run.log_metric("loss", 3, 1)
    asynctrack.shutdown()
    with viewer("mlruns") as (address, _), page_on(address) as page:
        drawn(page, "loss")
        assert evil in page.inner_text(".rows")
        page.keyboard.press("c")
        page.wait_for_selector(".compare .differs")
        assert evil in page.inner_text(".compare")
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.check("text=runs that have in common:")
        page.check('.names label:has-text("p") >> nth=0')
        drawn(page, "loss", "label.includes('onerror')")
        found: Any = page.evaluate("[window.hacked, document.querySelectorAll('img, #app script').length]")
        assert found == [None, 0]
