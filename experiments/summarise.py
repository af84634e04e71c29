"""``python -m experiments.summarise RUNS``: print and write the tables of finished runs.

Prints one table; with ``--output`` also writes ``summary.md`` with all tables of conditions,
``layers.md`` with every layer, their numbers as CSV files, and figures.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

__all__ = ["main"]

_WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Read runs, print their table, write the rest.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit status: 1 if there was nothing to summarise, told on the standard error.
    """
    options = _parser().parse_args(arguments)
    try:
        _summarise(options.runs, options.output)
    except (FileNotFoundError, ValueError) as error:
        print(f"experiments.summarise: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.summarise",
        description="Mean ± sd over seeds of every condition below the folders of finished runs.",
        epilog="Example: python -m experiments.summarise multirun/width --output outputs/width",
    )
    parser.add_argument(
        "runs", metavar="RUNS", nargs="+", type=Path, help="a folder of runs, as multirun/emergence"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where to write tables and figures"
    )
    return parser


def _summarise(folders: Sequence[Path], output: Path | None) -> None:
    # torch and pandas take seconds to import: --help and typing errors need not wait for them.
    from experiments.summaries.runs import found
    from experiments.summaries.tables import CAPTION, Study, relation, summary
    from experiments.summaries.text import layers_markdown, markdown, terminal_table

    runs, unfinished = found(folders)
    made = Study(runs)
    rows = summary(made)
    console = Console(width=min(_WIDTH, Console().width) if sys.stdout.isatty() else _WIDTH)
    console.print(terminal_table(rows))
    console.print(f"\n{CAPTION}", highlight=False, markup=False)
    for row in relation(made).to_dict("records"):
        line = f"Spearman's ρ of accuracy and gap, {row['kind']}: {row['spearman']:.2f}"
        console.print(f"{line} ({row['runs']} runs)", highlight=False)
    if unfinished:
        text = f"{len(unfinished)} runs are not finished, the first: {unfinished[0]}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if output is None:
        return
    from experiments.summaries.figures import draw

    output.mkdir(parents=True, exist_ok=True)
    figures = draw(made, rows, output)
    (output / "summary.md").write_text(markdown(made, rows, folders, figures))
    (output / "layers.md").write_text(layers_markdown(made))
    rows.to_csv(output / "conditions.csv", index=False)
    made.streams.to_csv(output / "streams.csv", index=False)
    console.print(
        f"written: {output / 'summary.md'}", highlight=False, markup=False, soft_wrap=True
    )


if __name__ == "__main__":
    sys.exit(main())
