"""Makes docs/page.png, the picture in the README: the page over some real runs of examples/train_digits.py.

    python -m pip install -e '.[test]' && python docs/picture.py

Needs Chromium (apt-get install chromium). Takes a few minutes, most of them for training.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import asynctrack

HERE = Path(__file__).parent
TARGET = HERE / "page.png"
#: pixels of the window
WIDTH, HEIGHT = 1280, 780
#: what the runs differ in: units of the first hidden layer
HIDDEN = (16, 48, 128, 384)
#: what the page is asked to show, as in its address
QUERY = "&k=^(train|val)/(loss|accuracy)$&s=0.9&o=ly1:train/loss&o=ly1:val/loss&c=val/accuracy:max"
KEYS = 4


def main() -> None:
    """Train, look, and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "mlruns")
        for hidden in HIDDEN:
            options = ["--epochs", "60", "--hidden", str(hidden), "--tracking-uri", str(store)]
            subprocess.run([sys.executable, str(HERE.parent / "examples/train_digits.py"), *options], check=True)
        with asynctrack.view(store) as page:
            picture = seen(page.url + QUERY)
    picture.quantize(128).save(TARGET, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


def seen(address: str) -> Image.Image:
    """What a browser shows at an address, once all charts are drawn."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(address)
        page.wait_for_function(f"() => document.querySelectorAll('.card .canvas[data-x]').length === {KEYS}")
        data = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(data)).convert("RGB")


if __name__ == "__main__":
    main()
