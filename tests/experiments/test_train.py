"""The command line itself, as a user meets it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.processes import python

ROOT = Path(__file__).parents[2]


Finished = subprocess.CompletedProcess[str]


def started(*arguments: str, cwd: Path, env: dict[str, str]) -> Finished:
    """Start Python anew, without anything imported."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def command(folder: Path, *overrides: str, start: Callable[..., Finished] = python) -> Finished:
    """Runs ``python -m experiments.train`` in a folder of its own, without colour."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    return start("-m", "experiments.train", *overrides, cwd=folder, env=environment)


def test_help_shows_commands_and_groups(tmp_path: Path) -> None:
    done = command(tmp_path, "--help", start=started)
    assert done.returncode == 0
    assert "python -m experiments.train experiment=demo" in done.stdout
    for group in ("model: cnn, mlp", "data: cifar10, digits", "logger: csv, many, none"):
        assert group in done.stdout


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.net.widht=3", "Key 'widht' is not in struct"),
        ("model=mpl", "Could not find 'model/mpl'"),
        ("modle=mlp", "Could not override 'modle'"),
    ],
)
def test_typing_errors_get_hydras_own_words(tmp_path: Path, override: str, sentence: str) -> None:
    done = command(tmp_path, override)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_value_is_one_sentence_and_a_failure(tmp_path: Path) -> None:
    done = command(tmp_path, "data=mnist", "data.path=nowhere")
    assert done.returncode == 1
    assert "data: data.path=nowhere is not a folder\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_the_terminal_shows_the_bar_and_the_end_only(tmp_path: Path) -> None:
    # What is imported here is part of what is shown: Lightning chooses its log when it is imported.
    overrides = ("model.net.width=32", "trainer=cpu", "trainer.max_epochs=2")
    done = command(tmp_path, *overrides, start=started)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["epoch"]
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    assert f"dataset     {folder.relative_to(tmp_path)}/jaynes\n" in done.stdout
    assert "\x1b" not in done.stdout
    log = (folder / "train.log").read_text()
    assert "max_epochs=2` reached" in log
    config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    study = (
        "experiment=controls", "data=digits", "~data.limit", "model.net.width=16",
        "trainer.max_epochs=1", "control=none,shuffled_labels",
    )  # fmt: skip
    quick = partial(python, painted=False, fitted=False)
    first = command(tmp_path, *study, "seed=1", start=quick)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "multirun" / "controls"
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert len(kept) == 2
    assert all(
        "control=shuffled_labels" in str(path) or "control=none" in str(path) for path in kept
    )
    second = command(tmp_path, *study, "seed=1,2", start=quick)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("finished before, skipped") == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(folder.glob("*/result.json"))) == 4
    result = json.loads(next(folder.glob("*control=none*seed=2*/result.json")).read_text())
    assert result["choices"]["control"] == "none"
    assert result["choices"]["init"] == "kaiming_normal"
    assert "hydra" not in str(list(result["choices"]))


def test_multirun_runs_every_job_in_a_folder_of_its_own(tmp_path: Path) -> None:
    done = command(
        tmp_path, "-m", "seed=1,2", "model.net.width=32", "trainer=cpu", "trainer.max_epochs=1",
        "logger=csv", "test=false",
        "+callbacks.equilibrium_monitor.sinks=[{_target_:jaynes_callbacks.sinks.dataset.DatasetSink}]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun" / "train").iterdir()
    gaps = [pd.read_parquet(sweep / job / "jaynes")["gap"] for job in ("0", "1")]
    assert not gaps[0].equals(gaps[1])
    assert done.stdout.count("Verdict on 5 streams") == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["launcher=joblib", "hydra/launcher=submitit_local"])
def test_runs_side_by_side_give_what_one_after_the_other_gives(
    tmp_path: Path, launcher: str
) -> None:
    study = (
        "experiment=controls", "data=digits", "~data.limit", "model.net.width=16",
        "trainer.max_epochs=1", "control=none,frozen_lognormal", "seed=1,2",
    )  # fmt: skip
    for folder, how in (("alone", ()), ("together", (launcher,))):
        done = command(tmp_path, *study, *how, f"hydra.sweep.dir={folder}")
        assert done.returncode == 0, done.stderr
    results = sorted((tmp_path / "alone").glob("*/result.json"))
    assert len(results) == 4
    for file in results:
        other = tmp_path / "together" / file.parent.name / "result.json"
        one, same = (json.loads(path.read_text()) for path in (file, other))
        assert one["metrics"] == same["metrics"]
        assert one["choices"] == same["choices"]
        frames = [pd.read_parquet(path.parent / "jaynes")["gap"] for path in (file, other)]
        assert frames[0].equals(frames[1])


@pytest.mark.slow
def test_a_search_returns_the_metric_to_the_sweeper(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    done = command(
        tmp_path, "-m", "sweeper=optuna", "hydra.sweeper.n_trials=2", "model.net.width=16",
        "trainer=cpu", "trainer.max_epochs=1", "logger=none", "callbacks=dataset_only",
        "optimizer.lr=tag(log, interval(1e-4, 1e-1))", "hydra.sweep.dir=search",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in (tmp_path / "search").glob("*/result.json")]
    best = min(one["metrics"]["equilibrium/weight/gap_median"] for one in found)
    assert f"Best value: {best}" in done.stdout + done.stderr
