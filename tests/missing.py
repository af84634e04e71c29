"""Run code in a process in which some modules cannot be imported, as if they were not installed."""

import subprocess
import sys
from collections.abc import Sequence

__all__ = ["jaynes_without", "run_without"]


def run_without(modules: Sequence[str], code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code that cannot import the modules."""
    hide = f"import sys\nsys.modules.update(dict.fromkeys({list(modules)!r}))\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True)


def jaynes_without(
    modules: Sequence[str], *arguments: object
) -> "subprocess.CompletedProcess[str]":
    """Run the command where the modules cannot be imported."""
    call = f"from jaynes_callbacks.cli import main\nsys.exit(main({[*map(str, arguments)]!r}))"
    return run_without(modules, call)
