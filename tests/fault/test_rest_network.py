"""What goes wrong between a program and its MLflow server, one thing at a time, while it logs twenty thousand events.

Each event is stored once, the log calls do not notice, and the user is told when it begins and when it is over.
"""

from __future__ import annotations

import pytest

import asynctrack
from tests import faults
from tests.faults import Fault
from tests.proxy import FaultProxy
from tests.rest import support
from tests.rest.support import assert_all_stored, assert_quick, log_events, spoken
from tests.servers import MlflowServer

ALONE: dict[str, tuple[Fault | None, ...]] = {
    "a host that is down for a while": (None, faults.Refuse(0.5)),
    "connections on which nothing comes back, and which break": (None, *[faults.Silent(0.3)] * 3),
    "requests cut in the head": (None, *[faults.CutRequest(40)] * 3),
    "requests cut in the body": (None, *[faults.CutRequest(20_000)] * 3),
    "answers cut in the head": (None, *[faults.CutResponse(10)] * 3),
    "answers cut in the body": (None, *[faults.CutResponse(150, reset=True)] * 3),
    "lost answers": (None, *[faults.LoseAnswer()] * 4),
    "answers that drip": (None, *[faults.Drip(1, 0.002)] * 3),
    "connections that end after an answer": (*[faults.CloseAfter()] * 6,),
    "429": (None, *[faults.too_many()] * 4),
    "429 with Retry-After": (None, faults.too_many(1)),
    "a storm of 503": (None, *[faults.unavailable(503)] * 8),
    "500 to what was stored": (None, *[faults.unavailable(500, applied=True)] * 2),
    "504 to what was stored": (None, *[faults.unavailable(504, applied=True)] * 4),
    "a gateway's page, 502": (None, *[faults.html(502)] * 4),
    "half of an answer's JSON, to what was stored": (None, *[faults.garbage(applied=True)] * 4),
    "half of an answer's JSON, to what was not": (None, *[faults.garbage()] * 4),
    "an empty answer": (None, faults.empty(), faults.empty(applied=True)),
    "400, as somebody else was the first to write that param": (
        None,
        faults.error(400, "BAD_REQUEST", "(psycopg.errors.UniqueViolation) duplicate key value, constraint param_pk"),
    ),
    "401 for a while": (None, *[faults.unauthorized()] * 3),
    "403 for a while": (None, *[faults.forbidden()] * 3),
    "a login page for a while": (None, *[faults.html(200)] * 3),
    "a body that is too large for what is on the way": (*[faults.too_large(early=True)] * 3,),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


@pytest.mark.parametrize("what", ALONE)
def test_nothing_is_lost_or_doubled_by(
    what: str, sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Alone, and whatever it is."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.plan(*ALONE[what], path="runs/log-batch")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            took = log_events(run)
        assert not [
            record for record in proxy.requests_to("log-batch") if record.fault is None and record.status != 200
        ]
        assert any(record.fault for record in proxy.requests_to("log-batch"))
    assert_all_stored(sqlite_server, run.run_id)
    assert len(spoken(caplog)) <= 2, spoken(caplog)
    assert_quick(took)
