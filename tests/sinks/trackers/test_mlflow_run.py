"""What MLflow's client reads back of a run, from a folder and, where it can, from SQLite."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lightning.pytorch.loggers import MLFlowLogger

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.loggers import LoggerSink
from jaynes_callbacks.sinks.summary import final_numbers
from jaynes_callbacks.sinks.trackers import MlflowRun, active_trackers, trackers_of
from jaynes_callbacks.sinks.trackers.mlflow_run import metric_name, tag_of

mlflow = pytest.importorskip("mlflow")

_STORES = [
    "file",
    pytest.param(
        "sqlite",
        marks=[
            pytest.mark.slow,  # its tables take five seconds
            pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
            pytest.mark.skipif(
                importlib.util.find_spec("sqlalchemy") is None,
                reason="MLflow's SQLite store needs sqlalchemy and alembic: the extra mlflow",
            ),
        ],
    ),
]


@pytest.fixture
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of an empty store, which MLflow's functions write to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    kind = getattr(request, "param", "file")
    uri = f"file://{tmp_path}/runs" if kind == "file" else f"sqlite:///{tmp_path}/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)


def files(client: Any, run_id: str, folder: str | None = None) -> list[str]:
    found = client.list_artifacts(run_id, folder)
    return [
        path
        for each in found
        for path in (files(client, run_id, each.path) if each.is_dir else [each.path])
    ]


@pytest.mark.parametrize("store", _STORES, indirect=True)
def test_a_run_has_all_that_mlflow_can_show(
    store: str, snapshots: list[Records], deliver: Callable[..., Any], tmp_path: Path
) -> None:
    with mlflow.start_run() as run:
        deliver(snapshots, run, directory=tmp_path / "run")
    client, run_id = mlflow.MlflowClient(), run.info.run_id

    curve = client.get_metric_history(run_id, "gap_weight/net.0.weight")
    assert [(each.step, each.value) for each in curve] == [
        (records[0].step, records[0].gap) for records in snapshots
    ]
    ends = client.get_metric_history(run_id, "equilibrium/weight/gap_median")
    assert [each.step for each in ends] == [0, 10, 20], "no point stands there twice"
    metrics = client.get_run(run_id).data.metrics
    assert metrics.items() >= final_numbers(snapshots[-1]).items()

    kept = files(client, run_id)
    images = [path for path in kept if path.startswith("images/equilibrium~gap_map+step+20")]
    assert len(images) == 2, "one as it is, and one small"
    table = pd.read_csv(client.download_artifacts(run_id, "equilibrium/records.csv"))
    assert table["name"].tolist() == [record.name for record in snapshots[-1]]
    assert table["gap"].tolist() == [record.gap for record in snapshots[-1]]
    assert table["shape"][0] == "100×200"
    report = Path(client.download_artifacts(run_id, "equilibrium/report.html")).read_text()
    assert "net.0.weight" in report


@pytest.mark.parametrize("made_by", ["active", "client", "lightning"])
def test_a_run_may_be_handed_over_in_other_forms(store: str, made_by: str) -> None:
    client = mlflow.MlflowClient()
    if made_by == "lightning":
        target: Any = MLFlowLogger("test", tracking_uri=store)
        run_id = target.run_id
    elif made_by == "client":
        run_id = client.create_run("0").info.run_id
        target = (client, run_id)
    else:
        run_id = mlflow.start_run().info.run_id
        (target,) = active_trackers()
    (tracker,) = trackers_of([target])
    tracker.log_scalars({"gap": 0.5}, 10)
    tracker.log_image("equilibrium/gap_map", np.zeros((4, 5, 3), np.uint8), 10)
    mlflow.end_run()
    assert client.get_run(run_id).data.metrics == {"gap": 0.5}
    assert files(client, run_id)[0].startswith("images/equilibrium~gap_map+step+10")


def test_a_finished_run_takes_the_end(store: str, snapshots: list[Records]) -> None:
    """A user's block may end before the watch does."""
    with mlflow.start_run() as run:
        (tracker,) = trackers_of([run])
    tracker.log_scalars({"gap": 1.0}, 3)
    ended = mlflow.MlflowClient().get_run(run.info.run_id)
    assert (ended.info.status, ended.data.metrics) == ("FINISHED", {"gap": 1.0})


def test_a_run_is_written_in_batches_that_servers_take() -> None:
    class Client:
        sizes: list[int] = []  # noqa: RUF012

        def log_batch(self, run_id: str, metrics: list[Any]) -> None:
            assert run_id == "0a1b"
            self.sizes.append(len(metrics))

    MlflowRun(Client(), "0a1b").log_scalars({f"gap/{i}": 0.5 for i in range(2500)}, 1)
    assert Client.sizes == [1000, 1000, 500]


@pytest.mark.parametrize("made_by", ["user", "lightning"])
def test_names_that_mlflow_does_not_take_are_escaped(
    store: str, made_by: str, snapshots: list[Records]
) -> None:
    """Lightning would cut characters, with a warning, so that two curves become one."""
    names = ["relu#1", "a//b", "../x", "层.权重", "a%b", "x" * 300]
    records = Records(snapshots[0][0].replace(name=name) for name in names)
    target: Any = MLFlowLogger("test", tracking_uri=store)
    run_id = target.run_id
    sink = LoggerSink()
    client = mlflow.MlflowClient()
    loggers = [target] if made_by == "lightning" else [(client, run_id)]
    sink.open(RunContext(loggers=loggers))
    sink.write(records, Records())
    found = client.get_run(run_id).data.metrics
    read = {tag_of(name) for name in found}
    assert {f"gap_weight/{name}" for name in names[:-1]} <= read
    assert len([name for name in found if name.startswith("gap_weight/")]) == len(names)


@given(st.text("_x5f23/. -#%é層\n", min_size=1, max_size=12))
@example("_x23_x24_")
@example("_x23#")
@example("a_x23//b")
@example("a_x23/")
@example("../..")
def test_names_are_taken_and_read_back(tag: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    name = metric_name(tag)
    _validate_metric_name(name)
    assert name.isascii()
    assert tag_of(name) == tag


def test_ordinary_tags_stay_and_long_ones_differ() -> None:
    for tag in ("gap_weight/h.0.attn_x.weight", "equilibrium/weight/gap_median", "scale_x2.b"):
        assert metric_name(tag) == tag
    one, two = metric_name("x" * 300 + "a"), metric_name("x" * 300 + "b")
    assert one != two
    assert len(one) == len(two) == 250
