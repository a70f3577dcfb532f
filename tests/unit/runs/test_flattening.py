"""Params as MLflow logs them, and flat on demand, as Lightning's loggers make them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import InvalidInputError
from asynctrack.runs.flattening import flattened
from tests.mlruns import only_run


@dataclasses.dataclass
class Optimizer:
    """A configuration as programs write them."""

    name: str
    betas: tuple[float, float]


def flat(params: object, delimiter: Any = ".", max_depth: Any = None) -> dict[Any, Any]:
    return dict(flattened(params, delimiter, max_depth, lambda key: "$" not in key and len(key) <= 250))


def test_params_are_logged_as_mlflow_logs_them(tmp_path: Path) -> None:
    """A dictionary is one param, with its text, however many entries it has and whatever they are called."""
    config = {"opt": {"name": "adam"}, "w": {"a$b": 1}, "labels": {str(number): number for number in range(400)}}
    with asynctrack.start_run(tracking_uri=str(tmp_path / "store")) as run:
        run.log_params(config)
        run.log_param("one", {"a": [1]})
    assert only_run(tmp_path / "store").params == {
        "opt": "{'name': 'adam'}",
        "w": "{'a$b': 1}",
        "labels": str(config["labels"]),
        "one": "{'a': [1]}",
    }


def test_and_flat_for_who_asks_for_it(tmp_path: Path) -> None:
    """By the function on the active run, too. What the store can hold as a key decides."""
    asynctrack.set_tracking_uri(tmp_path / "store")
    with asynctrack.start_run():
        asynctrack.log_params({"opt": {"name": "adam"}, "w": {"a$b": 1}, "d": {"e": {"f": 1}}}, flatten="/")
        asynctrack.log_params({"x": {"y": {"z": 1}}}, flatten=".", max_depth=2)
    assert only_run(tmp_path / "store").params == {
        "opt/name": "adam",
        "w": "{'a$b': 1}",
        "d/e/f": "1",
        "x.y": "{'z': 1}",
    }


def test_what_is_nested_is_joined() -> None:
    """Dictionaries, dataclasses, namespaces, lists of dictionaries; not lists of values, and nothing that is empty."""
    nested = {"a": {"b": {"c": 1}, 2: 2}, "e": {}, "l": [1, {"a": 1}], "dl": [{"a": 1}, {"b": {"c": 3}}], "n": []}
    assert flat(nested) == {
        "a.b.c": 1, "a.2": 2, "e": {}, "l": [1, {"a": 1}], "dl.0.a": 1, "dl.1.b.c": 3, "n": [],
    }  # fmt: skip
    model = {"opt": Optimizer("adam", (0.9, 0.99)), "kind": Optimizer, "space": SimpleNamespace(deep={"x": 1})}
    assert flat(model) == {
        "opt.name": "adam", "opt.betas": (0.9, 0.99), "kind": Optimizer, "space.deep.x": 1,
    }  # fmt: skip
    assert flat(argparse.Namespace(lr=0.1, opt={"name": "sgd"}), "/") == {"lr": 0.1, "opt/name": "sgd"}


def test_no_key_has_more_names_than_asked_for() -> None:
    nested = {"a": {"b": {"c": 1}}, "x": 1}
    assert flat(nested, max_depth=1) == nested
    assert flat(nested, max_depth=2) == {"a.b": {"c": 1}, "x": 1}
    assert flat(nested, max_depth=3) == {"a.b.c": 1, "x": 1}


def test_what_cannot_be_taken_apart_stays_one_param() -> None:
    """A name that no key can contain, two names of one text, a dictionary in itself, one that is endlessly deep."""
    assert flat({"w": {"in": {"a$b": 1}, "c": 2}}) == {"w.in": {"a$b": 1}, "w.c": 2}
    assert flat({"w": {1: "a", "1": "b"}}) == {"w": {1: "a", "1": "b"}}
    inner: dict[str, object] = {"a": 1}
    assert flat({"x": inner, "y": {"z": inner}}) == {"x.a": 1, "y.z.a": 1}
    inner["b"] = {"c": inner}
    assert flat({"x": inner}) == {"x.a": 1, "x.b.c": inner}
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"d": deep}
    assert len(flat({"x": deep})) == 1


@pytest.mark.parametrize(
    ("params", "options", "says"),
    [
        ([("a", 1)], {}, "dictionary"),
        ([{"a": 1}], {"flatten": "."}, "dictionary"),
        ({"a": 1}, {"flatten": True}, "flatten=True"),
        ({"a": 1}, {"flatten": ""}, "flatten=''"),
        ({"a": 1}, {"flatten": ".", "max_depth": 0}, "max_depth=0"),
        ({"a": 1}, {"flatten": ".", "max_depth": True}, "max_depth=True"),
        ({"a": 1}, {"max_depth": 2}, "max_depth="),
        ({"a": {"b": 1}, "a.b": 2}, {"flatten": "."}, "a.b"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    params: Any, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with asynctrack.start_run(tracking_uri=str(tmp_path / "store")) as run:
        with pytest.raises(InvalidInputError, match=says):
            run.log_params(params, **options)
        run.log_params({"z": 1})
    assert only_run(tmp_path / "store").params == {"z": "1"}
