"""Serves the page for a program beside it: ``python -m asynctrack.ui.child``. Started by `asynctrack.runs.viewer`.

Standard input has one line of JSON (no process list shows what stands there), and ends when that program has ended,
however it did.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from typing import IO

from asynctrack.current import store_for
from asynctrack.ui.board import Board
from asynctrack.ui.server import Server

__all__ = ["main"]


def main(orders: IO[str]) -> None:
    """Serve until the orders end."""
    order = json.loads(orders.readline())
    server = Server(Board(store_for(order["uri"])), order["token"], order["hosts"], edit=order["edit"])
    with socket.socket(fileno=order["socket"]) as listener:
        asyncio.run(_serve(server, listener, orders))


async def _serve(server: Server, listener: socket.socket, orders: IO[str]) -> None:
    loop = asyncio.get_running_loop()

    def wait() -> None:
        orders.read()
        try:
            loop.call_soon_threadsafe(server.stop)
        except RuntimeError:
            pass  # the loop has ended meanwhile, by a signal

    threading.Thread(target=wait, name="asynctrack-view-parent", daemon=True).start()
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    main(sys.stdin)
