"""What is known of a run besides its records: versions, arguments, what is watched and what not.

The file ``_run.json`` in the dataset's directory.  Readers of Parquet directories leave out what
begins with an underscore.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaynes_callbacks.records.atomic import put

__all__ = ["FILE", "read_description", "write_description"]

FILE = "_run.json"


def write_description(directory: Path, description: Mapping[str, Any]) -> None:
    """Put the file into a dataset's directory, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    text = json.dumps(description, indent=1, default=str, ensure_ascii=True)
    put(directory / FILE, lambda path: path.write_text(text + "\n"))


def read_description(directory: Path) -> dict[str, Any]:
    """What `write_description` has written; empty where there is none, or none that can be read."""
    try:
        description = json.loads((directory / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, dict) else {}
