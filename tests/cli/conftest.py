"""Small checkpoints and the command, called as the shell would."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jaynes_callbacks.cli import main

Said = tuple[int, str, str]


@pytest.fixture
def jaynes(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command: its status, what it printed and what it complained of."""

    def run(*arguments: object) -> Said:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def model(tmp_path: Path, generator: torch.Generator) -> Path:
    """A file of three weights and a bias."""
    state = {
        "net.attn.q_proj.weight": torch.randn(200, 200, generator=generator),
        "net.mlp.up_proj.weight": torch.randn(200, 250, generator=generator).exp(),
        "net.conv.weight": torch.randn(32, 16, 3, 3, generator=generator),
        "net.conv.bias": torch.randn(32, generator=generator),
    }
    save_file(state, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"
