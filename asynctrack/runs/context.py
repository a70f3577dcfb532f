"""The automatic tags of a new run, as in MLflow: user, script, git commit."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asynctrack.clock import monotonic

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["automatic_tags", "default_user", "ipython_shell"]

#: seconds that all git commands together may take; if they take longer, there are no git tags
_GIT_TIMEOUT = 3.0
#: set by git for its hooks: with them, git would look at the hook's repository, not at the script's
_GIT_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")

#: by user id; kept, because looking up a user may go over the network
_users: dict[int, str] = {}
#: by script folder; kept, because the code that runs is the code that was there when the process started
_git_tags: dict[str, dict[str, str]] = {}


def default_user() -> str:
    """The operating system's user name; "unknown" if the user id has no name, as in some containers."""
    user_id = os.getuid() if hasattr(os, "getuid") else -1
    if user_id not in _users:
        try:
            import getpass

            _users[user_id] = getpass.getuser()
        except (ImportError, KeyError, OSError):
            _users[user_id] = "unknown"
    return _users[user_id]


def automatic_tags() -> dict[str, str]:
    """``mlflow.user``, ``mlflow.source.*``, ``mlflow.source.git.*`` if the main script is in a git work tree, and the
    JSON map in ``MLFLOW_RUN_CONTEXT``, which overrides the others.

    Never raises. The first call runs git, which takes some ms and at most about 3 s. If git takes longer, is missing,
    or finds no commit, the git tags are left out.
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
            with suppress(OSError):  # no file descriptor is left for a module that is imported only now
                _git_tags[folder] = _ask_git(folder)
        tags |= _git_tags.get(folder, {})
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
    """The tags of a notebook. Its name is known only in some environments: the Jupyter server is not asked."""
    shell = ipython_shell()
    if shell is None or not (type(shell).__name__ == "ZMQInteractiveShell" or hasattr(shell, "kernel")):
        return {}
    tags = {"mlflow.source.type": "NOTEBOOK"}
    path = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__")
    for variable in ("__vsc_ipynb_file__", "IPYNB_FILE", "JPY_SESSION_NAME"):
        path = path or os.environ.get(variable)
    if path:
        tags["mlflow.source.name"] = os.path.basename(str(path))
    return tags


def ipython_shell() -> Any:
    """IPython's shell, None outside IPython."""
    # A program that runs in IPython has imported it already. Importing it here would cost other programs 200 ms.
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

#: git's processes that were killed and had not ended yet when last looked at
_unreaped: list[Popen[bytes]] = []


def _ask_git(folder: str) -> dict[str, str]:
    _unreaped[:] = [process for process in _unreaped if process.poll() is None]
    deadline = monotonic() + _GIT_TIMEOUT
    status = _start_git(folder, "status", "--porcelain=v2", "--branch", "-uno", "--no-ahead-behind", "--no-renames")
    remotes = _start_git(folder, "config", "--get-regexp", r"^remote\..*\.url$")
    # An ignored folder (a virtual environment, a build folder) is not part of the commit.
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
    # Take no lock that the user's own git commands would fail on, and never ask for a password.
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.Popen(
            # Otherwise git may start a file system monitor: a daemon, or any program the repository names.
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
    """What the process printed; None if it could not start, failed, or runs beyond ``deadline`` (monotonic seconds)."""
    import subprocess

    if process is None:
        return None
    try:
        printed, _ = process.communicate(timeout=max(deadline - monotonic(), 0.0))
    except (OSError, ValueError, subprocess.SubprocessError, RuntimeError):
        return None  # RuntimeError: the interpreter is ending and starts no thread any more
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
            # It hangs in the kernel, on a network file system that does not answer, or the machine is very busy.
            _unreaped.append(process)
    if process.stdout is not None:
        process.stdout.close()


def _tags_of(report: str, remotes: str) -> dict[str, str]:
    """The tags from the output of ``git status`` and ``git config``; none before the first commit."""
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
    """The URL of ``origin``, else of the first remote, else ""."""
    urls: dict[str, str] = {}
    for line in remotes.splitlines():
        name, _, url = line.partition(" ")
        urls.setdefault(name.removeprefix("remote.").removesuffix(".url"), url)
    return urls.get("origin") or next(iter(urls.values()), "")


def _without_credentials(url: str) -> str:
    """``url`` without user, password and query; "" if it is so malformed that it may contain a password anywhere."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        # host:path and user@host:path are for ssh, without a password; user:password@host is https:// forgotten
        before, _, after = url.rpartition("@")
        return after if ":" in before and "/" not in before else url
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if colon and not host.endswith("]") and not (port.isdigit() or (port == "" and name)):
        return ""  # https://user:pass/word@host: the slash should have been %2F
    return f"{scheme}://{host}{slash}{path}".partition("?")[0].partition("#")[0]
