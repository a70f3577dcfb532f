"""What a verb can be given, said without Typer, which takes as long to load as all the rest of a verb; and the reading
of a command line that is as it should be. For any other, `typed` makes a Typer command of the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from asynctrack.errors import InvalidInputError

__all__ = ["Argument", "Declared", "Option", "Unclear", "Verb", "with_fields"]

F = Callable[..., None]


class Declared(NamedTuple):
    """One option or argument. ``names``: of an option, like ``--store`` and ``-s``. ``rest``: as Typer takes it, and
    ``completes``, "runs" or "keys", what Tab offers."""

    names: tuple[str, ...]
    rest: Mapping[str, Any]


def Option(*names: str, **rest: Any) -> Declared:  # Typer's name, so that it reads as usual
    """An option, as of Typer. Its callback raises InvalidInputError."""
    return Declared(names, rest)


def Argument(**rest: Any) -> Declared:  # Typer's name, so that it reads as usual
    """An argument, as of Typer. Its callback raises InvalidInputError."""
    return Declared((), rest)


class Unclear(Exception):  # no error: somebody else reads it
    """A command line with a mistake in it, or something seldom that only Typer reads."""


class Verb(NamedTuple):
    """A verb. ``fields``: what ``--json`` can be asked for; ``any_field``: whether there are others."""

    function: F
    fields: tuple[str, ...] = ()
    any_field: bool = False

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """The function's arguments, just as Typer would give them. Raises Unclear."""
        words = with_fields(list(words), self.fields, self.any_field) if self.fields else list(words)
        hints = get_type_hints(self.function, include_extras=True)
        hints.pop("return", None)
        parameters = {name: _Parameter.of(name, hint) for name, hint in hints.items()}
        switches = {switch: each for each in parameters.values() for switch in each.switches}
        given: dict[str, list[Any]] = {}
        loose = _take_options(words, switches, given)
        for name, texts in _share(loose, [each for each in parameters.values() if not each.switches]):
            given[name] = texts
        defaults = self.function.__defaults__ or ()
        names = self.function.__code__.co_varnames[: self.function.__code__.co_argcount]
        values = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        for name, each in parameters.items():
            if name in given:
                values[name] = each.value_of(given[name])
            elif name not in values:
                raise Unclear(name)
        return values


class _Parameter(NamedTuple):
    """A parameter of a verb's function. ``switches``: what gives it on the command line, with the value of a flag."""

    name: str
    kind: type
    several: bool
    switches: Mapping[str, bool | None]
    rest: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, hint: Any) -> _Parameter:
        wanted, declared = get_args(hint)
        kinds = [each for each in get_args(wanted) or (wanted,) if each is not type(None)]
        several = kinds == [list[str]] or wanted == list[str]
        kind = str if several else kinds[0]
        switches: dict[str, bool | None] = {}
        for text in declared.names:
            on, _, off = text.partition("/")
            switches[on] = True if kind is bool else None
            if off:
                switches[off] = False
        return cls(name, kind, several, switches, declared.rest)

    def value_of(self, found: list[Any]) -> Any:
        """The value that the texts, or flags, stand for. Raises Unclear."""
        if self.several:
            return found
        value = found[-1]
        if self.kind in (int, float):
            try:
                value = self.kind(value)
            except ValueError:
                raise Unclear(self.name) from None
            if "min" in self.rest and not value >= self.rest["min"]:
                raise Unclear(self.name)
        check = self.rest.get("callback")
        if check is not None:
            try:
                value = check(value)
            except InvalidInputError:
                raise Unclear(self.name) from None
        return value


def _take_options(words: Sequence[str], switches: Mapping[str, _Parameter], given: dict[str, list[Any]]) -> list[str]:
    """Put the values of options into ``given``, by parameter; the words that are left. Raises Unclear."""
    loose: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*loose, *rest]
        if len(word) < 2 or word[0] != "-":
            loose.append(word)
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        each = switches.get(name)
        if each is None:
            raise Unclear(word)
        flag = each.switches[name]
        if flag is not None:
            if equals:
                raise Unclear(word)
            given.setdefault(each.name, []).append(flag)
            continue
        if not equals:
            following = next(rest, None)
            if following is None:
                raise Unclear(word)
            value = following
        given.setdefault(each.name, []).append(value)
    return loose


def _share(words: list[str], arguments: Sequence[_Parameter]) -> list[tuple[str, list[str]]]:
    """The words that each argument gets; of several words the last, where it takes them. Raises Unclear."""
    shared = []
    for each in arguments:
        count = len(words) if each.several else 1
        if words:
            shared.append((each.name, words[:count]))
        words = words[count:]
    if words:
        raise Unclear(words[0])
    return shared


def with_fields(args: list[str], fields: tuple[str, ...], any_field: bool = False) -> list[str]:
    """The arguments, with ``--json`` written as ``--json=`` and what is asked for; nothing asks for all.

    What stands behind ``--json`` is FIELDS where it can only be that: names with commas between them, or names of
    fields. Else it is an argument of its own, like a run.
    """
    found: list[str] = []
    taken = False
    for index, each in enumerate(args):
        if taken:
            taken = False
        elif each == "--":
            return found + args[index:]
        elif each == "--json":
            after = args[index + 1] if index + 1 < len(args) else "-"
            taken = not after.startswith("-") and _are_fields(after, fields, any_field)
            found.append(f"--json={after if taken else ''}")
        else:
            found.append(each)
    return found


def _are_fields(text: str, fields: tuple[str, ...], any_field: bool) -> bool:
    if any_field:
        return not any(character in text for character in " <>='\"")
    return "," in text or text in fields
