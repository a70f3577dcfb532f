"""The part that a process has in a run that it shares."""

from __future__ import annotations

import pytest

from asynctrack import start_run
from asynctrack.constants import MEMBER_TAG
from asynctrack.delivery.members import standings_in, start_tags
from asynctrack.errors import InvalidInputError
from asynctrack.runs import sharing
from asynctrack.runs.sharing import again, share_of
from asynctrack.stores.base import RunSpec

SPEC = RunSpec("ab" * 16, run_name="together", start_time=1, tags={"team": "cv"})


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_begun", {})
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID", "ASYNCTRACK_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("ASYNCTRACK_JOB", raising=False)


def launch(monkeypatch: pytest.MonkeyPatch, rank: int, **more: str) -> None:
    for name, value in {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", **more}.items():
        monkeypatch.setenv(name, value)


def test_ranks_come_to_the_same_run_and_the_first_describes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in range(2):
        monkeypatch.setattr(sharing, "_begun", {})
        launch(monkeypatch, rank)
        found.append(share_of(SPEC, None))
    assert [share.first for share in found] == [True, False]
    first, second = (share.spec for share in found)
    assert first.uid == second.uid != SPEC.uid
    assert (first.run_name, first.tags["team"]) == ("together", "cv")
    assert start_tags(first) == first.tags
    assert list(start_tags(second)) == [f"{MEMBER_TAG}1"]
    assert (second.run_name, second.tags["team"]) == ("together", "cv"), "for the case that the first never begins"
    standings = standings_in(first.tags) | standings_in(second.tags)
    assert {rank: (one.status, one.size, one.creates) for rank, one in standings.items()} == {
        "0": ("RUNNING", 2, True),
        "1": ("RUNNING", 2, False),
    }


def test_each_shared_run_of_a_job_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, 0)
    assert share_of(SPEC, None).spec.uid != share_of(SPEC, None).spec.uid


def test_a_run_that_is_named_is_nobodys_to_create(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, 0)
    spec = share_of(SPEC._replace(run_id="cd" * 16), None).spec
    assert (spec.run_id, spec.uid, spec.tags["team"]) == ("cd" * 16, SPEC.uid, "cv")
    assert not standings_in(spec.tags)["0"].creates


def test_a_process_without_a_launcher_has_a_name_of_its_own() -> None:
    names = [name for _ in range(2) for name in standings_in(share_of(SPEC, None).spec.tags)]
    assert len(set(names)) == 2
    assert all(MEMBER_TAG + name in share_of(SPEC, None).spec.tags or not name.isdecimal() for name in names)


def test_a_job_that_has_no_id_on_several_hosts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, 1, LOCAL_WORLD_SIZE="1", TORCHELASTIC_RUN_ID="none")
    with pytest.raises(InvalidInputError, match=r"rank 1 cannot know which run .* ASYNCTRACK_JOB"):
        share_of(SPEC, None)


def test_a_prefix_needs_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="needs a rank"):
        share_of(SPEC, "prefix")
    launch(monkeypatch, 1)
    assert share_of(SPEC, "prefix").prefix == "rank/1/"
    with pytest.raises(InvalidInputError, match="per_rank='tag'"):
        share_of(SPEC, "tag")


@pytest.mark.parametrize("arguments", [{"per_rank": "prefix"}, {"shared": True, "run_id": "a", "from_step": 3}])
def test_arguments_that_do_not_go_together_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=r"per_rank=|from_step="):
        start_run(**arguments)  # type: ignore[arg-type]  # of several types


def test_who_takes_a_shared_run_up_again_shares_it_still(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, 1)
    before = share_of(SPEC, None).spec
    spec = again(before, RunSpec("ef" * 16, run_id=before.uid, start_time=1 << 50, tags={"other": "tag"}))
    assert spec.tags["other"] == "tag"
    assert standings_in(spec.tags)["1"].life > standings_in(before.tags)["1"].life
    assert again(RunSpec("a"), spec) == spec
