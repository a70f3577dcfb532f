"""What dead programs have left in a folder of spools: had one by one, whatever is wrong with a neighbour."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrack.journal import owner as owner_module
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.homes import find_orphans
from asynctrack.journal.locks import SpoolLock
from asynctrack.journal.owner import Owner
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool

STORE = "file:///data/mlruns"


@pytest.fixture
def left(tmp_path: Path) -> list[str]:
    """Three spools of dead programs, the oldest first."""
    spools = [Spool.create(str(tmp_path / "home"), STORE) for _ in range(3)]
    for spool in spools:
        spool.leave()
    return [str(spool.path) for spool in sorted(spools, key=lambda spool: (spool.owner.created, spool.path))]


def orphans(left: list[str]) -> list[str]:
    found = []
    for spool in find_orphans(os.path.dirname(left[0]), STORE):
        found.append(str(spool.path))
        spool.leave()
    return found


def test_the_oldest_comes_first_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that takes up the run of an earlier one may have a name that sorts before that one's; what the earlier
    has left is delivered first, however many spools there are."""
    home = tmp_path / "home"
    paths = []
    for number in range(40):
        monkeypatch.setattr(time, "time_ns", lambda at=number: (1000 + at) * 1_000_000)
        spool = Spool.create(str(home), STORE)
        assert spool.path is not None
        spool.leave()
        name = home / f"host-{99 - number}-00"  # as that of a program with a lower process id
        Path(spool.path).rename(name)
        paths.append(str(name))
    assert orphans(paths) == paths


@pytest.mark.parametrize("code", [errno.EPERM, errno.EIO, errno.EMFILE, errno.ENOLCK, errno.ESTALE])
@pytest.mark.parametrize("at", ["open", "made"])
def test_a_neighbour_s_spool_that_cannot_be_had_costs_nobody_else_anything(
    at: str, code: int, left: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, it stays as it is, and the others are delivered; when it can be had, it is."""
    bad = left[1]
    opened, made = SpoolLock.open, Owner.made

    def no(path: str) -> None:
        if path == bad:
            raise OSError(code, os.strerror(code), path)

    def failing_open(folder: str, parts: tuple[int, ...]) -> SpoolLock | None:
        no(folder)
        return opened(folder, parts)

    def failing_made(owner: Owner, path: str) -> bool:
        no(path)
        return made(owner, path)

    with monkeypatch.context() as patch:
        if at == "open":
            patch.setattr(SpoolLock, "open", failing_open)
        else:
            patch.setattr(Owner, "made", failing_made)
        for _ in range(3):
            assert orphans(left) == [left[0], left[2]]
        (record,) = caplog.records
        assert bad in record.message
        assert os.strerror(code) in record.message
    assert orphans(left) == left


def test_one_whose_owner_file_is_lost_is_named_with_what_to_do(
    left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A program that starts beside it says so, once."""
    os.unlink(os.path.join(left[1], "owner"))
    Segment.create(os.path.join(left[1], "000001.slots"), 0, 4).close()
    for _ in range(3):
        assert orphans(left) == [left[0], left[2]]
    (record,) = caplog.records
    assert left[1] in record.message
    assert "its owner file is missing" in record.message


# ── whose they are


def change_mode(path: Path) -> None:
    path.chmod(0o777)


def change_mode_of_a_file(path: Path) -> None:
    (path / "registry").chmod(0o666)


def link_the_artifacts(path: Path) -> None:
    (path / "artifacts").symlink_to("/etc")


def link_the_cursor(path: Path) -> None:
    (path / "cursor").symlink_to("/etc/passwd")


@pytest.mark.parametrize("change", [change_mode, change_mode_of_a_file, link_the_artifacts, link_the_cursor])
def test_a_spool_that_others_can_write_to_is_not_delivered(
    change: Callable[[Path], None], left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can write to it could have files of this user's read, sent and deleted. It stays, and it is said why."""
    change(Path(left[0]))
    assert orphans(left) == left[1:]
    assert left[0] in caplog.text
    with pytest.raises(ValueError, match=r"written by other users|no file or folder"):
        Spool.adopt(left[0])
    with pytest.raises(ValueError, match=r"written by other users|no file or folder"):
        Spool.follow(left[0])
    assert os.path.exists(os.path.join(left[0], "owner"))


def test_another_user_s_spool_is_not_delivered(left: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several share a folder, root among them."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(owner_module, "_user_seen_at", lambda path: os.getuid() + 1)
    assert orphans(left) == []
    with pytest.raises(ValueError, match=rf"belongs to another user \({os.getuid()}\)"):
        Spool.adopt(left[0])


def test_a_user_whom_the_file_system_takes_for_somebody_else_can_deliver_his_own(
    left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NFS server may take root for nobody: then all that root makes there is nobody's."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert orphans(left) == left


def test_a_gitignore_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Somebody may have put one into a folder that many write to, which leads to a file of this user's."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitignore").symlink_to(tmp_path / "bashrc")
    Spool.create(str(home), STORE).leave()
    assert not (tmp_path / "bashrc").exists()


# ── half deleted


def test_a_spool_without_its_registry_is_not_delivered_while_it_has_segments(
    left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its registry was lost, and with it what its events are about; nothing is deleted, and it is said."""
    segment = Segment.create(os.path.join(left[0], "000001.slots"), 0, 4)
    segment.void(segment.claim())
    segment.close()
    os.unlink(os.path.join(left[0], "registry"))
    assert orphans(left) == left[1:]
    assert "000001.slots has not been read to its end" in caplog.text
    assert sorted(os.listdir(left[0])) == ["000001.slots", "owner"]


def test_a_spool_that_nothing_was_ever_logged_to_is_deleted_in_silence(
    left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing to deliver, and nothing to say. One whose last segment alone is empty is delivered."""
    for path in left[:2]:
        Segment.create(os.path.join(path, "000001.slots"), 0, 4).close()
    with open(os.path.join(left[1], "registry"), "ab") as registry:
        registry.write(encode_frame(["run", 1, {"uid": "a"}]))
    assert orphans(left) == left[1:]
    assert not os.path.exists(left[0])
    assert not caplog.records
