"""The blocks of docs/checkpoints.md: Python run as it stands, commands parsed."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jaynes_callbacks.cli import _parser

PAGE = Path(__file__).parents[1] / "docs" / "checkpoints.md"


def _blocks(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [block for its, block in blocks if its == language]


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "tuned"):
        save_file({"h.0.mlp.weight": torch.randn(200, 200)}, f"{name}.safetensors")
    block, reader = _blocks("python")
    names: dict[str, object] = {}
    exec(compile(block, "docs/checkpoints.md", "exec"), names)
    assert len(names["records"]) == 1  # type: ignore[arg-type]
    assert len(names["comparison"].pairs) == 1  # type: ignore[attr-defined]
    exec(compile(reader, "docs/checkpoints.md", "exec"), names)
    (tmp_path / "a.numbers").write_text("1 2 3\n4 5 6\n")
    (entry,) = names["open_numbers"](tmp_path / "a.numbers", None).entries  # type: ignore[operator]
    assert entry.load().tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_commands_exist() -> None:
    (block,) = _blocks("")
    lines = [line.split("#")[0].split(">")[0] for line in block.splitlines()]
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "jaynes"
        _parser().parse_args(arguments)
    assert len(lines) == 5
