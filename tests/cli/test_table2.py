"""`jaynes table2`: the paper's rows, networks from files and from the hub, and what fails."""

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from jaynes_callbacks.cli import table2 as command
from jaynes_callbacks.files.hub import client
from jaynes_callbacks.files.table2 import NETWORKS
from tests.files.keras_models import write_keras_2
from tests.files.tflite_models import Part, Step, write_tflite
from tests.hub import Repository, StandIn, safetensors_of, stand_in

pytestmark = pytest.mark.usefixtures("unfitted")

Run = Callable[..., tuple[int, str, str]]
FULLY_CONNECTED = 9


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for the hub, empty."""
    monkeypatch.setattr(client, "_WAITS", (0.0, 0.0, 0.0))
    with stand_in() as found:
        yield found


def bert(generator: torch.Generator) -> dict[str, Tensor]:
    """A network with BERT's names: five weights that count, a small one, and a head."""
    layer = "bert.encoder.layer.0"
    shapes = {
        "bert.embeddings.word_embeddings.weight": (300, 192),
        "bert.embeddings.token_type_embeddings.weight": (2, 192),
        f"{layer}.attention.self.query.weight": (192, 192),
        f"{layer}.attention.output.dense.weight": (192, 192),
        f"{layer}.intermediate.dense.weight": (400, 192),
        "bert.pooler.dense.weight": (192, 192),
        "cls.predictions.transform.dense.weight": (192, 192),
        "bert.pooler.dense.bias": (192,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def llama(generator: torch.Generator) -> dict[str, Tensor]:
    """A network with Llama's names."""
    layer = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (300, 192),
        f"{layer}.self_attn.q_proj.weight": (192, 192),
        f"{layer}.mlp.down_proj.weight": (192, 400),
        f"{layer}.input_layernorm.weight": (192,),
        "lm_head.weight": (300, 192),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def rows_below(out: str, network: str) -> dict[str, list[str]]:
    """The rows of a network: its cells by the name of the row."""
    rows: dict[str, list[str]] = {}
    for line in out[out.index(f"\n{network} ") + 1 :].splitlines():
        cells = line.removeprefix(network).split()
        if rows and not line.startswith(" "):
            return rows
        rows[cells[0]] = cells[1:]
    return rows


def test_without_arguments_the_paper_s_rows_and_what_to_do(jaynes: Run) -> None:
    status, out, err = jaynes("table2")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    for network in NETWORKS:
        assert re.search(rf"^{network.name} +paper +{network.published.layers} +\.9", out, re.M)
        assert re.search(rf"jaynes table2 .*{network.key}=PATH", out)
        assert network.address is None or network.address in out
    assert rows_below(out, "VGG16") == {
        "paper": ["16", ".97±.01", "-2.36±.41", ".68±.05", "–", "–", "–"]
    }
    assert "here " not in out.split("paper: its")[0]


def test_networks_of_the_hub(jaynes: Run, hub: StandIn, generator: torch.Generator) -> None:
    """Heads of BERT's pretraining are neither moved nor measured; a gated network is a sentence."""
    state = bert(generator)
    hub.repositories["google-bert/bert-base-uncased"] = at = Repository()
    at.add({"model.safetensors": safetensors_of(state)})
    hub.repositories["meta-llama/Llama-2-7b-hf"] = Repository(token="hf_x", gated=True)
    status, out, err = jaynes("table2", "--fetch", "llama-2-7b", "--fetch", "BERT-Small")
    assert status == 1
    assert re.fullmatch(r"jaynes: hf://meta-llama/Llama-2-7b-hf is gated: accept .*\n", err)
    found = rows_below(out, "BERT-Small")
    assert list(found) == ["paper", "here", "embedding", "attention", "mlp", "other", "Gaussian"]
    assert found["here"][0] == "5/6"
    assert found["Gaussian"][0] == "5"
    for own, gaussian in zip(found["here"][4:6], found["Gaussian"][4:6], strict=True):
        assert float(own) == pytest.approx(float(gaussian), abs=0.005)
    measured = sum(v.nbytes for name, v in state.items() if v.dim() > 1 and "cls" not in name)
    assert measured <= hub.moved < measured + 3000
    assert list(rows_below(out, "Llama-2-7B")) == ["paper"]
    assert "--fetch llama-2-7b" in out
    assert "--fetch bert-small" not in out


def test_networks_of_files(jaynes: Run, tmp_path: Path, generator: torch.Generator) -> None:
    save_file(llama(generator), tmp_path / "model.safetensors")
    kernels = {
        "block1_conv2/block1_conv2/kernel": (3, 3, 64, 64),
        "predictions/predictions/kernel": (200, 1000),
    }
    rng = np.random.default_rng(0)
    path = write_keras_2(
        tmp_path / "vgg16.h5",
        {name: rng.normal(size=shape).astype("f4") for name, shape in kernels.items()},
    )
    status, out, err = jaynes(
        "table2", f"llama-2-13b={tmp_path / 'model.safetensors'}", f"vgg16={path}"
    )
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    assert rows_below(out, "VGG16")["here"][0] == "2"
    assert list(rows_below(out, "VGG16")) == ["paper", "here", "convolution", "head", "Gaussian"]
    assert rows_below(out, "Llama-2-13B")["here"][0] == "4"


def test_blazepose_from_its_wheel(jaynes: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wheel = tmp_path / "mediapipe-0.10.21-cp311-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for number, name in enumerate(("pose_detection.tflite", "pose_landmark_full.tflite")):
            kernel = rng.normal(size=(200 + number, 200)).astype("f4")
            parts = [Part("x", shape=(1, 200)), Part("dense", kernel), Part("y", shape=(1, 200))]
            model = write_tflite(tmp_path / name, parts, [Step(FULLY_CONNECTED, (0, 1), (2,))])
            archive.write(model, f"mediapipe/modules/{name}")
    status, out, err = jaynes("table2", f"blazepose={wheel}")
    assert (status, err) == (0, "")
    found = rows_below(out, "BlazePose")
    assert list(found) == ["paper", "here", "pose_detection", "pose_landmark_full", "Gaussian"]
    assert [cells[0] for cells in found.values()] == ["39", "2", "1", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vgg16=none.h5"], "there is no none.h5"),
        (["--fetch", "vgg16"], "vgg16 is not had from the hub: name Keras' file"),
        (["blazepose=none.whl"], "none.whl cannot be read"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_others_go_on(
    jaynes: Run, model: Path, arguments: list[str], said: str
) -> None:
    status, out, err = jaynes("table2", *arguments, f"xception={model}")
    assert status == 1
    assert err.startswith(f"jaynes: {said}")
    assert err.count("\n") == 1
    assert rows_below(out, "Xception")["here"][0] == "2/3"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vgg19=a.h5"], "the table has no vgg19; it has blazepose, xception, vgg16, bert-small"),
        (["--fetch", "gpt"], "the table has no gpt"),
        (["vgg16"], "expected NETWORK=PATH, such as vgg16=vgg16.h5, got vgg16"),
        (["bert-small=a", "--fetch", "bert-small"], "bert-small is named twice"),
    ],
)
def test_wrong_usage(jaynes: Run, arguments: list[str], said: str) -> None:
    status, out, err = jaynes("table2", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"jaynes: {said}")


def test_an_interrupt_keeps_what_was_measured(
    jaynes: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = command._measure

    def interrupted(network, path, device):
        if network.key == "vgg16":
            raise KeyboardInterrupt
        return measure(network, path, device)

    monkeypatch.setattr(command, "_measure", interrupted)
    status, out, err = jaynes("table2", f"xception={model}", f"vgg16={model}")
    assert status == 130
    assert rows_below(out, "Xception")["here"][0] == "2/3"
    assert list(rows_below(out, "VGG16")) == ["paper"]
    assert "interrupted" in err
