"""What a notebook shows, executed as Jupyter does: pictures, and results as readable lines."""

from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
nbclient = pytest.importorskip("nbclient")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TRAIN = """
import lightning as L, torch
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from jaynes_callbacks import EquilibriumMonitor

class Net(BoringModel):
    def __init__(self):
        super().__init__()
        layers = torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)
        self.layer = torch.nn.Sequential(*layers)

monitor = EquilibriumMonitor()
trainer = L.Trainer(callbacks=[monitor], max_epochs=2, accelerator="cpu", enable_progress_bar=False,
                    default_root_dir=ROOT, logger=False, enable_checkpointing=False)
trainer.fit(Net(), BoringDataModule())
"""
CELLS = {
    "train": TRAIN,
    "monitor": "monitor",
    "table": 'monitor.history[["step", "name", "gap"]]',
    "curves": (
        "from jaynes_callbacks.figures import gap_over_steps\ngap_over_steps(monitor.records)"
    ),
    "frame": "gap_over_steps(monitor.history)",
    "density": (
        "from jaynes_callbacks.figures import log_density\n"
        'log_density(monitor.end, monitor.start, name="layer.0.weight")'
    ),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each cell shows last, by type."""
    root = str(tmp_path_factory.mktemp("notebook"))
    sources = [f"ROOT = {root!r}\n{CELLS['train']}", *list(CELLS.values())[1:]]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in sources])
    client = nbclient.NotebookClient(book, timeout=240, resources={"metadata": {"path": root}})
    client.execute()
    found = {}
    for name, cell in zip(CELLS, book.cells, strict=True):
        found[name] = [each.data for each in cell.outputs if each.output_type == "execute_result"]
    return found


@pytest.mark.parametrize("name", ["curves", "frame", "density"])
def test_figures_show_as_pictures(name: str, shown: dict[str, Any]) -> None:
    (data,) = shown[name]
    # A PNG begins so in base 64.
    assert data["image/png"].startswith("iVBORw0KGgo")


def test_results_are_readable(shown: dict[str, Any]) -> None:
    (monitor,), (table,) = shown["monitor"], shown["table"]
    assert monitor["text/plain"].startswith("<EquilibriumMonitor: magnitudes, scales; 3 streams")
    assert "layer.0.weight" in table["text/html"]
