"""Shared by all tests: shapes and types are checked at run time, one thread a worker."""

import pytest
import torch
from jaxtyping import install_import_hook

# Before the first import of the package: beartype checks every annotation of these from here on.
# Not of the sources, whose hooks are traced by torch.compile.
install_import_hook(
    [f"jaynes_callbacks.{part}" for part in ("grid", "histogram", "statistics", "summary")],
    "beartype.beartype",
)

torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A private source of random numbers, so that tests do not share a global state."""
    return torch.Generator().manual_seed(20240517)
