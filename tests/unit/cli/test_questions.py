"""What a program, or a model, wants to know of thirty runs, answered from JSON alone and from little of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from tests.unit.cli.conftest import Call

PACKAGE = str(Path(asynctrack.__file__).parents[1])
#: bytes of an answer at most
_LIMIT = 4000

LIVE = """
import asynctrack
run = asynctrack.start_run(run_name="still-going")
run.log_param("lr", 0.2)
run.log_metric("loss", 0.8, 3)
run.flush()
print("logged", flush=True)
input()
"""


@pytest.fixture
def ids() -> Iterator[dict[str, str]]:
    """Ids by name of 30 runs: 28 that ended well, of which number 17 diverges at step 120 and has one spike; one that
    failed; one that is running."""
    asynctrack.set_experiment("vision")
    found = {}
    for number in range(29):
        run = asynctrack.start_run(run_name=f"trial-{number:02}", tags={"team": "ab"[number % 2]})
        found[f"trial-{number:02}"] = run.run_id
        lr = 0.001 * (number + 1)
        run.log_params({"lr": lr, "batch": 32 * (1 + number % 3), "model": "resnet"})
        for step in range(200):
            loss = math.exp(-step * lr)
            if number == 17 and step >= 120:
                loss = math.nan
            run.log_metric("loss", 1000.0 if (number, step) == (17, 77) else loss, step)
            if step % 20 == 0:
                run.log_metric("val/acc", 0.9 - abs(number - 11) / 100 + step / 10_000, step)
        asynctrack.end_run("FAILED" if number == 9 else "FINISHED")
    asynctrack.shutdown()
    with subprocess.Popen(
        [sys.executable, "-c", LIVE], env={**os.environ, "PYTHONPATH": PACKAGE}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        yield found
        process.communicate("\n", timeout=60)


def test_ten_questions_are_answered_in_less_than_four_kilobytes_each(call: Call, ids: dict[str, str]) -> None:
    def ask(*arguments: str, status: int = 0) -> Any:
        out = call(*arguments, status=status).out
        assert len(out) < _LIMIT, (arguments, len(out))
        return json.loads(out)

    # 1. Which run is best?
    best = ask("runs", "--sort", "-val/acc.max", "-n", "3", "--json", "name,val/acc.max,val/acc.max_step,lr")
    assert (best[0]["name"], best[0]["val/acc.max_step"], best[0]["lr"]) == ("trial-11", 180, "0.012")
    # 2. Which diverged?
    every = ask("runs", "-a", "--json", "name,loss")
    assert len(every) == 30
    assert [each["name"] for each in every if each["loss"] == "NaN"] == ["trial-17"]
    # 3. Where did it diverge? Its last good points, and how far the metric goes.
    found = ask("show", "trial-17", "--json", "status,metrics")
    assert (found["metrics"]["loss"]["last"], found["metrics"]["loss"]["nan_from"]) == ("NaN", 120)
    assert "nan_from" not in found["metrics"]["val/acc"]
    points = ask("plot", "trial-17", "-k", "loss", "--json")[0]["points"]
    bad = [x for x, y in points if y == "NaN"]
    good = max(x for x, y in points if y != "NaN")
    around = ask("show", "trial-17", "--around", str(int(good)), "--window", "3", "--json")
    assert next(row["step"] for row in around if row["loss"] == "NaN") == 120 <= min(bad)
    # 4. Was there a spike before?
    assert (found["metrics"]["loss"]["max"], found["metrics"]["loss"]["max_step"]) == (1000.0, 77)
    # 5. What differs between it and the best?
    differ = ask("diff", "trial-17", "trial-11", "--json", status=1)
    assert [(each["kind"], each["key"]) for each in differ] == [
        ("param", "lr"), ("metric", "loss"), ("metric", "val/acc"),
    ]  # fmt: skip
    # 6. Which is running, how far is it, and is all of it delivered?
    (live,) = [each for each in ask("runs", "-n", "5", "--json", "name,alive,step,waiting") if each["alive"]]
    assert (live["name"], live["step"], live["waiting"]) == ("still-going", 3, 0)
    # 7. Which failed?
    assert ask("runs", "attributes.status = 'FAILED'", "--json", "name") == [{"name": "trial-09"}]
    # 8. What were all metrics of a run at step 100?
    at = {each["key"]: each["value"] for each in ask("show", "trial-00", "--at", "100", "--json")}
    assert at == {"loss": math.exp(-0.1), "val/acc": pytest.approx(0.8)}
    # 9. How does loss depend on the learning rate?
    table = ask("runs", "--json", "lr,loss.min", "--sort", "lr", "-n", "30")
    losses = [each["loss.min"] for each in table if each["lr"][:5] not in ("0.2", "0.018")]
    assert len(losses) == 28
    assert losses == sorted(losses, reverse=True)
    # 10. Which runs has one team trained with a batch of 64?
    found = ask("runs", "tags.team = 'a' and params.batch = '64'", "--json", "name")
    assert [each["name"] for each in found] == ["trial-28", "trial-22", "trial-16", "trial-10", "trial-04"]
