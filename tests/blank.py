"""Figures that are made but not painted: layout and painting take 0.3 s each."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

__all__ = ["leave_figures_blank"]


def leave_figures_blank(patch: pytest.MonkeyPatch) -> None:
    """Let runs and reports show every figure as paper of its size."""
    for module in ("sinks.figures", "report.charts"):
        patch.setattr(f"jaynes_callbacks.{module}.rendered", _paper)


def _paper(figure: Figure) -> "np.ndarray[Any, Any]":
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    return np.full((height, width, 3), 255, np.uint8)
