"""Makes a verb, a function whose first argument is a `Session`, a method of a service class.

Type checkers and `help` see the verb's own arguments and result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from asynctrack.service.session import Session
from asynctrack.stores.io import drive

__all__ = ["awaited", "blocking", "plain"]

P = ParamSpec("P")
T = TypeVar("T")


class _Face(Protocol):
    _session: Session


def plain(verb: Callable[Concatenate[Session, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A verb that never waits, as a plain method."""

    @wraps(verb)
    def call(face: _Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return verb(face._session, *args, **kwargs)

    return _as_method(call)


def blocking(verb: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """A verb that waits, as a method that blocks the calling thread."""

    @wraps(verb)
    def call(face: _Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return drive(verb(face._session, *args, **kwargs))

    return _as_method(call)


def awaited(
    verb: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A verb that waits, as a coroutine method for asyncio or trio."""

    @wraps(verb)
    async def call(face: _Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await verb(face._session, *args, **kwargs)

    return _as_method(call)


def _as_method(call: T) -> T:
    """Make `help` show ``self``, then the verb's arguments."""
    shown = inspect.signature(call)  # type: ignore[arg-type]  # a function, whose type is its caller's business
    _, *arguments = shown.parameters.values()
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__signature__ = shown.replace(parameters=[first, *arguments])  # type: ignore[attr-defined]  # for inspect
    return call
