"""Runs that several processes share: what `start_run(shared=True)` adds to a run's spec."""

from __future__ import annotations

import os
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.constants import MEMBER_TAG
from asynctrack.errors import InvalidInputError
from asynctrack.runs.ranks import Rank, job_uid, launcher_of, rank_in
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.stores.base import RunSpec

__all__ = ["Share", "again", "refuse_unshared", "share_of"]

_counting = threading.Lock()
#: shared runs that this process has begun, by job: all ranks begin them in the same order
_begun: dict[str, int] = {}


class Share(NamedTuple):
    """This process's part of a shared run. ``spec`` is the run's; ``prefix`` stands before its metrics' keys.
    ``first``: whether it is the one that speaks for all: says where to look at the run."""

    spec: RunSpec
    prefix: str
    first: bool


def refuse_unshared(shared: bool, per_rank: object, from_step: object) -> None:
    """Raise InvalidInputError for arguments of `start_run` that do not go together."""
    if per_rank is not None and not shared:
        raise InvalidInputError("per_rank= is about the ranks that share a run; give shared=True too")
    if shared and from_step is not None:
        raise InvalidInputError(
            "from_step= replaces what others who share the run may be logging just now; take the run up in one process "
            "first: start_run(run_id=…, from_step=…).terminate()"
        )


def again(before: RunSpec, spec: RunSpec) -> RunSpec:
    """The ``spec`` with which a run is taken up again, by a process that shared it ``before`` and does so still."""
    standing = {key: text.split(" ") for key, text in before.tags.items() if key.startswith(MEMBER_TAG)}
    tags = {key: " ".join([*parts[:3], str(spec.start_time), *parts[4:]]) for key, parts in standing.items()}
    return spec._replace(tags=spec.tags | tags)


def share_of(spec: RunSpec, per_rank: object) -> Share:
    """The part that this process has in the run of ``spec``. Raises InvalidInputError."""
    if per_rank not in (None, "prefix"):
        raise InvalidInputError(f'per_rank={shortened(per_rank)}: it must be "prefix", or None for keys as they are')
    rank = rank_in(os.environ)
    if rank is None and per_rank is not None:
        raise InvalidInputError(
            'per_rank="prefix" needs a rank, and no launcher has given this process one: set ASYNCTRACK_RANK'
        )
    prefix = "" if rank is None or per_rank is None else f"rank/{rank.number}/"
    uid, creates = spec.uid, spec.run_id is None
    if creates and rank is not None:
        uid, creates = _uid_of(rank), rank.number == 0
    name = _own_name() if rank is None else str(rank.number)
    size, attempt = (0, 0) if rank is None else (rank.size, rank.attempt)
    now = time.time_ns() // 1_000_000
    # As `asynctrack.delivery.members.Standing` reads it, which is loaded only when something is delivered.
    standing = f"RUNNING {attempt} {size} {now} 0 {int(creates)}"
    spec = spec._replace(uid=uid, tags={**spec.tags, f"{MEMBER_TAG}{name}": standing})
    return Share(spec, prefix, creates or (rank is not None and rank.number == 0))


def _uid_of(rank: Rank) -> str:
    job = rank.job
    if not job and rank.one_host and os.path.exists("/proc/self/stat"):
        job = launcher_of(rank.variable)
    if not job:
        raise InvalidInputError(
            f"rank {rank.number} cannot know which run the other ranks log to: the launcher names no job that is the "
            "same on all hosts and no other job's. Set ASYNCTRACK_JOB to such a name for all ranks (with torchrun "
            "--rdzv-id does it too), or give start_run the run_id"
        )
    with _counting:
        count = _begun[job] = _begun.get(job, 0) + 1
    return job_uid(job, count)


def _own_name() -> str:
    """A name that no other process has: nobody has given this one a rank."""
    host = re.sub(r"[^A-Za-z0-9]", "-", os.uname().nodename)[:60]
    return f"{host}-{os.getpid()}-{os.urandom(3).hex()}"
