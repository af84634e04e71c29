"""The command over folders of finished runs."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments.summarise import main
from tests.processes import python

MakeRun = Callable[..., Path]

SERIES = ("laplace", "a_rather_long_name_of_a_start", "default")


@pytest.fixture
def sweep(make_run: MakeRun, tmp_path: Path) -> Path:
    for init in SERIES:
        for seed in (1, 2, 3):
            gaps = {"net.hidden.weight": (0.4, 0.1 * seed), "net.relu": (0.2, 0.15)}
            choices = {"init": init, "optimizer": f"of_{init}"}
            make_run(f"{init},{seed}", gaps, seed=seed, accuracy=0.9 + seed / 100, choices=choices)
    return tmp_path / "runs"


def test_the_table_fits_a_hundred_columns(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "0.400 → 0.200±0.100" in printed
    assert "92.0±1.0" in printed
    assert "0/0/100/0" in printed
    assert "Spearman's ρ of accuracy and gap, weight: 1.00 (9 runs)" in printed
    assert not list(sweep.glob("*.md"))


def test_tables_and_figures_are_written(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "laplace,1" / "result.json").unlink()
    output = tmp_path / "deep" / "output"
    assert main([str(sweep), "--output", str(output)]) == 0
    assert f"1 runs are not finished, the first: {sweep}/laplace,1\n" in capsys.readouterr().out
    page = (output / "summary.md").read_text()
    assert f"`python -m experiments.summarise {sweep}`: 8 runs of 3 conditions" in page
    assert "| of_default | 3 | 3 | 0.400 ± 0.000 | 0.200 ± 0.100 | 0/0/100/0 | Weibull 3 |" in page
    for figure in ("gaps.png", "accuracy_and_gap.png"):
        assert f"]({figure})" in page
        assert (output / figure).stat().st_size > 5000
    layers = (output / "layers.md").read_text()
    assert "| of_default | net.hidden.weight | 2000 | 0.400 | 0.200 ± 0.100 |" in layers
    assert len(pd.read_csv(output / "conditions.csv")) == 6
    assert len(pd.read_csv(output / "streams.csv")) == 16


def test_a_number_that_was_varied_gets_a_figure_of_its_own(
    make_run: MakeRun,
    tmp_path: Path,
) -> None:
    for width in (64, 256):
        config = {"model": {"net": {"width": width}}}
        make_run(f"w{width}", {"net.hidden.weight": (0.4, 0.3)}, config=config, accuracy=None)
    assert main([str(tmp_path / "runs"), "--output", str(tmp_path / "output")]) == 0
    assert {path.name for path in (tmp_path / "output").glob("*.png")} == {
        "gaps.png",
        "gap_along_width.png",
    }


def test_nothing_to_summarise_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("experiments.summarise: no finished run")


def test_the_module_is_a_command(sweep: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = python("-m", "experiments.summarise", sweep, cwd=sweep, env=environment)
    assert done.returncode == 0, done.stderr
    assert "activations" in done.stdout
