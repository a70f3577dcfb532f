"""Which run is meant by what a person types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asynctrack.errors import InvalidInputError, NotFoundError, StoreError
from asynctrack.reading.finding import names_of, stored_run
from asynctrack.reading.pending import Pending
from asynctrack.reading.runs import FoundRun, FoundRuns, find_runs
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.stores.base import AbstractStore

__all__ = ["resolve"]

_RECENT = re.compile(r"@(\d{1,6})?")
_PREFIX = re.compile(r"[0-9A-Za-z-]{4,}")
_NAME_TAG = "tags.`mlflow.runName`"
#: runs that are named in a message
_NAMED = 5
#: recent runs among which a name that is near is looked for
_AMONG = 200


async def resolve(store: AbstractStore, text: str, live: bool = True, *, folder: str | None = None) -> FoundRun:
    """The run that ``text`` means: an id, a name, the beginning of an id (4 characters at least), ``@`` for the run
    that was started last, ``@1`` for the one before, ``@live`` for the one that was started last of those alive.

    Raises `NotFoundError`, with what is near, `InvalidInputError` where several runs are meant, and what the store
    raises.
    """
    text = text.strip()
    if not text:
        raise InvalidInputError("name a run: by its id, the beginning of that, its name, @ for the latest, or @live")
    if text == "@live":
        found = await find_runs(store, limit=1, live=live, folder=folder)
        if not found or not found[0].alive:
            raise _none(found, f"no run for {store.uri} is alive in a process on this machine")
        return found[0]
    if (recent := _RECENT.fullmatch(text)) is not None:
        return await _recent(store, int(recent[1] or 0), live, folder)
    return await _by_id(store, text, live, folder) or await _by_text(store, text, live, folder)


async def _recent(store: AbstractStore, back: int, live: bool, folder: str | None) -> FoundRun:
    order = ["attributes.start_time DESC"]
    found = await find_runs(store, order_by=order, limit=back + 1, live=live, folder=folder)
    if len(found) <= back:
        there = "is no run" if not found else "is one run" if len(found) == 1 else f"are {len(found)} runs"
        raise _none(found, f"there {there} in {store.uri}")
    return found[back]


async def _by_id(store: AbstractStore, text: str, live: bool, folder: str | None) -> FoundRun | None:
    pending = Pending(store, folder)
    held = None
    try:
        if live:
            await store.io.call(pending.refresh)
            held = pending.run({text})
        run_id = text if held is None else held.run_id or held.uid
        run, trouble = None, None
        try:
            run = await stored_run(store, run_id, {text}, held)
        except NotFoundError:
            pass  # what spools hold may do, or the text is no id
        except StoreError as error:
            trouble = error  # what spools hold may do, and else the store says it once more
        if run is not None and live:
            held = pending.run(names_of(run) | {text})
        if held is not None:
            await store.io.call(pending.walk, held.names)
            held = pending.run(held.names)
    finally:
        pending.close()
    return None if run is None and held is None else FoundRun.of(run, held, trouble=trouble)


async def _by_text(store: AbstractStore, text: str, live: bool, folder: str | None) -> FoundRun:
    quote = next((mark for mark in "'\"" if mark not in text), None)
    named = FoundRuns()
    if quote is not None:
        name = f"{_NAME_TAG} = {quote}{text}{quote}"
        named = await find_runs(store, filter_string=name, limit=_NAMED + 1, live=live, folder=folder)
    if len(named) > 1:
        raise _several(f"several runs have the name {shortened(text)}", named)
    if named:
        return named[0]
    begun = FoundRuns()
    if _PREFIX.fullmatch(text):
        beginning = f"attributes.run_id LIKE '{text.lower()}%'"
        begun = await find_runs(store, filter_string=beginning, limit=_NAMED + 1, live=live, folder=folder)
    if len(begun) > 1:
        raise _several(f"the ids of several runs begin with {text}", begun)
    if begun:
        return begun[0]
    raise await _not_found(store, text, live, folder)


async def _not_found(store: AbstractStore, text: str, live: bool, folder: str | None) -> StoreError:
    from difflib import get_close_matches

    among = await find_runs(store, limit=_AMONG, live=live, folder=folder)
    names = [found.run.info.run_name or "" for found in among]
    ids = [found.run.info.run_id for found in among]
    near = [*get_close_matches(text, names, _NAMED), *get_close_matches(text, ids, _NAMED)]
    near += [name for name in names if text.lower() in name.lower()]
    shown = ", ".join(shortened(name) for name in list(dict.fromkeys(filter(None, near)))[:_NAMED])
    hint = f"; near it: {shown}" if shown else ""
    short = " (of an id, at least 4 characters are needed)" if len(text) < 4 else ""
    return _none(among, f"no run in {store.uri} has the id or the name {shortened(text)}{short}{hint}")


def _none(found: FoundRuns, message: str) -> StoreError:
    """The error of a run that is not there; or of a store that may have it, and could not be asked."""
    return NotFoundError(message) if found.trouble is None else found.trouble


def _several(message: str, found: FoundRuns) -> InvalidInputError:
    shown = ", ".join(f"{run.info.run_id} ({run.info.status})" for run, *_ in found[:_NAMED])
    more = ", …" if len(found) > _NAMED else ""
    return InvalidInputError(f"{message}: {shown}{more}; give more of the id")
