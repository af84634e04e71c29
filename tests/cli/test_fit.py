"""`jaynes fit`: tables, rows, statuses, and what it says when it cannot."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from jaynes_callbacks import Records, analyse
from jaynes_callbacks.cli.tables import Layout, weight_table
from jaynes_callbacks.files.survey import Survey
from jaynes_callbacks.instruments.distribution import recompute
from jaynes_callbacks.probes.selection import MIN_SIZE
from jaynes_callbacks.records.exports import FORMATS
from jaynes_callbacks.records.parquet import write_frame
from jaynes_callbacks.sinks.dataset import read_records
from tests.missing import jaynes_without

pytestmark = pytest.mark.usefixtures("unfitted")

Run = Callable[..., tuple[int, str, str]]


def test_tables(jaynes: Run, model: Path) -> None:
    status, out, err = jaynes("fit", model)
    assert (status, err) == (0, "")
    table = weight_table(analyse(model), Layout(100)).splitlines()
    assert max(map(len, table)) <= 100
    figures = r"{}±\.00\d +{} \(0\.1\d\d\) +0 % +{}"
    mlp, attention = (
        figures.format(r"0\.00\d", r"-?0\.00\d", "lognormal"),
        figures.format(r"0\.1\d\d", r"0\.1\d\d", "half-normal"),
    )
    assert re.search(rf"net.mlp.up_proj.weight +mlp +50k +{mlp}", out)
    assert re.search(rf"net.attn.q_proj.weight +attention +40k +{attention}", out)
    assert re.search(r"net.conv.weight +convolution +4.61k .*\*", out)
    assert re.search(r"^convolution +0/1 +–", out, re.MULTILINE)
    assert re.search(r"^total +2/3 +\.9\d±\.\d\d .*, ", out, re.MULTILINE)
    assert "R²: of 100 equal bins (weight) on [0, max]." in out
    assert "not 1: fewer than 2 dimensions (net.conv.bias)" in out


def test_the_paper_s_number_of_bins(jaynes: Run, model: Path, tmp_path: Path) -> None:
    status, out, _ = jaynes("fit", model, "--bins", 50, "--output", tmp_path / "rows.parquet")
    assert status == 0
    assert "R²: of 50 equal bins (weight) on [0, max]." in out
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert rows.paper_bins.tolist() == [len(each) for each in rows.paper_counts] == [50, 50, 50]
    status, _, err = jaynes("fit", model, "--bins", 3)
    assert (status, err) == (2, "jaynes: --bins must be an integer from 4 to 10,000, got 3\n")


def test_cores_can_be_left_out(jaynes: Run, model: Path, tmp_path: Path) -> None:
    _, whole, _ = jaynes("fit", model)
    status, out, _ = jaynes("fit", model, "--no-scales", "--output", tmp_path / "rows.parquet")
    assert status == 0
    assert "core (Gauss)" in whole
    assert "core (Gauss)" not in out
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert rows.gap.notna().all()
    assert rows.core_gap.isna().all()


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
@pytest.mark.fitted
def test_rows_have_the_columns_of_a_training_run(
    form: str, jaynes: Run, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / f"rows.{form}"
    status, out, _ = jaynes("fit", model, "--output", output)
    assert status == 0
    assert "total" in out
    write_frame(analyse(model), tmp_path / "run.parquet", "")
    expected = pd.read_parquet(tmp_path / "run.parquet")
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[form]
    found = read(output)
    arrays = ["codes", "counts", "paper_counts"] if form == "csv" else []
    assert list(found.columns) == [name for name in expected.columns if name not in arrays]
    assert found.name.tolist() == expected.name.tolist()
    assert found.gap.tolist() == pytest.approx(expected.gap.tolist(), rel=1e-9)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.fitted
def test_parquet_can_be_computed_again(jaynes: Run, model: Path, tmp_path: Path) -> None:
    jaynes("fit", model, "--output", tmp_path / "rows.parquet")
    rows = read_records(tmp_path / "rows.parquet")
    assert [row.gap for row in recompute(rows)] == pytest.approx([row.gap for row in rows])


def test_rows_on_standard_output(jaynes: Run, model: Path) -> None:
    status, out, _ = jaynes("fit", model, "--format", "json", "--include", "*conv*")
    assert status == 0
    (row,) = json.loads(out)
    assert row["name"] == "net.conv.weight"
    assert row["moved"] is None
    status, out, _ = jaynes("fit", model, "--format", "csv")
    assert len(out.splitlines()) == 4


def test_selection(jaynes: Run, model: Path) -> None:
    _, out, _ = jaynes("fit", model, "--exclude", "*attn*", "--min-size", 10_000, "--format", "csv")
    assert [line.split(",")[4] for line in out.splitlines()[1:]] == ["net.mlp.up_proj.weight"]


def test_several_paths_and_directories(jaynes: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.pt", "b.pt"):
        torch.save({"w": torch.randn(30, 30)}, tmp_path / "more" / name)
    status, out, _ = jaynes("fit", model, tmp_path / "more", model, "--format", "csv")
    assert status == 0
    assert len(out.splitlines()) == 1 + 3 + 2


def test_a_broken_file_leaves_the_others(jaynes: Run, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(model.read_bytes()[:-1000])
    status, out, err = jaynes("fit", broken, model, "--output", tmp_path / "rows.csv")
    assert status == 1
    assert err.startswith(f"jaynes: {broken} is no whole safetensors file")
    assert err.count("\n") == 1
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 3
    assert "net.conv.weight" in out


def test_a_directory_with_one_broken_shard(jaynes: Run, model: Path, tmp_path: Path) -> None:
    place = {"net.conv.weight": "model.safetensors", "lost": "lost.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    status, out, err = jaynes("fit", tmp_path)
    assert status == 1
    assert "net.conv.weight" in out
    assert err == f"jaynes: {tmp_path / 'lost.safetensors'} is missing; download it again\n"


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["-"], 2, "'-' is not supported"),
        (["nothing.pt"], 2, "there is no nothing.pt"),
        (["MODEL", "--include", "nit*"], 2, r"include pattern 'nit\*' matches no tensor"),
        (["MODEL", "--min-size", "-3"], 2, "--min-size must be a number of elements >= 0, got -3"),
        (["MODEL", "--min-size", "1e9"], 2, "invalid int value"),
        (["MODEL", "--min-size", "1000000"], 1, "holds no weight to measure: all 4 tensors"),
        (["MODEL", "--device", "quantum"], 2, "--device quantum cannot be used here"),
        (["MODEL", "--format", "parquet"], 2, "--format parquet needs a file"),
        (["MODEL", "--format", "xml"], 2, "--format must be one of csv, json, parquet, got xml"),
        (["MODEL", "--output", "rows.xlsx"], 2, "--output rows.xlsx ends in none of .csv"),
        (["MODEL", "--output", "no/such/rows.csv"], 2, "lies in no directory that exists"),
        (["/"], 1, "holds no checkpoint"),
        ([], 2, "the following arguments are required: CHECKPOINT"),
    ],
)
def test_refusals(
    arguments: list[str], status: int, sentence: str, jaynes: Run, model: Path
) -> None:
    found, out, err = jaynes("fit", *[str(model) if a == "MODEL" else a for a in arguments])
    assert found == status
    assert re.search(sentence, err)
    assert "Traceback" not in err
    assert not out


def test_the_help_states_the_defaults(jaynes: Run) -> None:
    """Its text is no place for a value: these live in modules that would load torch and pandas."""
    _, out, _ = jaynes("fit", "--help")
    help_text = " ".join(out.split())
    assert f"(default {MIN_SIZE})" in help_text
    *others, last = FORMATS
    assert f"{', '.join(others)} or {last}" in help_text


def test_an_interrupt_leaves_what_was_measured(
    jaynes: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Survey.records

    def interrupted(self: Survey, **options: object) -> Iterator[Records]:
        groups = list(whole(self, **options))  # type: ignore[arg-type]
        yield Records([groups[0][0]])
        raise KeyboardInterrupt

    monkeypatch.setattr(Survey, "records", interrupted)
    for form, read in (("csv", pd.read_csv), ("json", pd.read_json), ("parquet", pd.read_parquet)):
        output = tmp_path / f"rows.{form}"
        status, _, err = jaynes("fit", model, "--output", output)
        assert status == 130
        assert err == "jaynes: interrupted; what was measured before is kept\n"
        assert len(read(output)) == 1


def test_it_runs_as_a_module_without_a_terminal(model: Path) -> None:
    """No bar, no colour, nothing from the progress on a pipe; help without loading torch."""
    command = [sys.executable, "-m", "jaynes_callbacks"]
    done = subprocess.run([*command, "fit", model], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    light = "import sys, jaynes_callbacks.cli\nassert not {'torch', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", light]).returncode == 0
    assert subprocess.run(command, capture_output=True).returncode == 2


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Seventy weights of long names."""
    name = "a_very_long_prefix_of_a_name." * 4
    state = {f"{name}{number}.weight": torch.randn(10, 10 + number) for number in range(70)}
    save_file(state, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Take standard output for a terminal of some width."""

    def set_width(width: int) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)

    return set_width


@pytest.mark.parametrize("width", [100, 140])
@pytest.mark.sampled(2)
def test_many_weights_are_shortened_on_a_terminal(
    width: int, jaynes: Run, many: Path, terminal: Callable[[int], None]
) -> None:
    terminal(width)
    status, out, _ = jaynes("fit", many)
    assert status == 0
    assert "… 10 more: --all shows them …" in out
    longest = max(len(line) for line in out.splitlines() if str(many) not in line)
    # That of the heading, which is cut where it has to be.
    assert longest == min(width, len("a_very_long_prefix_of_a_name." * 4) - 1)
    _, out, _ = jaynes("fit", many, "--all")
    assert "more" not in out
    assert len(re.findall(r"0\.\d{3}±", out)) == 70


def test_what_is_piped_is_whole(jaynes: Run, many: Path) -> None:
    _, out, _ = jaynes("fit", many)
    prefix = "a_very_long_prefix_of_a_name." * 4
    assert all(f"{prefix}{number}.weight" in out for number in range(70))


def test_rows_are_sorted_by_a_column(jaynes: Run, model: Path) -> None:
    def order(*options: str) -> list[str]:
        _, out, _ = jaynes("fit", model, *options)
        return re.findall(r"^net\.(\w+)", out, re.MULTILINE)

    assert order() == ["attn", "conv", "mlp"]
    assert order("--sort", "n") == ["mlp", "attn", "conv"]
    assert order("--sort", "gap")[-1] == "mlp"
    status, _, complaint = jaynes("fit", model, "--sort", "gab")
    assert status == 2
    assert "--sort must be a column, got gab; there are gap" in complaint


def test_a_transformer_fits_a_terminal_with_no_two_rows_alike(
    jaynes: Run, tmp_path: Path, terminal: Callable[[int], None]
) -> None:
    parts = ("attention.self.query", "attention.self.key", "attention.output.dense", "output.dense")
    names = [f"bert.encoder.layer.{n}.{part}.weight" for n in range(12) for part in parts]
    save_file({name: torch.randn(16, 16) for name in names}, tmp_path / "bert.safetensors")
    terminal(100)
    _, out, _ = jaynes("fit", tmp_path / "bert.safetensors", "--all")
    lines = out.splitlines()
    for layer in range(12):
        place = lines.index(f"bert.encoder.layer.{layer}")
        rows = [line.split()[0] for line in lines[place + 1 : place + 5]]
        assert rows == sorted(parts)
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 100


def test_a_report_shows_all_checkpoints(jaynes: Run, model: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.html"
    status, out, err = jaynes("fit", model, "--report", report)
    assert (status, err) == (0, "")
    assert out.endswith(f"{report}: 1 checkpoint\n")
    text = report.read_text()
    assert "1 of 3 streams are within 0.02 nats of a lognormal" in text
    assert "fewer than 2 dimensions: net.conv.bias" in text
    # Of one moment there is neither a start nor a verdict, and the densities are there.
    assert "over training" not in text
    assert "→" not in text.split("<script")[0]
    assert text.count('"edges":') == 3
    again = shutil.copy(model, tmp_path / "again.safetensors")
    _, out, err = jaynes("fit", model, again, "--report", report, "--format", "csv")
    assert err == f"{report}: 2 checkpoints\n"
    assert "checkpoints" not in out
    assert "<h1>2 runs</h1>" in report.read_text()


def test_a_report_that_cannot_be_written_is_wrong_usage(
    jaynes: Run, model: Path, tmp_path: Path
) -> None:
    status, out, err = jaynes("fit", model, "--report", tmp_path / "no" / "out.html")
    assert (status, out) == (2, "")
    assert "--report must be a file in a folder that exists" in err


def test_nothing_measured_makes_no_report(jaynes: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    status, _, _ = jaynes("fit", tmp_path / "broken.safetensors", "--report", tmp_path / "a.html")
    assert status == 1
    assert not (tmp_path / "a.html").exists()


def test_only_a_report_needs_the_extra_report(tmp_path: Path) -> None:
    """It is missed before anything is measured."""
    torch.save({"fc.weight": torch.randn(40, 50)}, tmp_path / "a.pt")
    hidden = ["jinja2", "jaynes_callbacks.report.page"]
    done = jaynes_without(hidden[:1], "fit", tmp_path / "a.pt", "--report", tmp_path / "a.html")
    assert done.stderr == (
        "jaynes: the report needs jinja2, which is not installed; "
        "pip install 'jaynes-callbacks[report]'\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
    done = jaynes_without(hidden, "fit", tmp_path / "a.pt")
    assert (done.returncode, done.stderr) == (0, "")
    assert "fc.weight" in done.stdout
