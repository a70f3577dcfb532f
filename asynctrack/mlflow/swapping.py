"""Gives functions of MLflow's other code. The function objects stay, so it does not matter who has imported them, and
when."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

__all__ = ["Swap"]


class Swap:
    """The functions of one of MLflow's modules, or of a class in it, that get other code.

    The new code runs in ``module``, where ``_asynctrack`` is the module ``here``. Of ``replacements``, a class of
    static methods, only the parameters are theirs: the defaults stay MLflow's.
    """

    def __init__(self, module: Any, owner: Any, replacements: type, here: str) -> None:
        self._module = module
        self._owner = owner
        self._replacements = {n: f.__func__ for n, f in vars(replacements).items() if isinstance(f, staticmethod)}
        self._here = here
        #: by name, what MLflow's own functions do, under another name
        self.own: dict[str, Callable[..., Any]] = {}
        #: by name, those that have other code now, and their own code
        self._swapped: dict[str, tuple[Any, CodeType]] = {}

    def replace(self) -> None:
        """Do it. A function that this MLflow defines with other parameters is left alone: it goes through the wrapped
        store."""
        self._module._asynctrack = sys.modules[self._here]
        for name, new in self._replacements.items():
            if name in self._swapped:
                continue
            function: Any = inspect.unwrap(getattr(self._owner, name))
            same = [*inspect.signature(function).parameters] == [*inspect.signature(new).parameters]
            if not same or function.__closure__ is not None or function.__globals__ is not self._module.__dict__:
                continue
            self.own[name] = FunctionType(function.__code__, self._module.__dict__, name, function.__defaults__)
            self._swapped[name] = function, function.__code__
            function.__code__ = new.__code__

    def restore(self) -> None:
        """Give them back their own."""
        for function, code in self._swapped.values():
            function.__code__ = code
        self._swapped.clear()
