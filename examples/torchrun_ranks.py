"""Four ranks of one training, one run.

    pip install asynctrack torch
    torchrun --standalone --nproc-per-node 4 --max-restarts 1 examples/torchrun_ranks.py

Every rank calls `start_run(shared=True)`. Rank 0 creates the run, and it ends with the last rank. With ``--fail-at 50``
one rank fails once at that step: torchrun starts all of them again, and they take the same run up. (With torch 2.13
gloo connects again only with ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`` in the environment.)
"""

from __future__ import annotations

import argparse
import os

import torch  # type: ignore[import-not-found, unused-ignore]  # not needed by anything else here
import torch.distributed as dist  # type: ignore[import-not-found, unused-ignore]
from torch.nn.parallel import DistributedDataParallel  # type: ignore[import-not-found, unused-ignore]

import asynctrack


def train(steps: int, fail_at: int | None) -> None:
    rank, attempt = dist.get_rank(), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    torch.manual_seed(rank)
    model = DistributedDataParallel(torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    target = torch.arange(8.0)
    with asynctrack.start_run(run_name="ranks", shared=True, per_rank="prefix") as run:
        run.log_params({"lr": 0.05, "ranks": dist.get_world_size()})  # the same from all: that is one param
        for step in range(steps):
            if step == fail_at and attempt == 0 and rank == dist.get_world_size() - 1:
                raise RuntimeError("as asked for with --fail-at")
            inputs = torch.randn(32, 8)
            loss = ((model(inputs).squeeze() - inputs @ target) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log_metric("loss", loss.item(), step)  # in the store as rank/0/loss, rank/1/loss …
    if rank == 0:
        print(f"run {run.run_id} in {run.tracking_uri}, attempt {attempt}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--fail-at", type=int)
    arguments = parser.parse_args()
    dist.init_process_group("gloo")
    try:
        train(arguments.steps, arguments.fail_at)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
