"""Image data sets of the Hugging Face hub, by name or from Parquet files on disk."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.check import positive_int
from experiments.data.images import ImageDataModule, Split, Splits, hold_out

__all__ = ["HubImages"]

_AT_ONCE = 1000


class HubImages(ImageDataModule):
    """A data set in the hub's schema: one column of encoded images, one of labels.

    Args:
        name: on the hub, as in ``ylecun/mnist``.
        image_column: name of the column of images.
        label_column: name of the column of integer labels.
        path: a folder that holds ``train.parquet`` and ``test.parquet``, or the hub's own
            ``train-00000-of-00001.parquet`` …; then the network is not touched and nothing is
            cached.  None: load by name, into the cache that `datasets` keeps.
        limit: number of training images to read, the first ones, including those held out for
            validation; None for all.  The test split is always whole.
        **options: as for `ImageDataModule`.

    Raises:
        FileNotFoundError: if `path` is given but does not hold such files.
    """

    def __init__(
        self,
        *,
        name: str,
        image_column: str,
        label_column: str,
        path: str | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.name = name
        self.image_column = image_column
        self.label_column = label_column
        self.limit = None if limit is None else positive_int("limit", limit)
        self.folder = None if path is None else Path(path).expanduser()
        if self.folder is not None:
            for split in ("train", "test"):
                parquet_files(self.folder, split)

    def read(self) -> Splits:
        """Decode both splits of the data set.

        Raises:
            ModuleNotFoundError: if `datasets` is not installed.
            ConnectionError: if the hub cannot be reached or does not know the name.
            ValueError: if columns, images or labels are not as expected.
        """
        train, test = (self._read_split(split) for split in ("train", "test"))
        return Splits(*hold_out(train, self.validation_share, self.split_seed), test)

    def _read_split(self, split: str) -> Split:
        pictures: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
        labels: list[int] = []
        for batch in self._batches(split):
            first = len(labels)
            for row, encoded in enumerate(batch[self.image_column], start=first):
                pictures.append(self._decoded(encoded, f"{split} row {row}"))
            labels.extend(self._checked(batch[self.label_column], split, first))
        if not labels:
            raise ValueError(f"{self._where(split)} holds no rows")
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(labels))

    def _batches(self, split: str) -> Iterator[Any]:
        """Yield some rows at a time, with their images still encoded."""
        rows = self._open(split)
        self._check_columns(rows.column_names, split)
        if split == "train" and self.limit is not None:
            # Only rows that are not streamed have a number, and refuse to take more.
            rows = rows.take(min(self.limit, getattr(rows, "num_rows", self.limit)))
        encoded = rows.cast_column(self.image_column, _datasets().Image(decode=False))
        try:
            yield from encoded.iter(batch_size=_AT_ONCE)
        except Exception as error:  # pyarrow's and datasets' own kinds
            raise self._unreadable(split, error) from error

    def _unreadable(self, split: str, error: Exception) -> ValueError:
        return ValueError(
            f"{self._where(split)} cannot be read as rows of {self.name} "
            f"({type(error).__name__}: {_first_line(error)})"
        )

    def _open(self, split: str) -> Any:
        return self._open_hub(split) if self.folder is None else self._open_files(split)

    def _open_files(self, split: str) -> Any:
        assert self.folder is not None
        datasets = _datasets()
        files = {split: [str(file) for file in parquet_files(self.folder, split)]}
        try:
            # Streaming reads the files in place; the cache gets lock files only.
            with tempfile.TemporaryDirectory() as cache:
                return datasets.load_dataset(
                    "parquet", data_files=files, split=split, streaming=True, cache_dir=cache
                )
        except Exception as error:  # pyarrow's and datasets' own kinds
            raise self._unreadable(split, error) from error

    def _open_hub(self, split: str) -> Any:
        datasets = _datasets()
        try:
            return datasets.load_dataset(self.name, split=split)
        except Exception as error:  # what a failed download raises differs between releases
            raise ConnectionError(
                f"{self.name} could not be loaded from the Hugging Face hub "
                f"({type(error).__name__}: {_first_line(error)}); name a folder that holds its "
                "Parquet files with data.path=FOLDER"
            ) from error

    def _check_columns(self, found: list[str] | None, split: str) -> None:
        expected = [self.image_column, self.label_column]
        if found is None or not set(expected) <= set(found):
            raise ValueError(
                f"{self._where(split)}: expected the columns {', '.join(expected)} of "
                f"{self.name}, found {', '.join(found or ['none'])}; use the data= option that "
                "fits the files, or name the columns with data.image_column and data.label_column"
            )

    def _decoded(self, encoded: Any, where: str) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        from PIL import Image

        channels, height, width = self.shape
        try:
            picture = Image.open(io.BytesIO(encoded["bytes"]))
            pixels = np.atleast_3d(np.asarray(picture))
        except (OSError, TypeError, KeyError) as error:
            raise ValueError(f"{self._where(where)} holds no image that can be decoded") from error
        expected = _describe((height, width, channels), "L" if channels == 1 else "RGB")
        if _describe(pixels.shape, picture.mode) != expected:
            raise ValueError(
                f"{self._where(where)} is an image of {_describe(pixels.shape, picture.mode)}, "
                f"expected {expected} by data.shape={list(self.shape)}"
            )
        return pixels

    def _checked(self, labels: list[Any], split: str, first: int) -> Iterator[int]:
        for row, label in enumerate(labels, start=first):
            if not isinstance(label, int) or not 0 <= label < self.classes:
                raise ValueError(
                    f"{self._where(f'{split} row {row}')} has the label {label!r}, "
                    f"expected an integer from 0 to {self.classes - 1}"
                )
            yield label

    def _where(self, what: str) -> str:
        return f"{self.folder or self.name}, {what}"


def parquet_files(folder: Path, split: str) -> list[Path]:
    """Return the Parquet files of one split.

    Args:
        folder: where they are.
        split: ``train`` or ``test``.

    Raises:
        FileNotFoundError: if there are none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"data.path={folder} is not a folder")
    whole = folder / f"{split}.parquet"
    files = [whole] if whole.is_file() else sorted(folder.glob(f"{split}-*-of-*.parquet"))
    if not files:
        raise FileNotFoundError(
            f"data.path={folder} holds no {split} split: expected {split}.parquet "
            f"or {split}-00000-of-00001.parquet"
        )
    return files


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Hugging Face data needs the package datasets; install it with: "
            "pip install 'jaynes-callbacks[experiments]'"
        ) from error
    return datasets


def _describe(shape: tuple[int, ...], mode: str) -> str:
    return f"{'×'.join(map(str, shape))} ({mode})"


def _first_line(error: Exception) -> str:
    return (str(error) or "no message").splitlines()[0]
