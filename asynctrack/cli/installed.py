"""Which packages are installed. importlib.metadata knows it, too, and takes longer than all the rest of a verb."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Package", "installed"]


class Package(NamedTuple):
    """One that is installed. ``folder``: with what its installer has noted."""

    version: str
    folder: str

    def read(self, name: str) -> str:
        """A text of that folder; "" where there is none."""
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""


def installed(path: Sequence[str] | None = None) -> dict[str, Package]:
    """The packages in the folders of a path (default: sys.path), by name in lower case with ``-`` in it; of two with
    one name that which is imported."""
    found: dict[str, Package] = {}
    for place in sys.path if path is None else path:
        try:
            entries = os.listdir(place or os.curdir)
        except OSError:
            continue  # a zip file, or a folder that was never made
        for entry in entries:
            stem, _, kind = entry.rpartition(".")
            if kind in ("dist-info", "egg-info"):
                # Neither name nor version has a - of its own there; behind them an egg has its Python's.
                name, _, rest = stem.partition("-")
                name = name.lower().replace("_", "-").replace(".", "-")
                found.setdefault(name, Package(rest.partition("-")[0], os.path.join(place, entry)))
    return found
