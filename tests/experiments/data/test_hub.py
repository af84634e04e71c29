import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.data import HubImages, Splits

MNIST = {
    "name": "ylecun/mnist",
    "image_column": "image",
    "label_column": "label",
    "shape": [1, 28, 28],
    "classes": 10,
}
CIFAR = {**MNIST, "name": "uoft-cs/cifar10", "image_column": "img", "shape": [3, 32, 32]}

WriteParquet = Callable[..., Path]
Encode = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def read(folder: Path, schema: dict[str, Any], **options: Any) -> Splits:
    return HubImages(**{**schema, "path": str(folder), **options}).read()


def pixels_of(folder: Path, file: str, column: str) -> "np.ndarray[Any, Any]":
    """The images by another way: Pillow on pyarrow's rows."""
    import io

    from PIL import Image

    rows = pq.read_table(folder / file)[column].to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows])


@pytest.mark.parametrize(
    ("schema", "size"), [(MNIST, (28, 28)), (CIFAR, (32, 32, 3))], ids=["mnist", "cifar10"]
)
def test_both_schemas_are_decoded(
    write_parquet: WriteParquet, schema: dict[str, Any], size: tuple[int, ...]
) -> None:
    column = schema["image_column"]
    folder = write_parquet(size, column)
    splits = read(folder, schema, validation_share=0.25)
    assert [len(split.labels) for split in splits] == [30, 10, 20]
    truth = pixels_of(folder, "test.parquet", column).reshape(20, *size[:2], -1)
    assert np.array_equal(splits.test.images.numpy(), truth.transpose(0, 3, 1, 2))
    assert splits.test.labels.tolist() == [row % 10 for row in range(20)]


def test_validation_is_held_out_of_training(write_parquet: WriteParquet) -> None:
    folder = write_parquet((28, 28))
    splits = read(folder, MNIST, validation_share=0.25)
    truth = pixels_of(folder, "train.parquet", "image").reshape(40, -1).tolist()
    held = splits.validation.images.flatten(1).tolist() + splits.train.images.flatten(1).tolist()
    assert sorted(held) == sorted(truth)


def test_the_hubs_own_file_names_and_shards(write_parquet: WriteParquet) -> None:
    write_parquet((28, 28), names=("train-00000-of-00002.parquet", "test-00000-of-00001.parquet"))
    folder = write_parquet((28, 28), names=("train-00001-of-00002.parquet", "other.parquet"))
    splits = read(folder, MNIST, validation_share=0.1)
    assert len(splits.train.labels) + len(splits.validation.labels) == 80


@pytest.mark.parametrize("limit", [8, 400])
def test_only_the_first_images_are_read(write_parquet: WriteParquet, limit: int) -> None:
    folder = write_parquet((28, 28))
    splits = read(folder, MNIST, validation_share=0.25, limit=limit)
    truth = pixels_of(folder, "train.parquet", "image").reshape(40, -1)[:limit].tolist()
    held = splits.validation.images.flatten(1).tolist() + splits.train.images.flatten(1).tolist()
    assert sorted(held) == sorted(truth)
    assert len(splits.test.labels) == 20


@pytest.mark.parametrize("limit", [8, 400])
def test_the_limit_holds_for_what_the_hub_sends(
    write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int
) -> None:
    folder = write_parquet((28, 28))

    def load(name: str, *, split: str) -> Any:
        return datasets.Dataset.from_parquet(
            str(folder / f"{split}.parquet"), cache_dir=str(tmp_path)
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = HubImages(**MNIST, limit=limit).read()
    assert len(splits.train.labels) + len(splits.validation.labels) == min(limit, 40)


def test_a_wrong_limit_is_named() -> None:
    with pytest.raises(ValueError, match="limit must be a positive integer, got 0"):
        HubImages(**MNIST, limit=0)


def test_jpeg_images(write_parquet: WriteParquet, encode: Encode) -> None:
    grey = encode(np.full((28, 28), 128, dtype=np.uint8), "JPEG")
    splits = read(write_parquet((28, 28), images=[grey] * 40, rows=(40, 40)), MNIST)
    assert splits.test.images.unique().tolist() == [128]


def test_local_files_leave_no_cache(
    write_parquet: WriteParquet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    read(write_parquet((28, 28)), MNIST)
    assert not cache.exists()


def test_by_name_from_the_hub(
    write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = write_parquet((28, 28))

    def load(name: str, *, split: str) -> Any:
        assert name == "ylecun/mnist"
        return datasets.Dataset.from_parquet(
            str(folder / f"{split}.parquet"), cache_dir=str(tmp_path)
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(HubImages(**MNIST).read().test.labels) == 20


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, split: str) -> Any:
        raise OSError("no route\nto the host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    sentence = (
        r"^ylecun/mnist could not be loaded from the Hugging Face hub \(OSError: no route\); "
        r"name a folder that holds its Parquet files with data.path=FOLDER$"
    )
    with pytest.raises(ConnectionError, match=sentence):
        HubImages(**MNIST).read()


def test_a_missing_folder_or_split_is_named_at_construction(
    tmp_path: Path, write_parquet: WriteParquet
) -> None:
    with pytest.raises(FileNotFoundError, match=r"data.path=.*nowhere is not a folder"):
        HubImages(**MNIST, path=str(tmp_path / "nowhere"))
    folder = write_parquet((28, 28))
    (folder / "test.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no test split: expected test\.parquet or"):
        HubImages(**MNIST, path=str(folder))


def test_a_file_that_is_no_parquet_is_named(write_parquet: WriteParquet) -> None:
    folder = write_parquet((28, 28))
    (folder / "train.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"parquet, train cannot be read"):
        read(folder, MNIST)


@pytest.mark.parametrize(
    ("schema", "size", "column", "sentence"),
    [
        (
            MNIST,
            (28, 28),
            "img",
            "expected the columns image, label of ylecun/mnist, found img, label; use the data=",
        ),
        (
            MNIST,
            (14, 14),
            "image",
            r"train row 0 is an image of 14×14×1 \(L\), expected 28×28×1 \(L\)",
        ),
        (MNIST, (28, 28, 3), "image", r"is an image of 28×28×3 \(RGB\), expected 28×28×1 \(L\)"),
        (CIFAR, (32, 32), "img", r"is an image of 32×32×1 \(L\), expected 32×32×3 \(RGB\)"),
    ],
)
def test_a_wrong_schema_is_named(
    write_parquet: WriteParquet,
    schema: dict[str, Any],
    size: tuple[int, ...],
    column: str,
    sentence: str,
) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(write_parquet(size, column), schema)


@pytest.mark.parametrize("wrong", [10, -1, None, "five", 1.5])
def test_a_wrong_label_is_named(write_parquet: WriteParquet, wrong: object) -> None:
    labels = [wrong] * 40 if isinstance(wrong, str | float) else [3] * 7 + [wrong] + [3] * 32
    folder = write_parquet((28, 28), labels=labels, rows=(40, 40))
    with pytest.raises(ValueError, match=r"has the label .*, expected an integer from 0 to 9"):
        read(folder, MNIST)


@pytest.mark.parametrize("wrong", [{"bytes": b"no image", "path": None}, 5, None])
def test_an_image_that_cannot_be_decoded_is_named(
    write_parquet: WriteParquet, wrong: object
) -> None:
    folder = write_parquet((28, 28), images=[wrong] * 40, rows=(40, 40))
    with pytest.raises(ValueError, match=r"parquet, train"):
        read(folder, MNIST)


def test_no_rows_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = datasets.Dataset.from_dict(
        {"image": [], "label": []},
        features=datasets.Features(image=datasets.Image(), label=datasets.Value("int64")),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *, split: empty)
    with pytest.raises(ValueError, match=r"^ylecun/mnist, train holds no rows$"):
        HubImages(**MNIST).read()


def test_missing_datasets_is_named(
    write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parquet((28, 28))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaynes-callbacks\[experiments\]'"):
        read(folder, MNIST)
