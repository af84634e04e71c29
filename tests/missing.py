"""Run code in a process in which some modules cannot be imported, as if they were not installed."""

import subprocess
import sys
from collections.abc import Sequence

from tests.processes import python

__all__ = ["jaynes_without", "run_without"]

#: In a process that has modules already: those that are hidden are forgotten, and none of ours may
#: have imported them.
_FORGET = """
import sys
for name in {modules!r}:
    for loaded in [each for each in sys.modules if each == name or each.startswith(name + ".")]:
        parent, _, child = loaded.rpartition(".")
        vars(sys.modules.get(parent, object)).get(child) and delattr(sys.modules[parent], child)
        del sys.modules[loaded]
    sys.modules[name] = None
for part in ("cli", "files", "report"):
    assert "jaynes_callbacks." + part not in sys.modules
from jaynes_callbacks.cli import main
sys.exit(main({arguments!r}))
"""


def run_without(modules: Sequence[str], code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code that cannot import the modules."""
    hide = f"import sys\nsys.modules.update(dict.fromkeys({list(modules)!r}))\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True)


def jaynes_without(
    modules: Sequence[str], *arguments: object
) -> "subprocess.CompletedProcess[str]":
    """Run the command where the modules cannot be imported."""
    code = _FORGET.format(modules=list(modules), arguments=[*map(str, arguments)])
    return python("-c", code)
