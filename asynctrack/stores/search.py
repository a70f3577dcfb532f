"""MLflow's search language over our entities: ``metrics.loss < 0.5 AND tags.`a b` LIKE '%v%'``, orders and pages.

Pure: nothing is read here. What is looked at comes through a *getter*, ``get(kind, key)``, with kind "metric",
"param", "tag" or "attribute", so that a store reads only what a search asks for.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from asynctrack.entities import Experiment, Run, RunInfo
from asynctrack.errors import InvalidInputError
from asynctrack.stores.base import Page
from asynctrack.stores.keys import shorten

__all__ = [
    "MAX_RESULTS",
    "Clause",
    "Getter",
    "Order",
    "check_max_results",
    "experiment_getter",
    "info_getter",
    "matches",
    "order",
    "page",
    "parse_experiment_filter",
    "parse_experiment_order",
    "parse_run_filter",
    "parse_run_order",
    "run_getter",
]

T = TypeVar("T")
Getter = Callable[[str, str], Any]

#: the most entities one page may hold, as in MLflow
MAX_RESULTS = 50_000

_NUMBER_OPERATORS = ("=", "!=", ">", ">=", "<", "<=")
_TEXT_OPERATORS = ("=", "!=", "LIKE", "ILIKE")
_LIST_OPERATORS = ("IN", "NOT IN")
_NULL_OPERATORS = ("IS NULL", "IS NOT NULL")
_KINDS = {
    name: kind
    for kind, names in {
        "metric": ("metric", "metrics"),
        "param": ("parameter", "parameters", "param", "params"),
        "tag": ("tag", "tags"),
        "attribute": ("attribute", "attributes", "attr", "run"),
    }.items()
    for name in names
}
_ALIASES = {"created": "start_time", "Created": "start_time"} | dict.fromkeys(
    ("run name", "Run name", "Run Name"), "run_name"
)


class Clause(NamedTuple):
    """One comparison; ``value`` is None, a number, a string or a tuple of strings, as the operator has it."""

    kind: str
    key: str
    operator: str
    value: Any


class Order(NamedTuple):
    """One item of an order."""

    kind: str
    key: str
    ascending: bool


class _Grammar(NamedTuple):
    """What may be asked about one kind of entity."""

    kinds: tuple[str, ...]
    numbers: frozenset[str]
    texts: frozenset[str]
    #: text attributes that can be compared with a list
    lists: frozenset[str]

    def attributes(self) -> str:
        return ", ".join(sorted(self.numbers | self.texts))


_RUNS = _Grammar(
    ("metric", "param", "tag", "attribute"),
    frozenset({"start_time", "end_time"}),
    frozenset({"run_id", "run_name", "status", "artifact_uri", "user_id"}),
    frozenset({"run_id"}),
)
_EXPERIMENTS = _Grammar(
    ("tag", "attribute"),
    frozenset({"creation_time", "last_update_time"}),
    frozenset({"name", "experiment_id"}),
    frozenset({"experiment_id"}),
)

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator><=|>=|!=|=|<|>)
      | (?P<text>'(?:''|\\'|[^'])*')
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.`"]))
      | (?P<name>(?:`[^`]*`|"[^"]*"|[\w.]++)++)
      | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)
_NAME_PARTS = re.compile(r"`([^`]*)`|\"([^\"]*)\"|([\w.]+)")


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
    return _parse_filter(text, _RUNS)


def parse_experiment_filter(text: str | None) -> list[Clause]:
    """Raises `InvalidInputError` saying what is legal."""
    return _parse_filter(text, _EXPERIMENTS)


def _parse_filter(text: str | None, grammar: _Grammar) -> list[Clause]:
    if text is None or not text.strip():
        return []
    tokens = _Tokens(text)
    clauses = [_clause(tokens, grammar)]
    while tokens:
        if tokens.take_word("AND") is None:
            raise tokens.fault("has comparisons that are not joined by AND")
        clauses.append(_clause(tokens, grammar))
    return clauses


def _clause(tokens: _Tokens, grammar: _Grammar) -> Clause:
    _, name = tokens.take("name", what="what to compare")
    kind, key = _identifier(name, grammar, tokens.fault)
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


def _identifier(name: str, grammar: _Grammar, fault: Callable[[str], InvalidInputError]) -> tuple[str, str]:
    """(kind, key) of "metrics.a", "tags.`a b`", "`run name`", ...; an attribute where no kind is given."""
    head, dot, rest = _split(name)
    if not dot:
        kind, key = "attribute", head
    else:
        kind, key = _KINDS.get(head, ""), rest
    if kind not in grammar.kinds:
        raise fault(f"asks for {shorten(name, 40)}: there are {', '.join(f'{kind}s' for kind in grammar.kinds)}")
    if kind == "attribute":
        key = _ALIASES.get(key, key)
        if key not in grammar.numbers | grammar.texts:
            raise fault(f"asks for attribute {shorten(key, 40)}: there are {grammar.attributes()}")
    return kind, key


def _split(name: str) -> tuple[str, str, str]:
    """Like ``str.partition(".")``, but a dot in quotes does not count, and the quotes go."""
    parts = [(bare, quoted or other) for quoted, other, bare in _NAME_PARTS.findall(name)]
    first_bare, first_quoted = parts[0]
    if first_bare:
        head, dot, rest = first_bare.partition(".")
    else:
        head, dot, rest = first_quoted, "", ""
    tail = "".join(bare or quoted for bare, quoted in parts[1:])
    if not dot and tail.startswith("."):
        dot, tail = ".", tail[1:]
    return (head, dot, rest + tail) if dot else (head + tail, "", "")


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


def parse_run_order(items: Sequence[str] | None) -> list[Order]:
    """Raises `InvalidInputError` saying what is legal."""
    return [_parse_order(item, _RUNS) for item in items or ()]


def parse_experiment_order(items: Sequence[str] | None) -> list[Order]:
    """Newest first unless ``items`` say otherwise. Raises `InvalidInputError` saying what is legal."""
    found = [_parse_order(item, _EXPERIMENTS) for item in items or ("creation_time DESC", "experiment_id ASC")]
    if all(item.key != "experiment_id" for item in found):
        found.append(Order("attribute", "experiment_id", False))
    return found


def _parse_order(text: str, grammar: _Grammar) -> Order:
    def fault(problem: str) -> InvalidInputError:
        return InvalidInputError(
            f"order {shorten(text)} {problem}; an order is like 'metrics.loss DESC' or 'attributes.start_time'"
        )

    found = re.fullmatch(r"\s*((?:`[^`]*`|\"[^\"]*\"|[\w.]++)++)(?:\s+(asc|desc))?\s*", text, re.IGNORECASE)
    if found is None:
        raise fault("cannot be read")
    kind, key = _identifier(found[1], grammar, fault)
    if grammar is _EXPERIMENTS and kind != "attribute":
        raise fault(f"asks for a {kind}: there are {grammar.attributes()}")
    return Order(kind, key, (found[2] or "asc").lower() == "asc")


def order(items: Iterable[tuple[T, Getter]], orders: Sequence[Order]) -> list[T]:
    """``items`` with their getters, sorted. What has no value comes last, NaN right before it, either way round."""
    found = list(items)
    for item in reversed(orders):
        found.sort(key=lambda pair: _sort_key(pair[1](item.kind, item.key), item.ascending), reverse=not item.ascending)
    return [entity for entity, _ in found]


def _sort_key(value: Any, ascending: bool) -> tuple[int, Any]:
    if value is None:
        rank = 2
    elif isinstance(value, float) and math.isnan(value):
        rank = 1
    else:
        return 0, value
    return (rank, 0) if ascending else (-rank, 0)


def check_max_results(max_results: int) -> None:
    """Raise `InvalidInputError` for a page size MLflow would refuse."""
    if isinstance(max_results, bool) or not isinstance(max_results, int) or not 1 <= max_results <= MAX_RESULTS:
        raise InvalidInputError(f"max_results is {max_results!r}; it must be a number from 1 to {MAX_RESULTS}")


def page(items: Sequence[Any], max_results: int, token: str | None) -> Page:
    """The page that ``token`` (of the page before; None for the first) asks for. Raises `InvalidInputError`."""
    check_max_results(max_results)
    start = _offset(token) if token else 0
    end = start + max_results
    following = base64.b64encode(json.dumps({"offset": end}).encode()).decode() if end < len(items) else None
    return Page(list(items[start:end]), following)


def _offset(token: str) -> int:
    try:
        offset = json.loads(base64.b64decode(token, validate=True))["offset"]
    except (binascii.Error, ValueError, TypeError, KeyError):
        offset = None
    if not isinstance(offset, int) or offset < 0:
        raise InvalidInputError(f"page token {shorten(token)} is not one that a search has returned")
    return offset


def info_getter(info: RunInfo) -> Getter:
    """A getter that knows a run's attributes only."""
    return lambda kind, key: getattr(info, key) if kind == "attribute" else None


def run_getter(run: Run) -> Getter:
    """A getter over a whole run."""
    data: dict[str, Mapping[str, Any]] = {
        "metric": run.data.metrics,
        "param": run.data.params,
        "tag": run.data.tags,
    }
    return lambda kind, key: getattr(run.info, key) if kind == "attribute" else data[kind].get(key)


def experiment_getter(experiment: Experiment) -> Getter:
    """A getter over an experiment."""
    return lambda kind, key: getattr(experiment, key) if kind == "attribute" else experiment.tags.get(key)
