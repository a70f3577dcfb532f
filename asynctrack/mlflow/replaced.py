"""Whether the methods of a store are MLflow's own: what a program, a test mostly, or a plugin has put in their place is
called, as without asynctrack."""

from __future__ import annotations

import logging
from types import FunctionType
from typing import Any

__all__ = ["is_replaced", "own_verb"]

logger = logging.getLogger("asynctrack")

#: by class and name
_own: dict[tuple[type, str], Any] = {}
_said: set[tuple[type, str]] = set()


def own_verb(kind: type, verb: str) -> Any:
    """MLflow's own method ``verb`` of its store class ``kind``; where another has its place, what no method is."""
    found = getattr(kind, verb, None)
    # Of the function, its globals say where it comes from: ``functools.wraps`` copies its names.
    if isinstance(found, FunctionType) and str(found.__globals__.get("__name__")).partition(".")[0] == "mlflow":
        return _own.setdefault((kind, verb), found)
    return _own.get((kind, verb), _own)


def is_replaced(kind: type, verb: str) -> bool:
    """Whether a store of this class has another method ``verb`` than MLflow's. A warning says so once."""
    own = _own.get((kind, verb))
    found = getattr(kind, verb, None)
    if found is None or found is (own_verb(kind, verb) if own is None else own):
        return False
    if (kind, verb) not in _said:
        _said.add((kind, verb))
        logger.warning("asynctrack: %s.%s is not MLflow's own: it is called as without asynctrack", kind.__name__, verb)
    return True
