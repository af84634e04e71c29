"""Models on the hub are measured as local files are, and what fails is one sentence."""

import io
import json
import struct
from collections.abc import Iterator

import pytest
import torch
from huggingface_hub import constants

from jaynes_callbacks import measure_checkpoint
from jaynes_callbacks.files import CheckpointError, open_checkpoint
from jaynes_callbacks.files.hub import client
from jaynes_callbacks.files.hub.client import Hub
from tests.hub import Repository, StandIn, safetensors_of, small_network, stand_in
from tests.missing import jaynes_without

STATE = small_network(0)
FILE = safetensors_of(STATE)
NAME = "hf://org/net"
SECRET = "hf_secret"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in with one network, and no waiting between tries."""
    monkeypatch.setattr(client, "_WAITS", (0.0, 0.0, 0.0))
    with stand_in() as found:
        found.repositories["org/net"] = Repository()
        found.repositories["org/net"].add({"model.safetensors": FILE, "README.md": b"# net"})
        yield found


# What is read -------------------------------------------------------------------------------------


def test_rows_are_those_of_the_same_file_on_disk(hub: StandIn, tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(FILE)
    found = measure_checkpoint(NAME)
    local = measure_checkpoint(tmp_path / "model.safetensors")
    assert [row.name for row in found] == [row.name for row in local]
    for ours, theirs in zip(found, local, strict=True):
        assert (ours.gap, ours.core_gap, ours.gap_se) == (
            theirs.gap,
            theirs.core_gap,
            theirs.gap_se,
        )
        assert (ours.counts == theirs.counts).all()
    assert {row.run for row in found} == {NAME}


@pytest.mark.parametrize("redirects", [False, True])
def test_only_the_chosen_tensors_are_moved(hub: StandIn, redirects: bool) -> None:
    hub.redirects = redirects
    measure_checkpoint(NAME, exclude="*embed*")
    chosen = sum(STATE[name].nbytes for name in ("layers.0.weight", "layers.1.weight"))
    header = 8 + struct.unpack("<Q", FILE[:8])[0]
    assert hub.moved == chosen + header


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(hub: StandIn, dtype: torch.dtype) -> None:
    values = STATE["layers.1.weight"].to(dtype)
    hub.repositories["org/net"].add({"a.safetensors": safetensors_of({"w": values})})
    (entry,) = open_checkpoint(NAME).entries
    torch.testing.assert_close(entry.load(), values, rtol=0, atol=0)


def test_ranges_of_bounded_size_make_the_whole(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_RANGE", 1000)
    entries = {entry.name: entry for entry in open_checkpoint(NAME).entries}
    torch.testing.assert_close(entries["embed.weight"].load(), STATE["embed.weight"])
    sizes = [asked for _, _, asked in hub.requests if asked]
    assert len(sizes) > STATE["embed.weight"].nbytes / 1000


def test_shards_and_a_revision_and_a_folder(hub: StandIn) -> None:
    first, last = ({name: STATE[name]} for name in ("layers.0.weight", "layers.1.weight"))
    index = {
        "weight_map": {"layers.0.weight": "a-1.safetensors", "layers.1.weight": "a-2.safetensors"}
    }
    hub.repositories["org/net"].add(
        {
            "sub/model.safetensors.index.json": json.dumps(index).encode(),
            "sub/a-1.safetensors": safetensors_of(first),
            "sub/a-2.safetensors": safetensors_of(last),
        },
        "v/1",
    )
    for address in (f"{NAME}@v%2F1", f"{NAME}@v%2F1/sub"):
        found = measure_checkpoint(address)
        assert [row.name for row in found] == ["layers.0.weight", "layers.1.weight"]
        assert {row.run for row in found} == {address}


def test_another_format_is_downloaded_and_removed(
    hub: StandIn, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = io.BytesIO()
    torch.save(STATE, stream)
    hub.repositories["org/net"].add(
        {"pytorch_model.bin": stream.getvalue(), "training_args.bin": b"no model"}, "bin"
    )
    found = measure_checkpoint(f"{NAME}@bin")
    assert [row.name for row in found] == [name for name in STATE if name.endswith("weight")]
    assert not list(tmp_path.iterdir())


def test_a_branch_that_moves_on_is_read_at_one_commit(hub: StandIn) -> None:
    checkpoint = open_checkpoint(NAME)
    moved_on = hub.repositories["org/net"].add(
        {"model.safetensors": safetensors_of(small_network(1))}
    )
    for entry in checkpoint.entries:
        torch.testing.assert_close(entry.load(), STATE[entry.name])
    assert checkpoint.commit != moved_on
    assert open_checkpoint(NAME).commit == moved_on


# What fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(hub: StandIn, status: int) -> None:
    hub.fail(2, status, "/resolve/")
    assert len(measure_checkpoint(NAME)) == 3


def test_a_connection_cut_amid_a_range_is_made_anew(hub: StandIn) -> None:
    hub.cut(3, "/resolve/", 4)
    entries = {entry.name: entry for entry in open_checkpoint(NAME).entries}
    torch.testing.assert_close(entries["embed.weight"].load(), STATE["embed.weight"])
    assert len(hub.requests) == 1 + 3 + 3


def test_retries_are_bounded_and_waits_are_what_the_server_asks(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(client.time, "sleep", waits.append)
    hub.fail(10**9, 429, "/resolve/", Retry_After="9999")
    with pytest.raises(CheckpointError, match="429"):
        open_checkpoint(NAME)
    assert waits == [client._LONGEST] * 3


def test_a_tensor_that_cannot_be_had_costs_no_other(hub: StandIn) -> None:
    open_checkpoint(NAME)
    broken = f"bytes={FILE.index(STATE['layers.0.weight'].numpy().tobytes())}-"
    hub.faults.append(
        lambda handler: (
            broken in handler.headers.get("Range", "") and (handler.answer(500, b"", {}) or True)
        )
    )
    with pytest.warns(UserWarning, match=r"layers\.0\.weight|cannot be read"):
        found = measure_checkpoint(NAME)
    assert [row.name for row in found] == ["embed.weight", "layers.1.weight"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://org/nothing", "does not exist, or is private"),
        (f"{NAME}@nowhere", "no such revision"),
        (f"{NAME}/other.safetensors", "no such file"),
        (f"{NAME}/README.md", "its name ends in none of"),
        ("hf://org", "expected hf://org/name"),
        ("hf://org/gated", "accept its terms"),
        ("hf://org/empty", "holds no model"),
        ("hf://org/two", "name one: hf://org/two/a.gguf, hf://org/two/b.gguf"),
    ],
)
def test_what_is_not_there_is_said(hub: StandIn, address: str, said: str) -> None:
    hub.repositories["org/gated"] = Repository(token="other", gated=True)
    hub.repositories["org/empty"] = Repository()
    hub.repositories["org/empty"].add({"README.md": b""})
    hub.repositories["org/two"] = Repository()
    hub.repositories["org/two"].add({"a.gguf": b"", "b.gguf": b""})
    with pytest.raises(CheckpointError, match=said.replace(".", r"\.")):
        measure_checkpoint(address)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 500])
@pytest.mark.parametrize("part", ["/api/", "/resolve/"])
def test_no_token_is_ever_told(
    hub: StandIn, status: int, part: str, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.fail(10**9, status, part)
    with pytest.raises(CheckpointError) as caught:
        measure_checkpoint(NAME)
    assert "hf://org/net" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value) + caplog.text
    assert caught.value.__cause__ is None


def test_a_token_goes_to_the_hub_only(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.redirects, hub.repositories["org/net"].token = True, SECRET
    assert len(measure_checkpoint(NAME)) == 3
    assert hub.leaked == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE is set"),
        ("ENDPOINT", "http://127.0.0.1:9", r"cannot be read: \w+"),
    ],
)
def test_no_network_is_said(hub: StandIn, name: str, value: object, said: str) -> None:
    # Undone before the stand-in's own patches are.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(constants, name, value)
        with pytest.raises(CheckpointError, match=said):
            measure_checkpoint(NAME)


@pytest.mark.parametrize(
    "content",
    [
        b"short",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b"{]}",
        struct.pack("<Q", 60)
        + b'{"w":{"dtype":"F32","shape":[9,9],"data_offsets":[0,999]}}'.ljust(60),
        struct.pack("<Q", 60)
        + b'{"w":{"dtype":"F32","shape":[9,9],"data_offsets":[0,8]}}'.ljust(60)
        + bytes(8),
    ],
)
def test_a_damaged_header_is_said(hub: StandIn, content: bytes) -> None:
    hub.repositories["org/net"].add({"model.safetensors": content})
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        open_checkpoint(NAME)


def test_a_server_without_ranges_is_refused_before_the_whole_file_comes(hub: StandIn) -> None:
    hub.faults.append(
        lambda handler: "/resolve/" in handler.path and (handler.answer(200, FILE, {}) or True)
    )
    with pytest.raises(CheckpointError, match="gives no ranges"):
        open_checkpoint(NAME)


def test_bytes_are_counted(hub: StandIn) -> None:
    asked = Hub("org/net")
    at = asked.revision(None)
    assert asked.read("model.safetensors", at, 8, 5) == FILE[8:13]
    assert asked.moved == 5 == hub.moved


def test_a_name_without_scheme_is_no_path() -> None:
    with pytest.raises(FileNotFoundError, match="did you mean hf://EleutherAI/pythia-14m"):
        open_checkpoint("EleutherAI/pythia-14m")


def test_a_missing_extra_is_named() -> None:
    for command in ("fit", "compare"):
        places = ["hf://org/net"] * (1 + (command == "compare"))
        done = jaynes_without(["huggingface_hub"], command, *places)
        assert done.returncode == 1
        assert "pip install 'jaynes-callbacks[hub]'" in done.stderr
        assert "Traceback" not in done.stderr
    done = jaynes_without(["huggingface_hub"], "fit", "hf://org/net", "--revisions", "step*")
    assert done.returncode == 1
    assert "pip install 'jaynes-callbacks[hub]'" in done.stderr
    assert "Traceback" not in done.stderr
