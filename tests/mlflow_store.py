"""MLflow's own SQL store, and databases of several versions of its schema, made by MLflow's migrations."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

__all__ = ["Tables", "make_database", "open_mlflow"]


def open_mlflow(place: Path | str, root: Path = Path()) -> Any:
    """MLflow's store on an SQLite database or on the one at a URI, which it makes or upgrades; artifacts are beside the
    file, or below ``root``."""
    uri, home = (f"sqlite:///{place}", place.parent) if isinstance(place, Path) else (place, root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies, while they are imported
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        return SqlAlchemyStore(uri, str(home / "mlruns"))  # type: ignore[no-untyped-call]


def make_database(path: Path, revision: str) -> None:
    """An SQLite database as MLflow's migrations leave it at ``revision``, without experiments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sqlalchemy
        from alembic import command
        from mlflow.store.db.utils import _get_alembic_config
        from mlflow.store.tracking.dbmodels.initial_models import Base

        url = f"sqlite:///{path}"
        engine = sqlalchemy.create_engine(url)
        try:
            Base.metadata.create_all(engine)
            config = _get_alembic_config(url)  # type: ignore[no-untyped-call]
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
        finally:
            engine.dispose()


class Tables:
    """A database of MLflow's, read with SQL."""

    def __init__(self, backend: str) -> None:
        #: its URI, as MLflow takes it
        self.backend = backend

    def rows(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What a query, with ``:name`` parameters, finds."""
        import sqlalchemy  # a third of a second, which conftest.py would make every test run pay

        engine = sqlalchemy.create_engine(self.backend, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(statement), parameters)]
