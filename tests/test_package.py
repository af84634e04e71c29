import subprocess
import sys

import pytest

import jaynes_callbacks


def test_every_public_name_is_there() -> None:
    for name in jaynes_callbacks.__all__:
        assert getattr(jaynes_callbacks, name) is not None
    assert dir(jaynes_callbacks) == sorted(jaynes_callbacks.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'EquilibriumMonitro'"):
        jaynes_callbacks.EquilibriumMonitro  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        # torchmetrics loads matplotlib by itself where it is installed, so it is absent only here.
        ("import jaynes_callbacks", "torch lightning matplotlib pandas pyarrow wandb hydra scipy"),
        (
            "from jaynes_callbacks import Recorder, MagnitudeHistogram, Records",
            "lightning pytorch_lightning pyarrow wandb hydra",
        ),
        ("from jaynes_callbacks import EquilibriumMonitor", "pytorch_lightning wandb"),
        (
            "from jaynes_callbacks.pytorch_lightning import EquilibriumMonitor",
            "lightning.pytorch wandb",
        ),
    ],
)
def test_imports_are_light(statement: str, absent: str) -> None:
    check = (
        f"import sys\n{statement}\n"
        f"loaded = [name for name in {absent.split()!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
        "torch = sys.modules.get('torch')\n"
        "assert torch is None or not torch.cuda.is_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
