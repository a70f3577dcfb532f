"""Ends what a test started, even when the test's process is killed and can do nothing any more."""

from __future__ import annotations

import subprocess


class Guard:
    """Has a shell run ``command``, with ``$1``, ``$2`` … given, once this process is gone, however it ended.

    The shell waits for the end of a pipe that only this process, and children forked from it, hold open.
    """

    def __init__(self, command: str, *arguments: object) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", f"read -r _; {command}", "guard", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what is typed or sent to end the tests is not to end their guard
        )

    def dismiss(self) -> None:
        """The command is not needed any more."""
        self._shell.kill()
        self._shell.communicate()
