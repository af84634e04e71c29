from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.classifier import Classifier
from experiments.models import MLP

ADAMW = partial(torch.optim.AdamW, lr=1e-2)


def classifier(**options: Any) -> Classifier:
    torch.manual_seed(2)
    net = MLP((1, 4, 4), 3, width=16, depth=1)
    return Classifier(**{"net": net, "classes": 3, "optimizer": ADAMW, **options})


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 1, 4, 4, generator=source), torch.arange(size) % 3) for size in (8, 5)
    ]


def fitted(make_trainer: Any, model: Classifier, batches: Any, **options: Any) -> L.Trainer:
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)
    trainer: L.Trainer = make_trainer(max_epochs=1, **options)
    trainer.fit(model, loader, loader)
    return trainer


def test_scores_are_those_of_all_images_together(make_trainer: Any, batches: Any) -> None:
    model = classifier()
    trainer = fitted(make_trainer, model, batches)
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    with torch.no_grad():
        logits = model(images)
    loss = nn.functional.cross_entropy(logits, labels)
    accuracy = (logits.argmax(1) == labels).float().mean()
    assert trainer.callback_metrics["val/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert trainer.callback_metrics["val/accuracy"] == pytest.approx(accuracy.item(), rel=1e-6)
    scored = trainer.test(model, DataLoader(batches, batch_size=None), verbose=False)[0]
    assert scored == pytest.approx({"test/loss": loss.item(), "test/accuracy": accuracy.item()})


def test_training_is_scored_too(make_trainer: Any, batches: Any) -> None:
    metrics = fitted(make_trainer, classifier(), batches).callback_metrics
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= set(metrics)


def test_training_lowers_the_loss(make_trainer: Any, batches: Any) -> None:
    model = classifier()
    images, labels = batches[0]
    before = nn.functional.cross_entropy(model(images), labels).item()
    fitted(make_trainer, model, batches * 20)
    assert nn.functional.cross_entropy(model(images), labels).item() < before / 2


def test_labels_are_smoothed_in_training_only(make_trainer: Any, batches: Any) -> None:
    frozen = partial(torch.optim.SGD, lr=0.0)
    model = classifier(label_smoothing=0.3, optimizer=frozen)
    metrics = fitted(make_trainer, model, batches[:1]).callback_metrics
    images, labels = batches[0]
    with torch.no_grad():
        logits = model(images)
    smooth = nn.functional.cross_entropy(logits, labels, label_smoothing=0.3)
    torch.testing.assert_close(metrics["train/loss"], smooth)
    torch.testing.assert_close(metrics["val/loss"], nn.functional.cross_entropy(logits, labels))


def test_the_optimizer_gets_every_parameter() -> None:
    model = classifier()
    (optimizer,), schedulers = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))
    assert schedulers == []


def test_the_scheduler_steps_every_epoch(make_trainer: Callable[..., L.Trainer]) -> None:
    rates: list[float] = []

    class Rates(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = classifier(scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5))
    images = TensorDataset(torch.zeros(12, 1, 4, 4), torch.zeros(12).long())
    make_trainer(Rates(), max_epochs=3).fit(model, DataLoader(images, 4))
    assert rates == pytest.approx([rates[0], rates[0] / 2, rates[0] / 4])


def test_what_a_scheduler_refuses_is_named() -> None:
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gama=0.5)
    with pytest.raises(ValueError, match=r"^the scheduler cannot be built with \{'step_size'"):
        classifier(scheduler=scheduler).configure_optimizers()


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"lr": "abc"}, {"momentum": 0.9}])
def test_what_an_optimizer_refuses_is_named(wrong: dict[str, Any]) -> None:
    model = classifier(optimizer=partial(torch.optim.AdamW, **wrong))
    with pytest.raises(ValueError, match=r"^the optimizer cannot be built with \{'"):
        model.configure_optimizers()


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"label_smoothing": 1.0}])
def test_wrong_values_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
        classifier(**wrong)
