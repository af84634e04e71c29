"""The report: runs in, one self-contained HTML file out.

`runs` finds and reads them, `answer` says what came of one, `rows`, `densities` and `charts` make
what is shown of it, `compare` holds several side by side, `page` puts all into the templates.
"""

from jaynes_callbacks.report.page import write_report
from jaynes_callbacks.report.runs import Run, find_datasets, newest_part, read_run

__all__ = ["Run", "find_datasets", "newest_part", "read_run", "write_report"]
