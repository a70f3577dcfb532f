"""Where MLflow's file store keeps what: names, ids and addresses. Nothing here touches the disk.

::

    <root>/
      .trash/                     deleted experiments, moved here whole
      <experiment id>/
        meta.yaml
        tags/<key>                experiment tags
        <run id>/
          meta.yaml
          metrics/<key>           "<timestamp ms> <value> <step>" lines; a key's slashes are sub-directories
          params/<key>  tags/<key>
          artifacts/
"""

from __future__ import annotations

import os
import pathlib
import random
import re

__all__ = [
    "ARTIFACTS",
    "DEFAULT_EXPERIMENT_ID",
    "DEFAULT_EXPERIMENT_NAME",
    "FOLDERS",
    "META",
    "METRICS",
    "PARAMS",
    "RUN_NAME_TAG",
    "TAGS",
    "TRASH",
    "append_to_uri",
    "is_experiment_id",
    "is_run_id",
    "key_path",
    "local_uri",
    "new_experiment_id",
]

TRASH = ".trash"
META = "meta.yaml"
METRICS, PARAMS, TAGS, ARTIFACTS = "metrics", "params", "tags", "artifacts"
#: the folder that holds each kind of event
FOLDERS = {"metric": METRICS, "param": PARAMS, "tag": TAGS}
DEFAULT_EXPERIMENT_ID = "0"
DEFAULT_EXPERIMENT_NAME = "Default"
RUN_NAME_TAG = "mlflow.runName"

_EXPERIMENT_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,63}", re.ASCII)
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}", re.ASCII)
#: folders beside the experiments, and beside the runs of one, which are neither
_NOT_EXPERIMENTS = {"models"}
_NOT_RUNS = {TAGS, "datasets", "traces", "models"}


def is_experiment_id(text: object) -> bool:
    """Whether an experiment may have this id; False for anything that could lead out of the store."""
    return isinstance(text, str) and _EXPERIMENT_ID.fullmatch(text) is not None and text not in _NOT_EXPERIMENTS


def is_run_id(text: object) -> bool:
    """Whether a run may have this id; False for anything that could lead out of the store."""
    return isinstance(text, str) and _RUN_ID.fullmatch(text) is not None and text not in _NOT_RUNS


def new_experiment_id() -> str:
    """18 random decimal digits, the first not zero: MLflow's migration keeps integer ids only."""
    return str(random.SystemRandom().randrange(10**17, 10**18))


def key_path(run_dir: str, kind: str, key: str) -> str:
    """The file of one checked key; ``kind`` is "metric", "param" or "tag"."""
    return os.path.join(run_dir, FOLDERS[kind], key)


def local_uri(path: str) -> str:
    """``file:///absolute/path``, percent-encoded."""
    return pathlib.Path(os.path.abspath(path)).as_uri()


def append_to_uri(uri: str, *parts: str) -> str:
    """``uri`` with more path parts, before its query where it has one."""
    path, mark, query = uri.partition("?")
    return "/".join([path.rstrip("/"), *parts]) + mark + query
