"""What each instrument costs: batches of training that one record takes, fits included.

A plain loop with a recorder, in which every fifth step is recorded: the forward of that step is
listened to, gradients are shown, and the record is computed.  Time is that of the processor, on one
core, so that other programs disturb little.  The watched loop must end with the weights of the
unwatched one, to the bit.

    python benchmarks/bench_instruments.py
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from turns import BATCH, cnn, mlp, quiet

from jaynes_callbacks import Recorder
from jaynes_callbacks.instruments.alignment import MOST_SAMPLES, Alignment
from jaynes_callbacks.instruments.coalitions import Coalitions
from jaynes_callbacks.instruments.energy import Energy
from jaynes_callbacks.instruments.gradients import Gradients
from jaynes_callbacks.instruments.jacobian import Jacobian
from jaynes_callbacks.instruments.magnitudes import Magnitudes
from jaynes_callbacks.instruments.neurons import Neurons
from jaynes_callbacks.instruments.operators import Operators
from jaynes_callbacks.instruments.saliency import Saliency
from jaynes_callbacks.instruments.scales import Scales


def _probes() -> tuple[Tensor, Tensor]:
    """Samples whose tangent kernels are computed."""
    return torch.randn(MOST_SAMPLES, 784), torch.randint(10, (MOST_SAMPLES,))


STEPS, EVERY, ROUNDS = 20, 5, 5
#: Most that a record with scales may take, of one without.
SCALES_LIMIT = 1.3
INSTRUMENTS: dict[str, Callable[[], Any]] = {
    "magnitudes": Magnitudes,
    "magnitudes and scales": lambda: [Magnitudes(), Scales()],
    "gradients": Gradients,
    "neurons": Neurons,
    "saliency": Saliency,
    "energy": Energy,
    "coalitions": Coalitions,
    "operators": Operators,
    "jacobian": Jacobian,
    "saliency, with activations": partial(Saliency, activations=True),
    "alignment, 256 samples": lambda: Alignment(probes=_probes()),
}


class Loop(NamedTuple):
    """A finished loop: processor seconds, and the weights it ended with."""

    seconds: float
    weights: Tensor


def loop(build: Callable[[], nn.Module], instrument: Any) -> Loop:
    """Train for some steps, recorded now and then if there is an instrument."""
    torch.manual_seed(1)
    model = build()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    images, labels = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))
    recorder = Recorder(model, instruments=instrument) if instrument is not None else None
    if recorder is not None:
        recorder.attach()
    begin = time.process_time()
    for step in range(1, STEPS + 1):
        due = recorder if step % EVERY == 0 else None
        if due is not None:
            due.open(one_forward=True)
        loss = nn.functional.cross_entropy(model(images), labels)
        if due is not None:
            due.close()
        optimizer.zero_grad()
        loss.backward()
        if due is not None:
            due.before_step(parameters)
        optimizer.step()
        if due is not None:
            due.record(step)
    seconds = time.process_time() - begin
    if recorder is not None:
        recorder.detach()
    return Loop(seconds, torch.cat([each.detach().flatten() for each in parameters]))


def cost(build: Callable[[], nn.Module], instrument: Callable[[], Any]) -> float:
    """Return what one record takes, in batches of training."""
    watched, alone = loop(build, instrument()), loop(build, None)
    if not torch.equal(watched.weights, alone.weights):
        raise AssertionError("the watched loop ended with other weights than the unwatched one")
    return (watched.seconds / alone.seconds - 1) * EVERY


def main() -> None:
    """Print one line per model and instrument."""
    quiet()
    print(f"batches of training that a record takes; median and range of {ROUNDS} rounds")
    for build in (mlp, cnn):
        print(build.__name__)
        ratios = [
            cost(build, INSTRUMENTS["magnitudes and scales"]) / cost(build, Magnitudes)
            for _ in range(ROUNDS + 1)
        ][1:]
        print(f"  a record with scales, times without: {statistics.median(ratios):.2f}")
        assert statistics.median(ratios) < SCALES_LIMIT, "scales cost more than 0.3 of a record"
        for name, instrument in INSTRUMENTS.items():
            # The first round of all imports and compiles.
            costs = [cost(build, instrument) for _ in range(ROUNDS + 1)][1:]
            print(
                f"  {name:28} {statistics.median(costs):5.2f}  "
                f"({min(costs):.2f} to {max(costs):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
