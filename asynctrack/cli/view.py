"""``asynctrack view``: the page with the runs of a store, in a browser."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Annotated

from asynctrack.cli.asking import open_store
from asynctrack.cli.declaring import Option
from asynctrack.cli.options import StoreArgument
from asynctrack.cli.verbs import FAILED, verb
from asynctrack.runs.viewer import listening

if TYPE_CHECKING:
    from asynctrack.ui.server import Server

__all__ = ["view"]

_command = verb()


@_command
def view(
    uri: StoreArgument = None,
    port: Annotated[
        int, Option("--port", metavar="N", min=0, help="Port on 127.0.0.1; 0: 7007, or one that is free.")
    ] = 0,
    no_browser: Annotated[bool, Option("--no-browser", help="Print the address only.")] = False,
    edit: Annotated[bool, Option("--edit", help="Notes and tags of runs may be changed on the page.")] = False,
    allowed_host: Annotated[
        list[str] | None,
        Option("--allowed-host", metavar="HOST", help="Name under which a proxy shows the page, too."),
    ] = None,
) -> None:
    """Show the runs of a store in a browser, live, until Ctrl-C.

    The page is for this machine only, and for who has the address: it holds a
    token. Nothing is changed without --edit, and the page loads nothing from
    elsewhere.

    Exit status: 0 after Ctrl-C, 1 if the port is taken, 3 if the store is not
    there.
    """
    try:
        from asynctrack.ui.board import Board
        from asynctrack.ui.server import Server
    except ImportError as error:
        print(f"asynctrack: the page needs {error.name}: pip install 'asynctrack[view]'", file=sys.stderr, flush=True)
        raise SystemExit(FAILED) from None
    board = Board(open_store(uri))
    try:
        socket = listening(port or None)
    except OSError as error:
        print(
            f"asynctrack: port {port} cannot be used: {error.strerror}; choose another --port",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(FAILED) from None
    with socket:
        token = secrets.token_urlsafe(18)
        address = f"http://127.0.0.1:{socket.getsockname()[1]}/?token={token}"
        print(f"{board.store.uri}\n  {address}\nCtrl-C ends it.", flush=True)
        board.begin()  # while the browser starts
        _serve(Server(board, token, allowed_host or (), edit=edit), socket, None if no_browser else address)


def _serve(server: Server, socket: object, address: str | None) -> None:
    if address is not None:
        import threading
        import webbrowser

        # It waits until the browser has begun, which may take seconds.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        server.run(sockets=[socket])  # type: ignore[list-item]  # a socket, whose type is imported late
    except KeyboardInterrupt:
        pass  # that is how it ends
