"""A survey of finished networks: measured side by side, skipped, named, and shown in one table."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from experiments import survey_table
from experiments.survey import folder_name
from jaynes_callbacks import measure_checkpoint
from tests.processes import python

ROOT = Path(__file__).parents[2]
Survey = Callable[..., Mapping[str, str]]


def networks(folder: Path) -> None:
    source = np.random.default_rng(5)
    np.savez(folder / "a.npz", fc=source.normal(size=(60, 40)), out=source.normal(size=(40, 40)))
    np.savez(folder / "b.npz", fc=np.exp(source.normal(size=(60, 40))))
    (folder / "broken.npz").write_bytes(b"no archive")


def command(folder: Path, *overrides: str, anew: bool = False) -> "tuple[int, str, str]":
    """Run the sweep; anew, for workers of its own, in a process of which nothing is imported."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    words = ["-m", "experiments.survey", "-m", *overrides]
    if not anew:
        done = python(*words, cwd=folder, env=environment)
    else:
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True,
            check=False, timeout=200,
        )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def jobs(folder: Path) -> dict[str, Path]:
    """The folder of each job by the name of its model."""
    found = (folder / "multirun" / "survey").glob("checkpoint=*/")
    return {job.name.removeprefix("checkpoint=").split(".")[0]: job for job in found}


def check_survey(tmp_path: Path, capsys: pytest.CaptureFixture[str], *launcher: str) -> None:
    networks(tmp_path)
    status, _, complained = command(
        tmp_path, "checkpoint=a.npz,broken.npz,b.npz", *launcher, anew=bool(launcher)
    )
    assert status == 1
    assert "checkpoint: broken.npz is no whole archive" in complained
    assert "Traceback" not in complained
    found = jobs(tmp_path)
    assert (found["broken"] / "failed.txt").read_text() in complained
    for name in ("a", "b"):
        rows = pd.read_parquet(found[name] / "rows.parquet")
        alone = measure_checkpoint(tmp_path / f"{name}.npz")
        assert rows.gap.tolist() == [record.gap for record in alone]
        assert pd.read_csv(found[name] / "rows.csv").name.tolist() == rows.name.tolist()
    # By the same rule as runs: what is finished is skipped, what failed is tried again.
    kept = {name: (found[name] / "result.json").stat().st_mtime_ns for name in ("a", "b")}
    np.savez(tmp_path / "broken.npz", fc=np.random.default_rng(1).normal(size=(60, 40)))
    output = tmp_path / "output"
    arguments = [str(tmp_path / "multirun" / "survey"), "--output", str(output)]
    assert survey_table.main(arguments) == 1
    shown = capsys.readouterr()
    assert "a.npz" in shown.out
    assert "survey_table: checkpoint: broken.npz is no whole archive" in shown.err
    status, *_ = command(tmp_path, "checkpoint=a.npz,broken.npz,b.npz")
    assert status == 0
    assert {name: (found[name] / "result.json").stat().st_mtime_ns for name in kept} == kept
    assert survey_table.main(arguments) == 0
    models = pd.read_csv(output / "models.csv").set_index("model")
    assert models.weights.to_dict() == {"a.npz": 2, "b.npz": 1, "broken.npz": 1}
    assert models.gap_median["b.npz"] == alone[0].gap
    assert len(pd.read_parquet(output / "rows.parquet")) == 4


def test_models_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_survey(tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "ray"])
def test_models_are_measured_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], launcher: str
) -> None:
    if launcher == "ray":
        pytest.importorskip("ray")
    check_survey(tmp_path, capsys, f"launcher={launcher}")


@pytest.mark.parametrize("launcher", ["joblib", "submitit", "ray"])
def test_every_launcher_can_be_chosen(launcher: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose(
            "survey",
            [
                f"launcher={launcher.replace('submitit', 'slurm')}",
                "checkpoint=hf://org/name@step1000",
            ],
            return_hydra_config=True,
        )
    assert cfg.checkpoint == "hf://org/name@step1000"
    assert launcher in OmegaConf.to_container(cfg.hydra.launcher)["_target_"]  # type: ignore[index]
    assert cfg.hydra.sweep.dir == "multirun/survey"


def test_folders_are_safe_and_tell_models_apart() -> None:
    names = [f"checkpoint={text}" for text in ("a/b", "a_b", "../../x", "hf://a/b@1", "a" * 400)]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(folders)
    assert all("/" not in folder and len(folder) < 100 for folder in folders)


def test_a_folder_without_jobs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert survey_table.main([str(tmp_path)]) == 1
    assert "there is no job of a survey" in capsys.readouterr().err
