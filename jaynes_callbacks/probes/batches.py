"""Tell inputs from labels in a batch of training, and keep copies of some samples."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LABEL_NAMES", "Samples", "ShownBatch"]

#: Names of labels in batches that are mappings, and among the arguments of models.
LABEL_NAMES = ("labels", "label", "targets", "target", "y")
#: Most bytes that copies of samples may take; of larger samples fewer are kept.
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ShownBatch:
    """A batch of training, as its host shows it before the model has seen it.

    Attributes:
        inputs: arguments of the model: a tuple of them, a mapping of them by name, or one argument.
        labels: of the samples; None if they are not known.
        is_in_forward: whether the model has been called and is about to compute its outputs.
    """

    inputs: Any
    labels: Tensor | None = None
    is_in_forward: bool = False

    @classmethod
    def of_batch(cls, batch: Any) -> "ShownBatch":
        """Take what a data loader yields apart: a pair, or a mapping that names its labels.

        Example:
            >>> import torch
            >>> shown = ShownBatch.of_batch({"image": torch.zeros(2, 3), "label": torch.ones(2)})
            >>> shown.inputs, shown.labels
            ({'image': tensor([[0., 0., 0.],
                    [0., 0., 0.]])}, tensor([1., 1.]))
        """
        if isinstance(batch, Mapping):
            return replace(cls.of_call((), batch), is_in_forward=False)
        if isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[1], Tensor):
            return cls(batch[0], batch[1])
        return cls(batch)

    @classmethod
    def of_call(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> "ShownBatch":
        """Take the arguments of a model's forward apart, of which labels have names.

        A loop that computes its loss by itself shows inputs alone.
        """
        name = next((each for each in LABEL_NAMES if isinstance(kwargs.get(each), Tensor)), None)
        others = {key: value for key, value in kwargs.items() if key != name}
        labels = None if name is None else kwargs[name]
        if args and others:
            return cls(_Arguments(tuple(args), others), labels, is_in_forward=True)
        return cls(others if others else tuple(args), labels, is_in_forward=True)


@dataclass(frozen=True)
class _Arguments:
    """Arguments of a call, by place and by name."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Samples:
    """Copies of some samples and of their labels.

    Attributes:
        inputs: as of `ShownBatch`.
        labels: a row for each sample.
    """

    inputs: Any
    labels: Tensor

    @classmethod
    def of(cls, inputs: Any, labels: Tensor, most: int) -> "Samples":
        """Copy the first samples of a batch.

        Args:
            inputs: of which each tensor with as many rows as there are labels is cut.
            labels: of at least one dimension.
            most: samples; fewer if they take more than `MOST_BYTES`.

        Raises:
            ValueError: if no two samples fit.
        """
        rows = len(labels)
        sizes = _bytes_of((inputs, labels), rows)
        kept = min(most, rows, int((MOST_BYTES - sizes.whole) // max(1, sizes.of_sample)))
        if kept < 2:
            raise ValueError(
                f"two samples or more of at most {MOST_BYTES >> 20} MiB are needed, got {rows} of "
                f"{sizes.of_sample / 2**20:.3g} MiB each"
            )

        def copy(tensor: Tensor) -> Tensor:
            cut = tensor[:kept] if _has_rows(tensor, rows) else tensor
            return cut.detach().clone()

        return cls(_mapped(inputs, copy), copy(labels))

    def to(self, device: torch.device | str) -> "Samples":
        """Return the same samples on a device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        return Samples(_mapped(self.inputs, move), move(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def call(self, model: nn.Module) -> Any:
        """Return what a model's forward makes of the inputs.

        Arguments by name are those of the forward, or else there is a single one for its place.

        Raises:
            TypeError: if the forward takes no such arguments.
        """
        inputs = self.inputs
        if isinstance(inputs, _Arguments):
            return model(*inputs.args, **inputs.kwargs)
        if isinstance(inputs, Mapping):
            if not _takes(model, inputs) and len(inputs) == 1:
                return model(*inputs.values())
            return model(**inputs)
        if isinstance(inputs, list | tuple):
            return model(*inputs)
        return model(inputs)

    def state_dict(self) -> dict[str, Any]:
        """Return CPU tensors and builtins, for a checkpoint."""
        kept = self.to("cpu")
        inputs = kept.inputs
        if isinstance(inputs, _Arguments):
            inputs = {"args": inputs.args, "kwargs": dict(inputs.kwargs), "is_call": True}
        return {"inputs": _plain(inputs), "labels": kept.labels}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Samples":
        """Return the samples that were saved."""
        inputs = state["inputs"]
        if isinstance(inputs, Mapping) and inputs.get("is_call") is True:
            inputs = _Arguments(tuple(inputs["args"]), inputs["kwargs"])
        return cls(inputs, state["labels"])


@dataclass
class _Bytes:
    """Bytes of one sample, and of what all samples share."""

    of_sample: float = 0.0
    whole: float = 0.0


def _bytes_of(data: Any, rows: int) -> _Bytes:
    found = _Bytes()

    def add(tensor: Tensor) -> Tensor:
        size = tensor.numel() * tensor.element_size()
        if _has_rows(tensor, rows):
            found.of_sample += size / max(1, rows)
        else:
            found.whole += size
        return tensor

    _mapped(data, add)
    return found


def _has_rows(tensor: Tensor, rows: int) -> bool:
    return tensor.dim() > 0 and len(tensor) == rows


def _mapped(data: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to all tensors of nested arguments."""
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, _Arguments):
        return _Arguments(_mapped(data.args, function), _mapped(data.kwargs, function))
    if isinstance(data, Mapping):
        return {key: _mapped(value, function) for key, value in data.items()}
    if isinstance(data, list | tuple):
        mapped = [_mapped(value, function) for value in data]
        return tuple(mapped) if isinstance(data, tuple) else mapped
    return data


def _plain(data: Any) -> Any:
    """Leave out what a checkpoint of tensors and builtins cannot hold."""
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(_plain(value) for value in data)
    return data if isinstance(data, Tensor | bool | int | float | str) else None


def _takes(model: nn.Module, arguments: Mapping[str, Any]) -> bool:
    """Tell whether a model's forward has arguments of these names, and needs no others."""
    try:
        inspect.signature(model.forward).bind(**arguments)
    except (TypeError, ValueError):
        return False
    return True
