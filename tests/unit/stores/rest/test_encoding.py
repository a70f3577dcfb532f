"""Batches as JSON: strict, complete, and the same whichever way the points came."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.slots import PACK_SETTLED, SLOT_SIZE
from asynctrack.stores.base import Batch, RecordBlock
from asynctrack.stores.rest.encoding import batch_body, checked, dumps, identity, without_doubles

SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
numbers = st.floats()
steps = st.integers(-(2**63), 2**63 - 1)
times = st.integers(0, 2**63 - 1)
keys = st.text("abc/é日_ .-:", min_size=1, max_size=12)
points = st.tuples(times, steps, numbers)
texts = st.text(st.characters(exclude_categories=()), max_size=40)
entries = st.lists(st.tuples(keys, texts), max_size=6)


def strictly(body: bytes) -> dict[str, Any]:
    """As the strictest reader takes it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found: dict[str, Any] = json.loads(body.decode("utf-8"), parse_constant=refuse)
    return found


def value_of(sent: float | str) -> float:
    return SPECIAL[sent] if isinstance(sent, str) else float(sent)


def bits(value: float) -> bytes:
    return struct.pack("<d", math.nan if math.isnan(value) else value)


@given(st.dictionaries(keys, st.lists(points, min_size=1, max_size=5), max_size=4), entries, entries)
def test_a_body_holds_each_event_exactly_as_it_was_logged(
    metrics: dict[str, list[Any]], params: list[tuple[str, str]], tags: list[tuple[str, str]]
) -> None:
    """Floats to the bit, integers of 64 bits, all of Unicode but for what JSON or a database cannot hold."""
    sent = strictly(batch_body("ab12", Batch(metrics, params, tags)))
    assert sent["run_id"] == "ab12"
    found = [
        (each["key"], each["timestamp"], each["step"], bits(value_of(each["value"])))
        for each in sent.get("metrics", [])
    ]
    assert found == [(key, *point[:2], bits(point[2])) for key, several in metrics.items() for point in several]
    for name, wanted in {"params": params, "tags": list(dict(tags).items())}.items():
        assert [(each["key"], each["value"]) for each in sent.get(name, [])] == [
            (key, value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")) for key, value in wanted
        ]
        assert sent.get(name) != [], "an empty list is left out"


@given(st.lists(st.tuples(st.integers(1, 3), points), min_size=1, max_size=20))
def test_undecoded_records_give_the_body_that_decoded_ones_give(
    logged: list[tuple[int, tuple[int, int, float]]],
) -> None:
    """Which is what most batches are made of."""
    names = {1: "loss", 2: 'a"b', 3: "日本"}
    data = bytearray(len(logged) * SLOT_SIZE)
    for number, (stream, point) in enumerate(logged):
        PACK_SETTLED(data, number * SLOT_SIZE, *point, stream, *point, stream)
    sent = strictly(batch_body("r", Batch(blocks=[RecordBlock(bytes(data), names)])))["metrics"]
    found = [(each["key"], each["timestamp"], each["step"], bits(value_of(each["value"]))) for each in sent]
    assert found == [(names[stream], *point[:2], bits(point[2])) for stream, point in logged]


@pytest.mark.parametrize(("value", "sent"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_numbers_that_json_has_not_are_the_three_strings_that_the_server_knows(value: float, sent: str) -> None:
    """In any other spelling it stores 0, and drops what follows."""
    body = batch_body("r", Batch({"m": [(1, 2, value)]}))
    assert strictly(body)["metrics"] == [{"key": "m", "value": sent, "timestamp": 1, "step": 2}]


def test_the_last_of_equal_tags_counts_and_an_empty_batch_has_no_lists() -> None:
    """A server takes equal tags of one body in an order of its own."""
    assert strictly(batch_body("r", Batch(tags=[("t", "1"), ("u", "x"), ("t", "2")])))["tags"] == [
        {"key": "t", "value": "2"},
        {"key": "u", "value": "x"},
    ]
    assert strictly(batch_body("r", Batch())) == {"run_id": "r"}


@given(texts)
def test_nul_is_replaced_and_a_backslash_before_u0000_is_not(text: str) -> None:
    """PostgreSQL cannot hold NUL; the six characters ``\\u0000`` are an ordinary text."""
    for value in (text, f"\\u0000{text}\0", f"{text}\\\0\\\\u0000"):
        wanted = value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        assert strictly(dumps({"value": [value]})) == {"value": [wanted]}
        assert strictly(batch_body("r", Batch(params=[("p", value)])))["params"][0]["value"] == wanted


def test_what_json_cannot_hold_is_never_sent() -> None:
    """A safety net: no body of ours holds such a number."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps({"value": math.nan})


@pytest.mark.parametrize("character", ["x", "\x01", "日", "\U0001f600", '"'])
def test_any_single_value_fits_a_body(character: str) -> None:
    """What a server would cut off anyway is not sent to it by the megabyte."""
    body = batch_body("0" * 32, Batch(params=[("k" * 250, character * 5_000_000)]))
    assert len(body) < 1_000_000
    assert len(strictly(body)["params"][0]["value"]) >= 8000


def test_a_key_that_no_server_takes_is_taken_out_and_the_rest_is_sent() -> None:
    """It would cost the whole batch."""
    batch = Batch({"ok": [(1, 1, 1.0)], "a//b": [(1, 1, 2.0)]}, [("p", "1"), ("p$", "2")], [("t", "1"), ("", "2")])
    sent, refusals = checked(batch)
    assert [item[:2] for item in sent.items()] == [("param", "p"), ("metric", "ok"), ("tag", "t")]
    assert [(refusal.kind, refusal.key) for refusal in refusals] == [("param", "p$"), ("metric", "a//b"), ("tag", "")]
    assert all("a key is 1 to 250 characters" in refusal.reason for refusal in refusals)


def test_a_param_is_sent_once_and_its_first_value_counts() -> None:
    """A server refuses a body that names it twice, even with equal values."""
    sent, refusals = checked(Batch(params=[("p", "1"), ("q", "2"), ("p", "1"), ("p", "3")]))
    assert sent.params == [("p", "1"), ("q", "2")]
    assert [(refusal.key, refusal.value) for refusal in refusals] == [("p", "3")]
    assert "params never change" in refusals[0].reason


def test_a_batch_with_nothing_wrong_is_not_copied() -> None:
    """Nor decoded: it is the usual case, a thousand points at a time."""
    batch = Batch({"m": [(1, 1, 1.0)]}, [("p", "1")], [("t", "1"), ("t", "2")])
    assert checked(batch) == (batch, [])


def test_points_that_a_server_has_are_left_out_and_each_other_comes_once() -> None:
    """For servers that keep doubles; the same point is what their migration to a database takes for the same."""
    batch = Batch({"m": [(1, 1, 1.0), (1, 1, math.nan), (1, 1, math.nan), (2, 1, 0.0), (2, 1, -0.0), (3, 1, math.inf)]})
    stored = {"m": {identity(1, 1, 1.0), identity(3, 1, 1.7976931348623157e308)}}
    left = without_doubles(batch, stored).metrics
    assert [point[0] for point in left["m"]] == [1, 2]
    assert without_doubles(Batch({"m": [(1, 1, 1.0)]}), stored).metrics == {}


def test_what_a_metric_is_about_stands_beside_its_points() -> None:
    """Model, dataset, both; nothing beside the points of no model, and none of MLflow's fields empty."""
    both = MeasuredOn("m", 'm-"1"', "größe", "d")
    points: list[Any] = [(1, 2, 0.5), (1, 2, 0.5, 7), (1, 2, 0.5, 7, MeasuredOn("m", "m-2")), (3, 4, math.nan, 7, both)]
    plain = {"key": "m", "value": 0.5, "timestamp": 1, "step": 2}
    named = {"model_id": 'm-"1"', "dataset_name": "größe", "dataset_digest": "d"}
    assert strictly(batch_body("ab12", Batch({"m": points})))["metrics"] == [
        plain,
        plain,
        {**plain, "model_id": "m-2"},
        {"key": "m", "value": "NaN", "timestamp": 3, "step": 4, **named},
    ]


def test_one_value_of_two_models_is_no_double() -> None:
    """Unlike one that comes twice for the same model."""
    points: list[Any] = [(1, 2, 0.5, 7, MeasuredOn("m", model)) for model in ("m-1", "m-2", "m-1")]
    assert without_doubles(Batch({"m": points}), {}).metrics == {"m": points[:2]}
    assert not without_doubles(Batch({"m": points}), {"m": {identity(1, 2, 0.5)}})
