"""A store that nobody waits for longer than for a moment: one that hangs does not keep back what spools hold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from asynctrack.clock import monotonic
from asynctrack.errors import UnavailableError
from asynctrack.stores.columns import Increment
from asynctrack.stores.io import drive

if TYPE_CHECKING:
    from asynctrack.stores.base import AbstractStore

__all__ = ["patient"]

#: seconds for which an answer is waited for
_WAIT = 2.0
#: seconds after which an answer that nobody has asked for again is dropped
_KEPT = 60.0
#: what a look asks for; all else is waited for as long as it takes
_ASKED = frozenset(
    {
        *("get_experiment", "get_experiment_by_name", "get_run", "outline_runs", "read_columns", "search_experiments"),
        *("search_runs", "summarize"),
    }
)


def patient(store: AbstractStore) -> AbstractStore:
    """The store, for `drive` and any thread. A question that it has not answered after 2 s raises UnavailableError, and
    so does every other one until it has; its answer is for who asks the same again."""
    return cast("AbstractStore", _Patient(store))


class _Question:
    """One call of the store, in a thread of its own."""

    def __init__(self, what: tuple[Any, ...], call: Callable[[], Any]) -> None:
        self.what = what
        self.begun = monotonic()
        self.is_late = False
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self.answered = threading.Event()
        threading.Thread(target=self._ask, name="asynctrack-view-store", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # it is raised where it is waited for
            self._error = error
        self.answered.set()

    def answer(self) -> Any:
        """What the store has answered. Raises what it raised."""
        if self._error is not None:
            raise self._error
        if self.is_late and isinstance(self._result, Increment):
            return self._result._replace(late=True)
        return self._result


class _Patient:
    def __init__(self, store: AbstractStore) -> None:
        self._store = store
        #: what was not answered in time
        self._late: list[_Question] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return repr(self._store)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in _ASKED:
            return found

        async def asked(*args: Any, **named: Any) -> Any:
            return self._ask((name, args, named), lambda: drive(found(*args, **named)))

        return asked

    def _ask(self, what: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        with self._lock:
            now = monotonic()
            self._late = [each for each in self._late if not each.answered.is_set() or now < each.begun + _KEPT]
            for each in self._late:
                if each.answered.is_set() and each.what == what:
                    self._late.remove(each)
                    return each.answer()
            waited_for = next((each for each in self._late if not each.answered.is_set()), None)
        if waited_for is not None:
            raise self._no_answer(waited_for)
        question = _Question(what, call)
        if not question.answered.wait(_WAIT):
            question.is_late = True
            with self._lock:
                self._late.append(question)
            raise self._no_answer(question)
        return question.answer()

    def _no_answer(self, question: _Question) -> UnavailableError:
        return UnavailableError(f"{self._store.uri} has not answered for {monotonic() - question.begun:.0f} s")
