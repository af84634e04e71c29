"""Saliency against products by numpy, under its symmetry, and in whole runs."""

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional

from jaynes_callbacks import EquilibriumMonitor, Recorder
from jaynes_callbacks.instruments.saliency import Saliency
from jaynes_callbacks.probes import saliency as watch
from jaynes_callbacks.probes.gradients import GradientWatch
from jaynes_callbacks.probes.selection import Selection
from jaynes_callbacks.schedule import Cadence
from tests.instruments.test_gradients import BATCHES, EPOCHS, GAN, Keep, Task, _batches, _loader
from tests.probes.training import Exact, train

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Ranks = Callable[..., list[Any]]


def _codes(values: np.ndarray) -> list[int]:
    """Count by numpy on the bits of float32: sign off, the upper 12 of the rest."""
    bits = np.abs(values.astype(np.float32)).view(np.uint32) >> 19
    return np.bincount(bits.ravel(), minlength=4096).tolist()


def _counted(row: Any) -> list[int]:
    counts = np.zeros(4096, dtype=np.int64)
    counts[row.codes] = row.counts
    return counts.tolist()


def _mlp() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 25), nn.ReLU(inplace=True), nn.Linear(25, 5)
    )


def _record(model: nn.Module, x: Tensor, *, activations: bool = False) -> dict[str, Any]:
    """Return the rows of one backward by name."""
    with Recorder(model, instruments=Saliency(activations=activations)) as recorder:
        _backward(model, x)
        recorder.before_step(list(model.parameters()))
        return {row.name: row for row in recorder.record(1)["saliency"]}


def _backward(model: nn.Module, x: Tensor) -> None:
    model.zero_grad()
    target = torch.arange(len(x)) % 5
    functional.cross_entropy(model(x)[:, :5], target).backward()


# What a record is ---------------------------------------------------------------------------


def test_weights_are_counted_as_products_by_numpy(generator: torch.Generator) -> None:
    model = _mlp()
    rows = _record(model, torch.randn(40, 20, generator=generator))
    assert list(rows) == ["0.weight", "2.weight", "4.weight"]
    for name, row in rows.items():
        weight = model.get_parameter(name)
        product = weight.detach().numpy() * weight.grad.numpy()  # type: ignore[union-attr]
        assert _counted(row) == _codes(product)
        assert (row.kind, row.variable, row.shape) == ("saliency", "w·∂L/∂w", tuple(weight.shape))
        assert row.max == np.abs(product).max()
        assert row.verdict == ""


def test_activations_are_counted_as_products_by_numpy(generator: torch.Generator) -> None:
    x = torch.randn(40, 20, generator=generator)
    model, kept = _mlp(), list[Tensor]()
    # Its gradient does not vanish where it overwrites the pre-activation.
    model[3] = nn.SiLU(inplace=True)
    rows = _record(model, x, activations=True)
    # The twin keeps all pre-activations, which no function may then overwrite.
    model[3].inplace = False

    def keep(layer: nn.Module, args: tuple[Tensor]) -> None:
        args[0].retain_grad()
        kept.append(args[0])

    for layer in (model[1], model[3]):
        layer.register_forward_pre_hook(keep)
    _backward(model, x)
    for name, z in zip(("1", "3"), kept, strict=True):
        product = z.detach().numpy() * z.grad.numpy()  # type: ignore[union-attr]
        assert _counted(rows[name]) == _codes(product)
        assert (rows[name].variable, rows[name].shape) == ("z·∂L/∂z", z.shape[1:])


def test_independent_gaussian_factors_have_the_law_of_their_product() -> None:
    layer = nn.Linear(400, 500, bias=False)
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        layer.weight.normal_(generator=source)
    layer.weight.grad = torch.randn(500, 400, generator=source)
    recorder = Recorder(layer, instruments="saliency")
    recorder.attach()
    recorder.before_step([layer.weight])
    (row,) = recorder.record()["saliency"]
    # Cumulants of independent logarithms add up: those of the half-normal, twice.
    assert row.log_std == pytest.approx(math.sqrt(2 * math.pi**2 / 8), rel=0.01)
    assert row.log_skew == pytest.approx(-1.5351 / math.sqrt(2), abs=0.03)
    assert row.log_kurtosis == pytest.approx(4.0 / 2, abs=0.15)


def _selection() -> Selection:
    return Selection.of(("weight", "iota"), "*", (), 1)


def _rescaled(model: nn.Sequential) -> nn.Sequential:
    """Multiply the rows of each hidden neuron, and divide its outgoing column."""
    source = torch.Generator().manual_seed(6)
    for layer, following in ((model[0], model[2]), (model[2], model[4])):
        scales = torch.randn(len(layer.bias), generator=source).exp().to(layer.bias.dtype)
        with torch.no_grad():
            layer.weight *= scales[:, None]
            layer.bias *= scales
            following.weight /= scales
    return model


def test_rescaled_neurons_change_no_value(generator: torch.Generator) -> None:
    x = torch.randn(64, 20, generator=generator).double()
    found: list[list[Tensor]] = []
    for model in (_mlp().double(), _rescaled(_mlp().double())):
        _backward(model, x)
        products = GradientWatch(model, _selection()).saliency(list(model.parameters()))
        found.append([values for _, values, _ in products])
    for plain, scaled in zip(*found, strict=True):
        assert plain.dtype == torch.float64
        # A sum over a batch rounds by some units in the last place of its largest term.
        torch.testing.assert_close(scaled, plain, rtol=1e-9, atol=5e-15)


def test_rescaled_neurons_change_no_record(generator: torch.Generator) -> None:
    x = torch.randn(64, 20, generator=generator).double()
    plain = _record(_mlp().double(), x, activations=True)
    scaled = _record(_rescaled(_mlp().double()), x, activations=True)
    assert len(plain) == len(scaled) == 5
    for name, row in plain.items():
        assert scaled[name].n == row.n
        # A value at the edge of a bin may round into the next one.
        assert scaled[name].gap == pytest.approx(row.gap, abs=1e-4), name
        moved = np.abs(np.subtract(_counted(row), _counted(scaled[name]))).sum()
        assert moved <= 4, name


def test_gradients_that_are_missing_or_in_parts_are_named() -> None:
    model = _mlp()
    _backward(model, torch.randn(8, 20))
    model[0].weight.grad = None
    model[2].weight.grad = model[2].weight.grad.to_sparse()  # type: ignore[union-attr]
    recorder = Recorder(model, instruments="saliency")
    recorder.attach()
    recorder.before_step(list(model.parameters()))
    assert [row.name for row in recorder.record()["saliency"]] == ["4.weight"]
    reasons = dict(recorder.coverage.skipped)
    assert "without a gradient" in reasons["0.weight"]
    assert "sparse" in reasons["2.weight"]
    assert [stream.kind for stream in recorder.coverage.watched] == ["saliency"]


def test_the_last_step_before_a_record_counts() -> None:
    model = _mlp()
    parameters = list(model.parameters())
    recorder = Recorder(model, instruments="saliency")
    recorder.attach()
    _backward(model, torch.randn(8, 20))
    recorder.before_step(parameters)
    _backward(model, torch.randn(9, 20))
    recorder.before_step(parameters[:2])
    rows = {row.name: row for row in recorder.record()["saliency"]}
    assert len(rows) == 3
    product = (model[0].weight * model[0].weight.grad).detach().numpy()
    assert _counted(rows["0.weight"]) == _codes(product)
    recorder.before_step(parameters)
    recorder.forget()
    assert len(recorder.record()["saliency"]) == 0


def test_half_precision_is_multiplied_in_single() -> None:
    layer = nn.Linear(40, 30, bias=False).bfloat16()
    layer.weight.grad = torch.randn(30, 40).bfloat16()
    (found,) = GradientWatch(layer, _selection()).saliency([layer.weight])
    expected = layer.weight.detach().float() * layer.weight.grad.float()
    assert torch.equal(found.values, expected)


@pytest.mark.parametrize("number", [0, 1.5])
def test_a_number_of_values_that_is_none_raises(number: Any) -> None:
    with pytest.raises(ValueError, match="values_per_call must be a positive integer"):
        Saliency(values_per_call=number)


# Activations, one by one --------------------------------------------------------------------


@pytest.fixture
def pendings(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """The copies of pre-activations that have been made."""
    made: list[weakref.ref[Tensor]] = []

    class Noted(watch._Pending):
        def __init__(self, values: Tensor) -> None:
            made.append(weakref.ref(values))
            super().__init__(values)

    monkeypatch.setattr(watch, "_Pending", Noted)
    return made


def _alive(made: list[weakref.ref[Tensor]]) -> int:
    gc.collect()
    return sum(each() is not None for each in made)


def _opened(model: nn.Module) -> Recorder:
    recorder = Recorder(model, instruments=Saliency(activations=True))
    recorder.attach()
    recorder.open()
    return recorder


def test_nothing_outlives_the_backward(pendings: list[Any]) -> None:
    model, seen = _mlp(), list[weakref.ref[Tensor]]()
    model[0].register_forward_hook(lambda *args: seen.append(weakref.ref(args[2])))
    recorder = _opened(model)
    output = model(torch.randn(8, 20))
    assert _alive(pendings) == 2
    output.sum().backward()
    # The output is still there, and with it the graph.
    assert output.grad_fn is not None
    assert _alive(pendings) == _alive(seen) == 0
    recorder.detach()


@pytest.mark.parametrize("how", ["open", "forget", "detach", "record"])
@pytest.mark.sampled(3)
def test_without_a_backward_they_are_let_go(how: str, pendings: list[Any]) -> None:
    model = _mlp()
    recorder = _opened(model)
    output = model(torch.randn(8, 20))
    assert _alive(pendings) == 2
    recorder.close()
    getattr(recorder, how)()
    assert _alive(pendings) == 0
    # What comes late is counted nowhere, and harms nothing.
    output.sum().backward()
    recorder.detach()
    assert len(recorder.record()["saliency"]) == 0


def test_a_forgotten_graph_takes_them_along(pendings: list[Any]) -> None:
    recorder = _opened(model := _mlp())
    model(torch.randn(8, 20))
    assert _alive(pendings) == 0
    recorder.detach()


def test_a_leaf_keeps_no_hook() -> None:
    leaf = torch.randn(70, 3, requires_grad=True)
    recorder = _opened(model := nn.Sequential(nn.Tanh()))
    for _ in range(2):
        model(leaf).sum().backward()
    model(leaf)
    recorder.close()
    recorder.forget()
    assert not leaf._backward_hooks
    (row,) = recorder.record()["saliency"]
    assert row.n == 2 * leaf.numel()
    recorder.detach()


def test_a_second_backward_is_not_counted_again() -> None:
    recorder = _opened(model := _mlp())
    loss = model(torch.randn(8, 20)).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    rows = {row.name: row for row in recorder.record()["saliency"]}
    recorder.detach()
    assert rows["1"].n + rows["1"].zeros == 8 * 30


@pytest.mark.parametrize("shape", [(40, 6, 5, 5), (50, 30)])
def test_some_of_many_values_are_of_the_same_places(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    """The gradient lies in memory in another order than the pre-activation."""
    x = torch.randn(shape, generator=generator, requires_grad=True)
    order = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    factor = torch.randn(shape, generator=generator)
    model = nn.Sequential(nn.Tanh())
    recorder = Recorder(model, instruments=Saliency(activations=True, values_per_call=500))
    with recorder:
        z = (x * 1.0).to(memory_format=order)
        (model(z) * factor).sum().backward()
        (row,) = recorder.record()["saliency"]
    flat = (x * (1 - x.tanh() ** 2) * factor).detach().flatten()
    stride = next(s for s in range(-(-len(flat) // 500), 99) if math.gcd(s, len(flat)) == 1)
    expected = flat[::stride].abs().log()
    assert row.n == len(expected) <= 500
    assert row.log_mean == pytest.approx(expected.mean().item(), abs=0.002)


def test_without_gradients_there_is_nothing_to_wait_for(pendings: list[Any]) -> None:
    recorder = _opened(model := _mlp())
    with torch.no_grad():
        model(torch.randn(8, 20))
    nn.Sequential(nn.ReLU())(torch.randn(3, 3))
    assert not pendings
    recorder.detach()


def _broken(*_: object) -> None:
    raise MemoryError("no room to count")


def test_a_count_that_fails_in_the_backward_costs_only_its_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(8, 20)
    _backward(plain := _mlp(), x)
    counted = watch.count_product_
    monkeypatch.setattr(
        watch,
        "count_product_",
        lambda z, *args: _broken() if z.numel() == 8 * 30 else counted(z, *args),
    )
    model = _mlp()
    with pytest.warns(UserWarning, match="activation '1' is no longer recorded.*MemoryError"):
        rows = _record(model, x, activations=True)
    assert "3" in rows
    assert "1" not in rows
    for name, parameter in plain.named_parameters():
        assert torch.equal(model.get_parameter(name).grad, parameter.grad)


def test_compiled_models_say_that_activations_are_not_read() -> None:
    model = _mlp()
    model[3].inplace = False
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    recorder = _opened(model)
    compiled(torch.randn(8, 20)).sum().backward()
    recorder.before_step(list(model.parameters()))
    names = [row.name for row in recorder.record()["saliency"]]
    recorder.detach()
    assert names == ["0.weight", "2.weight", "4.weight"]
    assert ("1", "not read inside compiled models") in recorder.coverage.skipped


# Whole runs ---------------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of values of each tensor on which a hook has been registered."""
    made: list[int] = []
    register = Tensor.register_hook

    def noted(self: Tensor, hook: Any) -> Any:
        made.append(self.numel())
        return register(self, hook)

    monkeypatch.setattr(Tensor, "register_hook", noted)
    return made


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ({"every_n_steps": 4, "every_n_epochs": None}, [4, 8]),
        ({"every_n_epochs": 1}, [5, 10]),
        ({"every_n_epochs": 1, "iota_from": "validation"}, [5, 10]),
        (
            {"instruments": ["magnitudes", Saliency(activations=True, cadence=Cadence(None, 3))]},
            [3, 6, 9],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*validation_step.*")
def test_hooks_are_registered_on_due_steps_only(
    options: dict[str, Any], due: list[int], make_trainer: MakeTrainer, registered: list[int]
) -> None:
    of_steps: dict[int, int] = {}

    class Note(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            of_steps[trainer.global_step] = len(registered)
            registered.clear()

    options = {"instruments": Saliency(activations=True), "iota_every_n_batches": 1, **options}
    monitor = EquilibriumMonitor(sinks=[], **options)
    make_trainer(monitor, Note(), max_epochs=EPOCHS).fit(Task(), _loader())
    assert {step for step, number in of_steps.items() if number} == set(due)
    rows = monitor.history_of("saliency")
    assert rows[rows.name == "net.1"].step.tolist() == due
    # One activation of 8 × 12 values each time.
    assert set(rows[rows.name == "net.1"].n) == {96}


def test_with_the_option_off_no_hook_is_there(
    make_trainer: MakeTrainer, registered: list[int]
) -> None:
    monitor = EquilibriumMonitor(instruments="saliency", every_n_steps=1, sinks=[])
    make_trainer(monitor, max_epochs=1).fit(task := Task(), _loader())
    assert not registered
    assert not any(module._forward_hooks for module in task.modules())
    assert set(monitor.history.variable) == {"w·∂L/∂w"}


def _twin(accumulate: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """Yield what each step's products are, of a plain loop over the same batches."""
    task = Task()
    optimizer = task.configure_optimizers()
    for _ in range(EPOCHS):
        for place, batch in enumerate(_batches(), 1):
            (task(batch) / accumulate).backward()
            if place % accumulate == 0 or place == BATCHES:
                yield {
                    name: (each.detach() * each.grad).numpy()
                    for name, each in task.named_parameters()
                    if each.dim() > 1
                }
                optimizer.step()
                optimizer.zero_grad()


class KeepSaliency(Keep):
    """A sink that keeps the rows of saliency, with their counts."""

    def write(self, frame: Any, history: Any) -> None:
        if len(frame):
            self.rows[int(frame["step"][0])] = frame.by_stream()


@pytest.mark.filterwarnings("ignore:.*number of training batches.*")
@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_step_of_a_fit(accumulate: int, make_trainer: MakeTrainer) -> None:
    kept = KeepSaliency()
    monitor = EquilibriumMonitor(
        instruments=Saliency(activations=True), every_n_steps=1, sinks=[kept]
    )
    trainer = make_trainer(
        monitor, max_epochs=EPOCHS, accumulate_grad_batches=accumulate, gradient_clip_val=1e-4
    )
    task = Task()
    # The twin does not clip; Adam's steps are the same for gradients of any size but by its ε.
    task.configure_optimizers = lambda: torch.optim.SGD(task.parameters(), lr=0.0)  # type: ignore[method-assign]
    trainer.fit(task, _loader())
    first = next(_twin(accumulate))
    assert list(kept.rows) == list(range(1, trainer.global_step + 1))
    for name, product in first.items():
        assert _counted(kept.rows[1]["saliency", name]) == _codes(product)
    # All forwards that went into a step.
    batches = [min(accumulate, BATCHES - start) for start in range(0, BATCHES, accumulate)]
    expected = [96 * number for number in batches] * EPOCHS
    found = [rows["saliency", "net.1"].n for rows in kept.rows.values()]
    assert found == expected


def test_scaled_gradients_of_weights_are_unscaled(make_trainer: MakeTrainer) -> None:
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))  # type: ignore[attr-defined]
    kept = KeepSaliency()
    monitor = EquilibriumMonitor(instruments="saliency", every_n_steps=1, sinks=[kept])
    make_trainer(monitor, plugins=[half], max_epochs=1).fit(Task(), _loader())
    for name, product in next(_twin()).items():
        rms = np.sqrt(np.mean(product.astype(float) ** 2))
        assert kept.rows[1]["saliency", name].rms == pytest.approx(rms, rel=0.05)


def _fit(make_trainer: MakeTrainer, task: Task, *callbacks: L.Callback) -> tuple[Any, ...]:
    L.seed_everything(11, verbose=False)
    trainer = make_trainer(*callbacks, max_epochs=EPOCHS)
    trainer.fit(task, _loader())
    states = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    return task.state_dict(), states, task.losses, torch.get_rng_state()


@pytest.mark.parametrize("make", [lambda: Task(noisy=True), GAN])
def test_the_watched_run_is_the_unwatched_run(
    make: Callable[[], Task], make_trainer: MakeTrainer
) -> None:
    instruments = ["magnitudes", "neurons", Saliency(activations=True)]
    monitor = EquilibriumMonitor(sinks=[], instruments=instruments, every_n_steps=1)
    plain, watched = _fit(make_trainer, make()), _fit(make_trainer, make(), monitor)
    torch.testing.assert_close(watched, plain, rtol=0, atol=0)
    assert "net.1" in set(monitor.history_of("saliency").name)
    assert len(monitor.history_of("neurons"))


def test_a_failing_product_costs_one_record_of_this_instrument(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    products, calls = GradientWatch.saliency, []

    def broken(self: GradientWatch, parameters: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise MemoryError("no room for a product")
        return products(self, parameters)

    monkeypatch.setattr(GradientWatch, "saliency", broken)
    monitor = EquilibriumMonitor(
        sinks=[], instruments=["magnitudes", "saliency"], kinds="weight", every_n_steps=1
    )
    with pytest.warns(UserWarning, match="instrument saliency: MemoryError: no room for a product"):
        make_trainer(monitor, max_epochs=1).fit(Task(), _loader())
    assert monitor.history_of("saliency").step.unique().tolist() == [1, 2, 4, 5]
    assert monitor.history.step.unique().tolist() == list(range(6))


def _ddp(path: Path) -> None:
    options = {"instruments": Saliency(activations=True)}
    train(path, Exact(), watch=options, devices=2, strategy="ddp")


def test_two_ranks_record_what_one_process_does(ranks: Ranks, tmp_path: Path) -> None:
    ranks(_ddp, tmp_path)
    train(tmp_path / "alone", Exact(), watch={"instruments": Saliency(activations=True)}, devices=1)
    alone, together = (
        pd.read_parquet(run / "0" / "jaynes" / "_saliency").drop(columns="run")
        for run in (tmp_path / "alone", tmp_path)
    )
    assert alone.step.unique().tolist() == [1, 2, 3]
    weights = "kind == 'saliency' and variable == 'w·∂L/∂w'"
    pd.testing.assert_frame_equal(together.query(weights), alone.query(weights), check_exact=True)
    # A rank's own loss is its size times as large a share of all: the law is the same.
    ours, theirs = (each.query("name == 'even'") for each in (together, alone))
    assert len(theirs) == 3
    assert ours.n.tolist() == theirs.n.tolist()
    np.testing.assert_allclose(ours.log_std, theirs.log_std, rtol=1e-9)
