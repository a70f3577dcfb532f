"""Faults in random mixtures, in front of real servers: each event is stored once, or kept with the reason.

When a test fails, what it prints repeats the mixture: ``Mixture(seed, rates)``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import asynctrack
from tests.faults import KINDS, Mixture
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer

#: what an example logs, as in the tests of single faults
EVENTS = 20_000

mixtures = st.builds(
    Mixture,
    st.integers(0, 2**32),
    st.dictionaries(st.sampled_from(sorted(KINDS)), st.floats(0.01, 0.12), min_size=1, max_size=5),
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


def check(server: MlflowServer, mixture: Mixture) -> None:
    """One run through the mixture, from its creation to its end."""
    note(repr(mixture))
    with FaultProxy(server.url) as proxy:
        proxy.always(mixture)
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run:
            support.log_events(run, EVENTS)
        asynctrack.shutdown()
    rejected = [
        json.loads(line)
        for path in Path(".asynctrack").glob("*/rejected.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert rejected == [], mixture
    support.assert_all_stored(server, run.run_id, EVENTS)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(mixture=mixtures)
def test_no_mixture_of_faults_loses_or_doubles_anything_on_sqlite(
    sqlite_server: MlflowServer, mixture: Mixture
) -> None:
    """MLflow on SQLite."""
    check(sqlite_server, mixture)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(mixture=mixtures)
def test_no_mixture_of_faults_loses_or_doubles_anything_on_postgresql(
    postgres_server: MlflowServer, mixture: Mixture
) -> None:
    """MLflow on PostgreSQL, with two workers."""
    check(postgres_server, mixture)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(mixture=mixtures)
def test_no_mixture_of_faults_loses_or_doubles_anything_on_files(file_server: MlflowServer, mixture: Mixture) -> None:
    """MLflow on its file layout, which would keep doubles."""
    check(file_server, mixture)
