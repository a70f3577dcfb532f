"""What each key of `asynctrack top` changes."""

from __future__ import annotations

from asynctrack.entities import Param, Run, RunData, RunInfo
from asynctrack.reading.runs import FoundRun
from asynctrack.tui.charts import colours_of_groups
from asynctrack.tui.state import There, View, after, group_names, matching, matching_keys

THERE = There(
    ["newest", "middle", "oldest"], [], ["acc", "lr", "loss", "norm", "time"], per_page=2, beside=2, rows=2, x=(0, 100)
)
IN_CHARTS = View(focus="charts")


def pressed(view: View, *keys: str, there: There = THERE) -> View:
    """The view after these keys."""
    for key in keys:
        view = after(view, key, there)
    return view


def test_the_cursor_moves_over_runs_and_stops_at_the_ends() -> None:
    assert pressed(View(), "j").run(THERE) == "middle"
    assert pressed(View(), "down", "down", "down", "up").run(THERE) == "middle"
    assert pressed(View(), "k").run(THERE) == "newest"
    assert pressed(View(), "end").run(THERE) == "oldest"
    assert pressed(View(), "pagedown").run(THERE) == "oldest"
    assert View(cursor="gone").run(THERE) == "newest"
    assert pressed(View(), "j", "end", " ", there=There([], [], [])).run(There([], [], [])) is None


def test_in_charts_the_same_keys_move_over_metrics_page_by_page() -> None:
    assert pressed(IN_CHARTS, "l").key(THERE) == "lr"
    assert pressed(IN_CHARTS, "j").page(THERE) == ["loss", "norm"]
    assert pressed(IN_CHARTS, "n", "n").page(THERE) == ["time"]
    assert pressed(IN_CHARTS, "n", "N").page(THERE) == ["acc", "lr"]
    assert pressed(IN_CHARTS, "end").key(THERE) == "time"
    assert pressed(View(), "l").page(THERE) == ["loss", "norm"], "pages turn while the runs have the keys"
    alone = pressed(IN_CHARTS, "l", "enter")
    assert alone.page(THERE) == ["lr"]
    assert pressed(alone, "j").page(THERE) == ["loss"]
    assert pressed(alone, "escape").page(THERE) == ["acc", "lr"]


def test_without_a_choice_those_that_are_alive_are_drawn_or_else_the_latest() -> None:
    assert View().drawn(THERE) == ["newest", "middle", "oldest"]
    assert View().drawn(THERE._replace(alive=["middle"])) == ["middle"]
    chosen = pressed(View(), "j", " ")
    assert chosen.drawn(THERE) == ["newest", "oldest"]
    assert pressed(chosen, " ").drawn(THERE) == ["newest", "oldest", "middle"]
    only = pressed(View(), "j", "enter")
    assert (only.drawn(THERE), only.focus) == (["middle"], "charts")
    assert pressed(only, "escape", "escape").chosen is None


def test_panes_are_shown_and_hidden_and_one_of_those_that_are_there_has_the_keys() -> None:
    assert pressed(View(), "tab").focus == "charts"
    assert pressed(View(), "tab", "tab").focus == "runs"
    assert pressed(View(), "]", "shift+tab").focus == "about"
    assert pressed(View(), "[").focus == "charts"
    assert pressed(View(), "[", "1").panes == {"charts"}, "something has to be there"
    assert pressed(View(), "1").page(THERE) == []
    assert not pressed(View(), "2").system


def test_zoom_goes_to_the_end_of_x_and_back() -> None:
    assert pressed(View(), "+").zoom == (50, 100)
    assert pressed(View(), "+", "=").zoom == (75, 100)
    assert pressed(View(), "+", "-").zoom is None
    assert pressed(View(), "+", "<").zoom == (37.5, 87.5)
    assert pressed(View(), "+", "<", "<", "<", "<", "<", "<").zoom == (0, 50)
    assert pressed(View(), "+", ">").zoom == (50, 100)
    assert pressed(View(), "+", "0").zoom is None
    assert pressed(View(), "-", "<").zoom is None
    assert pressed(View(), "+", "x").zoom is None, "the new x has other numbers"


def test_groups_are_all_runs_and_then_those_that_have_something_in_common() -> None:
    there = THERE._replace(names=("lr", "team"))
    seen, view = [], View()
    for _ in range(4):
        view = after(view, "g", there)
        seen.append(view.group)
    assert seen == ["", "lr", "team", None]
    assert after(View(), "G", there).group == "team"
    assert after(View(group="gone"), "g", there).group == "", "other runs are drawn since"
    assert after(View(x="time", zoom=(5.0, 9.0)), "g", there).zoom is None, "groups have steps for x"


def test_runs_are_grouped_by_what_some_of_them_have_in_common() -> None:
    def run(number: int, tags: dict[str, str], **params: str) -> Run:
        info = RunInfo(f"{number:032x}", "0", "me", "FINISHED", 0)
        return Run(info, RunData(params=params, tags={"mlflow.user": f"{number}", **tags}))

    runs = [
        run(1, {"team": "a"}, lr="1", seed="1", same="x"),
        run(2, {"team": "b"}, lr="1", seed="2", same="x"),
        run(3, {"lr": "a tag of the same name"}, lr="2", seed="3", same="x"),
    ]
    assert group_names(runs) == ["lr"], "each run has a seed and a team, or none, of its own"
    assert group_names([*runs, run(4, {"team": "a"}, lr="2", seed="4", same="x")]) == ["lr", "team"]
    assert group_names(runs[:1]) == group_names([]) == []
    colours = colours_of_groups(runs, "lr")
    assert colours[runs[0].info.run_id] == colours[runs[1].info.run_id] != colours[runs[2].info.run_id]
    assert set(colours_of_groups(runs, "").values()) == {0}


def test_how_charts_are_drawn() -> None:
    assert pressed(View(), "x").x == "relative"
    assert pressed(View(), "x", "x", "x").x == "step"
    assert pressed(View(), "s", "s").smoothing == 0.8
    assert pressed(View(), "s", "S", "S").smoothing == 0
    assert pressed(View(), "y").log_y == set(THERE.keys)
    assert pressed(IN_CHARTS, "l", "y").log_y == {"lr"}
    assert pressed(IN_CHARTS, "l", "y", "y").log_y == set()
    assert pressed(View(), "c", "3").columns == 3
    assert pressed(View(), "r", "2", "0").rows == 0
    assert pressed(View(), "c", "q") == View(), "what is no digit ends the question"


def test_help_goes_with_any_key_and_an_unknown_one_does_nothing() -> None:
    assert pressed(View(), "?").help
    assert pressed(View(), "?", "j") == View()
    assert pressed(View(), "f7", "w") == View()


def found(name: str, lr: str) -> FoundRun:
    info = RunInfo(name, "0", "ann", "FINISHED", 1, 2, run_name=name)
    return FoundRun(Run(info, RunData((), [Param("lr", lr)])))


def test_runs_are_found_by_name_or_by_a_filter() -> None:
    runs = [found("resnet-1", "0.1"), found("vit", "0.3"), found("c++ (old", "0.1")]

    def names(text: str) -> list[str | None]:
        return [each.run.info.run_name for each in matching(runs, text)]

    assert names("") == ["resnet-1", "vit", "c++ (old"]
    assert names("^RES|vit") == ["resnet-1", "vit"]
    assert names("params.lr = '0.1'") == ["resnet-1", "c++ (old"]
    assert names("c++ (") == ["c++ (old"], "what is no expression yet is text"


def test_keys_are_found_and_those_of_the_machine_come_last() -> None:
    keys = ["loss", "system/gpu", "train/loss"]
    assert matching_keys(keys, "", True) == ["loss", "train/loss", "system/gpu"]
    assert matching_keys(keys, "LOSS$", True) == ["loss", "train/loss"]
    assert matching_keys(keys, "", False) == ["loss", "train/loss"]
    assert matching_keys(keys, "[", True) == []
