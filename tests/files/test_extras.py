"""ONNX and GGUF, and weights of 8 bits with their scales."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from jaynes_callbacks import Record, Records, analyse
from jaynes_callbacks.files import CheckpointError, open_checkpoint
from tests.missing import jaynes_without

pytestmark = pytest.mark.usefixtures("unfitted")

AssertSame = Callable[[Records, Mapping[str, Record]], None]


def _records(state: Mapping[str, Tensor]) -> dict[str, Record]:
    return {row.name: row for row in analyse(state)}


@pytest.fixture
def weights(generator: torch.Generator) -> dict[str, Tensor]:
    """Floats of three sizes."""
    return {
        "single": torch.randn(64, 96, generator=generator),
        "half": torch.randn(64, 96, generator=generator).half(),
        "double": torch.randn(64, 96, generator=generator).double(),
    }


class TestOnnx:
    onnx = pytest.importorskip("onnx")

    def _model(self, weights: Mapping[str, Tensor], path: Path, *, external: bool) -> None:
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        tensors = [numpy_helper.from_array(t.numpy(), name) for name, t in weights.items()]
        bits = torch.randn(64, 96).bfloat16().view(torch.int16).numpy().tobytes()
        brain = self.onnx.TensorProto.BFLOAT16
        tensors.append(helper.make_tensor("brain", brain, [64, 96], bits, raw=True))
        tensors.append(numpy_helper.from_array(np.ones((9, 9), np.int64), "steps"))
        graph = helper.make_graph([], "g", [], [], initializer=tensors)
        self.onnx.save_model(
            helper.make_model(graph),
            path,
            save_as_external_data=external,
            location="weights.data",
            size_threshold=0,
        )

    @pytest.mark.parametrize("external", [False, True])
    def test_equal_records(
        self, external: bool, weights: dict[str, Tensor], tmp_path: Path, assert_same: AssertSame
    ) -> None:
        torch.manual_seed(3)
        self._model(weights, tmp_path / "a.onnx", external=external)
        torch.manual_seed(3)
        brain = torch.randn(64, 96).bfloat16()
        assert_same(analyse(tmp_path / "a.onnx"), _records({**weights, "brain": brain}))
        assert open_checkpoint(tmp_path / "a.onnx").entries[0].mapped is external

    def test_weights_in_branches_and_constants(
        self, weights: dict[str, Tensor], tmp_path: Path, assert_same: AssertSame
    ) -> None:
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        single, half, double = (numpy_helper.from_array(t.numpy(), n) for n, t in weights.items())
        loop = helper.make_graph([], "body", [], [], initializer=[half])
        node = helper.make_node("Loop", [], ["looped"], body=loop)
        inner = helper.make_graph([node], "then", [], [], initializer=[single])
        constant = helper.make_node("Constant", [], ["double"], value=double)
        other = helper.make_graph([constant], "else", [], [])
        branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=other)
        self.onnx.save_model(
            helper.make_model(helper.make_graph([branch], "g", [], [])), tmp_path / "a.onnx"
        )
        assert_same(analyse(tmp_path / "a.onnx"), _records(weights))

    @pytest.mark.parametrize("dims", [(-64, -96), (1 << 40, 1 << 20), (64, 95)])
    def test_a_shape_that_does_not_fit_is_told(
        self, dims: tuple[int, int], weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        self._model(weights, tmp_path / "a.onnx", external=False)
        model = self.onnx.load(tmp_path / "a.onnx")
        model.graph.initializer[0].dims[:] = dims
        self.onnx.save_model(model, tmp_path / "a.onnx")
        with pytest.warns(UserWarning, match=r"tensor single cannot be read \(its shape"):
            assert {row.name for row in analyse(tmp_path / "a.onnx")} == {"half", "double", "brain"}

    def test_refusals(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        self._model(weights, tmp_path / "a.onnx", external=True)
        (tmp_path / "weights.data").unlink()
        with pytest.raises(CheckpointError, match=r"weights.data, which holds weights of a.onnx"):
            analyse(tmp_path / "a.onnx")
        self._model(weights, tmp_path / "b.onnx", external=False)
        content = (tmp_path / "b.onnx").read_bytes()
        (tmp_path / "b.onnx").write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match="is no whole ONNX model"):
            analyse(tmp_path / "b.onnx")


class TestGguf:
    gguf = pytest.importorskip("gguf")

    def _write(self, weights: Mapping[str, Tensor], path: Path) -> None:
        writer = self.gguf.GGUFWriter(path, "llama")
        for name, tensor in weights.items():
            writer.add_tensor(name, tensor.numpy())
        kind = self.gguf.GGMLQuantizationType.Q8_0
        blocks = self.gguf.quants.quantize(weights["single"].numpy(), kind)
        writer.add_tensor("quantised", blocks, raw_dtype=kind)
        bits = weights["single"].bfloat16().view(torch.uint8).numpy()
        brain = self.gguf.GGMLQuantizationType.BF16
        writer.add_tensor("brain", bits, raw_dtype=brain)
        writer.add_tensor("steps", np.ones((9, 9), np.int32))
        for step in ("header", "kv_data", "tensors"):
            getattr(writer, f"write_{step}_to_file")()
        writer.close()

    def test_equal_records(
        self, weights: dict[str, Tensor], tmp_path: Path, assert_same: AssertSame
    ) -> None:
        self._write(weights, tmp_path / "a.gguf")
        kind = self.gguf.GGMLQuantizationType.Q8_0
        quants = self.gguf.quants
        out = quants.dequantize(quants.quantize(weights["single"].numpy(), kind), kind)
        expected = {
            **weights,
            "quantised": torch.from_numpy(out),
            "brain": weights["single"].bfloat16(),
        }
        assert_same(analyse(tmp_path / "a.gguf"), _records(expected))
        (steps,) = [e for e in open_checkpoint(tmp_path / "a.gguf").entries if e.name == "steps"]
        assert steps.reason == "of dtype I32, not real floating-point"

    def test_refusals(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        self._write(weights, tmp_path / "a.gguf")
        content = (tmp_path / "a.gguf").read_bytes()
        for broken in (content[:20], content[: len(content) // 2], b"", b"hello"):
            (tmp_path / "b.gguf").write_bytes(broken)
            with pytest.raises(CheckpointError, match="is no whole GGUF file"):
                analyse(tmp_path / "b.gguf")


@pytest.mark.parametrize(
    ("name", "hidden", "extra"),
    [
        ("a.safetensors", "safetensors", "safetensors"),
        ("a.onnx", "onnx", "onnx"),
        # The missing module is no extra's name, and no package that pip knows.
        ("a.onnx", "google", "onnx"),
        ("a.gguf", "gguf", "gguf"),
        ("a.keras", "h5py", "keras"),
        ("a.h5", "h5py", "keras"),
        ("model.safetensors.index.json", "safetensors", "safetensors"),
    ],
)
def test_a_missing_extra_is_named(name: str, hidden: str, extra: str, tmp_path: Path) -> None:
    place = {"a": "one.safetensors", "b": "two.safetensors"}
    (tmp_path / name).write_text(json.dumps({"weight_map": place}))
    torch.save({"fc.weight": torch.randn(20, 30)}, tmp_path / "other.pt")
    done = jaynes_without([hidden], "fit", tmp_path / name, tmp_path / "other.pt")
    assert re.fullmatch(
        rf"jaynes: reading this format needs {hidden}[.\w]*, which is not installed; "
        rf"pip install 'jaynes-callbacks\[{extra}\]'\n",
        done.stderr,
    )
    assert done.returncode == 1
    assert "fc.weight" in done.stdout


def test_shards_of_pytorch_need_no_safetensors(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.randn(20, 30)}, tmp_path / "one.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "one.bin"}}))
    done = jaynes_without(["safetensors"], "fit", index)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.weight" in done.stdout


class TestScales:
    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
    def test_without_scales_they_are_floats(
        self, dtype: torch.dtype, tmp_path: Path, assert_same: AssertSame
    ) -> None:
        state = {"w": torch.randn(50, 50).to(dtype)}
        save_file(state, tmp_path / "a.safetensors")
        assert_same(analyse(tmp_path / "a.safetensors"), _records(state))

    @pytest.mark.parametrize("shape", [(), (1,), (200,), (200, 1), (2, 3)])
    def test_multiplied(
        self,
        shape: tuple[int, ...],
        tmp_path: Path,
        generator: torch.Generator,
        assert_same: AssertSame,
    ) -> None:
        weight = torch.randn(200, 300, generator=generator).to(torch.float8_e4m3fn)
        scale = torch.rand(shape, generator=generator) + 0.5
        save_file({"x.weight": weight, "x.weight_scale_inv": scale}, tmp_path / "a.safetensors")
        config = {"quantization_config": {"weight_block_size": [128, 128]}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        full = scale
        if shape == (2, 3):
            full = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:200, :300]
        if shape == (200,):
            full = scale[:, None]
        rows = analyse(tmp_path / "a.safetensors")
        assert_same(rows, _records({"x.weight": weight.float() * full}))

    def test_unknown_blocks_are_left_out(self, tmp_path: Path) -> None:
        weight = torch.randn(200, 300).to(torch.float8_e4m3fn)
        state = {"x.weight": weight, "x.weight_scale": torch.rand(20, 30), "y": torch.randn(9, 9)}
        save_file(state, tmp_path / "a.safetensors")
        entries = {
            entry.name: entry for entry in open_checkpoint(tmp_path / "a.safetensors").entries
        }
        assert "no config.json beside it says of which blocks" in entries["x.weight"].reason
        assert entries["x.weight_scale"].reason == "the scales of x.weight"
        assert [row.name for row in analyse(tmp_path / "a.safetensors")] == ["y"]

    def test_packed_integers_are_left_out(self, tmp_path: Path) -> None:
        state = {"x.qweight": torch.ones(20, 30, dtype=torch.int32), "x.scales": torch.rand(20, 30)}
        save_file({**state, "y": torch.randn(9, 9)}, tmp_path / "a.safetensors")
        assert [row.name for row in analyse(tmp_path / "a.safetensors")] == ["y"]
