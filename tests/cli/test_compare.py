"""`jaynes compare`: what became of each weight, under whatever prefix."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jaynes_callbacks.sinks.dataset import read_records

pytestmark = pytest.mark.usefixtures("unfitted")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def two(tmp_path: Path, generator: torch.Generator) -> tuple[Path, Path]:
    """Before, and after under another prefix: one weight has become lognormal, one is the same."""
    uniform = torch.rand(100, 100, generator=generator) - 0.5
    lognormal = torch.randn(100, 100, generator=generator).exp()
    torch.save({"h.0.weight": uniform, "h.1.weight": uniform + 1}, tmp_path / "a.pt")
    after = {"model.h.0.weight": lognormal, "model.h.1.weight": uniform + 1}
    torch.save({**after, "new.weight": torch.ones(9, 9)}, tmp_path / "b.pt")
    return tmp_path / "a.pt", tmp_path / "b.pt"


@pytest.mark.fitted
def test_table(jaynes: Run, two: tuple[Path, Path]) -> None:
    status, out, err = jaynes("compare", *two)
    assert (status, err) == (0, "")
    figures = r"0.4\d\d → -?0.00\d +-?0.00\d \(0.1\d\d\)"
    changed = rf"model.h.0.weight +10k +{figures} +uniform → lognormal .* emerged"
    assert re.search(changed, out)
    assert re.search(r"model.h.1.weight .* 0.000 +not emerging", out)
    assert "only in the second: 1 (new.weight)" in out
    assert max(map(len, out.splitlines()[1:])) <= 100


def test_rows(jaynes: Run, two: tuple[Path, Path], tmp_path: Path) -> None:
    status, _, _ = jaynes("compare", *two, "--output", tmp_path / "rows.parquet")
    assert status == 0
    rows = read_records(tmp_path / "rows.parquet")
    assert [row.run for row in rows] == [str(two[0]), str(two[1])] * 2
    after = {row.name: row for row in rows if row.run == str(two[1])}
    assert after["model.h.0.weight"].moved > 1
    assert after["model.h.1.weight"].moved == 0
    assert after["model.h.0.weight"].verdict == "emerged"


def test_nothing_in_common(jaynes: Run, two: tuple[Path, Path], tmp_path: Path) -> None:
    torch.save({"other": torch.randn(30, 30)}, tmp_path / "c.pt")
    status, out, err = jaynes("compare", two[0], tmp_path / "c.pt")
    assert (status, out) == (1, "")
    assert "have no weight in common" in err


def test_refusals(jaynes: Run, two: tuple[Path, Path], tmp_path: Path) -> None:
    assert jaynes("compare", two[0], tmp_path)[::2] == (
        2,
        f"jaynes: {tmp_path} holds 2 checkpoints (a.pt, b.pt); name one of them\n",
    )
    assert jaynes("compare", two[0])[0] == 2
    two[1].write_text("")
    status, _, err = jaynes("compare", *two)
    assert status == 1
    assert err.count("\n") == 1
