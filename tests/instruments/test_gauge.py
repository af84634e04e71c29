"""Every instrument is held to what its schema says of rescaled neurons.

The weights and biases into each hidden ReLU are multiplied by positive numbers, and the weights out
of it divided by them: the network computes the same function.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jaynes_callbacks import Recorder
from jaynes_callbacks.instruments import KNOWN
from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import ColumnType

#: Rows to which a declaration does not apply, by instrument: the scales themselves.
_OTHER_KINDS = {"scales": {"scale"}}
#: Curves that change only in networks of another make than this one, or are asked for besides.
_EXEMPT: dict[str, set[str]] = {}
#: Values are binned by the octave's sixteenth, so that rounding moves a few of them.
_TOLERANCE = 2e-3


#: Instruments of maps alone.
_OF_MAPS = {"coalitions"}


def _network(*, rescaled: bool, of_maps: bool) -> nn.Sequential:
    """A network in double precision, of layers of one width, with its neurons rescaled or not."""
    torch.manual_seed(0)
    width = 3 if of_maps else 48
    hidden = [
        nn.Conv2d(width, width, 3, padding=1) if of_maps else nn.Linear(width, width)
        for _ in range(3)
    ]
    model = nn.Sequential(hidden[0], nn.ReLU(), hidden[1], nn.ReLU(), hidden[2]).double()
    if of_maps:
        model = nn.Sequential(nn.Unflatten(1, (3, 4, 4)), *model, nn.Flatten()).double()
    if rescaled:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for into, out in pairwise(hidden):
                scales = torch.randn(width, generator=generator, dtype=torch.float64).exp()
                into.weight *= scales.view(-1, *[1] * (into.weight.dim() - 1))
                into.bias *= scales
                out.weight /= scales.view(-1, *[1] * (into.weight.dim() - 2))
    return model


def _record(name: str, *, rescaled: bool) -> Frame[Any]:
    """Record one step of training, so small that weights stay rescaled ones of each other."""
    model = _network(rescaled=rescaled, of_maps=name in _OF_MAPS)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 48, generator=generator, dtype=torch.float64)
    labels = torch.randint(10, (64,), generator=generator)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1e-6)
    # Magnitudes have the columns of the core from scales.
    recorder = Recorder(model, instruments=list({name: 1, "scales": 1}), min_size=0)
    recorder.attach()
    recorder.batch_begins(ShownBatch(x, labels))
    recorder.open(one_forward=True)
    loss = nn.functional.cross_entropy(model(x), labels)
    recorder.close()
    loss.backward()
    recorder.before_step(parameters)
    optimizer.step()
    frame = recorder.record(1)[name]
    recorder.detach()
    return frame


@pytest.mark.fitted
@pytest.mark.parametrize("name", KNOWN)
def test_columns_are_invariant_if_they_say_so(name: str) -> None:
    plain, rescaled = _record(name, rescaled=False), _record(name, rescaled=True)
    assert len(plain) > 0
    assert plain["name"].tolist() == rescaled["name"].tolist()
    rows = ~np.isin(plain["kind"], list(_OTHER_KINDS.get(name, ())))
    known = set()
    for column in plain.schema.columns:
        if column.type not in (ColumnType.REAL, ColumnType.INTEGER):
            continue
        one, other = (np.ma.filled(each[column.name][rows], np.nan) for each in (plain, rescaled))
        if np.isfinite(one.astype(float)).any():
            known.add(column.name)
        if plain.schema.is_invariant(column.name):
            np.testing.assert_allclose(
                other, one, rtol=_TOLERANCE, atol=_TOLERANCE, err_msg=column.name
            )
        elif column.curve and column.name in known and column.name not in _EXEMPT.get(name, ()):
            assert not np.allclose(other, one, rtol=0.01, atol=0, equal_nan=True), column.name
    declared = {each for each in known if plain.schema.is_invariant(each)}
    assert declared or not plain.schema.invariant
