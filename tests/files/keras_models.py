"""Files of HDF5 as Keras 2 and Keras 3 lay them out, written with h5py."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["config_of", "write_keras", "write_keras_2", "write_weights"]

Array = npt.NDArray[Any]


def config_of(layers: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    """A model's configuration: name, class and settings of each layer."""
    described = [
        {"class_name": kind, "config": {"name": name, **settings}}
        for name, kind, settings in layers
    ]
    return json.dumps({"class_name": "Functional", "config": {"name": "m", "layers": described}})


def write_keras_2(path: Path, weights: Mapping[str, Array], config: str = "", **how: Any) -> Path:
    """A whole model of Keras 2, whose layers' groups are named twice, and its optimizer."""
    import h5py

    with h5py.File(path, "w") as file:
        if config:
            file.attrs["model_config"] = config
        for name, values in weights.items():
            layer = name.split("/")[0]
            file.create_dataset(f"model_weights/{layer}/{name}:0", data=values, **how)
            file.create_dataset(f"optimizer_weights/training/Adam/{name}/m:0", data=values)
            file[f"model_weights/{layer}"].attrs["weight_names"] = np.array([name.encode()])
    return path


def write_weights(
    path: Path, layers: Mapping[str, tuple[str, Sequence[Array]]], **how: Any
) -> Path:
    """Weights of Keras 3: for each path of a layer its name and its variables by number."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = "functional"
        for place, (name, variables) in layers.items():
            group = file.create_group(f"{place}/vars")
            group.attrs["name"] = name
            for number, values in enumerate(variables):
                group.create_dataset(str(number), data=values, **how)
        file.create_dataset("optimizer/vars/0", data=np.ones((9, 9)))
    return path


def write_keras(
    path: Path,
    layers: Mapping[str, tuple[str, Sequence[Array]]],
    config: str,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive of Keras 3."""
    inner = write_weights(path.with_suffix(".inner"), layers)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.write(inner, "model.weights.h5")
    inner.unlink()
    return path
