"""What programs do to the folders that their spools are in: read them, copy them, leave them, delete them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import asynctrack
from tests.fault.programs import ON_FILES, Lab, finish, line_for, steps
from tests.fault.shipping import start_command
from tests.mlruns import read_runs

SHIPPERS = pytest.mark.parametrize("shipper", ["thread", "process"])
RANGE = """
def log_range(run, start, stop):
    for step in range(start, stop):
        run.log_metric("loss", step * 0.25, step)
"""


@SHIPPERS
def test_a_program_that_reads_its_own_working_directory_stays_alive(shipper: str, lab: Lab) -> None:
    """A snapshot of the code, a checksum of everything: the spool's lock is not lost with the file that is closed."""
    program = """
        import shutil
        with asynctrack.start_run() as run:
            run.flush()
            log_range(run, 0, 3000)
            shutil.copytree(".asynctrack", "backup")
            print("copied", flush=True)
            sys.stdin.readline()
            log_range(run, 3000, 4000)
    """
    process = lab.start(RANGE + textwrap.dedent(program), ASYNCTRACK_SHIPPER=shipper, ASYNCTRACK_FLUSH_INTERVAL="2")
    line_for(process)
    assert "delivering" not in lab.recover().stderr
    output, errors = process.communicate("go on\n", timeout=60)
    assert (process.returncode, errors) == (0, ""), output + errors
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(4000)), "FINISHED")
    assert lab.spools() == []


def test_a_copied_spool_is_nobody_s_orphan(lab: Lab) -> None:
    """`cp -r experiment another` beside a running program: a program in the copy leaves the copied spool alone, and so
    does `sync` until it is told that the owner is gone."""
    process = lab.start(
        """
        with asynctrack.start_run() as run:
            log_some(run, 3000)
            print("logged", flush=True)
            sys.stdin.readline()
        """,
        ASYNCTRACK_FLUSH_INTERVAL="2",
    )
    line_for(process)
    other = lab.folder / "copy"
    shutil.copytree(lab.folder / ".asynctrack", other / ".asynctrack")
    environment = lab.environment | {"ASYNCTRACK_SPOOL_DIR": str(other / ".asynctrack")}
    if lab.environment["MLFLOW_TRACKING_URI"] == "mlruns":
        environment["MLFLOW_TRACKING_URI"] = str(lab.folder / "mlruns")
    beside = Lab(other, environment, lab.runs, lab.folder, lab.out_of_order)
    assert "delivering" not in beside.recover().stderr
    refused = finish(start_command(other, "sync", **environment))
    assert refused.returncode != 0
    assert "--owner-gone" in refused.stdout + refused.stderr
    assert finish(process, limit=60).returncode == 0
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(3000)), "FINISHED")
    delivered = finish(start_command(other, "sync", "--owner-gone", **environment))
    assert delivered.returncode == 0, delivered.stderr
    assert (steps(lab.only_run()), lab.only_run().status) == (list(range(3000)), "FINISHED")


def test_a_run_that_was_taken_up_elsewhere_and_ended_keeps_its_status(lab: Lab) -> None:
    """Killed on one node, resumed on another with a spool folder of its own, finished; then the first node's spool is
    delivered: its events arrive, and nobody says KILLED."""
    first = lab.run(
        """
        run = asynctrack.start_run()
        run.flush()
        print(run.run_id, flush=True)
        log_some(run, 500)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        ASYNCTRACK_SPOOL_DIR="first", ASYNCTRACK_FLUSH_INTERVAL="30",
    )  # fmt: skip
    resumed = f"with asynctrack.start_run(run_id={first.stdout.strip()!r}) as run:\n    log_some(run, 10, 'second')"
    second = lab.run(resumed, ASYNCTRACK_SPOOL_DIR="second")
    assert second.returncode == 0, second.stderr
    sync = finish(start_command(lab.folder, "sync", "--dir", "first", **lab.environment))
    assert sync.returncode == 0, sync.stderr
    run = lab.only_run()
    assert (steps(run), steps(run, "second"), run.status) == (list(range(500)), list(range(10)), "FINISHED")


def test_sync_leaves_a_program_alone_whose_shipper_is_just_starting(lab: Lab) -> None:
    """Nobody delivers yet, and somebody is about to."""
    process = lab.start(
        """
        from asynctrack.journal.spool import Spool
        from asynctrack.stores.uri import resolve_store_uri
        store = resolve_store_uri(os.environ["MLFLOW_TRACKING_URI"])
        spool = Spool.create(os.path.abspath(".asynctrack"), store, consumed=False, ships=True)
        print("made", flush=True)
        sys.stdin.readline()
        """
    )
    line_for(process)
    result = finish(start_command(lab.folder, "sync", "--json", **lab.environment))
    assert [entry["state"] for entry in json.loads(result.stdout)] == ["busy"], result.stderr
    process.communicate("end\n", timeout=60)


def test_a_child_that_logs_elsewhere_leaves_its_events_where_they_are_found(lab: Lab) -> None:
    """The program has changed its directory since: a killed child's spool lies beside its parent's."""
    program = """
        run = asynctrack.start_run()
        run.flush()
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        child = os.fork()
        if child == 0:
            log_some(run, 500)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    """
    result = lab.run(program, ASYNCTRACK_FLUSH_INTERVAL="30")
    assert result.returncode == 0, result.stderr
    lab.recover()
    assert steps(lab.only_run()) == list(range(500))
    assert lab.spools() == []


@SHIPPERS
def test_a_program_that_gives_up_its_rights(shipper: str, lab: Lab) -> None:
    """A service that becomes another user: what it cannot reach any more is left, truthfully, to the next program."""
    if os.geteuid():
        pytest.skip("needs to be root")
    lab.folder.chmod(0o755)
    program = """
        import shlex, asynctrack.journal.survey  # the interpreter may lie where only root can read it
        run = asynctrack.start_run()
        run.flush()
        os.setgid(65534); os.setuid(65534)
        for number in range(4):
            log_some(run, 10_000, f"loss{number}")
    """
    result = lab.run(program, ASYNCTRACK_SHIPPER=shipper, ASYNCTRACK_CLOSE_TIMEOUT="3")
    assert result.returncode == 0, result.stderr
    assert "deleted" not in result.stderr
    assert len(result.stderr.splitlines()) < 10, result.stderr
    lab.recover()
    for number in range(4):
        stored = steps(lab.only_run(), f"loss{number}")
        assert stored == list(range(len(stored)))


def test_a_working_directory_that_is_gone(lab: Lab) -> None:
    """The spool goes where it still can, for a forked child too; nobody sees a traceback."""
    program = """
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir(os.getcwd())
        with asynctrack.start_run() as run:
            log_some(run, 100)
            child = os.fork()
            if child == 0:
                log_some(run, 100, "child")
                asynctrack.shutdown()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """
    uri = lab.environment["MLFLOW_TRACKING_URI"]
    absolute = uri if "://" in uri else str(lab.folder / uri)
    result = lab.run(program, MLFLOW_TRACKING_URI=absolute, XDG_STATE_HOME=str(lab.folder / "state"))
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(lab.only_run()) == steps(lab.only_run(), "child") == list(range(100))


# ── standard streams


def test_a_daemon_that_has_closed_its_standard_streams(lab: Lab) -> None:
    """What a library in C then prints is not written into a file of the spool that has got the stream's number."""
    program = """
        os.closerange(0, 3)
        with asynctrack.start_run() as run:
            for number in range(3):
                run.flush()
                log_some(run, 3000, f"m{number}")
                for fd in range(3):
                    try:
                        os.write(fd, b"a library warns of something" * 1000)
                    except OSError:
                        pass
    """
    result = lab.run(program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert all(steps(lab.only_run(), f"m{number}") == list(range(3000)) for number in range(3))
    assert lab.spools() == []


@ON_FILES
@SHIPPERS
def test_a_program_that_closes_all_its_descriptors_goes_on(shipper: str, lab: Lab) -> None:
    """A daemon may, after it has begun to log: its spool stays its own, and no other file gets what is meant for it."""
    program = """
        with asynctrack.start_run() as run:
            log_some(run, 1000)
            run.flush()
            os.closerange(3, 4096)
            others = [open(f"other-{number}", "w") for number in range(40)]
            log_some(run, 500, "before")
            print("closed", flush=True)
            sys.stdin.readline()
            log_some(run, 500, "after")
            run.set_tag("after", "yes")
            run.flush()
        os.closerange(3, 4096)
    """
    process = lab.start(program, ASYNCTRACK_SHIPPER=shipper)
    line_for(process)
    assert "delivering" not in lab.recover().stderr
    output, errors = process.communicate("go on\n", timeout=120)
    assert process.returncode == 0, output + errors
    run = lab.only_run()
    assert [steps(run, key) for key in ("loss", "before", "after")] == [list(range(n)) for n in (1000, 500, 500)]
    assert (run.status, run.tags["after"], lab.spools()) == ("FINISHED", "yes", [])
    assert [path.stat().st_size for path in lab.folder.glob("other-*")] == [0] * 40


# ── encodings

#: Python then takes file names for ASCII
IN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_names_that_files_cannot_have_in_ascii(lab: Lab) -> None:
    """On files, what the program names is refused at the call; a server takes everything."""
    program = r"""
        assert sys.getfilesystemencoding() == "ascii"
        on_files = "://" not in os.environ["MLFLOW_TRACKING_URI"]
        def refused(log, *arguments):
            try:
                log(*arguments)
            except asynctrack.InvalidInputError as error:
                assert "PYTHONUTF8=1" in str(error), error
            else:
                assert not on_files, arguments
        with asynctrack.start_run(run_name="l\xe4uft") as run:
            log_some(run, 10)
            refused(run.log_metric, "l\xf6ss", 1.0)
            refused(run.log_param, "\xe4", "1")
            refused(run.set_tags, {"\xe4": "1"})
            refused(run.log_text, "text", "\xe4.txt")
            run.log_param("name", "\xe4")
        on_files = True
        refused(run.log_artifact, "f\xe4.txt")
        refused(asynctrack.set_tracking_uri, "m\xe4runs")
        refused(asynctrack.set_tracking_uri, "sqlite:///m\xe4.db")
        refused(lambda folder: asynctrack.configure(spool_dir=folder), "sp\xe4ter")
        refused(lambda folder: asynctrack.sync(spool_dir=folder), "sp\xe4ter")
        refused(lambda spool: asynctrack.sync([spool]), "sp\xe4ter")
    """
    result = lab.run(program, **IN_ASCII)
    assert (result.returncode, result.stderr) == (0, "")
    assert (steps(lab.only_run()), lab.only_run().params["name"]) == (list(range(10)), "\xe4")
    assert lab.spools() == []


@ON_FILES
def test_asking_for_what_files_cannot_be_named_after_in_ascii(lab: Lab) -> None:
    """Reading says what is wrong, too; nobody sees what Python raises."""
    program = r"""
        with asynctrack.start_run() as run:
            log_some(run, 10)
        client, name = asynctrack.MlflowClient(), "l\xe4"
        asks = [
            lambda: asynctrack.get_metric_history(run.run_id, name),
            lambda: client.get_metric_history(run.run_id, name),
            lambda: client.delete_tag(run.run_id, name), lambda: client.set_experiment_tag("0", name, "x"),
            lambda: client.search_runs(["0"], f"metrics.`{name}` > 1"),
            lambda: client.search_runs(["0"], f"tags.`{name}` = 'x'"),
            lambda: client.search_runs(["0"], order_by=[f"params.`{name}`"]),
            lambda: client.list_artifacts(run.run_id, name), lambda: client.download_artifacts(run.run_id, name),
        ]
        for ask in asks:
            try:
                ask()
            except asynctrack.AsynctrackError as error:
                assert "PYTHONUTF8=1" in str(error), error
                print("said")
    """
    result = lab.run(program, **IN_ASCII)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "said\n" * 9)


@ON_FILES
def test_what_files_cannot_be_named_after_in_ascii_waits_for_the_next_program(lab: Lab) -> None:
    """An artifact's name, which a store of another kind could hold; and the metric of another program's spool."""
    result = lab.run(
        """
        with asynctrack.start_run() as run:
            log_some(run, 10, "l\xf6ss")
            run.log_text("said", "n\xf6te.txt")
        """,
        ASYNCTRACK_MODE="offline",
    )
    assert result.returncode == 0, result.stderr
    result = finish(start_command(lab.folder, "sync", "--timeout", "2", **lab.environment, **IN_ASCII))
    assert result.returncode != 0
    assert "the file system's encoding is ascii" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    lab.recover()
    assert steps(lab.only_run(), "l\xf6ss") == list(range(10))
    assert lab.artifacts() == {"n\xf6te.txt": b"said"}
    assert lab.spools() == []


def test_a_folder_whose_name_is_not_ascii(lab: Lab) -> None:
    """The working directory, and on files the store's: their names are what the system says."""
    folder = lab.folder / "f\xfcr"
    folder.mkdir()
    program = """
        os.chdir(b"f\\xc3\\xbcr")
        with asynctrack.start_run() as run:
            log_some(run, 10)
            run.log_text("said", "note.txt")
    """
    result = lab.run(program, **IN_ASCII)
    assert (result.returncode, result.stderr) == (0, "")
    if "://" not in lab.environment["MLFLOW_TRACKING_URI"]:
        (folder / "mlruns").rename(lab.folder / "mlruns")
    assert steps(lab.only_run()) == list(range(10))
    assert lab.artifacts() == {"note.txt": b"said"}


# ── limits of the process


@ON_FILES
def test_without_file_descriptors_artifacts_name_the_limit(lab: Lab) -> None:
    """Also where it is a module that cannot be opened. The run goes on."""
    program = """
        import resource
        run = asynctrack.start_run()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for log in (lambda: run.log_text("a", "a.txt"), lambda: run.log_dict({}, "a.json"),
                    lambda: run.log_image(None, "a.png"), lambda: run.log_figure(None, "a.png")):
            try:
                log()
            except asynctrack.SpoolError as error:
                assert "the limit RLIMIT_NOFILE is 64 in this process" in str(error), error
                print("refused")
        for fd in taken:
            os.close(fd)
        run.log_text("a", "a.txt")
    """
    result = lab.run(program)
    assert (result.returncode, result.stdout) == (0, "refused\n" * 4), result.stderr
    assert lab.artifacts() == {"a.txt": b"a"}


@ON_FILES
def test_without_file_descriptors_start_run_names_the_limit(lab: Lab) -> None:
    """Whichever step of it gets none. What was started before or after is delivered."""
    program = """
        import resource
        first = asynctrack.start_run()
        first.flush()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        for store in ("mlruns", "other"):
            for left in range(14):
                taken = []
                try:
                    while True:
                        taken.append(os.dup(0))
                except OSError:
                    pass
                for fd in taken[:left]:
                    os.close(fd)
                try:
                    asynctrack.start_run(tracking_uri=store, nested=True).log_metric("loss", 0.0, 0)
                    print("started", left)
                except asynctrack.SpoolError as error:
                    assert "the limit RLIMIT_NOFILE is 64 in this process; `ulimit -n` raises it" in str(error), error
                    assert error.errno == 24
                    print("refused", left)
                for fd in taken[left:]:
                    os.close(fd)
                if store == "other":
                    asynctrack.shutdown()
        asynctrack.start_run().log_metric("loss", 0.0, 0)
    """
    result = lab.run(program, ASYNCTRACK_CONNECT_TIMEOUT="2")  # for each that has too few to deliver
    assert result.returncode == 0, result.stderr
    refused, started = (result.stdout.count(word) for word in ("refused", "started"))
    assert refused > 2
    assert started > 2
    other = read_runs(lab.folder / "other")
    runs = [*lab.runs().values(), *other.values()]
    assert len(runs) == started + 2
    assert sorted(len(run.metrics) for run in runs) == [0, *[1] * (started + 1)]
    assert {run.status for run in runs} == {"FINISHED"}
    assert lab.spools() == []


@ON_FILES
@pytest.mark.parametrize("limit", [0, 100_000, 1_000_000])
def test_where_no_file_may_be_large(limit: int, lab: Lab) -> None:
    """``ulimit -f``: segments are as small as they have to be; where there can be none, the limit is named."""
    program = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            with asynctrack.start_run() as run:
                for key in range(10):
                    log_some(run, 2000, f"m{{key}}")
        except asynctrack.SpoolError as error:
            print(error)
    """
    result = lab.run(program)
    assert (result.returncode, result.stderr) == (0, "")
    if limit == 0:
        assert "the limit RLIMIT_FSIZE is 0 in this process; `ulimit -f` raises it" in result.stdout
        assert lab.runs() == {}
    else:
        assert all(steps(lab.only_run(), f"m{key}") == list(range(2000)) for key in range(10))
    assert lab.spools() == []


# ── interpreters and bundles

PACKAGE = Path(asynctrack.__file__).parent
DEPENDENCIES = (
    "aiofiles",
    "anyio",
    "certifi",
    "h11",
    "httpcore",
    "httpx",
    "idna",
    "msgpack",
    "typing_extensions",
    "yaml",
)

BUNDLED = """
import sys
sys.path[:0] = [{bundle!r}, {dependencies!r}]
import asynctrack
if not asynctrack.__file__.startswith({bundle!r}):
    sys.exit(asynctrack.__file__)
with asynctrack.start_run() as run:
    for step in range(100):
        run.log_metric("loss", step * 0.25, step)
    run.log_param("lr", "0.1")
    run.log_text("said", "note.txt")
    run.flush()
"""


def bundled(folder: Path, form: str) -> tuple[Path, Path]:
    """asynctrack in a zip file or a bare folder, and the dependencies without any of their packages' metadata."""
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for name in DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None, name
        origin = Path(spec.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (dependencies / origin.name).symlink_to(origin)
    if form == "folder":
        bundle = folder / "sources"
        bundle.mkdir()
        (bundle / "asynctrack").symlink_to(PACKAGE)
        return bundle, dependencies
    bundle = folder / "program.zip"
    with zipfile.ZipFile(bundle, "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            archive.write(path, path.relative_to(PACKAGE.parent))
    return bundle, dependencies


@pytest.mark.parametrize(("form", "shipper"), [("zip", "process"), ("folder", "thread")])
def test_a_program_in_a_zip_file_or_without_metadata_delivers(
    form: str, shipper: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A zipapp, a folder of sources that was never installed, a frozen program; and without ``site``, docstrings and
    assertions, which ``-OO`` takes away."""
    bundle, dependencies = bundled(tmp_path_factory.mktemp("bundle"), form)
    program = BUNDLED.format(bundle=str(bundle), dependencies=str(dependencies))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-OO", "-c", program],
        cwd=lab.folder,
        env={**os.environ, **lab.environment, "ASYNCTRACK_SHIPPER": shipper, "ASYNCTRACK_CLOSE_TIMEOUT": "20"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    done = finish(process)
    assert (done.returncode, done.stderr) == (0, "")
    run = lab.only_run()
    assert (steps(run), run.status, run.params) == (list(range(100)), "FINISHED", {"lr": "0.1"})
    assert lab.artifacts() == {"note.txt": b"said"}
    assert lab.spools() == []


def test_a_program_in_a_zip_file_makes_a_database(tmp_path: Path) -> None:
    """What asynctrack needs to make one, and the default store is one, is in the zip file, too."""
    bundle, dependencies = bundled(tmp_path, "zip")
    program = f"""
import sys
sys.path[:0] = [{str(bundle)!r}, {str(dependencies)!r}]
import asynctrack
with asynctrack.start_run(tracking_uri="sqlite:///runs.db") as run:
    run.log_metric("loss", 0.5)
print(asynctrack.get_service("sqlite:///runs.db").get_run(run.run_id).data.metrics)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-OO", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "{'loss': 0.5}\n")
