"""Which rank of which job this process is, as its launcher says in the environment. Decides, and asks nobody.

All ranks of a job have to come to the same run without talking to one another. So the run's uid is made of what they
all know of the job, and of nothing that another job may have too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from asynctrack.errors import InvalidInputError
from asynctrack.values import shortened

__all__ = ["Rank", "job_uid", "launcher_of", "rank_in"]

#: set by hand, where no launcher does: in Ray's actors, say
_RANK, _SIZE, _JOB = "ASYNCTRACK_RANK", "ASYNCTRACK_WORLD_SIZE", "ASYNCTRACK_JOB"
#: what schedulers call a job: with it a number that is unique in one job only is unique
_SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
_MOST_ANCESTORS = 64


class Rank(NamedTuple):
    """One of several processes that a launcher has started together.

    ``size``: how many there are, 0 if nobody says. ``attempt``: how often the launcher has started them again.
    ``job``: what no other job has, the same for all ranks and after a restart; empty if the launcher says nothing of
    that kind. ``variable``: the one that says the rank. ``one_host``: whether all of them are on this host.
    """

    number: int
    size: int
    attempt: int
    job: str
    variable: str
    one_host: bool = False


def rank_in(environ: Mapping[str, str]) -> Rank | None:
    """The rank that an environment speaks of; None where there is none.

    The innermost launcher counts: torchrun may be started by srun, and mpirun by a batch script. Raises
    InvalidInputError for numbers that are none.
    """
    found = _launched(environ)
    job = environ.get(_JOB, "")
    if environ.get(_RANK):
        size = _number(environ, _SIZE, 0)
        return Rank(_number(environ, _RANK, 0), size, 0 if found is None else found.attempt, _named(job), _RANK)
    return found if found is None or not job else found._replace(job=_named(job))


def _named(job: str) -> str:
    return f"named {job}" if job else ""


def _launched(environ: Mapping[str, str]) -> Rank | None:
    slurm = _slurm_step(environ)
    again = _number(environ, "SLURM_RESTART_COUNT", 0)
    if environ.get("RANK") and environ.get("WORLD_SIZE"):
        size, local = _number(environ, "WORLD_SIZE", 0), _number(environ, "LOCAL_WORLD_SIZE", 0)
        own = environ.get("TORCHELASTIC_RUN_ID", "")
        attempt = again + _number(environ, "TORCHELASTIC_RESTART_COUNT", 0)
        # "none" is what torchrun takes where nobody names the job: every such job has it.
        job = f"torchrun {own}" if own not in ("", "none") else slurm
        return Rank(_number(environ, "RANK", 0), size, attempt, job, "RANK", size in (1, local))
    if environ.get("OMPI_COMM_WORLD_RANK"):
        size = _number(environ, "OMPI_COMM_WORLD_SIZE", 0)
        one_host = size == _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", 0)
        number = _number(environ, "OMPI_COMM_WORLD_RANK", 0)
        return Rank(number, size, again, slurm or _pmix_job(environ), "OMPI_COMM_WORLD_RANK", one_host)
    if environ.get("PMI_RANK"):
        size = _number(environ, "PMI_SIZE", 0)
        local = _number(environ, "MPI_LOCALNRANKS", 0)
        return Rank(_number(environ, "PMI_RANK", 0), size, again, slurm, "PMI_RANK", size in (1, local))
    if environ.get("PMIX_RANK"):
        # PMIx itself does not say how many there are; Slurm does.
        size = _number(environ, "SLURM_STEP_NUM_TASKS", 0) or _number(environ, "SLURM_NTASKS", 0)
        return Rank(_number(environ, "PMIX_RANK", 0), size, again, slurm or _pmix_job(environ), "PMIX_RANK")
    if slurm and environ.get("SLURM_PROCID"):
        # Without a step it is the batch script itself, which is one process, whatever SLURM_NTASKS says.
        size = _number(environ, "SLURM_STEP_NUM_TASKS", 0) or _number(environ, "SLURM_NTASKS", 0)
        return Rank(_number(environ, "SLURM_PROCID", 0), size, again, slurm, "SLURM_PROCID")
    return None


def _slurm_step(environ: Mapping[str, str]) -> str:
    job, step = environ.get("SLURM_JOB_ID"), environ.get("SLURM_STEP_ID")
    return f"slurm {environ.get('SLURM_CLUSTER_NAME', '')} {job}.{step}" if job and step else ""


def _pmix_job(environ: Mapping[str, str]) -> str:
    """A PMIx namespace is made of a process id, which is used again some day; a scheduler's job has it once."""
    scheduler = next((environ[name] for name in _SCHEDULERS if environ.get(name)), "")
    namespace = environ.get("PMIX_NAMESPACE", "")
    return f"pmix {scheduler} {namespace}" if scheduler and namespace else ""


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()):
        raise InvalidInputError(f"the environment variable {name}={shortened(text)} is not a number from 0 on")
    return int(text)


def job_uid(job: str, count: int) -> str:
    """The uid of the ``count``-th shared run of a job: 32 hex digits."""
    from hashlib import sha256  # late: few programs share runs

    return sha256(f"asynctrack {job}\n{count}".encode()).hexdigest()[:32]


def launcher_of(variable: str) -> str:
    """What tells the launcher of this process from every other, on this host and for all time: the nearest ancestor
    that does not have ``variable`` in its own environment. With torchrun it is the agent, which starts the ranks again
    after a failure; a shell between the two does not matter."""
    pid = os.getppid()
    for _ in range(_MOST_ANCESTORS):
        above, has_it = _seen(pid, variable)
        if not has_it or above <= 1:
            break
        pid = above
    with open("/proc/sys/kernel/random/boot_id") as boot:
        return f"launcher {boot.read().strip()} {pid} {_fields(pid)[19]}"


def _seen(pid: int, variable: str) -> tuple[int, bool]:
    """A process's parent, and whether the process has ``variable``; no if that cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            has_it = any(entry.startswith(f"{variable}=".encode()) for entry in file.read().split(b"\0"))
        return int(_fields(pid)[1]), has_it
    except OSError:
        return 0, False


def _fields(pid: int) -> list[str]:
    """What /proc says of a process behind its name: the state, the parent's id …; the 20th is when it started."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()
