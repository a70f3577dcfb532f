"""The page of ``asynctrack view`` in Chromium, for tests: what is drawn, and where."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.unit.ui.viewing import WAIT

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["CHROMIUM", "coloured", "drawn", "page_on"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: the columns of a chart, as shares of its width, in whose upper part a line is drawn: what is coloured, or dark, since
#: the colour of a run may be grey; the grid is light, and grey to 4 of 255, and the axis is left of where lines are.
#: Pale violet on a line of the grid is the palest there is: 48 of 255
_COLOURED = """([key, part]) => {
  const card = document.querySelector(`.card[data-key="${key}"]`);
  const canvas = card.querySelector("canvas"), left = card.querySelector(".u-over").offsetLeft;
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, Math.round(height * part));
  const columns = new Set();
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b, a] = data.slice(i, i + 4);
    const x = (i / 4) % width, most = Math.max(r, g, b);
    if (x > left && a > 100 && (most - Math.min(r, g, b) > 30 || most < 190)) columns.add(x / width);
  }
  return [...columns].sort((a, b) => a - b);
}"""


@contextmanager
def page_on(address: str, query: str = "") -> Iterator[Page]:
    """The page in a browser of its own. Whatever the browser complains about is an error."""
    # A loop of its own runs in this thread as long as it is open: nothing may be logged from here meanwhile.
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
        page = context.new_page()
        page.set_default_timeout(WAIT * 1000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(address + query)
        page.wait_for_selector("#search")  # what answers to the token leads on to the page
        yield page
        browser.close()
    assert complaints == [], complaints


def drawn(page: Page, key: str, condition: str = "true") -> None:
    """Wait until a chart is on the screen, and ``condition`` holds of its ``label``, ``x`` and ``y`` (from, to)."""
    page.wait_for_function(
        f"""key => {{
          const box = document.querySelector(`.card[data-key="${{key}}"] .canvas`);
          if (!box || !box.querySelector("canvas") || !box.dataset.x) return false;
          const label = box.getAttribute("aria-label");
          const [x, y] = [box.dataset.x, box.dataset.y].map((text) => text.split(" ").map(Number));
          return {condition};
        }}""",
        arg=key,
    )


def coloured(page: Page, key: str, part: float) -> list[float]:
    found: list[float] = page.evaluate(_COLOURED, [key, part])
    return found
