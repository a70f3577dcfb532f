"""A folder that is taken away between any two calls of the system, with the store that is in it."""

from __future__ import annotations

import builtins
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

_CALLS = ("open", "mkdir", "stat", "lstat", "link", "replace", "rename", "scandir", "listdir", "unlink")


class Thief:
    """Moves a folder away just before the n-th call of the system. ``leaves``: with an empty one in its place, as where
    a file system is not mounted."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, leaves: bool = False) -> None:
        self._folder = folder
        self._leaves = leaves
        self._away = folder.with_name("away")
        self._rename, self._mkdir = os.rename, os.mkdir
        self._left: int | None = None
        for name in _CALLS:
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))
        monkeypatch.setattr(builtins, "open", self._watched(builtins.open))

    def come(self, number: int) -> None:
        self._left = number

    def give_back(self, *, hides: bool = False) -> bool:
        """Whether it had been here. ``hides``: what was written in the old place meanwhile is hidden, and no error."""
        came, self._left = self._left is not None and self._left < 0, None
        if came:
            if hides:
                shutil.rmtree(self._folder, ignore_errors=True)
            elif self._leaves:
                self._folder.rmdir()  # nothing is in it
            assert not self._folder.exists(), "something was written where the store had been"
            self._rename(self._away, self._folder)
        return came

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._left is not None:
                if not self._left:
                    self._rename(self._folder, self._away)
                    if self._leaves:
                        self._mkdir(self._folder)
                self._left -= 1
            return function(*args, **kwargs)

        return call
