"""Text from files cannot control a terminal; any encoding, and an output that fails."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jaynes_callbacks.records.printable import printable

Run = Callable[..., tuple[int, str, str]]

#: Clears the screen, sets the title, rings, turns the direction of writing, forges a line.
EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\r\nweight forged\x7f"


@pytest.mark.parametrize("number", [*range(32), *range(127, 160), 0x202E, 0x2066, 0x2028, 0xDC80])
def test_no_control_character_is_printable(number: int) -> None:
    shown = printable(f"a{chr(number)}b")
    assert shown.isprintable()
    assert shown.isascii()
    assert shown != "ab"


def test_other_text_stays() -> None:
    text = "encoder.層.μ'→é–½ weight"
    assert printable(text) == text


def _evil_files(folder: Path) -> list[Path]:
    """A file whose name and whose tensors' names are evil, and a broken one."""
    good = folder / f"{EVIL.replace('/', '')}.pt"
    weights = {EVIL: torch.randn(20, 20), f"{EVIL}.bias": torch.ones(9)}
    torch.save({"state_dict": weights, "epoch": 1}, good)
    broken = folder / f"broken{EVIL}.pt"
    broken.write_text("hello")
    return [good, broken]


@pytest.mark.parametrize(
    "options", [[], ["--exclude", "no"], ["--include", "zz*"], ["--min-size", "99999"]]
)
def test_names_cannot_control_a_terminal(options: list[str], jaynes: Run, tmp_path: Path) -> None:
    for path in (*_evil_files(tmp_path), tmp_path / f"none{EVIL}", tmp_path):
        _, out, err = jaynes("fit", path, *options)
        assert out + err
        assert all(line.isprintable() for line in f"{out}{err}".split("\n"))
        assert not [line for line in f"{out}{err}".split("\n") if line.startswith("weight forged")]


def test_compare_and_report_cannot_either(jaynes: Run, tmp_path: Path) -> None:
    good, broken = _evil_files(tmp_path)
    calls = [("compare", good, good), ("compare", good, broken), ("report", good, tmp_path)]
    for arguments in (*calls, ("fit", good, f"--no{EVIL}"), (EVIL,)):
        _, out, err = jaynes(*arguments)
        assert out + err
        assert all(line.isprintable() for line in f"{out}{err}".split("\n"))


def test_rows_are_whole_in_a_pipe_and_escaped_on_a_terminal(tmp_path: Path) -> None:
    good, _ = _evil_files(tmp_path)
    command = [sys.executable, "-m", "jaynes_callbacks", "fit", str(good), "--format", "csv"]
    piped = subprocess.run(command, capture_output=True).stdout
    assert EVIL.encode() in piped
    above, below = pty.openpty()
    subprocess.run(command, stdout=below, stderr=subprocess.DEVNULL)
    os.close(below)
    shown = b""
    try:
        while part := os.read(above, 1 << 16):
            shown += part
    except OSError:  # the terminal is closed
        pass
    assert b"\\x1b[2J" in shown
    assert b"\x1b" not in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.sampled(3)
def test_any_encoding_of_the_terminal(encoding: str, model: Path) -> None:
    command = [sys.executable, "-m", "jaynes_callbacks", "fit", str(model)]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "half-normal" in done.stdout.decode(encoding)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("options", [[], ["--format", "csv"]])
@pytest.mark.sampled(2)
def test_a_full_disk_is_a_failure(options: list[str], model: Path) -> None:
    command = [sys.executable, "-m", "jaynes_callbacks", "fit", str(model), *options]
    with Path("/dev/full").open("w") as full:
        # Buffered, as it is for users, so that only the end finds the disk full.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == 1
    assert done.stderr == (
        "jaynes: the output cannot be read or written (No space left on device)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["fit", ""], 2, "the path is empty"),
        (["compare", "MODEL", ""], 2, "the path is empty"),
        (["report", ""], 1, "the path is empty"),
        (["fit", "MODEL", "--output", "", "--format", "csv"], 2, "expected a file"),
        (["fit", "MODEL", "--output", "/dev/null", "--format", "csv"], 2, "expected a file"),
        (["fit", "MODEL", "--output", "FOLDER", "--format", "csv"], 2, "expected a file"),
        (["fit", "MODEL", "--report", "/dev/null"], 2, "--report must be a file"),
        (["fit", "MODEL", "--output", f"{'n' * 300}.csv"], 1, "File name too long"),
        (["fit", "n" * 5000], 1, "File name too long"),
        (["fit", "MODEL", "--max-expanded", "0"], 2, "must be at least 1"),
    ],
)
def test_places_that_are_none(
    arguments: list[str], status: int, sentence: str, jaynes: Run, model: Path, tmp_path: Path
) -> None:
    named = {"MODEL": str(model), "FOLDER": str(tmp_path)}
    found, out, err = jaynes(*(named.get(each, each) for each in arguments))
    assert (found, out) == (status, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_the_bar_shows_names_as_they_are(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are no markup, and control characters are escapes."""
    from rich.console import Console

    from jaynes_callbacks.cli import measuring
    from jaynes_callbacks.files import Limits
    from jaynes_callbacks.probes.selection import Selection

    path = tmp_path / "a[red]\x1b[2J.safetensors"
    save_file({"w": torch.randn(40, 40, generator=generator)}, path)
    console = Console(record=True, force_terminal=True, width=120, file=io.StringIO())
    monkeypatch.setattr(measuring, "_console", lambda: console)
    survey = measuring.open_survey(path, Selection.of("weight", "*", (), 64), Limits())
    assert survey is not None
    measuring.measure_survey(survey, "cpu", 1, lambda records: None)
    assert "a[red]\\x1b[2J.safetensors" in console.export_text()
