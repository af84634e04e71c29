"""Train any network that returns logits, as a LightningModule."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassAccuracy

from experiments.check import positive_int, share

__all__ = ["Batch", "Classifier"]

Batch = tuple[Float[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]


class Classifier(L.LightningModule):
    """Minimises cross entropy; logs loss and accuracy per epoch: ``train/``, ``val/``, ``test/``.

    Args:
        net: images in, logits out.
        classes: number of classes.
        optimizer: makes an optimizer of parameters, as Hydra's ``_partial_: true`` gives it.
        scheduler: makes a schedule of the optimizer's learning rate, stepped every epoch; None
            leaves it as it is.
        label_smoothing: share of the target spread over all classes, in training only.

    Raises:
        ValueError: for a wrong number of classes or label smoothing outside [0, 1).

    Example:
        >>> from functools import partial
        >>> from torch.optim import AdamW
        >>> from experiments.models import MLP
        >>> model = Classifier(MLP((1, 8, 8), 10), classes=10, optimizer=partial(AdamW, lr=1e-3))
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        classes: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        positive_int("classes", classes)
        self.net = net
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.label_smoothing = share("label_smoothing", label_smoothing)
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        return self._step("train", self.train_accuracy, batch, self.label_smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of the validation split."""
        self._step("val", self.val_accuracy, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of the test split."""
        self._step("test", self.test_accuracy, batch)

    def _step(
        self, stage: str, accuracy: MulticlassAccuracy, batch: Batch, label_smoothing: float = 0.0
    ) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        accuracy(logits, labels)
        per_epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(labels)}
        self.log(f"{stage}/loss", loss, sync_dist=True, **per_epoch)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=stage == "val", **per_epoch)
        return loss

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Make the optimizer of all parameters, and its schedule.

        Raises:
            ValueError: if either does not accept its arguments.
        """
        optimizer = _made("optimizer", self.make_optimizer, self.parameters())
        if self.make_scheduler is None:
            return [optimizer], []
        return [optimizer], [_made("scheduler", self.make_scheduler, optimizer)]


def _made(what: str, make: Callable[[Any], Any], of: Any) -> Any:
    try:
        return make(of)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        given = getattr(make, "keywords", {})
        raise ValueError(f"the {what} cannot be built with {given}: {error}") from error
