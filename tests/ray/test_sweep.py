"""Sweeps and training on a real Ray of this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest

ROOT = Path(__file__).parents[2]
EPOCHS = 30
SWEEP = (
    "-m", "experiments.train", "-m", "launcher=ray", "seed=1,2,3,4", "model.net.width=16",
    "trainer=cpu", f"trainer.max_epochs={EPOCHS}", "logger=none", "hydra.sweep.dir=sweep",
    "+callbacks.equilibrium_monitor.sinks=[{_target_:jaynes_callbacks.sinks.dataset.DatasetSink}]",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
pytest.importorskip("ray")


def started(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    with (folder / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=said, stderr=said
        )


def waited(until: Callable[[], object], what: str, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"after {seconds} s there is no {what}"
        time.sleep(0.1)


def workers(sweep: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The processes in which the sweep's jobs are running."""
    below = psutil.Process(sweep.pid).children(recursive=True)
    return [each for each in below if "".join(each.cmdline()).startswith("ray::_run")]


def test_a_sweep_of_four_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    jobs = [tmp_path / "sweep" / str(number) for number in range(4)]
    lasts = [job / "checkpoints" / "last.ckpt" for job in jobs]
    # First all of it is killed amid a job, then, started again, the worker of a job alone.
    sweep = started(tmp_path, *SWEEP)
    waited(lambda: any(last.is_file() for last in lasts), "checkpoint")
    all_of_it = [*psutil.Process(sweep.pid).children(recursive=True), psutil.Process(sweep.pid)]
    for process in all_of_it:
        process.send_signal(signal.SIGKILL)
    sweep.wait()
    assert not any((job / "result.json").exists() for job in jobs)
    sweep = started(tmp_path, *SWEEP)
    waited(lambda: any(last.is_file() for last in lasts[2:]), "checkpoint of a later job")
    for worker in workers(sweep):
        worker.kill()
    assert sweep.wait(400) == 0, (tmp_path / "said.txt").read_text()
    said = (tmp_path / "said.txt").read_text()
    assert len(re.findall("interrupted before, goes on from .*/last.ckpt", said)) >= 2, said
    for number, job in enumerate(jobs):
        assert json.loads((job / "result.json").read_text())["config"]["seed"] == number + 1
        if (job / "jaynes-1").exists():
            # Killed before its first checkpoint, so that it began anew.
            continue
        steps = pd.read_parquet(job / "jaynes").groupby("name").step.apply(list)
        assert all(one == [18 * epoch for epoch in range(EPOCHS + 1)] for one in steps)
    written = [(job / "result.json").stat().st_mtime_ns for job in jobs]
    again = started(tmp_path, *SWEEP)
    assert again.wait(200) == 0
    assert [(job / "result.json").stat().st_mtime_ns for job in jobs] == written
    # Ray may lose what a worker prints last, so that not every one of the four is heard of.
    assert "finished before, skipped" in (tmp_path / "said.txt").read_text()


def test_the_script_of_ray_train_runs_as_it_stands(tmp_path: Path) -> None:
    (script,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "engines.md").read_text(), re.DOTALL | re.M
    )
    (tmp_path / "script.py").write_text(script)
    assert started(tmp_path, "script.py").wait(300) == 0, (tmp_path / "said.txt").read_text()
    rows = pd.read_parquet(tmp_path / "runs" / "jaynes")
    assert sorted(rows.step.unique()) == [0, 4, 8, 12]
    # Both workers' activations are counted: 128 samples of each, four batches an epoch.
    assert set(rows.kind) == {"weight", "iota"}
    assert not (tmp_path / "runs" / "jaynes-1").exists()
