"""MLflow's file store: a directory that MLflow itself reads, serves and migrates."""

from asynctrack.stores.file.store import FileStore

__all__ = ["FileStore"]
