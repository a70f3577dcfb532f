"""Where spools are: the folders that programs make theirs in, and what dead programs have left there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from weakref import WeakSet

from asynctrack.errors import SpoolError
from asynctrack.journal.cursor import CursorFile
from asynctrack.journal.locks import is_held
from asynctrack.journal.owner import READABLE_VERSIONS, host_name, lost_owner, read_owner
from asynctrack.journal.positions import Positions
from asynctrack.journal.registered import RegistryReader
from asynctrack.journal.removal import DELETED, is_emptied, remove_deleted
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from asynctrack.platforms import check_file_name, unquoted_path, why
from asynctrack.settings import switch

__all__ = ["find_orphans", "homes_in_use", "left_alone", "open_spool", "remove_emptied", "spool_homes"]

logger = logging.getLogger("asynctrack")

#: what was said of spools that cannot be had, by their paths: each thing once
_said: dict[str, str] = {}
#: the spools that this process has made, as long as anything here knows them
_written: WeakSet[Spool] = WeakSet()


def spool_homes(configured: str | None, store: str = "") -> list[str]:
    """Folders for spools, best first. As configured; else ``.asynctrack/`` in the working directory, and the user's
    state folder, which comes first where the spool of a program that logs to ``store`` should not stand here. Raises
    InvalidInputError for a name that no folder can have."""
    if configured:
        check_file_name("spool_dir", configured)
        homes = [os.path.expanduser(configured)]
    else:
        state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        homes = [".asynctrack", os.path.join(state, "asynctrack")]
        if not os.path.isabs(homes[1]):
            homes.pop()  # a user without a home
        elif not _may_stand_here(store):
            homes.reverse()
    try:
        return [os.path.abspath(home) for home in homes]
    except FileNotFoundError:
        return [home for home in homes if os.path.isabs(home)]  # somebody has deleted the working directory


def homes_in_use() -> list[str]:
    """The folders of the spools that this process writes. ``.asynctrack/`` is another folder once it has changed its
    working directory."""
    there = [(spool.path, spool.lock) for spool in list(_written)]
    return list(
        {os.path.dirname(path) for path, lock in there if path is not None and lock is not None and lock.fd >= 0}
    )


def _may_stand_here(store: str) -> bool:
    """Whether the working directory is the place for a spool for ``store``: it stays when the program has ended,
    programs that log to this store start there, and nobody takes it for the program's files."""
    if switch("ASYNCTRACK_MLFLOW", default=False):
        return False  # code that knows nothing of spools copies the directory: `log_model(code_paths=["."])`
    try:
        here = os.path.join(os.getcwd(), "")
    except FileNotFoundError:
        return False
    kind, _, path = store.partition("://")
    if kind in ("file", "sqlite"):  # such a store is deleted with the directory, or is elsewhere
        return os.path.realpath(unquoted_path(path) if kind == "file" else path).startswith(here)
    temporary = os.path.realpath(os.environ.get("TMPDIR") or "/tmp")
    return not here.startswith(os.path.join(temporary, ""))


def open_spool(
    homes: list[str], store: str, slots: int, *, consumed: bool = True, ships: bool = True
) -> tuple[Spool, Segment, list[str]]:
    """A new spool with a first segment of ``slots`` slots, in the first home that has room for both, else in memory;
    and why the others have not. Raises SpoolError when there is no memory either."""
    problems: list[str] = []
    for home in homes:
        try:
            spool = Spool.create(home, store, consumed=consumed, ships=ships)
            try:
                segment = Segment.create(spool.segment_path(1), 0, slots)
                spool.cursor.keep_room()
                _written.add(spool)
                return spool, segment, problems
            except OSError:
                spool.remove()
                raise
        except OSError as error:
            problems.append(f"{home}: {error.strerror or error}")
    try:
        return Spool.in_memory(store), Segment.create(None, 0, slots), problems
    except OSError as error:
        raise SpoolError(
            error.errno, f"there is no room for a spool, not in memory either: {why(error)} ({'; '.join(problems)})"
        ) from error


def find_orphans(home: str, store: str, spelled: Callable[[str], str] = str) -> Iterator[Spool]:
    """Adopt, one by one, the spools in ``home`` for ``store`` whose owner on this host is dead. ``spelled`` says how a
    store's URI is spelled now that an earlier version wrote down.

    The oldest comes first: it may create a run, or hold earlier values of one, that a later spool logs to.

    A spool from another host is left alone: over a network file system its lock proves nothing. One that cannot be
    had is left as it is, and a log line says so: it is no reason to leave the next one.
    """
    try:
        paths = [os.path.join(home, name) for name in os.listdir(home)]
    except OSError:
        return  # no spools there
    for path in sorted(paths, key=_age):
        if path.endswith(DELETED):
            _clear(path)
            continue
        try:
            spool = _orphan(path, store, spelled)
        except (OSError, ValueError) as error:
            if _said.get(path) != str(error):
                _said[path] = str(error)
                logger.warning("asynctrack: the spool %s stays as it is: %s", path, error)
            continue
        _said.pop(path, None)
        if spool is not None:
            yield spool


def _clear(path: str) -> None:
    try:
        remove_deleted(path)
    except OSError as error:
        logger.debug("asynctrack: %s stays: %s", path, error)


def remove_emptied(paths: Iterable[str]) -> None:
    """Remove what is left of spools whose deletion was interrupted by the death of a program. What cannot be had
    stays."""
    for path in paths:
        if path.endswith(DELETED):
            _clear(path)
            continue
        try:
            owner = read_owner(path)
            if owner is None or owner.host != host_name() or not owner.made(path) or not is_emptied(path):
                continue
            spool = Spool.adopt(path)
            if spool is None:
                continue  # in the making
            if is_emptied(path):
                spool.remove()
            else:
                spool.leave()
        except (OSError, ValueError) as error:
            logger.debug("asynctrack: %s stays: %s", path, error)


def left_alone(homes: list[str], store: str) -> list[str]:
    """The spools for ``store`` in ``homes`` that hold events, whose program on this host is dead, and that nobody is
    delivering. Takes no lock, changes nothing, raises nothing."""
    found = []
    for home in homes:
        try:
            paths = [os.path.join(home, name) for name in os.listdir(home)]
        except OSError:
            continue  # no spools there
        for path in sorted(paths):
            try:
                owner = read_owner(path)
                if owner is None or owner.host != host_name() or owner.store != store or not owner.made(path):
                    continue
                if any(name.endswith(".slots") for name in os.listdir(path)) and is_held(path) == (False, False):
                    found += [path] if _begun_in(path) in (None, store) else []
            except (OSError, ValueError):
                continue  # delivered and deleted just now, or nothing that can be had
    return found


def _age(path: str) -> tuple[int, str]:
    """What puts spools in order of age; of those made in the same millisecond, in the order of their names."""
    owner = read_owner(path)
    return owner.created if owner is not None else 0, path


def _orphan(path: str, store: str, spelled: Callable[[str], str]) -> Spool | None:
    owner = read_owner(path)
    if owner is None and (problem := lost_owner(path)) is not None:
        raise ValueError(problem)
    if owner is None or owner.version not in READABLE_VERSIONS or owner.host != host_name():
        return None
    if spelled(owner.store) != store:
        return None
    if not owner.made(path):
        return None  # a copy: the program that wrote it may be alive, and delivers it itself
    spool = Spool.adopt(path)
    try:
        if spool is not None and (other := _begun_in(path)) is not None and spelled(other) != store:
            raise ValueError(
                f"a part of it is in {other} already. Deliver the rest with `asynctrack sync --to {other}`"
            )
        if spool is not None and _is_empty(spool):
            spool.remove(spool.segments.account(spool.segments.look(None, living=False), 0))
            return None
    except BaseException:
        if spool is not None:
            spool.leave()
        raise
    return spool


def _begun_in(path: str) -> str | None:
    """The store to which a part of a spool was delivered, where somebody has chosen another one than the spool's own:
    its cursor holds positions and run ids of that store. Raises OSError."""
    try:
        record = CursorFile(path).load()
        positions = Positions() if record is None else Positions.of(record)
    except ValueError:
        return None  # without a cursor, every event is compared with what a store has
    return positions.to if positions.begun else None


def _is_empty(spool: Spool) -> bool:
    """Whether nothing was ever logged to it: its program had made it, and was ended some other way than it expected."""
    head = spool.segments.look(None, living=False)
    if head is None or head.begun or not spool.segments.complete or spool.segments.problems:
        return False
    registered = RegistryReader(spool.registry)
    registered.refresh()
    return not registered.runs
