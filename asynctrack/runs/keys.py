"""The keys of one run: whether its store can hold them, by themselves and beside one another."""

from __future__ import annotations

from typing import Any

from asynctrack.errors import InvalidInputError
from asynctrack.journal.measured import MeasuredOn
from asynctrack.stores.base import AbstractStore

__all__ = ["KeysOfRun"]


class KeysOfRun:
    """Checks the keys that are logged to one run. Any thread may call."""

    def __init__(self, store: AbstractStore) -> None:
        self._store = store
        #: stands before the key of every metric of this process, for the store
        self.prefix = ""
        self._paths: dict[str, set[str]] = {"metric": set(), "param": set(), "tag": set()}
        self._folders: dict[str, set[str]] = {"metric": set(), "param": set(), "tag": set()}

    def stored(self, key: str | MeasuredOn) -> str | MeasuredOn:
        """The key that a metric has in the store."""
        if not self.prefix:
            return key
        if isinstance(key, MeasuredOn):
            return key._replace(key=self.prefix + key.key)
        return self.prefix + key if isinstance(key, str) else key

    def allows(self, kind: str, key: str) -> bool:
        """Whether the store can hold a key, by itself."""
        try:
            self._store.check_key(kind, key)
        except InvalidInputError:
            return False
        return True

    def check(self, kind: str, key: Any) -> None:
        """Raise InvalidInputError for a key that the store can never hold, by itself or beside the keys checked
        before."""
        self._store.check_key(kind, key)
        if not self._store.keys_are_paths or key in self._paths[kind]:
            return
        parts = key.split("/")
        folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        clash = key if key in self._folders[kind] else next((f for f in folders if f in self._paths[kind]), None)
        if clash is not None:
            raise InvalidInputError(
                f"{kind} {key!r} clashes with one logged before: in a file store {clash!r} would have to be a file and "
                "a folder at once; rename one of them"
            )
        self._paths[kind].add(key)
        self._folders[kind].update(folders)
