"""docs/own_model.md, block by block, in a folder of its own."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.processes import python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_model.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's module lies and its commands have been run."""
    place = tmp_path_factory.mktemp("own")
    (module,) = blocks("python")
    (place / "my_module.py").write_text(module)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for line in "".join(blocks("bash")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "python"
        done = python(*arguments, cwd=place, env=environment, painted=False, fitted=False)
        assert done.returncode == 0, done.stderr
    return place


def test_an_own_module_is_trained_and_watched(folder: Path) -> None:
    results = [json.loads(path.read_text()) for path in folder.glob("outputs/train/*/result.json")]
    targets = {result["config"]["model"]["_target_"]: result for result in results}
    own = targets["my_module.Module"]
    assert own["metrics"]["test/accuracy"] > 0
    assert own["dataset"] == "jaynes"
    net = targets["experiments.classifier.Classifier"]
    assert net["config"]["model"]["net"]["_target_"] == "my_module.Net"


def test_an_own_module_is_studied(folder: Path) -> None:
    results = [json.loads(path.read_text()) for path in folder.glob("multirun/mine/*/result.json")]
    assert len(results) == 6
    assert {result["config"]["model"]["width"] for result in results} == {96}
    page = (folder / "outputs" / "mine" / "summary.md").read_text()
    assert "6 runs of 2 conditions, seeds 1, 2, 3" in page
    lognormal, gaussian = (
        next(line for line in page.splitlines() if line.startswith(f"| {init} | 3 |"))
        for init in ("lognormal", "kaiming_normal")
    )
    assert "0/100/0/0" in lognormal
    assert "0/100/0/0" not in gaussian
