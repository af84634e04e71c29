"""The report: runs in, one self-contained HTML file out.

====================  =========================================================================
`runs`                find and read datasets
`parameters`          find what was chosen for a run
`answer`              answer a run's question in a sentence, sum up each kind of streams
`streams`             the table of all streams of the main instrument
`instrument_table`    the table of any other instrument, from what its files say of their columns
`scale_laws`          the law of the scales of rows and columns, pooled over layers
`table`               headings, cells and sparklines of both
`densities`           the density of each stream with its laws, drawn on demand
`charts`              the figures of the whole network
`compare`             several runs side by side
`names`               names that tell runs apart, and attempts at one run
`page`                put all into the templates
====================  =========================================================================
"""

from jaynes_callbacks._extras import require_extra

with require_extra("report", "the report"):
    from jaynes_callbacks.report.page import write_report
    from jaynes_callbacks.report.runs import Run, find_datasets, newest_part, read_run

__all__ = ["Run", "find_datasets", "newest_part", "read_run", "write_report"]
