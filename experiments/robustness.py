"""Measure how much of a trained classifier's accuracy is left when images or weights are damaged.

Nothing is trained again, and no label is used but to count right answers.  All damage is seeded.

=============  =======================================================  ====================
name           damage                                                   its strength s
=============  =======================================================  ====================
``plain``      none
``noise``      Gaussian noise on every pixel                            its deviation, in
                                                                        those of the data
``impulse``    pixels become −2 or +2 deviations, all channels alike    share of the pixels
``occlusion``  a square somewhere becomes 0, the mean of the data       its side's share
``contrast``   images shrink towards their own mean, by 1 − s           0 … 1
``pruned``     the smallest weights of the whole network become 0       share of the weights
``bits``       weights are rounded to ``2^(b−1) − 1`` equal steps on    b
               each side of 0, up to the greatest of each tensor
=============  =======================================================  ====================

Weights are the parameters of two or more dimensions: no biases, no norms' scales.  (Corruptions as
in Hendrycks and Dietterich, arXiv 1903.12261; strengths are ours, in units of normalised images.)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from experiments.check import number_above, positive_int, share

__all__ = ["CORRUPTIONS", "DAMAGE", "Robustness", "pruned", "robustness", "rounded"]

Images = Float[Tensor, "batch channels height width"]
Corruption = Callable[[Images, float, torch.Generator], Images]
_Batches = Sequence[tuple[Images, Int64[Tensor, " batch"]]]


def _noise(images: Images, strength: float, generator: torch.Generator) -> Images:
    return images + strength * torch.randn(images.shape, generator=generator).to(images)


def _impulse(images: Images, strength: float, generator: torch.Generator) -> Images:
    batch, _, height, width = images.shape
    drawn = torch.rand(2, batch, 1, height, width, generator=generator).to(images)
    return torch.where(drawn[0] < strength, torch.where(drawn[1] < 0.5, -2.0, 2.0), images)


def _occlusion(images: Images, strength: float, generator: torch.Generator) -> Images:
    batch, _, height, width = images.shape
    hidden = images.new_ones((), dtype=torch.bool)
    for size, dim in ((height, 2), (width, 3)):
        side = round(strength * size)
        first = torch.randint(size - side + 1, (batch, 1), generator=generator).to(images.device)
        place = torch.arange(size, device=images.device) - first
        inside = (place >= 0) & (place < side)
        hidden = hidden & inside.unflatten(1, (1, size, 1) if dim == 2 else (1, 1, size))
    return torch.where(hidden, 0.0, images)


def _contrast(images: Images, strength: float, generator: torch.Generator) -> Images:
    mean = images.mean((1, 2, 3), keepdim=True)
    return images - strength * (images - mean)


#: What is done to images, by name.
CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {"noise": _noise, "impulse": _impulse, "occlusion": _occlusion, "contrast": _contrast}
)
#: The strengths that are measured where nobody chooses; eleven passes over the images in all.
DAMAGE: Mapping[str, Sequence[float]] = MappingProxyType(
    {
        "noise": (0.5, 1.0),
        "impulse": (0.2,),
        "occlusion": (0.5,),
        "contrast": (0.8,),
        "pruned": (0.5, 0.8, 0.9),
        "bits": (8, 4),
    }
)


def robustness(
    model: nn.Module,
    batches: Iterable[tuple[Images, Int64[Tensor, " batch"]]],
    *,
    damage: Mapping[str, Sequence[float]] = DAMAGE,
    seed: int = 0,
) -> dict[str, float]:
    """Return a classifier's accuracy under each damage; the model is as before afterwards.

    Each damage draws from a generator of its own with the same seed, so that models that are shown
    the same batches are damaged alike.  The global random state does not change.

    Args:
        model: images in, logits out; it is evaluated in `eval` mode.
        batches: normalised images with their labels, on the model's device.
        damage: strengths by the names of the table above.
        seed: of the damage to images.

    Returns:
        Shares of right answers as ``plain``, ``noise_0.5``, ``bits_4`` and so on.

    Raises:
        ValueError: for an unknown damage, a strength out of its range, or no image.
    """
    _check(damage)
    with torch.random.fork_rng(), torch.no_grad(), _evaluated(model):
        given = list(batches)
        if not sum(len(labels) for _, labels in given):
            raise ValueError("robustness needs at least one image, got none")
        scores = {"plain": _accuracy(model, given)}
        for name, strengths in damage.items():
            for strength in strengths:
                scores[f"{name}_{strength:g}"] = _damaged(model, given, name, strength, seed)
    return scores


def _check(damage: Mapping[str, Sequence[float]]) -> None:
    known = (*CORRUPTIONS, "pruned", "bits")
    for name, strengths in damage.items():
        if name not in known:
            raise ValueError(f"there is no damage {name!r}; known are {', '.join(known)}")
        for strength in strengths:
            if name == "bits":
                if positive_int("bits", strength) < 2:
                    raise ValueError(f"bits must be at least 2, got {strength}")
            elif name != "noise":
                share(name, strength)
            elif strength != 0:
                number_above(name, strength, 0)


def _damaged(model: nn.Module, batches: _Batches, name: str, strength: float, seed: int) -> float:
    if name in CORRUPTIONS:
        generator = torch.Generator().manual_seed(seed)
        corrupt = CORRUPTIONS[name]
        return _accuracy(model, ((corrupt(x, strength, generator), y) for x, y in batches))
    weights = [each for each in model.parameters() if each.dim() >= 2]
    changed = pruned(weights, strength) if name == "pruned" else rounded(weights, int(strength))
    with _replaced(weights, changed):
        return _accuracy(model, batches)


def _accuracy(model: nn.Module, batches: Iterable[tuple[Images, Int64[Tensor, " batch"]]]) -> float:
    right = number = 0
    for images, labels in batches:
        right += int((model(images).argmax(-1) == labels).sum())
        number += len(labels)
    return right / number


def pruned(weights: Sequence[Tensor], portion: float) -> list[Tensor]:
    """Return copies in which the smallest magnitudes of all tensors together are 0.

    Args:
        weights: of a network.
        portion: of their elements that become 0, rounded to a whole number; of equal magnitudes
            any.
    """
    everything = torch.cat([each.detach().abs().flatten() for each in weights])
    smallest = everything.topk(round(portion * everything.numel()), largest=False).indices
    kept = torch.ones_like(everything, dtype=torch.bool)
    kept[smallest] = False
    parts = kept.split([each.numel() for each in weights])
    return [each.detach() * part.view_as(each) for each, part in zip(weights, parts, strict=True)]


def rounded(weights: Sequence[Tensor], bits: int) -> list[Tensor]:
    """Return copies rounded to the values of signed integers of so many bits, scaled by tensor.

    The scale is ``max|w| / (2^(bits − 1) − 1)``, symmetric around 0.
    """
    most = 2 ** (bits - 1) - 1
    scales = [each.detach().abs().amax() / most for each in weights]
    # Of a tensor of zeros the scale is 0, and so is what it is rounded to.
    return [
        (each.detach() / scale.clamp(min=torch.finfo(scale.dtype).tiny)).round() * scale
        for each, scale in zip(weights, scales, strict=True)
    ]


@contextmanager
def _replaced(weights: Sequence[Tensor], others: Sequence[Tensor]) -> Iterator[None]:
    before = [each.detach().clone() for each in weights]
    try:
        for each, other in zip(weights, others, strict=True):
            each.copy_(other)
        yield
    finally:
        for each, old in zip(weights, before, strict=True):
            each.copy_(old)


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    training = [each for each in model.modules() if each.training]
    model.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True


class Robustness(L.Callback):
    """Logs `robustness` on the test split after the model was tested, as ``robust/<name>``.

    Args:
        images: so many of the first test images at least, in whole batches, where there are so
            many; bounds the cost.
        damage: strengths by name.
        seed: of the damage to images.

    Raises:
        ValueError: for an unknown damage, or a number or strength out of its range.
    """

    def __init__(
        self,
        *,
        images: int = 2000,
        damage: Mapping[str, Sequence[float]] = DAMAGE,
        seed: int = 0,
    ) -> None:
        self.images = positive_int("images", images)
        _check(damage)
        self.damage, self.seed = damage, seed

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, and log beside what the test has logged."""
        # Before the iterator is made, which draws from the global generator.
        with torch.random.fork_rng():
            batches = list(self._batches(trainer, pl_module))
        scores = robustness(pl_module, batches, damage=self.damage, seed=self.seed)
        for name, score in scores.items():
            pl_module.log(f"robust/{name}", score, sync_dist=True)

    def _batches(self, trainer: L.Trainer, module: L.LightningModule) -> Iterator[Any]:
        loader: Any = trainer.test_dataloaders
        seen = 0
        for images, labels in loader:
            if seen >= self.images:
                return
            seen += len(labels)
            yield images.to(module.device), labels.to(module.device)
