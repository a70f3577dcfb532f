"""Every public function with odd arguments: a clear error that leaves nothing behind, or an event that is delivered.

Each parameter of each function gets each of the odd values, the others being good. What raises must be an error of
asynctrack that names the argument or shows the value. What does not raise must be delivered: nothing may be refused
later, fail in the engine, or make the store unreadable.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

import asynctrack
from asynctrack.cli.command import app
from asynctrack.entities import Metric, Param, RunTag
from asynctrack.errors import AsynctrackError
from asynctrack.tracking import AsyncMLflowService, MlflowClient
from asynctrack.values import shortened


class Unspeakable:
    """An object of which no message can be made."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Ambiguous:
    """An object that is neither true nor false, as an array is, and compares to something of that kind."""

    def __eq__(self, other: object) -> Any:
        return self

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    def __repr__(self) -> str:
        return "Ambiguous()"


class Failing:
    """An object that says it is a number, a path and a list, and then is none."""

    def __index__(self) -> int:
        raise RuntimeError("nothing to see here")

    def __float__(self) -> float:
        raise RuntimeError("nothing to see here")

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("nothing to see here")

    def __fspath__(self) -> str:
        raise RuntimeError("nothing to see here")

    __int__ = __len__ = __index__


class Proxy:
    """Stands for a text, says that it is one, and is none: as Werkzeug's and wrapt's proxies do."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property  # type: ignore[misc]  # as these proxies do
    def __class__(self) -> Any:
        return str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.text, name)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return repr(self.text)

    def __len__(self) -> int:
        return len(self.text)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return self.text == other


class Closed:
    """An object that is not there yet, or no longer: whatever is asked of it fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}: not open")

    def __repr__(self) -> str:
        return "Closed()"


ODD: list[Any] = [
    None, "", " ", 5, -1, True, 1.5, float("nan"), b"bytes", Path("some/path"), ["a", 1], {"a": 1}, {5: None}, object(),
    "a\ud800", "a\0b", "x" * 300, "../x", 10**5000, Unspeakable(), Ambiguous(),
    Failing(), Proxy("5"), Closed(),
]  # fmt: skip

#: what no flag can be
UNTRUE = [Ambiguous(), Failing()]
#: what takes anything and means its truth, as in MLflow
FLAGS = {
    "browser",
    "edit",
    "live",
    "log_x",
    "log_y",
    "nested",
    "shared",
    "strict",
    "synchronous",
    "view",
    "log_system_metrics",
    "search_all_experiments",
    "wait",
    "workers",
}
#: not about runs and experiments, or ending the process's work; these have tests of their own
LEFT_OUT = {
    "configure", "end_run", "get_async_service", "get_service", "import_runs", "is_tracking_uri_set", "shutdown",
    "sync", "aclose", "created", "stats",
}  # fmt: skip

#: what is the name of a file where it is an ``artifact_file``, and so not of a folder
CLASHING = (" ", "some/path")


class Bench:
    """A store with a run in it, and a good value for every parameter."""

    def __init__(self, folder: Path) -> None:
        self._numbers = itertools.count()
        (folder / "files").mkdir()
        (folder / "files/a.txt").write_text("text")
        run = asynctrack.start_run(run_name="bench")
        run.log_text("text", "made.txt").wait()
        run.set_tag("t", 1)
        self.run = run
        self.good: dict[str, Any] = {
            "artifact_file": "f.txt", "artifact_path": "a", "artifact_uri": run.info.artifact_uri,
            "dictionary": {"a": 1},
            "figure": Figure(),
            "dst_path": folder / "down", "end_time": 1, "experiment_id": "0", "experiment_ids": ["0"],
            "filter_string": "", "image": Image.new("L", (2, 2)), "key": "t", "kind": "metric",
            "local_dir": folder / "files", "local_path": folder / "files/a.txt", "max_results": 5,
            "metrics": {"m": 1.0},
            "order_by": [], "output_format": "list", "params": {}, "path": "made.txt", "run_id": run.run_id,
            "run": run.run_id, "runs": run.run_id,
            "step": 1,
            "tags": {"t": 1}, "text": "text", "timestamp": 1, "uri": str(folder / "other"), "value": 1,
        }  # fmt: skip

    def arguments(self, name: str, call: Callable[..., Any]) -> dict[str, Any]:
        """A good value for each parameter that needs one."""
        found: dict[str, Any] = {}
        for parameter in inspect.signature(call).parameters.values():
            if parameter.name in ("name", "new_name", "experiment_name") and "experiment" in name:
                found[parameter.name] = f"experiment {next(self._numbers)}"
            elif parameter.default is inspect.Parameter.empty:
                found[parameter.name] = self.good[parameter.name]
        if name == "set_experiment":
            found.pop("experiment_id", None)
        if name == "start_run":
            found["nested"] = True
        if name == "log_image":
            found["artifact_file"] = "i.png"
        return found


def fault(parameter: str, value: Any, call: Callable[[], object]) -> str | None:
    """What is wrong with what the call raises; None where it raises nothing."""
    try:
        call()
    except AsynctrackError as error:
        return unclear(parameter, value, error)
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error)[:100]}"
    return None


def unclear(parameter: str, value: Any, error: AsynctrackError) -> str | None:
    """What is wrong with the error's message."""
    said = str(error).lower()
    words = [word.rstrip("s") for word in parameter.split("_") if word != "id"] + [shortened(value, 20)[:12].lower()]
    if isinstance(value, str | Path):
        words += [os.path.basename(str(value))[:12].lower()] if str(value).strip() else ["path", "file", "folder"]
    if parameter == "local_dir":
        words.append("folder")
    if isinstance(value, str):
        words.append(str(value)[:12].replace("\ud800", "?"))
    return None if any(word in said for word in words) else f"does not name the argument: {said[:160]}"


def tried(
    bench: Bench, functions: dict[str, Callable[..., Any]], after: Callable[[str, Any], object] = lambda name, got: None
) -> list[str]:
    """What is wrong with the functions, one line for each parameter and value."""
    wrong = []
    for name, call in functions.items():
        assert fault("", "", lambda: after(name, call(**bench.arguments(name, call)))) is None, name  # noqa: B023  # called here
        for parameter in inspect.signature(call).parameters:
            for value in ODD if parameter not in FLAGS else UNTRUE:
                if parameter == "artifact_path" and isinstance(value, str | Path) and str(value) in CLASHING:
                    continue
                arguments = bench.arguments(name, call) | {parameter: value}
                problem = fault(parameter, value, lambda: after(name, call(**arguments)))  # noqa: B023  # called here
                if problem is not None:
                    wrong.append(f"{name}({parameter}={shortened(value, 20)}) {problem}")
    return wrong


def functions_of(face: object, left_out: set[str] = frozenset()) -> dict[str, Callable[..., Any]]:  # type: ignore[assignment]  # empty
    """The public functions of a module or an object."""
    names = face.__all__ if inspect.ismodule(face) else dir(type(face))
    found = {
        name: getattr(face, name) for name in names if not name.startswith("_") and name not in LEFT_OUT | left_out
    }
    return {name: call for name, call in found.items() if inspect.isroutine(call)}


@pytest.fixture(params=["files", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    """On two stores. In the end everything that was accepted is delivered, and whole."""
    asynctrack.set_tracking_uri(tmp_path / "store" if request.param == "files" else f"sqlite:///{tmp_path}/store.db")
    caplog.set_level(logging.ERROR, "asynctrack")
    made = Bench(tmp_path)
    yield made
    while asynctrack.active_run() is not None:
        asynctrack.end_run()
    asynctrack.flush_async_logging()
    # An id may be one that the store does not have: only the store can say so, and it did.
    unknown = ("no run '5'", "the run could not be created: no experiment")
    messages = [record.getMessage()[:400] for record in caplog.records]
    assert [message for message in messages if not any(words in message for words in unknown)] == []
    assert made.run.stats().rejected == 0
    found = asynctrack.search_runs(search_all_experiments=True, output_format="list", run_view_type=3)
    assert made.run.run_id in [run.info.run_id for run in found]
    asynctrack.shutdown()
    spools = [path for path in Path(".asynctrack").iterdir() if path.is_dir()]
    assert [path for path in spools if not (path / "rejected.jsonl").exists()] == []


def test_of_the_module(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions on the active run, on experiments, and those that read."""
    monkeypatch.setenv("ASYNCTRACK_ATTACH", bench.run.run_id)

    def put_back(name: str, got: Any) -> None:
        if name == "start_run":
            asynctrack.end_run()
        elif name == "set_tracking_uri":
            asynctrack.set_tracking_uri(bench.run.tracking_uri)
        elif name == "set_experiment":
            asynctrack.set_experiment(experiment_id="0")
        elif name == "delete_tag":
            asynctrack.set_tag("t", 1)
        elif name == "attach":
            got.detach()
        elif name == "live":
            got.close()
        elif name == "view":
            got.stop()

    check(tried(bench, functions_of(asynctrack, {"delete_experiment", "delete_run"}), put_back))


def test_of_a_run(bench: Bench) -> None:
    """The verbs of the object that `start_run` gives."""
    check(tried(bench, functions_of(bench.run, {"terminate", "to_dictionary"})))
    for parameter, value in itertools.product(("status", "end_time"), ODD):
        with asynctrack.start_run(nested=True) as run:
            arguments: dict[str, Any] = {parameter: value}
            problem = fault(parameter, value, lambda: run.terminate(**arguments))  # noqa: B023  # called here
            assert problem is None, f"terminate({parameter}={shortened(value)}) {problem}"


@pytest.mark.parametrize("bench", ["files"], indirect=True)
def test_of_a_run_on_a_loop(bench: Bench) -> None:
    """The verbs of the object that ``async with`` gives, as far as they are its own."""

    async def try_all() -> list[str]:
        wrong = []
        async with asynctrack.start_run(nested=True) as run:
            for name, parameter in (("flush", "timeout"), ("terminate", "status"), ("terminate", "end_time")):
                for value in ODD:
                    async with asynctrack.start_run(nested=True) as inner:
                        wrong += await awaited(parameter, value, name, getattr(inner, name), {parameter: value})
            assert not run.ended
        return wrong

    check(anyio.run(try_all))


def test_of_the_client(bench: Bench) -> None:
    """MLflow's client."""
    client = MlflowClient()
    bench.good |= {"metrics": [Metric("m", 1.0, 1)], "params": [Param("p", "1")], "tags": [RunTag("t", "1")]}
    left_out = {"delete_experiment", "delete_run", "set_terminated", "update_run", "rename_experiment"}
    check(tried(bench, functions_of(client, left_out), lambda name, got: client.set_tag(bench.run.run_id, "t", 1)))


@pytest.mark.parametrize("bench", ["files"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("metrics", {"key": "m", "value": 1.0, "timestamp": 1, "step": 1}),
        ("params", {"key": "p", "value": "1"}),
        ("tags", {"key": "t", "value": "1"}),
    ],
)
def test_of_the_fields_of_what_a_batch_holds(bench: Bench, kind: str, good: dict[str, Any]) -> None:
    """Each behind a good one, of which nothing may be left when the call is refused."""
    client = MlflowClient()
    make: Callable[..., Any] = {"metrics": Metric, "params": Param, "tags": RunTag}[kind]
    wrong = []
    logged = []
    for number, (field, value) in enumerate(itertools.product(good, ODD)):
        first = f"first {number}"
        given: dict[str, Any] = {
            kind: [make(**good | {"key": first}), make(**good | {"key": f"k{number}", field: value})]
        }

        def log() -> None:
            client.log_batch(bench.run.run_id, **given)  # noqa: B023  # called here
            logged.append(first)  # noqa: B023

        problem = fault(field, value, log)
        if problem is not None:
            wrong.append(f"log_batch({kind}[{field}]={shortened(value, 20)}) {problem}")
    check(wrong)
    stored = getattr(client.get_run(bench.run.run_id).data, kind)
    assert sorted(key for key in stored if key.startswith("first")) == sorted(logged)


@pytest.mark.parametrize("bench", ["files"], indirect=True)
@pytest.mark.parametrize(
    "name", ["delete_experiment", "delete_run", "set_terminated", "update_run", "rename_experiment"]
)
def test_of_the_clients_verbs_that_change_what_is_there(bench: Bench, name: str) -> None:
    """Each time on a new run of a new experiment."""
    client = MlflowClient()
    numbers = itertools.count()
    wrong = []
    for parameter in list(inspect.signature(getattr(client, name)).parameters):
        for value in ODD:
            experiment_id = client.create_experiment(f"{name} {next(numbers)}")
            good = {"experiment_id": experiment_id, "run_id": client.create_run(experiment_id).info.run_id}
            wanted = {each for each in inspect.signature(getattr(client, name)).parameters if each in good}
            arguments = {each: good[each] for each in wanted} | {parameter: value}
            if name == "rename_experiment":
                arguments.setdefault("new_name", f"renamed {next(numbers)}")
            problem = fault(parameter, value, lambda: getattr(client, name)(**arguments))  # noqa: B023  # called here
            if problem is not None:
                wrong.append(f"{name}({parameter}={shortened(value, 20)}) {problem}")
            assert client.get_run(good["run_id"]).info.run_id == good["run_id"]
    check(wrong)


@pytest.mark.parametrize("bench", ["files"], indirect=True)
def test_of_the_service_on_a_loop(bench: Bench) -> None:
    """The classic service's verbs, awaited; the blocking ones are the same functions."""

    async def try_all() -> list[str]:
        wrong = []
        async with AsyncMLflowService.at(bench.run.tracking_uri) as service:
            for name, call in functions_of(service, {"delete_experiment", "delete_run", "set_terminated"}).items():
                for parameter in list(inspect.signature(call).parameters):
                    for value in ODD:
                        arguments = bench.arguments(f"{name} experiment", call) | {parameter: value}
                        wrong += await awaited(parameter, value, name, call, arguments)
                        service.set_tag(bench.run.run_id, "t", 1)
        return wrong

    bench.good |= {"metrics": [], "params": [], "tags": [], "new_name": "name"}
    check(anyio.run(try_all))


def test_what_is_cut_when_a_run_is_made_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """As it is of tags that are logged later; a run in files keeps all of it."""
    asynctrack.set_tracking_uri("sqlite:///runs.db")
    with asynctrack.start_run(description="d" * 9_000) as run:
        pass
    assert run.data.tags["mlflow.note.content"] == "d" * 8_000
    said = [record.getMessage() for record in caplog.records if run.run_id in record.getMessage()]
    assert [words.count("9000 characters and was cut to 8000") for words in said] == [1]


@pytest.mark.parametrize("name", ["list_artifacts", "download_artifacts"])
def test_an_array_as_the_path_of_an_artifact(name: str) -> None:
    """It is neither true nor false."""
    with asynctrack.start_run() as run:
        run.log_text("text", "a.txt")
    call = getattr(asynctrack.artifacts, name)
    with pytest.raises(asynctrack.InvalidInputError, match="path Ambiguous"):
        call(run_id=run.run_id, artifact_path=Ambiguous())
    with pytest.raises(asynctrack.InvalidInputError, match=r"artifact_uri .* is Failing"):
        call(Failing())


def test_more_results_than_a_server_can_count() -> None:
    """No request is made of it: its number cannot even be written."""
    with pytest.raises(asynctrack.InvalidInputError, match="max_results"):
        MlflowClient("http://127.0.0.1:1").search_runs(["0"], max_results=10**5000)


def check(wrong: list[str]) -> None:
    assert not wrong, "\n".join(wrong)


async def awaited(
    parameter: str, value: Any, name: str, call: Callable[..., Any], arguments: dict[str, Any]
) -> list[str]:
    """`fault` for a verb that may be awaited."""
    problem: str | None = None
    try:
        got = call(**arguments)
        if inspect.isawaitable(got):
            await got
    except AsynctrackError as error:
        problem = unclear(parameter, value, error)
    except Exception as error:
        problem = f"raises {type(error).__name__}: {str(error)[:100]}"
    return [] if problem is None else [f"{name}({parameter}={shortened(value, 20)}) {problem}"]


# ── what is not about runs and experiments


#: what is no status, and no number
WRONG = [value for value in ODD if value is not None and not isinstance(value, int | float)]
#: of every kind of setting, what a run can be started with
SETTINGS_TRIED = ("flush_interval", "segment_bytes", "spool_dir", "mode", "on_error", "token")


@pytest.mark.parametrize("name", [*asynctrack.Settings._fields, "no_such_setting"])
def test_of_configure(name: str) -> None:
    """What is accepted is a setting that a run can be started with; what is not leaves the settings as they were."""
    before = asynctrack.settings.current_settings()
    wrong = []
    for value in (*ODD, float("inf"), 2**63, 0, object):
        problem = fault(name, value, lambda: asynctrack.configure(**{name: value}))  # noqa: B023  # called here
        accepted = problem is None and asynctrack.settings.current_settings() != before
        if problem is not None:
            wrong.append(f"configure({name}={shortened(value, 20)}) {problem}")
        elif accepted and name in SETTINGS_TRIED:
            with asynctrack.start_run() as run:
                run.log_metric("m", 1.0)
            assert run.stats().rejected == 0
        asynctrack.configure(**dict.fromkeys(asynctrack.Settings._fields))
        assert asynctrack.settings.current_settings() == before
    check(wrong)


def test_of_shutdown_and_end_run() -> None:
    """A status that ends no run ends nothing."""
    run = asynctrack.start_run()
    wrong = [
        f"{call.__name__}({shortened(value, 20)}) {problem}"
        for call in (asynctrack.shutdown, asynctrack.end_run)
        for value in WRONG
        if (problem := fault("status", value, lambda: call(value))) is not None  # noqa: B023  # called here
    ]
    check(wrong)
    assert asynctrack.active_run() == run


def test_of_sync(tmp_path: Path) -> None:
    """Nothing is delivered to where nobody meant it: the spool is as it was, whatever is asked."""
    asynctrack.configure(mode="offline")
    asynctrack.set_tracking_uri(tmp_path / "meant")
    with asynctrack.start_run() as run:
        run.log_metric("m", 1.0)
    asynctrack.shutdown()
    [spool] = [path for path in Path(".asynctrack").iterdir() if path.is_dir()]
    wrong = []
    for name in ("spools", "spool_dir", "to", "experiment", "timeout", "progress"):
        for value in WRONG:
            given: dict[str, Any] = {"spools": [], name: value}
            problem = fault(name, value, lambda: asynctrack.sync(**given))  # noqa: B023  # called here
            if problem is not None:
                wrong.append(f"sync({name}={shortened(value, 20)}) {problem}")
    for name in ("to", "experiment", "spool_dir"):
        for value in ("", " "):
            wanted: dict[str, Any] = {name: value}
            with pytest.raises(asynctrack.InvalidInputError, match=name):
                asynctrack.sync(**wanted)
    check(wrong)
    assert spool.exists()
    assert not Path("mlruns").exists()
    assert [shipment.delivered for shipment in asynctrack.sync()] == [1]


#: what a shell can hand over
WORDS = ["", " ", "5", "-1", "nan", "x" * 300, "../x", "some/path", "a\nb", "\udcff", "://", "--", "ü"]


@pytest.mark.parametrize(
    "command", ["sync", "spool", "spool list", "spool rejected", "spool retry", "doctor", "import"]
)
def test_of_the_command_line(command: str, tmp_path: Path) -> None:
    """Every option and argument of every command: a sentence and a status, and no traceback."""
    asynctrack.configure(mode="offline")
    asynctrack.set_tracking_uri(tmp_path / "meant")
    with asynctrack.start_run() as run:
        run.log_metric("m", 1.0)
    asynctrack.shutdown()
    [spool] = [path for path in Path(".asynctrack").iterdir() if path.is_dir()]
    before = sorted(path.name for path in tmp_path.iterdir())
    # As in a terminal, where standard error takes what no encoding has; click before 8.2 has to be told.
    separate: dict[str, Any] = {"mix_stderr": False}
    runner = CliRunner(**(separate if "mix_stderr" in inspect.signature(CliRunner).parameters else {}))
    wrong = []
    for options in ([], ["--dir"], ["--to"], ["--experiment"], ["--timeout"], ["--no-such-option"]):
        for word in WORDS:
            # With a name that no spool has, nothing is delivered, and so nothing may be there afterwards.
            line = [*command.split(), *options, word, *(["no-such-spool"] if command == "sync" else [])]
            result = runner.invoke(app, line, env={"COLUMNS": "300", "MLFLOW_TRACKING_URI": str(tmp_path / "a")})
            if result.exit_code not in (0, 1, 2, 3) or not isinstance(result.exception, SystemExit | None):
                wrong.append(f"{line}: {result.exit_code} {result.exception!r}")
    check(wrong)
    assert spool.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
