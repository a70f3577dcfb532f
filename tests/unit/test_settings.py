"""Switches in the environment and in `configure`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import InvalidInputError
from asynctrack.settings import Settings, configure, current_settings


class _Something:
    """An object of no kind that counts, with the same repr in every process."""

    def __repr__(self) -> str:
        return "<something>"


SOMETHING = _Something()


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), ("on", True), ("0", False), ("no", False), ("FALSE", False)]
)
def test_a_switch_is_read_from_the_environment(text: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the spellings people use; empty means the default."""
    monkeypatch.setenv("ASYNCTRACK_HANDLE_SIGTERM", text)
    assert current_settings().handle_sigterm is value
    monkeypatch.setenv("ASYNCTRACK_HANDLE_SIGTERM", "")
    assert current_settings().handle_sigterm is True


def test_what_is_no_switch_is_refused_by_name() -> None:
    with pytest.raises(
        asynctrack.InvalidInputError, match="ASYNCTRACK_HANDLE_SIGTERM='maybe': it must be one of 1, true"
    ):
        Settings.from_environment({"ASYNCTRACK_HANDLE_SIGTERM": "maybe"})
    with pytest.raises(asynctrack.InvalidInputError, match="handle_sigterm=1: it must be True or False"):
        asynctrack.configure(handle_sigterm=1)


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_HANDLE_SIGTERM", "1")
    asynctrack.configure(handle_sigterm=False)
    assert current_settings().handle_sigterm is False
    asynctrack.configure(handle_sigterm=None)
    assert current_settings().handle_sigterm is True


def test_for_ever_is_a_long_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Infinity is a number greater than 0, and more than a lock can wait for."""
    asynctrack.configure(close_timeout=float("inf"))
    monkeypatch.setenv("ASYNCTRACK_TERM_TIMEOUT", "1e300")
    for seconds in (current_settings().close_timeout, current_settings().term_timeout):
        assert 1e8 < seconds < threading.TIMEOUT_MAX / 2


@pytest.mark.parametrize(
    "wrong", [{"spool_dir": 5}, {"spool_dir": b"x"}, {"spool_dir": ""}, {"spool_dir": ["a"]}, {"on_error": 5},
              {"on_error": "print"}, {"on_error": {}}, {"mode": ["online"]}, {"flush_interval": SOMETHING}], ids=str
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_when_it_is_set(wrong: dict[str, Any]) -> None:
    before = current_settings()
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        configure(**wrong)
    assert current_settings() == before


def test_a_path_is_a_folder_for_spools(tmp_path: Path) -> None:
    configure(spool_dir=tmp_path)
    assert current_settings().spool_dir == str(tmp_path)
