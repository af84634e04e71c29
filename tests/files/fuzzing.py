"""Small checkpoints in every format, and damage done to them that a number decides."""

import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.files.flax_models import chunked, write_flax
from tests.files.keras_models import config_of, write_keras, write_keras_2, write_weights
from tests.files.tflite_models import Part, Step, encode_sparse, write_tflite

__all__ = ["FORMATS", "damaged_copy", "seed_files"]

State = dict[str, Tensor]

#: Numbers that parsers get wrong.
_SIZES = (0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 256, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31,
          (1 << 32) - 1, 1 << 40, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


def _state() -> State:
    generator = torch.Generator().manual_seed(5)
    return {
        "a.weight": torch.randn(8, 9, generator=generator),
        "a.bias": torch.randn(8, generator=generator),
        "b.weight": torch.randn(9, 8, generator=generator).half(),
    }


def _legacy(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def _lightning(state: State, path: Path) -> None:
    moments = {number: {"exp_avg": tensor} for number, tensor in enumerate(state.values())}
    torch.save(
        {
            "pytorch-lightning_version": "2.4", "epoch": 3, "global_step": 70,
            "state_dict": state, "optimizer_states": [{"state": moments}],
            "hyper_parameters": {"lr": np.float64(0.1), "folder": Path("a")},
        },
        path,
    )  # fmt: skip


def _module(state: State, path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(9, 8), nn.ReLU()), path)


def _script(state: State, path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(9, 8)), str(path))


def _arrays(state: State) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def _index(state: State, path: Path) -> None:
    save_file(state, path.with_name("one.safetensors"))
    path.write_text(json.dumps({"weight_map": dict.fromkeys(state, "one.safetensors")}))


def _onnx_model(state: State) -> Any:
    import onnx

    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in _arrays(state).items()]
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensors.pop())
    inner = onnx.helper.make_graph([constant], "inner", [], [])
    branch = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    return onnx.helper.make_model(onnx.helper.make_graph([branch], "g", [], [], tensors))


def _onnx(state: State, path: Path) -> None:
    import onnx

    onnx.save_model(_onnx_model(state), path)


def _external(state: State, path: Path) -> None:
    import onnx

    onnx.save_model(
        _onnx_model(state), path, save_as_external_data=True, location="data", size_threshold=0
    )


def _gguf(state: State, path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokens", ["a", "b", "c"])
    writer.add_array("numbers", [1, 2, 3])
    for name, array in _arrays(state).items():
        writer.add_tensor(name, array)
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(np.ones((4, 64), np.float32), kind)
    writer.add_tensor("quantised", blocks, raw_dtype=kind)
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()


def _tflite(state: State, path: Path) -> None:
    dense = np.where(np.arange(72).reshape(8, 9) % 4, 0, 1).astype(np.float16)
    kept, sparse = encode_sparse(dense, (0, 1), {}, (False, True))
    parts = [
        Part("x"), Part("wide", state["a.weight"].numpy()), Part("half", state["b.weight"].numpy()),
        Part("wide_half"), Part("bias", state["a.bias"].numpy()),
        Part("sparse", kept, shape=dense.shape, sparse=sparse), Part("dense"),
        Part("codes", np.ones((8, 3, 3, 8), np.int8), scales=[0.5] * 8, zeros=[1] * 8),
    ]  # fmt: skip
    steps = [
        Step(9, [0, 1, 4], [0]), Step(6, [2], [3]), Step(9, [0, 3, -1], [0]),
        Step(124, [5], [6]), Step(9, [0, 6], [0]), Step(3, [0, 7, -1], [0]),
    ]  # fmt: skip
    write_tflite(path, parts, steps)


def _task(state: State, path: Path) -> None:
    inner = path.with_name("inner.tflite")
    _tflite(state, inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "one.tflite")
        archive.write(inner, "two.tflite", zipfile.ZIP_DEFLATED)
    inner.unlink()


def _keras_2(state: State, path: Path) -> None:
    weights = {
        f"dense_{number}/kernel": each for number, each in enumerate(_arrays(state).values())
    }
    write_keras_2(path, weights, config_of([("dense_0", "Dense", {})]))


def _compressed_h5(state: State, path: Path) -> None:
    arrays = [each.reshape(8, -1) for each in _arrays(state).values()]
    layers = {f"layers/dense_{n}": (f"d{n}", [each]) for n, each in enumerate(arrays)}
    write_weights(path, layers, chunks=(4, 1), compression="gzip", shuffle=True, fletcher32=True)


def _keras_3(state: State, path: Path) -> None:
    layers = {f"layers/dense_{n}": (f"d{n}", [a]) for n, a in enumerate(_arrays(state).values())}
    write_keras(path, layers, config_of([("d0", "Dense", {})]))


def _flax(state: State, path: Path) -> None:
    arrays = _arrays(state)
    whole = arrays.pop("a.weight")
    write_flax(path, {"params": {**arrays, "split": chunked(whole, 30)}, "opt_state": {"0": [1]}})


def _distributed(state: State, path: Path) -> None:
    dcp.save({"model": state}, checkpoint_id=path, no_dist=True)


def _parts(state: State, path: Path) -> None:
    np.savez_compressed(path, **_arrays(state))


#: Writers by the name of the file or directory; the file in it that is damaged, if not itself.
FORMATS: dict[str, tuple[Callable[[State, Path], None], str]] = {
    "zip.pt": (torch.save, ""),
    "legacy.pt": (_legacy, ""),
    "lightning.ckpt": (_lightning, ""),
    "module.pth": (_module, ""),
    "script.pt": (_script, ""),
    "plain.npz": (lambda state, path: np.savez(path, **_arrays(state)), ""),
    "compressed.npz": (_parts, ""),
    "plain.safetensors": (save_file, ""),
    "model.safetensors.index.json": (_index, ""),
    "plain.onnx": (_onnx, ""),
    "external.onnx": (_external, ""),
    "plain.gguf": (_gguf, ""),
    "plain.tflite": (_tflite, ""),
    "two.task": (_task, ""),
    "plain.msgpack": (_flax, ""),
    "plain.h5": (_keras_2, ""),
    "compressed.h5": (_compressed_h5, ""),
    "plain.keras": (_keras_3, ""),
    "index.dcp": (_distributed, ".metadata"),
    "part.dcp": (_distributed, "__0_0.distcp"),
}


def seed_files(folder: Path) -> dict[str, Path]:
    """Write one whole checkpoint of each format, each into a folder of its own."""
    found = {}
    for name, (write, _) in FORMATS.items():
        (folder / name).mkdir(parents=True)
        found[name] = folder / name / name
        write(_state(), found[name])
    return found


def damaged_copy(seed: Path, number: int, folder: Path) -> Path:
    """Copy a checkpoint and damage it; equal numbers do equal damage.

    The damage depends on the bytes of the seed alone, and these on the versions of the libraries.
    """
    target = folder / f"{seed.name}-{number}"
    shutil.copytree(seed.parent, target)
    place = target / seed.name
    inner = FORMATS[seed.name][1]
    damaged = place / inner if inner else place
    chance = random.Random(f"{seed.name} {number}")
    content = bytearray(damaged.read_bytes())
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        content = chance.choice((_flip, _byte, _truncate, _splice, _size, _size, _erase))(
            content, chance
        )
    damaged.write_bytes(content)
    return place


def _flip(content: bytearray, chance: random.Random) -> bytearray:
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def _byte(content: bytearray, chance: random.Random) -> bytearray:
    if content:
        content[chance.randrange(len(content))] = chance.randrange(256)
    return content


def _truncate(content: bytearray, chance: random.Random) -> bytearray:
    return content[: chance.randrange(len(content) + 1)]


def _splice(content: bytearray, chance: random.Random) -> bytearray:
    """Put a part of the content into another place."""
    begin, at = (chance.randrange(len(content) + 1) for _ in range(2))
    part = content[begin : begin + chance.randrange(1, 64)]
    return content[:at] + part + content[at + chance.choice((0, len(part))) :]


def _erase(content: bytearray, chance: random.Random) -> bytearray:
    begin = chance.randrange(len(content) + 1)
    return content[:begin] + content[begin + chance.randrange(1, 64) :]


def _size(content: bytearray, chance: random.Random) -> bytearray:
    """Write a number of one to eight bytes over others."""
    form = chance.choice(("<B", "<H", "<I", "<Q", ">I", ">Q"))
    width = struct.calcsize(form)
    at = chance.randrange(max(1, len(content)))
    content[at : at + width] = struct.pack(form, chance.choice(_SIZES) % (1 << 8 * width))
    return content
