"""The monitor in a configuration of LightningCLI."""

from typing import Any

import pytest
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from jaynes_callbacks import EquilibriumMonitor

pytest.importorskip("jsonargparse")

STEPS = "--trainer.callbacks.every_n_steps"
SCHEDULE = "jaynes_callbacks.schedule.log_spaced"


def monitor(*arguments: str) -> EquilibriumMonitor:
    from lightning.pytorch.cli import LightningCLI

    quiet = ["--trainer.accelerator=cpu", "--trainer.logger=false"]
    added = "--trainer.callbacks+=jaynes_callbacks.EquilibriumMonitor"
    cli: Any = LightningCLI(
        BoringModel, BoringDataModule, run=False, args=[*quiet, added, *arguments]
    )
    (found,) = [each for each in cli.trainer.callbacks if isinstance(each, EquilibriumMonitor)]
    return found


@pytest.mark.filterwarnings("ignore")  # of Lightning and jsonargparse on each other
def test_a_schedule_is_an_object_and_its_maker_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    called = f'{STEPS}={{"class_path":"{SCHEDULE}","init_args":{{"per_decade":4}}}}'
    assert "every_n_steps=log_spaced(per_decade=4)" in monitor(called).state_key
    # A parser leaves the program, or raises an error of its own where it runs under a debugger.
    with pytest.raises((SystemExit, ValueError)) as refused:
        monitor(f"{STEPS}={SCHEDULE}")
    said = f"{refused.value}{capsys.readouterr().err}"
    assert "every_n_steps must be a schedule, got log_spaced" in said
