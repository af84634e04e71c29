from typing import Any

import pytest
import torch

from experiments.data import ImageDataModule, Split, Splits


class Blocks(ImageDataModule):
    """100 two-channel images; counts how often it is read."""

    reads = 0

    def read(self) -> Splits:
        self.reads += 1
        source = torch.Generator().manual_seed(1)
        images = torch.randint(256, (100, 2, 3, 3), generator=source, dtype=torch.uint8)
        images[:, 1] //= 4
        labels = torch.arange(100) % 5
        whole = Split(images, labels)
        parts = torch.arange(100).split([70, 20, 10])
        return Splits(*(whole.take(part) for part in parts))


def blocks(**options: Any) -> Blocks:
    return Blocks(**{"shape": [2, 3, 3], "classes": 5, "batch_size": 32, **options})


@pytest.fixture
def data() -> Blocks:
    module = blocks()
    module.setup("fit")
    return module


def test_images_are_read_once(data: Blocks) -> None:
    data.setup("test")
    assert data.reads == 1


def test_the_train_split_is_normalised_per_channel(data: Blocks) -> None:
    images = torch.cat([images for images, _ in data.train_dataloader()])
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)


def test_other_splits_are_normalised_by_the_train_splits_constants(data: Blocks) -> None:
    images = torch.cat([images for images, _ in data.val_dataloader()])
    raw = data.splits.validation.images.double()
    mean = data.splits.train.images.double().mean((0, 2, 3))[:, None, None]
    std = data.splits.train.images.double().transpose(0, 1).flatten(1).std(1)[:, None, None]
    torch.testing.assert_close(images.double(), (raw - mean) / std, atol=1e-5, rtol=0)


def test_training_is_shuffled_by_the_seed_and_the_rest_is_not(data: Blocks) -> None:
    def labels(loader: Any) -> list[int]:
        torch.manual_seed(4)
        return torch.cat([labels for _, labels in loader]).tolist()  # type: ignore[no-any-return]

    shuffled = labels(data.train_dataloader())
    assert shuffled == labels(data.train_dataloader())
    assert shuffled != data.splits.train.labels.tolist()
    assert labels(data.val_dataloader()) == data.splits.validation.labels.tolist()
    assert labels(data.test_dataloader()) == data.splits.test.labels.tolist()


def test_labels_are_shuffled_of_the_train_split_only(data: Blocks) -> None:
    shuffled = blocks(shuffle_labels=True)
    shuffled.setup("fit")
    before, after = data.splits, shuffled.splits
    assert torch.equal(after.train.images, before.train.images)
    assert after.train.labels.bincount().tolist() == before.train.labels.bincount().tolist()
    # Of labels without any relation a fifth agrees by chance.
    assert (after.train.labels == before.train.labels).float().mean() < 0.4
    for part in ("validation", "test"):
        assert torch.equal(getattr(after, part).labels, getattr(before, part).labels)


def test_shuffled_labels_follow_the_splits_seed(data: Blocks) -> None:
    def labels(split_seed: int) -> list[int]:
        torch.manual_seed(split_seed + 17)  # the global generator must not matter
        module = blocks(shuffle_labels=True, split_seed=split_seed)
        module.setup("fit")
        return module.splits.train.labels.tolist()

    assert labels(1) == labels(1)
    assert labels(1) != labels(2)


def test_batches_have_the_chosen_size(data: Blocks) -> None:
    assert [len(labels) for _, labels in data.train_dataloader()] == [32, 32, 6]


def test_flat_images_do_not_divide_by_zero() -> None:
    class Flat(Blocks):
        def read(self) -> Splits:
            flat = Split(torch.full((4, 2, 3, 3), 7, dtype=torch.uint8), torch.zeros(4).long())
            return Splits(flat, flat, flat)

    module = Flat(shape=[2, 3, 3], classes=5)
    module.setup("fit")
    images, _ = next(iter(module.train_dataloader()))
    assert torch.equal(images, torch.zeros(4, 2, 3, 3))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"classes": "ten"}, "classes must be a positive integer, got 'ten'"),
        ({"shape": [1, 0, 8]}, "shape must be a positive integer, got 0"),
        ({"shuffle_labels": "yes"}, "shuffle_labels must be true or false, got 'yes'"),
        ({"validation_share": 1.0}, "validation_share must be a number"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        blocks(**wrong)
