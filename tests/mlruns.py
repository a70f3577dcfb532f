"""Reads MLflow's file layout with nothing of ours: what the tests believe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


class StoredRun(NamedTuple):
    run_id: str
    status: str
    meta: dict[str, Any]
    metrics: dict[str, list[tuple[int, float, int]]]
    params: dict[str, str]
    tags: dict[str, str]


def read_runs(root: Path) -> dict[str, StoredRun]:
    """Every run below a store's root; fails on anything that MLflow's reader would fail on."""
    runs = {}
    for meta_path in sorted(root.glob("[!.]*/*/meta.yaml")):  # not in .trash
        folder = meta_path.parent
        meta = yaml.safe_load(meta_path.read_text())
        runs[folder.name] = StoredRun(
            meta["run_id"],
            STATUS[meta["status"]],
            meta,
            {name: _points(path) for name, path in _files(folder / "metrics")},
            {name: path.read_text() for name, path in _files(folder / "params")},
            {name: path.read_text() for name, path in _files(folder / "tags")},
        )
    return runs


def only_run(root: Path) -> StoredRun:
    """The one run of a store."""
    (run,) = read_runs(root).values()
    return run


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _points(path: Path) -> list[tuple[int, float, int]]:
    text = path.read_text()
    assert text.endswith("\n"), f"torn last line in {path}"
    points = []
    for line in text.splitlines():
        timestamp, value, step = line.split(" ")
        points.append((int(timestamp), float(value), int(step)))
    return points
