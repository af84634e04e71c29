"""Carry out one run: build its parts, fit, test, report, and write the result."""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from experiments.build import Parts, build
from experiments.closing import report
from experiments.errors import ConfigError, one_sentence
from experiments.result import FILE, Result, choices, finished, identity, newest_dataset, versions
from experiments.resuming import last_checkpoint, note_beginning
from jaynes_callbacks.instruments.record import aggregates

__all__ = ["run"]


def run(cfg: DictConfig) -> float | None:
    """Train, score, and print what the monitor recorded; or say that this was done before.

    Args:
        cfg: composed from ``conf/train.yaml``.

    Returns:
        The metric that ``optimized_metric`` names; None if it names none.

    Raises:
        ConfigError: for a wrong configuration, in one sentence.
    """
    folder = Path(cfg.paths.output_dir)
    before = finished(cfg, folder)
    if before is not None:
        # On one line at any width, so that the path can be copied.
        told = f"finished before, skipped: {folder / FILE}"
        Console().print(told, highlight=False, markup=False, soft_wrap=True)
        return _chosen(before.metrics, cfg.optimized_metric)
    began = time.monotonic()
    with _known_warnings():
        parts = build(cfg)
        metrics = _fit(parts, _start(cfg, folder, writes=parts.trainer.is_global_zero))
        if cfg.test:
            metrics |= _test(parts)
    if parts.trainer.is_global_zero:
        report(Console(), metrics, parts)
        seconds = time.monotonic() - began
        records = newest_dataset(folder)
        Result(identity(cfg), choices(), metrics, records, seconds, versions()).write(folder)
    return _chosen(metrics, cfg.optimized_metric)


def _start(cfg: DictConfig, folder: Path, *, writes: bool) -> str | None:
    """Return the checkpoint that the run goes on from: its own last one, or that of the user.

    Args:
        cfg: of the run.
        folder: of the run.
        writes: whether this rank writes down that the run begins.
    """
    last = last_checkpoint(cfg, folder)
    if last is not None:
        told = f"interrupted before, goes on from {last}"
        Console().print(told, highlight=False, markup=False, soft_wrap=True)
        return str(last)
    if writes:
        note_beginning(cfg, folder)
    chosen: str | None = cfg.ckpt_path
    return chosen


def _fit(parts: Parts, ckpt_path: str | None) -> dict[str, float]:
    try:
        parts.trainer.fit(parts.model, datamodule=parts.data, ckpt_path=ckpt_path)
    except Exception:
        # Before the first update only arguments can be wrong; later it is a defect, whose
        # traceback is needed.
        if parts.trainer.global_step > 0:
            raise
        with one_sentence("before training could begin"):
            raise
    return _numbers(parts.trainer.callback_metrics) or _scored_again(parts)


def _scored_again(parts: Parts) -> dict[str, float]:
    """Return the metrics of a run that was killed after its last epoch, whose fit logs nothing."""
    metrics: dict[str, float] = {}
    for monitor in parts.monitors:
        metrics |= aggregates(monitor.end)
    return metrics | _numbers(
        parts.trainer.validate(parts.model, datamodule=parts.data, verbose=False)[0]
    )


def _test(parts: Parts) -> dict[str, float]:
    return _numbers(parts.trainer.test(parts.model, datamodule=parts.data, verbose=False)[0])


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}  # type: ignore[arg-type]


def _chosen(metrics: Mapping[str, float], name: str | None) -> float | None:
    if name is None:
        return None
    if name not in metrics:
        raise ConfigError(
            f"optimized_metric: {name!r} was not logged by this run; "
            f"logged were {', '.join(sorted(metrics)) or 'none'}"
        )
    return metrics[name]


@contextmanager
def _known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # The data lie in memory and a batch is one indexing operation: workers would slow it.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A user of Slurm says launcher=slurm, which calls srun.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        # Lightning's own use of torch; nothing a reader could act on.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
        yield
