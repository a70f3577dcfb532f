"""What `asynctrack wait` waits for, decided without a store."""

from __future__ import annotations

import math

import pytest

from asynctrack.cli.conditions import Facts, parse
from asynctrack.errors import InvalidInputError
from asynctrack.stores.columns import Columns, Summary


def facts(*, ended: bool = False, step: int = 30, **values: list[float]) -> Facts:
    made = {
        key.replace("__", "/").replace("_dot_", "."): Summary.of(Columns(range(len(held)), range(len(held)), held))
        for key, held in values.items()
    }
    return Facts({key: each for key, each in made.items() if each}, step, ended, "FINISHED" if ended else "RUNNING")


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("loss<0.5", False),
        ("loss < 0.7", True),
        ("loss.min<0.2", True),
        ("loss.max >= 1", True),
        ("loss.first == 1", True),
        ("loss = 0.6", True),
        ("loss != 0.6", False),
        ("step>=30", True),
        ("step > 30", False),
        ("loss<0.7 and step>=30", True),
        ("loss<0.7 AND step>30", False),
        ("ended", False),
        ("loss<0.7 and ended", False),
        ("val/acc > 1e-3", True),
        ("`loss` < 0.7", True),
        ("`loss`.min < 0.2", True),
        ("absent < 1e9", False),
        ("absent != 3", False),
        ("bad == nan", True),
        ("bad != nan", False),
        ("loss != nan", True),
        ("bad < 1", False),
        ("odd.min == 7", True),
        ("loss < inf", True),
    ],
)
def test_a_condition_is_met_or_not(condition: str, met: bool) -> None:
    known = facts(loss=[1.0, 0.1, 0.6], val__acc=[0.5], bad=[1.0, math.nan], odd_dot_min=[7.0])
    assert parse(condition).met(known) is met


def test_what_has_ended_has_ended() -> None:
    assert parse("ended").met(facts(ended=True))
    assert not parse("ended and loss < 1").met(facts(ended=True))


def test_a_metric_called_step_is_the_metric() -> None:
    assert parse("step == 5").met(facts(a=[1.0], step=5))
    named = Facts({"step": facts(a=[9.0]).summaries["a"]}, 5, False, "")
    assert parse("step == 9").met(named)


@pytest.mark.parametrize("text", ["", "loss", "loss <", "< 3", "loss < small", "loss < 1 or step > 2", "a << 1", "and"])
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"condition .*(loss < 0.1|not a number)"):
        parse(text)


def test_the_metrics_it_may_be_about_are_known() -> None:
    assert parse("a.b.min < 1 and ended and step > 1").metrics() == {"a.b.min", "a.b", "step"}
