import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaynes_callbacks
from tests.missing import run_without

HOME = Path(__file__).parents[1]


def test_every_public_name_is_there() -> None:
    for name in jaynes_callbacks.__all__:
        assert getattr(jaynes_callbacks, name) is not None
    assert dir(jaynes_callbacks) == sorted(jaynes_callbacks.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'EquilibriumMonitro'"):
        jaynes_callbacks.EquilibriumMonitro  # noqa: B018


#: What is imported, one after the other in one process, and what may not be loaded after each.
LIGHT: list[list[tuple[str, str]]] = [
    [
        # torchmetrics loads matplotlib by itself where it is installed, so it is absent only here.
        ("import jaynes_callbacks", "torch lightning matplotlib pandas pyarrow wandb hydra scipy"),
        (
            "from jaynes_callbacks import Recorder, MagnitudeHistogram, Records",
            "lightning pytorch_lightning pyarrow wandb hydra",
        ),
        ("from jaynes_callbacks import watch", "lightning pytorch_lightning wandb hydra"),
        ("from jaynes_callbacks import EquilibriumMonitor", "pytorch_lightning wandb"),
    ],
    [
        (
            "from jaynes_callbacks.pytorch_lightning import EquilibriumMonitor",
            "lightning.pytorch wandb",
        )
    ],
]


@pytest.mark.parametrize("statements", LIGHT, ids=["lightning", "pytorch_lightning"])
@pytest.mark.sampled(2)
def test_imports_are_light(statements: list[tuple[str, str]]) -> None:
    check = "import sys\n" + "".join(
        f"{statement}\n"
        f"loaded = [name for name in {absent.split()!r} if name in sys.modules]\n"
        f"assert not loaded, ({statement!r}, loaded)\n"
        "torch = sys.modules.get('torch')\n"
        "assert torch is None or not torch.cuda.is_initialized()\n"
        for statement, absent in statements
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Dependencies and extras --------------------------------------------------------------------------

#: Modules whose distribution has another name.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "google": "onnx"}
#: What may import the packages of extras when it is imported itself, and which ones.
OPTIONAL = {
    "counts/numba_kernels.py": {"fast"},
    "files/formats/gguf_files.py": {"gguf"},
    "files/formats/hdf5_arrays.py": {"keras"},
    "files/formats/onnx_files.py": {"onnx"},
    "files/formats/safetensors_files.py": {"safetensors"},
    "files/hub/": {"hub"},
    "pytorch_lightning.py": {"pytorch_lightning"},
    "report/": {"report"},
}
WORKS = """
import logging, sys
import torch
from jaynes_callbacks import Recorder, analyse, compare, measure_checkpoint, watch
from jaynes_callbacks.cli import main

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU())
with Recorder(model) as recorder:
    model(torch.randn(64, 20))
    assert [record.kind for record in recorder.snapshot()] == ["weight", "iota"]
assert len(analyse(model.state_dict())) == 1
torch.save(model.state_dict(), PATH)
assert len(measure_checkpoint(PATH)) == 1
assert len(compare(PATH, model.state_dict()).pairs) == 1
assert main(["fit", PATH]) == 0
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
watch(model, optimizer, dirpath=PATH + ".watched")
for _ in range(3):
    optimizer.zero_grad()
    model(torch.randn(64, 20)).square().mean().backward()
    optimizer.step()
"""


TRAINS = """
import torch
from transformers import Trainer, TrainingArguments
from jaynes_callbacks.huggingface import EquilibriumCallback

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(20, 30)

    def forward(self, x, labels):
        return {"loss": torch.relu(self.layer(x)).square().mean()}

callback = EquilibriumCallback()
rows = [{"x": torch.randn(20), "labels": torch.zeros(())} for _ in range(16)]
quiet = dict(report_to=[], use_cpu=True, disable_tqdm=True)
arguments = TrainingArguments(PATH, num_train_epochs=1, **quiet)
Trainer(Model(), arguments, train_dataset=rows, callbacks=[callback]).train()
assert callback.history.step.unique().tolist() == [0, 2]
"""


def project() -> tuple[set[str], dict[str, set[str]]]:
    """Names of the core dependencies, and those of each extra."""
    table = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", each, maxsplit=1)[0].lower() for each in requirements}

    extras = table["optional-dependencies"]
    return names(table["dependencies"]), {extra: names(extras[extra]) for extra in extras}


def imported(file: Path, *, later: bool = False) -> Iterator[str]:
    """Distributions of the third-party modules that a module imports when it is imported itself.

    With `later`, also those that its functions import.
    """
    tree = ast.parse(file.read_text())
    for statement in ast.walk(tree) if later else tree.body:
        found: list[str] = []
        if isinstance(statement, ast.Import):
            found = [alias.name for alias in statement.names]
        if isinstance(statement, ast.ImportFrom) and statement.module:
            found = [statement.module]
        for name in {each.partition(".")[0] for each in found}:
            if name not in sys.stdlib_module_names and name != "jaynes_callbacks":
                yield DISTRIBUTIONS.get(name, name)


def test_every_import_is_declared() -> None:
    core, extras = project()
    extras["pytorch_lightning"] = {"pytorch_lightning"}
    package = HOME / "jaynes_callbacks"
    used = set()
    for file in package.rglob("*.py"):
        place = str(file.relative_to(package))
        optional = {extra for at in OPTIONAL if place.startswith(at) for extra in OPTIONAL[at]}
        allowed = core.union(*(extras[extra] for extra in optional))
        for name in imported(file):
            assert name in allowed, f"{place} imports {name}"
        used |= set(imported(file, later=True))
    assert not core - used, "declared and not used"


def test_the_lowest_constraints_are_the_bounds_of_the_core_dependencies() -> None:
    table = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", each) for each in table["dependencies"]]
    expected = {match[1]: match[2] for match in bounds if match}
    assert len(expected) == len(table["dependencies"]), "each core dependency has a lower bound"
    lines = (HOME / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned.keys() == expected.keys()
    for name, bound in expected.items():
        # 2.4.0 is the first release that >=2.4 allows.
        assert re.sub(r"(\.0)+$", "", pinned[name]) == re.sub(r"(\.0)+$", "", bound), name


def test_all_is_every_extra_of_users() -> None:
    (line,) = tomllib.loads((HOME / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["all"]
    _, extras = project()
    others = {"all", "bench", "dev", "experiments", "optuna", "ray", "slurm"}
    assert line == f"jaynes-callbacks[{','.join(sorted(set(extras) - others))}]"


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param(["lightning", "pytorch_lightning", "lightning_fabric"], id="no lightning"),
        pytest.param(
            "jinja2 yaml rich numba safetensors onnx gguf h5py".split()
            + "wandb tensorboard hydra datasets".split(),
            id="no extra",
        ),
    ],
)
@pytest.mark.sampled(2)
def test_it_works_without(hidden: list[str], tmp_path: Path) -> None:
    done = run_without(hidden, f"PATH = {str(tmp_path / 'a.pt')!r}\n{WORKS}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.weight" in done.stdout
    # Nobody has closed the watch: Python did when it ended, and computed the last records.
    assert "jaynes_callbacks: 2 streams: " in done.stdout
    parts = (tmp_path / "a.pt.watched/jaynes").glob("part-*.parquet")
    assert sorted(int(part.stem.split("-")[1]) for part in parts) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_trainer_of_transformers_needs_no_lightning(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    hidden = ["lightning", "pytorch_lightning"]
    done = run_without(hidden, f"PATH = {str(tmp_path)!r}\n{TRAINS}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "jaynes").is_dir()


def test_an_extra_is_not_blamed_for_a_module_of_our_own() -> None:
    done = run_without(["jaynes_callbacks.report.runs"], "import jaynes_callbacks.report")
    assert "ModuleNotFoundError: import of jaynes_callbacks.report.runs halted" in done.stderr
    assert "pip install" not in done.stderr


def test_the_source_archive_holds_all_of_the_package_and_no_test(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(HOME / name, copy)
    for name in ("jaynes_callbacks", "tests"):
        shutil.copytree(HOME / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, check=True, timeout=120,
                   capture_output=True)  # fmt: skip
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
        file.extractall(tmp_path, filter="data")
    assert not {name for name in names if name.startswith("tests")}
    sources = {str(path.relative_to(HOME)) for path in (HOME / "jaynes_callbacks").rglob("*.py")}
    assert sources <= names
    assert "jaynes_callbacks/report/templates/page.html" in names
    (metadata,) = tmp_path.glob("jaynes_callbacks-*/PKG-INFO")
    assert "\nProject-URL: " in metadata.read_text()
