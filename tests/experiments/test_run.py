"""Whole runs on the digits: what is written, printed and returned."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hydra
import lightning as L
import pandas as pd
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig

from experiments.errors import ConfigError
from experiments.result import FILE, Result, versions
from experiments.run import run
from tests.blank import leave_figures_blank

CONF = Path(__file__).parents[2] / "conf"
SMALL = ["trainer=cpu", "model.net.width=32", "trainer.max_epochs=2", "name=small"]
STREAMS = {
    "net.hidden1.weight",
    "net.hidden2.weight",
    "net.logits.weight",
    "net.relu1",
    "net.relu2",
}

#: Records without figures, which take longer than the training itself.
DATASET_ONLY = (
    "+callbacks.equilibrium_monitor.sinks=[{_target_:jaynes_callbacks.sinks.dataset.DatasetSink}]"
)

Compose = Callable[..., DictConfig]


class Outcome(NamedTuple):
    directory: Path
    metric: float | None
    printed: str
    complained: str

    def dataset(self) -> pd.DataFrame:
        return pd.read_parquet(self.directory / "jaynes")


def small_run(directory: Path, *overrides: str) -> Outcome:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [*SMALL, f"paths.output_dir={directory}", *overrides])
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        metric = run(cfg)
    return Outcome(directory, metric, printed.getvalue(), complained.getvalue())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_blank(patch)
        return small_run(tmp_path_factory.mktemp("run"), "logger=many")


def test_the_dataset_holds_every_stream_at_every_epoch(outcome: Outcome) -> None:
    frame = outcome.dataset()
    assert sorted(frame["step"].unique()) == [0, 18, 36]
    assert all(set(rows["name"]) == STREAMS for _, rows in frame.groupby("step"))
    assert frame["gap"].notna().all()
    end = frame[frame["step"] == 36]
    fewest = frame[frame["step"] != 18].groupby(["kind", "name"])["n"].min()
    too_few = fewest.reindex(pd.MultiIndex.from_frame(end[["kind", "name"]])).to_numpy() < 1000
    assert ((end["verdict"] == "undetermined").to_numpy() == too_few).all()
    assert set(end["verdict"]) <= {
        "undetermined",
        "emerged",
        "present from the start",
        "approaching",
        "not emerging",
    }


def test_the_start_is_the_initialisation(outcome: Outcome) -> None:
    frame = outcome.dataset()
    start = frame[(frame["step"] == 0) & (frame["kind"] == "weight")]
    assert (start["best_family"] == "uniform").all()


def test_the_csv_holds_scores_and_aggregates(outcome: Outcome) -> None:
    csv = pd.read_csv(outcome.directory / "csv" / "metrics.csv")
    for column in ("train/loss", "val/accuracy", "test/accuracy"):
        assert csv[column].notna().any(), column
    gaps = csv["equilibrium/weight/gap_median"].dropna()
    frame = outcome.dataset().query("kind == 'weight'")
    assert gaps.iloc[-1] == pytest.approx(frame[frame["step"] == 36]["gap"].median(), rel=1e-4)


def test_every_output_is_in_the_runs_folder(outcome: Outcome) -> None:
    folder = outcome.directory
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "epoch_001.ckpt",
        "last.ckpt",
    }
    assert list(folder.glob("jaynes*/*.png")) or list(folder.glob("jaynes/figures/*.png"))


def test_the_table_shows_what_the_dataset_holds(outcome: Outcome) -> None:
    frame = outcome.dataset().set_index(["name", "step"])
    for name in STREAMS:
        start, end = frame.loc[(name, 0)], frame.loc[(name, 36)]
        line = next(one for one in outcome.printed.splitlines() if one.startswith(name))
        assert f"{start['gap']:.3f}→{end['gap']:.3f}" in line
        assert f"{end['paper_r2']:.2f} ({end['paper_r2_gaussian']:.2f})" in line


def test_the_last_lines_say_where_everything_is(outcome: Outcome) -> None:
    said = dict(line.split(maxsplit=1) for line in outcome.printed.splitlines()[-5:])
    assert list(said) == ["accuracy", "dataset", "figures", "report", "TensorBoard"]
    assert said["report"].endswith(f"jaynes report {said['dataset']}")
    assert Path(said["dataset"]) == outcome.directory / "jaynes"
    assert list(Path(said["figures"]).glob("*.png"))
    program, option, folder = said["TensorBoard"].split()
    assert (option, Path(folder)) == ("--logdir", outcome.directory / "tensorboard")
    assert Path(program).name == "tensorboard"


def test_the_printed_accuracies_are_the_logged_ones(outcome: Outcome) -> None:
    csv = pd.read_csv(outcome.directory / "csv" / "metrics.csv")
    scores = {key: csv[f"{key}/accuracy"].dropna().iloc[-1] for key in ("val", "test")}
    expected = f"validation {scores['val']:.1%}, test {scores['test']:.1%}"
    assert f"accuracy    {expected}" in outcome.printed
    assert outcome.metric == pytest.approx(scores["val"], rel=1e-6)


def test_only_the_bar_is_said_beside(outcome: Outcome) -> None:
    lines = outcome.complained.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("epoch 2/2")


def test_the_same_seed_ends_in_the_same_records(outcome: Outcome, tmp_path: Path) -> None:
    again = small_run(tmp_path, "logger=none", DATASET_ONLY)
    columns = [name for name in outcome.dataset() if name != "run"]
    pd.testing.assert_frame_equal(outcome.dataset()[columns], again.dataset()[columns])
    other = small_run(tmp_path / "other", "seed=2", DATASET_ONLY)
    assert not outcome.dataset()["gap"].equals(other.dataset()["gap"])


def test_the_result_is_kept_with_its_configuration(outcome: Outcome) -> None:
    result = Result.read(outcome.directory)
    assert result.metrics["val/accuracy"] == outcome.metric
    assert result.config["model"]["net"]["width"] == 32
    assert "paths" not in result.config
    assert result.dataset == "jaynes"
    assert result.seconds > 0
    assert result.versions == versions()


def test_a_finished_run_is_not_run_again(outcome: Outcome) -> None:
    before = {path: path.stat().st_mtime_ns for path in outcome.directory.rglob("*")}
    again = small_run(outcome.directory, "logger=many")
    assert again.metric == outcome.metric
    assert again.printed == f"finished before, skipped: {outcome.directory / FILE}\n"
    assert {path: path.stat().st_mtime_ns for path in outcome.directory.rglob("*")} == before
    other = small_run(outcome.directory, "logger=many", "optimized_metric=test/accuracy")
    assert other.metric == Result.read(outcome.directory).metrics["test/accuracy"]


def test_an_interrupted_run_leaves_no_result_and_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.classifier import Classifier

    def killed(self: Classifier, batch: object, batch_idx: int) -> None:
        raise KeyboardInterrupt

    whole = Classifier.validation_step
    monkeypatch.setattr(Classifier, "validation_step", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        small_run(tmp_path, DATASET_ONLY, "logger=none")
    monkeypatch.setattr(Classifier, "validation_step", whole)
    assert not (tmp_path / FILE).exists()
    with pytest.warns(UserWarning, match="holds another run's records; this run's go to"):
        small_run(tmp_path, DATASET_ONLY, "logger=none")
    result = Result.read(tmp_path)
    assert result.dataset == "jaynes-1"
    assert sorted(pd.read_parquet(tmp_path / "jaynes-1")["step"].unique()) == [0, 18, 36]


def test_any_logged_metric_can_be_returned(tmp_path: Path) -> None:
    name = "equilibrium/weight/gap_median"
    outcome = small_run(
        tmp_path, f"optimized_metric={name}", "logger=none", "test=false", DATASET_ONLY
    )
    frame = outcome.dataset().query("kind == 'weight'")
    median = frame[frame["step"] == 36]["gap"].median()
    assert outcome.metric == pytest.approx(median, rel=1e-6)
    assert "validation" in outcome.printed
    assert ", test " not in outcome.printed


def test_no_metric_need_be_returned(tmp_path: Path) -> None:
    outcome = small_run(tmp_path, "optimized_metric=null", "debug=fdr")
    assert outcome.metric is None
    assert not (tmp_path / "jaynes").exists()


def test_a_metric_that_was_not_logged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^optimized_metric: 'val/acc' was not logged.*val/acc"):
        small_run(tmp_path, "optimized_metric=val/acc", "debug=fdr")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["optimizer.lr=-1"], "the optimizer cannot be built with .* Invalid learning rate: -1"),
        (["ckpt_path=/no/such.ckpt"], "Checkpoint file not found: /no/such.ckpt"),
        (
            ["callbacks.equilibrium_monitor.include=nothing.*"],
            r"include pattern 'nothing\.\*' matches no",
        ),
        (["callbacks.equilibrium_monitor.min_size=1000000"], ".*min_size=1000000"),
    ],
)
def test_what_only_shows_at_setup_is_one_sentence(
    tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"^before training could begin: {sentence}") as caught:
        small_run(tmp_path, *overrides)
    assert "\n" not in str(caught.value)


def test_a_defect_in_mid_training_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.classifier import Classifier

    def broken(self: Classifier, batch: object, batch_idx: int) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(Classifier, "validation_step", broken)
    with pytest.raises(ValueError, match=r"^broken$"):
        small_run(tmp_path, DATASET_ONLY)


def test_cnn_on_local_parquet_files(tmp_path: Path, write_parquet: Callable[..., Path]) -> None:
    folder = write_parquet((32, 32, 3), "img")
    outcome = small_run(
        tmp_path,
        DATASET_ONLY,
        "model=cnn",
        "data=cifar10",
        f"data.path={folder}",
        "data.batch_size=8",
        "model.net.channels=[4,8]",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
    )
    names = set(outcome.dataset()["name"])
    assert {"net.conv1_1.weight", "net.conv2_2.weight", "net.relu2_2", "net.hidden.weight"} <= names


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Kill a run as soon as a function of it is called and a condition holds."""

    def kill(owner: object, name: str, when: Callable[..., bool], *run: object) -> None:
        whole = getattr(owner, name)

        def killed(*arguments: object, **named: object) -> object:
            if when(*arguments):
                raise KeyboardInterrupt
            return whole(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                small_run(*run)  # type: ignore[arg-type]

    return kill


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, kill: Callable[..., None]
) -> None:
    from experiments.classifier import Classifier

    how = ("logger=none", DATASET_ONLY, "trainer.max_epochs=3")
    in_the_third = lambda task, *_: task.trainer.current_epoch == 2  # noqa: E731
    kill(Classifier, "training_step", in_the_third, tmp_path, *how)
    assert not (tmp_path / FILE).exists()
    again = small_run(tmp_path, *how)
    assert f"interrupted before, goes on from {tmp_path}/checkpoints/last.ckpt" in again.printed
    assert sorted(again.dataset()["step"].unique()) == [0, 18, 36, 54]
    assert not (tmp_path / "jaynes-1").exists()
    assert Result.read(tmp_path).metrics["val/accuracy"] == again.metric


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_checkpoint_of_another_configuration_is_not_gone_on_from(
    tmp_path: Path, kill: Callable[..., None]
) -> None:
    from experiments.classifier import Classifier

    how = ("logger=none", DATASET_ONLY)
    in_the_second = lambda task, *_: task.trainer.current_epoch == 1  # noqa: E731
    kill(Classifier, "training_step", in_the_second, tmp_path, *how)
    # Twice: that the second begins must not make the first's checkpoint its own.
    at_once = lambda *_: True  # noqa: E731
    with pytest.warns(UserWarning, match="holds another run's records"):
        kill(Classifier, "training_step", at_once, tmp_path, *how, "optimizer.lr=0.1")
    with pytest.warns(UserWarning, match="holds another run's records"):
        again = small_run(tmp_path, *how, "optimizer.lr=0.1")
    assert "interrupted before" not in again.printed


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_that_was_killed_after_training_is_scored(
    tmp_path: Path, kill: Callable[..., None]
) -> None:
    how = ("logger=none", DATASET_ONLY, "trainer.max_epochs=1")
    kill(L.Trainer, "test", lambda *_: True, tmp_path, *how)
    again = small_run(tmp_path, *how)
    whole = small_run(tmp_path / "whole", *how)
    assert again.metric == whole.metric
    for score in ("val/accuracy", "val/loss", "test/accuracy"):
        assert Result.read(tmp_path).metrics[score] == Result.read(whole.directory).metrics[score]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_checkpoint_is_resumed(tmp_path: Path) -> None:
    small_run(tmp_path, "logger=none", DATASET_ONLY)
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    longer = small_run(
        tmp_path, f"ckpt_path={checkpoint}", "trainer.max_epochs=3", "logger=none", DATASET_ONLY
    )
    assert sorted(longer.dataset()["step"].unique()) == [0, 18, 36, 54]
