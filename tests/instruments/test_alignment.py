"""Alignment of whole runs, in every host, on two ranks, resumed; models that do not fit."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor, Recorder, watch
from jaynes_callbacks.instruments.alignment import Alignment
from jaynes_callbacks.probes import batches
from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.statistics.alignment import centred_alignment, label_kernel
from tests.instruments.test_no_sync import Refusing
from tests.test_life_cycle import Saving, Stateful

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]
Ranks = Callable[..., list[Any]]


def _rows(model: nn.Module, **options: Any) -> dict[str, Any]:
    with Recorder(model, instruments=Alignment(**options)) as recorder:
        return {row.name: row for row in recorder.record()["alignment"]}


def _mlp(depth: int = 4, width: int = 24) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(8, width), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 3)).double()


def _clusters(samples: int = 90) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(5)
    centres = torch.randn(3, 8, generator=source, dtype=torch.float64)
    labels = torch.randint(3, (samples,), generator=source)
    noise = torch.randn(samples, 8, generator=source, dtype=torch.float64)
    return centres[labels] + noise, labels


# Landmarks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_model_has_the_alignment_of_its_inputs(bias: bool) -> None:
    x, labels = _clusters()
    row = _rows(nn.Linear(8, 3, bias=bias).double(), probes=(x, labels))["Linear"]
    expected = centred_alignment(x @ x.T, label_kernel(labels)).item()
    assert row.alignment == pytest.approx(expected, abs=1e-12)


def test_inputs_that_are_the_labels_are_aligned_entirely() -> None:
    _, labels = _clusters()
    x = nn.functional.one_hot(labels).double()
    rows = _rows(nn.Linear(3, 4).double(), probes=(x, labels))
    assert rows["Linear"].alignment == pytest.approx(1, abs=1e-12)


def test_shuffled_labels_are_not_aligned() -> None:
    x, labels = _clusters(240)
    order = torch.randperm(240, generator=torch.Generator().manual_seed(1))
    told, shuffled = (
        _rows(_mlp(), probes=(x, each))["network"].alignment for each in (labels, labels[order])
    )
    assert told > 0.2
    assert shuffled < 1 / np.sqrt(240)


@pytest.mark.parametrize("samples", [64, 256])
def test_shuffled_labels_of_ten_classes_have_the_alignment_of_chance(samples: int) -> None:
    torch.manual_seed(4)
    x, labels = torch.randn(samples, 784), torch.arange(samples) % 10
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    runs = [_rows(model, probes=(x, labels[torch.randperm(samples)])) for _ in range(8)]
    for name in ("0", "2"):
        chance = runs[0][name].chance
        assert chance > 1.3 / np.sqrt(samples)
        assert {round(rows[name].chance, 9) for rows in runs} == {round(chance, 9)}
        mean = np.mean([rows[name].alignment for rows in runs])
        assert mean == pytest.approx(chance, rel=0.06)
    for rows in runs:
        assert rows["network"].chance == rows[rows["network"].maximum].chance


def test_rescaled_neurons_change_it() -> None:
    x, labels = _clusters()
    model = _mlp()
    before, outputs = _rows(model, probes=(x, labels)), model(x)
    scales = torch.randn(24, generator=torch.Generator().manual_seed(2), dtype=torch.float64).exp()
    with torch.no_grad():
        model[2].weight *= scales[:, None]
        model[2].bias *= scales
        model[4].weight /= scales
    after = _rows(model, probes=(x, labels))
    torch.testing.assert_close(model(x), outputs)
    changes = {name: abs(after[name].alignment - before[name].alignment) for name in ("2", "4")}
    assert min(changes.values()) > 0.01
    assert after["0"].alignment == pytest.approx(before["0"].alignment, abs=1e-12)


# Rows ---------------------------------------------------------------------------------------


def test_rows_of_layers_and_of_the_network() -> None:
    x, labels = _clusters()
    *layers, network = _rows(_mlp(5), probes=(x, labels)).values()
    assert [(row.kind, row.name, row.depth) for row in layers] == [
        ("layer", str(2 * place), place + 1) for place in range(5)
    ]
    best = max(layers, key=lambda row: row.alignment)
    assert (network.kind, network.name) == ("network", "network")
    assert (network.maximum, network.depth) == (best.name, best.depth)
    assert network.alignment == best.alignment
    assert network.relative_depth == pytest.approx(best.depth / 5**0.6)
    assert {(row.layers, row.samples, row.outputs, row.status) for row in (*layers, network)} == {
        (5, 90, 3, "ok")
    }
    assert all(np.isnan(row.relative_depth) and not row.maximum for row in layers)


def test_samples_and_outputs_are_as_many_as_asked_for() -> None:
    x, labels = _clusters()
    few = _rows(_mlp(), probes=(x, labels), samples=40, outputs=2)
    assert (few["0"].samples, few["0"].outputs) == (40, 2)
    same = _rows(_mlp(), probes=(x[:40], labels[:40]), outputs=2)
    assert few == same


def test_many_classes_are_projected_with_a_small_error() -> None:
    torch.manual_seed(1)
    labels = torch.randint(200, (100,))
    x = torch.randn(200, 16)[labels] + torch.randn(100, 16) / 2
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 200))
    exact = _rows(model, probes=(x, labels), outputs=200)
    found = _rows(model, probes=(x, labels))
    assert (exact["0"].outputs, found["0"].outputs) == (200, 32)
    assert found["0"].alignment != exact["0"].alignment
    assert found["0"].alignment == pytest.approx(exact["0"].alignment, rel=0.01)


def test_labels_of_all_kinds() -> None:
    x, labels = _clusters()
    hot = nn.functional.one_hot(labels)
    expected = _rows(_mlp(), probes=(x, labels))["0"].alignment
    for each in (labels.int(), hot, hot.double(), labels[:, None]):
        assert _rows(_mlp(), probes=(x, each))["0"].alignment == pytest.approx(expected, abs=1e-12)
    line = _rows(_mlp(), probes=(x, labels.double()))["0"].alignment
    assert abs(line - expected) > 0.01


class Pair(nn.Module):
    """Takes two inputs, by place or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 3).double(), nn.Linear(8, 3).double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.one(a) * self.two(b)


def test_inputs_by_place_and_by_name() -> None:
    x, labels = _clusters()
    model = Pair()
    by_place = _rows(model, probes=((x, x + 1), labels))
    assert by_place == _rows(model, probes=({"b": x + 1, "a": x}, labels))
    assert by_place == _rows(
        model, probes=(x, labels), forward=lambda called, inputs: called(inputs, inputs + 1)
    )
    assert {"one", "two"} <= set(by_place)


# What cannot be measured --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples must be an integer of at least 2, got 1"),
        ({"outputs": 0}, "outputs must be an integer of at least 1, got 0"),
        ({"probes": torch.zeros(4, 2)}, "a pair of inputs and a tensor of labels, got Tensor"),
        ({"probes": (torch.zeros(4, 2), torch.tensor(1))}, "a row for each sample"),
        ({"probes": (torch.zeros(1, 2), torch.zeros(1))}, "two samples or more"),
    ],
)
def test_wrong_arguments_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Alignment(**options)


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _mlp()


def _failing(*_: Any) -> Tensor:
    raise OSError("on purpose")


@pytest.mark.parametrize(
    ("model", "options", "status"),
    [
        (NoForward(), {}, 'missing the required "forward" function'),
        (_mlp(), {"forward": _failing}, "OSError: on purpose"),
        (nn.Sequential(nn.Unflatten(1, (4, 2)), nn.Linear(2, 3).double()), {}, "give forward="),
        (nn.Sequential(nn.Bilinear(8, 8, 2).double()), {"forward": lambda m, x: m[0](x, x)},
         "no layer can be measured"),
    ],
    ids=["no forward", "failing", "places", "no layers"],
)  # fmt: skip
def test_a_model_that_does_not_fit_has_a_status(
    model: nn.Module, options: dict[str, Any], status: str
) -> None:
    instrument = Alignment(probes=_clusters(), **options)
    with Recorder(model, instruments=instrument) as recorder:
        (row,) = recorder.record()["alignment"]
    assert status in row.status
    assert (row.kind, row.layers, row.maximum) == ("network", 0, "")
    assert np.isnan(row.alignment)
    assert any(status in each.reason for each in recorder.coverage.skipped)


def test_a_forward_that_never_worked_is_not_tried_again() -> None:
    calls: list[int] = []

    def counted(model: nn.Module, x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) in (2, 4):
            return model(x)
        raise OSError("on purpose")

    def statuses(forward: Any, records: int) -> list[str]:
        recorder = Recorder(_mlp(), instruments=Alignment(probes=_clusters(), forward=forward))
        recorder.attach()
        return [recorder.record()["alignment"][-1].status[:7] for _ in range(records)]

    assert statuses(counted, 2) == ["OSError"] * 2
    assert len(calls) == 1
    assert statuses(counted, 3) == ["ok", "OSError", "ok"]


def test_labels_that_are_all_equal() -> None:
    x, labels = _clusters()
    rows = _rows(_mlp(), probes=(x, torch.zeros_like(labels)))
    assert {row.status[:20] for row in rows.values()} == {"all labels are equal"}
    assert all(np.isnan(row.alignment) for row in rows.values())


class Cut(nn.Module):
    """The outputs do not depend on the first layer, and the second one mixes the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.mixed, self.last = (nn.Linear(8, 8).double() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixed(x)
        return self.last(x + 0 * self.idle(x) + mixed + mixed.mean(0))


def test_layers_that_do_not_fit_have_a_status_of_their_own() -> None:
    rows = _rows(Cut(), probes=_clusters())
    assert "mixes samples" in rows["mixed"].status
    assert "do not depend on the layer" in rows["idle"].status
    assert rows["last"].status == rows["network"].status == "ok"
    assert np.isnan([rows["mixed"].alignment, rows["idle"].alignment]).all()
    assert np.isnan([rows["mixed"].chance, rows["idle"].chance]).all()
    assert rows["network"].chance == rows["last"].chance
    assert (rows["network"].maximum, rows["network"].layers) == ("last", 3)


def test_large_samples_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = _clusters()
    monkeypatch.setattr(batches, "MOST_BYTES", 20 * (8 * 8 + 8) + 1)
    assert _rows(_mlp(), probes=(x, labels))["0"].samples == 20
    monkeypatch.setattr(batches, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="two samples or more of at most"):
        Alignment(probes=(x, labels))
    recorder = Recorder(_mlp(), instruments="alignment")
    recorder.attach()
    recorder.batch_begins(ShownBatch(x, labels))
    (row,) = recorder.record()["alignment"]
    assert row.status.startswith("two samples or more of at most")


# Whole runs ---------------------------------------------------------------------------------


class Exact(L.LightningModule):
    """Batch norm and dropout, which an additional forward could change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, 32), nn.BatchNorm1d(32)
        self.drop, self.last = nn.Dropout(0.2), nn.Linear(32, 4)
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def test_the_watched_run_is_the_unwatched_run_and_begins_untouched(
    loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def run(*callbacks: L.Callback) -> tuple[Exact, Tensor]:
        L.seed_everything(11, verbose=False)
        model = Exact()
        make_trainer(*callbacks).fit(model, loader)
        return model, torch.get_rng_state()

    first: list[Any] = []

    class Taking(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            first.append(args[2])

    monitor = EquilibriumMonitor(instruments=["magnitudes", "alignment"], every_n_steps=4)
    (plain, draws), (watched, draws_watched) = run(), run(monitor, Taking())
    assert watched.losses == plain.losses
    assert torch.equal(draws, draws_watched)
    for name, values in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], values), name

    rows = monitor.history_of("alignment")
    assert rows.step.unique().tolist() == [0, 4, 6, 8, 12]
    assert rows.name.unique().tolist() == ["first", "last", "network"]
    assert set(rows.status) == {"ok"}
    assert set(rows.samples) == {16}
    stored = pd.read_parquet(tmp_path / "jaynes" / "_alignment")
    pd.testing.assert_frame_equal(stored[list(rows.columns)], rows)

    L.seed_everything(11, verbose=False)
    expected = _rows(Exact(), probes=tuple(first[0]))
    assert rows[rows.step == 0].alignment.tolist() == [row.alignment for row in expected.values()]


@pytest.mark.parametrize("saved_at", [4, 8])
@pytest.mark.sampled(2)
def test_a_resumed_run_equals_the_uninterrupted_one(
    saved_at: int, task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def fit(
        place: str, *callbacks: L.Callback, checkpoint: Path | None = None, **limits: int
    ) -> Any:
        monitor = EquilibriumMonitor(
            instruments="alignment", sinks=[], dirpath=tmp_path / place, every_n_steps=5
        )
        model = type(task)()
        model.load_state_dict(task.state_dict())
        # Dropout would draw from the global state, which a checkpoint does not hold.
        model.drop.p = 0.0
        trainer = make_trainer(monitor, *callbacks, **{"max_epochs": 3, **limits})
        trainer.fit(model, Stateful(), ckpt_path=checkpoint)
        return monitor.history.drop(columns="run")

    whole = fit("whole")
    fit("parts", Saving(saved_at, tmp_path / "saved.ckpt"), max_steps=10)
    torch.load(tmp_path / "saved.ckpt", weights_only=True)
    rest = fit("parts", checkpoint=tmp_path / "saved.ckpt")
    expected = whole[whole.step > saved_at].reset_index(drop=True)
    assert len(rest) >= 6
    pd.testing.assert_frame_equal(rest.reset_index(drop=True), expected, check_exact=True)


def _ddp(path: Path) -> Any:
    torch.manual_seed(3)
    rank = torch.distributed.get_rank()
    source = torch.Generator().manual_seed(rank)
    monitor = EquilibriumMonitor(instruments="alignment", every_n_steps=1, dirpath=path / str(rank))
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=2,
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = [
        (torch.randn(12, 16, generator=source), torch.randint(4, (12,), generator=source))
        for _ in range(2)
    ]
    trainer.fit(Exact(), DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    return monitor.history.drop(columns="run")


def test_ranks_record_the_samples_of_the_first(ranks: Ranks, tmp_path: Path) -> None:
    one, other = ranks(_ddp, tmp_path)
    source = torch.Generator().manual_seed(0)
    first = torch.randn(12, 16, generator=source), torch.randint(4, (12,), generator=source)
    torch.manual_seed(3)
    expected = [row.alignment for row in _rows(Exact(), probes=first).values()]
    assert one.step.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert one.alignment[:3].tolist() == expected
    pd.testing.assert_frame_equal(one, other)


class Gathering(nn.Module):
    """Waits for the other ranks in its forward, as contrastive models do."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        hidden = torch.relu(self.into(x))
        every = [torch.empty_like(hidden) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(every, hidden.detach())
        scores: Tensor = self.out(hidden - torch.cat(every).mean(0))
        return scores


def _gathering(samples: tuple[int, int]) -> Any:
    rank = torch.distributed.get_rank()
    torch.manual_seed(1)
    model = Gathering()
    recorder = Recorder(
        model,
        instruments=Alignment(
            probes=(torch.randn(12, 8)[: samples[rank]], (torch.arange(12) % 3)[: samples[rank]])
        )
        if samples[rank]
        else Alignment(),
        min_size=0,
    )
    recorder.attach()
    (frame,) = recorder.record(0).values()
    recorder.detach()
    return frame.to_pandas()[["name", "samples", "alignment", "status"]]


@pytest.mark.parametrize(
    ("samples", "expected"), [((12, 8), 8), pytest.param((12, 0), 0, marks=pytest.mark.slow)]
)
def test_all_ranks_make_the_forward_or_none(
    samples: tuple[int, int], expected: int, ranks: Ranks
) -> None:
    one, _ = ranks(_gathering, samples)
    if expected:
        assert set(one.samples) == {expected}
        assert one.alignment.notna().all()
    else:
        assert one.status.str.contains("another rank has no two samples|failed").all()


def _sharded(shard: bool, path: Path) -> Any:
    """Train in a loop, whose records with and without FSDP2 are the same."""
    rank = torch.distributed.get_rank()
    model = Labelled()
    if shard:
        for layer in (*(each for each in model.net if isinstance(each, nn.Linear)), model):
            fully_shard(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, labels = (each[rank::2] for each in _clusters())
    losses = []
    options: dict[str, Any] = {"instruments": "alignment", "every_n_steps": 2, "sinks": []}
    with watch(model, optimizer, dirpath=path / str(rank), **options) as watched:
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(x, labels=labels)["loss"]
            loss.backward()
            losses.append(loss.item())
            for parameter in () if shard else model.parameters():
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= 2
            optimizer.step()
    return watched.history_of("alignment").drop(columns="run"), losses, watched.coverage.note


def test_sharded_weights_are_gathered_except_within_a_forward(ranks: Ranks, tmp_path: Path) -> None:
    (whole, losses, _), _ = ranks(_sharded, False, tmp_path / "whole")
    (one, losses_sharded, note), (other, _, _) = ranks(_sharded, True, tmp_path / "sharded")
    assert losses_sharded == losses
    assert whole.step.unique().tolist() == [0, 2, 3]
    assert "no record of the untouched network" in note
    expected = whole[whole.step > 0].reset_index(drop=True)
    for found in (one, other):
        pd.testing.assert_frame_equal(found, expected, rtol=1e-12)


class Labelled(nn.Module):
    """A model that is given its labels, as those of Hugging Face are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.net = _mlp()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(x)
        loss = logits.sum() if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def _steps(model: nn.Module, optimizer: Any, called: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, labels = _clusters()
    for _ in range(2):
        optimizer.zero_grad()
        called(x, labels).backward()
        optimizer.step()


def _loop(model: nn.Module, called: Callable[[Tensor, Tensor], Tensor], path: Path) -> pd.DataFrame:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"instruments": "alignment", "every_n_steps": 1, "sinks": []}
    with watch(model, optimizer, dirpath=path, **options) as watched:
        _steps(model, optimizer, called)
    return watched.history_of("alignment")


@pytest.mark.parametrize("compiled", [False, "around", "in place"])
@pytest.mark.sampled(3)
def test_a_loop_shows_labels_that_its_model_is_given(compiled: Any, tmp_path: Path) -> None:
    model: Any = Labelled()
    expected = [row.alignment for row in _rows(model, probes=_clusters()).values()]
    if compiled:
        torch.compiler.reset()
    if compiled == "in place":
        model.compile(backend="aot_eager")
    called: Any = torch.compile(model, backend="aot_eager") if compiled == "around" else model
    rows = _loop(called, lambda x, labels: called(x, labels=labels)["loss"], tmp_path)
    alone = Labelled()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    _steps(alone, optimizer, lambda x, labels: alone(x, labels=labels)["loss"])
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        # What aot_eager traces adds up in another order.
        torch.testing.assert_close(one, other, rtol=1e-12 if compiled else 0, atol=0)
    assert rows.step.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert set(rows.status) == {"ok"}
    np.testing.assert_allclose(rows.alignment[:5], expected, rtol=1e-12)
    assert rows.alignment[10:].tolist() != expected


def test_a_loop_that_shows_no_labels_says_so(tmp_path: Path) -> None:
    model = _mlp()
    rows = _loop(model, lambda x, labels: nn.functional.cross_entropy(model(x), labels), tmp_path)
    assert rows.kind.tolist() == ["network"] * 3
    assert set(rows.status) == {"no labels: give probes=(inputs, labels)"}


def test_the_first_micro_batch_alone_is_shown() -> None:
    seen: list[ShownBatch] = []

    class Curious(Alignment):
        def batch_begins(self, batch: ShownBatch) -> None:
            seen.append(batch)
            super().batch_begins(batch)

    model = Labelled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, labels = _clusters()
    watched = watch(model, optimizer, instruments=[Curious()], sinks=[], every_n_steps=1)
    for place in range(4):
        model(x=x[place:], labels=labels[place:])["loss"].backward()
        if place % 2:
            optimizer.step()
    watched.close()
    (batch,) = seen
    assert batch.labels is labels[0:] or torch.equal(batch.labels, labels)
    assert list(batch.inputs) == ["x"]


# Hugging Face -------------------------------------------------------------------------------


def _trained_by_hugging_face(model: Any, samples: list[dict[str, Tensor]], path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    from jaynes_callbacks.huggingface import EquilibriumCallback

    transformers.utils.logging.set_verbosity_error()
    callback = EquilibriumCallback(instruments="alignment", sinks=[], dirpath=path, every_n_steps=2)
    arguments = transformers.TrainingArguments(
        output_dir=str(path), per_device_train_batch_size=16, max_steps=2, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(model, arguments, train_dataset=samples, callbacks=[callback]).train()
    return callback.history


def _texts(labels: bool) -> list[dict[str, Tensor]]:
    source = torch.Generator().manual_seed(3)
    drawn = torch.randint(64, (32, 16), generator=source)
    return [
        {"input_ids": row, "labels": torch.tensor(place % 4) if labels else row}
        for place, row in enumerate(drawn)
    ]


def test_a_classifier_of_hugging_face(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from tests.run.test_huggingface import bert, gpt2

    rows = _trained_by_hugging_face(bert(), _texts(labels=True), tmp_path)
    assert set(rows.status) == {"ok"}
    assert rows.step.unique().tolist() == [0, 2]
    assert rows.name.tolist()[-3:-1] == ["bert.pooler.dense", "classifier"]
    assert set(rows.samples) == {16}

    rows = _trained_by_hugging_face(gpt2(), _texts(labels=False), tmp_path)
    assert [each[:40] for each in rows.status] == ["the outputs are not [samples, classes]: "] * 2
    assert "(16, 16, 64)" in rows.status[0]


# What it costs besides ----------------------------------------------------------------------


def test_collecting_waits_for_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 40)
    )
    instrument = Alignment(probes=(torch.randn(6, 1, 8, 8), torch.arange(6)))
    recorder = Recorder(model, instruments=instrument)
    recorder.attach()
    with Refusing():
        moment = recorder.count(3)
    assert [row.outputs for row in recorder.summarise([moment])[0]["alignment"]] == [32] * 3


def _graphs() -> int:
    gc.collect()
    return sum(type(each) is Tensor and each.grad_fn is not None for each in gc.get_objects())


def test_no_graph_is_kept_and_no_hook() -> None:
    model = _mlp()
    recorder = Recorder(model, instruments=Alignment(probes=_clusters()))
    recorder.attach()
    before = _graphs()
    recorder.record()
    assert _graphs() == before
    assert not any(each._forward_hooks for each in model.modules())
