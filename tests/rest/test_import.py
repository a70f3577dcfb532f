"""A folder of MLflow's files goes into servers and databases: what is read there is what was in the files."""

from __future__ import annotations

from pathlib import Path

import pytest

import asynctrack
from asynctrack.constants import UID_TAG
from asynctrack.errors import UnavailableError
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from asynctrack.testing import FaultyStore
from tests.imports import contents, make_source
from tests.servers import MlflowServer


def import_and_compare(uri: str, tmp_path: Path) -> None:
    """Once with an interruption, once more, and once for nothing."""
    made = make_source(tmp_path / "mlruns", points=300)
    store = open_store(uri, InlineIO())
    faulty = FaultyStore(store)
    faulty.client = store.client
    faulty.fail("log_batch", UnavailableError("switched off"), nth=7)
    with pytest.raises(UnavailableError, match="switched off"):
        asynctrack.import_runs(made.root, to=faulty, timeout=0)
    done = asynctrack.import_runs(made.root, to=uri)
    assert done.problems == (), done
    expected = contents(FileStore(made.root, InlineIO()), made.vision, made.gone)
    assert contents(store, made.vision, made.gone) == expected
    done = asynctrack.import_runs(made.root, to=uri)
    assert (done.runs, done.present, done.problems) == (1, 4, ())  # one is running still, and is looked at again
    assert contents(store, made.vision, made.gone) == expected
    parent = drive(store.get_run(made.parent))  # by the id that it had first, everywhere
    assert parent.data.tags.get(UID_TAG, parent.info.run_id) == made.parent
    found = Path(asynctrack.artifacts.download_artifacts(run_id=parent.info.run_id, tracking_uri=uri))
    assert (found / "plots" / "a b.txt").read_text() == "hello"
    drive(store.aclose())


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_into_a_server_which_gives_ids_of_its_own(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The old ids are in a tag, and nested runs name the new one of their parent."""
    server: MlflowServer = request.getfixturevalue(f"{kind}_server")
    import_and_compare(server.url, tmp_path)


def test_into_postgresql(postgres_database: str, tmp_path: Path) -> None:
    import_and_compare(postgres_database, tmp_path)
