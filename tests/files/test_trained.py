"""A trained network, saved in every format that can hold it: the same rows from all."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file, save_model
from torch import Tensor

from jaynes_callbacks import EquilibriumMonitor, Record, Records, analyse
from tests.files.flax_models import write_flax
from tests.files.keras_models import config_of, write_keras
from tests.files.tflite_models import Part, Step, write_tflite

AssertSame = Callable[[Records, Mapping[str, Record]], None]
Trained = tuple[Any, Any, dict[str, Record]]
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture(scope="module")
def trained(train_small: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A network after two epochs, its trainer, and what the monitor recorded of its weights."""
    monitor = EquilibriumMonitor(instruments=["magnitudes", "scales"], sinks=[])
    task, trainer = train_small(tmp_path_factory.mktemp("run"), monitor)
    recorded = {
        row.name: row.replace(run="", step=0, epoch=0) for row in monitor.end.select(kind="weight")
    }
    # A file is one moment: it has no verdict, and no start to have moved from.
    return (
        task,
        trainer,
        {name: row.replace(verdict="", moved=float("nan")) for name, row in recorded.items()},
    )


def sharded(state: dict[str, Tensor], folder: Path) -> Path:
    """Two shards and their index, as a Hugging Face directory holds them."""
    names = list(state)
    files = {name: f"model-0000{1 + (n >= 2)}-of-00002.safetensors" for n, name in enumerate(names)}
    folder.mkdir()
    for file in set(files.values()):
        save_file({n: state[n].contiguous() for n in names if files[n] == file}, folder / file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def onnx_file(state: dict[str, Tensor], path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(t.numpy(), name) for name, t in state.items()]
    graph = onnx.helper.make_graph([], "g", [], [], initializer=tensors)
    onnx.save_model(onnx.helper.make_model(graph), path)
    return path


def gguf_file(state: dict[str, Tensor], path: Path) -> Path:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for name, tensor in state.items():
        if tensor.is_floating_point():
            writer.add_tensor(name, tensor.numpy())
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    return path


def numpy_file(state: dict[str, Tensor], path: Path) -> Path:
    np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    return path


def tflite_file(state: dict[str, Tensor], path: Path) -> Path:
    pytest.importorskip("tflite")
    parts = [Part("x"), *(Part(name, tensor.numpy()) for name, tensor in state.items())]
    weights = [
        n for n, part in enumerate(parts) if part.values is not None and part.values.ndim > 1
    ]
    return write_tflite(path, parts, [Step(9, [0, n, -1], [0]) for n in weights])


def keras_file(state: dict[str, Tensor], path: Path) -> Path:
    pytest.importorskip("h5py")
    arrays = {name: tensor.numpy() for name, tensor in state.items() if tensor.dim() > 1}
    layers = {f"layers/{n}": (n.removesuffix(".weight"), [a.T]) for n, a in arrays.items()}
    config = config_of([(name, "Dense", {}) for name, _ in layers.values()])
    return write_keras(path, layers, config)


def flax_file(state: dict[str, Tensor], path: Path) -> Path:
    pytest.importorskip("msgpack")
    tree: dict[str, dict[str, Any]] = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        tree.setdefault(module, {})["kernel" if leaf == "weight" else leaf] = tensor.numpy().T
    return write_flax(path, tree)


def saved(form: str, task: Any, trainer: Any, folder: Path) -> Path:
    """The network in a format, and where it lies."""
    state = {name: tensor.detach().clone() for name, tensor in task.state_dict().items()}
    path = folder / f"model.{form}"
    if form == "ckpt":
        trainer.save_checkpoint(path)
    elif form == "pt":
        torch.save({"epoch": 2, "model_state_dict": state}, path)
    elif form == "bin":
        torch.save(state, path)
    elif form == "safetensors":
        save_model(task, str(path))
    elif form == "dcp":
        dcp.save({"model": state}, checkpoint_id=path, no_dist=True)
    else:
        makers = {
            "hub": sharded, "npz": numpy_file, "onnx": onnx_file, "gguf": gguf_file,
            "tflite": tflite_file, "keras": keras_file, "msgpack": flax_file,
        }  # fmt: skip
        return makers[form](state, path)
    return path


FORMATS = ("ckpt", "pt", "bin", "safetensors", "dcp", "hub", "npz", "onnx", "gguf")
FORMATS += ("tflite", "keras", "msgpack")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.sampled(4)
def test_every_format_gives_what_the_run_recorded(
    form: str, trained: Trained, tmp_path: Path, assert_same: AssertSame
) -> None:
    task, trainer, recorded = trained
    assert set(recorded) == {"first.weight", "last.weight"}
    found = analyse(saved(form, task, trainer, tmp_path))
    # Keras and Flax call a weight a kernel.
    renamed = [each.replace(name=re.sub("[./]kernel$", ".weight", each.name)) for each in found]
    assert_same(Records(renamed), recorded)
