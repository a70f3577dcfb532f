"""Copies of what belongs to a run: the same run. Pickles: a handle that logs to it, wherever it is loaded."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.journal.opening import Descriptor
from tests.mlruns import only_run


class Model:
    """What a framework copies, for a moving average of its weights say."""

    def __init__(self, run: asynctrack.ActiveRun) -> None:
        self.run = run
        self.log = run.log_metric
        self.receipt = run.log_text("said", "note.txt")


def test_a_copied_run_is_the_same_run(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        model = copy.deepcopy(Model(run))
        assert model.run is run
        assert copy.copy(run) is run
        model.log("loss", 0.5, 0)
        del model
        gc.collect()
        run.log_metric("loss", 0.5, 1)
    assert [step for *_, step in only_run(tmp_path / "mlruns").metrics["loss"]] == [0, 1]
    asynctrack.shutdown()
    assert not list(tmp_path.glob(".asynctrack/*-*"))


@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_a_pickled_run_is_attached_to_where_it_is_loaded(dumps: Callable[[Any], Any], tmp_path: Path) -> None:
    """Here, in the same process, that is the same run; see tests/fault/test_attached.py for other processes."""
    with asynctrack.start_run() as run:
        for step, thing in enumerate((run, run.log_metric)):
            loaded = pickle.loads(dumps(thing))
            log = loaded.log_metric if thing is run else loaded
            log("loss", 0.5, step)
        attached = pickle.loads(dumps(run))
        assert isinstance(attached, asynctrack.AttachedRun)
        assert attached == run
        attached.detach()
        assert not run.ended
    assert [step for *_, step in only_run(tmp_path / "mlruns").metrics["loss"]] == [0, 1]


def test_a_pickled_run_names_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MODE", "offline")
    run = asynctrack.start_run(tracking_uri="http://somebody:secret@localhost:1", wait=False)
    data = pickle.dumps(run)
    assert b"localhost" in data
    assert b"secret" not in data
    run.terminate()


def test_a_pickled_receipt_says_what_to_do() -> None:
    with asynctrack.start_run() as run:
        receipt = Model(run).receipt
        with pytest.raises(TypeError, match=r"the receipt of note\.txt cannot be pickled: wait for it"):
            pickle.dumps(receipt)


def test_an_open_file_of_a_spool_is_not_copied() -> None:
    """The copy would close it when it is collected, and perhaps another file that has got the number since."""
    with open(__file__, "rb") as file:
        held = Descriptor(file.fileno())
        try:
            with pytest.raises(TypeError, match="cannot be copied"):
                copy.deepcopy(held)
            with pytest.raises(TypeError, match="cannot be copied"):
                copy.copy(held)
        finally:
            held.fd = -1
        assert file.read(1)
