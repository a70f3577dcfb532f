"""The package's own names: there for whoever asks, and loaded then."""

from __future__ import annotations

import subprocess
import sys

import pytest

import asynctrack


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["log_metric", "Metric", "get_tracking_uri", "MlflowClient", "clean_key", "entities", "tracking", "fluent"]
)
def test_a_name_is_there_in_every_way_that_python_has_to_ask(name: str) -> None:
    run(f"from asynctrack import {name}")
    run(f"import asynctrack; assert {name!r} in dir(asynctrack); assert asynctrack.{name} is asynctrack.{name}")
    run(f"import asynctrack; assert hasattr(asynctrack, {name!r}); assert not hasattr(asynctrack, {name + 'x'!r})")


def test_all_names_can_be_imported_at_once() -> None:
    run("from asynctrack import *; start_run, log_metric, Metric, sync, view, Settings")


def test_a_name_that_programs_log_with_is_found_as_quickly_as_any_after_its_first_use() -> None:
    run("import asynctrack; asynctrack.set_tag; assert {'log_metric', 'start_run'} <= vars(asynctrack).keys()")


def test_threads_that_ask_at_once_all_find_what_they_ask_for() -> None:
    names = [name for name in asynctrack.__all__ if name.startswith(("log_", "get_", "set_")) or "run" in name]
    run(
        "import asynctrack, sys; from concurrent.futures import ThreadPoolExecutor; sys.setswitchinterval(1e-6)\n"
        f"with ThreadPoolExecutor(16) as pool: found = list(pool.map(asynctrack.__getattr__, {names}))\n"
        f"assert [each.__name__ for each in found] == {names}"
    )


def test_importing_the_package_does_not_load_what_only_a_program_that_logs_needs() -> None:
    run("import asynctrack, sys; assert not {'asynctrack.fluent', 'asynctrack.runs.run'} & sys.modules.keys()")
