"""``python -m experiments.survey``: measure finished networks, one job of a sweep for each."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from jaynes_callbacks.instruments.record import Records

__all__ = ["CSV", "FAILED", "ROWS", "folder_name", "main", "survey"]

#: Files in the folder of a job: the rows of its model, and the sentence on what could not be read.
ROWS, CSV, FAILED = "rows.parquet", "rows.csv", "failed.txt"
#: Characters of a job's overrides that its folder's name shows.
_SHOWN = 60


def folder_name(overrides: str) -> str:
    """Return a name for the folder of a job: the end of its overrides, and a hash of them.

    Args:
        overrides: of the job, such as ``checkpoint=/models/a.safetensors,min_size=100``.

    Example:
        >>> folder_name("checkpoint=hf://org/name@step1000")
        'checkpoint=hf_org_name@step1000-c687e608'
    """
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:8]
    safe = re.sub(r"[^\w.@=,-]+", "_", overrides)
    return f"{safe[-_SHOWN:].lstrip('._-')}-{digest}"


# Workers import this module to call `main`, and so know the resolver, too.
OmegaConf.register_new_resolver("survey_folder", folder_name, replace=True)


@hydra.main(
    version_base="1.3",
    config_path=str(Path(__file__).resolve().parents[1] / "conf"),
    config_name="survey",
)
def main(cfg: DictConfig) -> None:
    """Measure one model.

    Args:
        cfg: composed by Hydra from ``conf/survey.yaml`` and the command line.
    """
    survey(cfg)


def survey(cfg: DictConfig) -> None:
    """Measure one model, and write its rows; or say that this was done before.

    Rows of a model of which parts could not be read are written, too; but the job has failed, and
    is done again when the sweep is started again.

    Raises:
        ConfigError: for what cannot be read and for wrong values, in one sentence, which is also
            written to the job's folder.
    """
    # torch takes seconds to import: --help and typing errors need not wait for it.
    import time

    from experiments.errors import ConfigError
    from experiments.result import FILE, Result, choices, finished, identity, versions
    from jaynes_callbacks.instruments.record import SCHEMA, aggregates
    from jaynes_callbacks.records.exports import open_export

    folder = Path(cfg.paths.output_dir)
    if finished(cfg, folder) is not None:
        _say(f"finished before, skipped: {folder / FILE}")
        return
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILED).unlink(missing_ok=True)
    try:
        records, problems = _measured(cfg)
    except ConfigError as error:
        (folder / FAILED).write_text(f"{error}\n")
        raise
    for name in (ROWS, CSV):
        with open_export(folder / name, name.rpartition(".")[2], SCHEMA) as export:
            export.write(records)
    if problems:
        (folder / FAILED).write_text("".join(f"{problem}\n" for problem in problems))
        raise ConfigError("; ".join(problems))
    seconds = time.monotonic() - began
    Result(identity(cfg), choices(), aggregates(records), ROWS, seconds, versions()).write(folder)
    _say(f"{cfg.checkpoint}: {len(records)} weights, rows in {folder / ROWS}")


def _measured(cfg: DictConfig) -> "tuple[Records, list[str]]":
    """Return a model's records, and a sentence for each part of it that cannot be read."""
    import warnings

    import torch

    from experiments.check import positive_int
    from experiments.errors import one_sentence
    from jaynes_callbacks.api import measure_checkpoint
    from jaynes_callbacks.files import CheckpointError

    with one_sentence("threads"):
        torch.set_num_threads(positive_int("their number", cfg.threads))
    with (
        one_sentence("checkpoint", CheckpointError),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        options = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(options, dict)
        names = ("include", "exclude", "min_size", "device", "max_expanded", "paper_bins", "scales")
        records = measure_checkpoint(str(cfg.checkpoint), **{name: options[name] for name in names})
    return records, [str(each.message) for each in caught if each.category is UserWarning]


def _say(text: str) -> None:
    from rich.console import Console

    # On one line at any width, so that the path can be copied.
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    # By its name in this module, under which workers can import it.
    from experiments.survey import main as by_name

    by_name()
