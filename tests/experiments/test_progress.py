import io
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
from rich.console import Console

from experiments.progress import RunBar

pytestmark = pytest.mark.usefixtures("unfitted")


class Scored(L.Callback):
    """Logs a score that rises by one tenth per epoch."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("score", (trainer.current_epoch + 1) / 10)


class Stop(L.Callback):
    """Breaks off in the second epoch."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("stop")


@pytest.fixture
def terminal() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def bar(terminal: io.StringIO) -> RunBar:
    console = Console(file=terminal, width=100, force_terminal=True, color_system=None)
    return RunBar({"score": "points", "absent": "never"}, console=console)


Make = Callable[..., L.Trainer]


def trained(make_trainer: Make, bar: RunBar, task: Any, loader: Any, **options: Any) -> None:
    trainer = make_trainer(bar, Scored(), enable_progress_bar=True, **options)
    trainer.fit(task, loader)


def test_one_bar_ends_at_the_last_epoch_with_its_numbers(
    make_trainer: Make, bar: RunBar, terminal: io.StringIO, task: Any, loader: Any
) -> None:
    trained(make_trainer, bar, task, loader, max_epochs=3)
    last = [line for line in terminal.getvalue().splitlines() if "epoch" in line][-1]
    assert "epoch 3/3" in last
    assert "points 0.300" in last
    assert "never" not in last


def test_no_end_is_no_error(
    make_trainer: Make, bar: RunBar, terminal: io.StringIO, task: Any, loader: Any
) -> None:
    trained(make_trainer, bar, task, loader, max_epochs=-1, max_steps=8)
    assert "epoch 1/?" in terminal.getvalue()


def test_without_a_terminal_only_the_end_is_written(
    make_trainer: Make, terminal: io.StringIO, task: Any, loader: Any
) -> None:
    bar = RunBar(console=Console(file=terminal, width=100))
    trained(make_trainer, bar, task, loader, max_epochs=3)
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("epoch 3/3")


def test_other_processes_draw_nothing(
    make_trainer: Make, bar: RunBar, terminal: io.StringIO, task: Any, loader: Any
) -> None:
    trainer = make_trainer(bar, enable_progress_bar=True)
    bar.disable()
    trainer.fit(task, loader)
    assert "epoch" not in terminal.getvalue()
    bar.enable()
    trainer.fit_loop.max_epochs = 3
    trainer.fit(task, loader)
    assert "epoch" in terminal.getvalue()


def test_an_exception_gives_the_cursor_back(
    make_trainer: Make, bar: RunBar, terminal: io.StringIO, task: Any, loader: Any
) -> None:
    trainer = make_trainer(bar, Stop(), enable_progress_bar=True)
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(task, loader)
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert terminal.getvalue().rfind(shown) > terminal.getvalue().rfind(hidden) >= 0


def test_the_models_own_words_go_above_the_bar(bar: RunBar, terminal: io.StringIO) -> None:
    bar.print("hello", 3)
    assert terminal.getvalue().strip() == "hello 3"
