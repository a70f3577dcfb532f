"""An MLflow server over HTTP, and what Databricks adds to it."""

import sys
from types import ModuleType

# httpx does without its own command line, which loads rich: that is half of what importing httpx takes, and draws a
# number from Python's `random`, which the program may have seeded.
if "httpx" not in sys.modules:
    sys.modules["httpx._main"] = ModuleType("httpx._main")  # that has nothing in it is an ImportError to httpx
