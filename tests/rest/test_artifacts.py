"""Artifacts through a real MLflow server, and a network that fails: read back by MLflow's own client."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

import asynctrack
from asynctrack.errors import DeliveryError
from tests import faults
from tests.fault import programs
from tests.faults import Fault
from tests.proxy import FaultProxy
from tests.rest import support
from tests.rest.support import spoken, until
from tests.servers import MlflowServer

#: what is in the path of every request that stores an artifact
UPLOADS = "mlflow-artifacts/artifacts"

TROUBLES: dict[str, list[Fault | None]] = {
    "a server that is down for a while": [faults.Refuse(0.5)],
    "requests cut in the head": [faults.CutRequest(40)] * 3,
    "requests cut in the body": [faults.CutRequest(100_000)] * 3,
    "lost answers": [faults.LoseAnswer()] * 3,
    "answers cut in the head": [faults.CutResponse(10)] * 3,
    "a storm of 503": [faults.unavailable(503)] * 5,
    "429": [faults.too_many(1)],
    "500 twice": [faults.unavailable(500)] * 2,
    "a gateway's page": [faults.html(502)] * 3,
    "401 for a while": [faults.unauthorized()] * 3,
    "an answer that drips": [faults.Drip(1, 0.01)] * 2,
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


def read_back(server: MlflowServer, run_id: str, folder: Path) -> dict[str, bytes]:
    """Every artifact of a run, by MLflow's client; and that the server has no other file for it."""
    folder.mkdir()
    there = Path(MlflowClient(server.url).download_artifacts(run_id, "", str(folder)))
    found = {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert sorted(found) == sorted(on_disk(server, run_id))
    return found


def on_disk(server: MlflowServer, run_id: str) -> list[str]:
    """The files that the server keeps for a run's artifacts, half ones and hidden ones too."""
    return [
        str(path.relative_to(root))
        for root in server.folder.glob(f"artifacts/*/{run_id}/artifacts")
        for path in root.rglob("*")
        if path.is_file()
    ]


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_mlflows_client_reads_what_was_logged(shipper: str, sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """Hundreds at once, folders, nested paths, names with spaces and umlauts; of one path the last."""
    asynctrack.configure(shipper=shipper)
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "ü b.txt").write_text("ü")
    (tmp_path / "data" / "deep" / "empty").write_text("")
    with asynctrack.start_run(tracking_uri=sqlite_server.url, experiment_name=support.fresh(), strict=True) as run:
        for number in range(150):
            run.log_text(str(number), f"many/{number}.txt")
            run.log_text(str(number), "same.txt")
        run.log_artifacts(tmp_path / "data", "all")
        receipt = run.log_artifact(tmp_path / "data")
        (tmp_path / "data" / "ü b.txt").unlink()
        receipt.wait()
        assert (run.stats().delivered, run.stats().pending) == (302, 0)
    got = read_back(sqlite_server, run.run_id, tmp_path / "got")
    assert got == {
        "same.txt": b"149",
        **{f"many/{number}.txt": str(number).encode() for number in range(150)},
        **{f"{folder}/ü b.txt": "ü".encode() for folder in ("all", "data")},
        **{f"{folder}/deep/empty": b"" for folder in ("all", "data")},
    }


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_artifact_is_stored_whole_after(
    trouble: str, sqlite_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happens to its requests; and nothing else is stored."""
    data = bytes(range(256)) * 2000
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "folder").mkdir()
    for number in range(3):
        (tmp_path / "folder" / str(number)).write_bytes(data)
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.plan(*TROUBLES[trouble], path=UPLOADS)
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            run.log_artifact(tmp_path / "file")
            run.log_artifacts(tmp_path / "folder", "folder")
            run.log_metric("loss", 1.0)
        assert [record for record in proxy.requests_to(UPLOADS) if record.fault]
    got = read_back(sqlite_server, run.run_id, tmp_path / "got")
    assert got == dict.fromkeys(["file", "folder/0", "folder/1", "folder/2"], data)
    assert support.stored(sqlite_server, run.run_id).points == [("loss", 0, 1.0)]
    assert len(spoken(caplog)) <= 3, spoken(caplog)


@pytest.mark.parametrize(
    "fault", [faults.Silent(reads=False), faults.unavailable(503)], ids=["a server that takes nothing", "503"]
)
def test_an_upload_that_does_not_get_on_delays_nothing_else(
    fault: Fault, sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    """Metrics of its run go on, and other runs with their artifacts; its run ends when it is stored, not before."""
    (tmp_path / "large").write_bytes(bytes(5_000_000))
    experiment = support.fresh()
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(fault, path="large")
        run = asynctrack.start_run(tracking_uri=proxy.url, experiment_name=experiment)
        receipt = run.log_artifact(tmp_path / "large")
        until(lambda: proxy.requests_to("large"), "the upload")
        run.log_metric("loss", 1.0)
        until(lambda: support.stored(sqlite_server, run.run_id).points == [("loss", 0, 1.0)], "the metric")
        with asynctrack.start_run(
            nested=True, tracking_uri=proxy.url, experiment_name=experiment, strict=True
        ) as other:
            other.log_metric("loss", 2.0)
            other.log_text("text", "text.txt")
        assert read_back(sqlite_server, other.run_id, tmp_path / "other") == {"text.txt": b"text"}
        ending = run._state.end("FINISHED", 1)
        run_id = run.run_id
        run._state.engine.wake()
        other_end = support.stored(sqlite_server, other.run_id).status
        assert (other_end, support.stored(sqlite_server, run_id).status) == ("FINISHED", "RUNNING")
        assert on_disk(sqlite_server, run_id) == []
        assert not receipt.done
        assert ending is not None
        proxy.heal()
        assert ending.wait(support.PATIENCE)
        receipt.wait()
        ends = [r for r in proxy.requests_to("runs/update") if r.json()["run_id"] == run_id]
        stored = [r for r in proxy.requests_to("large") if r.status == 200]
        assert (len(ends), len(stored)) == (1, 1)
        order = proxy.requests
        assert order.index(stored[0]) < order.index(ends[0])
    assert read_back(sqlite_server, run_id, tmp_path / "got") == {"large": bytes(5_000_000)}
    assert support.stored(sqlite_server, run_id).status == "FINISHED"


def test_an_artifact_that_the_server_always_fails_at_is_refused(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """Found out by storing something else, which is taken away again; all others are stored."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(faults.unavailable(500), path="poison")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run:
            receipt = run.log_text("poison", "poison.txt")
            for number in range(20):
                run.log_text(str(number), f"{number}.txt")
            with pytest.raises(DeliveryError, match=rf"{run.run_id}: artifact poison.txt.*again and again"):
                receipt.wait()
    got = read_back(sqlite_server, run.run_id, tmp_path / "got")
    assert got == {f"{number}.txt": str(number).encode() for number in range(20)}
    assert support.stored(sqlite_server, run.run_id).status == "FINISHED"


def test_while_the_server_fails_at_every_artifact_none_is_refused(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """Its disk is full, say: they wait until it is not."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(faults.unavailable(500), path=UPLOADS)
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            run.log_text("text", "text.txt")
            until(lambda: len(proxy.requests_to("text.txt")) > 6, "six attempts")
            proxy.heal()
    assert read_back(sqlite_server, run.run_id, tmp_path / "got") == {"text.txt": b"text"}


@pytest.mark.parametrize("name", ["50%20.txt", "a#b.txt", "what?"])
def test_a_name_that_the_server_would_change_is_refused(name: str, sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """In the receipt, with the reason; a file store takes it."""
    with asynctrack.start_run(tracking_uri=sqlite_server.url, experiment_name=support.fresh()) as run:
        receipt = run.log_text("text", name)
        run.log_text("fine", "fine.txt")
        with pytest.raises(DeliveryError, match=f"{run.run_id}.*rename"):
            receipt.wait()
    assert read_back(sqlite_server, run.run_id, tmp_path / "got") == {"fine.txt": b"fine"}
    with asynctrack.start_run(tracking_uri=str(tmp_path / "mlruns")) as run:
        run.log_text("text", name)
    assert [path.name for path in tmp_path.glob("mlruns/*/*/artifacts/*")] == [name]


def test_artifacts_that_go_somewhere_unknown_are_refused(sqlite_server: MlflowServer) -> None:
    """Saying what can be done; the run's metrics do not care."""
    name = support.fresh()
    MlflowClient(sqlite_server.url).create_experiment(name, "s3://bucket/here")
    with asynctrack.start_run(tracking_uri=sqlite_server.url, experiment_name=name) as run:
        run.log_metric("loss", 1.0)
        with pytest.raises(DeliveryError, match=rf"{run.run_id}.*s3:.*--serve-artifacts"):
            run.log_text("text", "text.txt").wait()
    found = support.stored(sqlite_server, run.run_id)
    assert (found.status, found.points) == ("FINISHED", [("loss", 0, 1.0)])


@pytest.mark.parametrize("shipper", ["thread", "process"])
def test_killed_in_the_middle_of_an_upload(shipper: str, sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """No half of it is ever seen; the next program stores it whole."""
    experiment = support.fresh()
    program = """
        import asynctrack
        open("large", "wb").write(bytes(20_000_000))
        run = asynctrack.start_run()
        run.log_artifact("large")
        run.log_text("text", "text.txt")
        input()
    """
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(faults.CutRequest(10_000_000) if shipper == "thread" else faults.unavailable(503), path="large")
        environment = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_EXPERIMENT_NAME": experiment}
        process = programs.start(program, tmp_path, **environment, ASYNCTRACK_SHIPPER=shipper)
        until(lambda: proxy.requests_to("large"), "the upload")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (run_id,) = support.runs_of(sqlite_server, experiment)
        assert "large" not in on_disk(sqlite_server, run_id)
        proxy.heal()
        if shipper == "thread":
            programs.recover(tmp_path, **environment)
        until(lambda: not programs.spools(tmp_path), "recovery")
    got = read_back(sqlite_server, run_id, tmp_path / "got")
    assert got == {"large": bytes(20_000_000), "text.txt": b"text"}
    assert support.stored(sqlite_server, run_id).status == "KILLED"


def test_a_large_file_takes_no_memory(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    """200 MB are put aside and sent in pieces; what the process holds grows by less than 64 MiB."""
    program = """
        import asynctrack, resource
        with open("large", "wb") as file:
            file.truncate(200_000_000)
        with asynctrack.start_run(strict=True) as run:
            run.log_text("warm", "warm.txt").wait()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            run.log_artifact("large").wait()
        print(run.run_id, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
    """
    environment = {"MLFLOW_TRACKING_URI": sqlite_server.url, "MLFLOW_EXPERIMENT_NAME": support.fresh()}
    result = programs.run(program, tmp_path, **environment)
    assert result.returncode == 0, result.stderr
    run_id, grown = result.stdout.split()
    assert int(grown) < 64 << 20, f"{int(grown) >> 20} MiB"
    (listed,) = [file for file in MlflowClient(sqlite_server.url).list_artifacts(run_id) if file.path == "large"]
    assert listed.file_size == 200_000_000
