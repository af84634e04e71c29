"""Name runs by what tells them apart: the telling parts of their paths."""

import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["telling_parts", "telling_path"]

#: Folders that loggers and trainers make in every run: alone they tell no run from another.
_USUAL = re.compile(
    r"(lightning_|tb_)?logs?|version_\d+|\d+|tensorboard|csv|wandb|mlruns|checkpoints|outputs?"
    r"|jaynes(-\d+)?",
    re.IGNORECASE,
)


def telling_path(folder: Path) -> str:
    """Return a folder's name, below the nearest folder that a person has named.

    >>> telling_path(Path("/data/sweep/lr=0.003/lightning_logs/version_0"))
    'lr=0.003/version_0'
    >>> telling_path(Path("/data/runs/mine"))
    'mine'
    """
    own, *above = [part for part in reversed(folder.parts) if part != folder.anchor] or [""]
    if not _USUAL.fullmatch(own):
        return own
    named = next((part for part in above if not _USUAL.fullmatch(part)), "")
    return f"{named}/{own}" if named else own


def telling_parts(folders: Sequence[Path]) -> list[str]:
    """Return what distinguishes each of several folders, without what they have in common.

    >>> telling_parts([Path("/runs/lr=0.1/logs/version_0"), Path("/runs/lr=1/logs/version_0")])
    ['lr=0.1', 'lr=1']
    >>> telling_parts([Path("/runs/a/version_0"), Path("/runs/a/version_1")])
    ['version_0', 'version_1']
    >>> telling_parts([Path("/runs/a/logs/version_0"), Path("/runs/b/version_1")])
    ['a', 'b']
    """
    paths = [folder.parts for folder in folders]
    if len(set(paths)) < 2:
        return [telling_path(folder) for folder in folders]
    ahead = _common(paths)
    rest = [path[ahead:] for path in paths]
    behind = _common([path[::-1] for path in rest])
    rest = [path[: len(path) - behind] for path in rest]
    named = ["/".join(part for part in path if not _USUAL.fullmatch(part)) for path in rest]
    if all(named) and len(set(named)) == len(named):
        return named
    return ["/".join(path) or telling_path(each) for path, each in zip(rest, folders, strict=True)]


def _common(paths: Sequence[Sequence[str]]) -> int:
    """Return with how many equal parts all paths begin."""
    count = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count
