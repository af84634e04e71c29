"""Damaged checkpoints of every format: a sentence, in little time and memory; never a traceback."""

import os
import shutil
from pathlib import Path

import pytest

from tests.files.fuzzing import FORMATS, damaged_copy, seed_files
from tests.files.watched import Cost, Fits, measured

pytest.importorskip("onnx")
pytest.importorskip("gguf")
pytest.importorskip("h5py")
pytest.importorskip("msgpack")
pytest.importorskip("tflite")
pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled", "ignore:.*torch.jit", "ignore::DeprecationWarning"
)

#: Damages of one format that the campaign does.
CASES = int(os.environ.get("FUZZ_CASES", "1000"))
#: Seconds, and KiB above what the process had: with it the whole stays below 600 MiB.
SECONDS, KIBIBYTES = 10, 300 * 1024
#: Damages that once were no sentence, by the number that decides them.
FOUND: dict[str, list[int]] = {
    "compressed.npz": [767],
    "plain.onnx": [280, 309, 674],
    "external.onnx": [37, 115, 149, 189, 565, 582, 610, 865],
}
#: A few of each format that run every time.
ALWAYS = range(6)


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return seed_files(tmp_path_factory.mktemp("seeds"))


def _faults(cost: Cost) -> str:
    """What is wrong with a case; empty if nothing is."""
    sentences = [cost.said, *cost.problems] if cost.said else cost.problems
    faults = {
        "traceback": bool(cost.traceback),
        f"{cost.seconds:.1f} s": cost.seconds > SECONDS,
        f"{cost.kibibytes / 1024:.0f} MiB": cost.kibibytes > KIBIBYTES,
        "several lines": any("\n" in each for each in sentences),
        "no file named": not all(str(Path(cost.path).parent) in each for each in sentences),
    }
    said = ", ".join(fault for fault, is_so in faults.items() if is_so)
    return f"{Path(cost.path).parent.name}: {said}\n{cost.traceback}{sentences}" if said else ""


def test_damage_is_told(seeds: dict[str, Path], tmp_path: Path) -> None:
    numbers = {name: [*ALWAYS, *FOUND.get(name, [])] for name in FORMATS}
    places = [damaged_copy(seeds[n], each, tmp_path) for n in FORMATS for each in numbers[n]]
    whole = measured([*seeds.values()])
    assert [cost for cost in whole if cost.said or cost.problems or cost.traceback] == []
    assert "\n".join(filter(None, map(_faults, measured(places, fits=Fits.ROUGH)))) == ""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FORMATS)
def test_campaign(name: str, seeds: dict[str, Path], tmp_path: Path) -> None:
    faults: list[str] = []
    for first in range(0, CASES, 500):
        folder = tmp_path / str(first)
        numbers = range(first, min(first + 500, CASES))
        places = [damaged_copy(seeds[name], number, folder) for number in numbers]
        faults += filter(None, map(_faults, measured(places, fits=Fits.NONE)))
        shutil.rmtree(folder)
    assert "\n".join(faults) == ""
