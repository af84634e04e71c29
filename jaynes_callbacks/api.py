"""The one-call entry for a notebook: tensors or a checkpoint in, records out."""

from collections.abc import Mapping
from os import PathLike

from torch import Tensor

from jaynes_callbacks.instruments.record import Record, Records, Stream
from jaynes_callbacks.instruments.summary import Moment, summarise
from jaynes_callbacks.instruments.tally import reason_not_to_count, tally_of_tensors

__all__ = ["analyse"]


def analyse(tensors: Tensor | Mapping[str, Tensor] | str | PathLike[str]) -> Records:
    """Measure how the magnitudes of tensors are distributed.

    A record's `gap_se` is cluster-robust, the rows (first dimension) being the clusters, where a
    tensor has two or more dimensions and at least ten rows; else its values count as independent.
    There is no `verdict`, which takes a start and an end.

    Args:
        tensors: one tensor of weights, or several by name, such as a model's ``state_dict()``.
            What has no magnitudes in a mapping (an integer or complex tensor, one on the meta
            device) gets a record whose status says so.  Or the path of a checkpoint, of any size:
            of its tensors those are measured that a training run would watch (see
            `jaynes_callbacks.files.measuring.measure_checkpoint`, which also takes patterns).

    Returns:
        One record per tensor, in order.

    Raises:
        TypeError: for anything else than tensors, and for a single tensor without magnitudes.
        FileNotFoundError, CheckpointError: for a path at which there is nothing to measure.

    Example:
        >>> import torch
        >>> weights = torch.randn(500, 200, generator=torch.Generator().manual_seed(0))
        >>> (record,) = analyse(weights)
        >>> record.best_family, round(record.gap, 1)
        ('half_normal', 0.2)
    """
    if isinstance(tensors, str | PathLike):
        from jaynes_callbacks.files.measuring import measure_checkpoint

        return measure_checkpoint(tensors)
    named = {"tensor": tensors} if isinstance(tensors, Tensor) else tensors
    _check(named)
    refused = {
        name: reason for name, tensor in named.items() if (reason := reason_not_to_count(tensor))
    }
    if refused and isinstance(tensors, Tensor):
        raise TypeError(
            f"magnitudes are taken of a real floating-point tensor that holds values, got one "
            f"{refused['tensor']}; convert it (a complex tensor by .abs()) and call again"
        )
    measured = _measure({name: tensor for name, tensor in named.items() if name not in refused})
    return Records(
        measured.get(name) or Record(name=name, shape=tuple(tensor.shape), status=refused[name])
        for name, tensor in named.items()
    )


def _check(named: Mapping[str, Tensor]) -> None:
    if not isinstance(named, Mapping):
        raise TypeError(
            "expected a tensor, a mapping of names to tensors or the path of a checkpoint, got "
            f"{type(named).__name__}; for a module pass its state_dict()"
        )
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"expected a tensor under every name, got {type(tensor).__name__} under {name!r}; "
                "for an array use torch.from_numpy"
            )


def _measure(named: Mapping[str, Tensor]) -> dict[str, Record]:
    streams = [Stream("weight", name, tuple(tensor.shape)) for name, tensor in named.items()]
    (records,) = summarise([Moment(streams, tally_of_tensors(list(named.values())))])
    # A verdict compares two moments of a training run; here is but one.
    return {row.name: row.replace(verdict="") for row in records}
