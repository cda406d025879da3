"""Report on run folders: one self-contained HTML page.

Reading a run needs no torch: its recipe, curves, results and scores are files. `vsn.report.illustrate` adds what does
need it: costs, best and worst videos, heat maps. The page loads nothing from the network, and reads in light and dark,
on a wide screen and on a phone. Where a run lacks something, the page shows the command that makes it.
"""

from vsn.report.page import write_page, write_report
from vsn.report.runs import ReportError, ReportRun, read_runs
from vsn.report.watch import watch_report

__all__ = ["ReportError", "ReportRun", "read_runs", "watch_report", "write_page", "write_report"]
