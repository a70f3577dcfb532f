"""What the page is told: runs, charts of all points, a step, a CSV, and what is new."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import json
import logging
import math
import os
import re
import threading
import weakref
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.errors import NotFoundError, UnavailableError
from asynctrack.reading.runs import find_runs
from asynctrack.ui import charts, listing, server
from asynctrack.ui.board import Board
from asynctrack.ui.charts import Asked
from asynctrack.ui.threads import in_thread
from tests.unit.ui.conftest import TOKEN, Get
from tests.unit.ui.viewing import WAIT


def test_runs_come_with_params_and_the_columns_that_are_asked_for(get: Get, runs: list[str]) -> None:
    said = get("/api/runs", column=["loss:last", "loss:min", "loss:max", "none:max"]).json
    assert said["trouble"] is None
    by_name = {run["name"]: (run, n) for n, run in enumerate(said["runs"])}
    spiky, at = by_name["spiky"]
    assert spiky["id"] == runs[0]
    assert spiky["params"] == {"lr": "0.1", "seed": "1"}
    assert said["experiments"][spiky["experiment"]] == "vision"
    assert said["columns"]["loss:max"][at] == 1000.0
    assert said["columns"]["loss:min"][at] == 1 / 10_000
    assert said["columns"]["loss:last"][at] == 1 / 10_000
    assert said["columns"]["none:max"] == [None, None]
    assert said["columns"]["loss:max"][by_name["odd"][1]] == "inf"


def test_a_filter_is_mlflows(get: Get, runs: list[str]) -> None:
    assert [run["id"] for run in get("/api/runs", filter="params.lr = '0.3'").json["runs"]] == [runs[1]]


def test_a_filter_that_is_half_typed_is_no_error_of_the_browser(get: Get) -> None:
    """A browser shows every answer of 400 on its console."""
    for text in ("params.lr ~ 3", "params.lr = '0.", "metrics.loss <", "nonsense.lr = 1"):
        said = get("/api/runs", filter=text).json
        assert (said["runs"], said["trouble"]) == ([], None)
        assert said["invalid"], text
    assert get("/api/runs").json["invalid"] is None


def test_keys_are_those_of_the_runs(get: Get, runs: list[str]) -> None:
    assert get("/api/keys", runs=runs[0][:8]).json == {"keys": ["loss"]}
    assert get("/api/keys", runs=".".join(runs)).json == {"keys": ["loss", "val/acc"]}
    assert get("/api/keys", runs="ffffffffnone..x").json == {"keys": []}


def test_points_without_another_metric_as_their_x_are_counted(get: Get, runs: list[str]) -> None:
    [chart] = get("/api/charts", key="loss", runs=".".join(runs), x="val/acc").charts
    assert chart["without"] >= 10_000, "the first run has not logged it"
    [chart] = get("/api/charts", key="val/acc", runs=runs[1], x="val/acc").charts
    assert "without" not in chart
    [chart] = get("/api/charts", key="loss", runs=runs[0]).charts
    assert "without" not in chart


def test_a_chart_of_ten_thousand_points_holds_the_spike(get: Get, runs: list[str]) -> None:
    [chart] = get("/api/charts", key="loss", runs=runs[0], places=300).charts
    [line] = chart["lines"]
    last, low, high = line["at"]
    assert chart["places"] == 300
    assert not chart["exact"]
    assert chart["x"][np.nanargmax(high)] == pytest.approx(4_321, abs=10_000 / 300)
    assert np.nanmax(high) == 1000
    assert low[0] == pytest.approx(1 / 34)
    assert last[-1] == pytest.approx(1e-4)
    assert line["points"] == 10_000
    assert line["max"] == [1000.0, 4321.0]
    assert line["min"] == [1e-4, 9999.0]


def test_a_zoom_asks_for_finer_data(get: Get, runs: list[str]) -> None:
    query = {"key": "loss", "runs": runs[0], "places": 300, "from": 4_300, "to": 4_350.5}
    [chart] = get("/api/charts", **query).charts
    assert chart["exact"]
    assert chart["x"].tolist() == list(range(4_300, 4_351))
    assert chart["lines"][0]["at"][0][21] == 1000
    assert (chart["low"], chart["high"]) == (0, 9_999)  # what there is to zoom out to


def test_odd_values_are_marked_and_a_logarithmic_axis_counts_what_it_leaves_out(get: Get, runs: list[str]) -> None:
    [chart] = get("/api/charts", key="loss", runs=runs[1], log_y=1).charts
    [line] = chart["lines"]
    assert line["marks"].tolist() == [0, 1, 0, 2, 0]
    assert line["odd"] == 2
    assert line["left_out"] == 1
    assert np.isnan(line["at"][0]).tolist() == [False, True, True, True, False]


def test_smoothing_is_of_all_points_and_the_raw_line_is_there(get: Get, runs: list[str]) -> None:
    [plain] = get("/api/charts", key="loss", runs=runs[0], places=100).charts
    [chart] = get("/api/charts", key="loss", runs=runs[0], places=100, smooth=0.9).charts
    [line] = chart["lines"]
    assert np.nanmax(line["at"][2]) == pytest.approx(100, rel=1e-3)
    for ours, theirs in zip(line["rawat"], plain["lines"][0]["at"], strict=True):
        assert np.array_equal(ours, theirs)
    assert line["max"] == [1000.0, 4321.0]  # what is said is of what was logged


@pytest.mark.parametrize("x", ["step", "relative", "time", "val/acc", "loss", "none"])
def test_x_may_be_any_of_step_time_and_metrics(get: Get, runs: list[str], x: str) -> None:
    [chart] = get("/api/charts", key="val/acc", runs=runs[1], x=x).charts
    expected: dict[str, Any] = {"step": [0, 1, 2, 3, 4], "val/acc": [0, 0.1, 0.2, 0.3, 0.4], "loss": [-2.0, 0.5, 1.0]}
    if x in expected:
        assert chart["x"].tolist() == pytest.approx(expected[x])
    else:
        assert (len(chart["x"]) > 0) is (x != "none")


def test_a_group_is_a_mean_of_all_points_and_how_far_they_are_from_it(get: Get) -> None:
    ids = []
    for number in range(4):
        with asynctrack.start_run() as run:
            ids.append(run.run_id)
            run.log_param("lr", number % 2)
            for step in range(3):
                run.log_metric("loss", number + 10 * step, step)
    asynctrack.shutdown()
    [chart] = get("/api/charts", key="loss", runs=".".join(ids), group="lr").charts
    assert [line["name"] for line in chart["lines"]] == ["lr=0", "lr=1"]
    assert [line["runs"] for line in chart["lines"]] == [2, 2]
    first = chart["lines"][0]
    assert first["at"][0].tolist() == [1, 11, 21]
    below, above = first["band"]
    assert below.tolist() == pytest.approx([1 - math.sqrt(2), 11 - math.sqrt(2), 21 - math.sqrt(2)])
    assert above.tolist() == pytest.approx([1 + math.sqrt(2), 11 + math.sqrt(2), 21 + math.sqrt(2)])
    [everything] = get("/api/charts", key="loss", runs=".".join(ids), group="").charts[0]["lines"]
    assert everything["at"][0].tolist() == [1.5, 11.5, 21.5]
    [by_time] = get("/api/charts", key="loss", runs=".".join(ids), group="", x="relative", places=2).charts
    assert by_time["lines"][0]["runs"] >= 1
    [alone] = get("/api/charts", key="loss", runs=".".join(ids), group="none").charts[0]["lines"]
    assert alone["name"] == "all runs"


def test_values_that_float32_cannot_tell_apart_come_as_doubles(get: Get) -> None:
    values = [1.7e9, 1.7e9 + 1, 1.7e9 + 2]
    with asynctrack.start_run() as run:
        for step, value in enumerate(values):
            run.log_metrics({"clock": value, "tiny": 1e-60 * step, "huge": 1e300 * step, "loss": float(step)}, step)
    asynctrack.shutdown()
    charts = get("/api/charts", key=["clock", "tiny", "huge", "loss"], runs=run.run_id).charts
    assert [chart["kind"] for chart in charts] == ["f8", "f8", "f8", "f4"]
    assert charts[0]["lines"][0]["at"][0].tolist() == values


def test_the_values_of_a_step_are_those_of_all_metrics(get: Get, runs: list[str]) -> None:
    said = get("/api/step", run=runs[1][:10], step=3).json
    assert [(key, value) for key, value, _ in said["values"]] == [("loss", "inf"), ("val/acc", 0.3)]
    assert get("/api/step", run="none", step=3).response.status_code == 404


def test_outliers_are_left_out_of_y_only_and_counted(get: Get, runs: list[str]) -> None:
    [chart] = get("/api/charts", key="loss", runs=runs[0], places=300, outliers=1).charts
    sight = chart["sight"]
    assert sight["high"] < 1
    assert sight["over"] == sum(1 / (step + 1) > sight["high"] for step in range(10_000) if step != 4_321) + 1
    assert (sight["most"], sight["under"]) == (1000.0, 0)
    assert np.nanmax(chart["lines"][0]["at"][2]) == 1000  # it is marked where it is
    [chosen] = get("/api/charts", key="loss", runs=runs[1], y_from=-1, y_to=0.9).charts
    assert (chosen["sight"]["under"], chosen["sight"]["over"]) == (1, 1)
    assert "sight" not in get("/api/charts", key="loss", runs=runs[0]).charts[0]
    [log] = get("/api/charts", key="loss", runs=runs[1], outliers=1, log_y=1).charts
    assert log["sight"]["low"] > 0


def test_what_a_logarithmic_x_does_not_show_is_counted(get: Get, runs: list[str]) -> None:
    [chart] = get("/api/charts", key="loss", runs=runs[0], log_x=1).charts
    assert chart["hidden"] == 1
    assert chart["low"] == 1


def test_the_step_of_a_point_is_found_where_it_was_pointed_at(get: Get, runs: list[str]) -> None:
    ask = {"run": runs[0], "key": "loss", "at": 4_300, "half": 50, "value": 990}
    assert get("/api/step", **ask).json["step"] == 4_321  # the spike, and not what is beside it
    assert get("/api/step", **{**ask, "half": 0}).json["step"] == 4_300
    assert get("/api/step", run=runs[1], key="loss", x="val/acc", at=0.21).json["step"] == 2
    assert get("/api/step", run=runs[1], key="none", at=0.21).response.status_code == 404


def test_a_csv_holds_all_points_and_no_formula(get: Get, runs: list[str]) -> None:
    with asynctrack.start_run(run_name="=HYPERLINK(1)") as run:
        run.log_metric("-key", 1.5, 7)
    asynctrack.shutdown()
    answer = get("/api/csv", key="loss", runs=".".join(runs)).response
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 10_005
    assert (rows[4_321]["run_id"], rows[4_321]["step"], rows[4_321]["value"]) == (runs[0], "4321", "1000.0")
    [row] = csv.DictReader(io.StringIO(get("/api/csv", key="-key", runs=run.run_id).response.text))
    assert (row["run_name"], row["key"], row["step"], row["value"]) == ("'=HYPERLINK(1)", "'-key", "7", "1.5")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/charts", {"key": "loss", "from": "x"}),
        ("/api/charts", {"key": "loss", "to": "nan"}),
        ("/api/charts", {"key": "loss", "smooth": "1"}),
        ("/api/charts", {"key": [str(n) for n in range(100)]}),
        ("/api/step", {"run": "x"}),
        ("/api/step", {"run": "x", "at": "1"}),
        ("/api/charts", {"key": "loss", "y_from": "1"}),
        ("/api/charts", {"key": "loss", "y_from": "2", "y_to": "1"}),
        ("/api/runs", {"column": "loss"}),
        ("/api/runs", {"column": "loss:worst"}),
        ("/api/events", {"since": "-1"}),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_so(get: Get, path: str, query: dict[str, Any]) -> None:
    answer = get(path, **query).response
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_names_that_would_be_markup_stay_text(get: Get) -> None:
    name = "</script><img src=x onerror=alert(1)>\u202e"
    with asynctrack.start_run(run_name=name) as run:
        run.log_param("p", name)
        run.log_metric("loss", 1, 0)
    asynctrack.shutdown()
    answer = get("/api/runs").response
    assert answer.headers["content-type"].startswith("application/json")
    [said] = answer.json()["runs"]
    assert (said["name"], said["params"]["p"]) == (name, name)


def test_the_stores_trouble_is_said_and_what_was_read_stays(
    get: Get, board: Board, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [before] = get("/api/charts", key="loss", runs=runs[0]).charts

    async def fail(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the server is away")

    for verb in ("search_experiments", "search_runs", "read_columns", "get_run", "summarize"):
        monkeypatch.setattr(board.store, verb, fail)
    board.refresh()
    said = get("/api/runs").json
    assert said["trouble"] == "the server is away"
    assert len(said["runs"]) == 2
    [after] = get("/api/charts", key="loss", runs=runs[0]).charts
    assert np.array_equal(before["lines"][0]["at"][0], after["lines"][0]["at"][0])
    assert board.look(runs, 0).trouble == "the server is away"
    assert get("/api/step", run=runs[0], step=1).response.status_code == 503
    assert get("/api/csv", key="val/acc", runs=runs[1]).response.status_code == 503


def test_a_mistake_of_ours_is_no_stack_trace_on_the_page(
    get: Get, board: Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(board, "runs", fail)
    with caplog.at_level(logging.ERROR, "asynctrack"):
        answer = get("/api/runs").response
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


def test_what_is_new_is_told_by_key(board: Board, get: Get) -> None:
    run = asynctrack.start_run()
    run.log_metric("loss", 1.0, 0)
    [chart] = get("/api/charts", key="loss", runs=run.run_id).charts
    assert chart["lines"][0]["points"] == 1
    news = board.look([run.run_id], 0)
    run.log_metric("loss", 2.0, 1)
    while "loss" not in (later := board.look([run.run_id], news.version)).keys:  # it looks five times a second at most
        pass
    assert later.version > news.version
    assert later.alive == 1
    [chart] = get("/api/charts", key="loss", runs=run.run_id).charts
    assert chart["lines"][0]["points"] == 2
    version = later.version
    while (news := board.look([run.run_id], version)).keys:  # it is delivered, which is news
        version = news.version
    asynctrack.end_run()


def test_a_run_that_has_ended_and_waits_for_its_delivery_does_not_go_on() -> None:
    asynctrack.configure(mode="offline")
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    asynctrack.shutdown()
    board = Board(store_for())
    board.runs()
    news = board.look([], 0)
    assert (news.alive, news.waiting > 0) == (0, True)


def test_of_many_runs_the_newest_are_listed_at_once_and_all_soon_after(
    runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynctrack.ui.listing.FIRST_RUNS", 1)
    monkeypatch.setattr("asynctrack.ui.listing._FIRST_ALONE", 0.0)
    board = Board(store_for())
    first = board.runs()
    assert ([run["id"] for run in first["runs"]], first["whole"]) == ([runs[1]], False)
    while (news := board.look([], 0)).listing == first["listing"]:  # another thread lists them
        pass
    all_ = board.runs()
    assert ({run["id"] for run in all_["runs"]}, all_["whole"], all_["listing"]) == ({*runs}, True, news.listing)


def test_a_run_that_is_asked_for_is_found_though_it_is_not_among_the_newest(
    runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address names it, and nothing has listed all runs yet."""
    monkeypatch.setattr("asynctrack.ui.listing.FIRST_RUNS", 1)
    assert Board(store_for()).run(runs[0]).run.info.run_id == runs[0]
    assert [run.info.run_id for run, _ in Board(store_for()).rows("loss", [runs[0][:8]])] == [runs[0]]
    with pytest.raises(asynctrack.NotFoundError, match="there is no run 'f00'"):
        Board(store_for()).run("f00")


def test_runs_are_listed_once_while_the_page_loads(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    listed, begun, go_on = [], threading.Event(), threading.Event()

    async def slow(*args: Any, **named: Any) -> Any:
        listed.append(named)
        begun.set()
        assert go_on.wait(WAIT)
        return await find_runs(*args, **named)

    monkeypatch.setattr(listing, "find_runs", slow)
    board = Board(store_for())
    app = server.page_app(board, TOKEN)

    async def opened() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path in (f"/?token={TOKEN}", "/", "/"):
                assert (await client.get(path)).status_code == 200

    asyncio.run(opened())
    assert begun.wait(WAIT), "to ask for the page begins the list"
    board.begin()
    asked = threading.Thread(target=board.runs)
    asked.start()
    go_on.set()
    asked.join()
    assert len(board.runs()["runs"]) == len(runs)
    board.begin()
    assert len(listed) == 1


def test_the_page_asks_for_all_of_its_modules_at_once() -> None:
    """A browser learns of a module's imports when it has read it, and each such turn takes time."""
    folder = Path(server.__file__).parent / "static"
    needed, pending = set[str](), ["app.js"]
    while pending:
        name = pending.pop()
        needed.add(name)
        found = re.findall(r"""(?:from|import) "\./([\w./-]+)";""", (folder / name).read_text())
        pending += [each for each in found if each not in needed]
    preloaded = re.findall(r'rel="modulepreload" href="static/([^"]+)"', (folder / "index.html").read_text())
    assert sorted(preloaded) == sorted(needed - {"app.js"})


@pytest.mark.parametrize("keys", [["loss"], ["loss", "val/acc"]])
def test_what_more_is_asked_of_a_run_is_read_beside_the_rest(keys: list[str], runs: list[str]) -> None:
    """One description of a run, however often more of its metrics are asked for."""
    board = Board(store_for())
    asked = []
    get_run = board.store.get_run

    async def counted(run_id: str) -> Any:
        asked.append(run_id)
        return await get_run(run_id)

    board.store.get_run = counted  # type: ignore[method-assign]
    for key in keys:
        board.charts([key], [runs[1]], Asked())
    assert [*board.points([runs[1]], keys)[runs[1]]] == keys
    assert len(asked) == 1


def test_what_is_logged_to_a_run_after_its_end_is_seen(board: Board, get: Get, runs: list[str]) -> None:
    def points() -> int:
        [chart] = get("/api/charts", key="val/acc", runs=runs[1]).charts
        return chart["lines"][0]["points"]  # type: ignore[no-any-return]

    assert points() == 5
    version = board.look(runs, 0).version
    asynctrack.MlflowClient().log_metric(runs[1], "val/acc", 0.9, step=9)
    asynctrack.shutdown()
    board.refresh()
    while "val/acc" not in board.look(runs, version).keys:  # it looks five times a second at most
        pass
    assert points() == 6


def test_a_run_that_only_a_spool_knows_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
    asynctrack.configure(spool_dir=str(tmp_path / "spools"), close_timeout=0.1)
    run = asynctrack.start_run(run_name="offline")
    for step in range(5):
        run.log_metric("loss", float(step), step)
    board = Board(store_for())
    said = board.runs()
    assert [each["name"] for each in said["runs"]] == ["offline"]
    assert said["trouble"]
    assert said["runs"][0]["waiting"] >= 5
    assert board.keys([said["runs"][0]["id"]]) == ["loss"]


def test_memory_is_given_back_for_runs_that_nobody_looks_at(runs: list[str]) -> None:
    from asynctrack.ui.tapes import Tapes

    tapes = Tapes(store_for(), most_points=1000)
    for run_id in runs:
        tapes.of(run_id).want(["loss"])
    tapes.trim([])
    assert [run_id for run_id, _ in tapes.known(runs)] == [runs[1]]
    tapes.of(runs[0]).want(["loss"])
    tapes.trim([runs[0]])
    assert [run_id for run_id, _ in tapes.known(runs)] == [runs[0]]


def test_the_page_names_nothing_from_elsewhere_and_only_relative_addresses() -> None:
    folder = os.path.join(os.path.dirname(server.__file__), "static")
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            continue
        with open(path, encoding="utf-8") as file:
            text = file.read().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"\w+://|[\"'`(]//\w", text), name
        assert not re.search(r"""(src|href)=["']/|fetch\(["'`]/|["'`]/(api|static)""", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|dangerously|document\.write|\beval\(", text), name


def test_every_file_of_the_page_is_served_and_the_page_is_light(get: Get) -> None:
    import gzip

    size = 0
    for name in ["", *(f"static/{each}" for each in server._files())]:
        answer = get(f"/{name}").response
        assert answer.status_code == 200
        size += len(gzip.compress(answer.content))
    assert size < 100_000
    assert get("/static/../server.py").response.status_code == 404
    assert get("/static/vendor/README.md").response.status_code == 404


def test_a_chart_is_of_the_points_of_one_moment(board: Board, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may take in new ones at any time."""
    board.charts(["loss"], [runs[0]], Asked())
    before = board.charts(["loss"], [runs[0]], Asked())
    tape = board._tapes.of(runs[0])
    real = charts.x_of

    def x_of(*arguments: Any) -> Any:
        found = real(*arguments)
        points = tape.points["loss"]
        tape.points["loss"] = points._replace(
            **{name: getattr(points, name)[:50] for name in ("steps", "times", "values")}
        )
        return found

    monkeypatch.setattr(charts, "x_of", x_of)
    assert board.charts(["loss"], [runs[0]], Asked()) == before


def test_an_error_in_a_thread_holds_nothing_when_it_was_told() -> None:
    class Large:
        pass

    seen = []

    def fail() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise ValueError

    async def ask() -> None:
        try:
            await in_thread(fail)
        except ValueError:
            pass

    gc.disable()
    try:
        asyncio.run(ask())
        assert seen[0]() is None
    finally:
        gc.enable()


def test_an_event_is_json_of_one_line(board: Board) -> None:
    assert "\n" not in json.dumps(board.look([], 0)._asdict())


def test_a_run_that_is_gone_spoils_neither_a_chart_nor_the_news(
    board: Board, get: Get, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    get("/api/charts", key="val/acc", runs=runs[1])

    async def gone(*_: Any, **__: Any) -> Any:
        raise NotFoundError("no such run")

    for verb in ("read_columns", "get_run"):
        monkeypatch.setattr(board.store, verb, gone)
    [chart] = get("/api/charts", key="loss", runs=".".join(runs)).charts
    assert chart["lines"] == []
    assert board.look(runs, 0).trouble is None
