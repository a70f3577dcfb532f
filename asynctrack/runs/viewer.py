"""`view`: the page with the runs of a store, served by a process of its own, so that training is not slowed down.

That process is given a socket that listens already, so the address is known at once, and ends with this one.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import socket
import subprocess
from collections.abc import Iterable
from html import escape
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from asynctrack.arguments import flag_of, given, several, text_of
from asynctrack.current import current_store_uri
from asynctrack.engine.child import shipper_environment
from asynctrack.engine.lifecycle import after_fork
from asynctrack.errors import AsynctrackError, InvalidInputError
from asynctrack.platforms import interpreter
from asynctrack.runs.ranks import rank_in
from asynctrack.settings import current_settings
from asynctrack.stores.uri import resolve_store_uri
from asynctrack.values import shortened

__all__ = ["Viewer", "announce", "listening", "view"]

logger = logging.getLogger("asynctrack")

#: what the page needs beside the package itself
_NEEDED = ("numpy", "starlette", "uvicorn")
#: the port that is tried first, and the largest there is
_PORT, _LAST_PORT = 7007, 65535
#: seconds to wait for a process that was killed
_PATIENCE = 5.0


class Viewer:
    """The page of a store, until `stop` or the end of this process.

    A notebook shows a link to it. With ``with`` it ends with the block. Any
    thread may call its methods.
    """

    def __init__(self, url: str, store_uri: str, process: subprocess.Popen[bytes]) -> None:
        #: where the page is; with a token, so whoever has it sees the page
        self.url = url
        #: the store whose runs it shows
        self.store_uri = store_uri
        self._process: subprocess.Popen[bytes] | None = process

    @property
    def running(self) -> bool:
        """Whether the page is served."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Serve the page no more. A second call does nothing."""
        process = self._process
        if process is not None:
            process.kill()  # it only shows: there is nothing to be finished
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                pass  # it hangs in the kernel (on a dead disk, say), and ends with that
        self._let_go()

    def _let_go(self) -> None:
        """It is another process's now, or nobody's: its pipe is closed, and it ends when nobody else has it open."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            if process.returncode is None:
                process.returncode = 0  # nothing to wait for, and so nothing for Python to warn of
        if self in _viewers:
            _viewers.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Viewer of {self.store_uri} at {self.url}>" if self.running else f"<Viewer of {self.store_uri}, ended>"

    def _repr_html_(self) -> str:
        if not self.running:
            return f"<p>{escape(repr(self))}</p>"
        links = [(self.url, "open the page")]
        proxied = _proxied(self.url)
        if proxied is not None:
            links.append((proxied, "through jupyter-server-proxy"))
        shown = " · ".join(f'<a href="{escape(url)}" target="_blank" rel="noopener">{what}</a>' for url, what in links)
        return f"<p>asynctrack, {escape(self.store_uri)}: {shown}</p>"


#: those that are served, the latest last
_viewers: list[Viewer] = []


def view(
    uri: str | os.PathLike[str] | None = None,
    *,
    port: int | None = None,
    allowed_hosts: str | Iterable[str] = (),
    edit: bool = False,
    browser: bool = False,
) -> Viewer:
    """Serve the page with the runs of a store, live, beside this program; at
    once, and without waiting for anything. See `asynctrack view` on the
    command line and docs/reading.md.

    ``uri``: of the store, default `get_tracking_uri`. ``port``: on 127.0.0.1,
    default 7007 or one that is free. ``allowed_hosts``: names under which a
    proxy shows the page, as the browser's address bar has them. ``edit``:
    notes and tags may be changed there. ``browser``: open it in one.

    ``.url`` is the address, with the token that opens it. The page is served
    by a process of its own, until ``.stop()`` or the end of this one. Any
    thread may call. Needs the extra ``view``. Raises ImportError without it,
    InvalidInputError, also for a port that is taken, and AsynctrackError where
    no process can be started.
    """
    store_uri = current_store_uri() if given(uri) is None else resolve_store_uri(uri)
    hosts = [text_of("allowed_hosts", host) for host in several("allowed_hosts", allowed_hosts)]
    editable, opened = flag_of("edit", edit), flag_of("browser", browser)
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= _LAST_PORT):
        raise InvalidInputError(f"port={shortened(port)}: it must be a whole number from 0 to {_LAST_PORT}")
    viewer = _start(store_uri, port, hosts, edit=editable)
    if opened:
        import threading
        import webbrowser

        # It waits until the browser has begun, which may take seconds.
        threading.Thread(target=webbrowser.open, args=(viewer.url,), daemon=True).start()
    return viewer


def announce(store_uri: str) -> None:
    """Print where the page of a store is; start it, unless this process has one. Of several ranks the first one does.
    Raises nothing: where it cannot be done, a warning says why, and the run goes on."""
    try:
        rank = rank_in(os.environ)
        if rank is not None and rank.number != 0:
            return
        there = [viewer for viewer in _viewers if viewer.store_uri == store_uri and viewer.running]
        viewer = there[-1] if there else _start(store_uri, None, [], edit=False)
    except (AsynctrackError, ImportError) as error:
        logger.warning("asynctrack: start_run(view=True): %s; the run goes on without the page", error)
        return
    try:
        print(f"asynctrack: watch it at {viewer.url}", flush=True)
    except (AttributeError, OSError, ValueError):
        pass  # no standard output, or a closed one


def _start(store_uri: str, port: int | None, hosts: list[str], *, edit: bool) -> Viewer:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f"the page needs {', '.join(missing)}: pip install 'asynctrack[view]'", name=missing[0])
    python = interpreter()
    if python is None:
        raise AsynctrackError("there is no Python interpreter to serve the page; run `asynctrack view` by hand")
    try:
        listener = listening(port)
    except OSError as error:
        raise InvalidInputError(f"port={port} cannot be used: {error.strerror}; choose another one") from None
    with listener:
        token = secrets.token_urlsafe(18)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}"
        order = {"socket": listener.fileno(), "token": token, "uri": store_uri, "hosts": hosts, "edit": edit}
        try:
            process = subprocess.Popen(
                [python, "-P", "-m", "asynctrack.ui.child"],  # -P: no module of the working directory is ours
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=shipper_environment(store_uri, current_settings()),
                start_new_session=True,  # Ctrl-C is for the program, and in a notebook for a cell
                pass_fds=(listener.fileno(),),
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise AsynctrackError(f"the page of {store_uri} cannot be served: {error}") from None
    viewer = Viewer(url, store_uri, process)
    _viewers.append(viewer)
    return viewer


def listening(port: int | None) -> socket.socket:
    """A socket on 127.0.0.1. ``port`` None: 7007, or another where that is taken. Raises OSError."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            found.bind(("127.0.0.1", _PORT if port is None else port))
        except OSError:
            if port is not None:
                raise
            found.bind(("127.0.0.1", 0))
        found.listen(128)
    except BaseException:
        found.close()
        raise
    return found


def _proxied(url: str) -> str | None:
    """The address under which jupyter-server-proxy shows the page, on the server that a notebook's page comes from;
    None where nothing says that there is one."""
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix is None and ("JPY_PARENT_PID" not in os.environ or find_spec("jupyter_server_proxy") is None):
        return None
    _, _, rest = url.partition("://127.0.0.1:")
    port, _, query = rest.partition("/")
    return f"{(prefix or '/').rstrip('/')}/proxy/{port}/{query}"


def _forget() -> None:
    """At the end, and in a forked child, whose parent they belong to."""
    for viewer in list(_viewers):
        viewer._let_go()


atexit.register(_forget)
after_fork(_forget)
