"""MemoryStore keeps the contract, also behind a FaultyStore without faults."""

from __future__ import annotations

import pytest

from asynctrack.testing import FaultyStore, MemoryStore, StoreContract


class TestMemoryStore(StoreContract):
    """In memory."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestFaultyStoreWithoutFaults(StoreContract):
    """A FaultyStore that is told nothing changes nothing."""

    @pytest.fixture
    def store(self) -> FaultyStore:
        return FaultyStore(MemoryStore())
