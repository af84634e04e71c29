"""Ctrl-C at any moment: nothing is left on the model, and no record is half written."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments.saliency import Saliency
from jaynes_callbacks.interrupts import delayed_interrupts
from jaynes_callbacks.sinks.dataset import DatasetSink
from tests.conftest import SmallTask, quiet_trainer, small_loader

pytestmark = pytest.mark.usefixtures("unfitted")

_HANDLER = signal.default_int_handler


@pytest.fixture(autouse=True)
def _python_handles_interrupts() -> Iterator[None]:
    """Lightning leaves SIGINT ignored once it was interrupted."""
    before = signal.signal(signal.SIGINT, _HANDLER)
    yield
    signal.signal(signal.SIGINT, before)


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_comes_after_the_block() -> None:
    done: list[str] = []

    def work() -> None:
        with delayed_interrupts():
            _press()
            done.append("inside")
        done.append("after")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inside"]
    assert signal.getsignal(signal.SIGINT) is _HANDLER


def test_a_second_interrupt_comes_at_once() -> None:
    done: list[str] = []

    def work() -> None:
        with delayed_interrupts():
            _press()
            done.append("once")
            _press()
            done.append("twice")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["once"]
    assert signal.getsignal(signal.SIGINT) is _HANDLER


def test_blocks_within_blocks_are_whole() -> None:
    done: list[str] = []

    def work() -> None:
        with delayed_interrupts():
            with delayed_interrupts():
                _press()
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner", "outer"]


def test_an_error_of_the_block_goes_with_the_interrupt() -> None:
    def work() -> None:
        with delayed_interrupts():
            _press()
            raise ValueError("the block's own")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_another_way_to_handle_interrupts_is_left_alone(handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    with delayed_interrupts():
        assert signal.getsignal(signal.SIGINT) is handler
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_leave_signals_alone() -> None:
    seen: list[Any] = []

    def work() -> None:
        with delayed_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [_HANDLER]


# Whole runs ---------------------------------------------------------------------------------------


class Presses(DatasetSink):
    """Is interrupted while it writes the record of a step."""

    def write(self, records: Any, history: Any) -> None:
        if records["step"][0] == 3:
            _press()
        super().write(records, history)


def test_the_record_that_is_being_written_is_whole(tmp_path: Path) -> None:
    torch.manual_seed(7)
    monitor = EquilibriumMonitor(sinks=[Presses()], every_n_steps=1)
    _fit(SmallTask(), tmp_path, monitor)
    steps = monitor.history.step.unique().tolist()
    assert 3 in steps
    assert _parts(tmp_path) == steps


class Twice(nn.ReLU):
    """Is interrupted amid the registration of its hooks, as it were."""

    def register_forward_hook(self, *args: Any, **options: Any) -> Any:
        handle = super().register_forward_hook(*args, **options)
        _press()
        return handle


def test_hooks_come_off_if_the_interrupt_comes_while_they_are_put_on(tmp_path: Path) -> None:
    torch.manual_seed(7)
    task = SmallTask()
    task.act = Twice()
    _fit(task, tmp_path, EquilibriumMonitor(sinks=[]))
    _assert_free(task)


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        raised: what came out of `fit`, None for a whole run.
        pressed: whether the interrupt came while it ran.
        seconds: that it took.
    """

    raised: str | None
    pressed: bool
    seconds: float


def _fit(
    task: SmallTask,
    folder: Path,
    *callbacks: L.Callback,
    after: float | None = None,
    **options: Any,
) -> Outcome:
    """Train, and be interrupted after so many seconds."""
    signal.signal(signal.SIGINT, _HANDLER)
    pressed = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        pressed.set()
        signal.pthread_kill(main, signal.SIGINT)

    timer = threading.Timer(1e6 if after is None else after, press)
    resumed = options.pop("ckpt_path", None)
    trainer = quiet_trainer(
        folder, *callbacks, enable_checkpointing=bool(options.pop("checkpoints", False)), **options
    )
    raised, begin = None, time.monotonic()
    timer.start()
    try:
        trainer.fit(task, small_loader(), ckpt_path=resumed)
    except (KeyboardInterrupt, SystemExit) as error:
        raised = type(error).__name__
    seconds = time.monotonic() - begin
    try:
        timer.cancel()
        timer.join()
    except KeyboardInterrupt:
        pressed.clear()
    signal.signal(signal.SIGINT, _HANDLER)
    return Outcome(raised, pressed.is_set(), seconds)


def _parts(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("jaynes/part-*.parquet"))


def _assert_free(model: nn.Module) -> None:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")
    assert not [kind for each in model.modules() for kind in kinds if vars(each)[kind]]
    assert torch.overrides._get_current_function_mode() is None


def _open_files(folder: Path) -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:
            continue
    return [path for path in found if path.startswith(str(folder))]


def _run(folder: Path, after: float | None, watched: bool, **options: Any) -> Any:
    """Train a fresh network with checkpoints; return it, its monitor and the outcome."""
    torch.manual_seed(7)
    task = SmallTask()
    instruments = ["magnitudes", "neurons", Saliency(activations=True)]
    monitor = EquilibriumMonitor(
        instruments=instruments, sinks=[DatasetSink()], every_n_steps=1, iota_every_n_batches=1
    )
    saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=4)
    callbacks = [monitor, saving] if watched else [saving]
    outcome = _fit(task, folder, *callbacks, after=after, checkpoints=True, **options)
    return task, monitor, outcome


def _check_resumed(folder: Path, steps: list[int]) -> None:
    """Go on from the last checkpoint, watched and unwatched: to the same end, with all records."""
    last = folder / "last.ckpt"
    if not last.exists():
        return
    alone, _, _ = _run(folder / "alone", None, watched=False, ckpt_path=last)
    again, monitor, _ = _run(folder, None, watched=True, ckpt_path=last)
    for name, value in alone.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert monitor.history.step.unique().tolist() == steps
    assert _parts(folder) == steps


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
@pytest.mark.filterwarnings("ignore")
def test_interrupts_at_random_moments(tmp_path: Path) -> None:
    """An unwatched twin beside each run shows what is Lightning's own doing."""
    limit = sys.getrecursionlimit()
    _, monitor, outcome = _run(tmp_path / "whole", None, watched=True)
    _, _, of_twin = _run(tmp_path / "twin", None, watched=False)
    steps = monitor.history.step.unique().tolist()
    moments, swallowed = random.Random(3), {True: 0, False: 0}
    for number in range(int(os.environ.get("JAYNES_INTERRUPTS", "40"))):
        share = moments.random()
        for watched, whole in ((True, outcome), (False, of_twin)):
            folder = tmp_path / f"{number}-{watched}"
            task, monitor, ended = _run(folder, share * whole.seconds, watched)
            swallowed[watched] += ended.pressed and ended.raised is None
            _assert_free(task)
            assert sys.getrecursionlimit() == limit
            assert not _open_files(folder)
            if watched:
                history = monitor.history
                recorded = history.step.unique().tolist() if len(history) else []
                assert _parts(folder) == recorded, number
                _check_resumed(folder, steps)
    # An interrupt may come after the last batch, or while a destructor runs.
    assert swallowed[True] <= swallowed[False] + 2, swallowed
