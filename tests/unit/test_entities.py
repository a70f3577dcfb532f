"""The entities: frozen values with the names of both generations of MLflow."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys

import pytest

from asynctrack.entities import (
    Experiment,
    FileInfo,
    LifecycleStage,
    Metric,
    PagedList,
    Param,
    Run,
    RunData,
    RunInfo,
    RunStatus,
    RunTag,
    SourceType,
    ViewType,
)
from asynctrack.errors import InvalidInputError

INFO = RunInfo("r1", "7", "ann", "FINISHED", 1, 2, "active", "file:///a", "first")
POINT = Metric("loss", 0.5, 10, 3)
EVERY = [
    INFO,
    POINT,
    Param("lr", "1"),
    RunTag("t", "v"),
    RunData.of([POINT], {"lr": "1"}, {"t": "v"}),
    Run(INFO, RunData({"loss": 0.5})),
    Experiment("7", "vision", "s3://b", tags={"k": "v"}, creation_time=5),
    FileInfo("model/weights.bin", False, 12),
]


@pytest.mark.parametrize("entity", EVERY, ids=lambda entity: type(entity).__name__)
def test_an_entity_cannot_be_changed_and_shows_what_it_holds(entity: object) -> None:
    """It is a value: equal to another with the same fields, also behind pickle."""
    first = next(iter(dataclasses.fields(entity)))  # type: ignore[arg-type]  # all are dataclasses
    for name in (first.name, "no_such_field"):
        with pytest.raises(AttributeError, match=rf"{type(entity).__name__}\.{name} cannot be changed"):
            setattr(entity, name, None)
    with pytest.raises(AttributeError, match="cannot be changed"):
        delattr(entity, first.name)
    assert pickle.loads(pickle.dumps(entity)) == entity == copy.deepcopy(entity)
    assert f"{first.name}={getattr(entity, first.name)!r}" in repr(entity)
    assert not hasattr(entity, "__dict__")


@pytest.mark.parametrize("entity", EVERY, ids=lambda entity: type(entity).__name__)
def test_to_dictionary_is_ready_for_json(entity: Run) -> None:
    """Every attribute, entities within as dictionaries too."""
    found = entity.to_dictionary()
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [name for name, value in entity if value is not None or not isinstance(entity, Run)]
    assert type(entity).from_dictionary({**found, "another": 1}) == entity


def test_a_runs_dictionary_has_mlflows_form() -> None:
    """Info and data, as `mlflow.entities.Run.to_dictionary` has them."""
    found = Run(INFO, RunData({"loss": 0.5}, {"lr": "1"}, {"t": "v"})).to_dictionary()
    assert found["info"]["run_id"] == "r1"
    assert found["data"] == {"metrics": {"loss": 0.5}, "params": {"lr": "1"}, "tags": {"t": "v"}}


def test_the_names_of_2018_are_there() -> None:
    """run_uuid and name, which are run_id and run_name today."""
    assert (INFO.run_uuid, INFO.name) == (INFO.run_id, INFO.run_name) == ("r1", "first")


def test_the_latest_points_keep_step_and_time() -> None:
    """Beside the dictionary of values, for whoever iterates over metrics; comparing runs does not look at them."""
    data = RunData.of([POINT, Metric("acc", 1.0, 11)], {}, {})
    assert data.metrics == {"loss": 0.5, "acc": 1.0}
    assert data.latest["loss"].step == 3
    assert data == RunData({"loss": 0.5, "acc": 1.0})


def test_enumerations_have_mlflows_numbers_and_names() -> None:
    """Both ways, and nothing else."""
    assert (RunStatus.RUNNING, RunStatus.KILLED, ViewType.ALL, SourceType.UNKNOWN) == (1, 5, 3, 5)
    assert [RunStatus.from_string(RunStatus.to_string(number)) for number in RunStatus.all_status()] == [1, 2, 3, 4, 5]
    assert (RunStatus.name_of("FAILED"), RunStatus.name_of(4)) == ("FAILED", "FAILED")
    assert SourceType.to_string(SourceType.LOCAL) == "LOCAL"
    for wrong in ("finished", "", None, 0, 9, True, 3.0):
        with pytest.raises(ValueError, match="must be one of"):
            RunStatus.name_of(wrong)  # type: ignore[arg-type]  # that is the point


def test_views_and_stages_are_those_of_mlflow() -> None:
    """By MLflow's names, in lower case, and by those that its servers send."""
    names = ["active_only", "deleted_only", "all"]
    stages = ["active", "deleted"]
    assert [ViewType.to_string(view) for view in (1, 2, 3)] == names
    assert [ViewType.from_string(name) for name in (*names, "ALL")] == [1, 2, 3, 3]
    assert [LifecycleStage.view_type_to_stages(view) for view in (1, 2, 3)] == [["active"], ["deleted"], stages]
    assert [stage for stage in ("active", "deleted", "gone", None) if LifecycleStage.is_valid(stage)] == stages
    for wrong in ("nothing", None, 3):
        with pytest.raises(ValueError, match="is not a ViewType"):
            ViewType.from_string(wrong)  # type: ignore[arg-type]  # that is the point


def test_a_terminated_status_is_told_by_name_and_by_number() -> None:
    """`RunInfo.status` is a name today and was a number once."""
    assert RunStatus.is_terminated(INFO.status)
    assert RunStatus.is_terminated(RunStatus.KILLED)
    assert not RunStatus.is_terminated("SCHEDULED")


def test_a_page_is_a_list_with_a_token() -> None:
    """As MLflow's PagedList."""
    page = PagedList([POINT], "more")
    assert (page, page.token, page.to_list()) == ([POINT], "more", [POINT])


def test_run_data_is_made_of_lists_too() -> None:
    """MLflow's constructor; what is neither is refused."""
    data = RunData([POINT], [Param("lr", "1")], [RunTag("t", "v")])
    assert data == RunData({"loss": 0.5}, {"lr": "1"}, {"t": "v"})
    assert data.latest == {"loss": POINT}
    assert Experiment("7", "vision", "s3://b", tags=[RunTag("k", "v")]).tags == {"k": "v"}  # type: ignore[arg-type]  # as MLflow's
    with pytest.raises(InvalidInputError, match="metrics: expected a dictionary"):
        RunData([0.5])  # type: ignore[list-item]  # that is the point


def test_a_metric_says_what_it_was_measured_on() -> None:
    """MLflow 3's fields, in its order; a dataset's name goes with its digest."""
    point = Metric("loss", 0.5, 10, 3, "m-1", "train", "d1", "r1")
    assert point.to_dictionary() == {
        "key": "loss", "value": 0.5, "timestamp": 10, "step": 3,
        "model_id": "m-1", "dataset_name": "train", "dataset_digest": "d1", "run_id": "r1",
    }  # fmt: skip
    assert Metric.from_dictionary(point.to_dictionary()) == point != POINT
    assert (POINT.model_id, POINT.dataset_name, POINT.dataset_digest, POINT.run_id) == (None,) * 4
    with pytest.raises(InvalidInputError, match="dataset_digest=None go together"):
        Metric("loss", 0.5, 10, 3, dataset_name="train")


def test_an_entity_is_a_dataclass_to_those_who_ask() -> None:
    """With fields, defaults, a signature; `replace`, `asdict`, `match` and classes derived from it work."""
    assert all(map(dataclasses.is_dataclass, map(type, EVERY)))
    assert dataclasses.replace(INFO, run_name="second").run_name == "second"
    assert INFO.__replace__(run_name="second").run_name == "second"  # what `copy.replace` calls since Python 3.13
    assert dataclasses.asdict(POINT)["step"] == 3 == dataclasses.astuple(POINT)[3]
    assert str(inspect.signature(FileInfo)) == "(path: 'str', is_dir: 'bool', file_size: 'int | None' = None) -> None"
    assert list(inspect.signature(Run).parameters) == ["run_info", "run_data", "run_inputs", "run_outputs"]
    match Param("lr", "1"):
        case Param(key, value):
            assert (key, value) == ("lr", "1")
    with pytest.raises(TypeError, match=r"Param\.__init__\(\) missing 1 required positional argument: 'value'"):
        Param("lr")  # type: ignore[call-arg]  # that is the point


def test_a_class_derived_from_an_entity_calls_its_constructor_though_nobody_has_yet() -> None:
    """In a program of its own: here somebody has made each of them."""
    code = """
import asynctrack.entities as e, dataclasses, inspect, sys
assert "dataclasses" not in vars(e)
class Scored(e.FileInfo):
    def __init__(self, path):
        super().__init__(path, False)
made = Scored("a")
assert (made.path, made.is_dir, made.file_size) == ("a", False, None), made
assert list(inspect.signature(Scored).parameters) == ["path"]
assert e.FileInfo("b", True) != made
one, two = e.Experiment("1", "a", "b"), e.Experiment("1", "a", "b")
assert one == two and one.tags is not two.tags
@dataclasses.dataclass(frozen=True)
class More(e.Param):
    unit: str = "s"
assert dataclasses.astuple(More("a", "1")) == ("a", "1", "s")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
