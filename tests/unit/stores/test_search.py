"""The search language: what is legal, what it means, and that nothing makes it fail otherwise."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.entities import Run, RunData, RunInfo
from asynctrack.errors import InvalidInputError
from asynctrack.stores.search import (
    Clause,
    Order,
    matches,
    order,
    page,
    parse_experiment_filter,
    parse_experiment_order,
    parse_run_filter,
    parse_run_order,
    run_getter,
)

RUN = Run(
    RunInfo("r1", "0", "ann", "FINISHED", 1000, None, run_name="base line"),
    RunData({"acc": 0.5, "a/b": -2.0, "nan": math.nan}, {"lr": "0.1"}, {"a b": "it's 100%", "mlflow.user": "ann"}),
)

#: what filters are made of, separated by bars
WORDS = (
    "metrics.|tags.|params|status|`a b`|'x'|\"y\"|=|!=|<|>=|LIKE|IN|(|)|,|NOT|IS|NULL|AND|and|1|-2.5e3|.|'|`|"
    " |run_id|start_time|é"
)
PIECES = st.lists(st.sampled_from(WORDS.split("|")))


@given(st.text() | PIECES.map(" ".join) | PIECES.map("".join))
def test_no_text_raises_anything_but_invalid_input(text: str) -> None:
    """Whatever is asked, the answer is a search or an error that says what is legal."""
    for parse in (parse_run_filter, parse_experiment_filter):
        try:
            clauses = parse(text)
        except InvalidInputError:
            continue
        if parse is parse_run_filter:
            assert matches(clauses, run_getter(RUN)) in (True, False)
    for parse_order in (parse_run_order, parse_experiment_order):
        try:
            parse_order([text])
        except InvalidInputError:
            pass


@given(st.text())
def test_no_page_token_raises_anything_but_invalid_input(token: str) -> None:
    """Tokens come back from browsers and bookmarks."""
    try:
        page([1, 2, 3], 1, token)
    except InvalidInputError:
        pass


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("metrics.acc>0.5", Clause("metric", "acc", ">", 0.5)),
        ("metric.`a/b` <= -1e3", Clause("metric", "a/b", "<=", -1000.0)),
        ('params."a b" != "x y"', Clause("param", "a b", "!=", "x y")),
        ("parameter.lr like '%1'", Clause("param", "lr", "LIKE", "%1")),
        ("tags.mlflow.user = 'x'", Clause("tag", "mlflow.user", "=", "x")),
        ("`tags`.t IS NOT NULL", Clause("tag", "t", "IS NOT NULL", None)),
        ("params.p is null", Clause("param", "p", "IS NULL", None)),
        ("status = 'FINISHED'", Clause("attribute", "status", "=", "FINISHED")),
        ("attributes.`run name` ILIKE 'B%'", Clause("attribute", "run_name", "ILIKE", "B%")),
        ("run_id IN ('a', \"b\")", Clause("attribute", "run_id", "IN", ("a", "b"))),
        ("attr.run_id NOT IN ('a')", Clause("attribute", "run_id", "NOT IN", ("a",))),
        ("created > 5", Clause("attribute", "start_time", ">", 5)),
    ],
)
def test_a_comparison_is_read(text: str, clause: Clause) -> None:
    """Aliases, quotes, any case of the words, with or without spaces."""
    assert parse_run_filter(text) == [clause]
    assert parse_run_filter(f"  {text} aNd {text}\n") == [clause, clause]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("metrics.acc", "ends"),
        ("metrics.acc > 'x'", "a number"),
        ("metrics.acc LIKE 1", "LIKE"),
        ("params.lr = 1", "quotes"),
        ("params.lr > '1'", ">"),
        ("status IN ('a')", "IN"),
        ("nothing = 'x'", "run_name"),
        ("columns.a = 'x'", "metrics, params, tags"),
        ("metrics.a > 1 OR metrics.b > 1", "AND"),
        ("metrics.a > 1 metrics.b > 1", "AND"),
        ("metrics.a-b > 1", "backticks"),
        ("run_id IN ()", "quotes"),
        ("run_id IN ('a'", "ends"),
        ("run_id NOT LIKE 'a'", "IN"),
        ("tags.t IS 'a'", "NULL"),
        ("metrics.a IS NULL", "IS NULL"),
        ("'a' = 'a'", "compare"),
    ],
)
def test_an_error_says_what_is_legal(text: str, hint: str) -> None:
    """It quotes the filter, names the trouble and shows an example."""
    with pytest.raises(InvalidInputError) as caught:
        parse_run_filter(text)
    assert hint in str(caught.value)
    assert "attributes.status = 'FINISHED'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.acc = 0.5", True),
        ("metrics.nan != 1", True),
        ("metrics.nan > 1", False),
        ("metrics.none != 1", False),
        ("tags.`a b` LIKE '%100_'", True),
        ("tags.`a b` LIKE 'IT%'", False),
        ("tags.`a b` ILIKE 'IT%'", True),
        ('tags.`a b` = "it\'s 100%"', True),
        ("tags.`a b` LIKE 'it%s %'", True),
        ("tags.`a b` LIKE 'it''s 100'", False),
        ("tags.`a b` LIKE '%_00%%%'", True),
        ("tags.`a b` LIKE 'it%it%'", False),
        ("tags.none IS NULL", True),
        ("tags.none LIKE '%'", False),
        ("run_id NOT IN ('r1')", False),
        ("end_time > 0", False),
        ("start_time >= 1000 and params.lr = '0.1'", True),
    ],
)
def test_a_comparison_means_what_it_means_in_mlflow(text: str, expected: bool) -> None:
    """What a run does not have only satisfies IS NULL."""
    assert matches(parse_run_filter(text), run_getter(RUN)) is expected


def test_no_search_takes_for_ever() -> None:
    """Neither a long name nor a pattern of many wildcards: both come from whoever asks."""
    with pytest.raises(InvalidInputError):
        parse_run_order(["a" * 5000 + "!"])
    with pytest.raises(InvalidInputError):
        parse_run_filter("a" * 5000 + "!")
    clauses = [Clause("tag", "t", "LIKE", "%a" * 100 + "b"), Clause("tag", "t", "LIKE", "%" * 100 + "b")]
    assert not any(matches([clause], lambda kind, key: "a" * 5000) for clause in clauses)


@pytest.mark.parametrize(
    "text", ["start_time ", " start_time", "start_time DESC ", "start_time desc\n", "start_time DESC,"]
)
def test_an_order_has_nothing_around_it(text: str) -> None:
    """MLflow refuses these."""
    with pytest.raises(InvalidInputError, match="cannot be read"):
        parse_run_order([text])
    assert parse_run_order(["start_time  DESC", "start_time\tdesc"]) == [Order("attribute", "start_time", False)] * 2


def test_orders_put_what_is_missing_last() -> None:
    """NaN right before it, ascending and descending; equals keep their order."""
    values = {"one": 1.0, "none": None, "nan": math.nan, "two": 2.0, "uno": 1.0}
    items = [(name, lambda kind, key, value=value: value) for name, value in values.items()]
    assert order(items, [Order("metric", "m", True)]) == ["one", "uno", "two", "nan", "none"]
    assert order(items, [Order("metric", "m", False)]) == ["two", "one", "uno", "nan", "none"]


def test_orders_are_read() -> None:
    """Quoted keys, aliases, either direction in any case."""
    assert parse_run_order(["metrics.`a b` DESC", "start_time", "Created asc"]) == [
        Order("metric", "a b", False),
        Order("attribute", "start_time", True),
        Order("attribute", "start_time", True),
    ]
    for bad in ("", "metrics.a down", "x y z", "nothing"):
        with pytest.raises(InvalidInputError):
            parse_run_order([bad])
    with pytest.raises(InvalidInputError):
        parse_experiment_order(["tags.a"])


@given(st.lists(st.integers()), st.integers(1, 5))
def test_pages_add_up(items: list[int], size: int) -> None:
    """Every item once, in order, and no token behind the last."""
    found: list[int] = []
    token: str | None = None
    while True:
        part = page(items, size, token)
        found += part.items
        token = part.token
        if token is None:
            break
        assert len(part.items) == size
    assert found == items


@pytest.mark.parametrize("size", [0, -1, 50_001, True, 1.5])
def test_a_page_size_is_checked(size: int) -> None:
    """As in MLflow."""
    with pytest.raises(InvalidInputError):
        page([], size, None)
