"""Run folders in, one self-contained HTML page out.

Nothing of a network is needed to read a run: its recipe, curves, accuracies and scores are files.
`vsn.report.illustrate` adds what does need it: costs, best and worst videos, heat maps. The page loads
nothing from anywhere else and reads in light and dark, on a wide screen and on a phone. What a run lacks
is said, with the command that makes it.
"""

from vsn.report.page import write_page, write_report
from vsn.report.runs import ReportError, Run, read_runs

__all__ = ["ReportError", "Run", "read_runs", "write_page", "write_report"]
