"""Keys made of any text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import asynctrack
from asynctrack.errors import InvalidInputError
from asynctrack.stores.keys import check_key, clean_key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ndcg@1", "ndcg_at_1"),  # as mlflow.lightgbm and mlflow.xgboost do
        ("val(loss)", "val_loss_"),
        ("a=b", "a_b"),
        ("train/loss:0 - x.y", "train/loss:0 - x.y"),
        ("größe/größe", "größe/größe"),
        ("/a//b/", "a/b"),
        ("./a", "a"),
        ("../../etc/passwd", "_./_./etc/passwd"),
        ("a/..", "a/_."),
        ("", "_"),
        ("/", "_"),
        (5, "5"),
        (("layer", 3), "__layer__ 3_"),
    ],
)
def test_a_name_becomes_a_key(text: object, key: str) -> None:
    assert asynctrack.clean_key(text) == key


@given(st.text(max_size=300) | st.text("./@a ", max_size=300))
@example("ä" * 200)
@example("a" * 249 + "/..")
@example("a/" * 200)
def test_every_key_is_allowed_and_stays_as_it_is(text: str) -> None:
    key = clean_key(text)
    check_key("metric", key, as_path=True)
    assert clean_key(key) == key
    try:
        check_key("metric", text, as_path=True)
    except InvalidInputError:
        return
    assert key == text
