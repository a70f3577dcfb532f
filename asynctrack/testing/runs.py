"""The contract's tests about runs: creating, changing, finding them."""

from __future__ import annotations

import math

from asynctrack.entities import ViewType
from asynctrack.errors import NotFoundError, RefusedError, StoreError
from asynctrack.stores.base import AbstractStore, Batch, Point
from asynctrack.stores.branches import Branch, latest_branch
from asynctrack.testing.hooks import NEVER, ContractHooks

__all__ = ["RunsContract"]

NAN = float("nan")


class RunsContract(ContractHooks):
    """How a store keeps runs."""

    def test_a_new_run_is_running_and_carries_what_was_given(self, store: AbstractStore) -> None:
        """create_run keeps the user, the start, the name and the tags."""
        run_id = self.new_run(store, run_name="baseline", tags={"team": "cv"}, start_time=5)
        run = self.run(store.get_run(run_id))
        assert (run.info.status, run.info.user_id, run.info.start_time) == ("RUNNING", "ann", 5)
        assert (run.info.run_name, run.info.end_time, run.info.lifecycle_stage) == ("baseline", None, "active")
        assert {"team": "cv", "mlflow.runName": "baseline"}.items() <= run.data.tags.items()
        assert run.info.artifact_uri
        assert run_id in run.info.artifact_uri
        assert self.run(store.get_tags(run_id)) == run.data.tags

    def test_a_run_without_a_name_gets_one(self, store: AbstractStore) -> None:
        """The random name is kept, in the run and in its tag."""
        run = self.run(store.get_run(self.new_run(store)))
        assert run.info.run_name
        assert run.data.tags["mlflow.runName"] == run.info.run_name

    def test_creating_a_run_twice_changes_nothing(self, store: AbstractStore) -> None:
        """A creation whose answer was lost can be repeated: there is one run, and its events stay."""
        spec = self.spec(store, start_time=1)
        first = self.run(store.create_run(spec))
        self.deliver(store, first.run_id, Batch(params=[("a", "1")]))
        # If the store chooses run ids, the engine looks for the run first.
        again = self.run(store.find_run(spec) if store.chooses_run_ids else store.create_run(spec))
        assert again is not None
        assert again.run_id == first.run_id
        assert len(self.run(store.search_runs([first.experiment_id])).items) == 1
        assert self.run(store.get_run(first.run_id)).data.params == {"a": "1"}

    def test_the_run_of_a_spec_can_be_found(self, store: AbstractStore) -> None:
        """After a crash the spec is all that is known of a run."""
        spec = self.spec(store)
        assert self.run(store.find_run(spec)) is None
        info = self.run(store.create_run(spec))
        assert self.run(store.find_run(spec)) == info
        if not store.chooses_run_ids:
            assert info.run_id == spec.uid

    def test_a_time_that_is_none_is_refused(self, store: AbstractStore) -> None:
        """Nothing is changed, and the run can be read as before."""
        run_id = self.new_run(store)
        before = self.run(store.get_run(run_id)).info
        for wrong in (1.5, "2024-01-01", 10**30, True):
            self.raised(NEVER, store.update_run(run_id, end_time=wrong))  # type: ignore[arg-type]
            self.raised(NEVER, store.create_run(self.spec(store, start_time=wrong)))
        assert self.run(store.get_run(run_id)).info == before

    def test_a_run_is_known_by_its_uid(self, store: AbstractStore) -> None:
        """While the store is away, a program knows only the uid of its run, and other programs get that as its id."""
        spec = self.spec(store, run_name="r")
        run_id = self.run(store.create_run(spec)).run_id
        assert self.deliver(store, spec.uid, Batch({"m": [(1, 0, 1.0)]}, [("p", "1")])) == []
        self.run(store.update_run(spec.uid, status="FINISHED", end_time=7))
        run = self.run(store.get_run(spec.uid))
        assert (run.info.run_id, run.info.status, run.data.params) == (run_id, "FINISHED", {"p": "1"})
        assert self.run(store.get_run_info(spec.uid)).run_id == run_id
        assert [point.value for point in self.run(store.get_metric_history(spec.uid, "m"))] == [1.0]
        again = self.run(store.create_run(self.spec(store, run_id=spec.uid)))
        assert (again.run_id, again.status) == (run_id, "RUNNING")
        found = self.run(store.find_run(self.spec(store, run_id=spec.uid)))
        assert found is not None
        assert found.run_id == run_id

    def test_a_run_that_names_no_experiment_is_in_the_default_one(self, store: AbstractStore) -> None:
        """MLflow's experiment "0"."""
        if self.has_default_experiment:
            run_id = self.new_run(store, experiment_name=None)
            assert self.run(store.get_run(run_id)).info.experiment_id == "0"

    def test_a_named_experiment_is_created_once(self, store: AbstractStore) -> None:
        """Runs that name the same missing experiment end in the same one."""
        name = self.experiment_name("vision")
        runs = [self.run(store.get_run(self.new_run(store, experiment_name=name))) for _ in range(2)]
        assert len({run.info.experiment_id for run in runs}) == 1
        assert self.run(store.get_experiment(runs[0].info.experiment_id)).name == name

    def test_an_experiment_id_that_does_not_exist_is_not_found(self, store: AbstractStore) -> None:
        """A wrong experiment is an error, not a new experiment."""
        spec = self.spec(store, experiment_id="123456")
        assert "123456" in self.raised(NotFoundError, store.create_run(spec))

    def test_taking_a_run_up_again_sets_it_running(self, store: AbstractStore) -> None:
        """Resuming is what MLflow's start_run(run_id=...) does. The old end goes where it can: a server keeps it."""
        run_id = self.new_run(store)
        self.run(store.update_run(run_id, status="FAILED", end_time=7))
        spec = self.spec(store, run_id=run_id, run_name="second", tags={"again": "yes"})
        info = self.run(store.create_run(spec))
        end = 7 if store.chooses_run_ids else None
        assert (info.run_id, info.status, info.end_time, info.run_name) == (run_id, "RUNNING", end, "second")
        stored = self.run(store.get_run(run_id))
        assert (stored.info.status, stored.info.end_time) == ("RUNNING", end)
        tags = stored.data.tags
        assert (tags["again"], tags["mlflow.runName"]) == ("yes", "second")
        self.run(store.update_run(run_id, status="FINISHED", end_time=9))
        assert self.run(store.get_run(run_id)).info.end_time == 9

    def test_what_an_abandoned_branch_logged_goes(self, store: AbstractStore) -> None:
        """A store deletes it, once, or has a tag by which readers leave it out. What is logged later stays."""
        run_id = self.new_run(store)
        points: list[Point] = [(10 + step, step, float(step)) for step in range(6)]
        batch = Batch({"loss": points, "a/late": points[4:], "early": points[:2], "nan": [(11, 1, NAN), *points[3:]]})
        assert self.deliver(store, run_id, batch) == []
        self.run(store.update_run(run_id, status="FAILED", end_time=20))
        spec = self.spec(store, run_id=run_id)
        branch = Branch.begun(spec.uid, 3, 20)
        spec = spec._replace(tags={**spec.tags, **branch.tag})
        self.run(store.create_run(spec))
        assert self._left(store, run_id, "loss") == points[:3]
        assert self._left(store, run_id, "a/late") == []
        assert self._left(store, run_id, "early") == points[:2]
        assert [point[:2] for point in self._left(store, run_id, "nan")] == [(11, 1)]
        if not store.chooses_run_ids:
            metrics = self.run(store.get_run(run_id)).data.metrics
            assert math.isnan(metrics.pop("nan"))
            assert metrics == {"loss": 2.0, "early": 1.0}

        assert self.deliver(store, run_id, Batch({"loss": [(20, 3, 7.0)], "a/late": [(21, 3, 8.0)]})) == []
        self.run(store.create_run(spec))  # its answer was lost, say
        assert self._left(store, run_id, "loss") == [*points[:3], (20, 3, 7.0)]
        assert self._left(store, run_id, "a/late") == [(21, 3, 8.0)]
        metrics = self.run(store.get_run(run_id)).data.metrics
        assert store.chooses_run_ids or (metrics["loss"], metrics["a/late"]) == (7.0, 8.0)

    def _left(self, store: AbstractStore, run_id: str, key: str) -> list[tuple[int, int, float]]:
        history = latest_branch(
            self.run(store.get_metric_history(run_id, key)), self.run(store.get_run(run_id)).data.tags
        )
        return sorted((point.timestamp, point.step, point.value) for point in history)

    def test_only_an_existing_active_run_can_be_taken_up(self, store: AbstractStore) -> None:
        """A missing run is not found, a deleted one refused."""
        # The store has a run: an empty store may count as unavailable, which raises another error.
        run_id = self.new_run(store)
        self.raised(NotFoundError, store.create_run(self.spec(store, run_id="0" * 32)))
        self.run(store.delete_run(run_id))
        self.raised(RefusedError, store.create_run(self.spec(store, run_id=run_id)))

    def test_update_run_sets_what_is_given(self, store: AbstractStore) -> None:
        """Status, end and name are set alone or together."""
        run_id = self.new_run(store, run_name="old")
        self.run(store.update_run(run_id, status="KILLED"))
        info = self.run(store.update_run(run_id, end_time=11, run_name="new"))
        assert (info.status, info.end_time, info.run_name) == ("KILLED", 11, "new")
        run = self.run(store.get_run(run_id))
        assert (run.info, run.data.tags["mlflow.runName"]) == (info, "new")
        self.raised(NotFoundError, store.update_run("f" * 32, status="FINISHED"))
        self.raised((StoreError, *NEVER), store.update_run(run_id, status="DONE"))

    def test_deleting_and_restoring_a_run(self, store: AbstractStore) -> None:
        """A deleted run is shown on request only; both calls may be repeated."""
        run_id = self.new_run(store)
        experiment_id = self.run(store.get_run(run_id)).info.experiment_id
        for _ in range(2):
            self.run(store.delete_run(run_id))
        assert self.run(store.search_runs([experiment_id])).items == []
        assert len(self.run(store.search_runs([experiment_id], run_view_type=ViewType.DELETED_ONLY)).items) == 1
        self.raised(RefusedError, store.update_run(run_id, status="FINISHED"))
        for _ in range(2):
            self.run(store.restore_run(run_id))
        assert self.run(store.get_run(run_id)).info.lifecycle_stage == "active"
        for verb in (store.delete_run, store.restore_run):
            self.raised(NotFoundError, verb("f" * 32))

    def test_a_run_is_told_without_its_data(self, store: AbstractStore) -> None:
        run_id = self.new_run(store)
        self.run(store.log_batch(run_id, Batch(metrics={"m": [(1, 0, 1.0)]})))
        self.run(store.update_run(run_id, status="FINISHED", end_time=5_000))
        assert self.run(store.get_run_info(run_id)) == self.run(store.get_run(run_id)).info
        self.raised(NotFoundError, store.get_run_info("f" * 32))

    def test_a_run_that_does_not_exist_is_not_found(self, store: AbstractStore) -> None:
        """NotFoundError is raised. An id like "../x" leads nowhere either."""
        assert "f" * 32 in self.raised(NotFoundError, store.get_run("f" * 32))
        assert "f" * 32 in self.raised(NotFoundError, store.get_metric_history("f" * 32, "m"))
        self.experiment(store)  # the store itself is there
        for run_id in ("../x", "", "a/b", "."):
            self.raised(NEVER, store.get_run(run_id))
            self.raised(NEVER, store.delete_run(run_id))

    def test_searching_filters_orders_and_pages(self, store: AbstractStore) -> None:
        """The newest run comes first by default. A run without the key that orders comes last."""
        experiment_id = self.experiment(store)
        ids = [self.new_run(store, experiment_id=experiment_id, start_time=i) for i in range(4)]
        for i, run_id in enumerate(ids[:3]):
            batch = Batch({"acc": [(1, 0, i / 4)]}, [("p", str(i % 2))], [("a b", f"v{i}")])
            self.deliver(store, run_id, batch)

        def found(text: str, *order_by: str) -> list[int]:
            page = self.run(store.search_runs([experiment_id], text, order_by=order_by))
            outlines = self.run(store.outline_runs([experiment_id], text, order_by=order_by))
            for run, outline in zip(page.items, outlines.items, strict=True):
                assert (run.info, run.data.metrics) == (outline.info, outline.data.metrics)
            return [ids.index(run.info.run_id) for run in page.items]

        assert found("") == [3, 2, 1, 0]
        assert found("metrics.acc > 0.2 and params.p = '0'") == [2]
        assert found("tags.`a b` LIKE 'v%' AND attributes.status = 'RUNNING'", "metrics.acc ASC") == [0, 1, 2]
        assert found("", "metrics.acc DESC") == [2, 1, 0, 3]
        assert found("", "attributes.start_time ASC") == [0, 1, 2, 3]
        assert found(f"attributes.run_id = '{ids[1]}'") == [1]
        self.raised(NEVER, store.search_runs([experiment_id], "metrics.acc ~ 1"))

    def test_a_search_finds_whole_runs_page_by_page(self, store: AbstractStore) -> None:
        """Runs of all the named experiments are found, and no others."""
        first, second, other = (self.experiment(store, name) for name in ("one", "two", "three"))
        homes = (first, second, first, second, other)
        ids = [self.new_run(store, experiment_id=home, start_time=9 - i) for i, home in enumerate(homes)]
        self.deliver(store, ids[0], Batch({"m": [(1, 0, 1.0)]}, [("p", "1")], [("t", "1")]))
        page = self.run(store.search_runs([first, second], max_results=3))
        rest = self.run(store.search_runs([first, second], max_results=3, page_token=page.token))
        assert [run.info.run_id for run in [*page.items, *rest.items]] == ids[:4]
        assert rest.token is None
        assert page.items[0] == self.run(store.get_run(ids[0]))
        self.raised(NEVER, store.search_runs([first], max_results=0))
        self.raised(NEVER, store.search_runs([first], page_token="no token"))

    def test_runs_are_listed_without_their_data(self, store: AbstractStore) -> None:
        """The newest first, deleted ones on request, page by page."""
        experiment_id = self.experiment(store)
        ids = [self.new_run(store, run_name=f"r{i}", start_time=i) for i in range(3)]
        self.run(store.delete_run(ids[0]))
        page = self.run(store.list_run_infos(experiment_id, max_results=1))
        rest = self.run(store.list_run_infos(experiment_id, max_results=1, page_token=page.token))
        infos = [*page.items, *rest.items]
        assert [info.run_id for info in infos] == [ids[2], ids[1]]
        assert infos == [self.run(store.get_run(info.run_id)).info for info in infos]
        deleted = self.run(store.list_run_infos(experiment_id, ViewType.DELETED_ONLY)).items
        assert [(info.run_id, info.lifecycle_stage) for info in deleted] == [(ids[0], "deleted")]
        assert len(self.run(store.list_run_infos(experiment_id, ViewType.ALL)).items) == 3
