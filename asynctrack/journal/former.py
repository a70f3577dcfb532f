"""What the numbers of metrics stood for in a spool that is gone, for log calls that had looked them up before."""

from __future__ import annotations

from asynctrack.journal.measured import MeasuredOn

__all__ = ["FormerStreams"]


class FormerStreams:
    """Of one spool of this process, whose segments hold it. From there one comes to those of all later spools, and from
    nowhere to those of earlier ones: they go with the last log call that had begun in their time."""

    __slots__ = ("_keys", "next")

    def __init__(self) -> None:
        self._keys: dict[int, str | MeasuredOn] = {}
        #: of the spool that came next
        self.next: FormerStreams | None = None

    def take(self, streams: dict[str | MeasuredOn, int]) -> None:
        """Nobody is to find these numbers any more: empty ``streams``, and remember what they stood for."""
        self._keys.update({number: key for key, number in streams.items()})
        streams.clear()

    def key(self, number: int) -> str | MeasuredOn | None:
        """What a number stood for; None where it was not given up, or not by what only rests."""
        here: FormerStreams | None = self
        while here is not None:
            if number in here._keys:
                return here._keys[number]
            here = here.next
        return None
