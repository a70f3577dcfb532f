"""Reading simple YAML without a YAML parser: the same mapping as the parser's, or none at all."""

from __future__ import annotations

import string
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from asynctrack.entities import Experiment, RunInfo
from asynctrack.stores.file import meta
from asynctrack.stores.file.flat import flat_mapping

RUN = RunInfo(
    "0123456789abcdef" * 2, "123456789012345678", "ann", "FINISHED", 1, 2, "active", "file:///a/b", "happy-fox-12"
)
TRICKY = [
    "null", "Null", "~", "yes", "No", "on", "OFF", "true", "False", "y", "n", "=", "<<", "1e5", "1.5",
    "1e+22", "0x1f", "0b11", "0o7", "017", "1_000", "12:30", "190:20:30", "2020-01-01", ".inf", ".nan", "-",
    "-1", "+1", "1a", "a:", "a:b", ":a", "#a", "a#b", "'a'", "it's", '"a"', "[a]", "{a}", "{}", "[]", "&",
    "*", "!", "|", ">", "%", "@", "`", "?", "a?", "a,", "---", "...",
]  # fmt: skip
CHARACTERS = string.ascii_letters + string.digits + " .:/-_#'\"[]{},&*!|>%@`?~=<+\\\té\u2028"
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.sampled_from(TRICKY),
    st.text(CHARACTERS, max_size=40),
    st.text("0123456789abcdefx", min_size=32, max_size=32),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), st.text(CHARACTERS, max_size=3), max_size=2),
)


def agrees(text: str) -> None:
    """What is read here is what YAML reads, in value and type; and only where YAML reads anything."""
    ours = flat_mapping(text) if text.isascii() else None
    if ours is not None:
        theirs = yaml.safe_load(text)
        assert repr(ours) == repr(theirs)


@given(st.dictionaries(st.sampled_from(["run_id", "name", "status", "tags", "end_time"]), VALUES))
def test_what_a_yaml_writer_has_written(mapping: dict[str, Any]) -> None:
    agrees(meta.dump(mapping).decode())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["run_id", "name", "null", "on", "a-b", " x", ""]),
            st.sampled_from(TRICKY) | st.text(CHARACTERS),
        )
    )
)
@example([("run_id", "0b" + "1" * 30)])
@example([("run_id", "0x" + "1" * 30)])
@example([("run_id", "1" * 32)])
@example([("name", "a"), ("name", "b")])
@example([("name", "a"), (" x", "b")])
def test_what_anybody_has_written(lines: list[tuple[str, str]]) -> None:
    try:
        agrees("".join(f"{key}: {value}\n" for key, value in lines))
    except yaml.YAMLError as error:
        pytest.fail(f"YAML refuses what was read: {error}")


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_what_a_crash_has_cut(cut: int) -> None:
    """A torn last line is left to the parser, which may see that it is torn."""
    text = meta.dump(meta.run_meta(RUN)).decode()[:cut]
    if text and not text.endswith("\n"):
        assert flat_mapping(text) is None
    agrees(text)


def test_what_mlflow_and_we_write_needs_no_parser() -> None:
    """Runs and experiments, as they are created."""
    experiment = Experiment("7", "vision 1", "mlflow-artifacts:/7", creation_time=1, last_update_time=2)
    for mapping in (meta.run_meta(RUN), meta.experiment_meta(experiment)):
        assert flat_mapping(meta.dump(mapping).decode()) == mapping
