"""Which rank a process is, decided from its environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from asynctrack.errors import InvalidInputError
from asynctrack.runs.ranks import Rank, job_uid, launcher_of, rank_in

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
STEP = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_NTASKS": "8"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_NAMESPACE": "prterun-node-41@1"}

TABLE = {
    "nothing": ({}, None),
    "torchrun --standalone": (
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "8f3c", "TORCHELASTIC_RESTART_COUNT": "0"},
        Rank(3, 4, 0, "torchrun 8f3c", "RANK", one_host=True),
    ),
    "torchrun, started again": (
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "2"},
        Rank(3, 4, 2, "torchrun a", "RANK"),
    ),
    "torchrun without an id names no job": (
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "none"},
        Rank(3, 4, 0, "", "RANK", one_host=True),
    ),
    "torchrun without an id on two hosts, by srun": (
        {**TORCHRUN, **STEP, "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"},
        Rank(3, 4, 0, "slurm  77.0", "RANK"),
    ),
    "variables of torch.distributed alone": (TORCHRUN, Rank(3, 4, 0, "", "RANK")),
    "srun": ({**STEP, "SLURM_CLUSTER_NAME": "c"}, Rank(2, 8, 0, "slurm c 77.0", "SLURM_PROCID")),
    "srun of fewer tasks than the job has": (
        {**STEP, "SLURM_STEP_NUM_TASKS": "4"},
        Rank(2, 4, 0, "slurm  77.0", "SLURM_PROCID"),
    ),
    "a job that was put back into the queue": (
        {**STEP, "SLURM_RESTART_COUNT": "1"},
        Rank(2, 8, 1, "slurm  77.0", "SLURM_PROCID"),
    ),
    "a batch script is one process": ({"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
    "mpirun on one host": (
        {**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
        Rank(1, 4, 0, "", "OMPI_COMM_WORLD_RANK", one_host=True),
    ),
    "mpirun on two hosts": (
        {**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        Rank(1, 4, 0, "", "OMPI_COMM_WORLD_RANK"),
    ),
    "mpirun on two hosts of a scheduler": (
        {**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PBS_JOBID": "12.head"},
        Rank(1, 4, 0, "pmix 12.head prterun-node-41@1", "OMPI_COMM_WORLD_RANK"),
    ),
    "hydra on one host": (
        {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALNRANKS": "2"},
        Rank(1, 2, 0, "", "PMI_RANK", one_host=True),
    ),
    "srun --mpi=pmix": (
        {**STEP, "PMIX_RANK": "2", "PMIX_NAMESPACE": "slurm.pmix.77.0"},
        Rank(2, 8, 0, "slurm  77.0", "PMIX_RANK"),
    ),
    "by hand": (
        {"ASYNCTRACK_RANK": "5", "ASYNCTRACK_WORLD_SIZE": "6", "ASYNCTRACK_JOB": "sweep 1"},
        Rank(5, 6, 0, "named sweep 1", "ASYNCTRACK_RANK"),
    ),
    "a job's name by hand": (
        {**TORCHRUN, "ASYNCTRACK_JOB": "mine", "TORCHELASTIC_RESTART_COUNT": "1"},
        Rank(3, 4, 1, "named mine", "RANK"),
    ),
}


@pytest.mark.parametrize(("environ", "expected"), TABLE.values(), ids=TABLE)
def test_the_environment_says_the_rank(environ: dict[str, str], expected: Rank | None) -> None:
    assert rank_in(environ) == expected


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(InvalidInputError, match="WORLD_SIZE='many'"):
        rank_in({"RANK": "0", "WORLD_SIZE": "many"})


def test_a_job_has_one_uid_for_each_of_its_shared_runs() -> None:
    assert job_uid("slurm  77.0", 1) == job_uid("slurm  77.0", 1)
    uids = {job_uid(job, count) for job in ("slurm  77.0", "slurm  77.1") for count in (1, 2)}
    assert len(uids) == 4
    assert all(len(uid) == 32 for uid in uids)


RANK = "from asynctrack.runs.ranks import launcher_of; print(launcher_of('SOME_RANK'))"


def test_ranks_of_one_launcher_agree_also_behind_a_shell_and_others_do_not() -> None:
    """The launcher is the nearest ancestor that is no rank itself."""
    launcher = f"""
import os, subprocess, sys
env = {{**os.environ, "SOME_RANK": "0"}}
code = {RANK!r}
subprocess.run([sys.executable, "-c", code], env=env, check=True)
subprocess.run(["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code], env=env, check=True)
"""
    said = [
        subprocess.run([sys.executable, "-c", launcher], capture_output=True, text=True, check=True).stdout.split("\n")
        for _ in range(2)
    ]
    first, second = said
    assert first[0] == first[1] != ""
    assert second[0] == second[1] != first[0]


def test_the_launcher_of_a_process_without_ranks_above_it_is_its_parent() -> None:
    assert f" {os.getppid()} " in launcher_of("NOBODY_HAS_THIS_VARIABLE")
