"""Filters: comparisons joined by AND, like ``metrics.loss < 0.5 AND tags.`a b` LIKE '%v%'``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from asynctrack.errors import InvalidInputError
from asynctrack.stores.keys import shorten
from asynctrack.stores.search.grammar import EXPERIMENTS, NAME, RUNS, Getter, Grammar, identifier

__all__ = ["Clause", "matches", "parse_experiment_filter", "parse_run_filter"]

_NUMBER_OPERATORS = ("=", "!=", ">", ">=", "<", "<=")
_TEXT_OPERATORS = ("=", "!=", "LIKE", "ILIKE")
_LIST_OPERATORS = ("IN", "NOT IN")
_NULL_OPERATORS = ("IS NULL", "IS NOT NULL")
_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<operator><=|>=|!=|=|<|>)
      | (?P<text>'(?:''|\\'|[^'])*')
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.`"]))
      | (?P<name>{NAME})
      | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)


class Clause(NamedTuple):
    """One comparison; ``value`` is None, a number, a string or a tuple of strings, as the operator has it."""

    kind: str
    key: str
    operator: str
    value: Any


class _Tokens:
    """The tokens of one filter, taken from the front."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[tuple[str, str]] = []
        self._next = 0
        at = 0
        end = len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                raise self.fault(f"cannot be read from {shorten(text[at:].strip(), 40)} on")
            self._found.append((str(found.lastgroup), found[str(found.lastgroup)]))
            at = found.end()

    def fault(self, problem: str) -> InvalidInputError:
        return InvalidInputError(
            f"filter {shorten(self._text, 200)} {problem}; a filter is like "
            f"\"metrics.loss < 0.5 AND params.lr = '1' AND tags.`a b` LIKE '%v%' AND attributes.status = 'FINISHED'\": "
            f"comparisons joined by AND, text values in quotes, keys with spaces, slashes or dashes in backticks"
        )

    def __bool__(self) -> bool:
        return self._next < len(self._found)

    def take(self, *kinds: str, what: str) -> tuple[str, str]:
        if not self:
            raise self.fault(f"ends where {what} must follow")
        found = self._found[self._next]
        if found[0] not in kinds:
            raise self.fault(f"has {shorten(found[1], 40)} where {what} must stand")
        self._next += 1
        return found

    def take_word(self, *words: str) -> str | None:
        """The next token in upper case if it is one of ``words``."""
        if self and self._found[self._next][0] == "name":
            word = self._found[self._next][1].upper()
            if word in words:
                self._next += 1
                return word
        return None


def parse_run_filter(text: str | None) -> list[Clause]:
    """Raises `InvalidInputError` saying what is legal."""
    return _parse_filter(text, RUNS)


def parse_experiment_filter(text: str | None) -> list[Clause]:
    """Raises `InvalidInputError` saying what is legal."""
    return _parse_filter(text, EXPERIMENTS)


def _parse_filter(text: str | None, grammar: Grammar) -> list[Clause]:
    if text is None or not text.strip():
        return []
    tokens = _Tokens(text)
    clauses = [_clause(tokens, grammar)]
    while tokens:
        if tokens.take_word("AND") is None:
            raise tokens.fault("has comparisons that are not joined by AND")
        clauses.append(_clause(tokens, grammar))
    return clauses


def _clause(tokens: _Tokens, grammar: Grammar) -> Clause:
    _, name = tokens.take("name", what="what to compare")
    kind, key = identifier(name, grammar, tokens.fault)
    comparator = _comparator(tokens)
    numeric = kind == "metric" or (kind == "attribute" and key in grammar.numbers)
    allowed: tuple[str, ...] = _NUMBER_OPERATORS if numeric else _TEXT_OPERATORS
    if kind in ("tag", "param"):
        allowed += _NULL_OPERATORS
    elif kind == "attribute" and key in grammar.lists:
        allowed += _LIST_OPERATORS
    if comparator not in allowed:
        raise tokens.fault(f"compares {kind} {shorten(key)} by {comparator}, which must be {' or '.join(allowed)}")
    if comparator in _NULL_OPERATORS:
        return Clause(kind, key, comparator, None)
    if comparator in _LIST_OPERATORS:
        return Clause(kind, key, comparator, _list(tokens))
    if numeric:
        return Clause(kind, key, comparator, _number(tokens.take("number", what=f"a number to compare {key} with")[1]))
    return Clause(kind, key, comparator, _quoted(tokens))


def _comparator(tokens: _Tokens) -> str:
    if tokens.take_word("IS"):
        word = tokens.take_word("NOT", "NULL")
        if word == "NOT" and tokens.take_word("NULL"):
            return "IS NOT NULL"
        if word != "NULL":
            raise tokens.fault("has IS without NULL or NOT NULL")
        return "IS NULL"
    if tokens.take_word("NOT"):
        if tokens.take_word("IN") is None:
            raise tokens.fault("has NOT without IN")
        return "NOT IN"
    return tokens.take_word("IN", "LIKE", "ILIKE") or tokens.take("operator", what="an operator")[1]


def _quoted(tokens: _Tokens) -> str:
    kind, text = tokens.take("text", "name", what="a text in quotes")
    if kind == "name" and not re.fullmatch(r'"[^"]*"', text):
        raise tokens.fault(f"has {shorten(text, 40)} where a text in quotes must stand")
    return text[1:-1]


def _list(tokens: _Tokens) -> tuple[str, ...]:
    what = "a list of texts like ('a', 'b')"
    if tokens.take("mark", what=what)[1] != "(":
        raise tokens.fault(f"has no {what} after IN")
    found = [_quoted(tokens)]
    while (mark := tokens.take("mark", what="a comma or ')'")[1]) == ",":
        found.append(_quoted(tokens))
    if mark != ")":
        raise tokens.fault("has a list that does not end")
    return tuple(found)


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d{1,30}", text, re.ASCII) else float(text)


def _like(value: str, pattern: str, flags: int = 0) -> bool:
    """SQL's LIKE. Piece by piece, because one expression with many ``.*`` could take years."""
    pieces = [re.compile(re.escape(piece).replace("_", "."), flags | re.DOTALL) for piece in pattern.split("%")]
    if len(pieces) == 1:
        return pieces[0].fullmatch(value) is not None
    first = pieces[0].match(value)
    if first is None:
        return False
    at = first.end()
    for piece in pieces[1:-1]:
        found = piece.search(value, at)
        if found is None:
            return False
        at = found.end()
    return re.compile(f"(?:{pieces[-1].pattern})\\Z", flags | re.DOTALL).search(value, at) is not None


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "LIKE": _like,
    "ILIKE": lambda value, pattern: _like(value, pattern, re.IGNORECASE),
    "IN": lambda value, values: value in values,
    "NOT IN": lambda value, values: value not in values,
}


def matches(clauses: Iterable[Clause], get: Getter) -> bool:
    """Whether every clause holds. What an entity does not have only satisfies IS NULL."""
    for clause in clauses:
        value = get(clause.kind, clause.key)
        if clause.operator in _NULL_OPERATORS:
            holds = (value is None) == (clause.operator == "IS NULL")
        else:
            holds = value is not None and _COMPARE[clause.operator](value, clause.value)
        if not holds:
            return False
    return True
