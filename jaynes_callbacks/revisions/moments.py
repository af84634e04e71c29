"""The checkpoints of a history: a repository's revisions, several repositories, or a folder's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from jaynes_callbacks.files import CheckpointError, Limits, find_checkpoints, open_checkpoint
from jaynes_callbacks.files.formats import format_of
from jaynes_callbacks.files.hub import HubPlace
from jaynes_callbacks.files.hub.place import SCHEME
from jaynes_callbacks.files.opening import hub_opening
from jaynes_callbacks.revisions.steps import Thinning, step_in

__all__ = ["Listing", "Moment", "moments_in", "moments_on_hub"]

_SHOWN = 5


@dataclass(frozen=True)
class Moment:
    """One checkpoint of a history.

    Attributes:
        step: optimizer steps at which it was saved.
        name: of the revision, repository or file.
        place: where it is.
    """

    step: int
    name: str
    place: HubPlace | Path


@dataclass(frozen=True)
class Listing:
    """The checkpoints that were chosen, in the order of their steps, and what was left out.

    Attributes:
        moments: at least one.
        left_out: a sentence each.
    """

    moments: tuple[Moment, ...]
    left_out: tuple[str, ...] = ()


def moments_on_hub(address: str, pattern: str | None, thinning: Thinning) -> Listing:
    """List the revisions of a repository on the hub whose names match, or a repository per step.

    A branch is read at the commit that it points to now.

    Args:
        address: ``hf://org/name``; with ``{}`` in the name, where `pattern` is put in.
        pattern: glob on branches and tags, such as ``step*``; of an address with ``{}`` names
            separated by commas, such as ``0k,20k,40k``.
        thinning: of the revisions.

    Raises:
        CheckpointError: if the hub cannot be asked, or nothing matches.
        ValueError: for an address that is none, or that names a revision already.
    """
    if "{}" in address:
        names = [name.strip() for name in (pattern or "").split(",") if name.strip()]
        if not names:
            raise ValueError(
                f"{address} stands for a repository per step; name the steps, as in "
                "--revisions 0k,20k,40k"
            )
        found = {name: HubPlace.parse(address.replace("{}", name)) for name in names}
        return _listing(
            {place.repository.split("/")[-1]: place for place in found.values()}, thinning, address
        )
    place = HubPlace.parse(address)
    if place.revision is not None:
        raise ValueError(f"{address} names a revision; leave it out, or leave --revisions out")
    return _listing(_revisions(place, pattern or "*"), thinning, f"{address} as {pattern!r}")


def _revisions(place: HubPlace, pattern: str) -> dict[str, HubPlace]:
    refs: dict[str, str] = hub_opening().Hub(place.repository).refs()
    names = [name for name in refs if fnmatchcase(name, pattern)]
    if not names:
        shown = ", ".join(sorted(refs)[:_SHOWN])
        raise CheckpointError(
            f"no revision of {SCHEME}{place.repository} matches {pattern!r}; it has "
            f"{len(refs)}: {shown}{', …' if len(refs) > _SHOWN else ''}"
        )
    return {name: HubPlace(place.repository, name, place.file) for name in names}


def moments_in(folder: Path, pattern: str | None, thinning: Thinning, limits: Limits) -> Listing:
    """List the checkpoints in a folder: files, and folders of one model each.

    The step is that of the name (``step=700.ckpt``, ``checkpoint-50/``), or else what the file
    itself says.

    Args:
        folder: of a run's checkpoints.
        pattern: glob on their names.
        thinning: of the checkpoints.
        limits: on what is expanded in memory.

    Raises:
        FileNotFoundError: if there is no such folder.
        CheckpointError: if nothing in it is a checkpoint of a known step.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; expected one of checkpoints")
    found: dict[str, Path] = {}
    steps: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        for place in _checkpoints_at(path, limits):
            if pattern is not None and not fnmatchcase(path.name, pattern):
                continue
            found[path.name] = place
            if step_in(path.name) is None and (saved := _saved_step(place, limits)):
                steps[path.name] = saved
    return _listing(found, thinning, str(folder), steps)


def _checkpoints_at(path: Path, limits: Limits) -> list[Path]:
    """Return the one checkpoint at a path; none where there is no single one."""
    try:
        if path.is_dir() and step_in(path.name) is None:
            return []
        found = [each for each in find_checkpoints(path, limits) if isinstance(each, Path)]
        return found if (path.is_dir() and len(found) == 1) or _is_file(path) else []
    except (CheckpointError, OSError):
        return []


def _is_file(path: Path) -> bool:
    return path.is_file() and format_of(path) is not None


def _saved_step(place: Path, limits: Limits) -> int:
    """Return the step that a file itself states; 0 if it states none."""
    try:
        return open_checkpoint(place, limits).step
    except (CheckpointError, OSError):
        return 0


def _listing(
    found: Mapping[str, HubPlace | Path],
    thinning: Thinning,
    what: str,
    stated: Mapping[str, int] | None = None,
) -> Listing:
    """Choose among checkpoints by their steps.

    Raises:
        CheckpointError: if none is left, or two names state one step.
    """
    stated = stated or {}
    by_step: dict[int, list[str]] = {}
    unknown = []
    for name in found:
        step = step_in(name)
        # What only the file states is often a copy under another name, such as last.ckpt.
        if step is None and (step := stated.get(name)) is None:
            unknown.append(name)
        else:
            by_step.setdefault(step, []).append(name)
    moments, left_out = [], []
    for step in thinning.chosen(by_step):
        names = [name for name in by_step[step] if name not in stated] or by_step[step][:1]
        if len(names) > 1:
            raise CheckpointError(
                f"{what}: {names[0]} and {names[1]} are both of step {step}; narrow the pattern, "
                "as in --revisions 'stage1-step*'"
            )
        moments.append(Moment(step, names[0], found[names[0]]))
    if unknown:
        left_out.append(f"not {len(unknown)}: no step in the name ({_some(unknown)})")
    if thinned := len(by_step) - len(moments):
        left_out.append(f"not {thinned}: steps that were not asked for")
    if not moments:
        reasons = "; ".join(left_out) or "there is no checkpoint"
        raise CheckpointError(f"{what} has no checkpoint to measure: {reasons}")
    return Listing(tuple(moments), tuple(left_out))


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (", …" if len(ordered) > _SHOWN else "")
