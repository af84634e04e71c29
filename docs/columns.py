"""Write docs/columns.md, every column of every instrument's records, from their schemas.

``python docs/columns.py``
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from jaynes_callbacks.instruments import KNOWN
from jaynes_callbacks.records.schema import Column, Schema

__all__ = ["page"]

TARGET = Path(__file__).with_suffix(".md")
INTRODUCTION = """\
# The columns of a record

Written by `python docs/columns.py` from the schemas; do not edit it. A dataset's Parquet files say
the same of themselves, in the metadata of each column. Formulas and errors are on the page
[statistics.md](statistics.md).

Units: `w` is the unit of the values themselves, `ln w` a place on the axis of their logarithm, `1`
a pure number. A real number is nan where it is undefined; `status` then gives the reason. It is
null where a row has no such entry: `vuong_z_generalized_gamma` always is, since that family
contains the lognormal and so is no rival of it.

**Invariant** columns stay as they are when neurons are rescaled: the weights into a ReLU multiplied
by a positive number and those out of it divided by it, which changes no output of the network. Of
`core_…` this holds for rows of weights; `tests/instruments/test_gauge.py` holds every instrument to
what it says here.
"""


def page() -> str:
    """Return the page: a section for each instrument that can be asked for by name."""
    schemas = [_schema(place) for place in KNOWN.values()]
    main = next(each for each in schemas if each.main)
    return "\n".join([INTRODUCTION, *(_section(each, main) for each in schemas)])


def _schema(place: str) -> Schema[object]:
    """Return the schema of the instrument at ``module:class``."""
    module, name = place.split(":")
    schema: Schema[object] = getattr(import_module(module), name).schema
    return schema


def _section(schema: Schema[object], main: Schema[object]) -> str:
    """Return a heading, where the rows are, and the table of columns."""
    folder = "jaynes/" if schema.main else f"jaynes/_{schema.instrument}/"
    columns: Sequence[Column] = schema.columns
    about = f"Instrument `{schema.instrument}`; its rows are in `{folder}`."
    if schema is not main and set(main.columns) <= set(columns):
        columns = [each for each in columns if each not in main.columns]
        about += f" It has all columns of `{main.instrument}`{', and:' if columns else '.'}"
    invariant = ", ".join(f"`{each}`" for each in schema.invariant) or "none"
    curves = ", ".join(f"`{each.tag_of('<kind>')}/<stream>`" for each in schema.curves)
    lines = [f"## {schema.title}\n", f"{about}\n"]
    if columns:
        lines += ["| column | unit | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{each.name}` | {_cell(each.unit)} | {_cell(each.meaning)} |" for each in columns]
    lines += [""] if columns else []
    lines += [f"Curves in loggers: {curves}.\n", f"Invariant: {invariant}.\n"]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Return a text as a table of Markdown holds it."""
    for character in "|*_<":
        text = text.replace(character, f"\\{character}")
    return text or "–"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
