"""The tags a new run gets by itself, as MLflow sets them: who started it, from which script, at which git commit."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["automatic_tags", "default_user"]

#: seconds that git may take in all; a work tree on a slow file system then goes without git tags
_GIT_TIMEOUT = 3.0
#: set by git for its hooks; they would point at the hook's repository instead of the script's
_GIT_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")

#: per user id: asking may go over the network, and an event loop may be waiting
_users: dict[int, str] = {}
#: per script directory: a process keeps the state its code was loaded in
_git_tags: dict[str, dict[str, str]] = {}


def default_user() -> str:
    """The operating system's user name; "unknown" where there is none (a container with a bare user id)."""
    user_id = os.getuid()
    if user_id not in _users:
        import getpass

        try:
            _users[user_id] = getpass.getuser()
        except (ImportError, KeyError, OSError):
            _users[user_id] = "unknown"
    return _users[user_id]


def automatic_tags() -> dict[str, str]:
    """``mlflow.user``, ``mlflow.source.*``, ``mlflow.source.git.*`` where the main script lies in a git work tree,
    and the JSON map in ``MLFLOW_RUN_CONTEXT``, which overrides them.

    Never raises. The first call for a script runs git and blocks for at most about 3 s (normally some ms); without
    git, a repository, a commit, or in time, the git tags are missing.
    """
    script = _main_script()
    tags = {
        "mlflow.user": os.environ.get("MLFLOW_TRACKING_USERNAME") or default_user(),
        "mlflow.source.name": script or "<console>",
        "mlflow.source.type": "LOCAL",
    }
    folder = _folder_of(script)
    if folder is not None:
        if folder not in _git_tags:
            _git_tags[folder] = _ask_git(folder)
        tags |= _git_tags[folder]
    return tags | _notebook_tags() | _tags_from_environment()


def _main_script() -> str:
    # An embedded interpreter may have no argv at all.
    arguments = getattr(sys, "argv", None)
    return str(arguments[0]) if arguments else ""


def _folder_of(script: str) -> str | None:
    try:
        if os.path.isfile(script):
            return os.path.dirname(os.path.abspath(script))
        # `python folder/` runs its __main__.py; "" and "-c" are the console
        return os.path.abspath(script) if script and os.path.isdir(script) else None
    except (OSError, ValueError):  # the working directory was deleted; a NUL in the name
        return None


def _notebook_tags() -> dict[str, str]:
    """What can be known about a notebook from inside its kernel, without asking the Jupyter server."""
    shell = _ipython_shell()
    if shell is None or not (type(shell).__name__ == "ZMQInteractiveShell" or hasattr(shell, "kernel")):
        return {}
    tags = {"mlflow.source.type": "NOTEBOOK"}
    path = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__")
    for variable in ("__vsc_ipynb_file__", "IPYNB_FILE", "JPY_SESSION_NAME"):
        path = path or os.environ.get(variable)
    if path:
        tags["mlflow.source.name"] = os.path.basename(str(path))
    return tags


def _ipython_shell() -> Any:
    # Whoever runs in IPython has loaded it; loading it here would cost everybody else 200 ms.
    module = sys.modules.get("IPython")
    get_ipython = getattr(module, "get_ipython", None)
    return None if get_ipython is None else get_ipython()


def _tags_from_environment() -> dict[str, str]:
    text = os.environ.get("MLFLOW_RUN_CONTEXT")
    if not text:
        return {}
    import json
    import logging

    try:
        return {str(key): str(value) for key, value in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        logging.getLogger("asynctrack").warning(
            "asynctrack: MLFLOW_RUN_CONTEXT is not a JSON map of tags (%s); the run goes on without them", error
        )
        return {}


# ── git


def _ask_git(folder: str) -> dict[str, str]:
    deadline = time.monotonic() + _GIT_TIMEOUT
    status = _start_git(folder, "status", "--porcelain=v2", "--branch", "-uno", "--no-ahead-behind", "--no-renames")
    remotes = _start_git(folder, "config", "--get-regexp", r"^remote\..*\.url$")
    # A virtual environment or a build folder inside a work tree: that repository's commit says nothing of the script.
    ignored = _start_git(folder, "check-ignore", "--quiet", "--", folder)
    try:
        report = _output(status, deadline)
        if report is None or _output(ignored, deadline) is not None:
            return {}
        return _tags_of(report, _output(remotes, deadline) or "")
    finally:
        for process in (status, remotes, ignored):
            _end(process)


def _start_git(folder: str, *arguments: str) -> Popen[bytes] | None:
    import subprocess

    environment = {name: value for name, value in os.environ.items() if name not in _GIT_LOCATIONS}
    # No lock that a git command of the user's would trip over, and nobody is asked for a password.
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.Popen(
            # A file system monitor is a program that the repository names, or a daemon that would stay behind.
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError, subprocess.SubprocessError, RuntimeError):
        return None  # no git; RuntimeError: the interpreter is ending


def _output(process: Popen[bytes] | None, deadline: float) -> str | None:
    """What it printed; None when it failed, was not there, or is not ready by ``deadline`` (monotonic seconds)."""
    import subprocess

    if process is None:
        return None
    try:
        printed, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0.0))
    except (OSError, ValueError, subprocess.SubprocessError, RuntimeError):
        return None  # RuntimeError: no thread or process can be had any more
    return printed.decode("utf-8", "replace") if process.returncode == 0 else None


def _end(process: Popen[bytes] | None) -> None:
    import subprocess

    if process is None:
        return
    if process.poll() is None:
        process.kill()
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            pass  # it hangs in the kernel, on a dead network file system; it goes when that comes back
    if process.stdout is not None:
        process.stdout.close()


def _tags_of(report: str, remotes: str) -> dict[str, str]:
    """The tags in the output of ``git status`` and ``git config``; none before a repository's first commit."""
    lines = report.splitlines()
    headers = {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in lines if line.startswith("# branch.")}
    commit = headers.get("branch.oid", "(initial)")
    if commit == "(initial)":
        return {}
    tags = {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.dirty": "true" if any(line and line[0] != "#" for line in lines) else "false",
    }
    branch = headers.get("branch.head", "(detached)")
    if branch != "(detached)":
        tags["mlflow.source.git.branch"] = branch
    url = _without_credentials(_remote_url(remotes))
    if url:
        tags["mlflow.source.git.repoURL"] = url
    return tags


def _remote_url(remotes: str) -> str:
    """The URL of ``origin``, else of the remote that is configured first, else ""."""
    urls: dict[str, str] = {}
    for line in remotes.splitlines():
        name, _, url = line.partition(" ")
        urls.setdefault(name.removeprefix("remote.").removesuffix(".url"), url)
    return urls.get("origin") or next(iter(urls.values()), "")


def _without_credentials(url: str) -> str:
    """``url`` without user, password and query; "" for a URL that is so malformed that a password may hide anywhere."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        # host:path and user@host:path are ssh's and hold no password; user:password@host lacks its https://
        before, _, after = url.rpartition("@")
        return after if ":" in before and "/" not in before else url
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if colon and not host.endswith("]") and not (port.isdigit() or (port == "" and name)):
        return ""  # https://user:pass/word@host: the slash should have been %2F
    return f"{scheme}://{host}{slash}{path}".partition("?")[0].partition("#")[0]
