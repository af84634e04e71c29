import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jaynes_callbacks import analyse
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink
from tests.missing import jaynes_without
from tests.processes import running

pytestmark = pytest.mark.usefixtures("unfitted")

Jaynes = Callable[..., tuple[int, str, str]]


@pytest.fixture
def records() -> Records:
    """Of one layer."""
    generator = torch.Generator().manual_seed(0)
    return analyse({"fc.weight": torch.randn(40, 50, generator=generator)})


def write(folder: Path, *snapshots: Records) -> Path:
    """A run's dataset, as if it was recorded at steps 0, 10, …"""
    sink = DatasetSink()
    sink.open(RunContext(directory=folder))
    for number, records in enumerate(snapshots):
        sink.write(Records(row.replace(step=10 * number) for row in records), Records())
    return folder / "jaynes"


def test_one_run(jaynes: Jaynes, records: Records, tmp_path: Path) -> None:
    write(tmp_path / "mine", records, records)
    output = tmp_path / "out.html"
    assert jaynes("report", tmp_path, "--output", output) == (0, f"{output}: 1 run\n", "")
    assert "<h1>mine</h1>" in output.read_text()


def test_several_runs(jaynes: Jaynes, records: Records, tmp_path: Path) -> None:
    runs = [write(tmp_path / name, records) for name in ("one", "two")]
    output = tmp_path / "out.html"
    assert jaynes("report", *runs, "--output", output) == (0, f"{output}: 2 runs\n", "")
    assert "<h1>2 runs</h1>" in output.read_text()


def test_a_broken_run_leaves_the_others(jaynes: Jaynes, records: Records, tmp_path: Path) -> None:
    write(tmp_path / "good", records)
    broken = write(tmp_path / "broken", records)
    next(broken.glob("part-*")).write_bytes(b"no")
    status, said, complaint = jaynes("report", tmp_path, "--output", tmp_path / "out.html")
    assert (status, said) == (1, f"{tmp_path / 'out.html'}: 1 run\n")
    assert str(broken) in complaint


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--output", "."], "--output must be a file"),
        (["--output", "no/such/folder/a.html"], "--output must be a file"),
        (["--watch", "0"], "--watch must be at least 1 second, got 0"),
        (["--watch", "often"], "invalid int value"),
    ],
)
def test_wrong_usage(arguments: list[str], sentence: str, jaynes: Jaynes, tmp_path: Path) -> None:
    status, _, complaint = jaynes("report", tmp_path, *arguments)
    assert status == 2
    assert sentence in complaint


def test_nothing_to_report(jaynes: Jaynes, tmp_path: Path) -> None:
    output = tmp_path / "out.html"
    status, _, complaint = jaynes("report", tmp_path, "--output", output)
    assert status == 1
    assert "it holds no dataset" in complaint
    assert not output.exists()


@pytest.mark.parametrize("command", [["report"], ["fit"], ["compare", "."]])
def test_a_path_that_is_not_there_is_wrong_usage_of_all_commands(
    command: list[str], jaynes: Jaynes, tmp_path: Path
) -> None:
    status, _, complaint = jaynes(*command, tmp_path / "nowhere")
    assert status == 2
    assert f"there is no {tmp_path / 'nowhere'}" in complaint


@pytest.mark.parametrize("hidden", ["jinja2", "yaml", "PIL.Image"])
def test_a_missing_extra_is_named(hidden: str, records: Records, tmp_path: Path) -> None:
    write(tmp_path / "mine", records)
    done = jaynes_without([hidden], "report", tmp_path, "--output", tmp_path / "out.html")
    assert done.stderr == (
        f"jaynes: the report needs {hidden}, which is not installed; "
        "pip install 'jaynes-callbacks[report]'\n"
    )
    assert (done.returncode, done.stdout) == (1, "")


def test_a_run_is_watched_while_it_goes_on(records: Records, tmp_path: Path) -> None:
    folder, output = tmp_path / "mine", tmp_path / "out.html"
    command = ("-m", "jaynes_callbacks", "report", folder, "--output", output, "--watch", 1)
    with running(*command) as report:
        report.wait_until(lambda: "for the first record" in report.complaints.read_text())
        write(folder, records)
        report.wait_until(output.exists)
        first = output.read_text()
        assert 'http-equiv="refresh" content="1"' in first
        write(tmp_path / "further", records, records)
        # As a monitor does: whole under its name at once.
        part = "part-000000000010.parquet"
        os.replace(tmp_path / "further" / "jaynes" / part, folder / "jaynes" / part)  # noqa: PTH105
        report.wait_until(lambda: output.read_text() != first)
        assert "<polyline" in output.read_text()
        assert report.process.pid is not None
        os.kill(report.process.pid, signal.SIGINT)
        assert report.wait(120).returncode == 130
