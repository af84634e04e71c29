"""The figures of experiments/RESULTS.md are those of the tables beside it."""

import re
from pathlib import Path

import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TEXT = (EXPERIMENTS / "RESULTS.md").read_text()
#: Those that ask for the verdict; the study of instruments has other tables.
STUDIES = sorted(path.parent.name for path in EXPERIMENTS.glob("results/*/conditions.csv"))

STARTS = {
    "uniform (PyTorch's)": "default",
    "Gaussian": "kaiming_normal",
    "Laplace": "laplace",
    "Student t": "student_t",
    "lognormal": "lognormal",
    "the paper's universal lognormal": "paper",
}
OPTIMIZERS = ("sgd", "adamw", "muon", "exponentiated_gradient", "madam")
CONTROLS = {
    "Gaussian start, learning rate zero": "frozen_gaussian",
    "lognormal start, learning rate zero": "frozen_lognormal",
    "weights multiplied by chance (Gibrat)": "gibrat",
    "multiplicative updates that learn, without a bound": "multiplicative",
    "lognormal start, trained": "lognormal_start",
    "labels shuffled": "shuffled_labels",
    "Gaussian start, trained": "none",
}


def weights(study: str) -> pd.DataFrame:
    table = pd.read_csv(EXPERIMENTS / "results" / study / "conditions.csv")
    return table[table["kind"] == "weight"].set_index("condition")


def cells(first: str, heading: str) -> list[str]:
    """The row that begins with a text, of the section of a heading."""
    section = TEXT.split(f"## {heading}")[1].split("\n## ")[0]
    (line,) = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", section, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("start", STARTS)
def test_emergence(start: str) -> None:
    table = weights("emergence")
    for optimizer, cell in zip(OPTIMIZERS, cells(start, "Emergence"), strict=True):
        row = table.loc[f"{optimizer}, {STARTS[start]}"]
        assert cell == f"{row['gap_start']:.3f} → {row['gap_end']:.3f}"


@pytest.mark.parametrize("control", CONTROLS)
def test_controls(control: str) -> None:
    row = weights("controls").loc[CONTROLS[control]]
    gaps, shares, families, _ = cells(control, "Controls")
    assert gaps == f"{row['gap_start']:.3f} → {row['gap_end']:.3f} ± {row['gap_end_sd']:.3f}"
    verdicts = ("emerged", "present from the start", "approaching", "not emerging")
    assert shares == "/".join(f"{100 * row[verdict]:.0f}" for verdict in verdicts)
    assert families == row["families"]


@pytest.mark.parametrize(
    ("study", "shown"),
    [
        ("width", "0.164, 0.163, 0.163, 0.163, 0.161 nats at 64, 256, 1024,\n2048 and 4096"),
        ("batch_size", "0.150, 0.158, 0.164, 0.163 at 16, 64, 256 and 1024"),
        ("depth", "0.169, 0.163, 0.161, 0.163 at 1, 2, 4 and 8"),
    ],
)
def test_lists(study: str, shown: str) -> None:
    assert shown in TEXT
    found = [float(number) for number in re.findall(r"0\.\d{3}", shown)]
    assert found == weights(study)["gap_end"].round(3).tolist()


ARCHITECTURES = {
    "MLP": "mlp",
    "CNN": "cnn",
    "ResNet": "resnet",
    "transformer encoder on patches": "transformer",
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name: str) -> None:
    table = pd.read_csv(EXPERIMENTS / "results" / "architectures" / "conditions.csv")
    of_weights, of_neurons = (
        table[table["kind"] == kind].set_index("condition").loc[ARCHITECTURES[name]]
        for kind in ("weight", "iota")
    )
    weight, families, iota, accuracy = cells(name, "Does it matter what")
    for cell, row in ((weight, of_weights), (iota, of_neurons)):
        assert cell == f"{row['gap_start']:.3f} → {row['gap_end']:.3f} ± {row['gap_end_sd']:.3f}"
    assert families == of_weights["families"]
    spread = f"{100 * of_weights['accuracy_sd']:.1f}"
    assert accuracy == f"{100 * of_weights['accuracy']:.1f} ± {spread} %"


@pytest.mark.parametrize("study", STUDIES)
def test_runs_and_minutes_are_those_of_the_summary(study: str) -> None:
    summary = (EXPERIMENTS / "results" / study / "summary.md").read_text()
    found = re.search(r"(\d+) runs of .*; (\d+) minutes of training", summary)
    assert found is not None
    assert f"| `{study}` | {found[1]} | {found[2]} min |" in TEXT


def test_none_of_the_studies_but_the_controls_has_a_stream_that_emerged() -> None:
    tables = {
        study: pd.read_csv(EXPERIMENTS / "results" / study / "conditions.csv")
        for study in STUDIES
        if study != "controls"
    }
    assert not any((table["emerged"] > 0).any() for table in tables.values())
    runs = sum(int(table.loc[table["kind"] == "weight", "runs"].sum()) for table in tables.values())
    assert f"In {runs} training runs" in TEXT


def _short(rho: float) -> str:
    return f"{rho:+.2f}".replace("0.", ".")


def test_the_instruments_correlations_are_those_of_the_tables() -> None:
    section = TEXT.split("## Does any instrument tell")[1].split("\n## ")[0]
    folder = EXPERIMENTS / "results" / "instruments"
    course = pd.read_csv(folder / "course.csv").set_index("curve")
    pairs = re.findall(r"^\| `(.*)`, `(.*)` \| (\S+) \| (\S+) \|$", section, re.MULTILINE)
    assert len(pairs) == 4
    for curve, other, rho, chance in pairs:
        row = course.loc[curve]
        assert (row["nearest"], _short(row["rho"])) == (other, rho)
        assert f"+{chance}" == _short(row["chance"])
    told = course[["gap, changes", "gap, changes ±"]].dropna()
    beyond = told["gap, changes"].abs() > told["gap, changes ±"]
    assert f"Of {len(told)} curves three" in " ".join(section.split())
    assert beyond.sum() == 3
    ends = pd.read_csv(folder / "ends_within_condition.csv")
    known = ends[ends["low"].notna()]
    outside = (known["low"] > 0) | (known["high"] < 0)
    assert f"{outside.sum()} of {len(known)} correlations" in section
    row = known[(known["curve"] == "magnitudes/weight/gap") & (known["outcome"] == "pruned")]
    assert _short(row["rho"].item()) == "+.75"
