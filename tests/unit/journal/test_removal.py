"""A spool is deleted in one place, and only when every segment in it is accounted for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from asynctrack.errors import SpoolError
from asynctrack.journal.homes import find_orphans
from asynctrack.journal.refusals import RefusalLog
from asynctrack.journal.removal import NOTHING, Account, SpoolRemoval
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from tests.journals import files_of


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Two segments, one of them with something in it, and all else that a spool has."""
    folder = tmp_path / "spool"
    folder.mkdir()
    for number in (1, 2):
        segment = Segment.create(str(folder / f"{number:06d}.slots"), number * 4, 4)
        if number == 1:
            segment.void(segment.claim())
        segment.close()
    for name in ("owner", "registry", "cursor", "000001.frames", "shipper.log"):
        (folder / name).write_bytes(b"x")
    return folder


def remove(spool: Path, account: Account) -> None:
    SpoolRemoval(str(spool), RefusalLog(str(spool))).carry_out(account)


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (NOTHING, "000001.slots has not been read to its end"),
        (Account(read=frozenset({"000002.slots"})), "000001.slots has not been read to its end"),
        (Account(frozenset({"000001.slots"}), unreadable=("Too many open files: 7.slots",)), "Too many open files"),
    ],
)
def test_a_spool_whose_account_does_not_close_stays_as_it_is(spool: Path, account: Account, reason: str) -> None:
    """To the last file; and whoever wanted it deleted is told why not."""
    before = files_of(spool)
    with pytest.raises(SpoolError, match=reason):
        remove(spool, account)
    assert files_of(spool) == before


@pytest.mark.parametrize(
    "account", [Account(read=frozenset({"000001.slots"})), Account(frozenset(), frozenset({"000001.slots"}))]
)
def test_a_spool_is_deleted_when_each_segment_is_read_or_reported_or_was_never_used(
    spool: Path, account: Account
) -> None:
    """And nothing of it stays."""
    remove(spool, account)
    assert not spool.exists()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_segment_that_cannot_be_looked_at_now_is_not_one_that_was_never_used(
    code: int, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays, with all the others."""
    opened = os.open

    def no(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("000002.slots"):
            raise OSError(code, os.strerror(code), path)
        return opened(path, *rest, **more)

    before = files_of(spool)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no)
        with pytest.raises(SpoolError, match=os.strerror(code)):
            remove(spool, Account(frozenset({"000001.slots"})))
    assert files_of(spool) == before


def test_a_segment_that_came_while_the_account_was_drawn_up_keeps_the_spool(spool: Path) -> None:
    """The folder is listed again at the end."""
    segment = Segment.create(str(spool / "000003.slots"), 12, 4)
    segment.void(segment.claim())
    segment.close()
    with pytest.raises(SpoolError, match=r"000003\.slots"):
        remove(spool, Account(frozenset({"000001.slots", "000002.slots"})))
    assert (spool / "000003.slots").exists()


def test_a_link_in_the_place_of_the_artifacts_is_not_followed(spool: Path, tmp_path: Path) -> None:
    """What is deleted is in the spool."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (spool / "artifacts").symlink_to(elsewhere)
    with pytest.raises(OSError, match="not empty"):
        remove(spool, Account(frozenset({"000001.slots"})))
    assert (elsewhere / "precious").exists()


def test_a_program_killed_in_the_middle_of_it_leaves_a_folder_that_the_next_one_clears_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = str(tmp_path / "spools")
    for step in ("unlink", "rmdir"):
        mine = Spool.create(home, "file:///x")
        real = getattr(os, step)

        def dies(path: str, real: Any = real) -> None:
            if ".deleted" in path:
                raise KeyboardInterrupt
            real(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, step, dies)
            with pytest.raises(KeyboardInterrupt):
                mine.remove()
        assert os.listdir(home) != [".gitignore"]
        assert list(find_orphans(home, "file:///x")) == []
        assert os.listdir(home) == [".gitignore"]
