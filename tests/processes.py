"""Run Python in processes of their own, forked from one that has imported what takes seconds.

`python` behaves as `subprocess.run([sys.executable, ...])` does: the process has its own folder,
environment and output.  Only the imports that it would start with are there already.  What a test
says of imports, or of the start of Python itself, needs `subprocess`.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

__all__ = ["PRELOADED", "Running", "in_a_process", "preload", "python", "running"]

#: What the process that others are forked from imports.  It calls nothing: it has one thread.
PRELOADED = [
    "lightning",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "torchmetrics",
    "pandas",
    "pyarrow.parquet",
    "scipy.optimize",
    "matplotlib.figure",
    "jaynes_callbacks.run.monitor",
    "sklearn.datasets",
    "experiments.run",
    "pytest",
    "hypothesis",
]

Finished = subprocess.CompletedProcess[str]


def preload() -> None:
    """Let the process that others are forked from import what takes seconds."""
    multiprocessing.set_forkserver_preload(PRELOADED)


class Running:
    """A process that has been started.

    Attributes:
        process: can be asked whether it lives, and be killed.
        output: the file that it prints to.
        complaints: the file of its standard error.
    """

    def __init__(self, process: ForkServerProcess, output: Path, complaints: Path) -> None:
        self.process, self.output, self.complaints = process, output, complaints

    def wait(self, seconds: float) -> Finished:
        """Wait for its end, and return what it said; kill it where it takes longer."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise subprocess.TimeoutExpired(self.process.name, seconds, *self._said())
        return Finished(self.process.name, self.process.exitcode, *self._said())

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait until something has happened, however busy the machine, or it cannot any more."""
        while not reached():
            if self.process.exitcode is not None and not reached():
                status, said = self.process.exitcode, self._said()
                raise AssertionError(f"it ended before, with status {status}: {said}")
            time.sleep(0.01)

    def _said(self) -> tuple[str, str]:
        return self.output.read_text(), self.complaints.read_text()


@contextlib.contextmanager
def in_a_process(
    function: Callable[..., object],
    *arguments: object,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    painted: bool = True,
    fitted: bool = True,
) -> Iterator[Running]:
    """Call a function of a module in a process, which is killed if it outlives the context.

    Unless `painted`, the figures of its runs are left blank; unless `fitted`, laws are unfitted.
    """
    with TemporaryDirectory() as folder:
        said = Path(folder, "output"), Path(folder, "complaints")
        for file in said:
            file.touch()
        environment = dict(os.environ if env is None else env)
        process = multiprocessing.get_context("forkserver").Process(
            target=_begin,
            args=(function, arguments, Path(cwd).resolve(), environment, said, painted, fitted),
        )
        process.start()
        try:
            yield Running(process, *said)
        finally:
            process.kill()
            process.join()


def running(
    *arguments: object,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    painted: bool = True,
    fitted: bool = True,
) -> contextlib.AbstractContextManager[Running]:
    """Start ``python``, whose arguments are ``-m`` and a module, ``-c`` and code, or a file."""
    words = [str(argument) for argument in arguments]
    return in_a_process(_python, words, cwd=cwd, env=env, painted=painted, fitted=fitted)


def python(
    *arguments: object,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    painted: bool = True,
    fitted: bool = True,
    timeout: float = 240,
) -> Finished:
    """Run ``python`` to its end, and return its exit status and what it said; see `running`."""
    with running(*arguments, cwd=cwd, env=env, painted=painted, fitted=fitted) as process:
        return process.wait(timeout)


def _begin(
    function: Callable[..., object],
    arguments: Sequence[object],
    cwd: Path,
    environment: Mapping[str, str],
    said: Sequence[Path],
    painted: bool,
    fitted: bool,
) -> None:
    import torch

    # Whoever starts the suite in a shell's background has it ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, file in enumerate(said, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    torch.set_num_threads(1)
    if not painted:
        from tests.blank import leave_figures_blank

        leave_figures_blank(pytest.MonkeyPatch())
    if not fitted:
        from tests.rough import leave_laws_unfitted

        leave_laws_unfitted(pytest.MonkeyPatch())
    function(*arguments)


def _python(arguments: Sequence[str]) -> None:
    what, *rest = arguments
    if what in ("-m", "-c"):
        subject, *rest = rest
        sys.path.insert(0, "")
    if what == "-m":
        sys.argv = [subject, *rest]
        runpy.run_module(subject, run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *rest]
        exec(compile(subject, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [what, *rest]
        sys.path.insert(0, str(Path(what).resolve().parent))
        runpy.run_path(what, run_name="__main__")
