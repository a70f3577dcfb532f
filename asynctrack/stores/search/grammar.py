"""What may be asked about: the attributes of runs and of experiments, and how a name says which value is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from asynctrack.entities import Experiment, Run, RunInfo
from asynctrack.errors import InvalidInputError
from asynctrack.stores.keys import shorten

__all__ = [
    "EXPERIMENTS",
    "NAME",
    "RUNS",
    "Getter",
    "Grammar",
    "experiment_getter",
    "identifier",
    "info_getter",
    "run_getter",
]

#: looks up one value of one entity: ``get(kind, key)``, with kind "metric", "param", "tag" or "attribute"
Getter = Callable[[str, str], Any]

#: a name as it stands in a filter or an order, as an expression
NAME = r"""(?:`[^`]*`|"[^"]*"|[\w.]++)++"""
_NAME_PARTS = re.compile(r"`([^`]*)`|\"([^\"]*)\"|([\w.]+)")
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


class Grammar(NamedTuple):
    """What may be asked about one kind of entity."""

    kinds: tuple[str, ...]
    numbers: frozenset[str]
    texts: frozenset[str]
    #: text attributes that can be compared with a list
    lists: frozenset[str]

    def attributes(self) -> str:
        return ", ".join(sorted(self.numbers | self.texts))


RUNS = Grammar(
    ("metric", "param", "tag", "attribute"),
    frozenset({"start_time", "end_time"}),
    frozenset({"run_id", "run_name", "status", "artifact_uri", "user_id"}),
    frozenset({"run_id"}),
)
EXPERIMENTS = Grammar(
    ("tag", "attribute"),
    frozenset({"creation_time", "last_update_time"}),
    frozenset({"name", "experiment_id"}),
    frozenset({"experiment_id"}),
)


def identifier(name: str, grammar: Grammar, fault: Callable[[str], InvalidInputError]) -> tuple[str, str]:
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
