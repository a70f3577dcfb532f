"""A run that several processes share: who is a member of it, how each of them stands, and when the run has ended.

Each member (a rank, an actor) keeps a tag of the run. Whoever delivers a member's end writes down how it ended, reads
the tags of all, and gives the run its end if nobody is left. So nobody waits for anybody, and it does not matter which
member is the last, on which host it is, or whether another program delivers what it has left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.constants import MEMBER_TAG
from asynctrack.errors import NotFoundError, UnavailableError
from asynctrack.stores.base import AbstractStore, Batch, Refusal, RunSpec

if TYPE_CHECKING:
    from asynctrack.delivery.lane import Lane
    from asynctrack.delivery.source import Source
    from asynctrack.delivery.work import EndOfRun
    from asynctrack.entities import RunInfo

__all__ = [
    "WAY_OUT",
    "NotBegunError",
    "Standing",
    "begin_part",
    "creates_run",
    "end_of",
    "end_part",
    "is_member",
    "missing_creator",
    "standings_in",
    "start_tags",
]

logger = logging.getLogger("asynctrack")

#: from the worst to the best
_ENDS = ("FAILED", "KILLED", "FINISHED")

#: what helps where whoever is to create a run is gone for good
WAY_OUT = "If it is gone for good, `asynctrack sync --create-missing` creates the run"


class NotBegunError(UnavailableError):
    """The member that creates the run has not done so yet. Nothing is wrong with the store."""


class Standing(NamedTuple):
    """What a member's tag says. Times are ms since the epoch.

    ``attempt``: how often its launcher has started it again. ``size``: how many members there are, 0 if nobody knows.
    ``creates``: whether it creates the run.
    """

    status: str
    attempt: int = 0
    size: int = 0
    begun: int = 0
    ended: int = 0
    creates: bool = False

    def __str__(self) -> str:
        return " ".join(str(int(field) if isinstance(field, bool) else field) for field in self)

    @property
    def life(self) -> tuple[int, int]:
        """A member that is started again has a later one."""
        return self.attempt, self.begun

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status in _ENDS

    @classmethod
    def read(cls, text: str) -> Standing | None:
        """What ``text`` says; None for text that no member has written."""
        status, *numbers = text.split(" ")
        if len(numbers) != 5 or not all(number.isascii() and number.isdecimal() for number in numbers):
            return None
        attempt, size, begun, ended, creates = map(int, numbers)
        return cls(status, attempt, size, begun, ended, bool(creates))


def is_member(spec: RunSpec) -> bool:
    """Whether the process that has started ``spec`` shares the run with others."""
    return _own(spec) is not None


def creates_run(spec: RunSpec) -> bool:
    """Whether the process that has started ``spec`` creates the run. Of those who share one, one does."""
    own = _own(spec)
    return spec.run_id is None and (own is None or own[1].creates)


def start_tags(spec: RunSpec) -> dict[str, str]:
    """The tags that the start of ``spec`` gives to the run: what describes a shared one, the rank says that creates it.
    The others keep theirs for the case that it never does."""
    own = _own(spec)
    if own is None or creates_run(spec) or spec.run_id is not None:
        return spec.tags
    return {own[0]: spec.tags[own[0]]}


def missing_creator(specs: Iterable[RunSpec]) -> RunSpec | None:
    """Of the members of one run, who were to find it and log to it: what to create it with, as whoever was to do so has
    died before; None where they are no such members. That one's standing is KILLED, unless it begins one day."""
    own = [(found, spec) for spec in specs if spec.run_id is None and (found := _own(spec)) is not None]
    if not own:
        return None
    latest: dict[str, Standing] = {}
    for (key, standing), _ in own:
        if key not in latest or standing.life > latest[key].life:
            latest[key] = standing
    (_, last), spec = max(own, key=lambda member: member[0][1].life)
    gone = Standing("KILLED", last.attempt, last.size, ended=last.begun, creates=True)
    described = {key: text for key, text in spec.tags.items() if not key.startswith(MEMBER_TAG)}
    standings = {f"{MEMBER_TAG}0": gone} | latest
    return spec._replace(tags=described | {key: str(standing) for key, standing in standings.items()})


def _own(spec: RunSpec) -> tuple[str, Standing] | None:
    for key, text in spec.tags.items():
        if key.startswith(MEMBER_TAG) and (standing := Standing.read(text)) is not None:
            return key, standing
    return None


def standings_in(tags: Mapping[str, str]) -> dict[str, Standing]:
    """How each member stands, by its name."""
    found = {key[len(MEMBER_TAG) :]: Standing.read(text) for key, text in tags.items() if key.startswith(MEMBER_TAG)}
    return {name: standing for name, standing in found.items() if standing is not None}


def end_of(members: Mapping[str, Standing]) -> tuple[str, int] | None:
    """The status and end time of the run whose ``members`` stand like this; None while it goes on.

    Members of an earlier attempt that have not begun again are missing, and so are ranks that have not begun at all.
    The run waits for them as long as nothing has gone wrong. After a failure they may never come.
    """
    if not members:
        return None
    last = max(members.values(), key=lambda member: member.life)
    wanted = {str(rank) for rank in range(last.size)}
    here = {
        name: member
        for name, member in members.items()
        if member.attempt == last.attempt and (name in wanted or not last.size or not name.isdecimal())
    }
    if not all(member.over for member in here.values()):
        return None
    status = _worst(member.status for member in here.values())
    if status == "FINISHED" and not wanted <= set(here):
        return None
    return status, max(member.ended for member in here.values())


def _worst(statuses: Iterable[str]) -> str:
    return min(statuses, key=_ENDS.index)


async def begin_part(store: AbstractStore, source: Source, lane: Lane, spec: RunSpec) -> RunInfo:
    """The shared run of ``spec``, which a member begins to log to. Its creator creates it if it is not there.

    Raises NotBegunError until it is created, and what the store raises.
    """
    own = _own(spec)
    assert own is not None
    _, standing = own
    spec = spec if lane.run_id is None else spec._replace(run_id=lane.run_id)
    found = await _find(store, spec)
    if found is None:
        if spec.run_id is not None:
            raise NotFoundError(f"no run {spec.run_id} in {store.uri}")
        if not standing.creates or (lane.attached and store.chooses_run_ids):
            raise NotBegunError(
                f"run {spec.uid} is not in {store.uri} yet: the rank that creates it has not begun. {WAY_OUT}"
            )
        return await store.create_run(spec)
    if lane.attached or source.adopted:
        return found  # what a dead member has left changes no standing, and reopens nothing
    if standing.creates and not standing.attempt and found.end_time and found.end_time <= standing.begun:
        logger.warning(
            "asynctrack: run %s, which has ended, is taken up again, as the job has the same id. Jobs that are to have "
            "runs of their own need different ids (docs/many-processes.md)", found.run_id,
        )  # fmt: skip
    tags = start_tags(lane.spec) | {
        own[0]: str(_placed(standing, standings_in(await store.get_tags(found.run_id)).values()))
    }
    name = spec.run_name if standing.creates or lane.spec.run_id else None
    spec = spec._replace(run_id=found.run_id, experiment_id=None, experiment_name=None, run_name=name, tags=tags)
    return await store.create_run(spec)


def _placed(standing: Standing, there: Iterable[Standing]) -> Standing:
    """The standing of a member. It has to count beside those ``there`` that have begun before: a launcher that begins
    the job anew counts its attempts from 0 again."""
    earlier = max((member.attempt for member in there if member.begun < standing.begun), default=0)
    return standing._replace(attempt=max(earlier, standing.attempt))


def _placed_late(standing: Standing, there: Iterable[Standing]) -> Standing:
    """The same of one that was offline, or died before its begin was told: others have begun after it without knowing
    of it. If they count fewer attempts, they are of a job that was begun anew, and its own attempts are history."""
    later = [member.attempt for member in there if member.begun > standing.begun]
    placed = _placed(standing, there)
    return placed._replace(attempt=min([placed.attempt, *later]))


async def _find(store: AbstractStore, spec: RunSpec) -> RunInfo | None:
    if store.chooses_run_ids and spec.run_id is None:
        return await store.find_run(spec)
    try:
        return await store.get_run_info(spec.run_id or spec.uid)
    except NotFoundError:
        return None


async def end_part(store: AbstractStore, run_id: str, spec: RunSpec, end: EndOfRun) -> list[Refusal]:
    """A member has ended: note it, and end the run if it was the last. Done twice it changes nothing."""
    own = _own(spec)
    assert own is not None
    key, standing = own
    tags = await store.get_tags(run_id)
    there = Standing.read(tags.get(key, ""))
    told = there is not None and there.begun == standing.begun
    if there is not None and told:
        standing = standing._replace(attempt=there.attempt)
    else:
        standing = _placed_late(standing, standings_in(tags).values())
    if there is not None and there.life > standing.life:
        return []  # it was started again, and that is what counts
    if there is None or there.life < standing.life or not (end.assumed and there.over):
        standing = standing._replace(status=end.status, ended=end.end_time)
        refused = await store.log_batch(run_id, Batch(tags=[(key, str(standing))]))
        if refused:
            return refused
    decided = end_of(standings_in(await store.get_tags(run_id)))
    if decided is not None:
        await store.update_run(run_id, status=decided[0], end_time=decided[1])
    elif not told and ((await store.get_run_info(run_id)).end_time or standing.begun) < standing.begun:
        await store.create_run(RunSpec(spec.uid, run_id=run_id))  # it was begun anew after its end, and goes on
    return []
