"""The stores that programs log to in these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fault.programs import Lab, file_lab, postgres_lab, server_lab, sqlite_lab
from tests.rest import support

#: on which each test is run, unless it says otherwise; of file, server, sqlite, postgres
STORES = os.environ.get("FAULT_STORES", "file,server").split(",")


@pytest.fixture(params=STORES)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A folder and a store: MLflow's files, a real MLflow server on SQLite, or one of MLflow's databases."""
    with ExitStack() as stack:
        if request.param == "file":
            yield file_lab(tmp_path)
        elif request.param == "sqlite":
            yield sqlite_lab(tmp_path)
        elif request.param == "postgres":
            yield postgres_lab(tmp_path, request.getfixturevalue("postgres_cluster"), support.fresh(), stack)
        else:
            yield server_lab(tmp_path, request.getfixturevalue("sqlite_server"), support.fresh(), stack)
