"""Inputs and labels of batches as hosts show them; copies of samples, and calls with them."""

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jaynes_callbacks.probes import batches
from jaynes_callbacks.probes.batches import Samples, ShownBatch

X, Y = torch.arange(12.0).view(6, 2), torch.arange(6)


@pytest.mark.parametrize(
    ("batch", "inputs", "labels"),
    [
        ((X, Y), X, Y),
        ([X, Y], X, Y),
        (((X, X), Y), (X, X), Y),
        ({"image": X, "targets": Y}, {"image": X}, Y),
        (UserDict({"ids": X, "mask": X, "labels": Y}), {"ids": X, "mask": X}, Y),
        (X, X, None),
        ((X, X, Y), (X, X, Y), None),
        ((X, "names"), (X, "names"), None),
        ({"image": X, "label": "a name"}, {"image": X, "label": "a name"}, None),
    ],
)
def test_a_batch_of_a_data_loader(batch: Any, inputs: Any, labels: Tensor | None) -> None:
    shown = ShownBatch.of_batch(batch)
    assert shown.labels is labels
    assert not shown.is_in_forward
    assert str(shown.inputs) == str(inputs)


def test_arguments_of_a_call() -> None:
    for args, kwargs in (((X,), {"y": Y}), ((), {"x": X, "labels": Y})):
        shown = ShownBatch.of_call(args, kwargs)
        assert shown.labels is Y
        assert shown.is_in_forward
    assert ShownBatch.of_call((X,), {}).labels is None


class Model(nn.Module):
    def forward(self, x: Tensor, scale: float = 1.0, *, mask: Tensor | None = None) -> Tensor:
        return x * scale if mask is None else x * scale * mask


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X,), {}),
        ((X, 3.0), {}),
        ((), {"x": X, "scale": 3.0}),
        ((X,), {"mask": X}),
        ((), {"image": X}),
    ],
)
def test_samples_call_a_model_as_its_host_does_after_a_checkpoint_too(
    args: tuple[Any, ...], kwargs: dict[str, Any], tmp_path: Any
) -> None:
    shown = ShownBatch.of_call(args, {**kwargs, "labels": Y})
    samples = Samples.of(shown.inputs, Y, 4)
    torch.save(samples.state_dict(), tmp_path / "samples")
    again = Samples.from_state_dict(torch.load(tmp_path / "samples", weights_only=True))
    positional = kwargs.get("image")
    expected = Model()(*args, **kwargs) if positional is None else Model()(positional)
    for each in (samples, again):
        assert torch.equal(each.call(Model()), expected[:4])
        assert torch.equal(each.labels, Y[:4])


def test_copies_do_not_follow_the_batch() -> None:
    x = X.clone()
    samples = Samples.of(x, Y, 4)
    x.zero_()
    assert torch.equal(samples.inputs, X[:4])
    assert samples.inputs.untyped_storage().nbytes() == 4 * 2 * 4


def test_samples_are_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.zeros(100)
    # A sample takes 16 bytes, of which the table is no part.
    monkeypatch.setattr(batches, "MOST_BYTES", 400 + 3 * 16)
    samples = Samples.of((X, table), Y, 5)
    assert len(samples) == 3
    assert samples.inputs[1].shape == (100,)
    monkeypatch.setattr(batches, "MOST_BYTES", 400 + 16)
    with pytest.raises(ValueError, match="two samples or more"):
        Samples.of((X, table), Y, 5)
