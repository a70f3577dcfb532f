"""Which functions of the package a call may come to: read from the source, with as many types as annotations give.

A call on something whose type is not known may come to every method of that name in the package. So what is found is
too much rather than too little, but for functions that are handed over and called later: those are roots of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Function", "Package"]

#: methods of built-in and library types; on something of unknown type they are taken for those
BUILT_IN = frozenset(
    {
        *("acquire", "add", "append", "clear", "close", "count", "decode", "discard", "encode", "endswith", "error"),
        *(
            "exception",
            "extend",
            "fileno",
            "flush",
            "format",
            "get",
            "info",
            "insert",
            "is_set",
            "items",
            "join",
            "keys",
        ),
        *("partition", "pop", "popleft", "put", "read", "release", "remove", "replace", "rpartition", "search", "set"),
        *(
            "setdefault",
            "sort",
            "split",
            "start",
            "startswith",
            "strip",
            "update",
            "values",
            "wait",
            "warning",
            "write",
        ),
    }
)


class Function(NamedTuple):
    """A function of the package, by ``module:Class.name`` or ``module:name``."""

    name: str
    module: str
    owner: str | None
    node: ast.FunctionDef | ast.AsyncFunctionDef


class _Class(NamedTuple):
    module: str
    node: ast.ClassDef
    bases: list[str]
    attributes: dict[str, str]
    methods: dict[str, Function]


class Package:
    """Everything under ``root``, the folder of a package of that name."""

    def __init__(self, root: Path) -> None:
        self.name = root.name
        self.functions: dict[str, Function] = {}
        self._classes: dict[str, list[_Class]] = {}
        #: what a name means in a module: ``module:name`` of where it is defined, late imports included
        self._names: dict[str, dict[str, str]] = {}
        #: names of modules from elsewhere, and of what is theirs
        self._foreign: dict[str, set[str]] = {}
        self.trees: dict[str, ast.Module] = {}
        self._types: dict[str, dict[str, str]] = {}
        self._read_all = False
        for path in sorted(root.rglob("*.py")):
            parts = (self.name, *path.relative_to(root).with_suffix("").parts)
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.trees[module] = ast.parse(path.read_text("utf-8"))
        for module, tree in self.trees.items():
            self._read(module, tree)
        for classes in self._classes.values():
            for found in classes:
                self._read_attributes(found)
        self._read_all = True
        self._types.clear()

    def _read(self, module: str, tree: ast.Module) -> None:
        names = self._names[module] = {}
        foreign = self._foreign[module] = {"logger"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                foreign |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == self.name:
                names.update({alias.asname or alias.name: f"{node.module}:{alias.name}" for alias in node.names})
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._add(Function(f"{module}:{node.name}", module, None, node))
                names[node.name] = f"{module}:{node.name}"
            elif isinstance(node, ast.ClassDef):
                names[node.name] = f"{module}:{node.name}"
                methods = {}
                for item in node.body:
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                        methods[item.name] = Function(f"{module}:{node.name}.{item.name}", module, node.name, item)
                        self._add(methods[item.name])
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                self._classes.setdefault(node.name, []).append(_Class(module, node, bases, {}, methods))

    def _add(self, function: Function) -> None:
        self.functions[function.name] = function

    def _read_attributes(self, found: _Class) -> None:
        for item in found.node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                found.attributes[item.target.id] = ast.unparse(item.annotation)
        for method in found.methods.values():
            if _is_property(method.node) and method.node.returns is not None:
                found.attributes[method.node.name] = ast.unparse(method.node.returns)
        for method in found.methods.values():
            types = self._types_in(method)
            for node in ast.walk(method.node):
                targets: list[ast.expr] = []
                kind: str | None = None
                if isinstance(node, ast.AnnAssign):
                    targets, kind = [node.target], ast.unparse(node.annotation)
                elif isinstance(node, ast.Assign):
                    targets, kind = node.targets, self._type_of(node.value, types, method)
                for target in targets:
                    if kind and isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                        found.attributes.setdefault(target.attr, kind)

    # ── types, as they are written

    def _types_in(self, function: Function) -> dict[str, str]:
        """The types of a function's arguments and local names, as far as they are to be seen."""
        if self._read_all and function.name in self._types:
            return self._types[function.name]
        arguments = function.node.args
        given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        types = {one.arg: ast.unparse(one.annotation) for one in given if one.annotation is not None}
        if function.owner is not None:
            types["self"] = function.owner
        for _ in range(2):  # names that come from names
            for node in ast.walk(function.node):
                if isinstance(node, ast.Assign) and (kind := self._type_of(node.value, types, function)):
                    types.update({one.id: kind for one in node.targets if isinstance(one, ast.Name)})
                elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
                    if kind := self._type_of(node.iter, types, function):
                        types[node.target.id] = _inside(kind)
                elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):
                    kind = self._type_of(node.iter, types, function) or ""
                    parts = _inside(kind, whole=True).split(", ")
                    for one, part in zip(node.target.elts, parts, strict=False):
                        if isinstance(one, ast.Name) and part:
                            types[one.id] = part
        self._types[function.name] = types
        return types

    def _type_of(self, node: ast.expr, types: dict[str, str], function: Function) -> str | None:
        if isinstance(node, ast.Name):
            return types.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._type_of(node.value, types, function)
            for found in self._classes_of(owner):
                for one in (found, *self._above(found)):
                    if node.attr in one.attributes:
                        return one.attributes[node.attr]
            return None
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("list", "sorted", "tuple") and node.args:
                return self._type_of(node.args[0], types, function)
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("items", "values", "keys", "pop", "get"):
                kind = self._type_of(node.func.value, types, function)
                if kind and kind.startswith("dict["):
                    key, _, value = _inside(kind, whole=True).partition(", ")
                    return {"items": f"dict[{key}, {value}]", "keys": f"list[{key}]", "values": f"list[{value}]"}.get(
                        node.func.attr, value
                    )
            for called in self._called(node, types, function):
                if called.node.name == "__init__" and called.owner is not None:
                    return called.owner
                if called.node.returns is not None:
                    return ast.unparse(called.node.returns)
            name = node.func.id if isinstance(node.func, ast.Name) else None
            return name if name in self._classes else None
        if isinstance(node, ast.ListComp):
            inner = self._type_of(node.elt, types, function)
            return f"list[{inner}]" if inner else None
        return None

    def _classes_of(self, kind: str | None) -> list[_Class]:
        if not kind:
            return []
        return [one for part in kind.split("|") for one in self._classes.get(part.strip().partition("[")[0], [])]

    def _above(self, found: _Class) -> Iterator[_Class]:
        for base in found.bases:
            for one in self._classes.get(base, []):
                yield one
                yield from self._above(one)

    def _below(self, name: str) -> Iterator[_Class]:
        for classes in self._classes.values():
            for one in classes:
                if name in one.bases:
                    yield one
                    yield from self._below(one.node.name)

    # ── calls

    def calls(self, function: Function, within: ast.AST | None = None) -> Iterator[Function]:
        """The functions that one calls, or looks at as properties, in all of it or in a part."""
        types = self._types_in(function)
        for node in ast.walk(within or function.node):
            if isinstance(node, ast.Call):
                yield from self._called(node, types, function)
            elif isinstance(node, ast.Attribute):
                for found in self._methods(node, types, function):
                    if _is_property(found.node):
                        yield found
            elif isinstance(node, ast.With | ast.AsyncWith):
                for item in node.items:
                    for one in self._classes_of(self._type_of(item.context_expr, types, function)):
                        yield from (one.methods[name] for name in ("__enter__", "__exit__") if name in one.methods)

    def _called(self, node: ast.Call, types: dict[str, str], function: Function) -> Iterator[Function]:
        if isinstance(node.func, ast.Name):
            yield from self._named(self._names[function.module].get(node.func.id))
        elif isinstance(node.func, ast.Attribute):
            yield from self._methods(node.func, types, function)

    def _named(self, full: str | None) -> Iterator[Function]:
        if full is None:
            return
        if full in self.functions:
            yield self.functions[full]
            return
        module, _, name = full.partition(":")
        for found in self._classes.get(name, []):
            if found.module == module and "__init__" in found.methods:
                yield found.methods["__init__"]

    def _methods(self, node: ast.Attribute, types: dict[str, str], function: Function) -> Iterator[Function]:
        if ast.unparse(node.value).partition(".")[0] in self._foreign[function.module]:
            return
        kind = self._type_of(node.value, types, function)
        if isinstance(node.value, ast.Name) and (full := self._names[function.module].get(node.value.id)):
            kind = kind or full.rpartition(":")[2]  # a class method
        if ast.unparse(node.value) == "super()" and function.owner is not None:
            for found in self._classes[function.owner]:
                yield from (one.methods[node.attr] for one in self._above(found) if node.attr in one.methods)
            return
        classes = self._classes_of(kind)
        if classes:
            for found in classes:
                family = (found, *self._above(found), *self._below(found.node.name))
                yield from {
                    one.methods[node.attr].name: one.methods[node.attr] for one in family if node.attr in one.methods
                }.values()
        elif kind is None and node.attr not in BUILT_IN:
            for named in self._classes.values():
                yield from (one.methods[node.attr] for one in named if node.attr in one.methods)

    def attribute(self, node: ast.expr, function: Function) -> tuple[str, str] | None:
        """What ``node`` names, where it is an attribute or a module's own name: ``("Class", "attribute")`` ("" for a
        class that is not known) or ``("module", "name")``."""
        if isinstance(node, ast.Name):
            return function.module, node.id
        if isinstance(node, ast.Attribute):
            kind = self._type_of(node.value, self._types_in(function), function)
            owners = [one for found in self._classes_of(kind) for one in (found, *self._above(found))]
            holds = [one.node.name for one in owners if node.attr in one.attributes or self._sets(one, node.attr)]
            return (holds[0] if holds else ""), node.attr
        return None

    def _sets(self, found: _Class, attribute: str) -> bool:
        return any(
            isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == attribute
            for node in ast.walk(found.node)
        )

    def reached(self, roots: Iterable[str], but: Container[str] = ()) -> dict[str, str]:
        """Everything that the functions of these names may come to, each with the function that calls it; ``but``:
        functions that are known not to be called there."""
        found = dict.fromkeys(roots, "")
        pending = list(found)
        while pending:
            name = pending.pop()
            for called in self.calls(self.functions[name]):
                if called.name not in found and called.name not in but:
                    found[called.name] = name
                    pending.append(called.name)
        return found


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)


def _inside(kind: str, *, whole: bool = False) -> str:
    """``Engine`` for ``list[Engine]``, and for a dictionary its keys; with ``whole`` all there is between brackets."""
    inner = kind.partition("[")[2].removesuffix("]")
    return inner if whole or not kind.startswith("dict[") else inner.partition(", ")[0]
