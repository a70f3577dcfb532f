"""The body of an answer, in bounded memory whatever a server sends: without an end, or a little that unpacks to a lot.

We ask for no compression, and unpack what comes compressed all the same, a piece at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Protocol

import httpx

from asynctrack.errors import UnavailableError
from asynctrack.stores.io import PIECE

__all__ = ["MOST_CHANGED", "MOST_FOUND", "MOST_READ", "Collector", "Saver", "Sink", "with_body"]

#: bytes of the answer to a change: nothing, mostly, or the run that was changed with its tags
MOST_CHANGED = 8 << 20
#: ... to a question about one thing: a run with all that it has logged, 25,000 points
MOST_READ = 64 << 20
#: ... to a search: 50,000 runs, if they are small
MOST_FOUND = 256 << 20
#: ... of an error: messages quote its beginning
_MOST_OF_AN_ERROR = 64 << 10
#: headers that say how a body came, which do not hold any more once it is unpacked
_OF_THE_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")


class Unpacker:
    """Undoes a body's ``Content-Encoding``, if it is one that a server may choose unasked (gzip, deflate).

    What comes in any other is left as it is.
    """

    def __init__(self, headers: httpx.Headers, what: str) -> None:
        """``what`` names the request, for messages."""
        self._what = what
        encoding = headers.get("content-encoding", "").strip().lower()
        packed = encoding in ("gzip", "x-gzip", "deflate")
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
        self._begun = False

    def unpack(self, raw: bytes) -> Iterator[bytes]:
        """Pieces of at most 1 MiB. Raises `UnavailableError` for what cannot be unpacked."""
        if self._zlib is None:
            yield raw
            return
        self._begun = self._begun or bool(raw)
        while raw and not self._zlib.eof:
            try:
                piece = self._zlib.decompress(raw, PIECE)
            except zlib.error as error:
                raise _unreadable(self._what, f"is not what its Content-Encoding says: {error}") from None
            raw = self._zlib.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        """Raise `UnavailableError` where the end is missing."""
        if self._zlib is not None and self._begun and not self._zlib.eof:
            raise _unreadable(self._what, "is compressed and lacks its end")


class Sink(Protocol):
    """Where the body of an answer goes."""

    #: whether it writes to a disk, which an event loop must not wait for
    blocks: bool

    def take(self, raw: bytes) -> bool:
        """Add what has come; False when no more is wanted. Raises `UnavailableError`, OSError."""

    def finish(self) -> bytes:
        """All has come, or enough: what is kept in memory. Raises `UnavailableError` where that is not a whole body."""

    def close(self) -> None:
        """Let go of it, also in the middle."""


class Collector:
    """Keeps a body in memory: all of it, if it has at most ``most`` bytes, or the beginning of an error's."""

    blocks = False

    def __init__(self, response: httpx.Response, most: int, what: str) -> None:
        """``what`` names the request, for messages."""
        self._success = response.is_success
        self._most = most if self._success else _MOST_OF_AN_ERROR
        self._what = what
        self._unpacker = Unpacker(response.headers, what)
        self._data = bytearray()
        self._came = 0
        self._full = False

    def take(self, raw: bytes) -> bool:
        self._came += len(raw)
        self._full = self._came > self._most  # there are bytes that unpack to nothing
        try:
            for piece in self._unpacker.unpack(raw):
                room = self._most - len(self._data)
                self._data += piece[:room]
                if len(piece) > room:
                    self._full = True
                    break
        except UnavailableError:
            if self._success:
                raise
            self._full = True  # of an error the status says enough
        return not self._full

    def finish(self) -> bytes:
        if self._success:
            if self._full:
                problem = f"is longer than {self._most >> 20} MiB, so it was not read; ask for fewer results at a time"
                raise _unreadable(self._what, problem)
            self._unpacker.finish()
        return bytes(self._data)

    def close(self) -> None:
        pass


class Saver:
    """Writes a body into the new file ``path``."""

    blocks = True

    def __init__(self, response: httpx.Response, path: str, what: str) -> None:
        self._path = path
        self._unpacker = Unpacker(response.headers, what)
        self._file: IO[bytes] | None = None

    def take(self, raw: bytes) -> bool:
        if self._file is None:
            self._file = open(self._path, "xb")  # noqa: SIM115  # `close` closes it
        for piece in self._unpacker.unpack(raw):
            self._file.write(piece)
        return True

    def finish(self) -> bytes:
        self._unpacker.finish()
        self.take(b"")
        self.close()
        return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def with_body(response: httpx.Response, body: bytes, request: httpx.Request) -> httpx.Response:
    """An answer whose head has come, with the body that was read of it."""
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_BODY]
    return httpx.Response(response.status_code, headers=headers, content=body, request=request)


def _unreadable(what: str, problem: str) -> UnavailableError:
    failure = UnavailableError(f"{what}: the answer {problem}")
    failure.ambiguous = True
    return failure
