"""Open runs by their names, against looking at each of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from asynctrack.runs.named import NamedRuns
from asynctrack.runs.state import RunState


class Run(SimpleNamespace):
    """What is asked of a `RunState`."""

    uid: str
    id: str | None

    @property
    def spec(self) -> Run:
        return self

    @property
    def knows_id(self) -> bool:
        return self.id is not None

    @property
    def run_id(self) -> str:
        return self.id or self.uid

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


IDS = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.just("open"), IDS | st.none()),
    st.tuples(st.just("learn"), IDS),
    st.tuples(st.just("close"), st.integers(0, 5)),
    st.tuples(st.just("look"), IDS),
)


@given(steps=st.lists(STEPS, max_size=30))
def test_a_run_is_found_by_its_uid_and_by_its_id_while_it_is_open(steps: list[tuple[str, str | int | None]]) -> None:
    """One that the store names late, too, and each of those that are the same run."""
    named, open_runs = NamedRuns(), list[Run]()
    for number, (what, value) in enumerate(steps):
        if what == "open":
            open_runs.append(Run(uid=f"u{number}", id=value))
            named.add(cast("RunState", open_runs[-1]))
        elif what == "learn":
            nameless = [run for run in open_runs if run.id is None]
            if nameless:
                nameless[0].id = str(value)
        elif what == "close" and isinstance(value, int) and value < len(open_runs):
            named.remove(cast("RunState", open_runs.pop(value)))
        else:
            found = named.find(str(value))
            assert len(set(map(id, found))) == len(found)
    for name in {*"abc", *(run.uid for run in open_runs)}:
        found = named.find(name)
        assert {id(run) for run in found} == {id(run) for run in open_runs if name in (run.uid, run.run_id)}
    for run in open_runs:
        named.remove(cast("RunState", run))
    assert named.is_empty, "nothing is kept of what has ended"


def test_a_run_is_found_without_asking_the_others() -> None:
    """A service may log to thousands, and attaches to one after the other."""
    asked = 0

    class Counted(Run):
        @property
        def run_id(self) -> str:
            nonlocal asked
            asked += 1
            return self.id or self.uid

    named = NamedRuns()
    for number in range(500):
        named.add(cast("RunState", Counted(uid=f"u{number}", id=f"i{number}")))
    asked = 0
    assert [run.spec.uid for run in named.find("i300")] == ["u300"]
    assert asked < 5
