"""The stores that programs log to in these tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fault.programs import Lab, file_lab, server_lab
from tests.rest import support


@pytest.fixture(params=["file", "server"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A folder and a store: MLflow's files, or a real MLflow server on SQLite."""
    with ExitStack() as stack:
        if request.param == "file":
            yield file_lab(tmp_path)
        else:
            yield server_lab(tmp_path, request.getfixturevalue("sqlite_server"), support.fresh(), stack)
