"""Lines of text with a terminal's escapes as a widget, of which only those that have changed are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

__all__ = ["Picture"]


class Picture(Widget):
    """As high as its parent leaves it. The texts in it must be harmless: `asynctrack.cli.terminal.clean`."""

    DEFAULT_CSS = "Picture { height: 1fr; width: 100%; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._strips: list[Strip] = []

    def show(self, lines: Sequence[str]) -> None:
        """Draw these lines instead."""
        before, self._lines = self._lines, list(lines)
        strips = self._strips + [Strip.blank(0)] * (len(lines) - len(before))
        changed = [at for at, line in enumerate(lines) if at >= len(before) or line != before[at]]
        for at in changed:
            text = Text.from_ansi(lines[at], no_wrap=True, end="")
            strips[at] = Strip(text.render(self.app.console))
        self._strips = strips[: len(lines)]
        changed += range(len(lines), len(before))
        if changed:
            self.refresh(*(Region(0, at, self.size.width, 1) for at in changed))

    def render_line(self, y: int) -> Strip:
        strip = self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width)
        return strip.adjust_cell_length(self.size.width)

    @property
    def text(self) -> str:
        """What is drawn, without colours."""
        return "\n".join(strip.text for strip in self._strips)
