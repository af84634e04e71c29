import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib.figure import Figure
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaynes_callbacks.figures import rendered
from jaynes_callbacks.instruments import KNOWN
from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.history import History
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.sinks import figures as figure_sink
from jaynes_callbacks.sinks.base import RunContext, Sink
from jaynes_callbacks.sinks.dataset import DatasetSink
from jaynes_callbacks.sinks.figures import (
    OF_HISTORY,
    OF_INSTRUMENT,
    OF_MOMENT,
    FigureSink,
    choose_streams,
    file_name,
    save,
)

pytestmark = pytest.mark.painted

NAN = float("nan")
OF_ALL = (*OF_HISTORY, *OF_MOMENT)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Record, Record | None]]:
    """Blank figures in the place of true ones; what they were asked to draw."""
    asked: list[tuple[Record, Record | None]] = []

    def blank(record: Record, start: Record | None = None, **_: Any) -> Figure:
        asked.append((record, start))
        return Figure(figsize=(0.2, 0.2), dpi=50)

    monkeypatch.setattr(figure_sink, "log_density", blank)
    monkeypatch.setattr(figure_sink, "paper_view", lambda *_, **__: Figure((0.2, 0.2), dpi=50))
    for of_all in (OF_HISTORY, OF_MOMENT):
        for name in of_all:
            monkeypatch.setitem(of_all, name, lambda *_, **__: Figure((0.2, 0.2), dpi=50))
    return asked


def run(sink: FigureSink, snapshots: list[Records], context: RunContext) -> None:
    sink.open(context)
    history = Records()
    for records in snapshots:
        history += records.without_counts()
        sink.write(records, history)
    sink.close(snapshots[0], snapshots[-1], history)


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def streams(gaps: dict[str, float], kind: Any = "weight", **columns: Any) -> Records:
    return Records(Record(kind=kind, name=name, gap=gap, **columns) for name, gap in gaps.items())


def test_it_is_a_sink_that_can_be_sent_to_other_processes() -> None:
    assert isinstance(FigureSink(), Sink)
    assert isinstance(pickle.loads(pickle.dumps(FigureSink())), FigureSink)


def test_figures_are_files_beside_the_dataset(snapshots: list[Records], tmp_path: Path) -> None:
    context = RunContext(directory=tmp_path)
    dataset = DatasetSink()
    dataset.open(context)
    sink = FigureSink()
    run(sink, snapshots, context)
    dataset.write(snapshots[0], Records())
    assert files(tmp_path) == [
        "jaynes",
        "jaynes-figures",
        *sorted(f"jaynes-figures/equilibrium-{name}.png" for name in OF_ALL),
        "jaynes-figures/log_density_iota-net.1.png",
        "jaynes-figures/log_density_weight-net.0.weight.png",
        "jaynes-figures/log_density_weight-net.2.weight.png",
        "jaynes-figures/paper_view_iota-net.1.png",
        "jaynes-figures/paper_view_weight-net.0.weight.png",
        "jaynes-figures/paper_view_weight-net.2.weight.png",
        "jaynes/part-000000000000.parquet",
    ]
    assert sink.directory == tmp_path / "jaynes-figures"
    assert len(pd.read_parquet(tmp_path / "jaynes")) == 3, "figures are no part of the dataset"


@pytest.mark.usefixtures("quick")
def test_another_run_s_figures_stay(snapshots: list[Records], tmp_path: Path) -> None:
    run(FigureSink(), snapshots, RunContext(directory=tmp_path))
    (first,) = (path for path in files(tmp_path) if path.endswith("gap_over_steps.png"))
    before = (tmp_path / first).stat().st_mtime_ns
    sink = FigureSink()
    run(sink, snapshots, RunContext(directory=tmp_path))
    assert sink.directory == tmp_path / "jaynes-1-figures"
    assert (tmp_path / first).stat().st_mtime_ns == before


@pytest.mark.usefixtures("quick")
def test_dataset_and_figures_of_a_run_go_together(snapshots: list[Records], tmp_path: Path) -> None:
    run(FigureSink(), snapshots, RunContext(directory=tmp_path))
    context = RunContext(directory=tmp_path)
    dataset, sink = DatasetSink(), FigureSink()
    with pytest.warns(UserWarning, match="jaynes-1"):
        dataset.open(context)
    run(sink, snapshots, context)
    assert dataset.directory == tmp_path / "jaynes-1"
    assert sink.directory == tmp_path / "jaynes-1-figures"


def test_hostile_names_stay_below_the_directory(
    quick: object, snapshots: list[Records], tmp_path: Path
) -> None:
    names = ["../x", "a/b", "/etc/passwd", "层.权重", "x" * 300, "nul\0", ""]
    odd = Records(snapshots[0][0].replace(name=name) for name in names)
    context = RunContext(directory=tmp_path / "run")
    run(FigureSink(), [odd], context)
    assert len(files(tmp_path / "run" / "jaynes-figures")) == len(OF_ALL) + 2 * len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["jaynes-figures"]


def test_the_end_is_drawn_against_the_start(
    quick: list[tuple[Record, Record | None]], snapshots: list[Records], tmp_path: Path
) -> None:
    run(FigureSink(), snapshots, RunContext(directory=tmp_path))
    assert [(record.step, start and start.step) for record, start in quick] == [(20, 0)] * 3


def test_a_run_of_one_record_has_no_start_to_compare(
    quick: list[tuple[Record, Record | None]], snapshots: list[Records], tmp_path: Path
) -> None:
    run(FigureSink(), snapshots[:1], RunContext(directory=tmp_path))
    assert [start for _, start in quick] == [None] * 3


@pytest.mark.parametrize(
    ("every", "drawn"), [(None, [50]), (1, [10, 20, 30, 40, 50]), (2, [20, 40, 50])]
)
def test_figures_are_drawn_when_due_and_at_the_end(
    every: int | None,
    drawn: list[int],
    quick: list[tuple[Record, Record | None]],
    tmp_path: Path,
) -> None:
    # The untouched network, then the end of each of five epochs.
    snapshots = [streams({"a": 0.3}, step=0)]
    snapshots += [streams({"a": 0.2}, step=10 * e + 10, epoch=e) for e in range(5)]
    run(FigureSink(every), snapshots, RunContext(directory=tmp_path))
    assert sorted({record.step for record, _ in quick}) == drawn


def test_an_epoch_with_many_records_is_drawn_once(
    quick: list[tuple[Record, Record | None]], tmp_path: Path
) -> None:
    snapshots = [streams({"a": 0.3}, step=step, epoch=step // 10) for step in range(0, 30, 2)]
    run(FigureSink(1), snapshots, RunContext(directory=tmp_path))
    assert [record.step for record, _ in quick] == [2, 10, 20, 28]


def test_streams_are_followed_through_training(
    quick: list[tuple[Record, Record | None]], tmp_path: Path
) -> None:
    changes = [{"a": 0.5, "b": 0.6}, {"a": 0.1, "b": 0.6}, {"a": 0.1, "b": 0.0}]
    snapshots = [streams(gaps, step=step, epoch=step) for step, gaps in enumerate(changes)]
    run(FigureSink(1, max_streams=1), snapshots, RunContext(directory=tmp_path))
    assert [(record.step, record.name) for record, _ in quick] == [(1, "a"), (2, "a"), (2, "b")]


def test_streams_are_chosen_by_their_change_and_by_their_gap() -> None:
    gaps = {"still": 0.1, "worst": 0.9, "fell": 0.1, "rose": 0.5, "none": NAN, "near": 0.01}
    before = {"still": 0.1, "worst": 0.9, "fell": 0.8, "rose": 0.1, "none": 0.2, "near": 0.01}
    weights, iota = streams(gaps), streams({"y": 0.2}, "iota")
    start = (streams(before) + streams({"y": 0.1}, "iota")).by_stream()

    def names(number: int) -> list[str]:
        return [record.name for record in choose_streams(weights + iota, start, number)]

    assert names(1) == ["fell"]
    assert names(2) == ["fell", "y"]
    assert names(3) == ["worst", "fell", "y"]
    assert names(4) == ["worst", "fell", "rose", "y"]
    assert names(9) == ["still", "worst", "fell", "rose", "none", "near", "y"]
    assert names(0) == []


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="figures_every_n_epochs must be a positive integer"):
        FigureSink(0)
    with pytest.raises(ValueError, match="max_streams must be 0 or more, got -1"):
        FigureSink(max_streams=-1)


# Other instruments -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NormRow(Row):
    norm: float = column("w", "Euclidean norm", curve=True)


@dataclass(frozen=True, eq=False)
class SilentRow(Row):
    norm: float = column("w", "Euclidean norm")


NORMS, SILENT = Schema(NormRow, "norms", "Norms"), Schema(SilentRow, "silent")


def run_of(schema: Schema[Any], sink: FigureSink, context: RunContext) -> None:
    """Let another instrument have two records."""
    sink.open(context)
    history = History(schema)
    frames = [
        Frame.from_rows(schema, [schema.row(kind="weight", name="a", step=step, norm=step + 1.0)])
        for step in (0, 10)
    ]
    for frame in frames:
        history.append(frame)
        sink.write(frame, history)
    sink.close(frames[0], frames[-1], history)


def test_other_instruments_have_their_curves_drawn_at_the_end(tmp_path: Path) -> None:
    shows = Shows()
    run_of(NORMS, FigureSink(1), RunContext(directory=tmp_path, loggers=(shows,)))
    assert files(tmp_path) == ["jaynes-figures", "jaynes-figures/norms-over_steps.png"]
    assert shows.shown == [("norms/over_steps", 10)]


def test_an_instrument_may_have_a_figure_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Frame[Any]] = []

    def figure(records: Frame[Any], **_: Any) -> Figure:
        drawn.append(records)
        return Figure(figsize=(0.2, 0.2), dpi=50)

    monkeypatch.setitem(OF_INSTRUMENT, "norms", figure)
    shows = Shows()
    run_of(NORMS, FigureSink(1), RunContext(directory=tmp_path, loggers=(shows,)))
    assert "jaynes-figures/figures-norms.png" in files(tmp_path)
    assert shows.shown == [("norms/over_steps", 10), ("figures/norms", 10)]
    assert [each["step"].tolist() for each in drawn] == [[10]]
    assert set(OF_INSTRUMENT) <= {*KNOWN, "norms"}


def test_an_instrument_without_curves_has_no_figure(tmp_path: Path) -> None:
    run_of(SILENT, FigureSink(), RunContext(directory=tmp_path))
    assert files(tmp_path) == []


def test_a_history_is_read_once_for_all_figures(
    snapshots: list[Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(SCHEMA)
    for records in snapshots:
        history.append(records)
    read: list[int] = []
    frame = History.frame

    def counts(self: History[Any]) -> Frame[Any]:
        read.append(len(self))
        return frame(self)

    monkeypatch.setattr(History, "frame", counts)
    sink = FigureSink(max_streams=0)
    sink.open(RunContext(directory=tmp_path))
    sink.close(snapshots[0], snapshots[-1], history)
    assert len(files(tmp_path)) == 1 + len(OF_ALL)
    assert read == [9]


# Files -------------------------------------------------------------------------------------------

HOSTILE = [
    "../x", "a/b", "a-b", "A/b", "a\\b", "层.权重", "x" * 300, "x" * 301, "nul\0", "", ".", "..",
    "con", "a b", "a:b", "\ud800", "$(rm)", "-rf",
]  # fmt: skip


def test_file_names_are_harmless_and_all_different() -> None:
    names = [file_name(f"paper_view_weight/{stream}") for stream in HOSTILE]
    assert len({name.lower() for name in names}) == len(HOSTILE)
    for name in names:
        assert Path(name).name == name
        assert name.startswith("paper_view_weight-")
        assert name.isascii()
        assert len(name) <= 100


def test_ordinary_names_stay_readable() -> None:
    assert file_name("log_density_iota/net.1") == "log_density_iota-net.1.png"


def test_a_figure_is_saved_as_it_looks(tmp_path: Path) -> None:
    pixels = rendered(Figure(figsize=(2, 1), dpi=50, facecolor="#ff0000"))
    save(pixels, tmp_path / "below" / "figure.png")
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["figure.png"]
    read = imread(tmp_path / "below" / "figure.png")
    assert (read[..., :3] == [1, 0, 0]).all()


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = rendered(Figure(figsize=(1, 1), dpi=10))
    save(pixels, tmp_path / "figure.png")
    before = (tmp_path / "figure.png").read_bytes()

    def fails(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("jaynes_callbacks.sinks.figures.imsave", fails)
    with pytest.raises(OSError, match="disk full"):
        save(pixels, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == before


# Loggers -----------------------------------------------------------------------------------------


class Plain:
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        raise AssertionError("no scalar is sent with the figures")


class Shows(Plain):
    def __init__(self) -> None:
        self.shown: list[tuple[str, int | None]] = []

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        assert all(image.dtype == np.uint8 for image in images)
        self.shown.append((key, step))


class Broken(Plain):
    @property
    def experiment(self) -> Any:
        raise ConnectionError("server is down")


@pytest.mark.usefixtures("quick")
def test_images_go_to_loggers_by_what_they_can_do(snapshots: list[Records], tmp_path: Path) -> None:
    shows = Shows()
    loggers = (Plain(), shows, CSVLogger(tmp_path / "csv"), DummyLogger())
    run(FigureSink(), snapshots, RunContext(loggers=loggers))
    number = len(OF_ALL)
    assert shows.shown[:number] == [(f"equilibrium/{name}", 20) for name in OF_ALL]
    assert {tag for tag, _ in shows.shown[number:]} == {
        f"{figure}_{record.kind}/{record.name}"
        for figure in ("log_density", "paper_view")
        for record in snapshots[0]
    }


@pytest.mark.usefixtures("quick")
def test_a_logger_that_fails_costs_only_itself(snapshots: list[Records], tmp_path: Path) -> None:
    shows = Shows()
    with pytest.warns(UserWarning, match=r"Broken .*server is down") as said:
        run(FigureSink(), snapshots, RunContext(directory=tmp_path, loggers=(Broken(), shows)))
    assert len(said) == 1
    assert len(shows.shown) == len(files(tmp_path / "jaynes-figures")) == len(OF_ALL) + 6


def test_nobody_to_draw_for(
    quick: list[tuple[Record, Record | None]], snapshots: list[Records]
) -> None:
    run(FigureSink(1), snapshots, RunContext())
    assert quick == []


def test_nothing_recorded_draws_nothing(tmp_path: Path) -> None:
    run(FigureSink(1), [Records()], RunContext(directory=tmp_path))
    assert files(tmp_path) == []


@pytest.mark.slow
def test_tensorboard_shows_the_figures_at_their_step(
    snapshots: list[Records], tmp_path: Path
) -> None:
    logger = TensorBoardLogger(tmp_path)
    run(FigureSink(1, max_streams=1), snapshots, RunContext(loggers=(logger,)))
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    images = events.Images("equilibrium/gap_over_steps")
    assert [image.step for image in images] == [10, 20]
    assert images[0].encoded_image_string.startswith(b"\x89PNG")
    assert images[0].width == 800
    assert len(events.Tags()["images"]) == len(OF_ALL) + 2


def test_wandb_offline_run_holds_the_figures(
    quick: object, snapshots: list[Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="test")
    run(FigureSink(), snapshots, RunContext(loggers=(logger,)))
    wandb.finish()
    wandb.teardown()  # `finish` does not wait until its process has copied the files
    media = tmp_path.glob("wandb/offline-run-*/files/media/images/equilibrium/*.png")
    assert len(list(media)) == len(OF_ALL)


def test_the_tags_of_all_sinks_stay_below_300(
    quick: object, tmp_path: Path, measure: Callable[..., Records]
) -> None:
    from jaynes_callbacks.sinks.loggers import LoggerSink

    class Counts(Shows):
        tags: set[str]

        def __init__(self) -> None:
            super().__init__()
            self.tags = set()

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            self.tags |= metrics.keys()

    logger = Counts()
    context = RunContext(loggers=(logger,))
    names = [f"layer.{i}" for i in range(500)]
    generator = np.random.default_rng(0)
    snapshots = [
        Records(
            Record(kind=kind, name=name, step=step, epoch=step, gap=generator.random(), q=0.1)
            for kind in ("weight", "iota")
            for name in names
        )
        for step in range(4)
    ]
    scalars = LoggerSink()
    scalars.open(context)
    for records in snapshots:
        scalars.write(records, Records())
    run(FigureSink(1), snapshots, context)
    assert len(logger.tags | {tag for tag, _ in logger.shown}) <= 300
