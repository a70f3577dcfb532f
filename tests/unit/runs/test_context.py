"""The tags a run gets by itself are MLflow's, never hold a credential, and never cost the run."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from asynctrack.runs import context
from asynctrack.runs.context import automatic_tags, default_user

GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}

#: both answers for each script named on the command line, as JSON
ASK_BOTH = """
import json, sys
from asynctrack.runs.context import automatic_tags
from mlflow.tracking.context.default_context import DefaultRunContext
from mlflow.tracking.context.git_context import GitRunContext
answers = {}
for script in sys.argv[1:]:
    sys.argv[0] = script
    git = GitRunContext()
    theirs = DefaultRunContext().tags() | (git.tags() if git.in_context() else {})
    answers[script] = {"ours": automatic_tags(), "theirs": theirs}
print(json.dumps(answers))
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "init.defaultBranch=trunk", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | GIT_ENVIRONMENT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def new_repository(folder: Path, *, commit: bool = True) -> Path:
    """A repository with a committed script; the script."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    script = folder / "train.py"
    script.write_text("print('training')\n")
    if commit:
        git(folder, "add", "train.py")
        git(folder, "commit", "--quiet", "-m", "first")
    return script


def tags_for(script: Path | str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(sys, "argv", [str(script)])
    return automatic_tags()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cached answers, no variables of the machine's."""
    monkeypatch.setattr(context, "_git_tags", {})
    monkeypatch.setattr(context, "_users", {})
    for name in ("MLFLOW_RUN_CONTEXT", "MLFLOW_TRACKING_USERNAME", "__vsc_ipynb_file__", "IPYNB_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


def test_every_tag_is_the_one_mlflow_sets(tmp_path: Path) -> None:
    plain = new_repository(tmp_path / "plain")
    git(plain.parent, "remote", "add", "origin", "https://user:s3cret@example.com/team/project.git")
    detached = new_repository(tmp_path / "detached")
    git(detached.parent, "remote", "add", "origin", "git@example.com:team/project.git")
    git(detached.parent, "checkout", "--quiet", "--detach")
    unborn = new_repository(tmp_path / "unborn", commit=False)
    outside = tmp_path / "outside" / "train.py"
    outside.parent.mkdir()
    outside.touch()
    ignored = plain.parent / ".venv" / "tool.py"
    ignored.parent.mkdir()
    ignored.touch()
    (plain.parent / ".gitignore").write_text(".venv/\n")
    nested = plain.parent / "deep" / "er" / "train.py"
    nested.parent.mkdir(parents=True)
    nested.touch()

    scripts = [str(script) for script in (plain, detached, unborn, outside, ignored, nested)]
    root = Path(context.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ASK_BOTH, *scripts],
        env=os.environ | GIT_ENVIRONMENT | {"PYTHONPATH": str(root), "HOME": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    answers = json.loads(done.stdout)
    assert list(answers) == scripts
    for script, answer in answers.items():
        # The runs of MLflow's own client say nothing about uncommitted changes.
        assert {k: v for k, v in answer["ours"].items() if k != "mlflow.source.git.dirty"} == answer["theirs"], script
    assert answers[str(plain)]["ours"]["mlflow.source.git.repoURL"] == "https://example.com/team/project.git"
    assert "s3cret" not in done.stdout
    assert "mlflow.source.git.branch" not in answers[str(detached)]["ours"]
    for script in (unborn, outside, ignored):
        assert not [name for name in answers[str(script)]["ours"] if name.startswith("mlflow.source.git")], script


def test_dirty_says_whether_a_tracked_file_differs_from_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = new_repository(tmp_path / "repository")
    (script.parent / "notes.txt").write_text("not tracked, so not part of what ran")
    tags = tags_for(script, monkeypatch)
    assert tags["mlflow.source.git.dirty"] == "false"
    assert tags["mlflow.source.git.commit"] == git(script.parent, "rev-parse", "HEAD")
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert "mlflow.source.git.repoURL" not in tags

    script.write_text("print('changed')\n")
    assert tags_for(script, monkeypatch) == tags  # asked once: this process runs what it has loaded
    context._git_tags.clear()
    assert tags_for(script, monkeypatch)["mlflow.source.git.dirty"] == "true"


def test_git_is_asked_once_per_script_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = new_repository(tmp_path / "repository")
    asked: list[str] = []

    def answer(folder: str) -> dict[str, str]:
        asked.append(folder)
        return {}

    monkeypatch.setattr(context, "_ask_git", answer)
    for _ in range(3):
        tags_for(script, monkeypatch)
    assert asked == [str(script.parent)]


def test_a_git_hooks_environment_does_not_point_at_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = new_repository(tmp_path / "mine")
    other = new_repository(tmp_path / "other")
    git(other.parent, "commit", "--quiet", "--allow-empty", "-m", "second")
    monkeypatch.setenv("GIT_DIR", str(other.parent / ".git"))
    found = tags_for(script, monkeypatch)["mlflow.source.git.commit"]
    monkeypatch.delenv("GIT_DIR")
    assert found == git(script.parent, "rev-parse", "HEAD")


def test_a_repositorys_configuration_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = new_repository(tmp_path / "repository")
    monitor = tmp_path / "monitor"
    monitor.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    monitor.chmod(0o755)
    git(script.parent, "config", "core.fsmonitor", str(monitor))
    assert "mlflow.source.git.commit" in tags_for(script, monkeypatch)
    assert not (tmp_path / "started").exists()


def test_a_bare_repository_gives_no_git_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "bare")
    script = tmp_path / "bare" / "train.py"
    script.touch()
    assert set(tags_for(script, monkeypatch)) == {"mlflow.user", "mlflow.source.name", "mlflow.source.type"}


def test_without_git_installed_the_other_tags_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = new_repository(tmp_path / "repository")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))
    tags = tags_for(script, monkeypatch)
    assert tags == {
        "mlflow.user": default_user(),
        "mlflow.source.name": str(script),
        "mlflow.source.type": "LOCAL",
    }


def test_a_git_that_hangs_is_given_up_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = new_repository(tmp_path / "repository")
    programs = tmp_path / "bin"
    programs.mkdir()
    hanging = programs / "git"
    hanging.write_text(f'#!/bin/sh\necho $$ >> "{tmp_path}/pids"\nexec sleep 60\n')
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(context, "_GIT_TIMEOUT", 0.5)
    begun = time.monotonic()
    tags = tags_for(script, monkeypatch)
    assert time.monotonic() - begun < 5
    assert not [name for name in tags if name.startswith("mlflow.source.git")]
    for process in context._unreaped:  # on a busy machine
        process.wait(30)
    for pid in (tmp_path / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_killed_git_that_has_not_ended_yet_is_looked_after_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Popen is kept: let go, it would warn that a subprocess is still running, and nobody would ever reap it."""
    monkeypatch.setattr(context, "_unreaped", [])
    process = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with monkeypatch.context() as patched:
        patched.setattr(subprocess.Popen, "wait", hangs)
        context._end(process)
    assert context._unreaped == [process]
    process.wait(30)
    context._ask_git(os.sep)
    assert context._unreaped == []


def hangs(process: subprocess.Popen[bytes], timeout: float) -> int:
    raise subprocess.TimeoutExpired(process.args, timeout)


@pytest.mark.parametrize(
    ("url", "tag"),
    [
        ("https://example.com/team/project.git", "https://example.com/team/project.git"),
        ("https://user:s3cret@example.com/team/project.git", "https://example.com/team/project.git"),
        ("https://s3cret@example.com:8443/project", "https://example.com:8443/project"),
        ("https://user:s3@cret@example.com/project", "https://example.com/project"),
        ("https://example.com/project?access_token=s3cret", "https://example.com/project"),
        ("https://example.com/project#s3cret", "https://example.com/project"),
        ("https://user:s3cret/s3cret@example.com/project", ""),
        ("ssh://git@example.com:22/project.git", "ssh://example.com:22/project.git"),
        ("https://[::1]:8443/project", "https://[::1]:8443/project"),
        ("https://user:s3cret@[::1]/project", "https://[::1]/project"),
        ("user:s3cret@example.com:team/project.git", "example.com:team/project.git"),
        ("git@example.com:team/project.git", "git@example.com:team/project.git"),
        ("/srv/git/project.git", "/srv/git/project.git"),
        ("file:///srv/git/project.git", "file:///srv/git/project.git"),
        ("", ""),
    ],
)
def test_no_credential_reaches_the_repository_tag(url: str, tag: str) -> None:
    assert context._without_credentials(url) == tag
    assert "s3" not in context._without_credentials(url)


def test_origin_is_preferred_to_a_remote_added_before_it() -> None:
    remotes = "remote.upstream.url https://example.com/upstream\nremote.origin.url https://example.com/origin\n"
    assert context._remote_url(remotes) == "https://example.com/origin"
    assert context._remote_url(remotes.splitlines()[0]) == "https://example.com/upstream"


@pytest.mark.parametrize("arguments", [[], [""]])
def test_without_a_script_the_source_is_the_console(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    assert automatic_tags()["mlflow.source.name"] == "<console>"


@pytest.mark.parametrize("script", ["-c", "a\0b", "/no/such/file.py"])
def test_a_script_that_is_no_file_gets_no_git_tags(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = tags_for(script, monkeypatch)
    assert tags["mlflow.source.name"] == script
    assert "mlflow.source.git.commit" not in tags


def test_a_user_id_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert default_user() == "unknown"
    assert automatic_tags()["mlflow.user"] == "unknown"


def test_the_tracking_servers_user_name_goes_before_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert automatic_tags()["mlflow.user"] == "ada"


def test_mlflow_run_context_is_merged_over_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"team": "vision", "mlflow.source.name": "job", "attempt": 2}')
    tags = automatic_tags()
    assert (tags["team"], tags["mlflow.source.name"], tags["attempt"]) == ("vision", "job", "2")


@pytest.mark.parametrize("text", ["{", "[1]", '"text"', "null", "[" * 100_000])
def test_a_malformed_mlflow_run_context_warns_and_the_run_goes_on(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", text)
    assert automatic_tags()["mlflow.source.type"] == "LOCAL"
    assert "MLFLOW_RUN_CONTEXT" in caplog.text


class ZMQInteractiveShell:
    """Named like the shell of a Jupyter kernel."""

    def __init__(self, **names: str) -> None:
        self.user_ns = names


class TerminalInteractiveShell:
    """Named like the shell of the ipython command."""


def install_ipython(shell: object, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("IPython")
    vars(module)["get_ipython"] = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", module)


def test_in_a_notebook_the_source_is_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    install_ipython(ZMQInteractiveShell(), monkeypatch)
    launcher = tags_for("/lib/ipykernel_launcher.py", monkeypatch)
    assert launcher["mlflow.source.type"] == "NOTEBOOK"
    assert launcher["mlflow.source.name"] == "/lib/ipykernel_launcher.py"

    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/explore.ipynb")
    assert automatic_tags()["mlflow.source.name"] == "explore.ipynb"
    install_ipython(ZMQInteractiveShell(__vsc_ipynb_file__="/home/ada/other.ipynb"), monkeypatch)
    assert automatic_tags()["mlflow.source.name"] == "other.ipynb"


def test_an_ipython_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    install_ipython(TerminalInteractiveShell(), monkeypatch)
    assert automatic_tags()["mlflow.source.type"] == "LOCAL"


def test_importing_and_asking_loads_no_ipython_and_no_mlflow() -> None:
    code = "import sys; from asynctrack.runs.context import automatic_tags; automatic_tags(); print(*sys.modules)"
    root = Path(context.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert not {"IPython", "ipykernel", "mlflow", "git"} & set(done.stdout.split())
