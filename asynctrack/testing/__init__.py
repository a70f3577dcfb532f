"""For tests of code that logs, and of stores: one in memory, one that fails on demand, and what every store promises.

To test a store of your own, inherit `StoreContract` in a module that pytest collects and give it a ``store`` fixture::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

Its attributes say where stores may differ; docs/stores.md goes through writing a store step by step.
"""

from __future__ import annotations

from asynctrack.stores.memory import MemoryStore
from asynctrack.testing.contract import StoreContract
from asynctrack.testing.faulty import FaultyStore

__all__ = ["FaultyStore", "MemoryStore", "StoreContract"]
