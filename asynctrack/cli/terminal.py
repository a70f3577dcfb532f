"""What the command knows of the terminal that it writes to: colour, width, pager; and text made harmless for it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from asynctrack.markup import clean

__all__ = ["Terminal", "cell_width", "clean", "cut", "pad", "page"]

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def cell_width(text: str) -> int:
    """The columns that a text takes on a terminal; our own colours take none."""
    text = _ESCAPE.sub("", text) if "\x1b" in text else text
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def cut(text: str, width: int, more: str = "…") -> str:
    """The text, or as much of it as fits with ``more`` behind it. It holds no colours."""
    if cell_width(text) <= width:
        return text
    room, kept = width - len(more), ""
    for character in text:
        room -= cell_width(character)
        if room < 0:
            break
        kept += character
    return kept + more[: max(width, 0)]


def pad(text: str, width: int, right: bool = False) -> str:
    """The text, filled with blanks up to the width."""
    blanks = " " * (width - cell_width(text))
    return blanks + text if right else text + blanks


class Terminal:
    """Where standard output goes. Look at it once a call: the window may have changed."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self.interactive = _is_terminal(sys.stdout)
        dumb = environment.get("TERM") == "dumb"
        self.colour = (
            not environment.get("NO_COLOR")
            and (bool(environment.get("FORCE_COLOR")) or (self.interactive and not dumb))
        )  # fmt: skip
        self.pages = self.interactive and not dumb
        self.redraws = self.interactive and not dumb
        #: whether more than ASCII is understood there; Linux's console has no Braille in its font
        self.unicode = _says_utf8(environment) and environment.get("TERM") != "linux"
        columns, lines = _size(environment)
        self.width, self.height = max(columns, 20), max(lines, 4)

    def style(self, text: str, *names: str) -> str:
        """The text in bold, dim or a colour, where that is wanted."""
        if not self.colour or not names or not text:
            return text
        return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"

    @property
    def more(self) -> str:
        """What stands for what was cut off."""
        return "…" if self.unicode else "~"


def _size(environment: Mapping[str, str]) -> tuple[int, int]:
    """Columns and lines, as `shutil.get_terminal_size` has them: from COLUMNS and LINES, else the window's."""
    given = [environment.get(name, "") for name in ("COLUMNS", "LINES")]
    columns, lines = (int(each) if each.isdecimal() else 0 for each in given)
    if columns <= 0 or lines <= 0:
        try:
            window = os.get_terminal_size(sys.__stdout__.fileno())  # type: ignore[union-attr]  # or it is caught
        except (AttributeError, ValueError, OSError):
            return columns or 80, lines or 24
        return columns or window.columns or 80, lines or window.lines or 24
    return columns, lines


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # None under pythonw, closed under some tests
    except (AttributeError, ValueError):
        return False


def _says_utf8(environment: Mapping[str, str]) -> bool:
    named = next((environment[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(name)), "")
    return "utf-8" in named.lower() or "utf8" in named.lower()


def page(text: str, terminal: Terminal, wanted: bool = True) -> None:
    """Write the text to standard output; on a terminal where it is longer than the screen, through the pager."""
    if wanted and terminal.pages and text.count("\n") >= terminal.height and _paged(text):
        return
    sys.stdout.write(text)
    sys.stdout.flush()


def _paged(text: str) -> bool:
    """Whether there is a pager that has shown it."""
    command = os.environ.get("PAGER", "less")
    if not command.strip() or command.strip() == "cat":
        return False
    import shlex
    import subprocess

    environment = {"LESS": "FRX", **os.environ}  # for less alone, and who has set it wants it so
    try:
        pager = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, env=environment, text=True, errors="backslashreplace"
        )
    except (OSError, ValueError):
        return False  # there is no such program, or it is no command
    try:
        pager.communicate(text)
    except KeyboardInterrupt:
        pager.wait()  # it is the pager's: less goes on after it
    return pager.returncode == 0 or bool(text and pager.returncode != 127)
