"""What a signal handler comes to, read from the source: no lock in it that the interrupted call may hold for ever."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from tests.callgraph import Function, Package

#: what does not open again for the thread that holds it
ONE_THREADED = ("Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Queue", "LifoQueue")
#: who handles signals, and what is called by it although it is not named there
ROOTS = ("engine.signals:_handle", "engine.lifecycle:_terminate")
HANDED_OVER = (".wake", "._rolled")
#: not called in handlers: an engine that a forked child has not used yet is none of its process's
NOT_THERE = ("journal.writer:Journal.reopen", "journal.chain:Chain.reopen")
#: loaded long before; and for systems without memfd_create
MAY_IMPORT = {"signal", "tempfile"}
#: what waits for more than the local disk
FAR = ("stores", "artifacts", "delivery")


@pytest.fixture(scope="module")
def package() -> Package:
    """Ours. Reading it takes seconds."""
    return Package(Path(asynctrack.__file__).parent)


def roots(package: Package) -> Iterator[str]:
    """Where handlers begin: those above, what is handed over, and the hooks of the phases they go through."""
    yield from (f"{package.name}.{root}" for root in ROOTS)
    for name in package.functions:
        if name.startswith(f"{package.name}.engine.") and name.endswith(HANDED_OVER):
            yield name
    for module, tree in package.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("at_shutdown"):
                phase, hook = map(ast.unparse, node.args)
                if phase in ("Phase.ENDING_RUNS", "Phase.DRAINING"):
                    yield f"{module}:{hook}"


def not_there(package: Package) -> set[str]:
    """What is not called in handlers, nor by others while a handler waits for them."""
    return {f"{package.name}.{name}" for name in NOT_THERE}


def in_handlers(package: Package) -> list[Function]:
    """Every function that a signal handler may come to."""
    found = package.reached(roots(package), not_there(package))
    return [package.functions[name] for name in found]


def one_threaded(package: Package) -> set[tuple[str, str]]:
    """Attributes, as (class, name), and modules' own names that are locks of the wrong kind."""
    found = set()
    for module, tree in package.trees.items():
        for node in ast.walk(tree):
            for owner, body in [(node.name, node)] if isinstance(node, ast.ClassDef) else [(module, node)]:
                for one in ast.walk(body) if isinstance(body, ast.ClassDef) else [body]:
                    if isinstance(one, ast.Assign | ast.AnnAssign) and one.value is not None and is_made(one.value):
                        targets = one.targets if isinstance(one, ast.Assign) else [one.target]
                        found |= {(owner, ast.unparse(target).removeprefix("self.")) for target in targets}
    return found


def is_made(node: ast.AST) -> bool:
    """Whether it makes a lock of the wrong kind."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("threading.") in ONE_THREADED


def wrong_locks(package: Package) -> list[str]:
    """Each use of a lock of the wrong kind where a handler comes to."""
    wrong, found = one_threaded(package), []
    for function in in_handlers(package):
        for node in ast.walk(function.node):
            if is_made(node) and not function.name.endswith("__init__"):
                found.append(f"{function.name} makes {ast.unparse(node)}")
            named = package.attribute(node, function) if isinstance(node, ast.Name | ast.Attribute) else None
            if named is not None and (named in wrong or (not named[0] and named[1] in {name for _, name in wrong})):
                found.append(f"{function.name} touches {ast.unparse(node)}")
    return found


def waited_for(package: Package) -> set[tuple[str, str]]:
    """The locks that handlers wait for without a limit."""
    found = set()
    for function in in_handlers(package):
        for node in ast.walk(function.node):
            if isinstance(node, ast.With):
                found |= {package.attribute(item.context_expr, function) for item in node.items}
            elif (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not (node.args or node.keywords)
            ):
                found |= {package.attribute(node.func.value, function)} if node.func.attr == "acquire" else set()
    return {one for one in found if one is not None and "lock" in one[1]}


def held_for_long(package: Package) -> list[str]:
    """Each place where code holds one of these locks and imports, or waits for more than the local disk."""
    locks, found = waited_for(package), []
    for function in package.functions.values():
        for node in ast.walk(function.node):
            if not isinstance(node, ast.With) or function.name in not_there(package):
                continue
            if not locks & {package.attribute(item.context_expr, function) for item in node.items}:
                continue
            called = {one.name for one in package.calls(function, node)}
            inside = [package.functions[name] for name in package.reached(called)]
            for one in inside:
                if one.module.startswith(tuple(f"{package.name}.{part}" for part in FAR)):
                    found.append(f"{function.name} comes to {one.name} with a lock that handlers wait for")
            for tree in (node, *(one.node for one in inside)):
                found += [f"{function.name} imports {name} with a lock" for name in imported(tree) - MAY_IMPORT]
    return found


def imported(tree: ast.AST) -> set[str]:
    """What is imported in a piece of code."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def late_imports(package: Package) -> list[str]:
    """Each import that a handler would wait for, who may have interrupted it half way."""
    return [
        f"{one.name} imports {name}" for one in in_handlers(package) for name in sorted(imported(one.node) - MAY_IMPORT)
    ]


def test_what_a_signal_handler_comes_to_is_known(package: Package) -> None:
    """Among it what it is there for: else the other tests here would find nothing because they look at nothing."""
    found = {function.name.removeprefix("asynctrack.") for function in in_handlers(package)}
    assert {
        "engine.shutdown:Shutdown.carry_out_in_a_handler",
        "runs.state:RunState.log_end",
        "journal.writer:Journal.write_frame",
        "journal.chain:Chain.roll",
        "journal.frames:FrameFile.append",
        "engine.left:say_what_is_left",
    } <= found
    assert not_there(package) <= package.functions.keys()


def test_a_signal_handler_comes_to_no_lock_that_does_not_open_again_for_its_own_thread(package: Package) -> None:
    assert wrong_locks(package) == []


def test_a_signal_handler_imports_nothing(package: Package) -> None:
    assert late_imports(package) == []


def test_no_lock_that_a_signal_handler_waits_for_is_held_over_an_import_or_a_store(package: Package) -> None:
    assert waited_for(package)
    assert held_for_long(package) == []


SIGNALS = "import threading\nfrom p.engine.hooks import Hooks\ndef _handle(hooks: Hooks):\n    hooks.run()\n"
LIFECYCLE = "def _terminate(name):\n    pass\n"
HOOKS = "import threading\nclass Hooks:\n    def __init__(self):\n        self._lock = threading.{kind}()\n{body}"


@pytest.mark.parametrize(
    ("kind", "body", "check", "said"),
    [
        ("Lock", "    def run(self):\n        with self._lock: pass\n", wrong_locks, "touches self._lock"),
        (
            "Event",
            "    def run(self):\n        self.go()\n    def go(self):\n        self._lock.set()\n",
            wrong_locks,
            "go",
        ),
        ("RLock", "    def run(self):\n        return threading.Condition()\n", wrong_locks, "makes"),
        ("RLock", "    def run(self):\n        import rich\n", late_imports, "imports rich"),
        (
            "RLock",
            "    def run(self):\n        with self._lock: pass\n    def other(self):\n"
            "        with self._lock: self.load()\n    def load(self):\n        import httpx\n",
            held_for_long,
            "other imports httpx",
        ),
    ],
)
def test_the_checks_find_what_is_wrong(kind: str, body: str, check: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "p/engine").mkdir(parents=True)
    (tmp_path / "p/engine/signals.py").write_text(SIGNALS)
    (tmp_path / "p/engine/lifecycle.py").write_text(LIFECYCLE)
    (tmp_path / "p/engine/hooks.py").write_text(HOOKS.format(kind=kind, body=body))
    assert callable(check)
    found = check(Package(tmp_path / "p"))
    assert found
    assert said in found[0]
