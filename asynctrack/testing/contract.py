"""`StoreContract`: the tests that every store must pass. The engine and the public functions rely on them."""

from __future__ import annotations

from asynctrack.testing.columns import ColumnsContract
from asynctrack.testing.events import EventsContract
from asynctrack.testing.experiments import ExperimentsContract
from asynctrack.testing.runs import RunsContract

__all__ = ["StoreContract"]


class StoreContract(RunsContract, EventsContract, ColumnsContract, ExperimentsContract):
    """The tests of a store. Inherit it in a module that pytest collects, and
    add a ``store`` fixture.

    The store may be new for each test or shared by all tests. Override `run`
    if the store needs an event loop, and the attributes of `ContractHooks` in
    which the store differs.
    """
