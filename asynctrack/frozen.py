"""Classes of immutable values: dataclasses to those who ask, and made without that module.

That module loads `inspect` and compiles three functions for each class, which was a sixth of a verb's start. Here a
class has nothing but its slots until somebody makes a value of it, or asks what it consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, Self, TypeVar, dataclass_transform

__all__ = ["Each", "Frozen", "each", "frozen", "replaced"]

T = TypeVar("T", bound="Frozen")


class Each(NamedTuple):
    """The default of a field that is made anew for each value. ``compare``: whether it is part of what a value is."""

    default_factory: Callable[[], Any]
    compare: bool = True


def each(*, default_factory: Callable[[], Any], compare: bool = True) -> Any:
    """A field's default, as `dataclasses.field` has it."""
    return Each(default_factory, compare)


class _AsDataclass:
    """An attribute of a dataclass, once somebody asks for it: those of a real one with the same fields."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, _: object, cls: type[Frozen]) -> Any:
        if not cls.__match_args__:
            raise AttributeError(self._name)  # a class without fields of its own is no dataclass
        return getattr(_dataclass_of(cls), self._name)


class _Signature:
    """The signature of a class's constructor, for those who ask for help on it."""

    def __get__(self, _: object, cls: type[Frozen]) -> Any:
        from inspect import signature

        for base in cls.__mro__:
            _complete(base)
        made = signature(cls.__init__)
        return made.replace(parameters=list(made.parameters.values())[1:])


class Frozen:
    """The methods of all such classes."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()
    _defaults: Mapping[str, Any] = {}
    _compared: tuple[str, ...] = ()

    def __setattr__(self, name: str, _: object) -> NoReturn:
        _refuse_change(self, name)

    def __delattr__(self, name: str) -> NoReturn:
        _refuse_change(self, name)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, getattr(self, name)) for name in self._compared)

    def __repr__(self) -> str:
        from pprint import pformat

        shown = ", ".join(f"{name}={pformat(value)}" for name, value in sorted(dict(self).items()))
        return f"<{type(self).__name__}: {shown}>"

    def __getstate__(self) -> list[Any]:
        return [getattr(self, name) for name in self.__match_args__]

    def __setstate__(self, state: list[Any]) -> None:
        for name, value in zip(self.__match_args__, state, strict=True):
            object.__setattr__(self, name, value)

    def __replace__(self, /, **changes: Any) -> Self:
        return type(self)(**{name: getattr(self, name) for name in self.__match_args__} | changes)


def replaced(value: T, **changes: Any) -> T:
    """The value with some fields changed, as `dataclasses.replace` makes it, without loading that."""
    return value.__replace__(**changes)


def _refuse_change(value: object, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    kind = type(value).__name__
    raise FrozenInstanceError(
        f"{kind}.{name} cannot be changed: a {kind} says what a store holds, and changing it would change nothing "
        "there; log to the run, or set a tag"
    )


@dataclass_transform(frozen_default=True, field_specifiers=(each,))
def frozen(cls: type[T]) -> type[T]:
    """The class with the fields that its annotations name, which ``__init__`` takes in their order. ``__post_init__``
    is called behind it."""
    names = tuple(cls.__annotations__)
    body = {name: value for name, value in vars(cls).items() if name not in (*names, "__dict__", "__weakref__")}
    defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
    compared = tuple(name for name in names if getattr(defaults.get(name), "compare", True))
    body |= {"__slots__": names, "__match_args__": names, "_defaults": defaults, "_compared": compared}
    metaclass: Any = type(cls)
    made: type[T] = metaclass(cls.__name__, cls.__bases__, body)
    if "__init__" not in body:
        _make_init_late(made)
    return made


#: classes of which nobody has made a value yet
_unused: set[type[Frozen]] = set()


def _make_init_late(cls: Any) -> None:
    def __init__(self: Frozen, /, *args: Any, **kwargs: Any) -> None:
        _complete(cls)
        cls.__init__(self, *args, **kwargs)

    cls.__init__ = __init__
    _unused.add(cls)


def _complete(cls: Any) -> None:
    """Make the constructor of a class, where it is still to be made."""
    if cls not in _unused:
        return
    known = {f"_default_{name}": value for name, value in cls._defaults.items()}
    parameters = [f"{name}=_default_{name}" if name in cls._defaults else name for name in cls.__match_args__]
    lines = [f"def __init__(self, {', '.join(parameters)}):"]
    for name in cls.__match_args__:
        fresh = f"_default_{name}.default_factory() if {name} is _default_{name} else {name}"
        lines.append(f" _set(self, {name!r}, {fresh if isinstance(cls._defaults.get(name), Each) else name})")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    found: dict[str, Any] = {}
    exec("\n".join(lines), {**known, "_set": object.__setattr__}, found)
    init = found["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {**_annotations_of(cls), "return": None}
    cls.__init__ = init
    _unused.discard(cls)


def _annotations_of(cls: type[Frozen]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found |= vars(base).get("__annotations__", {})
    return {name: found[name] for name in cls.__match_args__}


def _dataclass_of(cls: type[Frozen]) -> Any:
    """A dataclass with the fields of a class, and its name."""
    from dataclasses import field, make_dataclass

    made, annotations = [], _annotations_of(cls)
    for name in cls.__match_args__:
        default = cls._defaults.get(name, cls)
        if isinstance(default, Each):
            kept = field(default_factory=default.default_factory, compare=default.compare)
        else:
            kept = field() if default is cls else field(default=default)
        made.append((name, annotations[name], kept))
    return make_dataclass(cls.__name__, made, frozen=True, eq=False, repr=False)


for _name in ("__dataclass_fields__", "__dataclass_params__"):
    setattr(Frozen, _name, _AsDataclass(_name))
Frozen.__signature__ = _Signature()  # type: ignore[attr-defined]  # of classes only, and `object` does not have it
