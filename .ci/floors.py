"""Prints a constraints file in which each of the package's dependencies has the lowest version that it declares.

``python .ci/floors.py > floors.txt``, then ``pip install -c floors.txt``. What a dependency itself needs, and the tools
of the tests, stay the newest. Ends with an error where a dependency has no lower bound, or any other.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
#: extras for those who work on the package, not for those who use it; and MLflow's, whose lowest version has a phase of
#: its own in `.ci/run`: the tests' server is a newer one
LEFT_OUT = {"test", "dev", "mlflow"}
#: name, lower bound, and for which interpreters
_REQUIREMENT = re.compile(r"([\w.-]+)>=([\w.]+)(?:\s*;\s*(.+))?")


def requirements(project: dict[str, object]) -> Iterator[str]:
    """Of the ``[project]`` table: what users install, extras included; not an extra that only names others."""
    extras = project["optional-dependencies"]
    yield from project["dependencies"]
    for extra, wanted in extras.items():
        if extra not in LEFT_OUT:
            yield from (requirement for requirement in wanted if not requirement.startswith(f"{project['name']}["))


def floor(requirement: str) -> str:
    """``msgpack==1.0.5`` for ``msgpack>=1.0.5``. Raises ValueError where there is anything but a lower bound."""
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise ValueError(f"{requirement}: it must have a lower bound (name>=version), and no other")
    name, version, interpreters = match.groups()
    return f"{name}=={version}" + (f"; {interpreters}" if interpreters else "")


if __name__ == "__main__":
    try:
        print(*map(floor, requirements(tomllib.loads(PYPROJECT.read_text("utf-8"))["project"])), sep="\n")
    except ValueError as error:
        sys.exit(f"pyproject.toml: {error}")
