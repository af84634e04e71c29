"""`watch` in loops as people write them: the watched loop is the unwatched one."""

import copy
import gc
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from jaynes_callbacks import EquilibriumMonitor, Recorder, watch
from jaynes_callbacks.run.loop import LoopWatch
from jaynes_callbacks.run.optimizers import Rounds
from jaynes_callbacks.sinks.dataset import DatasetSink
from tests.operators import Recording

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
ACCUMULATED = 4


class Net(nn.Module):
    """A module ReLU, a functional GELU, and a block whose forward is computed again."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.block = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(dropout))
        self.last = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.first(x))
        again = self.training
        return self.last(checkpoint(self.block, x, use_reentrant=False) if again else self.block(x))


def seeded(dropout: float = 0.0) -> Net:
    torch.manual_seed(7)
    return Net(dropout)


def batches(number: int = 24) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(3)
    return [
        (torch.randn(8, 16, generator=source), torch.randint(4, (8,), generator=source))
        for _ in range(number)
    ]


class Project:
    """A loop as its user writes it: accumulation, autocast, clipping, evaluation, a checkpoint."""

    def __init__(self) -> None:
        self.model = seeded(dropout=0.2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 6)
        self.losses: list[float] = []

    def train(self, begin: int, end: int) -> None:
        for number in range(begin, end):
            x, y = batches()[number]
            self.model.train()
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(self.model(x), y)
            (loss / ACCUMULATED).backward()
            if (number + 1) % ACCUMULATED == 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()
            if number % 5 == 0:
                self.model.eval()
                with torch.no_grad():
                    self.losses.append(float(self.model(x).sum()))
            self.losses.append(float(loss.detach()))

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def watched(project: Project, folder: Path, **options: Any) -> LoopWatch:
    own = {"every_n_steps": 1, "iota_every_n_batches": 3, "sinks": [DatasetSink()]}
    return watch(project.model, project.optimizer, dirpath=folder, **{**own, **options})


def assert_same_project(one: Project, other: Project) -> None:
    torch.testing.assert_close(one.state(), other.state(), rtol=0, atol=0)
    assert one.losses == other.losses


# The watched loop is the unwatched one ------------------------------------------------------------


@pytest.mark.parametrize("instruments", ["magnitudes", ["magnitudes", "gradients", "neurons"]])
def test_a_foreign_loop_runs_as_before(instruments: Any, tmp_path: Path) -> None:
    plain = Project()
    plain.train(0, 24)
    draws = torch.get_rng_state()

    project = Project()
    with watched(project, tmp_path, instruments=instruments) as handle:
        project.train(0, 24)
    assert torch.equal(torch.get_rng_state(), draws)
    assert_same_project(project, plain)
    assert handle.history.step.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]
    names = ["first.weight", "block.0.weight", "last.weight", "gelu", "block.1"]
    assert handle.history[handle.history.step == 3].name.tolist() == names
    assert len(pd.read_parquet(tmp_path / "jaynes")) == len(handle.history)
    # Neither evaluation nor what is computed again: 32 x 8 values of one forward in the first
    # record, and then of all, for each of them is followed by a step with a record.
    counted = handle.history[handle.history.name == "block.1"]
    assert (counted.n + counted.zeros).tolist() == [256, *[1024 - 256], *5 * [1024]]


def test_a_loop_that_is_resumed_from_the_middle_is_the_same_loop(tmp_path: Path) -> None:
    whole = Project()
    with watched(whole, tmp_path / "whole") as uninterrupted:
        whole.train(0, 24)

    first = Project()
    handle = watched(first, tmp_path / "parts")
    first.train(0, 12)
    torch.save((first.state(), handle.state_dict(), torch.get_rng_state()), tmp_path / "state.pt")
    first.train(12, 17)  # Lost: the resumed loop begins from the checkpoint.
    handle.close()

    second = Project()
    resumed = watched(second, tmp_path / "parts")
    state, of_watch, draws = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load(state)
    resumed.load_state_dict(of_watch)
    torch.set_rng_state(draws)
    with resumed:
        second.train(12, 24)
    torch.testing.assert_close(second.state(), whole.state(), rtol=0, atol=0)
    expected = uninterrupted.history.drop(columns="run")
    pd.testing.assert_frame_equal(resumed.history.drop(columns="run"), expected)
    kept = pd.read_parquet(tmp_path / "parts/jaynes")
    # Records are fitted in groups, which differ by where the loop was cut: seen to differ by 1e-16.
    assert kept.gap.tolist() == pytest.approx(expected.gap.tolist(), rel=1e-12)
    with pytest.raises(RuntimeError, match="before the model's first forward"):
        resumed.load_state_dict(of_watch)


class Task(L.LightningModule, Net):
    """The same model under Lightning."""

    def __init__(self) -> None:
        L.LightningModule.__init__(self)
        net = seeded()
        self.first, self.block, self.last = net.first, net.block, net.last

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.mark.parametrize("accumulated", [1, ACCUMULATED])
def test_records_are_those_of_the_same_model_under_lightning(
    accumulated: int, make_trainer: MakeTrainer
) -> None:
    names = ["magnitudes", "gradients", "neurons"]
    options: dict[str, Any] = {
        "instruments": names,
        "every_n_steps": 2,
        "iota_every_n_batches": 3,
        "sinks": [],
    }
    data = batches(2 * accumulated)
    x, y = (torch.cat(each) for each in zip(*data, strict=True))
    monitor, task = EquilibriumMonitor(**options), Task()
    trainer = make_trainer(
        monitor, max_epochs=2, accumulate_grad_batches=accumulated, precision="bf16-mixed"
    )
    trainer.fit(task, DataLoader(TensorDataset(x, y), 8))

    model = seeded()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with watch(model, optimizer, **options) as handle:
        for _ in range(2):
            for number, (x, y) in enumerate(data, start=1):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = nn.functional.cross_entropy(model(x), y)
                (loss / accumulated).backward()
                if number % accumulated == 0:
                    optimizer.step()
                    optimizer.zero_grad()
            handle.epoch_ends()
    torch.testing.assert_close(model.state_dict(), task.state_dict(), rtol=0, atol=0)
    for name in ("magnitudes", "neurons"):
        expected = monitor.history_of(name).drop(columns="run")
        pd.testing.assert_frame_equal(
            handle.history_of(name).drop(columns="run"), expected, check_exact=True
        )
    # A loop does not know its last batch, so gradients are recorded by step alone.
    of_gradients = monitor.history_of("gradients").drop(columns="run")
    ours = handle.history_of("gradients").drop(columns="run")
    expected = of_gradients[of_gradients.step.isin(ours.step)].reset_index(drop=True)
    assert len(ours)
    pd.testing.assert_frame_equal(ours, expected, check_exact=True)


def test_steps_that_are_not_due_only_count() -> None:
    def operators(handle_of: Callable[[Net, Optimizer], Any]) -> list[Counter[str]]:
        model = seeded()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        steps = []
        with handle_of(model, optimizer):
            for x, y in batches(6):
                with Recording() as mode:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    optimizer.step()
                steps.append(mode.ops)
        return steps

    options: dict[str, Any] = {"every_n_steps": 6, "iota_every_n_batches": 3, "sinks": []}
    plain = operators(lambda model, optimizer: nullcontext())
    seen = operators(lambda model, optimizer: watch(model, optimizer, **options))
    extra = [step - without for step, without in zip(seen, plain, strict=True)]
    # Step 0 and 6 are due; activations are counted in batches 1 (the first since) and 3.
    assert extra[0]
    assert extra[5]
    for batch in (2, 4):
        assert not extra[batch], batch
    for batch in (1, 3):
        counted = {"jaynes_callbacks.count_.default", "jaynes_callbacks.count_product_.default"}
        assert set(extra[batch]) <= {*counted, "aten.detach.default"}
        assert sum(extra[batch][name] for name in counted) == 2


# Models as loops have them ------------------------------------------------------------------------


def train(model: Any, optimizer: Optimizer, steps: int = 4) -> None:
    for x, y in batches(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("compiled", ["wrapper", "in place"])
def test_a_compiled_model_has_the_names_of_the_model(compiled: str) -> None:
    torch._dynamo.reset()
    histories = []
    for how in ("eager", compiled):
        model: Any = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(5))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if how == "wrapper":
            model = torch.compile(model, backend="aot_eager")
        elif how == "in place":
            model.compile(backend="aot_eager")
        with watch(model, optimizer, sinks=[], every_n_steps=2) as handle:
            train(model, optimizer)
        assert not any(module._forward_pre_hooks for module in model.modules())
        # The shapes of compiled activations may be symbols, and are not read.
        histories.append(handle.history.drop(columns=["run", "shape"]))
    assert histories[0].name.unique().tolist() == ["0.weight", "2.weight", "1"]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_a_model_that_is_compiled_behind_the_watch_is_said_to_be_unseen() -> None:
    torch._dynamo.reset()
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = watch(model, optimizer, sinks=[], every_n_steps=None)
    train(torch.compile(model, backend="aot_eager"), optimizer)
    handle.close()
    assert "no forward of the model was seen" in handle.coverage.note
    assert handle.history.step.unique().tolist() == [0, 4]


def test_parts_of_a_model_share_a_batch() -> None:
    torch.manual_seed(0)
    parts = {"body": nn.Sequential(nn.Linear(16, 32), nn.ReLU()), "head": Head()}
    parameters = [each for part in parts.values() for each in part.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    with watch(parts, optimizer, sinks=[], every_n_steps=2) as handle:
        train(lambda x: parts["head"](parts["body"](x)), optimizer)
    names = ["body.0.weight", "head.last.weight", "body.1", "head.gelu"]
    for step in (0, 2, 4):
        rows = handle.history[handle.history.step == step]
        assert rows.name.tolist() == names, step
    with watch(list(parts.values()), optimizer, sinks=[]) as handle:
        train(lambda x: parts["head"](parts["body"](x)), optimizer)
    assert set(handle.history.name) == {"0.0.weight", "1.last.weight", "0.1", "1.gelu"}


class Head(nn.Module):
    """Applies a function in the forward that the loop calls."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.gelu(x))


def test_averaged_and_pickled_models_are_not_watched() -> None:
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, sinks=[], every_n_steps=1) as handle:
        averaged = torch.optim.swa_utils.AveragedModel(model)
        pickled = pickle.loads(pickle.dumps(model))
        for x, _ in batches(3):
            for each in (averaged, pickled, copy.deepcopy(model)):
                each.train()(x)
        assert not len(handle.history)
        train(model, optimizer, 2)
        averaged.update_parameters(model)
    assert handle.history.step.unique().tolist() == [0, 1, 2]


def test_the_whole_model_computed_again_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, sinks=[], every_n_steps=1) as handle:
        train(lambda x: checkpoint(model, x, use_reentrant=False), optimizer)
    counted = handle.history[handle.history.name == "1"]
    assert (counted.n + counted.zeros).tolist() == [256] * 4


# Optimizers as loops have them --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counted", "order", "complete"),
    [
        (None, "ababab", 3),
        (None, "aaaabaaaab", 8),  # Extra steps of one count each.
        (None, "aaa", 3),  # The last is complete only when it is known that no other follows.
        ("b", "aaaabaaaab", 2),
        ("a", "ababa", 3),
    ],
)
def test_when_a_step_of_several_optimizers_is_complete(
    counted: str | None, order: str, complete: int
) -> None:
    rounds, steps = Rounds(["a", "b"], counted), 0
    for name in order:
        if rounds.is_complete_before(name):
            rounds.begin()
            steps += 1
        if rounds.is_complete_after(name):
            rounds.begin()
            steps += 1
    steps += rounds.counts_all and rounds.has_begun
    assert steps == complete


def test_a_game_of_two_networks() -> None:
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16))
    critic = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    of_maker = torch.optim.SGD(maker.parameters(), lr=0.1)
    of_critic = torch.optim.SGD(critic.parameters(), lr=0.1)
    models, optimizers = {"maker": maker, "critic": critic}, {"m": of_maker, "c": of_critic}
    for chosen in (None, "m"):
        with watch(
            models,
            optimizers,
            sinks=[],
            every_n_steps=1,
            step=chosen,
            instruments=["magnitudes", "gradients"],
        ) as handle:
            for x, _ in batches(3):
                fake = maker(torch.randn(8, 4))
                of_critic.zero_grad()
                (critic(x).mean() - critic(fake.detach()).mean()).backward()
                of_critic.step()
                of_maker.zero_grad()
                critic(fake).mean().backward()
                of_maker.step()
        assert handle.history.step.unique().tolist() == [0, 1, 2, 3]
        if chosen is None:
            gradients = handle.history_of("gradients")
            last = gradients[(gradients.step == 3) & (gradients.kind == "update")]
            assert set(last.name) == {
                "maker.0.weight", "maker.2.weight", "critic.0.weight"
            }  # fmt: skip
    with pytest.raises(ValueError, match=r"one of the optimizers, \['m', 'c'\], got 0"):
        watch(models, optimizers, step=0)


def test_an_optimizer_for_each_parameter_that_steps_in_the_backward_pass() -> None:
    model = seeded()
    optimizers = {
        name: torch.optim.SGD([parameter], lr=0.1) for name, parameter in model.named_parameters()
    }

    def step(name: str) -> Callable[[Tensor], None]:
        return lambda _: optimizers[name].step() or optimizers[name].zero_grad()

    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(step(name))
    with watch(model, optimizers, sinks=[], every_n_steps=1) as handle:
        for x, y in batches(3):
            nn.functional.cross_entropy(model(x), y).backward()
    assert handle.history.step.unique().tolist() == [0, 1, 2, 3]


class Wrapper(Optimizer):
    """As Accelerate's: steps only where gradients are complete."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.calls = optimizer, 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        return self.optimizer.step(closure) if self.calls % 2 == 0 else None

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad()


def test_steps_that_a_wrapper_skips_do_not_count() -> None:
    model = seeded()
    optimizer = Wrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with watch(model, optimizer, sinks=[], every_n_steps=1) as handle:
        train(model, optimizer)
    assert handle.history.step.unique().tolist() == [0, 1, 2]


def test_a_closure_that_is_evaluated_again_is_counted_once() -> None:
    model = seeded()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    with watch(
        model, optimizer, sinks=[], every_n_steps=1, instruments=["magnitudes", "gradients"]
    ) as handle:
        for x, y in batches(2):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)
    counted = handle.history[handle.history.name == "block.1"]
    assert (counted.n + counted.zeros).tolist() == [256, 256]
    assert "the optimizer's closure computes them" in handle.coverage.note
    assert not len(handle.history_of("gradients"))


def test_what_a_grad_scaler_does_to_gradients() -> None:
    histories = []
    for scale in (1.0, 1024.0):
        model = seeded()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        with watch(model, optimizer, sinks=[], every_n_steps=1, instruments="gradients") as handle:
            for x, y in batches(3):
                optimizer.zero_grad()
                scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
                scaler.step(optimizer)
                scaler.update()
        assert handle.coverage.note == ""
        histories.append(handle.history.drop(columns="run"))
    # The scaler has unscaled them before it calls the optimizer.
    pd.testing.assert_frame_equal(*histories, rtol=1e-5)
    handle = watch(model, optimizer, sinks=[], every_n_steps=1, instruments="gradients")
    model(x).mean().backward()
    # What the scaler leaves with a fused optimizer; this one refuses it, after the hook.
    optimizer.grad_scale = torch.tensor(1024.0)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="Expected grad_scale"):
        optimizer.step()
    assert "multiplied by the loss scale" in handle.coverage.note
    handle.close()


# Wrong arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizer": "adam"}, TypeError, "needs torch.optim.Optimizer objects"),
        ({"optimizer": []}, ValueError, "one or more different optimizers"),
        ({"model": []}, ValueError, "one or more different modules"),
        ({"model": [3]}, TypeError, "must be a torch module, got 3"),
        ({"loggers": "tensorboard"}, TypeError, "expected a logger with log_metrics"),
        ({"iota_from": "validation"}, ValueError, "iota_from must be 'train' in a loop"),
        ({"every_n_steps": 0}, ValueError, "every_n_steps must be a positive integer"),
        ({"include": "nothing"}, ValueError, "include pattern 'nothing' matches no"),
        ({"every_step": 3}, TypeError, "unexpected keyword argument 'every_step'"),
    ],
)
def test_wrong_arguments_raise_where_they_are_given(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = seeded()
    given = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    with pytest.raises(error, match=message):
        watch(**{**given, **change})
    assert not any(module._forward_pre_hooks for module in model.modules())


# Ends of loops ------------------------------------------------------------------------------------


def hooks(model: nn.Module, optimizer: Optimizer) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called")
    of_model = sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
    of_steps = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return of_model + sum(map(len, of_steps))


@pytest.mark.parametrize("error", [RuntimeError("broken batch"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_hooks_are_gone_and_records_kept_after_an_interruption(
    error: BaseException, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def explode(*_: Any) -> None:
        if handle._host.step == 2:
            raise error

    of_place = model.block if where == "forward" else model.last
    register = of_place.register_forward_pre_hook if where == "forward" else (
        model.last.weight.register_hook
    )  # fmt: skip
    registered = register(explode)
    with (
        pytest.raises(type(error)),
        watch(model, optimizer, dirpath=tmp_path, every_n_steps=1, sinks=[DatasetSink()]) as handle,
    ):
        train(model, optimizer)
    registered.remove()
    assert hooks(model, optimizer) == 0
    assert torch.overrides._get_current_function_mode() is None
    assert handle.history.step.unique().tolist() == [0, 1, 2]
    assert len(list((tmp_path / "jaynes").glob("part-*.parquet"))) == 3
    train(model, optimizer)
    assert handle.history.step.unique().tolist() == [0, 1, 2]


def test_a_forward_that_fails_and_is_caught_costs_only_itself() -> None:
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, sinks=[], every_n_steps=1) as handle:
        for x, y in batches(3):
            for wrong in (x[:, :3], x):
                failing = pytest.raises(RuntimeError, match="shapes cannot be multiplied")
                with failing if wrong is not x else nullcontext():
                    loss = nn.functional.cross_entropy(model(wrong), y)
                assert torch.overrides._get_current_function_mode() is None
            loss.backward()
            optimizer.step()
    assert handle.history.step.unique().tolist() == [0, 1, 2, 3]


def test_a_watch_ends_with_its_optimizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def forgetful() -> Net:
        model = seeded()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watch(model, optimizer, dirpath=tmp_path, sinks=[DatasetSink()], every_n_steps=3)
        train(model, optimizer)
        return model

    gc.disable()  # No cycle keeps it.
    try:
        model = forgetful()
    finally:
        gc.enable()
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert pd.read_parquet(tmp_path / "jaynes").step.unique().tolist() == [0, 3, 4]


def test_a_handle_can_be_copied_and_says_what_it_has(tmp_path: Path) -> None:
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = watch(model, optimizer, dirpath=tmp_path, sinks=[DatasetSink()])
    assert repr(handle) == "<LoopWatch: magnitudes, scales; no record yet>"
    with pytest.raises(FileNotFoundError, match="no dataset to report on"):
        handle.report()
    train(model, optimizer, 2)
    again = pickle.loads(pickle.dumps(handle))
    assert again.history.equals(handle.history)
    assert handle.numbers["equilibrium/weight/gap_median"] > 0
    page = handle.report()
    assert page == tmp_path / "jaynes-report.html"
    assert "first.weight" in page.read_text()
    handle.close()
    handle.close()
    assert repr(handle).startswith("<LoopWatch: magnitudes, scales; 5 streams, 13 rows to step 2")
    assert handle.coverage.watched


def test_the_start_is_the_model_as_it_is_when_training_begins() -> None:
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, sinks=[]) as handle:
        with torch.no_grad():
            model.first.weight.mul_(3)
        start = Recorder(model, kinds="weight")
        with start:
            expected = start.snapshot(0)
        train(model, optimizer, 2)
    assert handle.start[0].gap == expected[0].gap
    assert handle.start[0].max == expected[0].max


CLOSED = """
import torch
from jaynes_callbacks import watch

model = torch.nn.Linear(16, 32)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
watched = watch(model, optimizer, sinks=[])
model(torch.randn(8, 16)).square().mean().backward()
optimizer.step()
watched.close()
"""


def test_a_closed_watch_is_silent_when_python_ends(tmp_path: Path) -> None:
    # The names of a script may outlive the modules that it has imported.
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "watching 1 weight" in done.stderr
    assert "Exception ignored" not in done.stderr


# Several ranks ------------------------------------------------------------------------------------


def _ddp(folder: str) -> Any:
    rank = torch.distributed.get_rank()
    model = seeded()
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    with watch(
        parallel, optimizer, dirpath=folder, sinks=[DatasetSink()], every_n_steps=1
    ) as handle:
        for number, (x, y) in enumerate(batches(6)):
            # A step for every two batches; rank 1 lacks the first.
            if rank == 1 and number == 0:
                continue
            last = number % 2 == 1
            with nullcontext() if last else parallel.no_sync():
                nn.functional.cross_entropy(parallel(x[rank::2]), y[rank::2]).backward()
            if last:
                optimizer.step()
                optimizer.zero_grad()
    history = handle.history[["step", "name", "n", "zeros", "gap"]]
    return history, str(handle.dataset), model.last.weight.detach()


def test_ranks_record_together_and_one_writes(
    ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    (first, dataset, weights), (second, none, others) = ranks(_ddp, str(tmp_path / "run"))
    assert torch.equal(weights, others)
    pd.testing.assert_frame_equal(first, second)
    assert first.step.unique().tolist() == [0, 1, 2, 3]
    assert "first.weight" in set(first.name)
    counted = first[first.name == "block.1"]
    # The first record waits for a step of all ranks, and has the three forwards before it.
    assert (counted.n + counted.zeros).tolist() == [384, 512, 512]
    assert (dataset, none) == (str(tmp_path / "run/jaynes"), "None")
    assert len(pd.read_parquet(dataset)) == len(first)
