"""The contract's tests about experiments."""

from __future__ import annotations

from typing import Any

from asynctrack.entities import ViewType
from asynctrack.errors import AlreadyExistsError, NotFoundError, RefusedError, StoreError
from asynctrack.stores.base import AbstractStore
from asynctrack.testing.hooks import NEVER, ContractHooks

__all__ = ["ExperimentsContract"]

_NONE = "123456"


class ExperimentsContract(ContractHooks):
    """How a store keeps experiments."""

    def test_an_experiment_keeps_its_name_tags_and_place(self, store: AbstractStore) -> None:
        """It is found by id and by name, and no second experiment gets the name."""
        name = self.experiment_name("x")
        experiment_id = self.run(store.create_experiment(name, self.artifact_location, {"k": "v"}))
        found = self.run(store.get_experiment(experiment_id))
        assert (found.experiment_id, found.name, found.lifecycle_stage) == (experiment_id, name, "active")
        assert (found.artifact_location, found.tags) == (self.artifact_location or found.artifact_location, {"k": "v"})
        assert found.creation_time is None or found.creation_time > 1_700_000_000_000
        assert self.run(store.get_experiment_by_name(name)) == found
        assert self.run(store.get_experiment_by_name(self.experiment_name("y"))) is None
        assert name in self.raised(AlreadyExistsError, store.create_experiment(name))
        self.raised(NEVER, store.create_experiment(" "))

    def test_an_experiment_without_a_place_gets_one(self, store: AbstractStore) -> None:
        """The store picks the artifact location, and the artifacts of its runs are in it."""
        experiment_id = self.experiment(store)
        location = self.run(store.get_experiment(experiment_id)).artifact_location
        assert location
        run = self.run(store.get_run(self.new_run(store)))
        assert (run.info.artifact_uri or "").startswith(location)

    def test_an_experiment_can_be_renamed_and_tagged(self, store: AbstractStore) -> None:
        """The new name is taken, the old one free."""
        old, new = self.experiment_name("old"), self.experiment_name("new")
        experiment_id = self.run(store.create_experiment(old))
        self.run(store.rename_experiment(experiment_id, new))
        for value in ("u", "v"):
            self.run(store.set_experiment_tag(experiment_id, "k", value))
        self.run(store.set_experiment_tag(experiment_id, "folder/k", "w"))
        found = self.run(store.get_experiment(experiment_id))
        assert (found.name, found.tags) == (new, {"k": "v", "folder/k": "w"})
        self.run(store.delete_experiment_tag(experiment_id, "folder/k"))
        assert self.run(store.get_experiment(experiment_id)).tags == {"k": "v"}
        for missing in ("folder/k", "K", "k "):
            self.raised(NotFoundError, store.delete_experiment_tag(experiment_id, missing))
        assert self.run(store.get_experiment(experiment_id)).tags == {"k": "v"}
        self.run(store.create_experiment(old))
        self.raised(AlreadyExistsError, store.rename_experiment(experiment_id, old))
        self.raised(NEVER, store.rename_experiment(experiment_id, " "))
        assert self.run(store.get_experiment(experiment_id)).name == new

    def test_deleting_an_experiment_deletes_its_runs_and_keeps_its_name(self, store: AbstractStore) -> None:
        """Restoring the experiment restores its runs."""
        name = self.experiment_name("x")
        experiment_id = self.run(store.create_experiment(name))
        run_id = self.new_run(store, experiment_id=experiment_id)
        self.run(store.delete_experiment(experiment_id))
        assert self.run(store.get_experiment(experiment_id)).lifecycle_stage == "deleted"
        assert self.run(store.get_run(run_id)).info.lifecycle_stage == "deleted"
        self.raised(NotFoundError, store.delete_experiment(experiment_id))
        self.raised(AlreadyExistsError, store.create_experiment(name))
        self.raised(StoreError, store.rename_experiment(experiment_id, self.experiment_name("y")))
        self.raised(StoreError, store.set_experiment_tag(experiment_id, "k", "v"))
        self.raised(StoreError, store.delete_experiment_tag(experiment_id, "k"))
        self.raised(RefusedError, store.create_run(self.spec(store, experiment_name=name)))
        self.raised(RefusedError, store.create_run(self.spec(store, experiment_id=experiment_id)))
        self.run(store.restore_experiment(experiment_id))
        assert self.run(store.get_run(run_id)).info.lifecycle_stage == "active"
        self.raised(NotFoundError, store.restore_experiment(experiment_id))

    def test_an_experiment_that_does_not_exist_is_not_found(self, store: AbstractStore) -> None:
        """By any verb; nor one whose id could lead elsewhere."""
        assert _NONE in self.raised(NotFoundError, store.get_experiment(_NONE))
        self.experiment(store)  # the store itself is there
        self.raised(NotFoundError, store.rename_experiment(_NONE, self.experiment_name("x")))
        self.raised(NotFoundError, store.delete_experiment(_NONE))
        self.raised(NotFoundError, store.restore_experiment(_NONE))
        self.raised(NotFoundError, store.set_experiment_tag(_NONE, "k", "v"))
        self.raised(NotFoundError, store.delete_experiment_tag(_NONE, "k"))
        for experiment_id in ("../x", "", "a/b"):
            self.raised(NEVER, store.get_experiment(experiment_id))
            self.raised(NEVER, store.delete_experiment(experiment_id))

    def test_searching_experiments(self, store: AbstractStore) -> None:
        """By name and tag, active ones unless asked otherwise, page by page."""
        names = {short: self.experiment_name(short) for short in ("aa", "ab", "b")}
        ids = {short: self.run(store.create_experiment(name, tags={"t": name})) for short, name in names.items()}
        self.run(store.delete_experiment(ids["b"]))
        mine = f"name LIKE '{self.experiment_name('')}%'"

        def found(text: str, **more: Any) -> list[str]:
            return [found.name for found in self.run(store.search_experiments(filter_string=text, **more)).items]

        assert set(found(mine)) == {names["aa"], names["ab"]}
        assert found(mine, order_by=["name DESC"]) == [names["ab"], names["aa"]]
        assert found(f"tags.t = '{names['ab']}'") == [names["ab"]]
        assert found(f"name = '{names['b']}'") == []
        assert found(f"name = '{names['b']}'", view_type=ViewType.DELETED_ONLY) == [names["b"]]
        first = self.run(store.search_experiments(ViewType.ALL, 2, mine, ["name ASC"]))
        rest = self.run(store.search_experiments(ViewType.ALL, 2, mine, ["name ASC"], first.token))
        assert [item.name for item in [*first.items, *rest.items]] == list(names.values())
        assert rest.token is None
        self.raised(NEVER, store.search_experiments(filter_string="metrics.x > 1"))
