"""Slices in several threads count what a whole tensor counts, and hold no more than they must."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from jaynes_callbacks.counts.kernels import passes_over
from jaynes_callbacks.files import streaming, survey
from jaynes_callbacks.files.pages import release
from jaynes_callbacks.files.streaming import slice_counter
from jaynes_callbacks.instruments.tally import tally_of_tensors
from tests.processes import python

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2]
#: Of 16 bits a value the larger is counted in one pass, the smaller in two.
SHAPES = [(211, 307), (611, 503)]


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_SLICE", 1 << 14)
    monkeypatch.setattr(streaming, "RESIDENT", 1 << 15)


def _mapped(values: Tensor, tmp_path: Path) -> Tensor:
    save_file({"w": values}, tmp_path / "a.safetensors")
    tensor: Tensor = safe_open(tmp_path / "a.safetensors", "pt").get_tensor("w")
    return tensor


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_tally(
    dtype: torch.dtype,
    shape: tuple[int, int],
    threads: int,
    tmp_path: Path,
    generator: torch.Generator,
) -> None:
    """Each slice is given back to the system after each pass, and read anew."""
    values = torch.randn(shape, generator=generator).to(dtype)
    expected = tally_of_tensors([values])
    done: list[float] = []
    with slice_counter(threads=threads, progress=done.append) as counter:
        found = counter.count(_mapped(values, tmp_path), mapped=True)
    assert torch.equal(found.counts, expected.counts[0])
    assert torch.equal(found.linear, expected.linear[0])
    assert found.maximum == expected.maximum[0]
    assert sum(done) == values.nbytes
    slices = -(-values.nbytes // (1 << 14))
    assert len(done) == slices * passes_over(values.flatten())


def test_both_numbers_of_passes_are_tested() -> None:
    values = [torch.zeros(shape, dtype=torch.float16).flatten() for shape in SHAPES]
    assert [passes_over(each) for each in values] == [2, 1]


@pytest.mark.parametrize("passes", [1, 2])
def test_slices_are_read_ahead_and_given_back(
    passes: int, tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(SHAPES[2 - passes], generator=generator).to(torch.float16)
    mapped = _mapped(values, tmp_path)
    calls: dict[str, list[int]] = {"prefetch": [], "release": []}
    for name, places in calls.items():
        spy = _spy(getattr(streaming, name), mapped, places)
        monkeypatch.setattr(streaming, name, spy)
    with slice_counter(threads=1) as counter:
        counter.count(mapped, mapped=True)
    starts = list(range(0, values.nbytes, 1 << 14))
    assert calls["release"] == starts * passes
    assert calls["prefetch"] == starts[1:] * passes


def _spy(
    function: Callable[[Tensor], None], whole: Tensor, places: list[int]
) -> Callable[[Tensor], None]:
    """Write down at which byte of the whole tensor each part begins."""

    def call(part: Tensor) -> None:
        places.append(part.data_ptr() - whole.data_ptr())
        function(part)

    return call


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (70, 80)])
def test_nothing_and_little(shape: tuple[int, ...]) -> None:
    values = torch.zeros(shape)
    with slice_counter() as counter:
        found = counter.count(values, mapped=False)
    assert found.counts.sum() == values.numel()
    assert found.maximum == 0
    assert found.linear.sum() == 0


def test_a_copy_of_a_mapped_tensor_is_not_given_back(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """Where values must be copied, giving their pages back would make them zeros."""
    values = torch.randn(400, 600, generator=generator)
    holes = _mapped(values, tmp_path)[::2, ::3]
    with slice_counter() as counter:
        found = counter.count(holes, mapped=True)
    assert torch.equal(found.linear, tally_of_tensors([values[::2, ::3]]).linear[0])


def test_what_was_given_back_is_read_anew(tmp_path: Path, generator: torch.Generator) -> None:
    values = torch.randn(300, 400, generator=generator)
    mapped = _mapped(values, tmp_path)
    release(mapped)
    assert torch.equal(mapped, values)


def test_threads_of_torch_are_as_before() -> None:
    before = torch.get_num_threads()
    with slice_counter(threads=2) as counter:
        assert torch.get_num_threads() == 1
        with pytest.raises(TypeError):
            counter.count(torch.ones(9, dtype=torch.int64), mapped=False)
    assert torch.get_num_threads() == before


def test_groups_are_closed_by_number_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    from jaynes_callbacks.files import open_checkpoint
    from jaynes_callbacks.probes.selection import Selection

    state = {f"{n}": torch.randn(30, 30, generator=generator) for n in range(7)}
    save_file(state, tmp_path / "a.safetensors")
    everything = Selection.of("weight", "*", (), 0)
    for limit, value in (("_GROUP", 3), ("_GROUP_BYTES", 3 * 3600)):
        with monkeypatch.context() as patch:
            patch.setattr(survey, limit, value)
            groups = survey.Survey(open_checkpoint(tmp_path / "a.safetensors"), everything)
            assert [len(group) for group in groups.records()] == [3, 3, 1]


# From /proc: the peak that getrusage reports includes that of the process that started this one.
PEAK = """
import re, sys, torch
from jaynes_callbacks.files import open_checkpoint
from jaynes_callbacks.probes.selection import Selection
from jaynes_callbacks.files.survey import Survey
def peak(): return int(re.search("VmHWM:[^0-9]+([0-9]+)", open("/proc/self/status").read())[1])
everything = Selection.of("weight", "*", (), 64)
def measure(path): return list(Survey(open_checkpoint(path), everything).records(threads=2))
measure(sys.argv[1])
before = peak()
measure(sys.argv[2])
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """256 MiB in one tensor and 128 MiB in eight: what is held is slices."""
    save_file({"w": torch.randn(1024, 1024)}, tmp_path / "small.safetensors")
    state = {"large": torch.randn(8192, 8192)}
    state |= {f"{n}": torch.randn(2048, 2048) for n in range(8)}
    save_file(state, tmp_path / "large.safetensors")
    files = [str(tmp_path / name) for name in ("small.safetensors", "large.safetensors")]
    done = python("-c", PEAK, *files)
    assert int(done.stdout) < 100 * 1024
