"""``python -m experiments.survey_table FOLDER``: print one table of all models of a survey.

With ``--output`` also writes ``rows.parquet`` and ``rows.csv``, the rows of all models, and
``models.csv``, the table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["main"]

_WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the jobs' rows, print their table, name the models that could not be read.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit status: 1 if there was nothing to show, or a model is missing or incomplete.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.survey_table",
        description="One table of the models that python -m experiments.survey measured.",
        epilog="Example: python -m experiments.survey_table multirun/survey --output survey",
    )
    parser.add_argument("survey", metavar="FOLDER", type=Path, help="as multirun/survey")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where to write rows and table")
    options = parser.parse_args(arguments)
    return _show(options.survey, options.output)


def _show(survey: Path, output: Path | None) -> int:
    # pandas takes a second to import: --help need not wait for it.
    import pandas as pd
    from rich.console import Console

    from experiments.result import FILE
    from experiments.survey import FAILED, ROWS

    jobs = sorted(path for path in survey.glob("*/") if path.name != ".submitit")
    frames = [pd.read_parquet(job / ROWS) for job in jobs if (job / ROWS).is_file()]
    failed = [line for job in jobs for line in _lines(job / FAILED)]
    unfinished = [job for job in jobs if not any((job / name).is_file() for name in (FILE, FAILED))]
    failed += [f"not finished: {job}" for job in unfinished]
    if not frames and not failed:
        failed = [f"there is no job of a survey in {survey}"]
    if frames:
        rows = pd.concat(frames, ignore_index=True)
        models = _models(rows)
        console = Console(width=min(_WIDTH, Console().width) if sys.stdout.isatty() else _WIDTH)
        console.print(_terminal_table(models))
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(output / ROWS)
            rows.drop(columns="counts", errors="ignore").to_csv(output / "rows.csv", index=False)
            models.to_csv(output / "models.csv", index=False)
            text = f"written: {output / 'models.csv'}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    for line in failed:
        print(f"experiments.survey_table: {line}", file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def _models(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per model: medians over its weights, and the law that fits most of them."""
    of_models = rows.groupby("run", sort=False)
    medians = of_models[["gap", "core_gap", "paper_r2"]].median()
    found = medians.rename(columns={name: f"{name}_median" for name in medians})
    found.insert(0, "weights", of_models.size())
    found.insert(1, "n", of_models["n"].sum())
    found["best_family"] = of_models["best_family"].agg(lambda each: each.mode().iloc[0])
    return found.rename_axis("model").reset_index()


def _terminal_table(models: "pd.DataFrame") -> object:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from jaynes_callbacks.instruments.record import family_label
    from jaynes_callbacks.records.text import count_text, number_text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for heading in ("weights", "n", "gap\nin nats", "core", "R²"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("best family\nof most", no_wrap=True)
    for row in models.to_dict("records"):
        table.add_row(
            Text(str(row["model"]), overflow="fold"),
            str(row["weights"]),
            count_text(row["n"]),
            number_text(row["gap_median"], 3),
            number_text(row["core_gap_median"], 3),
            number_text(row["paper_r2_median"], 2),
            family_label(row["best_family"]),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
