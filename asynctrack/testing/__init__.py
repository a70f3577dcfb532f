"""Helpers for tests: a store in memory, a store that fails on demand, and the tests that every store must pass.

To test a store of your own, inherit `StoreContract` in a module that pytest collects, and give it a ``store`` fixture::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

The attributes of `StoreContract` say where stores may differ. docs/stores.md explains how to write a store.
"""

from __future__ import annotations

from asynctrack.stores.memory import MemoryStore
from asynctrack.testing.contract import StoreContract
from asynctrack.testing.faulty import FaultyStore

__all__ = ["FaultyStore", "MemoryStore", "StoreContract"]
