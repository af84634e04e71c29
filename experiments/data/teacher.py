"""Random images labelled by a fixed network, the teacher: data whose true labels are known."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from experiments.check import positive_int
from experiments.data.images import ImageDataModule, Split, Splits, hold_out

__all__ = ["Teacher"]


class Teacher(ImageDataModule):
    """Gaussian noise as images, labelled by a network that is never trained.

    Each pixel is standard normal, so that nothing can be learnt but the teacher.  Each of its
    logits is centred over the images, so that no class has most of them.  A fifth is held out for
    testing, and `validation_share` of the rest for validation.

    Args:
        teacher: images in, logits out.
        law: draws the teacher's weights, which a student might recover.
        images: their number.
        **options: as for `ImageDataModule`; `split_seed` also seeds images and teacher.

    Raises:
        ValueError: for a wrong number of images.

    Example:
        >>> from functools import partial
        >>> from experiments.init import he_scaled, lognormal
        >>> from experiments.models import MLP
        >>> data = Teacher(
        ...     teacher=MLP((1, 4, 4), 3, width=8),
        ...     law=partial(he_scaled, law=partial(lognormal, sigma=0.65)),
        ...     images=100, shape=(1, 4, 4), classes=3,
        ... )
        >>> data.read().test.images.shape
        torch.Size([20, 1, 4, 4])
    """

    TEST_SHARE = 0.2

    def __init__(
        self,
        *,
        teacher: nn.Module,
        law: Callable[[nn.Module], None],
        images: int,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.teacher = teacher
        self.law = law
        self.images = positive_int("images", images)

    def read(self) -> Splits:
        """Draw the teacher and the images, and label them; the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.split_seed)
            self.law(self.teacher)
            images = torch.randn(self.images, *self.shape)
        whole = Split(images, self._labels(images))
        train, test = hold_out(whole, self.TEST_SHARE, self.split_seed)
        return Splits(*hold_out(train, self.validation_share, self.split_seed + 1), test)

    @torch.no_grad()
    def _labels(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.cat([self.teacher(some) for some in images.split(1000)])
        return (logits - logits.mean(0)).argmax(-1)
