"""What `asynctrack tail` has shown and what not yet; decided without a run."""

from __future__ import annotations

import math
import random

from asynctrack.cli.news import News, Step, by_step
from asynctrack.reading.series import Series
from asynctrack.stores.columns import Columns

Point = tuple[int, int, float]


def series(stored: list[Point], waiting: list[Point]) -> Series:
    points = stored + waiting
    return Series(Columns([p[0] for p in points], [p[1] for p in points], [p[2] for p in points]), len(stored))


def same(points: list[Point]) -> list[str]:
    return sorted(map(repr, points))


def test_a_point_is_news_once_whatever_way_it_takes_into_the_store() -> None:
    """Two programs log; their points wait, and come into the store in any order."""
    chance = random.Random(7)
    for _ in range(200):
        all_points = [(step, step, chance.choice([1.0, math.nan, math.inf])) for step in range(12)] * 2
        chance.shuffle(all_points)
        news, stored, waiting, shown = News(), list[Point](), list[Point](), list[Point]()
        left = list(all_points)
        while left or waiting:
            for _ in range(chance.randrange(4)):
                if left:
                    waiting.append(left.pop())
            for _ in range(chance.randrange(4)):
                if waiting:
                    stored.append(waiting.pop(chance.randrange(len(waiting))))
            shown += news.of("loss", series(stored, waiting))
        assert same(shown) == same(all_points)
        assert news.of("loss", series(stored, waiting)) == []


def test_what_was_written_anew_is_shown_anew() -> None:
    news = News()
    assert len(news.of("a", series([(0, 0, 1.0), (1, 1, 1.0)], []))) == 2
    assert news.of("a", series([(0, 0, 5.0)], [])) == [(0, 0, 5.0)]


def test_metrics_are_put_together_by_step_and_nothing_is_left_out() -> None:
    steps = list(by_step({"b": [(1, 4, 2.0), (2, 5, 1.0)], "a": [(2, 9, 3.0), (2, 10, 4.0)]}))
    assert steps == [Step(1, 4, {"b": 2.0}), Step(2, 9, {"a": 3.0, "b": 1.0}), Step(2, 10, {"a": 4.0})]
    assert list(by_step({})) == []
