"""The page in a real browser: the spike is on the canvas, hands find their way, and what it exports works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import asynctrack
from tests.compat.browser import CHROMIUM, coloured, drawn, page_on
from tests.unit.ui.viewing import two_runs, viewer

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
        keys.type("params.lr = '0.")
        page.wait_for_selector(".find .warn")  # half of it is no filter, and no error of the browser
        keys.type("3'")
        page.wait_for_selector(".find .warn", state="detached")
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
        page.wait_for_selector(".panel", state="detached")  # which gives the focus back to where it was
        page.locator('.card[data-key="loss"]').focus()
        page.keyboard.press("t")
        page.wait_for_selector(".values td")
        assert page.locator(".values td").all_inner_texts()[1::2] == ["1", "NaN", "-2", "∞", "0.5"]
        page.keyboard.press("a")
        page.keyboard.press("c")
        page.wait_for_selector(".compare .differs")
        assert "lr" in page.inner_text(".compare .differs")
        assert page.locator(".compare .differs").count() == 1


def test_axes_change_while_the_page_is_open(runs: list[str]) -> None:
    typed = f"&runs={runs[0][:8]}&c=lr&c=loss:min"  # the first is no column
    with viewer("mlruns") as (address, _), page_on(address, typed) as page:
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


def test_a_chart_has_axes_of_its_own_and_no_spike_disappears_silently(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), page_on(address, f"&runs={runs[0][:8]}&k=loss") as page:
        drawn(page, "loss", "y[1] > 1000")
        page.keyboard.press("o")
        drawn(page, "loss", "y[1] < 1")
        notes = page.inner_text(".card .notes")
        assert "outside, up to 1000" in notes
        assert any(0.3 < at < 0.6 for at in coloured(page, "loss", 0.1)), "the spike is marked at the top"
        page.keyboard.press("o")
        drawn(page, "loss", "y[1] > 1000")
        box = page.locator(".card .u-over").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] * 0.7, steps=5)
        page.mouse.up()
        drawn(page, "loss", "y[0] > 200 && y[1] < 900 && x[1] === 9999")
        page.wait_for_function("() => document.querySelector('.card .notes').textContent.includes('10,000 outside')")
        page.locator(".card").focus()
        page.keyboard.press("p")
        page.wait_for_selector(".section h2:has-text('pinned')")
        page.keyboard.press("e")
        page.fill("#y-low", "-1")
        page.fill("#y-high", "3000")
        page.select_option(".panel select[aria-label='log y']", "1")
        page.keyboard.press("Escape")
        drawn(page, "loss", "y[0] > 0 && y[1] > 1000")  # a logarithmic axis cannot begin at -1
        page.reload()
        drawn(page, "loss", "y[0] > 0 && y[1] > 1000")
        assert page.locator(".section h2").all_inner_texts()[0].split() == ["▾", "pinned", "1"]
        assert "pin=loss" in page.url
        page.locator(".card").focus()
        page.keyboard.press("0")
        page.keyboard.press("]")
        page.wait_for_selector(".tip >> text=spiky")
        page.keyboard.press("Enter")
        page.wait_for_selector(".panel h2:has-text('step')")


def test_what_is_copied_from_a_chart_works(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), page_on(address, "&s=0.6&ly=1&from=10&to=2000") as page:
        drawn(page, "loss")
        page.locator('.card[data-key="loss"]').focus()
        page.keyboard.press("e")
        python = page.inner_text(".code[data-kind=Python]")
        shell = page.inner_text(".code[data-kind=shell]")
        with page.expect_download() as svg:
            page.click("text=SVG")
        with page.expect_download() as png:
            page.click("text=PNG")
        with page.expect_download() as table:
            page.click("text=CSV")
        assert svg.value.suggested_filename == "loss.svg"
        tree = ElementTree.parse(svg.value.path())  # the page has made it
        texts = {each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")}
        assert {"loss", "spiky", "odd"} <= texts
        assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) > 4
        assert png.value.path().read_bytes().startswith(b"\x89PNG")
        assert table.value.path().read_text().count("\n") == 10_006
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.check("text=runs that differ only in:")
        page.check(".names label:has-text('lr')")
        page.keyboard.press("Escape")
        page.wait_for_selector(".panel", state="detached")
        drawn(page, "loss", "label.includes('all runs (2)')")
        page.locator('.card[data-key="loss"]').focus()
        page.keyboard.press("e")
        grouped = page.inner_text(".code[data-kind=Python]")
    for text in (python, grouped):
        program = (
            f"{text.rpartition('history.plot')[0]}\nprint(history.plot(log_y=True))\nprint(len(history.to_pandas()))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "loss" in done.stdout
    assert 'mean_over(besides=["lr"])' in grouped
    assert "smooth(0.6)" in python
    assert "min_step=10, max_step=2000" in python
    command = shell.replace("asynctrack plot", f"{sys.executable} -m asynctrack plot", 1)
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert "loss" in done.stdout
    for part in ("--smooth 0.6", "--log-y", "--from=10", "--to=2000"):
        assert part in shell


def test_files_of_a_run_are_shown_and_notes_changed_where_that_is_allowed(tmp_path: Path) -> None:
    evil = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    (tmp_path / "pixel.gif").write_bytes(
        b"GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\0!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
    )
    with asynctrack.start_run(run_name="files") as run:
        run.log_metric("loss", 1.0, 0)
        run.log_artifact(str(tmp_path / "pixel.gif"), "images")
        run.log_text(evil, "page.html")
        run.set_tag("mlflow.note.content", evil)
    asynctrack.shutdown()
    with viewer("mlruns", "--edit") as (address, _), page_on(address) as page:
        drawn(page, "loss")
        page.keyboard.press("j")
        page.keyboard.press("i")
        page.click(".files >> text=images")
        page.click(".files >> text=pixel.gif")
        page.wait_for_function("() => document.querySelector('img.shown')?.naturalWidth === 1")
        page.click(".files >> text=page.html")
        page.wait_for_selector("pre.shown")
        assert page.inner_text("pre.shown") == evil
        assert page.input_value("#note") == evil
        page.fill("#note", "a note")
        page.click("#save-note")
        page.wait_for_selector("#save-note", state="detached")
        page.fill("#tag-key", "stage")
        page.fill("#tag-value", evil)
        page.keyboard.press("Enter")
        page.click("[aria-label='delete the tag stage'] >> visible=true")
        page.wait_for_selector("[aria-label='delete the tag stage']", state="detached")
        assert page.evaluate("window.hacked") is None
    assert asynctrack.get_run(run.run_id).data.tags["mlflow.note.content"] == "a note"


def test_a_run_that_was_taken_up_again_shows_both_takes() -> None:
    with asynctrack.start_run(run_name="again") as run:
        for step in range(0, 900, 10):
            run.log_metric("loss", 10.0 if step >= 500 else 1.0, step)
        for step in range(500, 1000, 10):
            run.log_metric("loss", 1.0, step)
    run_id = run.run_id
    asynctrack.shutdown()
    with viewer("mlruns") as (address, _), page_on(address, f"&runs={run_id[:8]}") as page:
        drawn(page, "loss", "label.includes('max 10') && x[1] === 990 && y[1] > 10")
        assert "taken up again at step 500" in page.inner_text(".card .notes")
        # The line of now is flat: what it replaced is above it, from step 500 to 890, and hangs on nothing below.
        high = coloured(page, "loss", 0.3)
        assert 0.5 < high[0] <= high[-1] < 0.92
        between = page.evaluate(
            """() => {
              const canvas = document.querySelector(".card canvas"), pen = canvas.getContext("2d");
              const { width, height } = canvas;
              const { data } = pen.getImageData(width * 0.2, height * 0.4, width * 0.75, height * 0.3);
              let found = 0;
              for (let i = 0; i < data.length; i += 4) {
                const [r, g, b, a] = data.slice(i, i + 4);
                if (a > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 30) found += 1;
              }
              return found;
            }"""
        )
        assert between == 0, "no zigzag"


def test_fingers_zoom_on_a_narrow_screen(runs: list[str]) -> None:
    with viewer("mlruns") as (address, _), page_on(address, f"&runs={runs[0][:8]}") as page:
        page.set_viewport_size({"width": 390, "height": 800})
        page.reload()
        drawn(page, "loss", "x[0] === 0 && x[1] === 9999")
        box = page.locator('.card[data-key="loss"] .u-over').bounding_box()
        assert box is not None
        session = page.context.new_cdp_session(page)
        session.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})

        def touch(kind: str, *shares: float) -> None:
            points = [
                {"x": box["x"] + box["width"] * share, "y": box["y"] + 100, "id": number}
                for number, share in enumerate(shares)
            ]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", 0.4)
        for share in (0.45, 0.5, 0.6):
            touch("touchMove", share)
        touch("touchEnd")
        drawn(page, "loss", "x[0] > 3800 && x[0] < 4200 && x[1] > 5800 && x[1] < 6200")
        touch("touchStart", 0.3, 0.7)
        for apart in (0.15, 0.1):
            touch("touchMove", 0.5 - apart, 0.5 + apart)
        touch("touchEnd")
        drawn(page, "loss", "x[0] > 2700 && x[0] < 3300 && x[1] > 6700 && x[1] < 7300")
        page.click("#reset")
        drawn(page, "loss", "x[0] === 0 && x[1] === 9999")
