"""A driver and four Ray actors, one run.

    pip install asynctrack ray
    python examples/ray_actors.py

The driver shares its run with actors that are given its id. Each says which rank it is, so that an actor that Ray
starts again replaces the one that died. The run ends with the last of them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import ray  # type: ignore[import-not-found, unused-ignore]  # not needed by anything else here

import asynctrack


class Worker:
    """One rank."""

    def __init__(self, run_id: str, rank: int, size: int) -> None:
        os.environ.update(ASYNCTRACK_RANK=str(rank), ASYNCTRACK_WORLD_SIZE=str(size))
        self.run = asynctrack.start_run(run_id, shared=True, per_rank="prefix")
        self.random = random.Random(rank)

    def train(self, steps: int) -> int:
        for step in range(steps):
            self.run.log_metric("loss", self.random.random() / (step + 1), step)
        return steps

    def end(self) -> None:
        """Ray kills an actor that is not needed any more, and a killed rank would be KILLED."""
        self.run.terminate()


def main(actors: int = 4, steps: int = 1000) -> None:
    # Actors work in folders of their own. All of them find the store and one folder for spools by absolute paths.
    here = Path.cwd()
    store, spools = f"sqlite:///{here / 'mlflow.db'}", str(here / ".asynctrack")
    environment = {"MLFLOW_TRACKING_URI": store, "ASYNCTRACK_SPOOL_DIR": spools}
    os.environ.update(environment)
    ray.init(num_cpus=actors, include_dashboard=False, runtime_env={"env_vars": environment})
    with asynctrack.start_run(run_name="actors", shared=True) as run:
        kind = ray.remote(Worker)
        workers = [kind.remote(run.run_id, rank, actors) for rank in range(actors)]
        print("steps:", sum(ray.get([worker.train.remote(steps) for worker in workers])))
        run.flush(workers=True)  # what the actors have logged is in the store now
        ray.get([worker.end.remote() for worker in workers])
    ray.shutdown()
    print(f"run {run.run_id} in {run.tracking_uri}")


if __name__ == "__main__":
    main()
