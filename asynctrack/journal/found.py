"""The segments of a spool as its folder shows them: in order, without those that are being made, and what is missing.

A dead owner's and a living one's are found by the same look. It lists the folder once, and opens one file at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum

from asynctrack.errors import SpoolError
from asynctrack.journal.header import UnknownFormatError
from asynctrack.journal.removal import Account, is_blank, is_unused
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import decode_block

__all__ = ["SegmentChain", "State"]

#: slots that tell whether a segment is in use: more than threads are between claim and write at its beginning
_FIRST_SLOTS = 256
#: slots that are read at once
_BLOCK = 8192


class State(Enum):
    """What a look at the folder says of one segment."""

    #: in the chain
    PRESENT = 1
    #: made in advance, and not used yet; its owner may still delete it and make another for its place
    PREPARED = 2
    #: its header cannot be read, by anybody
    DAMAGED = 3
    #: there is no file for it
    MISSING = 4
    #: the system had an error, or the format is a newer one: it says nothing about the file, so look again later
    UNREADABLE_NOW = 5


class SegmentChain:
    """What is known of the segments in ``folder`` (None: there are none). One consumer.

    The chain itself hangs together by ``Segment.next``. `look` puts new ones behind it.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        #: what the last look has seen, by the file's name; what is missing, by the number of its first slot
        self.states: dict[str, State] = {}
        #: why some cannot be read now
        self.unreadable: list[str] = []
        #: what is lost, in words, and how many records that is at most
        self.problems: dict[str, int] = {}
        #: files that will never be in the chain: damaged ones, and such as were made for nothing
        self._settled: dict[str, State] = {}
        self._final = False
        self._missing: dict[str, State] = {}

    @property
    def complete(self) -> bool:
        """Whether the last look has found all that there will ever be: the owner is dead, and everything was read."""
        return self._final and not self.unreadable

    def check(self) -> None:
        """Raises SpoolError where the last look could not read all that there is."""
        if self.unreadable:
            raise SpoolError(self.unreadable[0])

    def look(self, head: Segment | None, *, living: bool) -> Segment | None:
        """Put what is there behind the chain that begins with ``head``; its head now. Raises nothing.

        Of a ``living`` owner, a segment counts once it is in use. A hole in the chain is passed when a later segment
        is in use, and a second look at the folder has not found what belongs there: the owner goes on only when the
        one before is made. Of a dead one, everything counts. No hole is passed while something cannot be read now.
        """
        self._final = not living
        return self._look(head, living, certain=not living)

    def _look(self, head: Segment | None, living: bool, certain: bool) -> Segment | None:
        chain = list(_walk(head))
        for segment in chain:
            self._refresh(segment)
        found = self._found({_name(segment) for segment in chain})
        usable = [segment for segment in found if not living or self._counts(segment)]
        usable.sort(key=lambda segment: segment.first)
        if self.unreadable and not living:
            # Whether the last one is full, and so whether something is missing in it, shows in the one behind it.
            in_use = [index for index, segment in enumerate(usable) if self._counts(segment)]
            usable = usable[: in_use[-1] if in_use else 0]
        for segment in usable:
            end = chain[-1].first + chain[-1].capacity if chain else None
            if end is not None and segment.first < end:
                self._second_for_one_place(segment, chain)
                continue
            if end is None and self._unreadable_before(segment):
                break
            if segment.first > (end or 0):
                if end is not None and self.unreadable:
                    break
                if not certain:
                    return self._look(chain[0] if chain else None, living, certain=True)
                self._settle_damaged(segment, chain)
                if end is not None:
                    self._report_missing(end, segment.first)
            if chain:
                chain[-1].next = segment
            chain.append(segment)
            self.states[_name(segment)] = State.PRESENT
        if not living:
            self._settle_damaged(None, chain)
            self._finish(chain)
        return chain[0] if chain else None

    def account(self, head: Segment | None, front: int) -> Account:
        """For the removal of the spool: everything before slot ``front`` is delivered, refused or reported. Raises
        OSError."""
        read = {_name(segment) for segment in _walk(head) if segment.path is not None and is_read(segment, front)}
        damaged = frozenset(name for name, state in self._settled.items() if state is State.DAMAGED)
        return Account(frozenset(read), damaged, tuple(self.unreadable))

    # ── one look

    def _refresh(self, segment: Segment) -> None:
        """Whether its owner has sealed it since."""
        try:
            segment.refresh()
        except OSError:
            pass  # it stays unsealed until a later look, or shows as deleted when it is read

    def _found(self, known: set[str]) -> list[Segment]:
        """The segments in the folder that are not in the chain yet, by the order in which they were made."""
        self.unreadable = []
        self.states = {**self._missing, **self._settled}
        found = []
        for name in self._names():
            if name in known:
                self.states[name] = State.PRESENT
                continue
            if name in self._settled:
                continue
            try:
                found.append(Segment.open(os.path.join(self._folder or "", name)))
                self.states[name] = State.PREPARED
            except FileNotFoundError:
                continue  # made for nothing and just deleted
            except (OSError, UnknownFormatError) as error:
                self._not_now(name, error)
            except ValueError:
                self.states[name] = State.DAMAGED  # or in the making
        return found

    def _names(self) -> list[str]:
        if self._folder is None:
            return []
        try:
            names = os.listdir(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.unreadable.append(str(error))
            return []
        # Files are numbered in the order in which they are made; there may be more than 999,999.
        return sorted((name for name in names if name.endswith(".slots")), key=_number)

    def _counts(self, segment: Segment) -> bool:
        """Whether it is in use, or the very first one."""
        try:
            return segment.first == 0 or any(segment.read(0, _FIRST_SLOTS))
        except FileNotFoundError:
            return False  # made for nothing and just deleted
        except OSError as error:
            self._not_now(_name(segment), error)
            return False

    def _not_now(self, name: str, error: Exception) -> None:
        self.states[name] = State.UNREADABLE_NOW
        self.unreadable.append(str(error))

    def _unreadable_before(self, segment: Segment) -> bool:
        """Whether a file that may come before a first segment cannot be read now."""
        unreadable = [name for name, state in self.states.items() if state is State.UNREADABLE_NOW]
        return any(_number(name) < _number(_name(segment)) for name in unreadable)

    def _second_for_one_place(self, segment: Segment, chain: list[Segment]) -> None:
        """Two of one place: one was prepared and never used (its writer died, or lost a race in a signal handler)."""
        name = _name(segment)
        try:
            if is_unused(segment):
                self._settle(name, State.PREPARED)
                return
            other = next(other for other in chain if other.first + other.capacity > segment.first)
            if other.first == segment.first and is_unused(other) and other is chain[-1]:
                chain[-1] = segment
                if len(chain) > 1:
                    chain[-2].next = segment
                self._settle(_name(other), State.PREPARED)
                self.states[name] = State.PRESENT
                return
        except FileNotFoundError:
            return
        except OSError as error:
            self._not_now(name, error)
            return
        self._settle(name, State.DAMAGED)
        self._report(f"{segment.path} holds records for a place that another segment holds", segment.capacity)

    def _settle(self, name: str, state: State) -> None:
        self._settled[name] = self.states[name] = state

    def _settle_damaged(self, before: Segment | None, chain: list[Segment]) -> None:
        """Those that were made ``before`` a segment in use (None: all of a dead owner) are not in the making."""
        for name, state in list(self.states.items()):
            if state is not State.DAMAGED or name in self._settled:
                continue
            if before is None or _number(name) < _number(_name(before)):
                path = os.path.join(self._folder or "", name)
                if before is None and _never_began(path, chain):
                    self._settle(name, State.PREPARED)
                    continue
                self._settle(name, state)
                self._report(f"{path}: both copies of the segment's header are damaged", 1)

    def _report_missing(self, start: int, end: int) -> None:
        self._missing[str(start)] = self.states[str(start)] = State.MISSING
        self._report(f"{self._folder}: a segment is missing, with up to {end - start} records", end - start)

    def _report(self, problem: str, records: int) -> None:
        self.problems[problem] = self.problems.get(problem, 0) + records

    def _finish(self, chain: list[Segment]) -> None:
        """Nothing is added any more: up to where the dead owner had come."""
        used = False
        for segment in reversed(chain):
            segment.sealed = True
            try:
                # A writer goes on only when every slot is claimed.
                segment.begun = segment.capacity if used or self.unreadable else segment.count_begun()
            except FileNotFoundError:
                pass  # somebody has just deleted it, which shows when it is read
            except OSError as error:
                self._not_now(_name(segment), error)
            used |= segment.begun > 0


def is_read(segment: Segment, front: int) -> bool:
    """Whether no event of a segment stands behind slot ``front`` of the journal. Raises OSError."""
    for index in range(max(front - segment.first, 0), segment.capacity, _BLOCK):
        block = decode_block(segment.read(index, _BLOCK))
        if block.streams or block.frames or block.unfinished or block.damaged:
            return False
    return True


def _never_began(path: str, chain: list[Segment]) -> bool:
    """Whether the owner died while making this file: nothing stands in it, and its turn had not come. A writer goes on
    only when every slot before is claimed, so behind one that is full it may have been used, and been emptied since."""
    earlier = [segment for segment in chain if _number(_name(segment)) < _number(os.path.basename(path))]
    try:
        if not earlier or not is_blank(path):
            return False
        last = earlier[-1]
        return last.next is not None or last.count_begun() < last.capacity
    except (OSError, ValueError):
        return False


def _walk(segment: Segment | None) -> Iterator[Segment]:
    while segment is not None:
        yield segment
        segment = segment.next


def _name(segment: Segment) -> str:
    return os.path.basename(segment.path or "")


def _number(name: str) -> tuple[int, str]:
    return len(name), name
