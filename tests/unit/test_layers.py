"""The folder list shows the layers: imports go one way, each dependency has one home, and importing is cheap."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack

PACKAGE = Path(asynctrack.__file__).parent

#: Each layer may import itself and the ones before it. `testing` is for users' tests and imported by nothing here.
LAYERS = (
    ("constants", "entities", "errors", "settings", "values", "context"),
    ("journal",),
    ("stores", "artifacts"),
    ("engine",),
    ("run", "runlog", "runfiles", "rejected", "tracking", "experiments", "service"),
    ("fluent", "downloads"),
    ("", "cli", "ui", "integrations", "testing", "__main__"),
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}

#: Which modules, or folders of them, may import a dependency, at the top or late.
HOMES = {
    "aiofiles": ("stores.io", "stores.file", "artifacts"),
    "anyio": ("engine", "stores.io", "run"),
    "databricks": ("stores.databricks",),
    "httpx": ("stores.rest", "artifacts"),
    "mmap": ("journal",),
    "msgpack": ("journal",),
    "rich": ("cli", "engine"),
    "struct": ("journal",),
    "typer": ("cli",),
    "yaml": ("stores.file", "artifacts"),
}

#: What `import asynctrack` must not load: it is loaded where it is needed, or never.
NOT_AT_IMPORT = {"aiofiles", "anyio", "asyncio", "httpx", "mlflow", "numpy", "pandas", "rich", "trio", "typer", "yaml"}
IMPORT_LIMIT_MS = 60.0


def module_name(path: Path, root: Path) -> str:
    """``journal.slots`` for ``<root>/journal/slots.py``; "" for the package itself."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name: str, source: str, *, is_package: bool, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each import that runs, inside functions too; not those for type checkers only.

    ``modules`` are the package's modules, to tell ``from asynctrack import run`` from an import of a name.
    """
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["asynctrack", *name.split(".")] if name else ["asynctrack"]
                above = here[: len(here) - node.level + (1 if is_package else 0)]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full.removeprefix("asynctrack.") in modules else base


def wrong_direction(name: str, imported: str) -> str | None:
    """Why module ``name`` (without the package's) must not import ``imported`` (absolute); None where it may."""
    if imported != "asynctrack" and not imported.startswith("asynctrack."):
        return None
    ours, theirs = name.partition(".")[0], imported.removeprefix("asynctrack").lstrip(".").partition(".")[0]
    for part in (ours, theirs):
        if part not in LEVELS:
            return f"asynctrack.{part} is in no layer: give it one in tests/unit/test_layers.py"
    if LEVELS[theirs] > LEVELS[ours]:
        return f"{theirs or 'asynctrack'} lies above {ours}"
    if theirs == "testing" and ours != "testing":
        return "testing is for users' tests"
    return None


def away_from_home(name: str, imported: str) -> str | None:
    """Why module ``name`` must not import ``imported``, where that is a dependency with a home elsewhere."""
    homes = HOMES.get(imported.partition(".")[0])
    if homes is None or any(name == home or name.startswith(home + ".") for home in homes):
        return None
    return f"its home is {', '.join(homes)}"


def offenders(root: Path) -> list[str]:
    """Every import in the package under ``root`` that breaks one of the two rules."""
    paths = sorted(root.rglob("*.py"))
    modules = {module_name(path, root) for path in paths}
    found = []
    for path in paths:
        name = module_name(path, root)
        is_package = path.name == "__init__.py"
        for line, imported in imports(name, path.read_text("utf-8"), is_package=is_package, modules=modules):
            reason = wrong_direction(name, imported) or away_from_home(name, imported)
            if reason is not None:
                found.append(f"{path.relative_to(root)}:{line} imports {imported}: {reason}")
    return found


def test_imports_go_down_and_each_dependency_stays_at_home() -> None:
    found = offenders(PACKAGE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("journal/new.py", "import asynctrack.engine.engine", "engine lies above journal"),
        ("journal/new.py", "def f():\n    from asynctrack.stores.base import Batch", "stores lies above journal"),
        ("stores/file/new.py", "from ...engine import engine", "engine lies above stores"),
        ("stores/new.py", "from .. import run", "run lies above stores"),
        ("engine/new.py", "from asynctrack import Settings", "asynctrack lies above engine"),
        ("engine/new.py", "from asynctrack.testing import MemoryStore", "testing lies above engine"),
        ("cli/new.py", "from asynctrack.testing import MemoryStore", "testing is for users' tests"),
        ("errors.py", "from .journal import slots", "journal lies above errors"),
        ("unheard_of.py", "from asynctrack.errors import StoreError", "asynctrack.unheard_of is in no layer"),
        ("engine/new.py", "import mmap", "its home is journal"),
        ("run.py", "def f():\n    import httpx._client", "its home is stores.rest, artifacts"),
        ("stores/io_more.py", "import anyio", "its home is engine, stores.io, run"),
        ("fluent.py", "if not TYPE_CHECKING:\n    from yaml import load", "its home is stores.file, artifacts"),
    ],
)
def test_the_check_finds_an_import_that_is_wrong(path: str, source: str, reason: str, tmp_path: Path) -> None:
    for module in ("journal/slots.py", "stores/base.py", "engine/engine.py", "run.py", "testing.py", path):
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).touch()
    (tmp_path / path).write_text(source)
    [found] = offenders(tmp_path)
    assert path in found
    assert reason in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("journal/new.py", "import mmap, struct\nfrom . import slots\nfrom ..errors import SpoolError"),
        ("engine/new.py", "from asynctrack.stores.base import Batch\nfrom anyio.lowlevel import current_token"),
        ("errors.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from asynctrack.run import ActiveRun"),
        ("__init__.py", "from .run import start_run"),
        ("cli/__init__.py", "import typer\nimport asynctrack\nfrom ..run import start_run"),
    ],
)
def test_the_check_lets_an_import_pass_that_is_right(path: str, source: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    assert offenders(tmp_path) == []


def import_in_a_fresh_interpreter(bytecode: Path) -> tuple[float, set[str]]:
    """Milliseconds that ``import asynctrack`` takes, and the names of the modules it loads.

    ``bytecode`` is where compiled modules are kept from one call to the next, as an installed package has them.
    """
    code = (
        "import sys, time; before = set(sys.modules); begun = time.perf_counter(); import asynctrack; "
        "took = time.perf_counter() - begun; loaded = sorted(set(sys.modules) - before); "
        "import json; print(json.dumps([took * 1e3, loaded]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(bytecode)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    took, loaded = json.loads(done.stdout)
    return took, set(loaded)


def test_importing_asynctrack_loads_nothing_that_is_needed_only_later(tmp_path: Path) -> None:
    _, loaded = import_in_a_fresh_interpreter(tmp_path)
    assert "asynctrack.run" in loaded
    found = sorted(NOT_AT_IMPORT & {name.partition(".")[0] for name in loaded})
    assert not found, f"`import asynctrack` loads {', '.join(found)}; import it inside the function that needs it"


def test_importing_asynctrack_takes_at_most_60_ms(tmp_path: Path) -> None:
    import_in_a_fresh_interpreter(tmp_path)
    # The machine may be busy with something else: the best of five says what the import costs.
    best = min(import_in_a_fresh_interpreter(tmp_path)[0] for _ in range(5))
    assert best <= IMPORT_LIMIT_MS, f"`import asynctrack` took {best:.0f} ms at best; python -X importtime says where"
