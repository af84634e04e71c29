"""A sweep on a real Slurm: it is done, and goes on where jobs are killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest

from tests.slurm.cluster import CannotStartError, cluster

ROOT = Path(__file__).parents[2]
EPOCHS = 30
SWEEP = (
    "-m", "experiments.train", "-m", "launcher=slurm", "hydra.launcher.mem_gb=2",
    "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10", "seed=1,2,3,4", "threads=1",
    "model.net.width=16", "trainer=cpu", f"trainer.max_epochs={EPOCHS}", "logger=none",
    "+callbacks.equilibrium_monitor.sinks=[{_target_:jaynes_callbacks.sinks.dataset.DatasetSink}]",
    "hydra.sweep.dir=sweep",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Mapping[str, str]]:
    """The environment of processes that use a cluster of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            with cluster() as environment:
                yield environment
        except CannotStartError as error:
            pytest.skip(str(error))


def waited(until: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"after {seconds} s there is no {what}"
        time.sleep(0.1)


def test_a_sweep_of_four_goes_on_where_jobs_are_killed(
    slurm: Mapping[str, str], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    jobs = [sweep / str(number) for number in range(4)]

    def results() -> list[Path]:
        return [job for job in jobs if (job / "result.json").is_file()]

    def command(*words: str) -> str:
        done = subprocess.run(words, env=slurm, check=True, capture_output=True, text=True)
        return done.stdout

    said = tmp_path / "said.txt"
    with said.open("w") as file:
        begun = subprocess.Popen(
            [sys.executable, *SWEEP], cwd=tmp_path, env=slurm, stdout=file, stderr=file
        )
    try:
        # Two run at a time: one is killed and put back by Slurm, the other killed for good.
        for number, kill in ((0, ("scontrol", "requeue")), (1, ("scancel",))):
            last = jobs[number] / "checkpoints" / "last.ckpt"
            waited(last.is_file, f"checkpoint of {number}", 120)
            array, *_ = command("squeue", "--noheader", "--format=%F").split()
            assert not (jobs[number] / "result.json").exists()
            command(*kill, f"{array}_{number}")
        waited(lambda: results() == [jobs[0], *jobs[2:]], f"three results: {said.read_text()}")
        waited(lambda: not command("squeue", "--noheader"), "end of the queue")
    finally:
        # A cluster without accounting does not tell that a job was cancelled: it still waits.
        begun.kill()
        begun.wait()
    kept = {job: (job / "result.json").stat().st_mtime_ns for job in results()}
    again = subprocess.run(
        [sys.executable, *SWEEP], cwd=tmp_path, env=slurm, check=False, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert {job: (job / "result.json").stat().st_mtime_ns for job in kept} == kept
    printed = {
        number: "".join(
            each.read_text() for each in sweep.glob(f".submitit/*/*_{number}_0_log.out")
        )
        for number in range(4)
    }
    for number, job in enumerate(jobs):
        assert json.loads((job / "result.json").read_text())["config"]["seed"] == number + 1
        # One dataset, with every epoch once, whether or not the job was killed.
        assert [each.name for each in job.glob("jaynes*")] == ["jaynes"]
        rows = pd.read_parquet(job / "jaynes")
        steps = rows.groupby("name").step.apply(list)
        assert all(one == [18 * epoch for epoch in range(EPOCHS + 1)] for one in steps)
        went_on = f"interrupted before, goes on from {job}/checkpoints/last.ckpt"
        assert printed[number].count(went_on) == (number in (0, 1)), printed[number]
        assert printed[number].count("finished before, skipped") == (number != 1)
