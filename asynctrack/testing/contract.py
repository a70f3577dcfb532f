"""`StoreContract`: what the engine and the public functions rely on, whatever the store."""

from __future__ import annotations

from asynctrack.testing.events import EventsContract
from asynctrack.testing.experiments import ExperimentsContract
from asynctrack.testing.runs import RunsContract

__all__ = ["StoreContract"]


class StoreContract(RunsContract, EventsContract, ExperimentsContract):
    """Inherit it in a module that pytest collects, and give it a ``store`` fixture: a fresh store, or one shared by
    all tests. Override `run` where the store needs an event loop, and the attributes of `ContractHooks` where the
    store is one of those that differ there."""
