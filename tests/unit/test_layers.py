"""The folder list shows the layers: imports go one way, each dependency has one home, and importing is cheap."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack

PACKAGE = Path(asynctrack.__file__).parent

#: Each layer may import itself and the ones before it. `testing` is for users' tests and imported by nothing here.
LAYERS = (
    (
        "arguments",
        "clock",
        "constants",
        "entities",
        "errors",
        "exceptions",
        "forks",
        "frozen",
        "interrupts",
        "markup",
        "platforms",
        "reentrant",
        "settings",
        "values",
    ),
    ("journal",),
    ("stores",),
    ("artifacts",),
    ("delivery",),
    ("engine",),
    ("current",),
    ("plots",),
    ("reading",),
    ("runs",),
    ("importing", "recovery", "service"),
    ("tracking", "experiments", "downloads", "aggregates", "histories"),
    ("tables",),
    ("fluent",),
    ("", "cli", "ui", "tui", "integrations", "mlflow", "testing", "__main__"),
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}

#: Which modules, or folders of them, may import a dependency, at the top or late.
HOMES = {
    "aiofiles": ("stores.io", "stores.file", "artifacts"),
    "anyio": ("delivery", "engine", "stores.io", "runs.waiting", "recovery.sync"),
    "databricks": ("stores.databricks",),
    "datasketches": ("integrations",),
    "fcntl": ("platforms",),
    "httpx": ("stores.rest", "artifacts"),
    "mlflow": ("mlflow",),
    "mmap": ("journal", "reading.growing"),
    "numpy": (
        *(
            "artifacts.images",
            "integrations",
            "stores.columns",
            "stores.file",
            "stores.sql",
            "plots",
            "reading",
            "tui",
            "ui",
        ),
    ),
    "msgpack": ("journal",),
    "psycopg": ("stores.sql",),
    "random": ("stores.file.layout", "stores.names"),  # with a generator of their own: a program may seed Python's
    "rich": ("cli", "engine", "tui"),
    "socksio": ("stores.rest",),
    "sqlite3": ("stores.sql",),
    "starlette": ("ui",),
    "struct": ("journal", "stores.sql.postgres_session"),
    "textual": ("tui",),
    "typer": ("cli",),
    "uvicorn": ("ui",),
    "yaml": ("stores.file", "artifacts"),
}

#: What `import asynctrack` must not load: it is loaded where it is needed, or never.
NOT_AT_IMPORT = {
    "aiofiles",
    "anyio",
    "asyncio",
    "datasketches",
    "httpx",
    "mlflow",
    "numpy",
    "pandas",
    "rich",
    "sqlite3",
    "trio",
    "typer",
    "yaml",
}
#: Nor these of our own: who only imports asynctrack opens no store, writes no journal and delivers nothing.
OURS_NOT_AT_IMPORT = (
    *("artifacts", "delivery", "entities", "importing", "recovery", "service"),
    *("stores.file", "stores.rest", "stores.sql"),
    *("engine.consumer", "engine.engine", "engine.local", "engine.thread"),
    *("journal.frames", "journal.segment", "journal.spool", "journal.survey", "journal.writer"),
)
IMPORT_LIMIT_MS = 60.0
#: on a slower machine than that is for: so many times what these take
TIMES_STANDARD, STANDARD = 0.75, "asyncio, email.message, http.client, unittest.mock, xml.dom.minidom"

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_CLASS = 250
TOO_LONG_STILL: set[str] = set()


def module_name(path: Path, root: Path) -> str:
    """``journal.slots`` for ``<root>/journal/slots.py``; "" for the package itself."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name: str, source: str, *, is_package: bool, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each import that runs, inside functions too; not those for type checkers only.

    ``modules`` are the package's modules, to tell ``from asynctrack import fluent`` from an import of a name.
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


def circles(root: Path) -> list[set[str]]:
    """Groups of modules under ``root`` that import one another, at the top or late."""
    arrows: dict[str, set[str]] = {}
    paths = sorted(root.rglob("*.py"))
    modules = {module_name(path, root) for path in paths}
    for path in paths:
        name = module_name(path, root)
        found = imports(name, path.read_text("utf-8"), is_package=path.name == "__init__.py", modules=modules)
        theirs = {imported.removeprefix("asynctrack").lstrip(".") for _, imported in found if is_ours(imported)}
        arrows[name] = (theirs & modules) - {name}
    reached = {name: reachable(name, arrows) for name in arrows}
    together = [{other for other in reached[name] if name in reached[other]} for name in sorted(arrows)]
    return [group for index, group in enumerate(together) if group and group not in together[:index]]


def is_ours(imported: str) -> bool:
    """Whether an imported module (absolute name) is of this package, or the one beside it."""
    return imported.partition(".")[0] in ("asynctrack", "asynctrack_for_mlflow")


def reachable(name: str, arrows: dict[str, set[str]]) -> set[str]:
    """What a module imports, directly or through others; itself only where it is in a circle."""
    seen: set[str] = set()
    pending = [name]
    while pending:
        new = arrows[pending.pop()] - seen
        seen |= new
        pending += new
    return seen


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circles(PACKAGE) == []


def test_the_check_finds_a_circle_that_a_late_import_closes(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/__init__.py").touch()
    (tmp_path / "runs/log.py").write_text("from asynctrack.runs import files")
    (tmp_path / "runs/files.py").write_text("def wait():\n    from asynctrack.runs.run import wait_blocking")
    (tmp_path / "runs/run.py").write_text("from .log import RunLog")
    (tmp_path / "fluent.py").write_text("from asynctrack.runs.run import start_run")
    assert circles(tmp_path) == [{"runs.log", "runs.files", "runs.run"}]


def sizes(root: Path) -> Iterator[tuple[str, int, int]]:
    """Each file, and each class as ``file:Class``, with its lines and how many it may have."""
    for path in sorted(root.rglob("*.py")):
        source = path.read_text("utf-8")
        name = str(path.relative_to(root))
        yield name, source.count("\n"), MOST_LINES_OF_A_FILE
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{name}:{node.name}", lines, MOST_LINES_OF_A_CLASS


def test_no_file_and_no_class_is_so_long_that_it_must_do_several_things() -> None:
    found = {name: lines for name, lines, most in sizes(PACKAGE) if lines > most}
    assert found.keys() == TOO_LONG_STILL


PUBLIC = {
    "asynctrack.artifacts": "download_artifacts list_artifacts load_dict load_image load_text",
    "asynctrack.downloads": "download_artifacts list_artifacts load_dict load_image load_text",
    "asynctrack.experiments": (
        "choose_experiment create_experiment delete_experiment delete_experiment_tag get_experiment "
        "get_experiment_by_name search_experiments set_experiment set_experiment_tag set_experiment_tags store_here"
    ),
    "asynctrack.fluent": (
        "delete_run delete_tag end_run flush_async_logging get_artifact_uri get_metric_history get_parent_run get_run "
        "log_artifact log_artifacts log_dict log_figure log_image log_metric log_metrics log_param log_params log_text "
        "restore_run search_runs set_tag set_tags"
    ),
    "asynctrack.entities": (
        "Experiment FileInfo LifecycleStage Metric PagedList Param Run RunData RunInfo RunStatus RunTag "
        "SourceType ViewType"
    ),
    "asynctrack.errors": (
        "AlreadyExistsError AmbiguousRunError AsynctrackError AuthenticationError DeliveryError FlushTimeoutError "
        "InvalidInputError NoActiveRunError NotFoundError RefusedError RunEndedError ServerFaultError SpoolError "
        "SpoolFullError StoreError UnavailableError WrongServerError"
    ),
    "asynctrack.stores.base": "AbstractStore Batch Limits Page Point RecordBlock Refusal RunSpec",
    "asynctrack.stores.io": "InlineIO ThreadedIO drive",
    "asynctrack.stores.keys": "check_key",
    "asynctrack.testing": "FaultyStore MemoryStore StoreContract",
    "asynctrack.tracking": (
        "AsyncMLflowService MLflowService MlflowClient get_async_service get_service get_tracking_uri "
        "is_tracking_uri_set set_tracking_uri store_for"
    ),
}


@pytest.mark.parametrize("module", PUBLIC)
def test_what_users_import_stays_where_they_import_it_from(module: str) -> None:
    missing = [name for name in PUBLIC[module].split() if not hasattr(importlib.import_module(module), name)]
    assert not missing


def test_everything_that_the_package_says_it_has_is_there() -> None:
    assert not [name for name in asynctrack.__all__ if not hasattr(asynctrack, name)]


def test_imports_go_down_and_each_dependency_stays_at_home() -> None:
    found = offenders(PACKAGE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("journal/new.py", "import asynctrack.engine.engine", "engine lies above journal"),
        ("journal/new.py", "def f():\n    from asynctrack.stores.base import Batch", "stores lies above journal"),
        ("stores/file/new.py", "from ...engine import engine", "engine lies above stores"),
        ("delivery/new.py", "from asynctrack.engine import engine", "engine lies above delivery"),
        ("stores/new.py", "from ..runs import run", "runs lies above stores"),
        ("engine/new.py", "from asynctrack import Settings", "asynctrack lies above engine"),
        ("engine/new.py", "from asynctrack.testing import MemoryStore", "testing lies above engine"),
        ("cli/new.py", "from asynctrack.testing import MemoryStore", "testing is for users' tests"),
        ("errors.py", "from .journal import slots", "journal lies above errors"),
        ("unheard_of.py", "from asynctrack.errors import StoreError", "asynctrack.unheard_of is in no layer"),
        ("engine/new.py", "import mmap", "its home is journal, reading.growing"),
        ("runs/new.py", "def f():\n    import httpx._client", "its home is stores.rest, artifacts"),
        ("stores/io_more.py", "import anyio", "its home is delivery, engine, stores.io"),
        ("fluent.py", "if not TYPE_CHECKING:\n    from yaml import load", "its home is stores.file, artifacts"),
    ],
)
def test_the_check_finds_an_import_that_is_wrong(path: str, source: str, reason: str, tmp_path: Path) -> None:
    for module in ("journal/slots.py", "stores/base.py", "engine/engine.py", "runs/run.py", "testing.py", path):
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
        (
            "errors.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .runs.run import ActiveRun",
        ),
        ("__init__.py", "from .runs.run import start_run"),
        ("cli/__init__.py", "import typer\nimport asynctrack\nfrom ..runs.run import start_run"),
    ],
)
def test_the_check_lets_an_import_pass_that_is_right(path: str, source: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    assert offenders(tmp_path) == []


#: The module of a distribution that is not called like it.
MODULES = {
    "databricks-sdk": "databricks",
    "Pillow": "PIL",
    "mlflow-skinny": "mlflow",
    "PyYAML": "yaml",
    "scikit-learn": "sklearn",
}
#: What some examples show asynctrack inside of. No extra brings them: they are large, and who wants them has them.
FRAMEWORKS = {"ray", "torch"}
#: Extras for those who work on the package: their tools are no dependencies of it.
TOOLS = {"test", "dev"}


def declared(project: dict[str, Any]) -> dict[str, set[str]]:
    """The modules that each list of requirements in a ``[project]`` table brings; "" is what always comes."""
    extras = project["optional-dependencies"]
    wanted = {"": project["dependencies"]} | {name: extras[name] for name in extras if name not in TOOLS}
    ours = project["name"]
    found = {}
    for extra, requirements in wanted.items():
        names = [re.match(r"[\w.-]+", requirement)[0] for requirement in requirements]  # type: ignore[index]
        found[extra] = {MODULES.get(name, name) for name in names if name != ours}
    return found


def foreign(root: Path) -> dict[str, str]:
    """Modules neither of this package nor Python's that files under ``root`` import, each with a file that does."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        is_package = path.name == "__init__.py"
        for _, imported in imports(
            module_name(path, root), path.read_text("utf-8"), is_package=is_package, modules=set()
        ):
            top = imported.partition(".")[0]
            if top not in sys.stdlib_module_names and not is_ours(imported):
                found.setdefault(top, f"{root.name}/{path.relative_to(root)}")
    return found


def undeclared(project: dict[str, Any], package: Path, examples: Path) -> list[str]:
    """What does not agree between a ``[project]`` table and what the package and the examples import."""
    brought = declared(project)
    for_examples = brought[""] | brought["examples"] | FRAMEWORKS
    everything = set[str]().union(*brought.values())
    of_package, of_examples = foreign(package), foreign(examples)
    missing = [f"{where} imports {name}" for name, where in of_package.items() if name not in everything]
    missing += [f"{where} imports {name}" for name, where in of_examples.items() if name not in for_examples]
    unused = everything - of_package.keys() - of_examples.keys()
    return missing + [f"nothing imports {name}" for name in sorted(unused)]


def project_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    found = undeclared(project_table(), PACKAGE, PACKAGE.parent / "examples")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "requirements", "found"),
    [
        ("def late():\n    import orjson.x", [], ["asynctrack/new.py imports orjson"]),
        ("import yaml, json, asynctrack.errors", ["PyYAML>=6.0; python_version < '3.12'"], []),
        ("", ["aiofiles>=1"], ["nothing imports aiofiles"]),
    ],
)
def test_the_check_finds_a_dependency_that_is_missing_or_not_needed(
    source: str, requirements: list[str], found: list[str], tmp_path: Path
) -> None:
    package = tmp_path / "asynctrack"
    package.mkdir()
    (package / "new.py").write_text(source)
    extras = {"examples": [], "all": ["asynctrack[examples]"], "test": ["pytest>=1"]}
    project = {"name": "asynctrack", "dependencies": requirements, "optional-dependencies": extras}
    assert undeclared(project, package, tmp_path / "none") == found


def test_each_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    floors = subprocess.run(
        [sys.executable, PACKAGE.parent / ".ci/floors.py"], check=True, capture_output=True, text=True, timeout=60
    )
    named = {re.split("[=;]", line)[0] for line in floors.stdout.split("\n") if line}
    found = {MODULES.get(name, name) for name in named} | {"mlflow"}  # its lowest version has tests of its own
    assert found == set[str]().union(*declared(project_table()).values())


#: what a program that logs imports; the first of these names loads all of them
LOGGING = "asynctrack; asynctrack.start_run"


def import_in_a_fresh_interpreter(bytecode: Path, modules: str = LOGGING) -> tuple[float, set[str]]:
    """Milliseconds of processor time that ``import asynctrack`` takes, and the names of the modules it loads.

    ``bytecode`` is where compiled modules are kept from one call to the next, as an installed package has them.
    """
    code = (
        f"import sys, time; before = set(sys.modules); begun = time.process_time(); import {modules}; "
        "took = time.process_time() - begun; loaded = sorted(set(sys.modules) - before); "
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
    assert "asynctrack.runs.run" in loaded
    found = sorted(NOT_AT_IMPORT & {name.partition(".")[0] for name in loaded})
    assert not found, f"`import asynctrack` loads {', '.join(found)}; import it inside the function that needs it"


def test_importing_asynctrack_loads_nothing_that_only_a_run_needs(tmp_path: Path) -> None:
    _, loaded = import_in_a_fresh_interpreter(tmp_path)
    later = {f"asynctrack.{name}" for name in OURS_NOT_AT_IMPORT}
    missing = [name for name in later if importlib.util.find_spec(name) is None]
    assert not missing, f"there is no {', '.join(missing)} any more: name what is there now"
    found = sorted(name for name in loaded if any(f"{name}.".startswith(f"{part}.") for part in later))
    assert not found, f"`import asynctrack` loads {', '.join(found)}; python -X importtime says what imports it"


def test_importing_asynctrack_takes_at_most_60_ms(tmp_path: Path) -> None:
    import_in_a_fresh_interpreter(tmp_path)
    import_in_a_fresh_interpreter(tmp_path, STANDARD)
    # The machine may be slow, or busy with something else: in turn with standard modules, and the best of five.
    pairs = [[import_in_a_fresh_interpreter(tmp_path, each)[0] for each in (LOGGING, STANDARD)] for _ in range(5)]
    best, standard = map(min, zip(*pairs, strict=True))
    said = f"`import asynctrack` took {best:.0f} ms at best, {STANDARD} {standard:.0f}; python -X importtime says where"
    assert best <= max(IMPORT_LIMIT_MS, TIMES_STANDARD * standard), said
