"""Files as streams: in pieces, complete, and closed whatever happens, with a loop and without."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from asynctrack.engine.shipping import make_own_loop
from asynctrack.errors import UnavailableError
from asynctrack.stores.io import PIECE, StoreIO, ThreadedIO, deliver_here, delivers_here
from tests.artifact_clients import WAYS, run

DATA = os.urandom(2 * PIECE + 11)


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(DATA)
    return str(tmp_path / "file")


async def pieces_of(content: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """In the way that httpx reads it, which takes the one kind on a loop and the other elsewhere."""
    if isinstance(content, AsyncIterable):
        async for piece in content:
            yield piece
    else:
        for piece in content:
            yield piece


def open_files() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass  # the descriptor that listed the folder
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("offset", "length"), [(0, None), (0, len(DATA)), (5, 10), (PIECE - 1, PIECE + 2), (len(DATA), None), (7, 0)]
)
def test_a_part_of_a_file_comes_in_pieces_of_at_most_a_mebibyte(
    way: str, offset: int, length: int | None, path: str
) -> None:
    async def read(io: StoreIO) -> list[bytes]:
        async with io.stream(path, offset, length) as content:
            assert isinstance(content, AsyncIterable) == (way != "inline")
            return [piece async for piece in pieces_of(content)]

    pieces = run(way, read)
    assert b"".join(pieces) == DATA[offset : None if length is None else offset + length]
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    assert path not in open_files()


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_grows_is_streamed_up_to_the_length_that_was_announced(way: str, path: str) -> None:
    async def read(io: StoreIO) -> int:
        total = 0
        async with io.stream(path, 0, len(DATA)) as content:
            async for piece in pieces_of(content):
                total += len(piece)
                await io.call(Path(path).write_bytes, DATA + b"more")
        return total

    assert run(way, read) == len(DATA)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_becomes_shorter_is_an_error_in_the_stream(way: str, path: str) -> None:
    async def read(io: StoreIO) -> None:
        async with io.stream(path, 0, len(DATA)) as content:
            async for _ in pieces_of(content):
                os.truncate(path, PIECE)

    with pytest.raises(UnavailableError, match=rf"file became {len(DATA) - PIECE} bytes shorter"):
        run(way, read)
    assert path not in open_files()


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_left_in_the_middle_is_closed(way: str, path: str) -> None:
    async def read(io: StoreIO) -> None:
        async with io.stream(path) as content:
            if isinstance(content, AsyncIterable):
                await anext(aiter(content))
            else:
                next(iter(content))
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        run(way, read)
    assert path not in open_files()


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_not_there_is_an_os_error(way: str, path: str) -> None:
    async def read(io: StoreIO) -> None:
        async with io.stream(path + ".none"):
            raise AssertionError("opened")

    with pytest.raises(FileNotFoundError):
        run(way, read)


def marks_of_the_threads(delivers: bool) -> list[bool]:
    """Whether the two kinds of threads of a loop are marked as delivering, between two calls."""

    async def look() -> list[bool]:
        if delivers:
            deliver_here()
            make_own_loop()
        await ThreadedIO().call(int)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, asyncio.BaseEventLoop)
        await loop.run_in_executor(None, int)
        inside: list[bool] = []
        await ThreadedIO().call(lambda: inside.append(delivers_here()))
        assert inside == [True]
        # Past our own marking, as the pools themselves do when they hand over an outcome.
        mark = await anyio.to_thread.run_sync(delivers_here)
        return [mark, await asyncio.BaseEventLoop.run_in_executor(loop, None, delivers_here)]

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: anyio.run(look)).result()


def test_a_thread_of_a_loop_that_delivers_is_marked_between_two_calls_too() -> None:
    """The collector may call a destructor there, which ends a run: it must not wait for what this thread is to do."""
    assert marks_of_the_threads(delivers=True) == [True, True]


def test_a_thread_of_the_users_loop_is_marked_only_while_it_works_for_a_store() -> None:
    assert marks_of_the_threads(delivers=False) == [False, False]
