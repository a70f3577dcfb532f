"""Measures one logging client, ours or a peer's, in an interpreter of its own.

    PYTHON worker.py '{"client": "wandb", "job": "loop", "folder": "/tmp/x", ...}'

Runs in each peer's virtual environment, where there is neither asynctrack nor this package: it needs only `clients.py`
beside it. Prints one JSON line a finding; whatever the clients themselves print goes to standard error. All clients log
the same things through their ordinary calls, offline.
"""

from __future__ import annotations

import array
import importlib
import itertools
import json
import os
import sys
import time
from typing import Any

Job = dict[str, Any]

_now = time.perf_counter_ns

#: by name. A script's own folder is where it imports from first, whatever its interpreter has installed
CLIENTS: Any = importlib.import_module("clients").CLIENTS


# ── jobs


def loop(job: Job) -> None:
    """Log for ``job["seconds"]``, ``job["events"]`` at most: the calls, and everything until all is stored."""
    client = CLIENTS[job["client"]](job)
    keys = [f"metric{number}" for number in range(job.get("keys", 10))]
    laps = array.array("q")
    one, append, count, events = client.one, laps.append, len(keys), job["events"]
    one(keys[0], 0.0, 0)  # the first one opens files
    begun = _now()
    deadline = begun + int(job["seconds"] * 1e9)
    step = 1
    while step <= events:
        before = _now()
        one(keys[step % count], step * 0.37, step)
        after = _now()
        append(after - before)
        step += 1
        if after > deadline:
            break
    called = _now()
    client.close()
    ended = _now()
    ordered = sorted(laps)
    tell(
        events=len(laps),
        called=(called - begun) / 1e9,
        total=(ended - begun) / 1e9,
        p50=ordered[len(ordered) // 2] / 1e3,
        p99=ordered[len(ordered) * 99 // 100] / 1e3,
        most=ordered[-1] / 1e3,
        stored=client.stored(),
    )


def train(job: Job) -> None:
    """Train when asked to, for some time, with so many metrics a step (or one every so many steps)."""
    step_of = _torch(job) if job.get("torch") else _numpy(job)
    client = CLIENTS[job["client"]](job)
    step = 0
    tell(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        names = [f"layer{number}/grad_norm" for number in range(order["metrics"])]
        every, log = order["every"], client.log
        for measured in (False, True):  # first into the steady state, then what counts
            first, begun = step, time.perf_counter()
            deadline = begun + (order["seconds"] if measured else order["warm_up"])
            while (now := time.perf_counter()) < deadline:
                loss = step_of()
                step += 1
                if names and step % every == 0:
                    log(dict.fromkeys(names, loss), step)
        tell(steps=step - first, seconds=now - begun)
    client.close()
    tell(closed=True)


def _numpy(job: Job) -> Any:
    """A step of a perceptron of three layers on the handwritten digits."""
    np: Any = importlib.import_module("numpy")
    digits = np.load(job["digits"])
    images, labels = digits["images"], digits["labels"]
    rng = np.random.default_rng(0)
    sizes, size = (64, 256, 128, 10), job["batch"]
    weights = [rng.normal(0, (2 / a) ** 0.5, (a, b)).astype("f4") for a, b in itertools.pairwise(sizes)]

    def step() -> float:
        chosen = rng.integers(0, len(labels), size)
        layers = [images[chosen]]
        for weight in weights[:-1]:
            layers.append(np.maximum(layers[-1] @ weight, 0))
        scores = np.exp(layers[-1] @ weights[-1])
        error = scores / scores.sum(axis=1, keepdims=True)
        right = labels[chosen]
        loss = -np.log(error[np.arange(size), right] + 1e-9).mean()
        error[np.arange(size), right] -= 1
        error /= size
        for at in reversed(range(len(weights))):
            slope, error = layers[at].T @ error, (error @ weights[at].T) * (layers[at] > 0)
            weights[at] -= 0.01 * slope
        return float(loss)

    return step


def _torch(job: Job) -> Any:
    """The same in PyTorch, with Adam."""
    np: Any = importlib.import_module("numpy")
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    digits = np.load(job["digits"])
    images, labels = torch.from_numpy(digits["images"]), torch.from_numpy(digits["labels"])
    nn = torch.nn
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> float:
        chosen = torch.randint(0, len(labels), (job["batch"],))
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def startup(job: Job) -> None:
    """A run with nothing in it but one metric: how long each part takes, and when the script's last line is done."""
    begun = _now()
    client = CLIENTS[job["client"]](job)
    started = _now()
    if job["events"]:
        client.one("metric", 0.5, 1)
    logged = _now()
    client.close()
    closed = _now()
    tell(
        start=(started - begun) / 1e6,
        first=(logged - started) / 1e6,
        close=(closed - logged) / 1e6,
        ended=time.monotonic(),
    )


def tell(**found: Any) -> None:
    """One finding, to whoever has started us."""
    _answers.write(json.dumps(found) + "\n")
    _answers.flush()


if __name__ == "__main__":
    # Clients print as they like; what counts goes out by another door.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given: Job = json.loads(sys.argv[1])
    {"loop": loop, "train": train, "startup": startup}[given["job"]](given)
