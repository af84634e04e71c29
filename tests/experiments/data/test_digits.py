import sys

import pytest
import torch
from sklearn.datasets import load_digits

from experiments.data import Digits, Splits


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Digits(shape=[1, 8, 8], classes=10, validation_share=0.2).read()


def test_every_image_is_in_one_split(splits: Splits) -> None:
    assert [len(split.labels) for split in splits] == [1150, 288, 359]
    ours = torch.cat([split.images for split in splits]).flatten(1)
    truth = torch.from_numpy(load_digits().data).to(torch.uint8)
    assert sorted(ours.tolist()) == sorted(truth.tolist())


def test_labels_stay_with_their_images(splits: Splits) -> None:
    digits = load_digits()
    by_image = {
        tuple(image): label
        for image, label in zip(digits.data.astype(int).tolist(), digits.target, strict=True)
    }
    for split in splits:
        keys = [tuple(image) for image in split.images.flatten(1).tolist()]
        assert [by_image[key] for key in keys] == split.labels.tolist()


def test_the_split_does_not_depend_on_the_global_seed(splits: Splits) -> None:
    torch.manual_seed(99)
    again = Digits(shape=[1, 8, 8], classes=10, validation_share=0.2).read()
    assert torch.equal(again.train.images, splits.train.images)
    other = Digits(shape=[1, 8, 8], classes=10, validation_share=0.2, split_seed=1).read()
    assert not torch.equal(other.train.images, splits.train.images)


def test_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaynes-callbacks\[experiments\]'"):
        Digits(shape=[1, 8, 8], classes=10).read()
