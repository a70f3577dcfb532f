"""A credential reaches the tracking server and nothing else: no file, no log line, no message, no traceback."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack.engine.lifecycle import engine_for
from tests import faults
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer

#: what is looked for, in whatever it stands; base64 of a part would show too
SECRET = "hunter2hunter2hunter2"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


@pytest.fixture(params=["basic", "userinfo", "bearer", "callable"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the credential is given."""
    way: str = request.param
    if way == "basic":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    elif way == "bearer":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    elif way == "callable":
        asynctrack.configure(token=lambda: SECRET)
    return way


def address(proxy: FaultProxy, way: str) -> str:
    return proxy.url.replace("://", f"://ada:{SECRET}@") if way == "userinfo" else proxy.url


def failure_of(uri: str, run_id: str) -> BaseException | None:
    """What a user's call raises."""
    try:
        asynctrack.get_service(uri).get_run(run_id)
    except asynctrack.AsynctrackError as error:
        traceback_below = error.__traceback__.tb_next if error.__traceback__ else None
        return error.with_traceback(traceback_below)  # without this frame, whose ``uri`` is the user's own
    return None


def shown(error: BaseException) -> Iterator[str]:
    """All that a traceback, a debugger or a crash reporter shows of an error."""
    yield repr(error)
    yield "".join(traceback.format_exception(error))
    yield "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def forms() -> list[bytes]:
    """The secret, and as it stands in an ``Authorization: Basic`` header."""
    from base64 import b64encode

    return [SECRET.encode(), b64encode(f"ada:{SECRET}".encode())]


def test_no_credential_is_written_logged_or_shown_whatever_goes_wrong(
    way: str, sqlite_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With failures of every kind on the way, and every log line of every library."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with FaultProxy(sqlite_server.url) as proxy:
        uri = address(proxy, way)
        trouble: list[faults.Fault] = [
            *(faults.CutResponse(20), faults.unauthorized(), faults.forbidden(), faults.html()),
            *(
                faults.garbage(),
                faults.redirect("http://example.com/login"),
                faults.unavailable(500),
                faults.Silent(0.1),
            ),
            *(faults.forbidden("Invalid Host header"), faults.too_large(early=True), faults.html(200)),
        ]
        with asynctrack.start_run(tracking_uri=uri, experiment_name=support.fresh()) as run:
            run.flush()
            proxy.plan(faults.Refuse(0.1), *trouble, path="log-batch")
            support.log_events(run, 3000)
            support.until(lambda: run.stats().retries >= 3)
            engine = engine_for(uri)
            said += [repr(each) for each in (run, run.info, run.stats(), engine.settings, engine.store)]
            said += [repr(engine.store.__dict__), repr(vars(engine.store.client)), run.tracking_uri]
        assert {record.header("authorization").partition(" ")[0] for record in proxy.requests} <= {"Basic", "Bearer"}
        with asynctrack.start_run(tracking_uri=uri, experiment_name=support.fresh()) as run:
            run.log_metric("a", 1.0)
            run.flush()
            proxy.refuse()
            run.log_metric("b", 1.0)
            support.until(lambda: run.stats().last_error)
            # What is on the disk while events wait there.
            files = [path.read_bytes() for path in Path(".asynctrack").rglob("*") if path.is_file()]
            proxy.heal()
        for fault in trouble:
            proxy.plan(fault, fault, path="runs/get")
            error = failure_of(uri, run.run_id)
            said += shown(error) if error is not None else ()
            proxy.heal()
        assert len(said) > 20
    assert files
    said += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    everything = b"\n".join([*files, *(text.encode() for text in said)])
    for form in forms():
        assert form not in everything, everything[max(everything.index(form) - 300, 0) :][:600]


def test_a_redirect_to_another_host_never_carries_a_credential(way: str, sqlite_server: MlflowServer) -> None:
    """It is not followed at all, and the message says where it led."""
    asynctrack.configure(close_timeout=0.5)
    with FaultProxy(None) as thief, FaultProxy(sqlite_server.url) as proxy:
        proxy.always(faults.redirect(f"{thief.url}/api/2.0/mlflow/runs/create"))
        with (
            pytest.raises(asynctrack.StoreError, match="redirected to") as raised,
            asynctrack.start_run(tracking_uri=address(proxy, way)),
        ):
            pass
        assert thief.url in str(raised.value)
        assert thief.requests == []
        asynctrack.shutdown()
