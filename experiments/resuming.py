"""Find the checkpoint from which an interrupted run goes on, whichever engine starts it again.

A job that is killed leaves its folder without ``result.json``.  SLURM that requeues it, Ray that
tries it again, and a user who starts the same sweep once more all call the run in the same folder.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.result import identity
from jaynes_callbacks.records.atomic import put

__all__ = ["FILE", "last_checkpoint", "note_beginning"]

FILE = "begun.json"


def last_checkpoint(cfg: DictConfig, folder: Path) -> Path | None:
    """Return the last checkpoint of this run if it was interrupted in this folder; else None.

    A checkpoint is that run's if ``begun.json`` holds this configuration and is older.  So one that
    another configuration left in the folder is not taken, and all ranks of a run decide alike, in
    whichever order they come.

    Args:
        cfg: composed from ``conf/train.yaml``.
        folder: of the run.
    """
    begun = folder / FILE
    if _read(begun) != _beginning(cfg):
        return None
    since = begun.stat().st_mtime_ns
    times = {file: file.stat().st_mtime_ns for file in folder.glob("checkpoints/last*.ckpt")}
    newest = max(times, key=lambda file: times[file], default=None)
    return newest if newest is not None and times[newest] > since else None


def note_beginning(cfg: DictConfig, folder: Path) -> None:
    """Write down that a run of this configuration begins in the folder; for rank 0 alone."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_beginning(cfg), indent=1) + "\n"
    put(folder / FILE, lambda file: file.write_text(text))


def _beginning(cfg: DictConfig) -> dict[str, Any]:
    return {"config": identity(cfg), "ckpt_path": cfg.ckpt_path}


def _read(begun: Path) -> Any:
    """Return what the file holds; None where there is none, or it is no JSON."""
    try:
        return json.loads(begun.read_text())
    except (FileNotFoundError, ValueError):
        return None
