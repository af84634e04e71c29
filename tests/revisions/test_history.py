"""A history becomes a run's dataset, whole parts only, and goes on where it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jaynes_callbacks.cli import main
from jaynes_callbacks.records.parts import parts
from jaynes_callbacks.sinks.dataset import read_description, read_records
from tests.hub import Repository, StandIn
from tests.revisions.conftest import STEPS, add_step, network_at

pytestmark = pytest.mark.usefixtures("unfitted")


def fit(*arguments: object) -> int:
    return main(["fit", *map(str, arguments), "--no-scales"])


def test_twenty_revisions_become_a_report_with_curves_in_one_command(
    history: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    report, curves = tmp_path / "report.html", tmp_path / "curves"
    status = fit(
        "hf://org/net", "--revisions", "step*", "--exclude", "*embed*", "--into", tmp_path,
        "--report", report, "--tensorboard", curves,
    )  # fmt: skip
    out = capsys.readouterr()
    assert status == 0, out.err
    rows = read_records(tmp_path / "jaynes")
    assert sorted(set(rows["step"].tolist())) == sorted(STEPS)
    assert set(rows["start_step"].tolist()) == {0}
    assert set(rows["run"].tolist()) == {"hf://org/net"}
    last = rows.by_stream()["weight", "layers.1.weight"]
    assert last.moved > 0.5
    assert last.verdict in ("emerged", "approaching")
    assert rows["verdict"][0] == ""
    assert len(parts(tmp_path / "jaynes")) == len(STEPS)
    chosen = sum(network_at(0)[f"layers.{layer}.weight"].nbytes for layer in range(2))
    headers = 20 * 400
    assert abs(history.moved - headers - 20 * chosen) < 0.05 * 20 * chosen
    text = report.read_text()
    assert "layers.1.weight" in text
    assert "<h1>hf://org/net" in text
    assert "data:image" in text or "<svg" in text
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(curves)).Reload()
    points = events.Scalars("gap_weight/layers.1.weight")
    assert [point.step for point in points] == sorted(STEPS)
    commits = read_description(tmp_path / "jaynes")["measured"]
    assert commits["0"] == history.repositories["org/net"].branches["step0"]


def test_bytes_are_those_of_the_chosen_tensors(history: StandIn, tmp_path: Path) -> None:
    """Of tensors whose size is not small beside a header: within one percent."""
    repository = history.repositories["org/large"] = Repository()
    for step in (0, 10):
        state = {f"{name}.weight": torch.randn(300, 400) for name in "ab"}
        add_step(repository, f"step{step}", state)
    assert fit("hf://org/large", "--revisions", "*", "--include", "a.*", "--into", tmp_path) == 0
    chosen = 2 * 300 * 400 * 4
    assert abs(history.moved / chosen - 1) < 0.01


def test_a_killed_job_goes_on(history: StandIn, tmp_path: Path) -> None:
    arguments = ("hf://org/net", "--revisions", "step*", "--include", "layers.*")
    assert fit(*arguments, "--into", tmp_path / "whole") == 0
    assert fit(*arguments, "--into", tmp_path / "parts", "--to", 100) == 0
    # As after a kill between a part and its entry.
    description = tmp_path / "parts" / "jaynes" / "_run.json"
    told = json.loads(description.read_text())
    del told["measured"]["64"]
    description.write_text(json.dumps(told))
    moved = history.moved
    assert fit(*arguments, "--into", tmp_path / "parts") == 0
    assert history.moved - moved < moved
    whole, again = (read_records(tmp_path / name / "jaynes") for name in ("whole", "parts"))
    for name in ("step", "name", "gap", "moved", "gap_change_se", "verdict", "verdict_2"):
        np.testing.assert_array_equal(again[name], whole[name])


def test_a_revision_that_fails_costs_no_other_and_is_tried_again(
    history: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = history.repositories["org/net"]
    good = repository.commits[repository.branches["step16"]]["model.safetensors"]
    repository.commits[repository.branches["step16"]]["model.safetensors"] = good[:-1]
    arguments = ("hf://org/net", "--revisions", "step*", "--include", "layers.*")
    assert fit(*arguments, "--into", tmp_path, "--to", 100) == 1
    assert "step 16: " in capsys.readouterr().err
    held = set(read_records(tmp_path / "jaynes")["step"].tolist())
    assert held == {step for step in STEPS if step <= 100 and step != 16}
    repository.commits[repository.branches["step16"]]["model.safetensors"] = good
    assert fit(*arguments, "--into", tmp_path, "--to", 100) == 0
    assert fit(*arguments, "--into", tmp_path / "at once", "--to", 100) == 0
    found, expected = (
        read_records(folder / "jaynes") for folder in (tmp_path, tmp_path / "at once")
    )
    for name in ("step", "gap", "moved", "verdict", "verdict_2"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_repository_for_each_step(history: StandIn, tmp_path: Path) -> None:
    for name, step in (("0k", 0), ("20k", 20000)):
        repository = history.repositories[f"org/net-step_{name}"] = Repository()
        add_step(repository, "main", network_at(step))
    assert fit("hf://org/net-step_{}", "--revisions", "0k,20k", "--into", tmp_path) == 0
    assert set(read_records(tmp_path / "jaynes")["step"].tolist()) == {0, 20000}


def test_a_local_folder_as_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (0, 10, 20):
        state = {"state_dict": network_at(step * 1000), "global_step": step}
        torch.save(state, folder / f"epoch=0-step={step}.ckpt")
    torch.save(state, folder / "last.ckpt")
    (folder / "checkpoint-30").mkdir()
    save_file(network_at(50000), folder / "checkpoint-30" / "model.safetensors")
    (folder / "notes.txt").write_text("no checkpoint")
    assert fit(folder, "--as-run", "--into", tmp_path) == 0
    rows = read_records(tmp_path / "jaynes")
    assert sorted(set(rows["step"].tolist())) == [0, 10, 20, 30]
    assert read_description(tmp_path / "jaynes")["measured"]["30"] == "checkpoint-30"


def test_a_dry_run_moves_nothing_and_counts_bytes(
    history: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("hf://org/net", "--revisions", "step*", "--log-spaced", 5, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "5 checkpoints" in out
    assert "3 weights, 72.0 kB to read" in out
    assert history.moved < 1000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("hf://org/net", "--revisions", "nothing*"), 1, "no revision of hf://org/net matches"),
        (("hf://org/net", "--revisions", "main"), 1, "no step in the name (main)"),
        (("hf://org/net@step1", "--revisions", "*"), 2, "names a revision"),
        (("hf://org/net", "--every", "2"), 2, "--every needs --revisions GLOB or --as-run"),
        (("hf://org/net", "--from", "2"), 2, "--from needs --revisions"),
        (("hf://org/net", "--as-run"), 2, "--as-run is for a local folder"),
        (("somewhere", "--revisions", "*"), 2, "--revisions is for the hub"),
        (("somewhere", "--as-run"), 1, "there is no folder somewhere"),
        (("hf://org/net", "hf://org/other", "--revisions", "*"), 2, "one history at a time"),
        (("hf://org/net", "--revisions", "*", "--output", "a.csv"), 2, "--output is for single"),
        (("hf://org/net", "--revisions", "*", "--log-spaced", "1"), 2, "at least 2 revisions"),
        (("hf://org/net-{}", "--revisions", ""), 2, "name the steps"),
    ],
)
def test_what_cannot_be_followed_is_said(
    history: StandIn,
    arguments: tuple[str, ...],
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fit(*arguments) == status
    assert said in capsys.readouterr().err


def test_two_names_of_one_step_are_refused(
    history: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    add_step(history.repositories["org/net"], "stage2-step16", network_at(16))
    assert fit("hf://org/net", "--revisions", "*step*") == 1
    assert "are both of step 16; narrow the pattern" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--bins", "50"), "measured with other options"),
        (("--from", "0"), "begins at step 4"),
    ],
)
def test_another_history_in_the_same_folder_is_refused(
    history: StandIn,
    tmp_path: Path,
    more: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("hf://org/net", "--revisions", "step*", "--to", "8", "--into", tmp_path)
    assert fit(*arguments, "--from", "4") == 0
    assert fit(*arguments, *more) == 1
    assert said in capsys.readouterr().err
