"""Checkpoint files as records: what a training run would have recorded of the finished weights."""

import warnings
from collections.abc import Sequence
from itertools import chain
from os import PathLike

import torch

from jaynes_callbacks.files import CheckpointError, open_checkpoint
from jaynes_callbacks.files.survey import Survey
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.watch.selection import MIN_SIZE, Selection

__all__ = ["measure_checkpoint", "reason_for_nothing"]


def measure_checkpoint(
    path: str | PathLike[str],
    *,
    include: Sequence[str] | str = "*",
    exclude: Sequence[str] | str = (),
    min_size: int = MIN_SIZE,
    device: torch.device | str = "cpu",
) -> Records:
    """Measure the weights in a checkpoint, of a network of any size.

    Memory does not grow with the file where its format can be mapped: one slice of a tensor is
    held at a time.

    Args:
        path: a file, an index of shards or a directory of one model.
        include: glob patterns; a tensor must match one.
        exclude: glob patterns; a tensor must match none.
        min_size: tensors with fewer elements are left out.
        device: where values are counted.

    Returns:
        One record per weight of two or more dimensions, tied ones once, in the file's order; their
        `run` is the path.

    Raises:
        FileNotFoundError: if there is no such path.
        CheckpointError: if it is no checkpoint that can be read, or holds nothing to measure.
        ValueError: for a pattern that matches nothing.

    Warns:
        UserWarning: with one sentence for each shard that could not be read.
    """
    selection = Selection.of("weight", include, exclude, min_size)
    survey = Survey(open_checkpoint(path), selection)
    records = Records(chain.from_iterable(survey.records(device=device)))
    if not records:
        raise CheckpointError(reason_for_nothing(survey))
    for problem in survey.problems:
        warnings.warn(problem.reason, stacklevel=2)
    return records


def reason_for_nothing(survey: Survey) -> str:
    """The sentence for a checkpoint of which nothing was measured."""
    path = survey.checkpoint.path
    if survey.problems:
        return survey.problems[0].reason
    if not survey.skipped:
        return f"{path} holds no tensors; expected a model's weights"
    reasons = "; ".join(sorted({each.reason for each in survey.skipped}))
    return (
        f"{path} holds no weight to measure: all {len(survey.skipped)} tensors are left out "
        f"({reasons})"
    )
