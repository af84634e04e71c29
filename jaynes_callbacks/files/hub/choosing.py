"""Which files of a repository are its model."""

from collections.abc import Collection
from pathlib import PurePosixPath

from jaynes_callbacks.files.entry import CheckpointError
from jaynes_callbacks.files.formats import known_suffixes

__all__ = ["model_file"]

#: Ends of names in the order of preference: what can be read tensor by tensor comes first, and of
#: a model in several files its index.
_PREFERRED = (
    ".safetensors.index.json",
    ".safetensors",
    ".bin.index.json",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
)
#: What a trainer saves beside the model.
_NO_MODEL = ("training_args", "optimizer", "scheduler", "rng_state", "scaler", "consolidated")
#: Names that libraries give the model itself.
_MODEL = ("model.", "pytorch_model.", "diffusion_pytorch_model.", "open_clip_", "adapter_model.")
_SHOWN = 5


def model_file(files: Collection[str], what: str) -> str:
    """Return the file that holds the model: an index of shards, or one file with all tensors.

    Files at the root come first; safetensors before pickles before other formats.

    Args:
        files: paths of all files of the repository.
        what: names it, for the message.

    Raises:
        CheckpointError: if there is none or more than one.

    >>> model_file(["README.md", "pytorch_model.bin", "model.safetensors"], "hf://org/name")
    'model.safetensors'
    """
    candidates = [file for file in files if _is_model(PurePosixPath(file).name)]
    if not candidates:
        raise CheckpointError(
            f"{what} holds no model: no file ends in {', '.join(known_suffixes())}"
        )
    at_root = [file for file in candidates if "/" not in file]
    found = at_root or candidates
    chosen = found
    for end in _PREFERRED:
        if preferred := [file for file in found if file.endswith(end)]:
            chosen = preferred
            break
    if len(chosen) > 1:
        chosen = [file for file in chosen if PurePosixPath(file).name.startswith(_MODEL)] or chosen
    if len(chosen) > 1:
        shown = ", ".join(f"{what}/{file}" for file in sorted(chosen)[:_SHOWN])
        raise CheckpointError(f"{what} holds {len(chosen)} files of tensors; name one: {shown}")
    return chosen[0]


def _is_model(name: str) -> bool:
    return name.endswith(known_suffixes()) and not name.startswith(_NO_MODEL)
