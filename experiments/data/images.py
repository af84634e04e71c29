"""The base of all data sets: images in memory, normalised batch by batch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.check import flag, positive_int, share

__all__ = ["ImageDataModule", "Split", "Splits"]


#: Grey levels of photographs, or numbers of generated images.
Images = UInt8[Tensor, "n channels height width"] | Float[Tensor, "n channels height width"]


class Split(NamedTuple):
    """Images with their labels."""

    images: Images
    labels: Int64[Tensor, " n"]

    def take(self, indices: Tensor) -> "Split":
        """Return the images and labels at some indices."""
        return Split(self.images[indices], self.labels[indices])


class Splits(NamedTuple):
    """The three splits of a data set, which share no image."""

    train: Split
    validation: Split
    test: Split


def hold_out(split: Split, portion: float, seed: int) -> tuple[Split, Split]:
    """Split at random by a seed, independently of the global generator.

    Args:
        split: what is divided.
        portion: of the second part, 0 < portion < 1.
        seed: of the private generator.

    Returns:
        What is left, and what is held out.
    """
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(portion * len(order)))
    return split.take(order[held:]), split.take(order[:held])


def _shuffled(split: Split, seed: int) -> Split:
    """Return the images with their labels permuted."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(split.labels), generator=generator)
    return Split(split.images, split.labels[order])


class ImageDataModule(L.LightningDataModule, ABC):
    """Reads all images once; batches are normalised by the train split's mean and deviation.

    Photographs stay uint8, a quarter of their size as floats.  A batch is one indexing operation,
    so worker processes would only add the cost of moving it.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of classes.
        batch_size: images per batch.
        validation_share: of the training images, held out for validation.
        split_seed: of that division; separate from the run's seed, so that every run of a study
            validates on the same images.
        num_workers: processes that load batches; 0 is fastest for data in memory.
        shuffle_labels: whether the labels of the train split are permuted, by `split_seed`: a
            network can then only memorise the images.  Validation and test keep their labels.

    Raises:
        ValueError: for sizes that are not positive integers or a share outside (0, 1).
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        classes: int,
        batch_size: int = 128,
        validation_share: float = 0.1,
        split_seed: int = 0,
        num_workers: int = 0,
        shuffle_labels: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(positive_int("shape", size) for size in shape)
        self.classes = positive_int("classes", classes)
        self.batch_size = positive_int("batch_size", batch_size)
        self.validation_share = share("validation_share", validation_share)
        self.split_seed = split_seed
        self.num_workers = num_workers
        self.shuffle_labels = flag("shuffle_labels", shuffle_labels)

    @abstractmethod
    def read(self) -> Splits:
        """Return all images; called once."""

    def setup(self, stage: str) -> None:
        """Read the images, unless an earlier stage has."""
        if not hasattr(self, "splits"):
            splits = self.read()
            if self.shuffle_labels:
                splits = splits._replace(train=_shuffled(splits.train, self.split_seed + 2))
            self.splits = splits
            self.mean, self.std = _channel_moments(self.splits.train.images)

    def train_dataloader(self) -> "DataLoader[Split]":
        """Return batches of the train split, shuffled by the global generator."""
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> "DataLoader[Split]":
        """Return batches of the validation split."""
        return self._loader(self.splits.validation)

    def test_dataloader(self) -> "DataLoader[Split]":
        """Return batches of the test split."""
        return self._loader(self.splits.test)

    def _loader(self, split: Split, *, shuffle: bool = False) -> "DataLoader[Split]":
        return DataLoader(
            _Normalised(split, self.mean, self.std),
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=_as_it_is,
        )


class _Normalised(Dataset[Split]):
    def __init__(self, split: Split, mean: Tensor, std: Tensor) -> None:
        self.split, self.mean, self.std = split, mean, std

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return a whole batch: DataLoader calls this instead of `__getitem__` where it exists."""
        images, labels = self.split.take(torch.tensor(indices))
        return (images.float() - self.mean) / self.std, labels


def _as_it_is(batch: Any) -> Any:
    return batch


def _channel_moments(
    images: Images,
) -> tuple[Float[Tensor, "channels 1 1"], Float[Tensor, "channels 1 1"]]:
    """Return each channel's mean and standard deviation; 1 where the channel is constant."""
    mean = torch.stack([channel.double().mean() for channel in images.unbind(1)])
    std = torch.stack([channel.double().std() for channel in images.unbind(1)])
    std = torch.where(std > 0, std, 1.0)
    return mean.float()[:, None, None], std.float()[:, None, None]
