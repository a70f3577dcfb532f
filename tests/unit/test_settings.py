"""Settings: arguments beat environment variables, which beat the defaults; each mistake is named."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import InvalidInputError
from asynctrack.settings import Settings, configure, current_settings


def test_without_anything_set_the_defaults_hold() -> None:
    """Those that the README names."""
    settings = current_settings()
    assert settings == Settings()
    assert (settings.flush_interval, settings.close_timeout, settings.connect_timeout) == (0.5, 60.0, 10.0)
    assert (settings.spool_full, settings.durability, settings.on_unreachable) == ("drop_new", "process", "spool")
    assert (settings.max_spool_bytes, settings.spool_dir, settings.on_error) == (10 * 1024**3, None, None)


def test_the_environment_beats_the_defaults_and_arguments_beat_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is ASYNCTRACK_ and the setting's name."""
    monkeypatch.setenv("ASYNCTRACK_FLUSH_INTERVAL", "2.5")
    monkeypatch.setenv("ASYNCTRACK_MAX_SPOOL_BYTES", "1000000")
    monkeypatch.setenv("ASYNCTRACK_SPOOL_FULL", "block")
    monkeypatch.setenv("ASYNCTRACK_SPOOL_DIR", "~/spools")
    found = current_settings()
    assert (found.flush_interval, found.max_spool_bytes, found.spool_full) == (2.5, 1_000_000, "block")
    assert found.spool_dir == "~/spools"
    configure(flush_interval=0.1, spool_full="raise")
    assert current_settings() == found._replace(flush_interval=0.1, spool_full="raise")


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    """As shells make them."""
    assert Settings.from_environment({"ASYNCTRACK_FLUSH_INTERVAL": "", "ASYNCTRACK_SPOOL_DIR": ""}) == Settings()


def test_none_goes_back_to_the_environment() -> None:
    """What was configured before is forgotten, and only that."""
    configure(flush_interval=9, close_timeout=8)
    configure(flush_interval=None)
    assert (current_settings().flush_interval, current_settings().close_timeout) == (0.5, 8)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("ASYNCTRACK_FLUSH_INTERVAL", "soon", r"ASYNCTRACK_FLUSH_INTERVAL='soon': it must be a number"),
        ("ASYNCTRACK_MAX_SPOOL_BYTES", "10 GB", r"ASYNCTRACK_MAX_SPOOL_BYTES='10 GB': it must be a number"),
        ("ASYNCTRACK_CLOSE_TIMEOUT", "-1", r"close_timeout=-1.0: it must be a number greater than 0"),
        ("ASYNCTRACK_CLOSE_TIMEOUT", "nan", r"close_timeout=nan: it must be a number greater than 0"),
        ("ASYNCTRACK_SPOOL_FULL", "drop", r"spool_full='drop': it must be one of 'block', 'drop_new', 'raise'"),
        ("ASYNCTRACK_HANDLE_SIGTERM", "maybe", r"ASYNCTRACK_HANDLE_SIGTERM='maybe': it must be one of 1, true"),
    ],
)
def test_a_mistake_in_the_environment_is_named(variable: str, text: str, message: str) -> None:
    """With what is allowed."""
    with pytest.raises(InvalidInputError, match=message):
        Settings.from_environment({variable: text})


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("off", False), ("FALSE", False)])
def test_switches_are_spelled_in_several_ways(text: str, value: bool) -> None:
    """As in other programs."""
    assert Settings.from_environment({"ASYNCTRACK_HANDLE_SIGTERM": text}).handle_sigterm is value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flush_interval": 0}, "flush_interval=0: it must be a number greater than 0"),
        ({"close_timeout": "60"}, "close_timeout='60': it must be a number"),
        ({"durability": "disk"}, "durability='disk': it must be one of 'process', 'system'"),
        ({"on_unreachable": "wait"}, "on_unreachable='wait': it must be one of 'spool', 'raise'"),
        ({"handle_sigterm": "no"}, "handle_sigterm='no': it must be True or False"),
        ({"flush_seconds": 3}, "no such setting: flush_seconds; the settings are flush_interval, "),
    ],
)
def test_a_mistake_in_an_argument_is_named_and_nothing_is_set(settings: dict[str, Any], message: str) -> None:
    """The other arguments of the call neither."""
    configure(connect_timeout=3)
    with pytest.raises(InvalidInputError, match=message):
        configure(**{"connect_timeout": 4, **settings})
    assert current_settings() == Settings(connect_timeout=3)


def test_a_function_cannot_stand_in_the_environment() -> None:
    """A variable of its name is no mistake: it is not looked at."""
    assert Settings.from_environment({"ASYNCTRACK_ON_ERROR": "print"}).on_error is None


def test_a_token_function_is_never_shown() -> None:
    """Its repr may hold the secret; and a token itself is refused without being repeated."""
    settings = Settings(token=functools.partial(str, "s3cret"))
    assert "s3cret" not in repr(settings)
    assert "token=***" in repr(settings)
    with pytest.raises(InvalidInputError, match="token is str; it must be a function") as caught:
        configure(token="s3cret")
    assert "s3cret" not in str(caught.value)


def test_runs_started_from_now_on_are_affected(tmp_path: Path) -> None:
    """Those that are open keep what they were started with."""
    with asynctrack.start_run():
        configure(spool_dir=str(tmp_path / "elsewhere"))
        assert not (tmp_path / "elsewhere").exists()
        with asynctrack.start_run(nested=True):
            assert os.listdir(tmp_path / "elsewhere")
