"""``meta.yaml`` of experiments and runs: bytes, the mapping MLflow keeps there, and our entities."""

from __future__ import annotations

from functools import cache
from typing import Any

from asynctrack.entities import Experiment, LifecycleStage, RunInfo, RunStatus, SourceType
from asynctrack.stores.file.flat import flat_mapping

__all__ = [
    "dump",
    "encoded_experiment",
    "encoded_run",
    "experiment_from_meta",
    "experiment_meta",
    "load",
    "printable",
    "run_from_meta",
    "run_meta",
]


@cache
def _yaml() -> tuple[Any, Any, Any]:
    """The module, the safe loader and the safe dumper: libyaml's where there is one, which is ten times as fast."""
    import yaml

    return yaml, getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(data: bytes) -> dict[str, Any]:
    """The mapping in ``data``. Raises ValueError where there is none, as in a file torn by a crash."""
    flat = flat_mapping(data.decode("ascii")) if data.isascii() else None
    if flat is not None:
        return flat
    yaml, loader, _ = _yaml()
    try:
        found = yaml.load(data, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is empty" if found is None else "it holds no mapping")
    return found


def dump(meta: dict[str, Any]) -> bytes:
    """UTF-8, block style, keys sorted, as MLflow writes it. Strings that YAML could take for a number are quoted.

    Raises ValueError for what YAML cannot hold.
    """
    yaml, _, dumper = _yaml()
    try:
        text: str = yaml.dump(meta, Dumper=dumper, default_flow_style=False, allow_unicode=True, sort_keys=True)
    except yaml.YAMLError as error:
        raise ValueError(f"it cannot be written as YAML: {' '.join(str(error).split())}") from error
    return text.encode("utf-8")


def encoded_run(meta: dict[str, Any], run_id: str, experiment_id: str) -> tuple[bytes, RunInfo]:
    """The bytes of a run's file, and the run as it will be read from them: a run that could not be read again must not
    be written. Raises ValueError."""
    data = dump(meta)
    return data, run_from_meta(load(data), run_id, experiment_id)


def encoded_experiment(meta: dict[str, Any], experiment_id: str) -> bytes:
    """The bytes of an experiment's file. Raises ValueError where it could not be read again."""
    data = dump(meta)
    experiment_from_meta(load(data), experiment_id, {})
    return data


def printable(text: str) -> str:
    """``text`` with lone surrogates, which UTF-8 cannot hold, replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def run_meta(info: RunInfo) -> dict[str, Any]:
    """What MLflow writes for a run that is being created: every version, so that every version reads it."""
    return {
        "artifact_uri": info.artifact_uri,
        "deleted_time": None,
        "end_time": info.end_time,
        "entry_point_name": "",
        "experiment_id": info.experiment_id,
        "lifecycle_stage": info.lifecycle_stage,
        "run_id": info.run_id,
        "run_name": printable(info.run_name or ""),
        "run_uuid": info.run_id,  # MLflow before 3.0 finds no run in the whole store where one lacks it
        "source_name": "",
        "source_type": SourceType.LOCAL,
        "source_version": "",
        "start_time": info.start_time,
        "status": RunStatus.from_string(info.status),
        "tags": [],
        "user_id": printable(info.user_id),
    }


def run_from_meta(meta: dict[str, Any], run_id: str, experiment_id: str) -> RunInfo:
    """The run in the folder ``<experiment_id>/<run_id>``. Raises ValueError where the file is another run's."""
    for name, expected in (("run_id", run_id), ("experiment_id", experiment_id)):
        # "run_uuid" alone is what MLflow wrote before 1.0
        found = meta.get(name, meta.get("run_uuid") if name == "run_id" else None)
        if _text(found) != expected:
            raise ValueError(f"its {name} is {found!r}, not {expected!r}")
    return RunInfo(
        run_id=run_id,
        experiment_id=experiment_id,
        user_id=_text(meta.get("user_id")),
        status=RunStatus.to_string(_integer(meta, "status") if "status" in meta else RunStatus.RUNNING),
        start_time=_integer(meta, "start_time"),
        end_time=None if meta.get("end_time") is None else _integer(meta, "end_time"),
        run_name=_text(meta.get("run_name") or meta.get("name")) or None,
        lifecycle_stage=_stage(meta),
        artifact_uri=None if meta.get("artifact_uri") is None else _text(meta["artifact_uri"]),
    )


def experiment_meta(experiment: Experiment) -> dict[str, Any]:
    """What MLflow writes for an experiment that is being created."""
    return {
        "artifact_location": experiment.artifact_location,
        "creation_time": experiment.creation_time,
        "effective_trace_archival_retention": None,
        "experiment_id": experiment.experiment_id,
        "last_update_time": experiment.last_update_time,
        "lifecycle_stage": experiment.lifecycle_stage,
        "name": experiment.name,
        "trace_location": None,
        "workspace": "default",
    }


def experiment_from_meta(meta: dict[str, Any], experiment_id: str, tags: dict[str, str]) -> Experiment:
    """The experiment in the folder ``<experiment_id>``. Raises ValueError where the file is another experiment's."""
    if _text(meta.get("experiment_id")) != experiment_id:
        raise ValueError(f"its experiment_id is {meta.get('experiment_id')!r}, not {experiment_id!r}")
    if meta.get("name") is None:
        raise ValueError("it has no name")
    return Experiment(
        experiment_id=experiment_id,
        name=_text(meta["name"]),
        artifact_location=_text(meta.get("artifact_location")),
        lifecycle_stage=_stage(meta),
        tags=tags,
        creation_time=None if meta.get("creation_time") is None else _integer(meta, "creation_time"),
        last_update_time=None if meta.get("last_update_time") is None else _integer(meta, "last_update_time"),
    )


def _text(value: object) -> str:
    if isinstance(value, (list, dict, tuple, set)):
        raise ValueError("a text in it is a collection")  # aliases can make a small one endless
    return "" if value is None else str(value)


def _integer(meta: dict[str, Any], name: str) -> int:
    value = meta.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise ValueError(f"its {name} is {_text(value)!r}, not a whole number of 64 bits")
    return value


def _stage(meta: dict[str, Any]) -> str:
    stage = meta.get("lifecycle_stage", LifecycleStage.ACTIVE)
    if stage not in (LifecycleStage.ACTIVE, LifecycleStage.DELETED):
        raise ValueError(f"its lifecycle_stage is {_text(stage)!r}")
    return str(stage)
