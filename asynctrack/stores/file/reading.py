"""Reading runs: whole ones for the page that is returned, single files for what a search asks about."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from asynctrack.entities import Experiment, LifecycleStage, Metric, Run, RunData, RunInfo, ViewType
from asynctrack.errors import NotFoundError
from asynctrack.frozen import replaced
from asynctrack.stores import search
from asynctrack.stores.base import Page
from asynctrack.stores.columns import Summary
from asynctrack.stores.file import layout
from asynctrack.stores.file.book import Book, book_of
from asynctrack.stores.file.entries import can_be_key, open_file, read_entries, read_entry
from asynctrack.stores.file.experiments import unwritten_default
from asynctrack.stores.file.files import line_blocks
from asynctrack.stores.file.inputs import inputs_of, outputs_of
from asynctrack.stores.file.lines import parse_lines
from asynctrack.stores.file.tree import Tree

__all__ = [
    "get_history",
    "get_run",
    "get_run_info",
    "get_tags",
    "list_run_infos",
    "named",
    "points_in",
    "search_experiments",
    "search_runs",
    "summarize",
]


def get_run(tree: Tree, run_id: str) -> Run:
    """Raises `NotFoundError`, `DamagedError`, OSError."""
    run_dir = tree.run_dir(run_id)
    book = book_of(tree, os.path.dirname(run_dir))
    run = _whole(tree, book, run_dir, tree.run_info(run_dir))
    book.keep()
    return run


def get_run_info(tree: Tree, run_id: str) -> RunInfo:
    """Raises `NotFoundError`, `DamagedError`, OSError."""
    run_dir = tree.run_dir(run_id)
    info = tree.run_info(run_dir)
    if info.run_name:
        return info
    return named(info, read_entry(layout.key_path(run_dir, "tag", layout.RUN_NAME_TAG), tree.warn_once))


def get_tags(tree: Tree, run_id: str) -> dict[str, str]:
    """Raises `NotFoundError`, OSError."""
    return read_entries(os.path.join(tree.run_dir(run_id), layout.FOLDERS["tag"]), "tag", tree.warn_once)


def _whole(tree: Tree, book: Book, run_dir: str, info: RunInfo) -> Run:
    params, tags = (book.values(tree, run_dir, kind) for kind in ("param", "tag"))
    return Run(
        named(info, tags.get(layout.RUN_NAME_TAG)),
        RunData.of(book.latest(tree, run_dir), params, tags),
        inputs_of(tree, run_dir),
        outputs_of(tree, run_dir),
    )


def _outline(tree: Tree, book: Book, run_dir: str, info: RunInfo) -> Run:
    tag = None if info.run_name else book.value(tree, run_dir, "tag", layout.RUN_NAME_TAG)
    return Run(named(info, tag), RunData.of(book.latest(tree, run_dir), {}, {}))


def summarize(tree: Tree, run_id: str, keys: Collection[str] | None) -> dict[str, Summary]:
    """Raises `NotFoundError`, `DamagedError`, OSError."""
    run_dir = tree.run_dir(run_id)
    tree.run_info(run_dir)
    book = book_of(tree, os.path.dirname(run_dir))
    found = book.summaries(tree, run_dir, keys)
    book.keep()
    return found


def named(info: RunInfo, tag: str | None) -> RunInfo:
    """MLflow before 1.29 kept the name in the tag only."""
    return info if info.run_name or not tag else replaced(info, run_name=tag)


def points_in(tree: Tree, path: str) -> Iterator[tuple[int, int, float]]:
    """Every point of a metric file, in its order; in flat memory, as it may have many millions."""
    fd = open_file(path, tree.warn_once)
    if fd is None:
        return
    all_damaged = 0
    try:
        for data in line_blocks(fd):
            points, damaged = parse_lines(data)
            all_damaged += damaged
            yield from points
    finally:
        os.close(fd)
    if all_damaged:
        tree.warn_once(path, f"{all_damaged} damaged lines")


def get_history(tree: Tree, run_id: str, key: str) -> list[Metric]:
    """Every point of one metric, in its file's order. Raises `NotFoundError`, OSError."""
    run_dir = tree.run_dir(run_id)
    tree.run_info(run_dir)
    if not can_be_key("metric", key):
        return []
    points = points_in(tree, layout.key_path(run_dir, "metric", key))
    return [Metric(key, value, timestamp, step) for timestamp, step, value in points]


class _Lazy:
    """A getter that reads one file a question, and none twice."""

    __slots__ = ("_known", "_tree", "book", "info", "run_dir")

    def __init__(self, tree: Tree, book: Book, run_dir: str, info: RunInfo) -> None:
        self.info = info
        self.run_dir = run_dir
        self.book = book
        self._tree = tree
        self._known: dict[tuple[str, str], Any] = {}

    def __call__(self, kind: str, key: str) -> Any:
        if kind == "attribute" and (key != "run_name" or self.info.run_name):
            return getattr(self.info, key)
        if kind == "attribute":
            kind, key = "tag", layout.RUN_NAME_TAG
        if (kind, key) not in self._known:
            self._known[kind, key] = self._read(kind, key)
        return self._known[kind, key]

    def _read(self, kind: str, key: str) -> Any:
        if not can_be_key(kind, key):
            return None
        if kind == "metric":
            return self.book.latest_value(self._tree, self.run_dir, key)
        return self.book.value(self._tree, self.run_dir, kind, key)


def search_runs(
    tree: Tree,
    experiment_ids: Sequence[str],
    filter_string: str,
    view_type: int,
    max_results: int,
    order_by: Sequence[str],
    page_token: str | None,
    outlines: bool = False,
) -> Page:
    """Raises `InvalidInputError`, OSError. Experiments that do not exist have no runs. ``outlines``: runs without
    params, tags, inputs and outputs."""
    clauses = search.parse_run_filter(filter_string)
    orders = search.parse_run_order(order_by)
    search.check_max_results(max_results)
    found = []
    books = []
    for experiment_id in dict.fromkeys(experiment_ids):
        try:
            folder = tree.experiment_dir(experiment_id)
        except NotFoundError:
            continue
        book = book_of(tree, folder)
        book.load()
        runs = list(tree.runs(folder))
        books.append((book, [info.run_id for _, info in runs]))
        for run_dir, info in runs:
            lazy = _Lazy(tree, book, run_dir, info)
            if LifecycleStage.matches_view_type(view_type, info.lifecycle_stage) and search.matches(clauses, lazy):
                found.append(lazy)
    found.sort(key=lambda lazy: (-lazy.info.start_time, lazy.info.run_id))
    wanted, token = search.page(search.order([(lazy, lazy) for lazy in found], orders), max_results, page_token)
    read = _outline if outlines else _whole
    page = Page([read(tree, lazy.book, lazy.run_dir, lazy.info) for lazy in wanted], token)
    for book, run_ids in books:
        book.keep(run_ids)
    return page


def list_run_infos(tree: Tree, experiment_id: str, view_type: int, max_results: int, page_token: str | None) -> Page:
    """Raises `InvalidInputError`, OSError. Reads the runs' meta.yaml and nothing else."""
    search.check_max_results(max_results)
    try:
        folder = tree.experiment_dir(experiment_id)
    except NotFoundError:
        return Page([])
    found = [run for run in tree.runs(folder) if LifecycleStage.matches_view_type(view_type, run[1].lifecycle_stage)]
    found.sort(key=lambda run: (-run[1].start_time, run[1].run_id))
    wanted, token = search.page(found, max_results, page_token)
    return Page([named(info, None if info.run_name else _name_tag(tree, run_dir)) for run_dir, info in wanted], token)


def _name_tag(tree: Tree, run_dir: str) -> str | None:
    return read_entry(layout.key_path(run_dir, "tag", layout.RUN_NAME_TAG), tree.warn_once)


def search_experiments(
    tree: Tree, view_type: int, max_results: int, filter_string: str, order_by: Sequence[str], page_token: str | None
) -> Page:
    """Raises `InvalidInputError`, OSError."""
    clauses = search.parse_experiment_filter(filter_string)
    orders = search.parse_experiment_order(order_by)
    found: list[tuple[Experiment, search.Getter]] = []
    unwritten = unwritten_default(tree)
    for experiment in [unwritten] if unwritten is not None else tree.experiments(ViewType.ALL):
        get = search.experiment_getter(experiment)
        if LifecycleStage.matches_view_type(view_type, experiment.lifecycle_stage) and search.matches(clauses, get):
            found.append((experiment, get))
    return search.page(search.order(found, orders), max_results, page_token)
