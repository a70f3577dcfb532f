"""What comes of an attempt at a piece of work. Pure: decides from the work and the error, and does nothing."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from asynctrack.delivery.work import Work
from asynctrack.errors import (
    InvalidInputError,
    RefusedError,
    ServerFaultError,
    StoreError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.platforms import names_need_utf8
from asynctrack.stores.base import Refusal

__all__ = ["SUSPECTED", "Outcome", "OwnDiskError", "Verdict", "as_store_error", "is_bug", "outcome_of", "refuse_all"]

#: attempts after which the events of a work that the store fails at are suspected; and after which a work that meets
#: with a bug, in whatever call, is refused
SUSPECTED, GIVEN_UP = 3, 6


class Verdict(Enum):
    """What is to be done next."""

    #: the store has dealt with it: it is stored, but for what was refused
    STORED = 1
    #: try again later
    RETRY = 2
    #: the same, slowly: the user has to mend something first
    HELD = 3
    #: the run can never be created, and so nothing of it can be stored
    REFUSED_RUN = 4
    #: the spool's own files cannot be written. The store is not asked again, and other runs go on
    LOCAL_TROUBLE = 5


class Outcome(NamedTuple):
    """A verdict, and what it rests on: ``refusals`` with STORED, ``error`` with the others."""

    verdict: Verdict
    refusals: list[Refusal]
    error: StoreError


class OwnDiskError(Exception):
    """A file of the spool could not be written while a work was carried out."""


_NOTHING = StoreError("nothing is wrong")
#: what the interpreter says where no thread can be started, by a store that uses some
_OUT_OF_THREADS = ("can't start new thread", "cannot schedule new futures")


def outcome_of(work: Work, error: Exception | None, refusals: list[Refusal], *, created: bool) -> Outcome:
    """What an attempt at ``work`` means, which was refused ``refusals`` or ended with ``error``. ``created``: the store
    has the run."""
    if error is None:
        return Outcome(Verdict.STORED, refusals, _NOTHING)
    if isinstance(error, OwnDiskError):
        return Outcome(Verdict.LOCAL_TROUBLE, [], UnavailableError(str(error)))
    given_up = is_bug(error) and work.attempts >= GIVEN_UP
    error = as_store_error(error)
    if given_up:
        error = RefusedError(str(error))
    if error.held:
        return Outcome(Verdict.HELD, [], error)
    if error.retryable:
        return Outcome(Verdict.RETRY, [], error)
    if not created:
        return Outcome(Verdict.REFUSED_RUN, [], error)
    # Whichever call of the work it was: the store has said that it will not take it.
    return Outcome(Verdict.STORED, refuse_all(work, str(error)), _NOTHING)


def is_bug(error: Exception) -> bool:
    """Whether it is none of the errors that a store may raise, nor one that says more about this moment than about what
    was to be stored."""
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _OUT_OF_THREADS):
        return False
    if isinstance(error, UnicodeEncodeError) and names_need_utf8(error):
        return False
    return not isinstance(error, (StoreError, InvalidInputError, OwnDiskError, OSError, MemoryError))


def as_store_error(error: Exception) -> StoreError:
    """What the store would have raised if it had raised what it may."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, InvalidInputError):
        # A setting that the store reads when it connects: a certificate's path, say. The user has to mend it.
        return WrongServerError(str(error))
    if isinstance(error, UnicodeEncodeError) and (advice := names_need_utf8(error)):
        return WrongServerError(advice)  # another program can store it
    text = f"unexpected failure: {error!r}"
    return ServerFaultError(text) if is_bug(error) else UnavailableError(text)


def refuse_all(work: Work, reason: str) -> list[Refusal]:
    """Every event of a work that was not dealt with so far, refused for the same reason."""
    if work.isolation is not None:
        refusals = list(work.isolation.refuse_rest(reason))
    else:
        refusals = [Refusal(*item, reason=reason) for item in work.batch.items()]
    if work.ends is not None and work.ends.status:  # without one, it only says that nothing more comes
        refusals.append(Refusal("end", work.ends.status, work.ends.end_time, reason))
    return refusals
