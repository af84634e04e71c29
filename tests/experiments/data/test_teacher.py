from functools import partial
from typing import Any

import pytest
import torch

from experiments.data import Teacher
from experiments.init import he_scaled, lognormal, normal
from experiments.models import MLP


def teacher(**options: Any) -> Teacher:
    defaults: dict[str, Any] = {
        "teacher": MLP((1, 6, 6), 5, width=32, depth=1),
        "law": partial(he_scaled, law=partial(lognormal, sigma=0.65)),
        "images": 5000,
        "shape": (1, 6, 6),
        "classes": 5,
        "split_seed": 3,
    }
    return Teacher(**{**defaults, **options})


def test_labels_are_the_teachers_own() -> None:
    data = teacher()
    splits = data.read()
    with torch.no_grad():
        logits = [data.teacher(split.images) for split in splits]
    mean = torch.cat(logits).mean(0)
    for split, outputs in zip(splits, logits, strict=True):
        assert (((outputs - mean).argmax(-1) == split.labels).float().mean()) > 0.999
    assert [len(split.labels) for split in splits] == [3600, 400, 1000]


def test_images_are_standard_normal_and_no_class_is_rare() -> None:
    train = teacher().read().train
    assert abs(train.images.mean()) < 0.01
    assert abs(train.images.std() - 1) < 0.01
    assert train.labels.bincount(minlength=5).min() > 0.1 * len(train.labels)


def test_the_split_seed_alone_decides() -> None:
    data = teacher()
    state = torch.get_rng_state()
    first = data.read()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = teacher().read(), teacher(split_seed=4).read()
    for one, same in zip(first, again, strict=True):
        assert torch.equal(one.images, same.images)
        assert torch.equal(one.labels, same.labels)
    assert not torch.equal(first.train.images, other.train.images)


def test_the_teachers_weights_follow_the_law() -> None:
    from jaynes_callbacks import analyse

    found = {}
    for law in (partial(lognormal, sigma=0.65), normal):
        data = teacher(teacher=MLP((1, 6, 6), 5, width=500), law=partial(he_scaled, law=law))
        data.read()
        (record,) = analyse(data.teacher.hidden2.weight)
        found[record.best_family] = record.gap
    assert found["lognormal"] < 0.001
    assert found["half_normal"] > 0.15


def test_a_student_of_the_same_make_learns_it() -> None:
    data = teacher(batch_size=100, images=20_000)
    data.setup("fit")
    torch.manual_seed(0)
    student = MLP((1, 6, 6), 5, width=64, depth=1)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
    for _ in range(4):
        for images, labels in data.train_dataloader():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(student(images), labels).backward()
            optimizer.step()
    with torch.no_grad():
        right = [
            (student(images).argmax(-1) == labels).float()
            for images, labels in data.val_dataloader()
        ]
    assert torch.cat(right).mean() > 0.75


def test_a_wrong_number_of_images_is_named() -> None:
    with pytest.raises(ValueError, match="images must be a positive integer, got 0"):
        teacher(images=0)
