"""CONTRIBUTING.md is true: the map, the walk of a weight to a scalar, and where one adds what."""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

import jaynes_callbacks
from jaynes_callbacks import EquilibriumMonitor, Recorder, analyse
from jaynes_callbacks.instruments import KNOWN
from jaynes_callbacks.run.host import Host
from jaynes_callbacks.run.run import Listening, WatchedRun
from jaynes_callbacks.schedule import Cadence, every
from jaynes_callbacks.sinks.base import Sink
from jaynes_callbacks.sinks.dataset import DatasetSink
from jaynes_callbacks.sinks.delivery import Delivery

HOME = Path(__file__).parents[1]
PACKAGE = Path(jaynes_callbacks.__file__).parent
PAGE = (HOME / "CONTRIBUTING.md").read_text()
MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]


def section(title: str) -> str:
    """What stands below a heading, up to the next."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def code_of(title: str) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)
    return str(block)


# The map ------------------------------------------------------------------------------------


def mapped() -> Iterator[tuple[str, str]]:
    """Each place of the map, a folder with a slash at its end, and the phrase beside it."""
    (block,) = re.findall(r"^```\n(.*?)^```", section("The map of the house"), re.DOTALL | re.M)
    folders: list[str] = []
    for line in block.splitlines():
        match = re.fullmatch(r"( *)(\S+)(?: +(.*))?", line)
        assert match is not None, f"no place in the map's line {line!r}"
        indent, name, phrase = match.groups()
        folders = folders[: len(indent) // 2]
        yield "".join([*folders, name]), phrase
        if name.endswith("/"):
            folders.append(name)


def test_the_map_has_every_folder_and_module_once_and_nothing_else() -> None:
    inside = [place for place, _ in mapped() if place.startswith("jaynes_callbacks/")]
    there = {
        f"{path.relative_to(PACKAGE.parent)}{'/' * path.is_dir()}"
        for path in (PACKAGE, *PACKAGE.rglob("*"))
        if "__pycache__" not in path.parts and path.name not in ("__init__.py", "py.typed")
    }
    assert sorted(inside) == sorted(there)
    for place, phrase in mapped():
        assert (HOME / place).exists(), place
        assert phrase, f"{place} needs a phrase"


def test_the_map_is_in_the_order_of_the_import_contract() -> None:
    contracts = tomllib.loads((HOME / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    place_of = {name: row for row, layer in enumerate(layers) for name in layer.split(" | ")}
    rooms = [place.split("/")[1] for place, _ in mapped() if place.startswith("jaynes_callbacks/")]
    order = [place_of[name.removesuffix(".py")] for name in dict.fromkeys(rooms) if name]
    assert order == sorted(order)


def test_the_readme_has_no_other_map() -> None:
    readme = (HOME / "README.md").read_text()
    assert "CONTRIBUTING.md#the-map-of-the-house" in readme
    assert "counting.py" not in readme


# The walk -----------------------------------------------------------------------------------


def named_in_the_walk() -> list[tuple[str, str]]:
    """File and name of each step, in the order of the page."""
    text = section("The walk of a weight to a scalar")
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) == 10
    return re.findall(r"`([\w/]+\.py)` `([\w.]+)`", text)


def defined_in(file: str) -> set[str]:
    """Qualified names of a module's functions, classes, methods and constants."""
    names = set()
    for each in ast.parse((PACKAGE / file).read_text()).body:
        if isinstance(each, ast.FunctionDef | ast.ClassDef):
            names.add(each.name)
        if isinstance(each, ast.ClassDef):
            names |= {f"{each.name}.{m.name}" for m in each.body if isinstance(m, ast.FunctionDef)}
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            names.add(each.target.id)
    return names


def test_every_name_of_the_walk_is_defined() -> None:
    named = named_in_the_walk()
    assert len(named) == 18
    for file, name in named:
        assert name in defined_in(file), f"{file} has no {name}"


def test_a_weight_takes_the_walk(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            file = Path(frame.f_code.co_filename).relative_to(PACKAGE)
            calls.append((str(file), frame.f_code.co_qualname))

    class Trace(L.Callback):
        """Notes what is called in the epoch's last batch, of which a record is made."""

        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.is_last_batch:
                sys.setprofile(note)

        def on_train_epoch_end(self, *_: Any) -> None:
            sys.setprofile(None)

    logger = TensorBoardLogger(tmp_path, name="", version="run")
    monitor = EquilibriumMonitor(kinds="weight")
    try:
        make_trainer(Trace(), monitor, logger=logger, max_epochs=1).fit(task, loader)
    finally:
        sys.setprofile(None)

    later = iter(calls)
    for step in named_in_the_walk():
        if step[1].isupper():
            continue
        assert step in later, f"{step} is not called, or not in this place"

    (_, scalar) = (
        EventAccumulator(str(tmp_path / "run")).Reload().Scalars("gap_weight/first.weight")
    )
    (expected,) = analyse({"first.weight": task.first.weight.detach()})
    assert scalar.value == pytest.approx(expected.gap, rel=1e-6)


# Where one adds -----------------------------------------------------------------------------


def test_every_file_named_in_the_table_is_there() -> None:
    text = section("Where one adds …")
    places = re.findall(r"`([\w/]+(?:\.py|/))`", text)
    assert len(places) > 20
    for place in places:
        assert (HOME / place).exists() or (PACKAGE / place).exists(), place


def test_the_table_names_what_there_is() -> None:
    text = section("Where one adds …")
    listed = {
        "FAMILIES": "statistics/families/__init__.py",
        "KNOWN": "instruments/__init__.py",
        "_BY_SUFFIX": "files/formats/__init__.py",
        "COMMANDS": "cli/__init__.py",
        "OF_HISTORY": "sinks/figures.py",
        "OF_MOMENT": "sinks/figures.py",
        "default_sinks": "run/arguments.py",
        "Sink": "sinks/base.py",
        "Host": "run/host.py",
        "Checkpoint": "files/entry.py",
    }
    for name, file in listed.items():
        assert f"`{name}`" in text, name
        assert f"`{file}`" in text, file
        assert re.search(rf"^(?:class |def )?{name}\b", (PACKAGE / file).read_text(), re.MULTILINE)


@pytest.fixture
def norms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's instrument as a module, and its line in the list of known ones."""
    (tmp_path / "norms_of_the_page.py").write_text(code_of("An instrument, whole"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "norms_of_the_page", raising=False)
    monkeypatch.setitem(KNOWN, "norms", "norms_of_the_page:Norms")  # type: ignore[arg-type]


@pytest.mark.usefixtures("norms")
def test_the_instrument_measures_norms() -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 16, bias=False))
    recorder = Recorder(model, instruments=["norms"])
    recorder.attach()
    frame = recorder.snapshot(step=3)
    assert frame["name"].tolist() == ["0.weight", "1.weight"]
    expected = [each.weight.double().norm().item() for each in model]
    assert frame["norm"].tolist() == pytest.approx(expected, rel=1e-12)
    assert not len(Recorder(nn.ReLU(), instruments=["norms"], kinds="iota").__enter__().snapshot())


@pytest.mark.usefixtures("norms")
def test_the_instrument_reaches_what_the_page_says(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="run")
    monitor = EquilibriumMonitor(instruments=["magnitudes", "norms"])
    make_trainer(monitor, logger=logger, max_epochs=1).fit(task, loader)
    norms = monitor.history_of("norms")
    assert norms.step.unique().tolist() == [0, 6]
    assert pd.read_parquet(tmp_path / "run/jaynes/_norms").norm.tolist() == norms.norm.tolist()
    tags = EventAccumulator(str(tmp_path / "run")).Reload().Tags()["scalars"]
    assert "norm_weight/first.weight" in tags


@pytest.mark.usefixtures("norms")
def test_the_sink_takes_the_rows_of_every_instrument(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    names: dict[str, Any] = {}
    exec(compile(code_of("A sink, whole"), "CONTRIBUTING.md", "exec"), names)
    sink = names["JsonLines"]()
    assert isinstance(sink, Sink)
    monitor = EquilibriumMonitor(
        instruments=["magnitudes", "norms"], sinks=[sink], dirpath=tmp_path / "new", min_size=1
    )
    make_trainer(monitor, max_epochs=1).fit(task, loader)
    for instrument in ("magnitudes", "norms"):
        lines = (tmp_path / "new" / f"{instrument}.jsonl").read_text().splitlines()
        history = monitor.history_of(instrument)
        rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
        assert [row["name"] for row in rows] == history.name.tolist()


class Loop:
    """A plain training loop, as a host."""

    def __init__(self, directory: Path) -> None:
        self.step = self.epoch = 0
        self.is_last_batch = False
        self.is_main = True
        self.directory: Path | None = directory
        self.loggers: Sequence[Any] = ()
        self.published: dict[str, float] = {}
        self.said: list[str] = []

    def decides_by(self, groups: tuple[str, ...]) -> bool:
        return False

    def describe(self) -> Mapping[str, Any]:
        return {"loop": "plain"}

    def publish(self, numbers: Mapping[str, float], *, on_step: bool) -> None:
        self.published |= numbers

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_plain_loop_is_a_host(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, instruments=["magnitudes", "gradients"])
    host: Host = Loop(tmp_path)
    schemas = {name: each.schema for name, each in recorder.instruments.items()}
    delivery = Delivery([DatasetSink()], schemas)
    recorder.attach()
    run = WatchedRun(
        recorder, delivery, Cadence(1, every(2, what="n")), Listening(every(1, what="n"))
    )
    run.begin(host, None)
    for host.epoch in range(2):  # type: ignore[misc]
        for batch in range(3):
            host.is_last_batch = batch == 2  # type: ignore[misc]
            run.batch_begins(batch)
            loss = model(torch.randn(8, 16)).square().mean()
            run.forward_ends()
            optimizer.zero_grad()
            loss.backward()
            run.before_step(list(model.parameters()))
            optimizer.step()
            host.step += 1  # type: ignore[misc]
            run.batch_ends()
        run.epoch_ends()
    run.training_ends()
    run.finish()
    assert pd.read_parquet(tmp_path / "jaynes").step.unique().tolist() == [0, 2, 3, 4, 6]
    assert pd.read_parquet(tmp_path / "jaynes/_gradients").kind.unique().tolist() == [
        "gradient",
        "update",
    ]
    assert isinstance(host, Loop)
    assert "equilibrium/weight/gap_median" in host.published
    assert "watching 2 weights" in host.said[0]
